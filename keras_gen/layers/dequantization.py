"""Dequantization: 8-bit images as points of a density.

Level k of a pixel stands for the interval `[k / 256, (k + 1) / 256]`, from
which `draw` takes a point `v = (k + u) / 256`. For any distribution q of u,

    log P(image) >= E[log p(v) - log q(v given image)],

where `log q(v given image) = log q(u given image) + num_dims * log(256)`: a
density p of points so has a likelihood of images.
"""

import math

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs

NUM_LEVELS = 256


@saving.register_keras_serializable(package="keras_gen")
class UniformDequantization(keras.layers.Layer):
    """Dequantization by uniform noise: `u` is the noise itself.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Reference:
        - [A Note on the Evaluation of Generative Models](
          https://arxiv.org/abs/1511.01844)
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def draw(self, x, noise, training=False):
        """Points for images, and how likely they are to be drawn.

        Args:
            x: Images in [0, 1], `(batch, *image_shape)` float32.
            noise: Uniform in [0, 1), of the shape of `x`.
            training: Boolean, whether a network is in training.

        Returns:
            `(v, log_q)`: points in [0, 1] of the shape of `x`, and
            `log q(v given x)`, `(batch,)` nats.
        """
        num_dims = math.prod(x.shape[1:])
        log_q = tf.fill(tf.shape(x)[:1], num_dims * math.log(NUM_LEVELS))
        return _points(x, noise), log_q


@saving.register_keras_serializable(package="keras_gen")
class VariationalDequantization(keras.layers.Layer):
    """Dequantization by noise whose distribution is learned with the flow.

    `u = sigmoid(loc + exp(log_scale) * logit(noise))` with `(loc, raw)` of a
    network of the image, `log_scale = 2 * tanh(raw / 2)` and uniform noise:
    each pixel's u is logistic-normal, without correlation among pixels given
    the image. Where the network gives zeros u is uniform, which is where the
    default starts.

    Args:
        network: Network from images `(batch, *image_shape)` in [-0.5, 0.5] to
            loc and raw side by side, `(batch, height, width, 2 * channels)`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: When it is built, if the network has other shapes.

    Example:

    >>> network = networks.coupling_resnet((28, 28, 1), 2, hidden_dim=32)
    >>> RealNVP((28, 28, 1), dequantization=VariationalDequantization(network))

    Reference:
        - [Flow++](https://arxiv.org/abs/1902.00275), where the noise passes
          through couplings, which correlate it.
    """

    def __init__(self, network, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.network = network

    def build(self, input_shape):
        image_shape = tuple(input_shape[1:])
        wanted = (*image_shape[:-1], 2 * image_shape[-1])
        inputs.check_network(self.network, image_shape, wanted, "network")

    def draw(self, x, noise, training=False):
        """Points for images, and how likely they are to be drawn.

        Args:
            x: Images in [0, 1], `(batch, *image_shape)` float32.
            noise: Uniform in [0, 1), of the shape of `x`.
            training: Boolean, whether the network is in training.

        Returns:
            `(v, log_q)`: points in [0, 1] of the shape of `x`, and
            `log q(v given x)`, `(batch,)` nats.
        """
        h = tf.cast(self.network(x - 0.5, training=training), "float32")
        loc, raw = tf.split(h, 2, axis=-1)
        log_scale = 2.0 * tf.tanh(raw / 2.0)
        # A draw of exactly 0 is one in millions, and would be infinite.
        noise = tf.clip_by_value(noise, 2.0**-24, 1.0 - 2.0**-24)
        logits = tf.math.log(noise) - tf.math.log1p(-noise)
        moved = loc + tf.exp(log_scale) * logits
        log_ratio = _log_slope(logits) - _log_slope(moved) - log_scale
        log_q = tf.reduce_sum(
            log_ratio + math.log(NUM_LEVELS), axis=[*range(1, len(x.shape))]
        )
        return _points(x, tf.sigmoid(moved)), log_q

    def get_config(self):
        network = saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config):
        network = saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def _points(x, u):
    return (tf.round(255.0 * x) + u) / NUM_LEVELS


def _log_slope(logits):
    """Log of the sigmoid's derivative, the logistic log-density."""
    return -tf.nn.softplus(logits) - tf.nn.softplus(-logits)
