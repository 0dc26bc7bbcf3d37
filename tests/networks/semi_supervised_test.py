"""Shapes of the networks of a semi-supervised GAN, and where noise is."""

import keras
import numpy as np
import tensorflow as tf

from keras_gen.networks.semi_supervised import (
    semi_supervised_discriminator,
    semi_supervised_generator,
)


def test_shapes_and_dtypes_are_those_of_images_and_classes():
    keras.config.set_dtype_policy("mixed_float16")
    generator = semi_supervised_generator(3, (4, 6, 2), hidden_dims=(8,))
    discriminator = semi_supervised_discriminator((4, 6, 2), 5, (8, 7))
    x = generator(tf.random.normal((9, 3)))
    assert x.shape == (9, 4, 6, 2) and x.dtype == "float32"
    assert np.max(np.abs(x)) <= 1
    logits = discriminator(x)
    assert logits.shape == (9, 5) and logits.dtype == "float32"


def test_noise_has_the_deviations_of_the_paper_in_training_alone():
    discriminator = semi_supervised_discriminator((4, 4, 1), 3, ())
    bias = discriminator.get_weights()[1]
    discriminator.set_weights([np.eye(16)[:, :3], 0 * bias])
    x = np.zeros((20_000, 4, 4, 1), "float32")
    np.testing.assert_array_equal(discriminator(x[:2]), np.zeros((2, 3)))
    noise = np.array(discriminator(x, training=True))
    np.testing.assert_allclose(noise.std(axis=0), 0.6, rtol=0.03)

    hidden = semi_supervised_discriminator((4, 4, 1), 16, (16,))
    zeros = [np.zeros((16, 16)), np.zeros(16), np.eye(16), np.zeros(16)]
    hidden.set_weights(zeros)
    noise = np.array(hidden(x[:5_000], training=True))
    assert abs(noise.std() - 0.5) < 0.01


def test_generator_normalizes_its_hidden_layers():
    generator = semi_supervised_generator(2, (2, 2, 1), hidden_dims=(3,))
    z = np.random.default_rng(0).normal(3.0, 2.0, (64, 2))
    statistics = keras.Model(
        generator.inputs[0],
        next(
            layer.output
            for layer in generator.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ),
    )
    h = np.array(statistics(z, training=True))
    np.testing.assert_allclose(h.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(h.std(axis=0), 1, rtol=1e-3)
