"""Networks of masked convolutions, whose pixels see only earlier pixels."""

import keras
import tensorflow as tf
from keras import ops, saving

from keras_gen import inputs
from keras_gen.layers.channel_head import ChannelHead
from keras_gen.layers.masked_conv import (
    GatedMaskedConv2D,
    MaskedConv2D,
    as_map,
    check_odd,
    gate,
)
from keras_gen.networks.exportable import ExportableNetwork


@saving.register_keras_serializable(package="keras_gen")
class GatedPixelCNN(ExportableNetwork):
    """Gated PixelCNN: vertical and horizontal stacks, without a blind spot.

    A `GatedMaskedConv2D` of mask "A", others of mask "B", and a `ChannelHead`.
    A pixel sees `first_kernel_size // 2 + (num_layers - 1) *
    (kernel_size // 2)` pixels to the left, upwards and to both sides.

    It differs from the reference in the channels of a pixel: its features are
    not split among them, but the last two layers of each channel see the
    channels before.

    Args:
        image_shape: `(height, width, channels)`.
        output_channels: Integer, numbers for each pixel.
        num_filters: Integer, features of each stack.
        num_layers: Integer, how many layers, the first one included.
        kernel_size: Odd integer, of all layers but the first.
        first_kernel_size: Odd integer.
        num_groups: Integer: the number of channels, for outputs in as many
            groups, each of which sees the channels before its own; or 1.
        condition_dim: Integer or `None`, width of a condition.
        condition_network: Optional network, from `(batch, condition_dim)` to
            a map `(batch, height, width, features)`, for conditions that are
            images. Without it, a condition acts on all pixels alike.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Images `(batch, *image_shape)` in [0, 1]; with
            `condition_dim`, `[images, condition]`.

    Returns:
        `(batch, height, width, output_channels)` float32.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> GatedPixelCNN((28, 28, 1), output_channels=256, num_filters=64)

    Reference:
        - [Conditional Image Generation with PixelCNN Decoders](
          https://arxiv.org/abs/1606.05328)
    """

    def __init__(
        self,
        image_shape,
        output_channels,
        num_filters=64,
        num_layers=7,
        kernel_size=3,
        first_kernel_size=7,
        num_groups=1,
        condition_dim=None,
        condition_network=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = inputs.check_image_shape(image_shape)
        channels = self.image_shape[-1]
        if num_groups not in (1, channels):
            raise ValueError(
                f"`num_groups` must be 1 or the number of channels {channels}, "
                f"got {num_groups!r}."
            )
        self.num_layers = inputs.check_positive_integer(
            num_layers, "num_layers"
        )
        self.condition_dim = condition_dim
        self.condition_network = condition_network
        first = GatedMaskedConv2D(
            num_filters,
            check_odd(first_kernel_size, "first_kernel_size"),
            "A",
            name="gated_0",
        )
        self.gated_layers = [first] + [
            GatedMaskedConv2D(num_filters, kernel_size, name=f"gated_{i}")
            for i in range(1, num_layers)
        ]
        self.head = ChannelHead(output_channels, num_groups, name="head")

        pixels, h = (
            (None, *self.image_shape[:-1], width)
            for width in (channels + 1, num_filters)
        )
        condition = []
        if condition_dim is not None:
            inputs.check_positive_integer(condition_dim, "condition_dim")
            condition = [(None, condition_dim)]
        if condition_network is not None:
            shape = self.image_shape
            got = getattr(condition_network, "output_shape", None) or ()
            if len(got) != 4 or tuple(got[1:3]) != shape[:2]:
                raise ValueError(
                    "`condition_network` must give a map of features "
                    f"(batch, {shape[0]}, {shape[1]}, features), got {got}. "
                    "Begin it with `keras.Input((condition_dim,))`, and end "
                    "it at the size of the images."
                )
            wanted = (None, condition_dim)
            if condition_dim is None or condition_network.input_shape != wanted:
                raise ValueError(
                    "`condition_network` must take vectors (batch, "
                    f"condition_dim), got `condition_dim={condition_dim}` and "
                    f"a network of {condition_network.input_shape}. Give both "
                    "the same width."
                )
            condition = [tuple(got)]
        for layer in self.gated_layers:
            layer.build([pixels, pixels, *condition])
            pixels = h
        self.head.build([h, (None, *self.image_shape)])
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
        x, condition = inputs, []
        if self.condition_dim is not None:
            x, *condition = inputs
            if self.condition_network is not None:
                condition = [self.condition_network(*condition)]
        x = 2.0 * x - 1.0
        v = h = with_ones(x)
        for layer in self.gated_layers:
            v, h = layer([v, h, *condition])
        return self.head([h, x])

    def compute_output_shape(self, input_shape):
        return self.output_shape

    def cached(self, num_images, condition=None):
        """The network a pixel at a time; see `cached_sampling`."""
        return _CachedGatedPixelCNN(self, num_images, condition)

    def get_config(self):
        first, *others = self.gated_layers
        network = self.condition_network
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "output_channels": self.head.units,
            "num_filters": first.filters,
            "num_layers": self.num_layers,
            "kernel_size": others[0].kernel_size if others else 3,
            "first_kernel_size": first.kernel_size,
            "num_groups": self.head.num_groups,
            "condition_dim": self.condition_dim,
            "condition_network": saving.serialize_keras_object(network),
        }

    @classmethod
    def from_config(cls, config):
        network = saving.deserialize_keras_object(config["condition_network"])
        return cls(**{**config, "condition_network": network})


def with_ones(x):
    """Images with a channel of ones, which the padding around them lacks."""
    return ops.concatenate([x, ops.ones_like(x[..., :1])], axis=-1)


class _CachedGatedPixelCNN:
    """A `GatedPixelCNN` whose features are computed once each, in float32.

    The vertical stack goes a row at a time, and the horizontal one a pixel at
    a time; of what each layer takes, the rows above and the pixels to the left
    are kept.
    """

    def __init__(self, network, num_images, condition):
        _, self.width, self.channels = network.image_shape
        self.layers = [_CachedLayer(layer) for layer in network.gated_layers]
        self.head = cached_head(network.head)
        if condition is not None:
            if network.condition_network is not None:
                condition = network.condition_network(condition)
            condition = tf.cast(as_map(condition), "float32")
            # (height or 1, width or 1, batch, features)
            condition = tf.transpose(condition, (1, 2, 0, 3))
        self.condition = condition
        self.num_images = num_images
        filters = [layer.filters for layer in self.layers]
        self.widths = [self.channels + 1, *filters[:-1]]
        self.rows = [
            tf.zeros((layer.past, self.width, num_images, width))
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]

    def enter_row(self, i, rows):
        condition = self.condition
        if condition is not None:
            condition = condition[i if condition.shape[0] > 1 else 0]
        context, left = [], rows[:1]
        window = rows[0]  # of the first layer: rows of pixels above this one
        for layer, above in zip(self.layers, [*rows[1:], None], strict=True):
            v, for_h = layer.vertical_row(window, condition)
            context.append(for_h)
            if above is not None:
                window = tf.concat([above, v[tf.newaxis]], axis=0)
                left.append(window[1:])
        state = [
            [tf.zeros((self.num_images, width))] * layer.past
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]
        return context, left, state

    def enter_pixel(self, j, context, state):
        first, *others = self.layers
        h = first.horizontal_pixel(context[0], state[0])
        after = state[:1]
        for layer, a, left in zip(others, context[1:], state[1:], strict=True):
            window = [*left, h]
            after.append(window[1:])
            h += layer.horizontal_pixel(a, window)
        return h, after

    def maps(self, h, x, group):
        return self.head(h, 2.0 * x - 1.0, group)

    def leave_pixel(self, state, x):
        return [[*state[0][1:], with_ones(2.0 * x - 1.0)], *state[1:]]

    def leave_row(self, rows, state, x):
        new = with_ones(2.0 * x - 1.0)[tf.newaxis]
        return [tf.concat([rows[0][1:], new], axis=0), *rows[1:]]


class _CachedLayer:
    """The weights of a `GatedMaskedConv2D` as matrices."""

    def __init__(self, layer):
        self.past, self.filters = layer.past, layer.filters
        self.kernel_size = layer.kernel_size

        def matrix(conv):
            kernel = tf.cast(conv.kernel, "float32")
            return tf.reshape(kernel, (-1, kernel.shape[-1]))

        def vector(conv):
            return tf.cast(conv.bias, "float32")

        self.vertical = matrix(layer.vertical), vector(layer.vertical)
        self.horizontal = matrix(layer.horizontal)
        self.link = matrix(layer.link), vector(layer.link)
        self.projection = matrix(layer.projection), vector(layer.projection)
        if layer.conditioning.built:
            self.conditioning = matrix(layer.conditioning)

    def vertical_row(self, window, condition):
        """A row of v and of what enters h, from `(rows, width, batch, ...)`."""
        window = tf.pad(window, [[0, 0], [self.past] * 2, [0, 0], [0, 0]])
        num_rows, width = window.shape[0], window.shape[1] - 2 * self.past
        taps = [
            window[row, column : column + width]
            for row in range(num_rows)
            for column in range(self.kernel_size)
        ]
        a = affine(tf.concat(taps, axis=-1), *self.vertical)
        if condition is None:
            return gate(a), affine(a, *self.link)
        more_a, more_b = tf.split(affine(condition, self.conditioning), 2, -1)
        a += more_a
        return gate(a), affine(a, *self.link) + more_b

    def horizontal_pixel(self, a, window):
        """What the layer adds to h at a pixel, from the pixels of `window`."""
        a += tf.matmul(tf.concat(window, axis=-1), self.horizontal)
        return affine(gate(a), *self.projection)


def cached_head(head):
    """A `ChannelHead` of a pixel alone: `maps(h, x, group)`."""
    hidden, earlier, output = (
        [[tf.cast(w, "float32") for w in layer.weights] for layer in layers]
        for layers in (head.hidden, head.earlier, head.output_layers)
    )

    def maps(h, x, group):
        kernel, bias = hidden[group]
        a = affine(tf.nn.relu(h), kernel, bias)
        if group:
            a += tf.matmul(x[:, :group], earlier[group - 1][0])
        kernel, bias = output[group]
        return affine(tf.nn.relu(a), kernel, bias)

    return maps


def affine(x, kernel, bias=None):
    """`x @ kernel + bias` over the last axis of x, whatever its rank."""
    y = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    if bias is not None:
        y += bias
    return tf.reshape(y, tf.concat([tf.shape(x)[:-1], y.shape[-1:]], axis=0))


def plain_pixel_cnn(
    image_shape,
    output_channels,
    num_filters=64,
    num_layers=7,
    kernel_size=3,
    first_kernel_size=7,
    num_groups=1,
    name="plain_pixel_cnn",
):
    """PixelCNN without gates, in one stack, which has a blind spot.

    A `MaskedConv2D` of mask "A", then residual blocks of three, `[relu, 1x1,
    relu, kernel_size, relu, 1x1]` around half as many features, and two more
    of 1x1. It has no cached form: images are drawn by full passes.

    Args:
        image_shape: `(height, width, channels)`.
        output_channels: Integer, numbers for each pixel.
        num_filters: Integer, features of a pixel, an even multiple of
            `num_groups`.
        num_layers: Integer, the first layer and the blocks.
        kernel_size: Odd integer, of the blocks.
        first_kernel_size: Odd integer.
        num_groups: Integer, the number of channels, among which features and
            outputs are split; or 1.
        name: Name of the model.

    Returns:
        A built `keras.Model`, images in [0, 1] to
        `(batch, height, width, output_channels)`, float32 under every dtype
        policy.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> plain_pixel_cnn((28, 28, 1), output_channels=256, num_filters=128)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """
    inputs.check_positive_integer(num_layers, "num_layers")
    if num_filters % (2 * num_groups):
        raise ValueError(
            "`num_filters` must be a multiple of twice `num_groups` "
            f"{num_groups}, got {num_filters}. Pass for example "
            f"{2 * num_groups * num_filters}."
        )

    def conv(h, filters, size, **options):
        options = {"num_groups": num_groups, **options}
        h = keras.layers.ReLU()(h)
        return MaskedConv2D(
            filters, size, kernel_initializer="he_normal", **options
        )(h)

    images = keras.Input(image_shape)
    h = MaskedConv2D(
        num_filters, first_kernel_size, "A", num_groups=num_groups
    )(keras.layers.Rescaling(2.0, -1.0)(images))
    for _ in range(num_layers - 1):
        new = conv(h, num_filters // 2, 1)
        new = conv(new, num_filters // 2, kernel_size)
        h = keras.layers.Add()([h, conv(new, num_filters, 1)])
    h = conv(conv(h, num_filters, 1), num_filters, 1)
    h = conv(h, output_channels, 1, dtype="float32")
    return keras.Model(images, h, name=name)
