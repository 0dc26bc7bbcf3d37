"""The progressive networks: published sizes, and growth without a jump."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.fade_in import downscale, upscale
from keras_gen.networks.progressive import (
    ProgressiveGenerator,
    progressive_discriminator,
    progressive_generator,
    resolutions_of,
)

SHAPE = (16, 24, 3)
SMALL = {"fmap_base": 32, "fmap_max": 8}  # 8, 8 and 4 maps


@pytest.fixture(scope="module")
def generator():
    keras.utils.set_random_seed(0)
    return progressive_generator(5, SHAPE, **SMALL)


@pytest.fixture(scope="module", params=[False, True], ids=["pooled", "fused"])
def discriminator(request):
    keras.utils.set_random_seed(0)
    return progressive_discriminator(SHAPE, fused=request.param, **SMALL)


def normal(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return tf.constant(x, "float32")


def num_parameters(layers):
    return sum(math.prod(w.shape) for layer in layers for w in layer.weights)


def test_the_generator_has_the_published_parameters():
    published = {
        4: 6_556_163,
        8: 11_275_779,
        16: 15_995_395,
        32: 20_715_011,
        64: 22_484_227,
        128: 22_926_467,
        256: 23_036_995,
        512: 23_064_611,
        1024: 23_071_507,
    }
    network = progressive_generator(512, (1024, 1024, 3))
    assert published == {
        resolution: num_parameters(network.layers_at(resolution))
        for resolution in resolutions_of((1024, 1024, 3))
    }
    assert network.maps == (512, 512, 512, 512, 256, 128, 64, 32, 16)


def test_the_discriminator_has_the_published_parameters():
    network = progressive_discriminator((1024, 1024, 3))
    count = num_parameters(network.layers_at(1024))
    # Worked by hand: from images, 3x3 convolutions of the eight blocks, those
    # at 4 pixels, the dense layers; weights and biases.
    maps = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    expected = 3 * 16 + 16
    for above, below in zip(maps[:0:-1], maps[-2::-1], strict=True):
        expected += 9 * above * above + above + 9 * above * below + below
    expected += 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 512 + 1
    assert count == expected
    assert round(count / 1e6, 1) == 23.1


def test_images_and_logits_are_of_the_resolution(generator, discriminator):
    for resolution, size in ((4, (4, 6)), (8, (8, 12)), (16, (16, 24))):
        images = generator(normal(2, 5), resolution=resolution)
        assert images.shape == (2, *size, 3) and images.dtype == "float32"
        logits = discriminator(images, resolution=resolution, alpha=0.5)
        assert logits.shape == (2, 1)
    assert generator(normal(2, 5)).shape == (2, *SHAPE)
    assert generator.output_shape == discriminator.input_shape
    assert (
        generator.compute_output_shape((2, 5), resolution=8)
        == generator(normal(2, 5), resolution=8).shape
    )


def test_networks_can_be_called_on_symbolic_inputs():
    arguments = {"condition_dim": 2, **SMALL}
    generator = progressive_generator(5, SHAPE, **arguments)
    discriminator = progressive_discriminator(SHAPE, **arguments)
    z, y = keras.Input((5,)), keras.Input((2,))
    images = generator([z, y], resolution=8, alpha=0.5)
    assert images.shape == (None, 8, 12, 3) and images.dtype == "float32"
    logits = discriminator([images, y], resolution=8)
    assert logits.shape == (None, 1) and logits.dtype == "float32"
    both = keras.Model([z, y], logits)
    z, y = normal(4, 5), tf.one_hot([0, 1, 1, 0], 2)
    images = generator([z, y], resolution=8, alpha=0.5)
    np.testing.assert_allclose(
        both([z, y]), discriminator([images, y], resolution=8), atol=1e-5
    )
    plain = progressive_generator(5, (4, 4, 1), **SMALL)
    assert plain(keras.Input((5,))).shape == (None, 4, 4, 1)


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_generator_grows_without_a_jump(generator, resolution):
    z = normal(3, 5)
    old = upscale(generator(z, resolution=resolution // 2))
    new = generator(z, resolution=resolution)
    for alpha, expected in ((0, old), (1, new), (0.25, 0.75 * old + new / 4)):
        image = generator(z, resolution=resolution, alpha=alpha)
        np.testing.assert_allclose(image, expected, atol=1e-5)
    assert np.max(np.abs(new - old)) > 0.1


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_discriminator_grows_without_a_jump(discriminator, resolution):
    x = normal(4, resolution, resolution * 3 // 2, 3)
    old = discriminator(downscale(x), resolution=resolution // 2)
    new = discriminator(x, resolution=resolution)
    for alpha, expected in ((0, old), (1, new)):
        logits = discriminator(x, resolution=resolution, alpha=alpha)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    near = discriminator(x, resolution=resolution, alpha=1e-6)
    np.testing.assert_allclose(near, old, atol=1e-4)
    assert np.max(np.abs(new - old)) > 1e-3


def test_pooling_follows_the_activation_unless_it_is_fused():
    plain = progressive_discriminator((8, 8, 1), fmap_base=16, fmap_max=4)
    fused = progressive_discriminator(
        (8, 8, 1), fmap_base=16, fmap_max=4, fused=True
    )
    fused.set_weights(plain.get_weights())
    x = normal(4, 8, 8, 1)
    assert np.any(np.abs(plain(x) - fused(x)) > 1e-4)
    # Where nothing is negative, the activation is linear.
    plain.second[0].bias.assign(tf.fill(plain.second[0].bias.shape, 30.0))
    fused.set_weights(plain.get_weights())
    np.testing.assert_allclose(plain(x), fused(x), rtol=1e-4, atol=1e-4)


def test_a_call_uses_the_weights_that_it_says(generator, discriminator):
    z = normal(4, 5)
    for resolution in (4, 8, 16):
        for alpha in (None, 0.5):
            with tf.GradientTape() as tape:
                images = generator(z, resolution=resolution, alpha=alpha)
                logits = discriminator(
                    images, resolution=resolution, alpha=alpha
                )
            networks = (generator, discriminator)
            weights = [w for n in networks for w in n.trainable_weights]
            named = {
                id(weight)
                for network in networks
                for layer in network.layers_at(resolution, alpha is not None)
                for weight in layer.weights
            }
            gradients = tape.gradient(logits, weights)
            used = {
                id(weight)
                for weight, gradient in zip(weights, gradients, strict=True)
                if gradient is not None
            }
            assert used == named


def test_all_that_was_trained_so_far_is_below_a_resolution(generator):
    below = {id(layer) for layer in generator.layers_up_to(8)}
    for resolution in (4, 8):
        layers = {id(layer) for layer in generator.layers_at(resolution, True)}
        assert layers <= below
    assert id(generator.to_image[2]) not in below


def test_networks_begin_with_activations_of_size_one():
    keras.utils.set_random_seed(1)
    shape = (32, 32, 3)
    maps = {"fmap_base": 2048, "fmap_max": 64}
    generator = progressive_generator(64, shape, **maps)
    discriminator = progressive_discriminator(shape, **maps)
    for network in (generator, discriminator):
        for layer in network.layers_at(32, True):
            assert np.std(layer.kernel) == pytest.approx(1, abs=0.25)
            assert not np.any(layer.bias)
    images = np.array(generator(normal(64, 64)))
    assert np.sqrt(np.mean(images**2)) == pytest.approx(1, abs=0.4)
    assert np.abs(images).max() > 1  # nothing bounds them
    logits = np.array(discriminator(normal(64, 32, 32, 3)))
    assert 0.1 < np.sqrt(np.mean(logits**2)) < 3


def test_the_condition_stands_beside_normalized_latents():
    network = progressive_generator(5, (4, 4, 1), condition_dim=3, **SMALL)
    z, y = normal(2, 5), tf.one_hot([2, 0], 3)
    assert network.input_shape == [(None, 5), (None, 3)]
    images = network([z, y])
    np.testing.assert_allclose(images, network([9 * z, y]), atol=1e-4)
    assert np.any(np.abs(images - network([z, 2 * y])) > 1e-3)
    assert np.any(np.abs(images - network([z, y[::-1]])) > 1e-3)


def test_a_projection_is_the_product_of_features_and_embedding():
    network = progressive_discriminator(
        (4, 4, 1), num_logits=2, condition_dim=3, **SMALL
    )
    # Embeddings that are the weights of the first logit, and their opposite.
    weights = np.array(network.logits.kernel)[:, 0]
    network.embedding.kernel.assign([weights, -weights, 0 * weights])
    network.logits.kernel.assign(np.stack([weights, weights], axis=1))
    x = normal(6, 4, 4, 1)
    same, opposite, none = (
        np.array(network([x, tf.one_hot([i] * 6, 3)])) for i in range(3)
    )
    score = none[:, 0]
    np.testing.assert_allclose(same[:, 0], 2 * score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(opposite[:, 0], 0 * score, atol=1e-5)
    np.testing.assert_array_equal(same[:, 1], none[:, 1])
    np.testing.assert_allclose(none[:, 1], score, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_and_logits_are_float32_in_half_precision(policy):
    arguments = {"condition_dim": 2, **SMALL}
    y = tf.one_hot([0, 1, 1, 0], 2)
    exact = progressive_generator(5, (8, 8, 1), **arguments)
    judge = progressive_discriminator((8, 8, 1), **arguments)
    keras.config.set_dtype_policy(policy)
    half = progressive_generator(5, (8, 8, 1), **arguments)
    half_judge = progressive_discriminator((8, 8, 1), **arguments)
    half.set_weights(exact.get_weights())
    half_judge.set_weights(judge.get_weights())
    images = half([normal(4, 5), y], alpha=0.5)
    logits = half_judge([images, y], alpha=0.5)
    assert images.dtype == logits.dtype == "float32"
    assert half.dense.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(
        images, exact([normal(4, 5), y], alpha=0.5), atol=0.1
    )
    np.testing.assert_allclose(logits, judge([images, y], alpha=0.5), atol=0.1)


def test_a_network_survives_saving(generator, discriminator, tmp_path):
    z = normal(4, 5)
    for network, inputs in ((generator, z), (discriminator, generator(z))):
        path = tmp_path / f"{network.name}.keras"
        network.save(path)
        again = keras.saving.load_model(path)
        assert again.get_config() == network.get_config()
        np.testing.assert_array_equal(
            network(inputs, resolution=16, alpha=0.5),
            again(inputs, resolution=16, alpha=0.5),
        )


def test_resolutions_lead_to_the_size_of_the_images():
    assert resolutions_of((4, 4, 1)) == [4]
    assert resolutions_of((96, 64, 3)) == [4, 8, 16, 32, 64]
    assert resolutions_of((16, 20, 3)) == [4, 8, 16]


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: resolutions_of((28, 28, 1)), "16 and 32.*tf.pad"),
        (lambda: resolutions_of((16, 22, 1)), "multiple of 4"),
        (lambda: resolutions_of((16, 16)), "channels"),
        (lambda: progressive_generator(0, SHAPE), "`latent_dim`"),
        (lambda: progressive_generator(5, SHAPE, fmap_max=0), "`fmap_max`"),
        (lambda: progressive_discriminator(SHAPE, fmap_base=-1), "`fmap_base`"),
        (lambda: progressive_discriminator(SHAPE, num_logits=0), "num_logits"),
        (
            lambda: progressive_discriminator(SHAPE, condition_dim=-1),
            "`condition_dim`",
        ),
        (
            lambda: progressive_generator(5, SHAPE, condition_dim=0),
            "`condition_dim`",
        ),
        (lambda: ProgressiveGenerator(5, SHAPE, [8, 4]), "`maps`"),
    ],
)
def test_bad_arguments_are_refused(make, word):
    with pytest.raises(ValueError, match=word) as error:
        make()
    assert len(str(error.value)) <= 600


def test_an_unknown_resolution_is_refused(generator):
    with pytest.raises(ValueError, match=r"`resolution`.*\(4, 8, 16\)"):
        generator(normal(1, 5), resolution=5)
