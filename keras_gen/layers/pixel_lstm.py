"""LSTM layers over images, whose pixels see only the pixels before them."""

import keras
import tensorflow as tf
from keras import ops, saving

from keras_gen import inputs
from keras_gen.layers.masked_conv import MaskedConv2D, check_odd


@saving.register_keras_serializable(package="keras_gen")
class RowLSTM(keras.layers.Layer):
    """LSTM that goes down the rows of an image, all of a row at once.

    With one-dimensional convolutions along the row, that of the input masked
    so that a pixel does not see what is on its right,

        o, f, i, g = conv(x[row]) + conv(h[row - 1]) + b
        c[row] = sigmoid(f) * c[row - 1] + sigmoid(i) * tanh(g)
        h[row] = sigmoid(o) * tanh(c[row])

    A pixel sees a triangle above it, which widens by half a kernel a row, and
    of its own row half a kernel to the left.

    Args:
        units: Integer, features of h.
        kernel_size: Odd integer, width of both convolutions.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, height, width, channels)`.

    Returns:
        h, `(batch, height, width, units)` in the layer's compute dtype.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> RowLSTM(16)(features)  # (batch, 28, 28, 16)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """

    def __init__(self, units, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        self.units = inputs.check_positive_integer(units, "units")
        self.kernel_size = check_odd(kernel_size, "kernel_size")
        self.input_to_state = MaskedConv2D(
            4 * self.units,
            (1, self.kernel_size),
            dtype=self.dtype_policy,
            name="input_to_state",
        )

    def build(self, input_shape):
        self.input_to_state.build(input_shape)
        self.state_to_state = self.add_weight(
            shape=(self.kernel_size * self.units, 4 * self.units),
            initializer="glorot_uniform",
            name="state_to_state",
        )

    def call(self, x):
        kernel = ops.convert_to_tensor(self.state_to_state)
        of_rows = tf.transpose(self.input_to_state(x), (1, 0, 2, 3))
        h = scan(of_rows, lambda h: product(neighbours(h, self), kernel))
        return tf.transpose(h, (1, 0, 2, 3))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
        }


@saving.register_keras_serializable(package="keras_gen")
class DiagonalBiLSTM(keras.layers.Layer):
    """Two LSTMs that go along the diagonals of an image, from both corners.

    The first one comes from the upper left:

        o, f, i, g = x[row, column] @ W + b
                     + h[row, column - 1] @ U + h[row - 1, column] @ V
        c[row, column] = sigmoid(f) * c[row, column - 1] + sigmoid(i) * tanh(g)
        h[row, column] = sigmoid(o) * tanh(c[row, column])

    The second one does the same on the mirrored image, and is then shifted one
    row down, so that it shows a pixel nothing of its own row. The output is
    their sum, and sees all earlier pixels.

    Args:
        units: Integer, features of h.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, height, width, channels)`.

    Returns:
        The sum, `(batch, height, width, units)` in the layer's compute dtype.

    Raises:
        ValueError: If `units` is not a positive integer.

    Example:

    >>> DiagonalBiLSTM(16)(features)  # (batch, 28, 28, 16)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = inputs.check_positive_integer(units, "units")
        self.input_to_state = [
            keras.layers.Conv2D(
                4 * self.units, 1, dtype=self.dtype_policy, name=name
            )
            for name in ("from_left", "from_right")
        ]

    def build(self, input_shape):
        for layer in self.input_to_state:
            layer.build(input_shape)
        self.state_to_state = [
            self.add_weight(
                shape=(2 * self.units, 4 * self.units),
                initializer="glorot_uniform",
                name=name,
            )
            for name in ("state_from_left", "state_from_right")
        ]

    def call(self, x):
        left, right = (
            layer(image)
            for layer, image in zip(
                self.input_to_state, (x, x[:, :, ::-1]), strict=True
            )
        )
        left, right = (
            along_diagonals(image, ops.convert_to_tensor(kernel))
            for image, kernel in zip(
                (left, right), self.state_to_state, strict=True
            )
        )
        above = right[:, :-1, ::-1]
        return left + tf.pad(above, [[0, 0], [1, 0], [0, 0], [0, 0]])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def neighbours(h, layer):
    """h of a pixel and those beside it, under the kernel of a `RowLSTM`.

    `(..., width, units)` to `(..., width, kernel_size * units)`.
    """
    side, width = layer.kernel_size // 2, h.shape[-2]
    beside = [[0, 0]] * (h.shape.rank - 2) + [[side, side], [0, 0]]
    padded = tf.pad(h, beside)
    taps = [padded[..., k : k + width, :] for k in range(layer.kernel_size)]
    return tf.concat(taps, axis=-1)


def along_diagonals(x, kernel):
    """h of an LSTM along diagonals, from `(batch, height, width, 4 * units)`.

    Row i is shifted i places to the right. Then all pixels of a column have
    their neighbours, the left one and the upper one, in the column before. A
    state is zero until its row begins, and those after its end reach no pixel.
    """
    _, height, width, channels = x.shape
    length = height + width - 1
    x = tf.pad(x, [[0, 0], [0, 0], [0, height], [0, 0]])
    x = tf.reshape(x, (-1, height * (length + 1), channels))
    x = tf.reshape(x[:, : height * length], (-1, height, length, channels))

    def mix(h):
        above = tf.pad(h[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return product(tf.concat([h, above], axis=-1), kernel)

    h = scan(tf.transpose(x, (2, 0, 1, 3)), mix)
    units = h.shape[-1]
    h = tf.reshape(tf.transpose(h, (1, 2, 0, 3)), (-1, height * length, units))
    h = tf.pad(h, [[0, 0], [0, height], [0, 0]])
    return tf.reshape(h, (-1, height, length + 1, units))[:, :, :width]


def scan(x, mix):
    """States of an LSTM over the first axis.

    Args:
        x: What the inputs add to the gates, `(steps, batch, places,
            4 * units)`.
        mix: Function of a state `(batch, places, units)` that gives what it
            adds to the next gates, `(batch, places, 4 * units)`.

    Returns:
        h, `(steps, batch, places, units)`.
    """
    num_steps, _, places, channels = x.shape
    units = channels // 4

    def step(t, h, c, states):
        h, c = lstm(x[t] + mix(h), c)
        return t + 1, h, c, states.write(t, h)

    zeros = tf.zeros_like(x[0, ..., :units])
    states = tf.TensorArray(
        x.dtype, num_steps, element_shape=(None, places, units)
    )
    *_, states = tf.while_loop(
        lambda t, *_: t < num_steps,
        step,
        (0, zeros, zeros, states),
        maximum_iterations=num_steps,
    )
    return states.stack()


def lstm(gates, c):
    """`(h, c)` after a step, from the gates o, f, i, g side by side."""
    o, f, i, g = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def product(x, kernel):
    """`x @ kernel` over the last axis, as one product of matrices."""
    y = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    shape = tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], axis=0)
    return tf.reshape(y, shape)
