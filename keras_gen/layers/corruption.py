"""Noise that a denoising autoencoder learns to remove.

Beside these stand Keras's own layers, for example
`keras.layers.GaussianNoise`.
"""

import keras
import tensorflow as tf

from keras_gen import inputs, randomness


class _PixelNoise(keras.layers.Layer):
    """Gives `call` a uniform number for each value of its input."""

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = inputs.check_number(rate, "rate", 0, 1)
        self.seed = None if seed is None else inputs.check_seed(seed)
        self.seeds = randomness.ReplicaSeedGenerator(self.seed)

    def uniform(self, x):
        return randomness.draw_rows(
            tf.random.stateless_uniform, tf.shape(x), self.seeds.next_shared()
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_gen")
class MaskingNoise(_PixelNoise):
    """Sets values to 0 in training, each with the probability `rate`.

    Unlike `keras.layers.Dropout` it leaves the others as they are, so that
    what comes out is still an image.

    Args:
        rate: Number in [0, 1].
        seed: Integer or `None`, seed of the noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, ...)`.
        training: Boolean; without it, `x` is returned.

    Returns:
        Tensor of the shape of `x`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> MaskingNoise(0.25)(keras.ops.ones((8, 28, 28, 1)), training=True)

    Reference:
        - [Stacked Denoising Autoencoders](
          https://www.jmlr.org/papers/v11/vincent10a.html)
    """

    def call(self, x, training=False):
        if not training:
            return x
        return tf.where(self.uniform(x) < self.rate, tf.zeros_like(x), x)


@keras.saving.register_keras_serializable(package="keras_gen")
class SaltAndPepper(_PixelNoise):
    """Sets values to 0 or 1 in training, with the probability `rate` in all.

    Half of those that change become 0, the others 1.

    Args:
        rate: Number in [0, 1].
        seed: Integer or `None`, seed of the noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, ...)`.
        training: Boolean; without it, `x` is returned.

    Returns:
        Tensor of the shape of `x`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> SaltAndPepper(0.4)(keras.ops.ones((8, 28, 28, 1)), training=True)

    Reference:
        - [Stacked Denoising Autoencoders](
          https://www.jmlr.org/papers/v11/vincent10a.html)
    """

    def call(self, x, training=False):
        if not training:
            return x
        uniform = self.uniform(x)
        x = tf.where(uniform < self.rate, tf.ones_like(x), x)
        return tf.where(uniform < self.rate / 2, tf.zeros_like(x), x)
