"""Layers through which a condition acts in the networks of a GAN."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_gen")
class ConditionalBatchNormalization(keras.layers.Layer):
    """Batch normalization whose scale and shift come from a condition.

    `(1 + condition @ gamma) * normalized(h) + condition @ beta`, each feature
    of `h` being normalized over the batch and all positions. With one-hot
    conditions every class has a scale, 1 at first, and a shift, 0 at first, of
    its own. Statistics are shared by all conditions, and by all replicas.

    Args:
        momentum: Number, of the moving averages of the statistics.
        epsilon: Number, added to the variance.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[h, condition]`, `(batch, ..., features)` and
            `(batch, width)`.
        training: Boolean, whether to normalize by the batch's own statistics.

    Returns:
        Tensor of the shape of `h`.

    Example:

    >>> h, classes = keras.ops.ones((8, 4, 4, 16)), keras.ops.eye(8)
    >>> ConditionalBatchNormalization()([h, classes])  # (8, 4, 4, 16)

    Reference:
        - [A Learned Representation For Artistic Style](
          https://arxiv.org/abs/1610.07629)
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.normalization = keras.layers.BatchNormalization(
            momentum=momentum,
            epsilon=epsilon,
            center=False,
            scale=False,
            synchronized=True,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        h, condition = input_shape
        self.normalization.build(h)
        self.gamma, self.beta = (
            self.add_weight(
                name=name, shape=(condition[-1], h[-1]), initializer="zeros"
            )
            for name in ("gamma", "beta")
        )

    def call(self, inputs, training=False):
        h, condition = inputs
        shape = (-1, *[1] * (len(h.shape) - 2), h.shape[-1])
        scale = 1.0 + ops.reshape(ops.matmul(condition, self.gamma), shape)
        shift = ops.reshape(ops.matmul(condition, self.beta), shape)
        return scale * self.normalization(h, training=training) + shift

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.normalization.momentum,
            "epsilon": self.normalization.epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_gen")
class ProjectionLogit(keras.layers.Layer):
    """The logit of an image under a condition, by projection.

    `phi @ w + b + sum(phi * (condition @ embedding))`, where `phi` is the sum
    of the features over all positions. With one-hot conditions the last term
    is the inner product with the embedding of the class. That is the form of
    the optimal logit where p(y given x) is log-linear in the features. It
    computes in float32.

    Args:
        spectral_normalization: Boolean, whether both maps are wrapped in
            `keras.layers.SpectralNormalization`.
        kernel_initializer: Initializer of both maps.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[h, condition]`, `(batch, ..., features)` and
            `(batch, width)`.

    Returns:
        Logits `(batch, 1)`, float32.

    Example:

    >>> h, classes = keras.ops.ones((8, 4, 4, 16)), keras.ops.eye(8)
    >>> ProjectionLogit()([h, classes])  # (8, 1)

    Reference:
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
    """

    def __init__(
        self,
        spectral_normalization=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.spectral_normalization = spectral_normalization
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        h, condition = input_shape
        self.score = self._dense(1, use_bias=True)
        self.embedding = self._dense(h[-1], use_bias=False)
        self.score.build((None, h[-1]))
        self.embedding.build((None, condition[-1]))

    def _dense(self, units, use_bias):
        dense = keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
        )
        if not self.spectral_normalization:
            return dense
        return keras.layers.SpectralNormalization(
            dense, dtype=self.dtype_policy
        )

    def call(self, inputs):
        h, condition = inputs
        phi = ops.sum(h, axis=tuple(range(1, len(h.shape) - 1)))
        projection = ops.sum(
            phi * self.embedding(condition), axis=-1, keepdims=True
        )
        return self.score(phi) + projection

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], 1)

    def get_config(self):
        return {
            **super().get_config(),
            "spectral_normalization": self.spectral_normalization,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }
