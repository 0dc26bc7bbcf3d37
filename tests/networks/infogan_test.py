import keras
import numpy as np
import pytest
from keras import layers

from keras_gen.networks import infogan


def test_networks_of_the_study_have_the_parameters_counted_by_hand():
    generator = infogan.infogan_generator(64, (28, 28, 1))
    discriminator = infogan.infogan_discriminator((28, 28, 1))
    # Four numbers a normalized feature, of which two are moving statistics.
    assert generator.count_params() == (
        65 * 1024
        + 4 * 1024
        + 1025 * 7 * 7 * 128
        + 4 * 7 * 7 * 128
        + (16 * 128 + 1) * 64
        + 4 * 64
        + (16 * 64 + 1)
    )
    assert discriminator.count_params() == (
        (16 + 1) * 64
        + (16 * 64 + 1) * 128
        + 4 * 128
        + (7 * 7 * 128 + 1) * 1024
        + 4 * 1024
        + 1025
    )


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 12, 3)])
def test_networks_fit_the_image(shape):
    images = infogan.infogan_generator(5, shape)(np.ones((2, 5)))
    assert images.shape == (2, *shape)
    assert infogan.infogan_discriminator(shape)(images).shape == (2, 1)


def test_every_hidden_layer_is_leaky_with_slope_one_fifth():
    for network, count in (
        (infogan.infogan_generator(5, (8, 8, 1)), 3),
        (infogan.infogan_discriminator((8, 8, 1)), 3),
    ):
        leaky = [x for x in network.layers if isinstance(x, layers.LeakyReLU)]
        assert [x.negative_slope for x in leaky] == [0.2] * count


def test_without_batch_normalization_images_are_judged_one_by_one():
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    network = infogan.infogan_discriminator((8, 8, 1), False)
    np.testing.assert_allclose(
        network(x, training=True)[:1], network(x[:1], training=True), atol=1e-6
    )


def test_outputs_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    images = infogan.infogan_generator(5, (8, 8, 1))(np.ones((2, 5)))
    assert images.dtype == "float32" and np.abs(images).max() <= 1
    assert infogan.infogan_discriminator((8, 8, 1))(images).dtype == "float32"


@pytest.mark.parametrize("shape", [(28, 30, 1), (28, 28), (0, 4, 1)])
def test_sides_must_be_divisible_by_four(shape):
    with pytest.raises(ValueError, match=r"`image_shape`.*divisible by 4"):
        infogan.infogan_generator(5, shape)
    with pytest.raises(ValueError, match=r"`image_shape`.*divisible by 4"):
        infogan.infogan_discriminator(shape)
