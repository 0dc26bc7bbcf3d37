import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.corruption import MaskingNoise, SaltAndPepper

LAYERS = (MaskingNoise, SaltAndPepper)


def grey(*shape):
    return np.random.default_rng(0).uniform(0.2, 0.8, shape).astype("float32")


def share_error(share, count):
    """Four standard errors of a share of so many independent draws."""
    return 4 * np.sqrt(share * (1 - share) / count)


def test_masking_noise_makes_a_share_of_the_values_zero():
    x = grey(100, 8, 8, 1)
    y = np.array(MaskingNoise(0.3, seed=1)(x, training=True))
    masked = y == 0
    np.testing.assert_array_equal(y[~masked], x[~masked])
    assert abs(np.mean(masked) - 0.3) < share_error(0.3, x.size)


def test_salt_and_pepper_is_half_white_and_half_black():
    x = grey(100, 8, 8, 1)
    y = np.array(SaltAndPepper(0.4, seed=1)(x, training=True))
    black, white = y == 0, y == 1
    kept = ~black & ~white
    np.testing.assert_array_equal(y[kept], x[kept])
    for part in (black, white):
        assert abs(np.mean(part) - 0.2) < share_error(0.2, x.size)


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_is_corrupted_outside_of_training(kind):
    x, layer = grey(4, 3), kind(1.0, seed=0)
    before = np.array(layer.seeds.state)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    np.testing.assert_array_equal(layer.seeds.state, before)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_noise_differs_from_call_to_call_and_a_seed_repeats_it(kind):
    x = grey(10, 20)
    first, second = kind(0.5, seed=3), kind(0.5, seed=3)
    calls = [
        [layer(x, training=True) for _ in range(2)] for layer in (first, second)
    ]
    np.testing.assert_array_equal(*calls)
    assert np.any(calls[0][0] != calls[0][1])
    assert np.any(calls[0][0] != kind(0.5, seed=4)(x, training=True))


@pytest.mark.parametrize("kind", LAYERS)
def test_two_replicas_corrupt_their_rows_as_one_would(kind, two_replicas):
    x = grey(6, 5)
    whole = kind(0.5, seed=3)(x, training=True)
    with two_replicas.scope():
        layer = kind(0.5, seed=3)

    def corrupt():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.constant(x)[3 * index : 3 * index + 3]
        return layer(rows, training=True)

    parts = tf.function(lambda: two_replicas.run(corrupt))()
    parts = two_replicas.experimental_local_results(parts)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_made_again_from_its_config(kind):
    layer = kind(0.25, seed=7, name="noise")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is kind and again.get_config() == layer.get_config()
    assert again.compute_output_shape((None, 4)) == (None, 4)
    x = grey(4, 3)
    np.testing.assert_array_equal(
        layer(x, training=True), again(x, training=True)
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("rate", [-0.1, 1.5, "0.5", None])
def test_a_rate_outside_of_zero_to_one_is_refused(kind, rate):
    with pytest.raises(ValueError, match="`rate`"):
        kind(rate)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_bad_seed_is_refused(kind):
    with pytest.raises(ValueError, match="`seed`"):
        kind(0.5, seed=-1)
