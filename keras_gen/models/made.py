"""Masked autoencoder for distribution estimation."""

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.layers.masked import made_degrees
from keras_gen.models.pixel_by_pixel import PixelByPixel


@saving.register_keras_serializable(package="keras_gen")
class MADE(PixelByPixel):
    """Masked autoencoder for distribution estimation.

    A dense network whose masks (`layers.masked.made_masks`) let the output of
    a pixel see only the pixels before it in an order, so that all of
    `p(x) = prod_i p(x_i given pixels before i)` is one pass. It minimizes
    `loss`, the mean of `-log p(x)` in nats per image.

    With `num_masks` above 1, training takes another set of masks in each step,
    in turn; `log_prob`, `evaluate` and `sample` are of the mean of the
    probabilities under all of them. The masks are no weights: set `m` is the
    same in every model of these sizes.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dims: Integers, widths of the hidden layers.
        num_masks: Integer, how many sets of masks are drawn. A single one is
            not: its hidden units see the first 1, 2, ... pixels in turn.
        shuffle_order: Boolean, whether each set of masks has an order of its
            own, at random. Otherwise it is that in which pixels and channels
            lie in memory.
        direct_connections: Boolean, whether each pixel is also connected to
            those before it.
        activation: Activation function of the hidden layers, or its name.
        likelihood: `"bernoulli"`: binary images. In training a grey value
            counts as the probability of white.
        seed: Integer or `None`, seed of `sample` and `impute`.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        The probability that each pixel is white, given those before it in
        `x`, under the first masks: float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> MADE((28, 28, 1), hidden_dims=(500,)).sample(16)  # (16, 28, 28, 1)

    Reference:
        - [MADE](https://arxiv.org/abs/1502.03509)
    """

    def __init__(
        self,
        image_shape,
        hidden_dims=(500,),
        *,
        num_masks=1,
        shuffle_order=False,
        direct_connections=True,
        activation="relu",
        likelihood="bernoulli",
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape, likelihood=likelihood, seed=seed, **kwargs
        )
        if not isinstance(hidden_dims, tuple | list) or not hidden_dims:
            raise ValueError(
                "`hidden_dims` must be one or more widths, such as (500,), "
                f"got {str(hidden_dims)[:100]!r}. `FVBN` has no hidden layer."
            )
        self.hidden_dims = tuple(
            inputs.check_positive_integer(width, "hidden_dims")
            for width in hidden_dims
        )
        self.num_masks = inputs.check_positive_integer(num_masks, "num_masks")
        self.shuffle_order = inputs.check_boolean(
            shuffle_order, "shuffle_order"
        )
        self.direct_connections = inputs.check_boolean(
            direct_connections, "direct_connections"
        )
        self.activation = inputs.check_activation(activation)

        drawn = [self._drawn_degrees(m) for m in range(self.num_masks)]
        self.orders = np.array(
            [np.argsort(degrees[0]) for degrees in drawn], "int32"
        )
        # By layer, `(num_masks, units)`.
        self.degrees = [
            np.array(layer, "int32") for layer in zip(*drawn, strict=True)
        ]
        widths = [self.num_dims, *self.hidden_dims, self.num_dims]
        self.kernels, self.biases = [], []
        for i, shape in enumerate(itertools.pairwise(widths)):
            self.kernels.append(self.weight(f"kernel_{i}", shape))
            self.biases.append(self.weight(f"bias_{i}", shape[1:], "zeros"))
        self.direct_kernel = None
        if self.direct_connections:
            shape = (self.num_dims, self.num_dims)
            self.direct_kernel = self.weight("direct_kernel", shape, "zeros")
        self.built = True

    def _drawn_degrees(self, m):
        rng, order = np.random.default_rng(m), None
        if self.shuffle_order:
            order = rng.permutation(self.num_dims)
        return made_degrees(
            self.num_dims,
            self.hidden_dims,
            order=order,
            seed=int(rng.integers(2**31)) if self.num_masks > 1 else None,
        )

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        m = tf.cast(self.optimizer.iterations, "int32") % self.num_masks
        with tf.GradientTape() as tape:
            logits = self._logits(self._flat(x), m, self.compute_dtype)
            loss = -self._log_prob_in_order(x, logits)
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss)

    def _logits(self, x, m, dtype="float32"):
        degrees = [tf.gather(layer, m) for layer in self.degrees]
        x = h = tf.cast(x, dtype)

        def masked(kernel, before, after, strict=False):
            before = before[:, tf.newaxis]
            mask = before < after if strict else before <= after
            return tf.cast(kernel * tf.cast(mask, "float32"), dtype)

        *kernels, output_kernel = self.kernels
        *biases, output_bias = self.biases
        for i, kernel in enumerate(kernels):
            kernel = masked(kernel, degrees[i], degrees[i + 1])
            h = tf.matmul(h, kernel) + tf.cast(biases[i], dtype)
            h = self.activation(h)
        first, last = degrees[0], degrees[-1]
        logits = tf.matmul(h, masked(output_kernel, last, first, strict=True))
        if self.direct_connections:
            direct = masked(self.direct_kernel, first, first, strict=True)
            logits += tf.matmul(x, direct)
        return tf.cast(logits, "float32") + output_bias

    def _cached_turns(self, m, order, num_images):
        """Computes each hidden unit once: when all that it sees is drawn.

        So an image takes the operations of one pass. What is not computed yet
        is zero, which does what the masks do.
        """
        # A row for each unit of the layer after.
        *kernels, output_kernel = map(tf.transpose, self.kernels)
        *biases, output_bias = map(tf.convert_to_tensor, self.biases)
        direct = None
        if self.direct_connections:
            direct = tf.transpose(self.direct_kernel)
        ready = [
            tf.constant(units_of_degree(layer, self.num_dims))
            for layer in self.degrees[1:]
        ]  # (num_dims, num_masks, most units of a degree), -1 for none

        def logit(i, state):
            x, *hidden = state
            rows = tf.gather(output_kernel, order[i])
            total = tf.reduce_sum(hidden[-1] * rows, axis=1)
            if direct is not None:
                rows = tf.gather(direct, order[i])
                total += tf.reduce_sum(x * rows, axis=1)
            return total + tf.gather(output_bias, order[i])

        def update(i, state, value):
            x, *hidden = state
            pixel = tf.one_hot(order[i], self.num_dims)
            below = x = x + value[:, tf.newaxis] * pixel
            for j, h in enumerate(hidden):
                units = tf.gather(ready[j][i], m)
                rows = tf.gather(kernels[j], tf.maximum(units, 0))
                bias = tf.gather(biases[j], tf.maximum(units, 0))
                values = self.activation(_products(rows, below) + bias)
                places = tf.one_hot(units, h.shape[1])  # of -1, all zero
                values = values[:, :, tf.newaxis] * places
                hidden[j] = below = h + tf.reduce_sum(values, axis=1)
            return (x, *hidden)

        widths = [self.num_dims, *self.hidden_dims]
        state = tuple(tf.zeros((num_images, width)) for width in widths)
        return state, logit, update

    def _plain_turns(self, m, order, num_images):
        masks = tf.range(self.num_masks)

        def logit(i, x):
            # Under all masks, of which each image has one.
            logits = tf.map_fn(
                lambda mask: self._logits(x, mask),
                masks,
                fn_output_signature="float32",
            )
            mask = tf.transpose(tf.one_hot(m, self.num_masks))
            mask = mask[:, :, tf.newaxis]  # (num_masks, 1 or batch, 1)
            pixel = tf.one_hot(order[i], self.num_dims)
            return tf.reduce_sum(logits * mask * pixel, axis=(0, 2))

        def update(i, x, value):
            pixel = tf.one_hot(order[i], self.num_dims)
            return x + value[:, tf.newaxis] * pixel

        return tf.zeros((num_images, self.num_dims)), logit, update

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dims": self.hidden_dims,
            "num_masks": self.num_masks,
            "shuffle_order": self.shuffle_order,
            "direct_connections": self.direct_connections,
            "activation": keras.activations.serialize(self.activation),
        }


def units_of_degree(degrees, num_dims):
    """The units of a layer that are ready after each pixel.

    Args:
        degrees: Integers `(num_masks, units)`, how many pixels a unit sees.
        num_dims: Integer, number of pixels.

    Returns:
        int32 array `(num_dims, num_masks, most units of a degree)`: in row i
        the units that see `i + 1` pixels, then -1 as often as needed.
    """
    units = [
        [np.flatnonzero(row == degree) for row in degrees]
        for degree in range(1, num_dims + 1)
    ]
    most = max(len(found) for row in units for found in row)
    return np.array(
        [
            [np.pad(f, (0, most - len(f)), constant_values=-1) for f in row]
            for row in units
        ],
        "int32",
    )


def _products(rows, h):
    """`(batch, k)` products of `h (batch, n)` with `rows (1 or batch, k, n)`."""
    if rows.shape[0] == 1:  # all images have the same
        return tf.matmul(h, rows[0], transpose_b=True)
    return tf.matmul(rows, h[:, :, tf.newaxis])[:, :, 0]
