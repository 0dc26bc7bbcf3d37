"""Convolutions through which a pixel sees only the pixels before it."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops, saving

from keras_gen import inputs

# Arguments of `keras.layers.Conv2D` that a `MaskedConv2D` sets by itself.
_FIXED = ("strides", "padding", "data_format", "dilation_rate", "groups")


@saving.register_keras_serializable(package="keras_gen")
class MaskedConv2D(keras.layers.Conv2D):
    """Convolution of the pixels before each pixel, in raster order.

    Pixels come row by row, and in each row from left to right. Where a kernel
    would see later ones it is zero; its rows below the middle are not even
    stored. The output has the size of the input, padded with zeros.

    Layers of this kind alone have a blind spot: a pixel does not see, however
    many there are, those to the right of it in the rows above that the corner
    of the kernels leaves out. `GatedMaskedConv2D` has none.

    Args:
        filters: Integer, how many features a pixel gets.
        kernel_size: Odd integer, or two of them: height and width of the
            kernel before it is masked.
        mask_type: `"A"` if a pixel does not see itself, for the first layer,
            or `"B"` if it does.
        num_groups: Integer, channels of the images. The features are so many
            groups of equal size, one for each channel, red before green before
            blue, and at the pixel itself a group sees the groups before it,
            and with `"B"` its own.
        **kwargs: `activation`, `use_bias` and other arguments of
            `keras.layers.Conv2D` but `strides`, `padding`, `data_format`,
            `dilation_rate` and `groups`, which are fixed.

    Call arguments:
        x: Float tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, height, width, filters)` in the layer's compute dtype.

    Raises:
        ValueError: If an argument is not as above, or the channels of the
            input cannot be split into `num_groups`.

    Example:

    >>> MaskedConv2D(64, 7, mask_type="A")(images)  # (batch, 28, 28, 64)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """

    def __init__(
        self, filters, kernel_size, mask_type="B", num_groups=1, **kwargs
    ):
        for name in _FIXED:
            if name in kwargs:
                raise ValueError(
                    f"`{name}` must be left out: a `MaskedConv2D` keeps the "
                    "size of images `(batch, height, width, channels)` and "
                    f"masks its kernel itself, got {str(kwargs[name])[:100]!r}."
                )
        size = kernel_size
        if not isinstance(size, tuple | list):
            size = (size, size)
        if len(size) != 2:
            raise ValueError(
                "`kernel_size` must be an odd integer or a pair of them, got "
                f"{str(kernel_size)[:100]}. Pass for example 7."
            )
        height, width = (check_odd(length, "kernel_size") for length in size)
        _check_mask_type(mask_type)
        super().__init__(
            filters, (height // 2 + 1, width), padding="valid", **kwargs
        )
        self.mask_type = mask_type
        self.num_groups = inputs.check_positive_integer(
            num_groups, "num_groups"
        )
        if filters % num_groups:
            raise ValueError(
                f"`filters` must be a multiple of `num_groups` {num_groups}, "
                f"got {filters}. Pass for example {num_groups * filters}."
            )

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.num_groups:
            raise ValueError(
                f"The input of layer {self.name!r} must have a multiple of "
                f"`num_groups` {self.num_groups} channels, got {channels}. "
                "Give the layer before as many filters."
            )
        super().build(input_shape)
        rows, width = self.kernel_size
        mask = np.ones((rows, width, channels, self.filters), bool)
        mask[-1, width // 2 + 1 :] = False
        seen, sees = (
            np.arange(count) * self.num_groups // count
            for count in (channels, self.filters)
        )
        if self.mask_type == "A":
            sees = sees - 1
        mask[-1, width // 2] = seen[:, np.newaxis] <= sees
        # A tensor: graphs capture it, and would copy an array into each node.
        with tf.init_scope():
            self._mask_tensor = tf.constant(mask)

    def call(self, x):
        rows, width = self.kernel_size
        side = width // 2
        x = ops.pad(x, ((0, 0), (rows - 1, 0), (side, side), (0, 0)))
        kernel = self.kernel * ops.cast(self._mask_tensor, self.compute_dtype)
        h = ops.conv(x, kernel, 1, "valid", data_format="channels_last")
        if self.use_bias:
            h = ops.add(h, self.bias)
        return h if self.activation is None else self.activation(h)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        config = super().get_config()
        rows, width = self.kernel_size
        return {
            **{name: config[name] for name in config if name not in _FIXED},
            "kernel_size": (2 * rows - 1, width),
            "mask_type": self.mask_type,
            "num_groups": self.num_groups,
        }


@saving.register_keras_serializable(package="keras_gen")
class GatedMaskedConv2D(keras.layers.Layer):
    """Layer of a gated PixelCNN, which has no blind spot.

    It has two stacks of features: v of a pixel's row and the rows above, as
    far to both sides as the kernel goes, and h of the pixels to the left and
    the pixel itself, which v enters too:

        a = conv(v, this row and the rows above) + condition @ P
        b = conv(h, this pixel and those left) + a @ Q + condition @ R
        v, h = gate(a), h + gate(b) @ S
        gate([s, t]) = tanh(s) * sigmoid(t)

    with biases. A mask `"A"`, for the first layer, leaves out this row in a,
    and this pixel in b and in the sum.

    Args:
        filters: Integer, features of v and of h.
        kernel_size: Odd integer of at least 3, width of a kernel before it is
            cut to what a pixel may see; nothing of it is masked.
        mask_type: `"A"` or `"B"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[v, h]` or `[v, h, condition]`: `(batch, height, width,
            channels)`, for the first layer the images twice; and the condition
            `(batch, width of it)`, or a map of `(batch, height, width, ...)`.

    Returns:
        The new `[v, h]`, each `(batch, height, width, filters)`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> v, h = GatedMaskedConv2D(64, 7, mask_type="A")([images, images])
    >>> v, h = GatedMaskedConv2D(64, 3)([v, h])  # (batch, 28, 28, 64)

    Reference:
        - [Conditional Image Generation with PixelCNN Decoders](
          https://arxiv.org/abs/1606.05328)
    """

    def __init__(self, filters, kernel_size=3, mask_type="B", **kwargs):
        super().__init__(**kwargs)
        self.filters = inputs.check_positive_integer(filters, "filters")
        self.kernel_size = check_odd(kernel_size, "kernel_size")
        self.mask_type = _check_mask_type(mask_type)
        self.past = self.kernel_size // 2  # pixels to each side
        if not self.past:
            raise ValueError(
                "`kernel_size` must be at least 3 for a pixel to see others, "
                "got 1. Pass for example 3."
            )
        taps = self.past + (mask_type == "B")

        width, linear = 2 * self.filters, {"use_bias": False}

        def make(kind, *args, **options):
            options["kernel_initializer"] = "he_normal"
            return kind(*args, dtype=self.dtype_policy, **options)

        conv, dense = keras.layers.Conv2D, keras.layers.Dense
        size = (taps, self.kernel_size)
        self.vertical = make(conv, width, size, name="vertical")
        size = (1, taps)
        self.horizontal = make(conv, width, size, name="horizontal", **linear)
        # Of each pixel alone: a matrix product is faster than a convolution.
        self.link = make(dense, width, name="link")  # from v to h
        self.projection = make(dense, self.filters, name="projection")
        self.conditioning = make(
            dense, 2 * width, name="conditioning", **linear
        )

    def build(self, input_shape):
        v, h, *condition = (shape[-1] for shape in input_shape)
        for layer, channels in (
            (self.vertical, v),
            (self.horizontal, h),
            (self.link, 2 * self.filters),
            (self.projection, self.filters),
            *((self.conditioning, width) for width in condition),
        ):
            layer.build((None, None, None, channels))

    def call(self, inputs):
        v, h, *condition = inputs
        past = self.past
        above = ops.pad(v, ((0, 0), (past, 0), (past, past), (0, 0)))
        left = ops.pad(h, ((0, 0), (0, 0), (past, 0), (0, 0)))
        if self.mask_type == "A":
            above, left = above[:, :-1], left[:, :, :-1]
        a, b = self.vertical(above), self.horizontal(left)
        if condition:
            condition = as_map(condition[0])
            more_a, more_b = ops.split(self.conditioning(condition), 2, axis=-1)
            a, b = a + more_a, b + more_b
        b = b + self.link(a)
        new = self.projection(gate(b))
        return [gate(a), new if self.mask_type == "A" else h + new]

    def compute_output_shape(self, input_shape):
        shape = (*input_shape[0][:-1], self.filters)
        return [shape, shape]

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "mask_type": self.mask_type,
        }


def gate(a):
    """`tanh(s) * sigmoid(t)` of the two halves s and t of the last axis."""
    s, t = ops.split(a, 2, axis=-1)
    return ops.tanh(s) * ops.sigmoid(t)


def as_map(condition):
    """A condition `(batch, width)` as a map of one pixel; maps as they are."""
    if len(condition.shape) == 2:
        return condition[:, None, None]
    return condition


def check_odd(size, argument):
    """Checks the size of a kernel that has a middle, and returns it."""
    if inputs.check_positive_integer(size, argument) % 2 == 0:
        raise ValueError(
            f"`{argument}` must be odd, for a kernel to have a middle, got "
            f"{size}. Pass for example {size + 1}."
        )
    return int(size)


def _check_mask_type(mask_type):
    if mask_type not in ("A", "B"):
        raise ValueError(
            "`mask_type` must be 'A', for the first layer, or 'B', got "
            f"{str(mask_type)[:100]!r}."
        )
    return mask_type
