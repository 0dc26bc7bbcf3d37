"""Networks of LSTM layers, whose pixels see only earlier pixels."""

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.layers.channel_head import ChannelHead
from keras_gen.layers.masked_conv import (
    MaskedConv2D,
    as_map,
    check_odd,
)
from keras_gen.layers.pixel_lstm import (
    DiagonalBiLSTM,
    RowLSTM,
    lstm,
    neighbours,
    product,
)
from keras_gen.networks.exportable import ExportableNetwork
from keras_gen.networks.pixel_cnn import affine, cached_head, with_ones

KINDS = {"row_lstm": RowLSTM, "diagonal_bilstm": DiagonalBiLSTM}


@saving.register_keras_serializable(package="keras_gen")
class PixelLSTM(ExportableNetwork):
    """PixelRNN: LSTM layers with residual connections.

    A `MaskedConv2D` of mask "A" gives `2 * hidden_dim` features, to which each
    layer adds a linear function of its states; then comes a `ChannelHead`.

    It differs from the reference in the channels of a pixel: its features are
    not split among them, but the last two layers of each channel see the
    channels before.

    Args:
        image_shape: `(height, width, channels)`.
        output_channels: Integer, numbers for each pixel.
        hidden_dim: Integer, width of the states.
        num_layers: Integer, how many layers of LSTMs.
        kind: `"row_lstm"`, which sees a triangle above a pixel, or
            `"diagonal_bilstm"`, which sees all earlier pixels.
        first_kernel_size: Odd integer of at least 3, of the convolution.
        num_groups: Integer: the number of channels, for outputs in as many
            groups, each of which sees the channels before its own; or 1.
        condition_dim: Integer or `None`, width of a condition, a linear
            function of which is added to the features of all pixels.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Images `(batch, *image_shape)` in [0, 1]; with
            `condition_dim`, `[images, condition]`.

    Returns:
        `(batch, height, width, output_channels)` float32.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> PixelLSTM((28, 28, 1), output_channels=1, kind="diagonal_bilstm")

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """

    def __init__(
        self,
        image_shape,
        output_channels,
        hidden_dim=16,
        num_layers=7,
        kind="row_lstm",
        first_kernel_size=7,
        num_groups=1,
        condition_dim=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = inputs.check_image_shape(image_shape)
        channels = self.image_shape[-1]
        inputs.check_positive_integer(hidden_dim, "hidden_dim")
        inputs.check_positive_integer(num_layers, "num_layers")
        if check_odd(first_kernel_size, "first_kernel_size") < 3:
            raise ValueError(
                "`first_kernel_size` must be at least 3 for a pixel to see "
                "others, got 1. Pass for example 7."
            )
        if kind not in list(KINDS):  # it may be unhashable
            raise ValueError(
                f"`kind` must be one of {sorted(KINDS)}, got "
                f"{str(kind)[:100]!r}."
            )
        if num_groups not in (1, channels):
            raise ValueError(
                f"`num_groups` must be 1 or the number of channels {channels}, "
                f"got {num_groups!r}."
            )
        self.kind, self.first_kernel_size = kind, first_kernel_size
        self.condition_dim = condition_dim
        features = 2 * hidden_dim

        def conv(units, name, **options):
            return keras.layers.Conv2D(units, 1, name=name, **options)

        self.first = MaskedConv2D(
            features, first_kernel_size, "A", name="first"
        )
        self.lstms = [
            KINDS[kind](hidden_dim, name=f"lstm_{i}") for i in range(num_layers)
        ]
        self.projections = [
            conv(features, f"projection_{i}") for i in range(num_layers)
        ]
        self.head = ChannelHead(output_channels, num_groups, name="head")

        size = (None, *self.image_shape[:-1])
        self.first.build((*size, channels + 1))
        for layer, projection in zip(self.lstms, self.projections, strict=True):
            layer.build((*size, features))
            projection.build((*size, hidden_dim))
        self.head.build([(*size, features), (*size, channels)])
        self.conditioning = None
        if condition_dim is not None:
            inputs.check_positive_integer(condition_dim, "condition_dim")
            self.conditioning = conv(features, "conditioning", use_bias=False)
            self.conditioning.build((None, 1, 1, condition_dim))
        self.built = True

    @property
    def input_shape(self):
        shape = (None, *self.image_shape)
        if self.condition_dim is None:
            return shape
        return [shape, (None, self.condition_dim)]

    @property
    def output_shape(self):
        return (None, *self.image_shape[:-1], self.head.units)

    def call(self, inputs):
        x, condition = inputs, None
        if self.condition_dim is not None:
            x, condition = inputs
        x = 2.0 * x - 1.0
        h = self.first(with_ones(x))
        if condition is not None:
            h = h + self.conditioning(as_map(condition))
        for layer, projection in zip(self.lstms, self.projections, strict=True):
            h = h + projection(layer(h))
        return self.head([h, x])

    def compute_output_shape(self, input_shape):
        return self.output_shape

    def cached(self, num_images, condition=None):
        """The network a pixel at a time; see `cached_sampling`."""
        return _CachedPixelLSTM(self, num_images, condition)

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "output_channels": self.head.units,
            "hidden_dim": self.lstms[0].units,
            "num_layers": len(self.lstms),
            "kind": self.kind,
            "first_kernel_size": self.first_kernel_size,
            "num_groups": self.head.num_groups,
            "condition_dim": self.condition_dim,
        }


class _CachedPixelLSTM:
    """A `PixelLSTM` whose states are computed once each, in float32."""

    def __init__(self, network, num_images, condition):
        _, self.width, self.channels = network.image_shape
        self.num_images = num_images
        self.first = _CachedFirstLayer(network.first)
        kind = {RowLSTM: _CachedRowLSTM, DiagonalBiLSTM: _CachedDiagonalBiLSTM}
        self.layers = [
            kind[type(layer)](layer, projection)
            for layer, projection in zip(
                network.lstms, network.projections, strict=True
            )
        ]
        self.head = cached_head(network.head)
        self.condition = 0.0
        if condition is not None:
            (kernel,) = network.conditioning.weights
            self.condition = tf.matmul(
                condition, tf.cast(kernel, "float32")[0, 0]
            )
        self.rows = [
            self.zeros(self.first.past, self.width, self.channels + 1),
            [
                [self.zeros(self.width, layer.units)] * layer.num_states
                for layer in self.layers
            ],
        ]

    def zeros(self, *shape):
        *leading, last = shape
        return tf.zeros((*leading, self.num_images, last))

    def row_of(self, features):
        """An array for the features of a row, column by column."""
        shape = (None, features)
        return tf.TensorArray("float32", self.width, element_shape=shape)

    def enter_row(self, i, rows):
        pixels, states = rows
        context = [
            self.first.row(pixels) + self.condition,
            [
                layer.row(above)
                for layer, above in zip(self.layers, states, strict=True)
            ],
        ]
        left = [self.zeros(self.channels + 1)] * self.first.side
        before = [
            (
                [self.zeros(width) for width in layer.left_widths],
                [self.row_of(width) for width in layer.kept_widths],
            )
            for layer in self.layers
        ]
        return context, rows, [left, before]

    def enter_pixel(self, j, context, state):
        own, contexts = context
        left, before = state
        h = own + self.first.pixel(left)
        after = []
        for layer, above, (beside, arrays) in zip(
            self.layers, contexts, before, strict=True
        ):
            new, beside, kept = layer.pixel(h, above, beside)
            arrays = [
                array.write(j, value)
                for array, value in zip(arrays, kept, strict=True)
            ]
            after.append((beside, arrays))
            h += new
        return h, [left, after]

    def maps(self, h, x, group):
        return self.head(h, 2.0 * x - 1.0, group)

    def leave_pixel(self, state, x):
        left, before = state
        return [[*left[1:], with_ones(2.0 * x - 1.0)], before]

    def leave_row(self, rows, state, x):
        pixels, states = rows
        new = with_ones(2.0 * x - 1.0)[tf.newaxis]
        states = [
            layer.leave_row(above, [array.stack() for array in arrays])
            for layer, above, (_, arrays) in zip(
                self.layers, states, state[1], strict=True
            )
        ]
        return [tf.concat([pixels[1:], new], axis=0), states]


class _CachedFirstLayer:
    """A `MaskedConv2D` of mask "A" and one group, rows and pixels apart."""

    def __init__(self, layer):
        kernel = tf.cast(layer.kernel, "float32")
        self.past, self.side = kernel.shape[0] - 1, kernel.shape[1] // 2
        features = kernel.shape[-1]
        self.above = tf.reshape(kernel[:-1], (-1, features))
        self.left = tf.reshape(kernel[-1, : self.side], (-1, features))
        self.bias = tf.cast(layer.bias, "float32")

    def row(self, pixels):
        """What the rows above `(past, width, batch, ...)` add to a row."""
        side = self.side
        width = pixels.shape[1]
        pixels = tf.pad(pixels, [[0, 0], [side, side], [0, 0], [0, 0]])
        taps = [
            pixels[row, k : k + width]
            for row in range(self.past)
            for k in range(2 * side + 1)
        ]
        return affine(tf.concat(taps, axis=-1), self.above, self.bias)

    def pixel(self, left):
        return tf.matmul(tf.concat(left, axis=-1), self.left)


class _CachedRowLSTM:
    """A `RowLSTM` and its projection; it keeps h and c of the row above."""

    num_states = 2

    def __init__(self, layer, projection):
        self.layer, self.units = layer, layer.units
        kernel = tf.cast(layer.input_to_state.kernel, "float32")
        side = layer.kernel_size // 2
        _, _, features, channels = kernel.shape
        self.kernel = tf.reshape(kernel[0, : side + 1], (-1, channels))
        self.bias = tf.cast(layer.input_to_state.bias, "float32")
        self.state_to_state = tf.cast(layer.state_to_state, "float32")
        self.projection = matrix_and_bias(projection)
        self.left_widths = [features] * side
        self.kept_widths = [self.units] * 2

    def row(self, states):
        h, c = states
        taps = neighbours(tf.transpose(h, (1, 0, 2)), self.layer)
        mixed = product(tf.transpose(taps, (1, 0, 2)), self.state_to_state)
        return mixed + self.bias, c

    def pixel(self, x, context, left):
        mixed, c = context
        window = [*left, x]
        gates = mixed + tf.matmul(tf.concat(window, axis=-1), self.kernel)
        h, c = lstm(gates, c)
        return affine(h, *self.projection), window[1:], [h, c]

    def leave_row(self, above, kept):
        return kept


class _CachedDiagonalBiLSTM:
    """A `DiagonalBiLSTM` and its projection.

    Of the row above it keeps h of both LSTMs. The second one, which comes from
    the right, goes along a row once all of it is known.
    """

    num_states = 2

    def __init__(self, layer, projection):
        self.units = layer.units
        self.inputs = [matrix_and_bias(conv) for conv in layer.input_to_state]
        self.beside, self.above = zip(
            *(
                tf.split(tf.cast(weight, "float32"), 2)
                for weight in layer.state_to_state
            ),
            strict=True,
        )
        self.projection = matrix_and_bias(projection)
        self.left_widths = [self.units] * 2
        self.kept_widths = [self.inputs[0][0].shape[0], self.units]

    def row(self, states):
        from_left, from_right = states
        return product(from_left, self.above[0]), from_right

    def pixel(self, x, context, left):
        above, from_right = context
        h, c = left
        gates = above + affine(x, *self.inputs[0])
        h, c = lstm(gates + tf.matmul(h, self.beside[0]), c)
        return affine(h + from_right, *self.projection), [h, c], [x, h]

    def leave_row(self, above, kept):
        x, from_left = kept
        gates = affine(x, *self.inputs[1]) + product(above[1], self.above[1])
        width = gates.shape[0]
        zeros = tf.zeros_like(above[1][0])

        def step(j, h, c, states):
            h, c = lstm(gates[j] + tf.matmul(h, self.beside[1]), c)
            return j - 1, h, c, states.write(j, h)

        states = tf.TensorArray(
            "float32", width, element_shape=(None, self.units)
        )
        *_, states = tf.while_loop(
            lambda j, *_: j >= 0,
            step,
            (width - 1, zeros, zeros, states),
            maximum_iterations=width,
        )
        return [from_left, states.stack()]


def matrix_and_bias(conv):
    """The weights of a 1x1 convolution as tensors."""
    kernel, bias = (tf.cast(weight, "float32") for weight in conv.weights)
    return kernel[0, 0], bias
