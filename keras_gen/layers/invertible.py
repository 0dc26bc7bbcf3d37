"""Invertible layers: maps of known log-determinant, alone and in chains.

`forward` leads from data to latents, `inverse` back. A flow is a chain of such
layers; each of them, and so the chain, is also a bijector of TensorFlow
Probability.
"""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

tfb = tfp.bijectors


class InvertibleLayer(keras.layers.Layer):
    """What invertible layers have in common: their methods and attributes.

    They compute in float32 under every dtype policy, unless `dtype` is
    "float64". A subclass writes `forward`, `inverse` and, if it has weights
    or changes the shape, `build`.

    Attributes:
        event_shape: Shape of an entry of the batch, known once it is built.
        output_event_shape: The shape that `forward` makes of it.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float32 `(batch, *event_shape)`.
        training: Boolean, whether statistics of the batch are used.

    Returns:
        `(y, log_det)`, as `forward`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape):
        self.event_shape = self.output_event_shape = tuple(input_shape[1:])

    def forward(self, x, training=False):
        """From data to latents.

        Args:
            x: float32 `(batch, *event_shape)`.
            training: Boolean, whether statistics of the batch are used.

        Returns:
            `(y, log_det)`: `(batch, *output_event_shape)`, and
            `log(abs(det(dy / dx)))`, `(batch,)` nats.
        """
        raise NotImplementedError

    def inverse(self, y):
        """The x of which `forward(x)` makes `y`, outside of training."""
        raise NotImplementedError

    def call(self, x, training=False):
        return self.forward(x, training)

    def as_bijector(self):
        """The layer as a bijector, to compose with those of TFP.

        Returns:
            A `tfp.bijectors.Bijector` whose `forward` is the layer's, from
            data to latents. Distributions pushed from latents to data take
            its inverse. Its weights are those of the layer, which is where an
            optimizer finds them. TFP remembers what a bijector gave for a
            tensor: make a new one when the weights have changed.

        Raises:
            ValueError: If the layer is not built.

        Example:

        >>> bijector = tfb.Invert(flow.as_bijector())
        >>> tfd.TransformedDistribution(latents, bijector).log_prob(x)
        """
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} is not built, so that "
                "its bijector would have no shape. Call "
                "`layer.build((None, *event_shape))` first."
            )
        return _LayerBijector(self)

    @property
    def _num_pixels(self):
        return math.prod(self.event_shape[:-1])


class _LayerBijector(tfb.Bijector):
    """An invertible layer seen by TFP: any number of leading dimensions."""

    def __init__(self, layer, name=None):
        parameters = dict(locals())
        self.layer = layer
        super().__init__(
            forward_min_event_ndims=len(layer.event_shape),
            inverse_min_event_ndims=len(layer.output_event_shape),
            dtype=tf.as_dtype(layer.compute_dtype),
            parameters=parameters,
            name=name or layer.name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward(self, x):
        shapes = self.layer.event_shape, self.layer.output_event_shape
        return _by_rows(lambda rows: self.layer.forward(rows)[0], x, *shapes)

    def _inverse(self, y):
        shapes = self.layer.output_event_shape, self.layer.event_shape
        return _by_rows(self.layer.inverse, y, *shapes)

    def _forward_log_det_jacobian(self, x):
        return _by_rows(
            lambda rows: self.layer.forward(rows)[1],
            x,
            self.layer.event_shape,
            (),
        )

    def _forward_event_shape(self, shape):
        rank = len(self.layer.event_shape)
        return shape[:-rank].concatenate(self.layer.output_event_shape)

    def _inverse_event_shape(self, shape):
        rank = len(self.layer.output_event_shape)
        return shape[:-rank].concatenate(self.layer.event_shape)

    def _forward_event_shape_tensor(self, shape):
        rank = len(self.layer.event_shape)
        return tf.concat([shape[:-rank], self.layer.output_event_shape], axis=0)

    def _inverse_event_shape_tensor(self, shape):
        rank = len(self.layer.output_event_shape)
        return tf.concat([shape[:-rank], self.layer.event_shape], axis=0)


def _by_rows(function, x, shape, new_shape):
    """Applies a function of `(batch, *shape)` to `(..., *shape)`."""
    leading = tf.shape(x)[: len(x.shape) - len(shape)]
    rows = function(tf.reshape(x, (-1, *shape)))
    new_shape = tf.constant(new_shape, "int32", (len(new_shape),))
    return tf.reshape(rows, tf.concat([leading, new_shape], axis=0))


@saving.register_keras_serializable(package="keras_gen")
class Chain(InvertibleLayer):
    """Invertible layers one after the other, the first next to the data.

    Its log-determinant is the sum of theirs.

    Args:
        parts: List of invertible layers.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> flow = Chain([Squeeze2D(), InvertibleConv1x1()])
    >>> y, log_det = flow(tf.zeros((8, 28, 28, 1)))  # y: (8, 14, 14, 4)
    """

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)

    def build(self, input_shape):
        super().build(input_shape)
        for part in self.parts:
            if not part.built:
                part.build((None, *self.output_event_shape))
            self.output_event_shape = part.output_event_shape

    def forward(self, x, training=False):
        total = tf.zeros(tf.shape(x)[:1], x.dtype)
        for part in self.parts:
            x, log_det = part.forward(x, training)
            total += log_det
        return x, total

    def inverse(self, y):
        for part in reversed(self.parts):
            y = part.inverse(y)
        return y

    def get_config(self):
        parts = [saving.serialize_keras_object(part) for part in self.parts]
        return {**super().get_config(), "parts": parts}

    @classmethod
    def from_config(cls, config):
        parts = [
            saving.deserialize_keras_object(part) for part in config["parts"]
        ]
        return cls(**{**config, "parts": parts})


@saving.register_keras_serializable(package="keras_gen")
class FactorOut(InvertibleLayer):
    """Lets half of the channels go on, and has done with the others.

    Those of the first half pass through `rest`; the second half are latents
    already. The result is a vector: the latents of `rest`, which are the
    coarse ones, and after them these.

    Args:
        rest: Invertible layer, what the first half goes through.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: When it is built, if there is one channel only.

    Example:

    >>> z, log_det = FactorOut(Squeeze2D())(tf.zeros((8, 4, 4, 2)))
    >>> z.shape  # (8, 32)

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803), section 3.6.
    """

    def __init__(self, rest, **kwargs):
        super().__init__(**kwargs)
        self.rest = rest

    def build(self, input_shape):
        super().build(input_shape)
        channels = self.event_shape[-1]
        if channels < 2:
            raise ValueError(
                "`FactorOut` parts channels in two, got an input of shape "
                f"{self.event_shape}. Put a `Squeeze2D` before it."
            )
        self._sizes = [channels - channels // 2, channels // 2]
        if not self.rest.built:
            self.rest.build((*input_shape[:-1], self._sizes[0]))
        self._num_done = self._num_pixels * self._sizes[1]
        self.output_event_shape = (math.prod(self.event_shape),)

    def forward(self, x, training=False):
        kept, done = tf.split(x, self._sizes, axis=-1)
        z, log_det = self.rest.forward(kept, training)
        num_coarse = self.output_event_shape[0] - self._num_done
        z = tf.reshape(z, (-1, num_coarse))
        done = tf.reshape(done, (-1, self._num_done))
        return tf.concat([z, done], axis=1), log_det

    def inverse(self, y):
        z, done = y[:, : -self._num_done], y[:, -self._num_done :]
        z = tf.reshape(z, (-1, *self.rest.output_event_shape))
        shape = (-1, *self.event_shape[:-1], self._sizes[1])
        kept, done = self.rest.inverse(z), tf.reshape(done, shape)
        return tf.concat([kept, done], axis=-1)

    def get_config(self):
        rest = saving.serialize_keras_object(self.rest)
        return {**super().get_config(), "rest": rest}

    @classmethod
    def from_config(cls, config):
        rest = saving.deserialize_keras_object(config["rest"])
        return cls(**{**config, "rest": rest})
