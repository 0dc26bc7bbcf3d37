import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_gen.layers.conditional import (
    ConditionalBatchNormalization,
    ProjectionLogit,
)
from keras_gen.networks import resnet

CLASSES = np.eye(4, dtype="float32")[[0, 3]]


def all_of(network, kind):
    return [x for x in network._flatten_layers() if isinstance(x, kind)]


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3)])
def test_networks_fit_the_image(shape):
    generator = resnet.resnet_generator(5, shape, filters=2)
    discriminator = resnet.resnet_discriminator(shape, filters=2)
    images = generator(np.ones((2, 5)))
    assert images.shape == (2, *shape) and np.abs(images).max() <= 1
    assert discriminator(images).shape == (2, 1)


def test_generator_of_32_pixels_has_the_parameters_counted_by_hand():
    f, kernel = 3, 9
    network = resnet.resnet_generator(7, (32, 32, 3), filters=f)
    block = 2 * (kernel * f + 1) * f + (f + 1) * f + 2 * 4 * f
    assert network.count_params() == (
        8 * 16 * f + 3 * block + 4 * f + (kernel * f + 1) * 3
    )


def test_discriminator_of_32_pixels_has_the_parameters_counted_by_hand():
    f, kernel = 3, 9
    network = resnet.resnet_discriminator(
        (32, 32, 3), filters=f, spectral_normalization=False
    )
    first = (kernel * 3 + 1) * f + (kernel * f + 1) * f + (3 + 1) * f
    plain = 2 * (kernel * f + 1) * f
    assert network.count_params() == (
        first + (plain + (f + 1) * f) + 2 * plain + (f + 1)
    )


def test_maps_double_as_images_of_64_pixels_are_halved():
    network = resnet.resnet_discriminator((64, 64, 1), filters=1)
    maps = [x.filters for x in all_of(network, layers.Conv2D)]
    maps = [
        m for m, before in zip(maps, [0, *maps], strict=False) if m != before
    ]
    assert maps == [1, 2, 4, 8, 16]
    assert len(all_of(network, layers.AveragePooling2D)) == 4
    network = resnet.resnet_generator(2, (64, 64, 1), filters=1)
    assert network.layers[1].units == 16 * 16  # 4x4 pixels of 16 maps


def test_published_widths_are_the_defaults():
    network = resnet.resnet_generator(8, (32, 32, 3))
    assert {x.filters for x in all_of(network, layers.Conv2D)} == {256, 3}
    network = resnet.resnet_discriminator((32, 32, 3))
    assert {x.filters for x in all_of(network, layers.Conv2D)} == {128}
    assert len(all_of(network, layers.AveragePooling2D)) == 2


def test_every_kernel_of_the_discriminator_has_spectral_norm_one():
    network = resnet.resnet_discriminator((8, 8, 1), filters=3)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    judge = tf.function(lambda: network(x, training=True), autograph=False)
    for _ in range(40):
        judge()
    wrapped = all_of(network, layers.SpectralNormalization)
    assert len(wrapped) == len(all_of(network, layers.Conv2D)) + 1
    for layer in wrapped:
        kernel = np.array(layer.layer.kernel)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        assert np.linalg.norm(kernel, 2) == pytest.approx(1, rel=0.02)


def test_images_are_judged_one_by_one():
    network = resnet.resnet_discriminator((8, 8, 1), 3)
    assert not all_of(network, layers.BatchNormalization)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(network(x)[:1], network(x[:1]), atol=1e-5)


def test_a_block_adds_its_input():
    network = resnet.resnet_discriminator(
        (8, 8, 1), filters=2, spectral_normalization=False
    )
    # Without its two convolutions the second block is the identity.
    for layer in all_of(network, layers.Conv2D)[-2:]:
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    first, second = all_of(network, layers.Add)
    outputs = keras.Model(network.input, [first.output, second.output])(x)
    np.testing.assert_allclose(*outputs, atol=1e-6)


def test_condition_scales_and_shifts_in_every_block():
    z = np.ones((2, 5))
    network = resnet.resnet_generator(
        5, (16, 16, 1), filters=2, condition_dim=4
    )
    assert len(all_of(network, ConditionalBatchNormalization)) == 4
    assert network([z, CLASSES]).shape == (2, 16, 16, 1)
    beside = resnet.resnet_generator(
        5, (16, 16, 1), 2, condition_dim=4, conditional_normalization=False
    )
    assert not all_of(beside, ConditionalBatchNormalization)
    first, second = beside([z, CLASSES])
    assert np.any(np.abs(first - second) > 1e-4)


def test_conditional_discriminator_projects_with_spectral_normalization():
    network = resnet.resnet_discriminator((8, 8, 1), 2, condition_dim=4)
    head = network.layers[-1]
    assert isinstance(head, ProjectionLogit) and head.spectral_normalization
    assert network([np.ones((2, 8, 8, 1)), CLASSES]).shape == (2, 1)
    network = resnet.resnet_discriminator(
        (8, 8, 1), 2, condition_dim=4, conditioning="auxiliary"
    )
    assert network.output_shape == (None, 5)


def test_outputs_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    images = resnet.resnet_generator(5, (8, 8, 1), 2)(np.ones((2, 5)))
    network = resnet.resnet_discriminator((8, 8, 1), 2)
    assert images.dtype == "float32" and network(images).dtype == "float32"
    for layer in all_of(network, layers.SpectralNormalization):
        assert layer.compute_dtype == "float32"
        if isinstance(layer.layer, layers.Conv2D):
            assert layer.layer.compute_dtype == "float16"


def test_networks_survive_their_configs():
    for network in (
        resnet.resnet_generator(5, (8, 8, 1), 2, condition_dim=4),
        resnet.resnet_discriminator((8, 8, 1), 2, condition_dim=4),
        resnet.resnet_discriminator((8, 8, 1), 2),
    ):
        config = keras.saving.serialize_keras_object(network)
        copy = keras.saving.deserialize_keras_object(config)
        copy.set_weights(network.get_weights())
        x = [np.ones((2, *x.shape[1:])) for x in network.inputs]
        x = x if len(x) > 1 else x[0]
        np.testing.assert_allclose(copy(x), network(x), rtol=1e-5)


@pytest.mark.parametrize("shape", [(29, 30, 3), (7, 7, 1)])
def test_sizes_that_do_not_halve_are_refused(shape):
    with pytest.raises(ValueError, match="`image_shape`"):
        resnet.resnet_generator(5, shape)
    with pytest.raises(ValueError, match="`image_shape`"):
        resnet.resnet_discriminator(shape)
