"""Binary images with an exact likelihood, one pixel at a time: FVBN, NADE."""

import numbers

import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.layers.masked import MaskedDense, made_masks
from keras_gen.models.pixel_by_pixel import PixelByPixel


@saving.register_keras_serializable(package="keras_gen")
class FVBN(PixelByPixel):
    """Fully visible belief network: each pixel by logistic regression.

    `p(x_i = 1 given x_<i) = sigmoid(b_i + sum_{j < i} W_ji x_j)`, pixels and
    channels in the order in which they lie in memory. It minimizes `loss`,
    the mean of `-log p(x)` in nats per image, which is convex.

    Args:
        image_shape: `(height, width, channels)`.
        num_orders: 1: there is a weight for each pixel and each one before it
            in that one order. `NADE` takes more.
        likelihood: `"bernoulli"`: binary images. In training a grey value
            counts as the probability of white.
        seed: Integer or `None`, seed of `sample` and `impute`.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        The probability that each pixel is white, given those before it in
        `x`: float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> FVBN((28, 28, 1)).sample(16)  # (16, 28, 28, 1)

    Reference:
        - [Does the Wake-sleep Algorithm Produce Good Density Estimators?](
          https://papers.nips.cc/paper/1995/hash/3871bd64012152bfb53fdf04b401193f-Abstract.html)
        - [The Neural Autoregressive Distribution Estimator](
          https://proceedings.mlr.press/v15/larochelle11a.html), as FVSBN.
    """

    def __init__(
        self,
        image_shape,
        *,
        num_orders=1,
        likelihood="bernoulli",
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape, likelihood=likelihood, seed=seed, **kwargs
        )
        is_integer = isinstance(num_orders, numbers.Integral)
        if not is_integer or isinstance(num_orders, bool) or num_orders != 1:
            raise ValueError(
                "`num_orders` of `FVBN` must be 1, for its weights are of one "
                f"order of the pixels, got {str(num_orders)[:100]!r}. Leave it "
                "out, or use `NADE`."
            )
        self.num_orders = 1
        self.orders = np.arange(self.num_dims, dtype="int32")[np.newaxis]
        (earlier,) = made_masks(self.num_dims, ())
        self.regression = MaskedDense(
            self.num_dims,
            earlier,
            kernel_initializer="zeros",
            dtype="float32",
            name="regression",
        )
        self.regression.build((None, self.num_dims))
        self.built = True

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            loss = -self._log_prob(x)
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss)

    def _logits(self, x, m):
        return self.regression(x)

    def _masked_kernel(self):
        mask = tf.cast(self.regression.mask, "float32")
        return self.regression.kernel * mask

    def _cached_turns(self, m, order, num_images):
        kernel = self._masked_kernel()
        bias = tf.convert_to_tensor(self.regression.bias)
        logits = tf.repeat(bias[:, tf.newaxis], num_images, axis=1)

        def update(i, logits, value):
            return logits + kernel[i][:, tf.newaxis] * value

        return logits, lambda i, logits: logits[i], update

    def _plain_turns(self, m, order, num_images):
        kernel = self._masked_kernel()
        bias = tf.convert_to_tensor(self.regression.bias)
        x = tf.zeros((num_images, self.num_dims))

        def logit(i, x):
            return (tf.matmul(x, kernel) + bias)[:, i]

        def update(i, x, value):
            return x + value[:, tf.newaxis] * tf.one_hot(i, self.num_dims)

        return x, logit, update

    def get_config(self):
        return {**super().get_config(), "num_orders": self.num_orders}


@saving.register_keras_serializable(package="keras_gen")
class NADE(PixelByPixel):
    """Neural autoregressive distribution estimator.

    For `h_i = sigmoid(c + sum_{j before i} W_j x_j)`, which takes
    `num_dims * hidden_dim` operations an image,
    `p(x_i = 1 given pixels before i) = sigmoid(b_i + V_i . h_i)`.

    With one order, that in which pixels and channels lie in memory, it
    minimizes the mean of `-log p(x)` in nats per image.

    With `num_orders` above 1 it is trained for all orders at once. Each image
    of a batch has `d - 1` of its D pixels shown, d uniform in 1..D and the
    pixels at random; the network sees which they are, by
    `h = sigmoid(c + sum_{j shown} (W_j x_j + U_j))`; and the loss is
    `-D / (D - d + 1) * sum_{i hidden} log p(x_i given those shown)`, whose
    mean is that of `-log p(x)` over all orders. `log_prob`, `evaluate` and
    `sample` are then of the mean of the probabilities in `num_orders` orders,
    drawn once: the first of them are the same in every model, so that the
    weights can be set in a model of more orders.

    Logs `loss`: in training as above, in validation `-log p(x)`.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dim: Integer, width of h.
        num_orders: Integer, how many orders are averaged; above 1 training is
            order-agnostic.
        likelihood: `"bernoulli"`: binary images. In training a grey value
            counts as the probability of white.
        seed: Integer or `None`, seed of what is shown and of all draws.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        The probability that each pixel is white, given those before it in
        `x` in the first order: float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> NADE((28, 28, 1), hidden_dim=500).sample(16)  # (16, 28, 28, 1)

    Reference:
        - [The Neural Autoregressive Distribution Estimator](
          https://proceedings.mlr.press/v15/larochelle11a.html)
        - [A Deep and Tractable Density Estimator](
          https://arxiv.org/abs/1310.1757), which draws one order and one d
          for a whole batch.
    """

    def __init__(
        self,
        image_shape,
        hidden_dim,
        *,
        num_orders=1,
        likelihood="bernoulli",
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape, likelihood=likelihood, seed=seed, **kwargs
        )
        self.hidden_dim = inputs.check_positive_integer(
            hidden_dim, "hidden_dim"
        )
        self.num_orders = inputs.check_positive_integer(
            num_orders, "num_orders"
        )
        rng = np.random.default_rng(0)
        orders = [np.arange(self.num_dims)]
        if self.num_orders > 1:
            orders = [rng.permutation(orders[0]) for _ in range(num_orders)]
        self.orders = np.array(orders, "int32")
        shape = (self.num_dims, self.hidden_dim)
        self.kernel = self.weight("kernel", shape)
        self.shown_kernel = None
        if self.num_orders > 1:
            self.shown_kernel = self.weight("shown_kernel", shape)
        self.bias = self.weight("bias", shape[1:], "zeros")
        self.output_kernel = self.weight("output_kernel", shape)
        self.output_bias = self.weight("output_bias", shape[:1], "zeros")
        self.built = True

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            if self.num_orders > 1:
                loss = self._order_agnostic_loss(x, *self._splits(x))
            else:
                loss = -self._log_prob(x)
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss)

    def _splits(self, x):
        """Which pixels are shown, `(batch, num_dims)` float, and `d - 1`.

        One pixel is hidden for certain, and each other one shown with the same
        probability, which is uniform: then all numbers of shown pixels from 0
        to D - 1 are equally likely, and so are all sets of that size, as for a
        random order cut at a random place. It needs no sorting.
        """
        num_dims = self.num_dims
        shape = tf.stack([tf.shape(x)[0], num_dims + 2])
        uniform = self.uniform(shape, training=True)
        pixels, share, certain = tf.split(uniform, [num_dims, 1, 1], axis=1)
        hidden = tf.cast(certain * num_dims, "int32")
        shown = (pixels < share) & (tf.range(num_dims) != hidden)
        shown = tf.cast(shown, "float32")
        return shown, tf.reduce_sum(shown, axis=1)

    def _order_agnostic_loss(self, x, shown, num_shown):
        x = self._flat(x)
        logits = self._logits_given(x, shown, self.compute_dtype)
        log_prob = x * logits - tf.nn.softplus(logits)
        total = tf.reduce_sum((1.0 - shown) * log_prob, axis=1)
        return -total * self.num_dims / (self.num_dims - num_shown)

    def _logits_given(self, x, shown, dtype="float32"):
        """Of all pixels, given those that are shown; `(batch, num_dims)`."""

        def product(x, kernel, **arguments):
            x, kernel = tf.cast(x, dtype), tf.cast(kernel, dtype)
            return tf.cast(tf.matmul(x, kernel, **arguments), "float32")

        a = self.bias + product(x * shown, self.kernel)
        if self.shown_kernel is not None:
            a += product(shown, self.shown_kernel)
        h = tf.sigmoid(a)
        return self.output_bias + product(
            h, self.output_kernel, transpose_b=True
        )

    def _logits(self, x, m):
        bias = self.bias + tf.zeros((self.num_dims, 1))
        weights = [self.kernel, bias, self.output_kernel, self.output_bias]
        if self.num_orders == 1:
            return nade_logits(x, *map(tf.convert_to_tensor, weights))
        order = tf.gather(self.orders, m)
        shown = tf.gather(self.shown_kernel, order)
        kernel, bias, output_kernel, output_bias = (
            tf.gather(weight, order) for weight in weights
        )
        bias += tf.cumsum(shown, exclusive=True)
        logits = nade_logits(
            tf.gather(x, order, axis=1),
            *(kernel, bias, output_kernel, output_bias),
        )
        return tf.gather(logits, tf.argsort(order), axis=1)

    def _order(self, m, known):
        order = super()._order(m, known)
        if self.num_orders == 1:
            return order
        # Pixels that are known come first, and the order stays as it is.
        later = ~tf.gather(known, order, batch_dims=1)
        first = tf.argsort(tf.cast(later, "int32"), axis=1, stable=True)
        return tf.gather(order, first, batch_dims=1)

    def _cached_turns(self, m, order, num_images):
        kernel, shown_kernel, output_kernel, bias, output_bias = (
            None if weight is None else tf.convert_to_tensor(weight)
            for weight in (
                self.kernel,
                self.shown_kernel,
                self.output_kernel,
                self.bias,
                self.output_bias,
            )
        )

        def logit(i, a):
            rows = tf.gather(output_kernel, order[i])
            total = tf.reduce_sum(tf.sigmoid(a) * rows, axis=1)
            return total + tf.gather(output_bias, order[i])

        def update(i, a, value):
            a += value[:, tf.newaxis] * tf.gather(kernel, order[i])
            if shown_kernel is not None:
                a += tf.gather(shown_kernel, order[i])
            return a

        return tf.repeat(bias[tf.newaxis], num_images, axis=0), logit, update

    def _plain_turns(self, m, order, num_images):
        x = tf.zeros((num_images, self.num_dims))

        def logit(i, state):
            pixel = tf.one_hot(order[i], self.num_dims)
            return tf.reduce_sum(pixel * self._logits_given(*state), axis=1)

        def update(i, state, value):
            pixel = tf.one_hot(order[i], self.num_dims)
            x, shown = state
            return x + value[:, tf.newaxis] * pixel, shown + pixel

        return (x, x), logit, update

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_orders": self.num_orders,
        }


def nade_logits(x, kernel, bias, output_kernel, output_bias):
    """Logits of a NADE by its recurrence, pixels in the order they stand.

    `a_1 = 0`, `logit_i = b_i + V_i . sigmoid(a_i + C_i)`,
    `a_{i+1} = a_i + x_i W_i`. The gradient goes through the recurrence
    backwards, and recovers each `a_i` by subtraction: both take
    `batch * hidden_dim` numbers of memory, where all hidden layers at once
    would take `num_dims` times as many.

    Args:
        x: `(batch, num_dims)` float32.
        kernel: W, `(num_dims, hidden_dim)`.
        bias: C, `(num_dims, hidden_dim)`, of the hidden layer of each pixel.
        output_kernel: V, `(num_dims, hidden_dim)`.
        output_bias: b, `(num_dims,)`.

    Returns:
        `(batch, num_dims)` float32.
    """
    num_dims, hidden_dim = kernel.shape

    def array(*shape):
        return tf.TensorArray("float32", num_dims, element_shape=shape)

    @tf.custom_gradient
    def logits_of(x, kernel, bias, output_kernel):
        columns = tf.transpose(x)

        def forward(i, a, logits):
            h = tf.sigmoid(a + bias[i])
            logits = logits.write(i, tf.linalg.matvec(h, output_kernel[i]))
            return i + 1, a + _outer(columns[i], kernel[i]), logits

        start = tf.zeros((tf.shape(x)[0], hidden_dim))
        _, end, logits = tf.while_loop(
            lambda i, *_: i < num_dims,
            forward,
            (0, start, array(x.shape[0])),
            maximum_iterations=num_dims,
        )

        def gradient(upstream):
            upstream = tf.transpose(upstream)

            def backward(i, a, da, dx, dkernel, dbias, doutput):
                # Here `a` and `da` are of the pixel after this one.
                dx = dx.write(i, tf.linalg.matvec(da, kernel[i]))
                dkernel = dkernel.write(i, _matvec(da, columns[i]))
                a -= _outer(columns[i], kernel[i])
                h = tf.sigmoid(a + bias[i])
                doutput = doutput.write(i, _matvec(h, upstream[i]))
                own = _outer(upstream[i], output_kernel[i]) * h * (1.0 - h)
                dbias = dbias.write(i, tf.reduce_sum(own, axis=0))
                return i - 1, a, da + own, dx, dkernel, dbias, doutput

            arrays = [array(x.shape[0]), *(array(hidden_dim) for _ in range(3))]
            _, _, _, dx, *of_weights = tf.while_loop(
                lambda i, *_: i >= 0,
                backward,
                (num_dims - 1, end, tf.zeros_like(end), *arrays),
                maximum_iterations=num_dims,
            )
            gradients = [array.stack() for array in of_weights]
            return tf.transpose(dx.stack()), *gradients

        return tf.transpose(logits.stack()), gradient

    return logits_of(x, kernel, bias, output_kernel) + output_bias


def _outer(column, row):
    return column[:, tf.newaxis] * row


def _matvec(rows, column):
    return tf.linalg.matvec(rows, column, transpose_a=True)
