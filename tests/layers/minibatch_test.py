import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.minibatch import MinibatchDiscrimination, pack


def features(batch=5, units=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, units)).astype("float32")


def built(num_kernels=4, kernel_dim=2, units=3, stddev=1.0):
    layer = MinibatchDiscrimination(num_kernels, kernel_dim)
    layer.build((None, units))
    kernel = np.random.default_rng(1).normal(0, stddev, layer.kernel.shape)
    layer.kernel.assign(kernel)
    return layer


def loop(x, kernel, scale):
    """The definition, number by number."""
    batch, num_kernels = len(x), kernel.shape[1]
    closeness = np.zeros((batch, num_kernels))
    for i in range(batch):
        for k in range(num_kernels):
            for j in range(batch):
                if j != i:
                    apart = np.abs((x[i] - x[j]) @ kernel[:, k]).sum()
                    closeness[i, k] += np.exp(-apart / scale[k])
    return np.concatenate([x, closeness], axis=1)


def test_closeness_before_training_is_that_of_a_loop_over_all_pairs():
    layer, x = built(), features()
    np.testing.assert_allclose(
        layer(x), loop(x, np.array(layer.kernel), np.ones(4)), rtol=1e-5
    )


def test_the_first_batch_of_training_fixes_how_large_closeness_is():
    layer, x = built(), features()
    kernel = np.array(layer.kernel)
    m = np.einsum("nf,fkd->nkd", x, kernel)
    distances = np.abs(m[:, None] - m).sum(-1)[~np.eye(5, dtype=bool)]
    scale = 0.5 * distances.mean(axis=0)
    level = loop(x, kernel, scale)[:, 3:].mean(axis=0)
    for size in (1, 10):
        y = layer(size * x, training=True)
        np.testing.assert_allclose(layer.scale, scale, rtol=1e-5)
        np.testing.assert_allclose(layer.level, level, rtol=1e-5)
        expected = loop(size * x, kernel, scale)[:, 3:] / level - 1
        np.testing.assert_allclose(y[:, 3:], expected, rtol=1e-4)
        np.testing.assert_array_equal(y[:, :3], size * x)


@pytest.mark.parametrize("size", [1e-4, 1e4])
@pytest.mark.parametrize("batch", [3, 100])
def test_features_of_any_size_are_told_apart_and_give_a_slope(size, batch):
    layer, x = built(stddev=0.05), tf.constant(size * features(batch))
    with tf.GradientTape() as tape:
        tape.watch(x)
        closeness = layer(x, training=True)[:, 3:]
    np.testing.assert_allclose(np.mean(closeness, axis=0), 0, atol=1e-5)
    assert 0.1 < np.std(closeness) < 1.5
    assert np.all(np.any(tape.gradient(closeness, x), axis=1))


def test_equal_images_are_as_close_as_can_be_and_fix_nothing():
    layer = built()
    for x in (np.ones((5, 3), "float32"), features(1)):
        y = layer(x, training=True)[:, 3:]
        np.testing.assert_allclose(y, len(x) - 1)
        assert not np.any(layer.scale) and not np.any(layer.level)


def test_order_of_the_batch_does_not_matter():
    layer, x = built(), features()
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(
        layer(x[order]), np.array(layer(x))[order], rtol=1e-5
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_works_compiled_and_in_float16(jit_compile):
    keras.config.set_dtype_policy("mixed_float16")
    layer, x = built(), features()
    compiled = tf.function(
        lambda x: layer(x, training=True), jit_compile=jit_compile
    )
    y = compiled(x)
    assert y.dtype == "float32" and y.shape == (5, 7)
    np.testing.assert_allclose(y, layer(x), rtol=1e-4)


def test_it_survives_its_config():
    network = keras.Sequential(
        [keras.Input((3,)), MinibatchDiscrimination(6, 7)]
    )
    config = keras.saving.serialize_keras_object(network)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.output_shape == (None, 9)
    assert copy.layers[0].kernel.shape == (3, 6, 7)


@pytest.mark.parametrize(
    "arguments, name",
    [({"num_kernels": 0}, "num_kernels"), ({"kernel_dim": 1.5}, "kernel_dim")],
)
def test_sizes_must_be_positive_integers(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        MinibatchDiscrimination(**arguments)


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r"`x` must be features.*Flatten"):
        MinibatchDiscrimination()(np.ones((2, 4, 4, 3)))


# Packs


def test_a_pack_holds_the_channels_of_its_images_in_turn():
    images = np.random.default_rng(0).random((6, 2, 3, 2)).astype("float32")
    packs = np.array(pack(images, 3))
    assert packs.shape == (2, 2, 3, 6)
    for i in range(2):
        np.testing.assert_array_equal(
            packs[i], np.concatenate(images[3 * i : 3 * i + 3], axis=-1)
        )


def test_the_first_images_fill_up_the_last_pack():
    images = np.arange(5.0).reshape(5, 1, 1, 1)
    packs = np.array(pack(images, 3))[:, 0, 0]
    np.testing.assert_array_equal(packs, [[0, 1, 2], [3, 4, 0]])
    packs = np.array(pack(images[:1], 3))[:, 0, 0]
    np.testing.assert_array_equal(packs, [[0, 0, 0]])


def test_packs_of_one_are_the_images():
    images = np.ones((2, 3, 3, 1))
    assert pack(images, 1) is images
