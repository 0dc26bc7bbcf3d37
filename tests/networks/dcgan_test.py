import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_gen.networks import dcgan


def count(network, kind):
    return sum(isinstance(layer, kind) for layer in network.layers)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "sides, halvings",
    [
        ((8, 8), 1),
        ((16, 16), 2),
        ((28, 28), 2),
        ((28, 32), 2),
        ((32, 32), 3),
        ((48, 48), 3),
        ((64, 64), 4),
        ((16, 64), 2),
    ],
)
def test_networks_fit_the_image(sides, halvings, channels):
    image_shape = (*sides, channels)
    generator = dcgan.dcgan_generator(5, image_shape, filters=4)
    discriminator = dcgan.dcgan_discriminator(image_shape, filters=4)
    images = generator(np.ones((2, 5)))
    assert images.shape == (2, *image_shape)
    assert discriminator(images).shape == (2, 1)
    assert count(generator, layers.Conv2DTranspose) == halvings
    assert count(discriminator, layers.Conv2D) == halvings


def test_outputs_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        images = dcgan.dcgan_generator(5, (16, 16, 1), 4)(np.ones((2, 5)))
        logits = dcgan.dcgan_discriminator((16, 16, 1), 4)(images)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert keras.backend.standardize_dtype(images.dtype) == "float32"
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_networks_of_28_pixels_have_the_parameters_counted_by_hand():
    generator = dcgan.dcgan_generator(100, (28, 28, 1))
    discriminator = dcgan.dcgan_discriminator((28, 28, 1))
    kernel = 4 * 4
    # Four numbers per normalized map, of which two are moving statistics.
    assert generator.count_params() == (
        100 * 7 * 7 * 128
        + 4 * 128
        + kernel * 128 * 64
        + 4 * 64
        + (kernel * 64 + 1)
    )
    assert discriminator.count_params() == (
        (kernel + 1) * 64 + kernel * 64 * 128 + 4 * 128 + (7 * 7 * 128 + 1)
    )


def test_maps_double_with_each_halving_up_to_eight_times():
    network = dcgan.dcgan_discriminator((256, 256, 1), filters=1)
    maps = [x.filters for x in network.layers if isinstance(x, layers.Conv2D)]
    assert maps == [1, 2, 4, 8, 8, 8]
    network = dcgan.dcgan_generator(2, (256, 256, 1), filters=1)
    maps = [
        x.filters
        for x in network.layers
        if isinstance(x, layers.Conv2DTranspose)
    ]
    assert maps == [8, 8, 4, 2, 1, 1]


def test_kernels_start_normal_with_deviation_one_fiftieth():
    keras.utils.set_random_seed(0)
    for network in (
        dcgan.dcgan_generator(100, (16, 16, 1), 32),
        dcgan.dcgan_discriminator((16, 16, 1), 32),
    ):
        for layer in network.layers:
            if hasattr(layer, "kernel"):
                kernel = np.ravel(layer.kernel)
                error = 5 * 0.02 / np.sqrt(2 * kernel.size)
                assert abs(np.std(kernel) - 0.02) < error
                assert not layer.use_bias or not np.any(layer.bias)


def test_batch_normalization_spares_generator_output_and_critic_input():
    norm = layers.BatchNormalization
    generator = dcgan.dcgan_generator(5, (32, 32, 1), 4)
    discriminator = dcgan.dcgan_discriminator((32, 32, 1), 4)
    assert count(generator, norm) == 3  # 4x4, 8x8, 16x16
    assert count(discriminator, norm) == 2  # 8x8, 4x4
    assert not isinstance(discriminator.layers[1], norm)
    assert isinstance(generator.layers[-1], layers.Conv2DTranspose)
    for network in (generator, discriminator):
        for layer in network.layers:
            if isinstance(layer, norm):
                assert layer.synchronized


def test_without_batch_normalization_images_are_judged_one_by_one():
    x = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype("float32")

    def influence_of_others(batch_normalization):
        network = dcgan.dcgan_discriminator(
            (16, 16, 1), 8, batch_normalization=batch_normalization
        )
        together = network(x, training=True)[0]
        return float(np.abs(together - network(x[:1], training=True)[0])[0])

    assert influence_of_others(False) < 1e-6
    assert influence_of_others(True) > 1e-4


def test_minibatch_std_shows_the_discriminator_how_varied_a_batch_is():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    same = np.repeat(x[:1], 4, axis=0)
    plain, aware = (
        dcgan.dcgan_discriminator(
            (16, 16, 1), 8, batch_normalization=False, minibatch_std=std
        )
        for std in (False, True)
    )
    extra = (3 * 3 * (16 + 1) + 1) * 16  # a map more for the convolution
    assert aware.count_params() - plain.count_params() == extra
    assert np.ptp(aware(same)) < 1e-6
    np.testing.assert_allclose(plain(x)[0], plain(same)[0], atol=1e-7)
    assert abs(float(aware(x)[0, 0] - aware(same)[0, 0])) > 1e-5


def test_normalized_generator_uses_the_whole_range_of_tanh_and_no_more():
    keras.utils.set_random_seed(0)
    z = np.random.default_rng(0).normal(size=(16, 10))
    images = dcgan.dcgan_generator(10, (16, 16, 1), 32)(z, training=True)
    assert 0.05 < np.std(images) < 0.5
    assert np.abs(images).max() < 1


def test_networks_survive_their_configs():
    for network in (
        dcgan.dcgan_generator(5, (16, 16, 1), 4),
        dcgan.dcgan_discriminator((16, 16, 1), 4),
    ):
        config = keras.saving.serialize_keras_object(network)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.output_shape == network.output_shape
        assert copy.count_params() == network.count_params()


def test_error_names_the_nearest_sizes():
    with pytest.raises(ValueError) as error:
        dcgan.dcgan_generator(5, (29, 30, 3))
    assert "(29, 30, 3)" in str(error.value)
    assert "(28, 28, 3) or (32, 32, 3)" in str(error.value)


@pytest.mark.parametrize("image_shape", [(30, 36, 1), (9, 9, 1), (63, 50, 1)])
def test_sizes_that_the_error_names_work(image_shape):
    with pytest.raises(ValueError, match="`image_shape`") as error:
        dcgan.dcgan_discriminator(image_shape)
    shapes = re.findall(r"\((\d+), (\d+), (\d+)\)", str(error.value))
    for shape in shapes[1:]:
        shape = tuple(map(int, shape))
        assert dcgan.dcgan_generator(2, shape, 1).output_shape[1:] == shape


@pytest.mark.parametrize("image_shape", [(28, 28), (7, 28, 1), (28, 28, 0)])
def test_networks_refuse_what_is_too_small_or_no_image_shape(image_shape):
    with pytest.raises(ValueError, match="`image_shape`"):
        dcgan.dcgan_generator(5, image_shape)
    with pytest.raises(ValueError, match="`image_shape`"):
        dcgan.dcgan_discriminator(image_shape)
