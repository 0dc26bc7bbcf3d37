import hashlib
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import datasets
from keras_gen.metrics import extractors
from keras_gen.metrics.extractors import (
    ClassifierFeatures,
    InceptionInput,
    classifier_features,
    inception_features,
)
from keras_gen.metrics.frechet import FrechetDistance
from keras_gen.metrics.inception_score import InceptionScore


def digits(split="train", **arguments):
    return datasets.load("digits", split, labels=True, **arguments)


def few(batch=60, num_classes=3, size=8, seed=0):
    """Noisy images of as many greys as classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(batch) % num_classes
    x = 20 * y[:, None, None, None] + rng.integers(
        20, size=(batch, size, size, 1)
    )
    return x.astype("uint8"), y


def dataset(x, y, batch_size=16):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


def images(x_dataset):
    return np.concatenate([x for x, _ in x_dataset.as_numpy_iterator()])


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("extractors")


@pytest.fixture(scope="module")
def extractor(cache_dir):
    return classifier_features(digits(), epochs=25, cache_dir=cache_dir)


def test_it_learns_digits_and_gives_64_features(extractor):
    assert extractor.accuracy > 0.95
    assert extractor.num_classes == 10 and extractor.seed == 0
    test = images(digits("test", batch_size=100))
    features = extractor(test).numpy()
    assert features.shape == (len(test), 64) and features.dtype == "float32"
    assert np.linalg.matrix_rank(features) > 32


def test_the_classifier_is_a_softmax_on_the_features(extractor):
    x, y = next(iter(digits("test", batch_size=297)))
    kernel, bias = extractor.classifier.layers[-1].get_weights()
    expected = tf.nn.softmax(extractor(x) @ kernel + bias)
    probabilities = extractor.classifier(x)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    assert np.mean(np.argmax(probabilities, 1) == y) > 0.9


def test_the_name_says_which_extractor_it_is(extractor):
    assert len(extractor.fingerprint) == 64
    digest = extractor.fingerprint[:8]
    assert extractor.name == f"classifier_features_{digest}"
    assert (
        FrechetDistance(extractor).score_name
        == f"frechet_distance[classifier_features_{digest}]"
    )


def test_other_weights_have_another_fingerprint(extractor):
    copy = keras.models.clone_model(extractor.classifier)
    copy.set_weights(extractor.classifier.get_weights())
    copy = ClassifierFeatures(copy, accuracy=0.5, seed=0)
    assert copy.fingerprint == extractor.fingerprint
    weights = copy.classifier.get_weights()
    weights[0].flat[0] += 1e-6
    copy.classifier.set_weights(weights)
    assert copy.fingerprint != extractor.fingerprint


def test_metrics_take_it(extractor):
    test = images(digits("test", batch_size=100))
    metric = FrechetDistance(extractor)
    metric.update_state(test[:150], test[150:])
    floor = metric.details()
    metric.reset_state()
    metric.update_state(test[:150], 1.0 - test[150:])
    assert floor["relative_to_real_variance"] < 0.2
    assert metric.result() > 5 * floor["frechet_distance"]
    score = InceptionScore(extractor)
    score.update_state(None, test)
    assert 6 < score.result() < 10


def test_images_of_another_size_are_refused(extractor):
    with pytest.raises(ValueError, match=r"`real`.*\(batch, 8, 8, 1\)"):
        FrechetDistance(extractor).update_state(np.zeros((2, 9, 9, 1)))


def test_it_is_saved_and_loaded_as_a_keras_model(extractor, tmp_path):
    extractor.save(tmp_path / "mine.keras")
    loaded = keras.saving.load_model(tmp_path / "mine.keras")
    assert loaded.name == extractor.name
    assert loaded.fingerprint == extractor.fingerprint
    assert loaded.accuracy == extractor.accuracy
    x = images(digits("test", batch_size=10).take(1))
    np.testing.assert_array_equal(loaded(x), extractor(x))


def test_the_second_call_reads_the_file(extractor, cache_dir, monkeypatch):
    monkeypatch.setattr(extractors, "_train", None)
    again = classifier_features(
        digits(batch_size=100, shuffle_seed=7), epochs=25, cache_dir=cache_dir
    )
    assert again is not extractor and again.name == extractor.name
    (folder,) = os.listdir(cache_dir)
    info = json.loads((cache_dir / folder / "info.json").read_text())
    assert info["fingerprint"] == extractor.fingerprint
    assert info["accuracy"] == extractor.accuracy
    assert info["seed"] == 0 and info["epochs"] == 25


def test_training_again_gives_the_same_weights(tmp_path, capsys):
    keras.utils.set_random_seed(1)
    x, y = few()
    first = classifier_features(
        dataset(x, y), epochs=2, cache_dir=tmp_path / "1"
    )
    assert capsys.readouterr() == ("", "")
    keras.utils.set_random_seed(2)
    keras.config.set_dtype_policy("mixed_float16")
    # In another order, one by one, as floats.
    order = np.random.default_rng(0).permutation(len(x))
    second = classifier_features(
        tf.data.Dataset.from_tensor_slices(
            (x[order] / np.float32(255), y[order].astype("int32"))
        ),
        epochs=2,
        cache_dir=tmp_path / "2",
        verbose=1,
    )
    assert "accuracy" in capsys.readouterr().out  # Keras's progress bar
    assert second.fingerprint == first.fingerprint
    assert second.accuracy == first.accuracy
    np.testing.assert_array_equal(second(x / 255), first(x / 255))


def test_accuracy_is_that_on_the_test_set(tmp_path):
    test = digits("test", batch_size=297)
    extractor = classifier_features(
        digits(), test=test, epochs=3, cache_dir=tmp_path
    )
    x, y = next(iter(test))
    correct = np.argmax(extractor.classifier(x), axis=1) == y
    assert 0.5 < extractor.accuracy < 1
    assert extractor.accuracy == pytest.approx(np.mean(correct), abs=1e-6)


@pytest.fixture
def untrained(monkeypatch):
    """Files do not care what the weights are."""
    monkeypatch.setattr(extractors, "_train", lambda *arguments: 0.5)


@pytest.mark.usefixtures("untrained")
def test_seed_epochs_images_and_labels_each_make_another_one(tmp_path):
    x, y = few()
    darker = x.copy()
    darker[5] //= 2
    for count, (data, arguments) in enumerate(
        [
            ((x, y), {}),
            ((x, y), {"seed": 1}),
            ((x, y), {"epochs": 2}),
            ((x, y), {"test": dataset(x, y)}),
            ((darker, y), {}),
            ((x, np.roll(y, 1)), {}),
        ]
    ):
        classifier_features(dataset(*data), cache_dir=tmp_path, **arguments)
        assert len(os.listdir(tmp_path)) == count + 1
    classifier_features(dataset(x, y), cache_dir=tmp_path)
    assert len(os.listdir(tmp_path)) == 6


@pytest.mark.parametrize("shape", [(5, 9, 1), (3, 3, 3), (20, 28, 2)])
def test_images_of_any_shape_are_taken(shape):
    network = extractors._build_classifier(shape, 3, seed=0)
    probabilities = network(np.zeros((2, *shape)))
    assert probabilities.shape == (2, 3)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("damage", ["extractor.keras", "info.json", "weights"])
def test_a_damaged_file_is_replaced(damage, tmp_path):
    data = dataset(*few())
    extractor = classifier_features(data, epochs=1, cache_dir=tmp_path)
    (folder,) = os.listdir(tmp_path)
    if damage == "weights":
        info = json.loads((tmp_path / folder / "info.json").read_text())
        info["fingerprint"] = hashlib.sha256(b"").hexdigest()
        (tmp_path / folder / "info.json").write_text(json.dumps(info))
    else:
        (tmp_path / folder / damage).write_bytes(b"half")
    with pytest.warns(UserWarning, match="cannot be used"):
        again = classifier_features(data, epochs=1, cache_dir=tmp_path)
    assert again.fingerprint == extractor.fingerprint
    again = classifier_features(data, epochs=1, cache_dir=tmp_path)
    assert os.listdir(tmp_path) == [folder]


@pytest.mark.usefixtures("untrained")
def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"cannot be kept.*`cache_dir`"):
        extractor = classifier_features(
            dataset(*few()), epochs=1, cache_dir=tmp_path / "file"
        )
    assert extractor.num_classes == 3


@pytest.mark.usefixtures("untrained")
def test_extractors_are_kept_in_the_folder_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    classifier_features(dataset(*few()), epochs=1)
    assert len(os.listdir(tmp_path / "keras_gen")) == 1


X, Y = few(24)


@pytest.mark.parametrize(
    "data, arguments, message",
    [
        ((X, Y), {}, r"`dataset`.*tf.data.Dataset"),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(8),
            {},
            r"`dataset`.*pairs.*labels=True",
        ),
        (dataset(X, Y).repeat(), {}, r"`dataset` must end.*repeat\(\)"),
        (dataset(X, np.eye(3)[Y]), {}, r"labels of `dataset`.*float64 \(16, 3"),
        (dataset(X, Y - 1), {}, r"labels of `dataset`.*got -1"),
        (dataset(X, 0 * Y), {}, r"`dataset`.*two classes.*label 0"),
        (dataset(X[:19], Y[:19]), {}, r"`dataset`.*20 images.*got 19"),
        (dataset(X, Y).take(0), {}, r"`dataset` has no images"),
        (dataset(X * 2.0, Y), {}, r"`dataset`.*\[0, 1\]"),
        (dataset(X, Y), {"test": dataset(*few(24, size=9))}, r"`test`.*9, 9"),
        (dataset(X, Y), {"test": dataset(X, Y + 1)}, r"`test`.*label 3"),
        (dataset(X, Y), {"seed": -1}, r"`seed`.*got -1"),
        (dataset(X, Y), {"epochs": 0}, r"`epochs`.*got 0"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    data, arguments, message, tmp_path
):
    with pytest.raises(ValueError, match=message) as error:
        classifier_features(data, cache_dir=tmp_path, **arguments)
    assert len(str(error.value)) <= 600
    assert os.listdir(tmp_path) == []


def small_inception(include_top, input_shape, pooling):
    """Stands for the network of 24 million weights."""
    assert not include_top and pooling == "avg"
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.GlobalAveragePooling2D()]
    )


def test_inception_is_given_colours_in_its_range(monkeypatch):
    monkeypatch.setattr(keras.applications, "InceptionV3", small_inception)
    extractor = inception_features()
    assert extractor.name == "inception_v3_imagenet"
    x = np.random.default_rng(0).uniform(size=(2, 10, 7, 3))
    metric = FrechetDistance(extractor)
    np.testing.assert_allclose(
        metric.features(x), 2 * x.mean(axis=(1, 2)) - 1, atol=0.03
    )
    grey = np.broadcast_to(np.float32([0.0, 1.0]), (1, 4, 4, 2)).T[..., :1]
    metric.reset_state()
    np.testing.assert_array_equal(metric.features(grey), [[-1] * 3, [1] * 3])


def test_inception_shrinks_images_with_antialiasing():
    stripes = np.zeros((1, 1196, 1196, 1), "float32")
    stripes[:, ::2] = 1.0
    x = InceptionInput()(stripes)
    assert x.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(x[:, 3:-3, 3:-3], 0.0, atol=0.02)
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        InceptionInput()(np.zeros((1, 8, 8, 4)))


def test_no_network_leaves_a_remedy(monkeypatch):
    def fail(**arguments):
        raise Exception("URL fetch failure on https://...")

    monkeypatch.setattr(keras.applications, "InceptionV3", fail)
    with pytest.raises(ConnectionError, match=r"URL.*classifier_features"):
        inception_features()
