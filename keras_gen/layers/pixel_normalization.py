"""Normalization without parameters or statistics of a batch."""

import keras
import tensorflow as tf

from keras_gen import inputs


@keras.saving.register_keras_serializable(package="keras_gen")
class PixelNormalization(keras.layers.Layer):
    """Scales the features of every pixel to a mean square of 1.

    `x / sqrt(mean(x**2) + epsilon)`, the mean over the last axis. Of latents
    `(batch, latent_dim)` it makes points on the sphere of radius
    `sqrt(latent_dim)`. The mean is taken in float32 under every dtype policy.

    Args:
        epsilon: Positive number.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, ..., features)`.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: If `epsilon` is not positive.

    Example:

    >>> PixelNormalization()(keras.ops.full((1, 4), 3.0))  # all 1

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(self, epsilon=1e-8, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = inputs.check_number(
            epsilon, "epsilon", minimum=0, exclusive=True
        )

    def call(self, x):
        square = tf.square(tf.cast(x, "float32"))
        mean = tf.reduce_mean(square, axis=-1, keepdims=True)
        return x * tf.cast(tf.math.rsqrt(mean + self.epsilon), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
