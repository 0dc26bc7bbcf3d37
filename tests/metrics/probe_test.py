import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import VAE, networks
from keras_gen.metrics.probe import linear_probe

linear_model = pytest.importorskip("sklearn.linear_model")

SHAPE = (2, 2, 1)


def striped(num_images=300, seed=0):
    """Images whose class, of three, is a linear matter of three pixels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, num_images)
    x = rng.uniform(0.0, 0.5, (num_images, 4))
    x[np.arange(num_images), y] += 0.3
    return x.reshape(-1, *SHAPE).astype("float32"), y


def flat(x):
    return tf.reshape(x, (len(x), -1))


class Encoder:
    """A model with `encode`, which is not to be called itself."""

    def encode(self, x):
        return 100 * flat(x) - 3

    def __call__(self, x):
        pytest.fail("called")


def test_accuracy_is_that_of_scikit_learn():
    (x, y), (x_test, y_test) = striped(), striped(seed=1)
    scale = x.reshape(-1, 4).std(axis=0)
    mean = x.reshape(-1, 4).mean(axis=0)
    reference = linear_model.LogisticRegression(C=0.1, tol=1e-8)
    reference.fit((x.reshape(-1, 4) - mean) / scale, y)
    expected = reference.score((x_test.reshape(-1, 4) - mean) / scale, y_test)
    found = linear_probe(flat, (x, y), (x_test, y_test), regularization=10.0)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.7 < found < 1


def test_scale_and_place_of_the_codes_do_not_matter():
    train, test = striped(), striped(seed=1)
    plain = linear_probe(flat, train, test)
    assert linear_probe(Encoder(), train, test) == pytest.approx(
        plain, abs=0.01
    )


def test_codes_that_say_nothing_give_the_largest_class():
    x, y = striped()
    y = np.minimum(y, 1)
    found = linear_probe(lambda x: tf.zeros((len(x), 5)), (x, y), (x, y))
    assert found == np.mean(y == 1)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        x, y = striped()
        return x[index::3], y[index::3]


@pytest.mark.parametrize("kind", ["dataset", "PyDataset", "uint8"])
def test_every_kind_of_data_gives_the_same(kind):
    x, y = striped()
    data = {
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(70),
        "PyDataset": Batches(),
        "uint8": (np.rint(255 * x).astype("uint8"), y),
    }[kind]
    test = striped(seed=1)
    expected = linear_probe(flat, (x, y), test)
    assert linear_probe(flat, data, test) == pytest.approx(expected, abs=0.011)


def test_images_without_a_label_are_left_out():
    (x, y), test = striped(), striped(seed=1)
    labelled = np.arange(len(y)) % 2 == 0
    hidden = np.where(labelled, y, -1)
    expected = linear_probe(flat, (x[labelled], y[labelled]), test)
    assert linear_probe(flat, (x, hidden), test) == expected
    both = [np.concatenate([a, a]) for a in test]
    both[1][: len(y)] = -1
    assert linear_probe(flat, (x, hidden), tuple(both)) == expected


def test_a_keras_model_and_a_vae_are_probed():
    keras.utils.set_random_seed(0)
    train, test = striped(), striped(seed=1)
    extractor = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(8)]
    )
    vae = VAE(SHAPE, 4, encoder=networks.mlp_encoder(SHAPE, 8, (16,)), seed=0)
    assert linear_probe(extractor, train, test) > 0.7
    assert linear_probe(vae, train, test) > 0.6


def test_bad_data_is_refused():
    x, y = striped(10)
    only_images = tf.data.Dataset.from_tensor_slices(x).batch(5)
    for bad in (only_images, x):
        with pytest.raises(ValueError, match=r"`test`.*labels=True"):
            linear_probe(flat, (x, y), bad)
    with pytest.raises(ValueError, match=r"`train`.*-1"):
        linear_probe(flat, (x, np.full(10, -1)), (x, y))
    with pytest.raises(ValueError, match=r"`train`.*two classes.*\[1\]"):
        linear_probe(flat, (x, np.ones(10, int)), (x, y))
    with pytest.raises(ValueError, match=r"`model`.*40 of 40.*`train`"):
        linear_probe(lambda x: flat(x) * np.nan, (x, y), (x, y))


class Endless(Batches):
    @property
    def num_batches(self):
        return None


@pytest.mark.parametrize("argument", ["train", "test"])
def test_data_without_an_end_is_refused(argument):
    x, y = striped(10)
    repeated = tf.data.Dataset.from_tensor_slices((x, y)).batch(5).repeat()
    for endless in (repeated, Endless()):
        data = {"train": (x, y), "test": (x, y), argument: endless}
        with pytest.raises(ValueError, match=f"`{argument}` must end"):
            linear_probe(pytest.fail, **data)


@pytest.mark.parametrize(
    "name, value",
    [
        ("regularization", 0),
        ("regularization", -1.0),
        ("regularization", "strong"),
        ("max_iter", 0),
        ("max_iter", 1.5),
    ],
)
def test_bad_options_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        linear_probe(pytest.fail, striped(), striped(), **{name: value})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y: np.eye(3)[y], r"\(300, 3\) for 300.*tf.argmax"),
        (lambda y: y[:, np.newaxis], r"\(300, 1\).*`y\[:, 0\]`"),
        (lambda y: y.astype("float32"), r"float32.*astype"),
        (lambda y: y[:-1], r"\(299,\) for 300 images"),
        (lambda y: np.append(y, 0), r"\(301,\) for 300 images"),
        (lambda y: None, r"object of shape \(\)"),
    ],
)
def test_labels_that_are_no_class_ids_are_refused(change, message):
    x, y = striped()
    with pytest.raises(ValueError, match=rf"labels of `test`.*{message}"):
        linear_probe(flat, (x, y), (x, change(y)))


def test_one_hot_labels_of_a_dataset_are_refused():
    x, y = striped(10)
    batches = tf.data.Dataset.from_tensor_slices((x, np.eye(3)[y])).batch(4)
    with pytest.raises(ValueError, match=r"labels of `train`.*\(4, 3\)"):
        linear_probe(flat, batches, (x, y))


def test_bad_images_are_refused():
    x, y = striped(10)
    for bad, message in (
        (255 * x, r"`train`.*float in \[0, 1\].*x / 255"),
        (x * np.nan, "`train` must be finite"),
        (flat(x), r"images of `train`.*\(10, 4\).*batch"),
        (list(x), "`train` must be images.*list"),
        (x[:0], "`train` has no images"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_probe(flat, (bad, y[: len(bad)]), (x, y))


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"keras_gen\[data\]"):
        linear_probe(flat, striped(), striped())
