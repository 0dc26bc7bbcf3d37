import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.sparsity import KSparse


def codes(batch=7, units=10):
    return (
        np.random.default_rng(0).normal(size=(batch, units)).astype("float32")
    )


def num_kept(y):
    return np.count_nonzero(np.array(y), axis=1)


def test_the_k_largest_entries_are_kept_and_the_others_are_zero():
    x = codes()
    y = np.array(KSparse(3)(x))
    for row, kept in zip(x, y, strict=True):
        largest = np.argsort(row)[-3:]
        np.testing.assert_array_equal(kept[largest], row[largest])
        assert np.count_nonzero(kept) == 3


def test_large_negative_entries_are_not_kept():
    np.testing.assert_array_equal(
        KSparse(1)(np.array([[3.0, -5.0, 4.0]])), [[0.0, 0.0, 4.0]]
    )


def test_of_equal_entries_exactly_k_are_kept():
    y = np.array(KSparse(2)(np.ones((1, 5), "float32")))
    np.testing.assert_array_equal(y, [[1, 1, 0, 0, 0]])


def test_alpha_times_k_entries_are_kept_outside_of_training():
    layer = KSparse(4, alpha=1.5)
    assert set(num_kept(layer(codes(), training=True))) == {4}
    assert set(num_kept(layer(codes()))) == {6}
    # More than there are is all of them.
    np.testing.assert_array_equal(KSparse(8, alpha=3.0)(codes()), codes())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_their_number_falls_from_all_to_k_in_the_steps_given(jit_compile):
    layer = KSparse(2, anneal_steps=4)
    layer.build((None, 10))
    step = tf.function(
        lambda x: layer(x, training=True), jit_compile=jit_compile
    )
    kept = [int(num_kept(step(codes()))[0]) for _ in range(6)]
    assert kept == [10, 8, 6, 4, 2, 2]
    assert set(num_kept(layer(codes()))) == {2}
    assert int(layer.steps) == 6


def test_gradients_flow_through_what_is_kept_alone():
    x = tf.constant(codes())
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = KSparse(3)(x)
        total = tf.reduce_sum(y)
    np.testing.assert_array_equal(tape.gradient(total, x), np.array(y) != 0)


def test_a_layer_is_made_again_from_its_config():
    layer = KSparse(3, alpha=2, anneal_steps=5)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape((None, 9)) == (None, 9)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"k": 0}, "`k`"),
        ({"k": 1.5}, "`k`"),
        ({"k": 1, "alpha": 0.5}, "`alpha`"),
        ({"k": 1, "anneal_steps": -1}, "`anneal_steps`"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        KSparse(**arguments)


def test_more_entries_than_a_code_has_are_refused():
    with pytest.raises(ValueError, match="`k` must be at most the 10"):
        KSparse(11)(codes())
