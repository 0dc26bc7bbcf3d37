"""The example that draws emoji, on a data set of eight grey pictures."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def example():
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(
        "text_to_emoji", ROOT / "examples" / "text_to_emoji.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    ids = ["1f63a", "1f680", "1f469-200d-1f680", "2764-fe0f"]
    ids += ["1f436", "1f432", "1f34e", "1f44d"]
    toned = ["1f44d-1f3fd"]
    examples = [
        {"id": points, "image": np.full((16, 16, 3), 30 * i, "uint8")}
        for i, points in enumerate(ids + toned)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="small_emoji",
        version="1.0.0",
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(16, 16, 3)),
            }
        ),
        split_datasets={"train": list(enumerate(examples))},
    )
    return folder


def test_names_are_those_of_unicode_without_joiners(example):
    assert example.name("1f680") == "rocket"
    assert example.name("1f469-200d-1f680") == "woman rocket"
    assert example.name("2764-fe0f") == "heavy black heart"
    assert example.name("378") == ""  # no character


def test_texts_are_the_closer_the_more_they_share(example):
    cat, cats, rocket = map(
        example.encode, ("Smiling cat", "smiling, cats!", "rocket")
    )
    assert cat.dtype == "float32"
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(cat, example.encode("cat SMILING"))
    assert cat @ cats > 0.6 > abs(cat @ rocket) + 0.3
    np.testing.assert_array_equal(example.encode(""), np.zeros(len(cat)))


def test_example_draws_a_phrase_and_exports(
    example, data_dir, tmp_path, capsys
):
    pytest.importorskip("PIL")
    flags.FLAGS(
        [
            "text_to_emoji.py",
            "--dataset=small_emoji",
            f"--data_dir={data_dir}",
            f"--output_dir={tmp_path}",
            "--image_size=8",
            "--epochs=1",
            "--batch_size=4",
            "--phrase=red rocket",
        ]
    )
    x, names = example.load()
    assert x.shape == (8, 8, 8, 3)
    greys = np.rint(255 * x[:, 0, 0, 0])
    np.testing.assert_array_equal(sorted(greys), range(0, 240, 30))
    assert (
        names[np.argmin(x.mean(axis=(1, 2, 3)))]
        == "smiling cat face with open mouth"
    )
    example.main(None)
    assert "woman rocket" in capsys.readouterr().out
    picture = tf.io.decode_png((tmp_path / "phrase.png").read_bytes()).numpy()
    assert np.ptp(picture) > 0
    assert (tmp_path / "samples.png").stat().st_size > 100
    assert (tmp_path / "text_to_emoji.keras").stat().st_size > 1000
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    drawn = loaded.sample(
        tf.constant(2),
        tf.constant([example.encode("rocket")] * 2),
        tf.constant(0, tf.int64),
    )
    assert drawn.shape == (2, 8, 8, 3)
