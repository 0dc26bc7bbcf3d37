import os
import sys
import tracemalloc
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import VAE, images, networks
from keras_gen.callbacks.chief import is_chief
from keras_gen.callbacks.pictures import ReconstructionGrid, SampleGrid

IMAGE_SHAPE = (6, 5, 1)


class Painter(keras.Model):
    """Uniform noise times a weight, which training lowers if it has a rate."""

    def __init__(self, image_shape=IMAGE_SHAPE, rate=0.0):
        super().__init__()
        self.image_shape = image_shape
        self.rate = rate
        self.brightness = self.add_weight(initializer="ones")
        self.built = True
        self.calls = []
        self.compile(optimizer=None)

    def train_step(self, data):
        self.brightness.assign_sub(self.rate)
        return {"loss": self.brightness.value}

    def sample(self, num_samples, *, condition=None, seed=None):
        self.calls.append((num_samples, condition, seed))
        shape = (num_samples, *self.image_shape)
        return self.brightness * keras.random.uniform(shape, seed=seed)

    def reconstruct(self, x):
        x = tf.convert_to_tensor(x)
        scale = 255 if x.dtype == tf.uint8 else 1
        return 0.25 * self.brightness * tf.cast(x, "float32") / scale


class Classifier(keras.Model):
    """Has none of the verbs."""

    def train_step(self, data):
        pytest.fail("training started")


def fit(model, callback, epochs=3, num_steps=2, **kwargs):
    x = np.zeros((2 * num_steps, *IMAGE_SHAPE), "float32")
    model.fit(
        x,
        batch_size=2,
        epochs=epochs,
        verbose=0,
        callbacks=callback,
        **kwargs,
    )


def decode(path):
    return tf.io.decode_png(path.read_bytes()).numpy()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def events(directory):
    """`(tag, step, picture)` of every image that TensorBoard would show."""
    (path,) = directory.iterdir()
    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            _, _, *pngs = tf.make_ndarray(value.tensor)
            (picture,) = map(tf.io.decode_png, pngs)
            found.append((value.tag, event.step, picture.numpy()))
    return found


def fake_model(task_type, task_id, jobs=("worker",)):
    cluster = tf.train.ClusterSpec({job: ["a:1", "b:1"] for job in jobs})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type=task_type, task_id=task_id
    )
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    return types.SimpleNamespace(
        distribute_strategy=strategy,
        sample=lambda *args, **kwargs: pytest.fail("sampled"),
    )


def test_every_epoch_ends_with_a_grid_of_samples(tmp_path):
    model = Painter()
    fit(model, SampleGrid(tmp_path / "new" / "folder", 6, seed=3))

    directory = tmp_path / "new" / "folder"
    assert names(directory) == [
        "epoch_0001.png",
        "epoch_0002.png",
        "epoch_0003.png",
        "samples.png",
    ]
    # 6 images as 2 rows of 3, with 2 pixels around each.
    picture = decode(directory / "epoch_0001.png")
    assert picture.shape == (2 * 8 + 2, 3 * 7 + 2, 1)
    np.testing.assert_array_equal(picture, images.grid(model.sample(6, seed=3)))


def test_an_unchanged_model_draws_the_same_bytes_in_every_run(tmp_path):
    for run in ("a", "b"):
        fit(Painter(), SampleGrid(tmp_path / run, 4, seed=1))
    drawn = {path.read_bytes() for path in tmp_path.glob("*/*.png")}
    assert len(drawn) == 1

    fit(Painter(), SampleGrid(tmp_path / "c", 4, seed=2))
    assert (tmp_path / "c" / "samples.png").read_bytes() not in drawn


def test_newest_copy_follows_a_model_that_changes(tmp_path):
    fit(Painter(rate=0.1), SampleGrid(tmp_path, 4))
    newest = (tmp_path / "samples.png").read_bytes()
    assert newest == (tmp_path / "epoch_0003.png").read_bytes()
    assert newest != (tmp_path / "epoch_0002.png").read_bytes()


def test_every_skips_epochs_and_a_resumed_fit_keeps_their_numbers(tmp_path):
    fit(Painter(), SampleGrid(tmp_path, 4, every=2), epochs=5)
    assert names(tmp_path) == [
        "epoch_0002.png",
        "epoch_0004.png",
        "samples.png",
    ]
    fit(Painter(), SampleGrid(tmp_path, 4, every=2), initial_epoch=5, epochs=6)
    assert "epoch_0006.png" in names(tmp_path)


def test_model_is_asked_for_the_same_latents_and_conditions(tmp_path):
    model = Painter()
    fit(model, SampleGrid(tmp_path, 3, seed=7, condition=range(3)), epochs=2)
    # Before training and after each of two epochs.
    calls = [(n, list(c), s) for n, c, s in model.calls]
    assert calls == [(3, [0, 1, 2], 7)] * 3


def test_num_columns_shapes_the_grid(tmp_path):
    fit(Painter(), SampleGrid(tmp_path, 6, num_columns=6), epochs=1)
    assert decode(tmp_path / "samples.png").shape == (8 + 2, 6 * 7 + 2, 1)


def test_grids_between_epochs_are_numbered_by_the_steps_of_the_run(tmp_path):
    callback = SampleGrid(tmp_path, 4, every=9, every_steps=4)
    fit(Painter(), callback, epochs=2, num_steps=6)
    assert names(tmp_path) == [
        "samples.png",
        "step_00000004.png",
        "step_00000008.png",
        "step_00000012.png",
    ]


def test_steps_before_a_resume_count(tmp_path):
    callback = SampleGrid(tmp_path, 4, every=9, every_steps=4)
    fit(Painter(), callback, initial_epoch=1, epochs=2, num_steps=6)
    assert names(tmp_path) == [
        "samples.png",
        "step_00000008.png",
        "step_00000012.png",
    ]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_steps_of_a_data_set_of_unknown_length_go_on_counting(tmp_path):
    dataset = tf.data.Dataset.range(6).filter(lambda _: True)
    callback = SampleGrid(tmp_path, 4, every=9, every_steps=4)
    Painter().fit(
        dataset, epochs=2, shuffle=False, verbose=0, callbacks=callback
    )
    assert "step_00000004.png" in names(tmp_path)
    assert "step_00000008.png" in names(tmp_path)


def test_several_steps_per_execution_do_not_hide_a_grid(tmp_path):
    model = Painter()
    model.compile(optimizer=None, steps_per_execution=3)
    callback = SampleGrid(tmp_path, 4, every=9, every_steps=4)
    fit(model, callback, epochs=2, num_steps=6)
    # Keras calls after steps 3, 6, 9 and 12: the first after 4, 8 and 12.
    assert names(tmp_path) == [
        "samples.png",
        "step_00000006.png",
        "step_00000009.png",
        "step_00000012.png",
    ]


def test_an_execution_longer_than_the_epoch_ends_with_it(tmp_path):
    model = Painter()
    model.compile(optimizer=None, steps_per_execution=50)
    callback = SampleGrid(tmp_path, 4, every=9, every_steps=2)
    fit(model, callback, epochs=2, num_steps=3)
    assert names(tmp_path) == [
        "samples.png",
        "step_00000003.png",
        "step_00000006.png",
    ]


def test_batches_that_a_resumed_fit_skips_are_not_drawn(tmp_path):
    class SkipsFive(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.resuming = batch < 5

    callback = SampleGrid(tmp_path, 4, every=9, every_steps=2)
    fit(Painter(), [SkipsFive(), callback], epochs=1, num_steps=8)
    assert names(tmp_path) == [
        "samples.png",
        "step_00000006.png",
        "step_00000008.png",
    ]


def test_grids_by_epoch_do_not_make_keras_wait_for_each_batch(tmp_path):
    assert SampleGrid(tmp_path).async_safe
    assert not SampleGrid(tmp_path, every_steps=1).async_safe


def test_rows_are_original_reconstruction_and_difference(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (3, *IMAGE_SHAPE), "uint8")
    fit(Painter(), ReconstructionGrid(tmp_path, x), epochs=2)

    assert names(tmp_path) == [
        "reconstruction_0001.png",
        "reconstruction_0002.png",
        "reconstructions.png",
    ]
    picture = decode(tmp_path / "reconstruction_0001.png").astype(int)
    assert picture.shape == (3 * 8 + 2, 3 * 7 + 2, 1)
    for i in range(3):
        original, reconstruction, difference = (
            picture[2 + 8 * row : 8 + 8 * row, 2 + 7 * i : 7 + 7 * i]
            for row in range(3)
        )
        np.testing.assert_array_equal(original, x[i])
        np.testing.assert_allclose(reconstruction, 0.25 * x[i], atol=0.51)
        np.testing.assert_allclose(difference, 0.75 * x[i], atol=0.51)


def test_opacity_does_not_hide_the_difference(tmp_path):
    callback = ReconstructionGrid(tmp_path, np.ones((2, 4, 4, 4), "float32"))
    callback.set_model(types.SimpleNamespace(reconstruct=lambda x: x))
    difference = callback.draw()[-6:-2, 2:6]
    assert np.all(difference[..., :3] == 0) and np.all(difference[..., 3] > 0)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_first_images_of_a_data_set_are_drawn(tmp_path, labels, batch_size):
    x = np.random.default_rng(0).random((7, *IMAGE_SHAPE), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, range(7)) if labels else x)
    if batch_size:
        dataset = dataset.batch(batch_size)
    np.testing.assert_array_equal(
        ReconstructionGrid(tmp_path, dataset, num_images=5).x, x[:5]
    )
    np.testing.assert_array_equal(
        ReconstructionGrid(tmp_path, x, num_images=5).x, x[:5]
    )


def test_both_callbacks_share_a_directory(tmp_path):
    x = np.zeros((1, *IMAGE_SHAPE), "uint8")
    callbacks = [SampleGrid(tmp_path, 4), ReconstructionGrid(tmp_path, x)]
    fit(Painter(), callbacks, epochs=1)
    assert names(tmp_path) == [
        "epoch_0001.png",
        "reconstruction_0001.png",
        "reconstructions.png",
        "samples.png",
    ]


def test_tensorboard_shows_each_grid_whole_under_one_tag(tmp_path):
    pytest.importorskip("tensorboard")
    x = np.zeros((2, *IMAGE_SHAPE), "float32")
    samples = SampleGrid(tmp_path / "a", 9, tensorboard=tmp_path / "logs_a")
    fit(Painter(), samples, epochs=2)
    pairs = ReconstructionGrid(
        tmp_path / "b", x, tensorboard=tmp_path / "logs_b"
    )
    fit(Painter(), pairs, epochs=1)

    first, second = events(tmp_path / "logs_a")
    assert first[:2] == ("samples", 1)
    assert second[:2] == ("samples", 2)
    np.testing.assert_array_equal(
        second[2], decode(tmp_path / "a" / "epoch_0002.png")
    )
    assert [event[:2] for event in events(tmp_path / "logs_b")] == [
        ("reconstructions", 1)
    ]


def test_a_fit_after_an_interrupted_one_closes_its_writer(tmp_path):
    pytest.importorskip("tensorboard")
    callback = SampleGrid(tmp_path / "a", 4, tensorboard=tmp_path / "logs")

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Painter(), [callback, Interrupt()])
    interrupted = callback.writer
    fit(Painter(), callback, epochs=1)
    assert callback.writer is None
    with pytest.raises(RuntimeError, match="closed"):
        interrupted.as_default().__enter__()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux")
def test_long_runs_open_no_more_files_and_keep_no_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    files, memory = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            files.append(len(os.listdir("/proc/self/fd")))
            memory.append(tracemalloc.get_traced_memory()[0])

    x = np.zeros((4, 32, 32, 3), "float32")
    callbacks = [  # grids of 250 and 40 kB
        SampleGrid(tmp_path, 64, tensorboard=tmp_path / "a"),
        ReconstructionGrid(tmp_path, x, tensorboard=tmp_path / "b"),
        Watch(),
    ]
    tracemalloc.start()
    try:
        fit(Painter((32, 32, 3)), callbacks, epochs=20)
    finally:
        tracemalloc.stop()
    assert files[1] == files[-1]
    assert memory[-1] - memory[4] < 500_000  # 15 grids are 4,350,000


def test_nothing_is_printed(tmp_path, capsys):
    x = np.zeros((1, *IMAGE_SHAPE), "uint8")
    fit(Painter(), [SampleGrid(tmp_path, 4), ReconstructionGrid(tmp_path, x)])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("task_type", "task_id", "jobs", "expected"),
    [
        ("worker", 0, ("worker",), True),
        ("worker", 1, ("worker",), False),
        ("worker", 0, ("chief", "worker"), False),
        ("chief", 0, ("chief", "worker"), True),
        ("evaluator", 0, ("worker",), False),
    ],
)
def test_one_task_of_a_cluster_is_the_chief(task_type, task_id, jobs, expected):
    assert is_chief(fake_model(task_type, task_id, jobs)) == expected


def test_a_model_outside_a_cluster_is_the_chief(two_replicas):
    assert is_chief(Painter())
    with two_replicas.scope():
        assert is_chief(Painter())


def test_a_worker_that_is_not_the_chief_does_nothing(tmp_path):
    callback = SampleGrid(tmp_path / "a", 4, every_steps=1)
    callback.set_model(fake_model("worker", 1))
    callback.set_params({"steps": 1})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(0)
    callback.on_train_end()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "`num_samples` must be a positive integer, got 0"),
        ({"num_samples": 2.5}, "`num_samples` must be a positive integer"),
        ({"every": 0}, "`every` must be a positive integer, got 0"),
        ({"every": True}, "`every` must be a positive integer, got True"),
        ({"every_steps": -1}, "`every_steps` must be a positive integer"),
        ({"num_columns": 0}, "`num_columns` must be a positive integer"),
        ({"seed": None}, "`seed` must be an integer.*got None"),
        ({"condition": range(3)}, r"`condition`.*Expected 64.*\(3,\)"),
        ({"condition": 1}, r"`condition`.*Expected 64.*\(\)"),
    ],
)
def test_bad_arguments_of_sample_grid_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        SampleGrid(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 6, 5)), r"shape \(4, 6, 5\)"),
        (np.zeros((0, 6, 5, 1)), "`x`"),
        (np.full((1, 6, 5, 1), 255.0), "`x`.*255"),
        (np.full((1, 6, 5, 1), np.nan), "`x`.*NaN"),
        (np.full((1, 6, 5, 1), "a"), "`x`"),
        (None, "`x`"),
        (tf.data.Dataset.range(3), r"shape \(3,\)"),
        (
            tf.data.Dataset.from_tensor_slices(
                {"image": np.zeros((2, 6, 5, 1))}
            ),
            "elements of type dict",
        ),
    ],
)
def test_what_is_no_batch_of_images_is_refused(tmp_path, x, message):
    with pytest.raises(ValueError, match=message) as error:
        ReconstructionGrid(tmp_path, x)
    assert len(str(error.value)) <= 600


def test_num_images_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`num_images` must be a positive"):
        ReconstructionGrid(tmp_path, np.zeros((1, *IMAGE_SHAPE)), num_images=0)


def test_a_model_without_the_verb_is_refused_before_it_trains(tmp_path):
    model = Classifier()
    model.compile(optimizer=None)
    x = np.zeros((1, *IMAGE_SHAPE), "uint8")
    with pytest.raises(ValueError, match=r"SampleGrid.*`sample`.*Classifier"):
        fit(model, SampleGrid(tmp_path))
    with pytest.raises(ValueError, match=r"`reconstruct`.*Classifier"):
        fit(model, ReconstructionGrid(tmp_path, x))
    model.sample, model.image_shape = print, None  # as those of a WaveNet
    with pytest.raises(ValueError, match=r"a model of images.*Classifier"):
        fit(model, SampleGrid(tmp_path))
    model.reconstruct, model.image_shape = print, (9, 9, 1)
    with pytest.raises(ValueError, match=r"`x`.*shape \(9, 9, 1\), got"):
        fit(model, ReconstructionGrid(tmp_path, x))
    with pytest.raises(ValueError, match=r"`directory`.*URL"):
        SampleGrid("gs://bucket/samples")


def test_a_directory_that_cannot_be_written_is_refused_before_training(
    tmp_path,
):
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file, file / "folder", tmp_path / ("x" * 1000)):
        model = Painter(rate=1.0)
        with pytest.raises(ValueError, match="`directory`") as error:
            fit(model, SampleGrid(directory))
        assert len(str(error.value)) <= 600
        assert model.brightness == 1.0


def picky(condition):
    if condition is None or np.max(condition) > 9:
        raise ValueError(f"`condition` must be classes, got {condition}.")


class Picky(Painter):
    """Knows ten classes."""

    def sample(self, num_samples, *, condition=None, seed=None):
        picky(condition)
        return super().sample(num_samples, condition=condition, seed=seed)

    def reconstruct(self, x, *, condition=None):
        picky(condition)
        return super().reconstruct(x)


def test_what_the_model_will_not_draw_is_refused_before_training(tmp_path):
    x = np.zeros((2, *IMAGE_SHAPE), "uint8")
    for callback in (
        SampleGrid(tmp_path),
        SampleGrid(tmp_path, condition=range(64)),
        ReconstructionGrid(tmp_path, x),
    ):
        model = Picky(rate=1.0)
        with pytest.raises(ValueError, match=r"Grid` cannot.*`condition`.*got"):
            fit(model, callback)
        assert model.brightness == 1.0
    model = Painter(rate=1.0)  # whose `reconstruct` takes no condition at all
    with pytest.raises(ValueError, match=r"cannot draw.*'condition'"):
        fit(model, ReconstructionGrid(tmp_path, x, condition=[0, 1]))
    assert model.brightness == 1.0
    assert names(tmp_path) == []


def test_condition_of_a_model_of_ours_is_checked_before_training(tmp_path):
    vae = VAE(
        (4, 4, 1),
        2,
        num_classes=10,
        encoder=networks.mlp_encoder((4, 4, 1), 4, (8,), condition_dim=10),
        decoder=networks.mlp_decoder(2, (4, 4, 1), (8,), condition_dim=10),
    )
    vae.compile(jit_compile=False)
    x = np.random.default_rng(0).random((4, 4, 4, 1), "float32")
    before = [np.array(v) for v in vae.variables]
    for callback, message in (
        (ReconstructionGrid(tmp_path, x), "`condition`.*got `None`"),
        (SampleGrid(tmp_path, condition=range(64)), "from 0 to 63"),
    ):
        with pytest.raises(ValueError, match=message):
            vae.fit(x, np.arange(4), verbose=0, callbacks=[callback])
    # Drawing takes nothing from the random streams either.
    callback = SampleGrid(tmp_path, 4)
    callback.set_model(vae)
    callback.on_train_begin()
    for a, b in zip(before, vae.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_full_disk_is_one_warning_and_training_goes_on(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, path):
        if "0002" in path or "0003" in path:
            raise OSError(28, "No space left on device")
        replace(source, path)

    monkeypatch.setattr(os, "replace", full)
    model = Painter(rate=0.125)
    with pytest.warns(UserWarning, match="left on device") as caught:
        fit(model, SampleGrid(tmp_path, 4))
    (message,) = [str(warning.message) for warning in caught]
    assert "`SampleGrid` could not write" in message
    assert "epoch_0002.png" in message and len(message) <= 600
    assert model.brightness == 1 - 6 * 0.125
    assert names(tmp_path) == ["epoch_0001.png", "samples.png"]
    with pytest.warns(UserWarning, match="left on device"):
        fit(Painter(), SampleGrid(tmp_path, 4), epochs=2)  # each `fit`


def test_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"keras_gen\[tensorboard\]"):
        SampleGrid(tmp_path, tensorboard=tmp_path)
    SampleGrid(tmp_path)
