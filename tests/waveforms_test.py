import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import waveforms


def noise(shape=(4, 8)):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.mark.parametrize("kind", [np.asarray, tf.constant, tf.Variable])
def test_waveforms_come_back_as_float32(kind):
    for dtype in ("float16", "float32", "float64"):
        x = noise().astype(dtype)
        checked = waveforms.check_waveforms(kind(x), 8)
        assert checked.dtype == "float32"
        np.testing.assert_array_equal(checked, x.astype("float32"))


BAD = [
    (None, "None"),
    ("clips", "load_audio"),
    ({"audio": noise()}, "audio"),
    ([0.1, 0.2], "np.asarray"),
    (noise()[0], "batch axis"),
    (noise()[..., None], r"x\[..., 0\]"),
    (noise((4, 8, 2)), "one channel"),
    (noise((4, 9)), "Cut or pad"),
    (noise((0, 8)), "at least one"),
    ((noise() * 32767).astype("int16"), "32768"),
    (noise() * 32767, "32768"),
    (noise() * 1.05, "np.clip"),
    (noise() * 1e6, "largest value"),
    (np.where(noise() > 0.9, np.nan, noise()), "NaN"),
    (np.where(noise() > 0.9, np.inf, noise()), "infinite"),
]


@pytest.mark.parametrize("bad, word", BAD)
def test_what_is_no_batch_of_waveforms_is_refused(bad, word):
    checks = [
        lambda: waveforms.check_waveforms(bad, 8, "sound"),
        lambda: waveforms.check_data(bad, num_samples=8, argument="sound"),
    ]
    if hasattr(bad, "shape") and len(bad):
        data = tf.data.Dataset.from_tensors(bad)
        checks.append(
            lambda: waveforms.check_data(data, num_samples=8, argument="sound")
        )
    for check in checks:
        with pytest.raises(ValueError, match=f"`sound`.*{word}") as error:
            check()
        assert len(str(error.value)) <= 600


@pytest.mark.parametrize("dtype", ["datetime64[s]", "object"])
def test_arrays_that_tensorflow_cannot_hold_are_refused(dtype):
    with pytest.raises(ValueError, match=f"`x`.*dtype {dtype[:6]}"):
        waveforms.check_waveforms(np.zeros((4, 8), dtype), 8)


def test_what_models_can_be_trained_on_is_taken():
    x, y = noise(), np.arange(4)
    asked = []

    def check(y, batch):
        asked.append((np.array(y).tolist(), batch))

    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    for arguments in ((x, y), (data,), (Batches([(x, y)]),)):
        waveforms.check_data(*arguments, num_samples=8)
        waveforms.check_data(*arguments, num_samples=8, check_condition=check)
    assert asked == [([0, 1, 2, 3], 4)] * 3
    waveforms.check_data(data.map(lambda x, y: x), num_samples=8)


def test_what_models_cannot_be_trained_on_is_refused():
    x, y = noise(), np.arange(4)
    data = tf.data.Dataset.from_tensor_slices(x)
    weighted = tf.data.Dataset.from_tensors((x, y, y))
    for arguments, word in (
        ((data.batch(9, drop_remainder=True),), "at least one batch"),
        ((Batches([]),), "at least one batch"),
        ((data,), "batch axis"),
        ((data.batch(2), y), "beside a dataset"),
        ((weighted,), "weights"),
        ((x, y[:2]), "one entry per waveform"),
    ):
        with pytest.raises(ValueError, match=word):
            waveforms.check_data(*arguments, num_samples=8)


def test_of_symbolic_tensors_the_shape_is_checked():
    @tf.function
    def check(x, frames):
        x = waveforms.check_waveforms(x, 8)
        return x, waveforms.check_frames(frames, None, (2, 3))

    x, frames = check(noise() * 7, tf.zeros((4, 2, 3), "float64"))
    assert x.dtype == frames.dtype == "float32"
    with pytest.raises(ValueError, match="shape"):
        check(noise()[:, :7], tf.zeros((4, 2, 3)))
    with pytest.raises(ValueError, match="frame_length"):
        check(noise(), tf.zeros((4, 3, 3)))


def test_a_graph_may_not_know_the_rank():
    @tf.function(input_signature=[tf.TensorSpec(None)])
    def check(x):
        return waveforms.check_waveforms(x, 8)

    assert check(noise()).shape == (4, 8)


def test_waveforms_of_different_lengths_are_refused():
    data = tf.data.Dataset.from_generator(
        lambda: iter([noise()[0], noise()[0, :5]]),
        output_signature=tf.TensorSpec([None]),
    )
    with pytest.raises(ValueError, match=r"`sound`.*differ in length"):
        waveforms.check_data(data.batch(2), num_samples=8, argument="sound")


@pytest.mark.parametrize(
    "bad, word",
    [
        (None, "None"),
        (np.zeros((4, 3)), "shape"),
        (np.zeros((3, 2, 3)), "shape"),
        (np.full((4, 2, 3), np.nan), "finite"),
        (np.full((4, 2, 3), 1e39), "finite in float32"),
        ([[[1.0]], [[1.0], [2.0]]], "lengths"),
        (np.full((4, 2, 3), "a"), "dtype"),
        (np.zeros((4, 2, 3), "datetime64[s]"), "dtype datetime64"),
    ],
)
def test_what_are_no_frames_is_refused(bad, word):
    with pytest.raises(ValueError, match=f"`y`.*{word}"):
        waveforms.check_frames(bad, 4, (2, 3), "y")
