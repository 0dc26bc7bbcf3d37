import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import conditioning, networks


def test_classes_become_one_hot_vectors():
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    for classes in ([2, 0, 1], np.array([2, 0, 1]), tf.constant([2, 0, 1])):
        vectors = conditioning.vectors(classes, 3, num_classes=3)
        assert vectors.dtype == "float32"
        np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(
        conditioning.vectors(range(4), 4, num_classes=4), np.eye(4)
    )


def test_vectors_stay_as_they_are():
    given = np.random.default_rng(0).normal(size=(5, 2))
    vectors = conditioning.vectors(given, 5, condition_dim=2)
    assert vectors.dtype == "float32"
    np.testing.assert_array_equal(vectors, given.astype("float32"))


def test_a_model_without_condition_has_none():
    assert conditioning.vectors(None, 3) is None
    assert conditioning.check_width(None, None) is None


@pytest.mark.parametrize(
    "condition, arguments, message",
    [
        (None, {"num_classes": 3}, "must be given, as the model is conditio"),
        (None, {"condition_dim": 3}, "must be given, as the model is condit"),
        ([0, 1], {}, "must be `None` for a model without a condition"),
        ([0, 1, 2], {"num_classes": 3}, r"one per image, got 3 for 2"),
        ([0, 3], {"num_classes": 3}, r"in \[0, 2\].*from 0 to 3"),
        ([0, -1], {"num_classes": 3}, r"in \[0, 2\].*from -1 to 0"),
        ([0.0, 1.0], {"num_classes": 3}, "got the dtype float64"),
        (1, {"num_classes": 3}, r"np.full\(2, y\)"),
        (np.eye(2), {"num_classes": 2}, "np.argmax"),
        (np.ones((2, 4)), {"condition_dim": 3}, r"\(batch, 3\)"),
        (np.full((2, 3), np.nan), {"condition_dim": 3}, "must be finite"),
        ([0, 1], {"condition_dim": 3}, "to_categorical"),
    ],
)
def test_bad_conditions_are_refused(condition, arguments, message):
    for count in (2, np.int64(2)):
        with pytest.raises(
            ValueError, match=f"`condition`.*{message}"
        ) as error:
            conditioning.vectors(condition, count, **arguments)
        assert len(str(error.value)) <= 600


def test_conditions_of_any_number_are_taken_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64)])
    def one_hot(classes):
        return conditioning.vectors(classes, tf.shape(classes)[0], 3)

    for count in (1, 3):
        np.testing.assert_array_equal(
            one_hot(tf.range(count, dtype=tf.int64)), np.eye(3)[:count]
        )

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float64)])
    def as_float32(vectors):
        return conditioning.vectors(vectors, None, condition_dim=2)

    assert as_float32(tf.zeros((3, 2), tf.float64)).dtype == "float32"


def test_random_classes_are_drawn_uniformly():
    classes = conditioning.random_classes(6000, 3, (0, 1)).numpy()
    assert classes.shape == (6000, 3)
    assert np.all(np.sort(classes, axis=1) == [0, 0, 1])
    np.testing.assert_allclose(classes.mean(axis=0), 1 / 3, atol=0.03)
    again = conditioning.random_classes(tf.constant(6000), 3, (0, 1))
    np.testing.assert_array_equal(classes, again)


def test_the_width_is_that_of_the_one_argument_that_is_given():
    assert conditioning.check_width(10, None) == 10
    assert conditioning.check_width(None, np.int64(4)) == 4
    with pytest.raises(ValueError, match="`num_classes` and `condition_dim`"):
        conditioning.check_width(10, 4)
    with pytest.raises(ValueError, match="`num_classes` must be a positive"):
        conditioning.check_width(0, None)
    with pytest.raises(ValueError, match="`condition_dim` must be a positive"):
        conditioning.check_width(None, 2.5)


def test_networks_of_both_kinds_are_checked():
    plain = networks.mlp_decoder(2, (4, 4, 1), ())
    conditional = networks.mlp_decoder(2, (4, 4, 1), (), condition_dim=3)
    conditioning.check_network(plain, (2,), (4, 4, 1), "decoder")
    conditioning.check_network(conditional, (2,), (4, 4, 1), "decoder", 3)
    two_inputs = "`decoder` of a conditional model must have two inputs"
    for arguments, message in (
        ((plain, (3,), (4, 4, 1), "decoder"), r"`decoder`.*\(batch, 3\)"),
        ((conditional, (2,), (4, 4, 1), "decoder"), "`decoder` must have inp"),
        ((plain, (2,), (4, 4, 1), "decoder", 3), two_inputs),
        ((conditional, (2,), (4, 4, 1), "decoder", 4), two_inputs),
        ((conditional, (3,), (4, 4, 1), "decoder", 3), two_inputs),
        (
            (conditional, (2,), (4, 4, 2), "decoder", 3),
            r"`decoder` must have outputs of shape \(None, 4, 4, 2\)",
        ),
        ((lambda x: x, (2,), (4, 4, 1), "decoder", 3), "a built `keras.Model`"),
        (
            (keras.Sequential([keras.layers.Dense(2)]), (2,), (2,), "net", 3),
            "`net` must be a built `keras.Model`",
        ),
    ):
        with pytest.raises(ValueError, match=message) as error:
            conditioning.check_network(*arguments)
        assert len(str(error.value)) <= 600


class Beside(keras.Model):
    """A subclassed model of `[z, condition]`."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(5)

    def call(self, inputs):
        z, condition = inputs
        return self.dense(tf.concat([z, condition], axis=1))


def test_shapes_of_a_subclassed_network_are_found_by_tracing_it():
    network = Beside()
    with pytest.raises(ValueError, match="`net` must be a built"):
        conditioning.check_network(network, (2,), (5,), "net", 3)
    network([np.zeros((1, 2)), np.zeros((1, 3))])
    conditioning.check_network(network, (2,), (5,), "net", 3)
    for arguments, message in (
        (((2,), (6,), "net", 3), r"`net` must have outputs of .*\(None, 6\)"),
        (((2,), (5,), "net", 4), r"`net` must take inputs of .*\(None, 4\)"),
        (((2,), (5,), "net"), r"`net` must take inputs of shape \(None, 2\),"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            conditioning.check_network(network, *arguments)
        assert len(str(error.value)) <= 600
