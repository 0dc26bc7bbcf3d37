"""Layers whose weights all learn at the same speed."""

import math

import keras
import tensorflow as tf

from keras_gen import inputs


class _Equalized(keras.layers.Layer):
    """A layer with a standard normal kernel that is scaled when it is used."""

    def __init__(self, gain, use_bias, **kwargs):
        super().__init__(**kwargs)
        self.gain = inputs.check_number(gain, "gain", minimum=0, exclusive=True)
        self.use_bias = use_bias

    def _add_weights(self, kernel_shape, num_biases):
        # Scaled in float32 and rounded once, hence without automatic casts.
        self.kernel = self.add_weight(
            name="kernel",
            shape=kernel_shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            autocast=False,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(num_biases,), initializer="zeros"
            )

    def _scaled_kernel(self):
        kernel = tf.convert_to_tensor(self.kernel)
        fan_in = math.prod(kernel.shape[:-1])
        return kernel * (self.gain / math.sqrt(fan_in))

    def _biased(self, x):
        return tf.nn.bias_add(x, self.bias) if self.use_bias else x

    def get_config(self):
        return {
            **super().get_config(),
            "gain": self.gain,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable(package="keras_gen")
class EqualizedDense(_Equalized):
    """Dense layer with an equalized learning rate.

    `x @ (kernel * gain / sqrt(fan_in)) + bias`. The kernel is drawn from
    N(0, 1), and He's scale for `fan_in` inputs is a constant of the layer. So
    all weights of a network have the same size, and an optimizer that
    normalizes its steps, as Adam does, moves all of them equally fast. The
    constant does not scale the bias, which begins at 0.

    Args:
        units: Integer, or a shape of the output such as `(4, 4, 512)`, with a
            bias for each index of the last axis.
        gain: Positive number; `sqrt(2)` suits a following LeakyReLU, 1 a
            linear output.
        use_bias: Boolean.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, features)`.

    Returns:
        `(batch, units)`, or `(batch, *units)`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> EqualizedDense((4, 4, 512), gain=2**0.5 / 4)(z)  # (batch, 4, 4, 512)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(self, units, *, gain=2**0.5, use_bias=True, **kwargs):
        super().__init__(gain, use_bias, **kwargs)
        self.units = tuple(
            inputs.check_positive_integer(size, "units")
            for size in (units if isinstance(units, tuple | list) else [units])
        )

    def build(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                "`x` must be features of shape (batch, features), got "
                f"{tuple(input_shape)}. Put `keras.layers.Flatten` before."
            )
        width = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: width})
        self._add_weights((width, math.prod(self.units)), self.units[-1])

    def call(self, x):
        y = tf.matmul(x, tf.cast(self._scaled_kernel(), x.dtype))
        return self._biased(tf.reshape(y, (-1, *self.units)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_gen")
class EqualizedConv2D(_Equalized):
    """Convolution with an equalized learning rate, "same" padding, stride 1.

    As `EqualizedDense`, with `fan_in = kernel_size**2 * maps`. It can also
    change the resolution, in one convolution with a kernel that is one larger
    and holds the 2x2 box of the resampling:

    - `"up"`: what `upscale(x)` and then the convolution would give, with 4/9
      of the multiplications for 3x3 kernels.
    - `"down"`: the convolution and then `downscale`, with 4/9 of them too. An
      activation can only follow, where usually it stands between the two.

    Args:
        filters: Integer, output maps.
        kernel_size: Integer, rows and columns of the kernel; odd.
        resample: `None`, `"up"` or `"down"`.
        gain: Positive number; `sqrt(2)` suits a following LeakyReLU, 1 a
            linear output.
        use_bias: Boolean.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, height, width, maps)`, of even height and width for
            `"down"`.

    Returns:
        `(batch, height, width, filters)`, twice or half as high and wide if
        it resamples.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> EqualizedConv2D(256, 3, resample="up")(x)  # of 8x8: (batch, 16, 16, 256)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        resample=None,
        gain=2**0.5,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(gain, use_bias, **kwargs)
        self.filters = inputs.check_positive_integer(filters, "filters")
        self.kernel_size = inputs.check_positive_integer(
            kernel_size, "kernel_size"
        )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"`kernel_size` must be odd, got {kernel_size}. Pass "
                f"{kernel_size + 1}."
            )
        if resample not in (None, "up", "down"):
            raise ValueError(
                "`resample` must be None, 'up' or 'down', got "
                f"{resample!r}. Leave it out to keep the resolution."
            )
        self.resample = resample

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                "`x` must be maps of shape (batch, height, width, maps), got "
                f"{tuple(input_shape)}."
            )
        sizes = input_shape[1:3]
        if self.resample == "down" and any(size and size % 2 for size in sizes):
            raise ValueError(
                "`x` must be of even height and width for `resample='down'`, "
                f"got {tuple(input_shape)}."
            )
        size, width = self.kernel_size, input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: width})
        self._add_weights((size, size, width, self.filters), self.filters)

    def call(self, x):
        kernel, strides = self._scaled_kernel(), 1
        if self.resample == "up":
            return self._biased(self._transposed_convolution(x, kernel))
        if self.resample == "down":
            kernel, strides = 0.25 * _boxed(kernel), 2
        kernel = tf.cast(kernel, x.dtype)
        return self._biased(tf.nn.conv2d(x, kernel, strides, "SAME"))

    def _transposed_convolution(self, x, kernel):
        # It takes its kernel turned around.
        kernel = tf.transpose(_boxed(kernel)[::-1, ::-1], (0, 1, 3, 2))
        shape = tf.stack([tf.shape(x)[0], *self._output_size(x.shape)])
        y = tf.nn.conv2d_transpose(x, tf.cast(kernel, x.dtype), shape, 2)
        return tf.ensure_shape(y, self.compute_output_shape(x.shape))

    def _output_size(self, shape):
        """Height, width and maps of the output."""
        height, width = shape[1:3]
        if self.resample == "up":
            height, width = 2 * height, 2 * width
        elif self.resample == "down":
            height, width = height // 2, width // 2
        return height, width, self.filters

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._output_size(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "resample": self.resample,
        }


def _boxed(kernel):
    """A kernel `(k + 1, k + 1, ...)`: the sum of its four shifts by one."""
    kernel = tf.pad(kernel, [[1, 1], [1, 1], [0, 0], [0, 0]])
    return kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]
