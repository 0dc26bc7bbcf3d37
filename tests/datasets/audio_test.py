import wave

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_gen.datasets import load_audio


def write(path, samples, rate=8000, channels=1, width=2):
    path.parent.mkdir(exist_ok=True, parents=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, f"<i{width}").tobytes())


def stack(dataset):
    return np.stack(list(dataset.as_numpy_iterator()))


def test_clips_are_cut_into_whole_waveforms(tmp_path):
    write(tmp_path / "b.wav", np.arange(11) * 1000)
    write(tmp_path / "sub" / "c.WAV", [-32768, 32767, 0, 1, 2])
    write(tmp_path / "short.wav", [7, 7])
    x = stack(load_audio(tmp_path, num_samples=4))
    assert x.dtype == "float32"
    expected = [[0, 1000, 2000, 3000], [4000, 5000, 6000, 7000]]
    expected.append([-32768, 32767, 0, 1])
    rows = sorted((x * 32768).astype(int).tolist())
    assert rows == sorted(expected)


def test_training_is_shuffled_anew_and_repeatably_and_tests_are_not(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split / "a.wav", np.arange(100))
    train = load_audio(tmp_path, num_samples=2, batch_size=8)
    first, second = stack(train), stack(train)
    assert first.shape == (6, 8, 2) and train.cardinality() == 6
    assert np.any(first != second)
    again = load_audio(str(tmp_path), num_samples=2, batch_size=8)
    np.testing.assert_array_equal(first, stack(again))
    test = list(load_audio(tmp_path, "test", num_samples=2, batch_size=8))
    assert [len(x) for x in test] == [8] * 6 + [2]
    np.testing.assert_array_equal(
        np.concatenate(test).ravel() * 32768, np.arange(100)
    )


def test_sets_of_tfds_are_read(tmp_path):
    clips = [np.arange(9), np.arange(5) - 3]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="clips",
        version="1.0.0",
        data_dir=tmp_path,
        features=tfds.features.FeaturesDict(
            {"audio": tfds.features.Tensor(shape=(None,), dtype=np.int16)}
        ),
        split_datasets={
            "test": [
                (i, {"audio": clip.astype("int16")})
                for i, clip in enumerate(clips)
            ]
        },
    )
    x = stack(load_audio("clips", "test", num_samples=4, data_dir=tmp_path))
    rows = sorted((x * 32768).astype(int).tolist())
    assert rows == [[-3, -2, -1, 0], [0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="`split`"):
        load_audio("clips", "train", num_samples=4, data_dir=tmp_path)


def test_what_cannot_be_read_is_named(tmp_path):
    one = tmp_path / "one"
    write(one / "a.wav", np.arange(8))
    for folder, problem in (
        ("stereo", {"channels": 2}),
        ("bits", {"width": 4}),
    ):
        write(tmp_path / folder / "a.wav", np.arange(8), **problem)
        with pytest.raises(ValueError, match=r"a\.wav"):
            load_audio(tmp_path / folder, num_samples=2)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    for folder, word in (("text", r"a\.wav"), ("empty", "none")):
        with pytest.raises(ValueError, match=word):
            load_audio(tmp_path / folder, num_samples=2)
    cut = (one / "a.wav").read_bytes()[:-3]
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.wav").write_bytes(cut)
    with pytest.raises(ValueError, match=r"an early end.*a\.wav"):
        load_audio(tmp_path / "cut", num_samples=2)
    write(one / "b.wav", np.arange(8), rate=16000)
    with pytest.raises(ValueError, match=r"sample rate.*8000, 16000"):
        load_audio(one, num_samples=2)


def test_bad_arguments_are_refused(tmp_path):
    write(tmp_path / "a.wav", np.arange(8))
    for arguments, word in (
        ({"num_samples": 9}, "`num_samples`"),
        ({"num_samples": 0}, "`num_samples`"),
        ({"num_samples": 2, "batch_size": 1.5}, "`batch_size`"),
        ({"num_samples": 2, "shuffle_seed": None}, "`shuffle_seed`"),
        ({"num_samples": 2, "split": "test"}, "`split`"),
        ({"num_samples": 2, "split": None}, "`split`"),
        ({"name": None, "num_samples": 2}, "`name`"),
        ({"name": "no_such_set", "num_samples": 2}, "no_such_set"),
        ({"name": "mnist", "num_samples": 2}, "feature 'audio'"),
    ):
        with pytest.raises(ValueError, match=word):
            load_audio(**{"name": tmp_path, **arguments})
