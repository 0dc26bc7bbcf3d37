"""Convolutions over time that see no later step, a step at a time or all."""

import keras
from keras import ops, saving

from keras_gen import inputs


@saving.register_keras_serializable(package="keras_gen")
class CausalConv1D(keras.layers.Layer):
    """Convolution over time whose output at a step sees no later input.

    Computes `h[t] = b + sum_k x[t - (kernel_size - 1 - k) * dilation] @ W[k]`,
    where what comes before the first step is 0. Of kernels as short as those
    of WaveNet it is a few matrix products, which on a CPU are faster than a
    dilated convolution, above all under XLA.

    Args:
        filters: Positive integer, width of the output.
        kernel_size: Positive integer, how many steps an output sees.
        dilation: Positive integer, how many steps lie from one to the next.
        kernel_initializer: Initializer of `W`, `(kernel_size, input_dim,
            filters)`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, steps, input_dim)`.

    Returns:
        Tensor `(batch, steps, filters)` in the layer's compute dtype.

    Raises:
        ValueError: If a number is not a positive integer.

    Example:

    >>> layer = CausalConv1D(32, kernel_size=2, dilation=4)
    >>> layer(keras.ops.ones((8, 100, 1))).shape  # (8, 100, 32)

    Reference:
        - [WaveNet](https://arxiv.org/abs/1609.03499)
    """

    def __init__(
        self,
        filters,
        kernel_size=2,
        dilation=1,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = inputs.check_positive_integer(filters, "filters")
        self.kernel_size = inputs.check_positive_integer(
            kernel_size, "kernel_size"
        )
        self.dilation = inputs.check_positive_integer(dilation, "dilation")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.filters,), initializer="zeros", name="bias"
        )

    def call(self, x):
        return self.of_taps(self.taps(x))

    def taps(self, x):
        """The inputs that each output sees, the earliest first.

        Args:
            x: Tensor `(batch, steps, input_dim)`.

        Returns:
            List of `kernel_size` tensors of the shape of `x`, the last of
            which is `x`.
        """
        past = (self.kernel_size - 1) * self.dilation
        padded = ops.pad(x, ((0, 0), (past, 0), (0, 0)))
        num_steps = ops.shape(x)[1]
        return [
            padded[:, start : start + num_steps]
            for start in range(0, past + 1, self.dilation)
        ]

    def of_taps(self, taps):
        """The outputs that see these inputs.

        Args:
            taps: `kernel_size` tensors `(..., input_dim)`, the earliest first:
                all steps at once as from `taps`, or those of a single one.

        Returns:
            Tensor `(..., filters)`.
        """
        # Outside of `call`, Keras casts no weights.
        kernel = ops.cast(self.kernel, self.compute_dtype)
        h = ops.cast(self.bias, self.compute_dtype)
        for k, tap in enumerate(taps):
            h = h + ops.matmul(ops.cast(tap, self.compute_dtype), kernel[k])
        return h

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@saving.register_keras_serializable(package="keras_gen")
class GatedResidualBlock(keras.layers.Layer):
    """The block that WaveNet stacks: a gated causal convolution.

    For the two halves `(f, g) = causal_conv(x) + condition @ V` it computes
    `z = tanh(f) * sigmoid(g)`, and gives `x + z @ R + r` to the next block and
    `z @ S + s` to the output of the network. `R` and `S` are the two parts of
    one kernel, so that they cost a single product.

    Args:
        skip_filters: Positive integer, width of what goes to the output.
        kernel_size: Positive integer, how many steps the convolution sees.
        dilation: Positive integer, how many steps lie from one to the next.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, steps, filters)`.
        condition: Optional float tensor `(batch, num_frames, condition_dim)`:
            each frame is for `steps / num_frames` steps in a row, and a single
            one for all of them.

    Returns:
        `(x, skip)`, tensors `(batch, steps, filters)` and `(batch, steps,
        skip_filters)` in the layer's compute dtype.

    Raises:
        ValueError: If a number is not a positive integer.

    Example:

    >>> block = GatedResidualBlock(skip_filters=64, dilation=4)
    >>> x, skip = block(keras.ops.ones((8, 100, 32)))

    Reference:
        - [WaveNet](https://arxiv.org/abs/1609.03499)
    """

    def __init__(self, skip_filters, kernel_size=2, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.skip_filters = inputs.check_positive_integer(
            skip_filters, "skip_filters"
        )
        self.kernel_size = inputs.check_positive_integer(
            kernel_size, "kernel_size"
        )
        self.dilation = inputs.check_positive_integer(dilation, "dilation")

    def build(self, x_shape, condition_shape=None):
        filters = x_shape[-1]
        arguments = {"dtype": self.dtype_policy}
        self.convolution = CausalConv1D(
            2 * filters,
            self.kernel_size,
            self.dilation,
            name="convolution",
            **arguments,
        )
        self.convolution.build(x_shape)
        self.projection = None
        if condition_shape is not None:
            self.projection = keras.layers.Dense(
                2 * filters, use_bias=False, name="projection", **arguments
            )
            self.projection.build(condition_shape)
        self.outputs = keras.layers.Dense(
            filters + self.skip_filters, name="outputs", **arguments
        )
        self.outputs.build(x_shape)

    def call(self, x, condition=None):
        shift = None
        if condition is not None:
            shift = self.projection(condition)
            num_frames = ops.shape(shift)[1]
            shift = ops.repeat(shift, ops.shape(x)[1] // num_frames, axis=1)
        return self.of_taps(self.convolution.taps(x), shift)

    def of_taps(self, taps, shift=None):
        """What the block gives where its convolution sees these inputs.

        Args:
            taps: See `CausalConv1D.of_taps`; the last is the input `x`.
            shift: Tensor `(..., 2 * filters)`, what the condition adds:
                `projection(condition)`.

        Returns:
            `(x, skip)`, as the block does.
        """
        h = self.convolution.of_taps(taps)
        if shift is not None:
            h = h + shift
        f, g = ops.split(h, 2, axis=-1)
        residual, skip = ops.split(
            self.outputs(ops.tanh(f) * ops.sigmoid(g)),
            [f.shape[-1]],
            axis=-1,
        )
        return taps[-1] + residual, skip

    def compute_output_shape(self, x_shape, condition_shape=None):
        return x_shape, (*x_shape[:-1], self.skip_filters)

    def get_config(self):
        return {
            **super().get_config(),
            "skip_filters": self.skip_filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
        }
