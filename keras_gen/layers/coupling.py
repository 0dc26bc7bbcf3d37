"""Coupling layers: one part of the input changes, told by the other how."""

import math

import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.layers.invertible import InvertibleLayer

_SPLITS = ("channels", "checkerboard")


def coupling_shapes(event_shape, split="channels", flip=False):
    """Shapes of the two parts into which a coupling splits its input.

    `"channels"`: the first half of the last axis, and the second.

    `"checkerboard"`: the pixels whose row and column have an even sum, and the
    others. Each part is an image of half the height and width, odd sides
    rounded up, and twice the channels, with the two pixels that a block of
    2x2 has of one colour. A network so works on half of the numbers, where on
    a masked image it would work on all.

    Args:
        event_shape: Shape of an entry of the batch: `(height, width,
            channels)`, or with `"channels"` any.
        split: `"channels"` or `"checkerboard"`.
        flip: Boolean, whether the second part is the one that stays.

    Returns:
        `(kept, changed)`: the shape that the coupling's network is given, and
        that of what changes.

    Raises:
        ValueError: If `split` is another one, or there is nothing to split.

    Example:

    >>> coupling_shapes((28, 28, 1), "checkerboard")
    ((14, 14, 2), (14, 14, 2))
    """
    *sides, channels = event_shape
    if split not in _SPLITS:
        raise ValueError(
            f"`split` must be one of {_SPLITS}, got {str(split)[:100]!r}."
        )
    if split == "channels":
        if channels < 2:
            raise ValueError(
                "`split='channels'` needs two channels at least, got an input "
                f"of shape {tuple(event_shape)}. Put a `Squeeze2D` before the "
                "coupling, or use `split='checkerboard'`."
            )
        shapes = [
            (*sides, channels - channels // 2),
            (*sides, channels // 2),
        ]
    else:
        if len(sides) != 2 or sides == [1, 1]:
            raise ValueError(
                "`split='checkerboard'` needs images of two pixels at least, "
                f"got an input of shape {tuple(event_shape)}. Use "
                "`split='channels'`."
            )
        half = (*((side + 1) // 2 for side in sides), 2 * channels)
        shapes = [half, half]
    return tuple(reversed(shapes) if flip else shapes)


class Coupling(InvertibleLayer):
    """What couplings have in common; how they change a part is their own.

    A subclass writes `_num_parameters(channels)`, the output channels of its
    network, `_change(b, h)`, the new part and the log-determinant, and
    `_restore(b, h)`, the part that it was; `h` is the network's output.
    """

    def __init__(
        self, network, split="channels", flip=False, recompute=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.network = network
        self.split = split
        self.flip = inputs.check_boolean(flip, "flip")
        self.recompute = inputs.check_boolean(recompute, "recompute")

    def build(self, input_shape):
        super().build(input_shape)
        kept, changed = coupling_shapes(self.event_shape, self.split, self.flip)
        wanted = (*changed[:-1], self._num_parameters(changed[-1]))
        inputs.check_network(self.network, kept, wanted, "network")
        # Beside weights, these are the seeds of noise.
        fixed = self.network.non_trainable_variables
        if self.recompute and fixed:
            raise ValueError(
                "`recompute=True` needs a network whose second pass gives what "
                "the first one gave, got one with variables that do not train: "
                f"{fixed[0].path[:100]!r}. Leave out batch normalization and "
                "dropout, or `recompute`."
            )
        self._sizes = [kept[-1], changed[-1]]
        if self.flip:
            self._sizes.reverse()
        self._inside = None  # where odd sides are padded, 0, and else 1
        if self.split == "checkerboard" and any(
            side % 2 for side in self.event_shape[:2]
        ):
            with tf.init_scope():
                ones = tf.ones((1, *self.event_shape))
                self._inside = np.array(self._parted(ones)[1])

    def forward(self, x, training=False):
        a, b = self._parted(x)
        if self.recompute:
            b, log_det = self._change_in_little_memory(a, b)
        else:
            b, log_det = self._change(b, self._parameters(a, training))
        return self._joined(a, b), log_det

    def inverse(self, y):
        a, b = self._parted(y)
        return self._joined(a, self._restore(b, self._parameters(a)))

    def _parameters(self, a, training=False):
        return tf.cast(self.network(a, training=training), self.compute_dtype)

    def _parted(self, x):
        if self.split == "channels":
            parts = tf.split(x, self._sizes, axis=-1)
        else:
            parts = _colours(x)
        return parts[::-1] if self.flip else parts

    def _joined(self, a, b):
        parts = (b, a) if self.flip else (a, b)
        if self.split == "channels":
            return tf.concat(parts, axis=-1)
        return _from_colours(*parts, self.event_shape)

    def _change_in_little_memory(self, a, b):
        """`_change` that keeps no hidden layer of the network for the gradient.

        The gradient finds `b` from the output, and passes through the network
        once more. The weights are arguments, as everything must be that a
        custom gradient leads to.
        """

        def parameters(a, weights):
            h, _ = self.network.stateless_call(weights, [], a, training=True)
            return tf.cast(h, self.compute_dtype)

        @tf.custom_gradient
        def change(a, b, *weights):
            # Without a gradient of their own, no outer tape keeps these steps.
            a, b, *weights = map(tf.stop_gradient, (a, b, *weights))
            new_b, log_det = self._change(b, parameters(a, weights))

            def gradient(d_new_b, d_log_det):
                # Compilers would merge the two passes, and keep all of the
                # first one, if this one did not wait for the gradient.
                ready = tf.math.is_finite(tf.reduce_sum(d_new_b))
                late_a = tf.where(ready, a, np.nan)
                with tf.GradientTape() as tape:
                    tape.watch([late_a, *weights])
                    h = parameters(late_a, weights)
                    old_b = tf.stop_gradient(self._restore(new_b, h))
                    tape.watch(old_b)
                    outputs = self._change(old_b, h)
                return tape.gradient(
                    outputs,
                    [late_a, old_b, *weights],
                    output_gradients=[d_new_b, d_log_det],
                    unconnected_gradients="zero",
                )

            return (new_b, log_det), gradient

        weights = [
            tf.convert_to_tensor(weight.value)
            for weight in self.network.trainable_weights
        ]
        return change(a, b, *weights)

    def get_config(self):
        return {
            **super().get_config(),
            "network": saving.serialize_keras_object(self.network),
            "split": self.split,
            "flip": self.flip,
            "recompute": self.recompute,
        }

    @classmethod
    def from_config(cls, config):
        network = saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


@saving.register_keras_serializable(package="keras_gen")
class AdditiveCoupling(Coupling):
    """Shifts one part of the input by a network of the other.

    `y_a = x_a`, `y_b = x_b + network(x_a)`. Its log-determinant is 0.

    Args:
        network: Network of the shapes that `coupling_shapes(event_shape,
            split, flip)` gives, from the part that stays to the shift.
        split: `"channels"` or `"checkerboard"`, see `coupling_shapes`.
        flip: Boolean, whether the second part is the one that stays.
        recompute: Boolean, whether the gradient computes the hidden layers of
            the network once more rather than keep them in memory.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: When it is built, if the network has other shapes, or with
            `recompute` variables that do not train.

    Example:

    >>> coupling = AdditiveCoupling(networks.coupling_mlp((392,), 392))
    >>> y, log_det = coupling(x)  # of x (batch, 784)
    >>> coupling.inverse(y)  # x

    Reference:
        - [NICE](https://arxiv.org/abs/1410.8516)
        - [The Reversible Residual Network](https://arxiv.org/abs/1707.04585),
          on gradients from outputs.
    """

    def _num_parameters(self, channels):
        return channels

    def _change(self, b, h):
        return b + h, tf.zeros(tf.shape(b)[:1], b.dtype)

    def _restore(self, b, h):
        return b - h


@saving.register_keras_serializable(package="keras_gen")
class AffineCoupling(Coupling):
    """Scales and shifts one part of the input, as the other says.

    `y_a = x_a`, `y_b = x_b * exp(s) + t`, where `(raw, t) = network(x_a)` and
    `s = max_log_scale * tanh(raw / max_log_scale)` cannot run away.
    `log_det = sum(s)`.

    Args:
        network: Network from the part that stays to `raw` and `t` side by
            side: of the shapes `(kept, changed)` of `coupling_shapes(
            event_shape, split, flip)`, but with twice the channels of
            `changed`.
        split: `"channels"` or `"checkerboard"`, see `coupling_shapes`.
        flip: Boolean, whether the second part is the one that stays.
        max_log_scale: Positive number, bound of s.
        recompute: Boolean, whether the gradient computes the hidden layers of
            the network once more rather than keep them in memory.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `max_log_scale` is not positive; when it is built, if
            the network has other shapes, or with `recompute` variables that
            do not train.

    Example:

    >>> coupling = AffineCoupling(networks.coupling_mlp((392,), 2 * 392))
    >>> y, log_det = coupling(x)  # of x (batch, 784)
    >>> coupling.inverse(y)  # x

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803), where s is a tanh times a weight,
          and the checkerboard a mask.
        - [The Reversible Residual Network](https://arxiv.org/abs/1707.04585),
          on gradients from outputs.
    """

    def __init__(
        self,
        network,
        split="channels",
        flip=False,
        max_log_scale=2.0,
        recompute=False,
        **kwargs,
    ):
        super().__init__(network, split, flip, recompute, **kwargs)
        self.max_log_scale = inputs.check_number(
            max_log_scale, "max_log_scale", minimum=0, exclusive=True
        )

    def _num_parameters(self, channels):
        return 2 * channels

    def _log_scale_and_shift(self, h):
        raw, shift = tf.split(h, 2, axis=-1)
        log_scale = self.max_log_scale * tf.tanh(raw / self.max_log_scale)
        if self._inside is not None:
            log_scale *= tf.cast(self._inside, log_scale.dtype)
        return log_scale, shift

    def _change(self, b, h):
        log_scale, shift = self._log_scale_and_shift(h)
        log_det = tf.reduce_sum(log_scale, axis=[*range(1, len(b.shape))])
        return b * tf.exp(log_scale) + shift, log_det

    def _restore(self, b, h):
        log_scale, shift = self._log_scale_and_shift(h)
        return (b - shift) * tf.exp(-log_scale)

    def get_config(self):
        return {**super().get_config(), "max_log_scale": self.max_log_scale}


@saving.register_keras_serializable(package="keras_gen")
class FlattenEvenFirst(InvertibleLayer):
    """Flattens, with the numbers of even index before those of odd index.

    What NICE splits, odd from even pixels, are then the halves of a vector,
    which couplings part and join at no cost.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> FlattenEvenFirst()(tf.reshape(tf.range(4.0), (1, 2, 2, 1)))[0]
    [[0., 2., 1., 3.]]

    Reference:
        - [NICE](https://arxiv.org/abs/1410.8516)
    """

    def build(self, input_shape):
        super().build(input_shape)
        num_dims = math.prod(self.event_shape)
        self._order = np.r_[0:num_dims:2, 1:num_dims:2]
        self.output_event_shape = (num_dims,)

    def forward(self, x, training=False):
        flat = tf.reshape(x, (-1, *self.output_event_shape))
        y = tf.gather(flat, self._order, axis=1)
        return y, tf.zeros(tf.shape(x)[:1], self.compute_dtype)

    def inverse(self, y):
        flat = tf.gather(y, np.argsort(self._order), axis=1)
        return tf.reshape(flat, (-1, *self.event_shape))


@saving.register_keras_serializable(package="keras_gen")
class Squeeze2D(InvertibleLayer):
    """Blocks of 2x2 pixels become pixels of four times the channels.

    `(height, width, channels)` to `(height / 2, width / 2, 4 * channels)`: the
    channels of the upper left pixel of a block, the upper right, the lower
    left, the lower right. Its log-determinant is 0.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: When it is built, if a side is odd.

    Example:

    >>> Squeeze2D()(tf.zeros((8, 28, 28, 1)))[0].shape  # (8, 14, 14, 4)

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803)
    """

    def build(self, input_shape):
        super().build(input_shape)
        is_image = len(self.event_shape) == 3
        if not is_image or any(side % 2 for side in self.event_shape[:2]):
            raise ValueError(
                "`Squeeze2D` needs images of even height and width, got shape "
                f"{self.event_shape}. Use fewer scales, or pad the images."
            )
        height, width, channels = self.event_shape
        self.output_event_shape = (height // 2, width // 2, 4 * channels)

    def forward(self, x, training=False):
        log_det = tf.zeros(tf.shape(x)[:1], self.compute_dtype)
        return tf.nn.space_to_depth(x, 2), log_det

    def inverse(self, y):
        return tf.nn.depth_to_space(y, 2)


def _colours(x):
    """The pixels of each colour of a checkerboard, as images of half size."""
    height, width, channels = x.shape[1:]
    if height % 2 or width % 2:
        x = tf.pad(x, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])
    blocks = tf.nn.space_to_depth(x, 2)  # 0 1 / 2 3: 0 and 3 have one colour
    sizes = [channels, 2 * channels, channels]
    first, odd, last = tf.split(blocks, sizes, axis=-1)
    return tf.concat([first, last], axis=-1), odd


def _from_colours(even, odd, event_shape):
    first, last = tf.split(even, 2, axis=-1)
    x = tf.nn.depth_to_space(tf.concat([first, odd, last], axis=-1), 2)
    return x[:, : event_shape[0], : event_shape[1]]
