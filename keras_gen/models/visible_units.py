"""The visible units of Boltzmann machines: binary or Gaussian."""

import math

import keras
import tensorflow as tf

from keras_gen import randomness
from keras_gen.likelihood.boltzmann import sample_bernoulli


class VisibleUnits(keras.layers.Layer):
    """What a layer of visible units is, given the input of the hidden ones.

    Images are flat values `v`, `(n, num_units)`, and `features(v)` are what
    the hidden units see of them. With `r = h @ transpose(kernel)`,
    `(n, num_units)`, and the inverse temperature `beta` between a base
    without hidden units, 0, and the machine, 1, a subclass writes

    - `values(x, noise)`, flat images as values;
    - `start(count, mean, variance)`, which fits the units without hidden
      ones to the moments of `count` images;
    - `log_factor(v)`: the term of `-energy` without hidden units, `(n,)`;
    - `log_sum(r, beta)`: `log integral exp(log_factor(v) + beta * features(v)
      @ r)` over all v, `(n,)`;
    - `mean(r)`, and `draw(r, seed, beta)` from p(v given r).
    """

    log_volume = 0.0  # log-size of what an image is in the space of `v`

    def __init__(self, num_units):
        super().__init__()
        self.num_units = num_units
        self.bias = self.weight("visible_bias")

    def weight(self, name, value=0.0, trainable=True):
        return self.add_weight(
            name=name,
            shape=(self.num_units,),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=trainable,
            autocast=False,
        )


class BinaryUnits(VisibleUnits):
    """Units of 0 and 1, `p(v = 1 given r) = sigmoid(bias + r)`.

    At other temperatures the logit is `(1 - beta) * base_logits + beta *
    (bias + r)`: at 0 the units are independent, with the rates of the images
    that the machine started from, which are not far from those it ends with.
    """

    needs_noise = False

    def __init__(self, num_units):
        super().__init__(num_units)
        self.base_logits = self.weight("base_logits", trainable=False)
        self.built = True

    def values(self, x, noise=None):
        return x

    def start(self, count, mean, variance):
        # As if one white and one black image more had been seen.
        rates = (count * mean + 1.0) / (count + 2.0)
        logits = tf.math.log(rates) - tf.math.log1p(-rates)
        self.bias.assign(logits)
        self.base_logits.assign(logits)

    def features(self, v):
        return v

    def log_factor(self, v):
        return tf.linalg.matvec(v, self.bias)

    def _logits(self, r, beta):
        return (1.0 - beta) * self.base_logits + beta * (self.bias + r)

    def log_sum(self, r, beta=1.0):
        return tf.reduce_sum(tf.nn.softplus(self._logits(r, beta)), axis=1)

    def mean(self, r):
        return tf.sigmoid(self.bias + r)

    def draw(self, r, seed, beta=1.0):
        return sample_bernoulli(self._logits(r, beta), seed)


class GaussianUnits(VisibleUnits):
    """Real units, p(v given r) normal around `bias + scale * r`.

    Its standard deviation `scale` is trained, too: `log_factor(v) =
    -sum(features(v)**2) / 2` with `features(v) = (v - bias) / scale`. The
    values are those of images dequantized by uniform noise: level k of an
    8-bit image stands for `(k + noise) / 256`.
    """

    needs_noise = True

    def __init__(self, num_units):
        super().__init__(num_units)
        self.log_scale = self.weight("log_scale", math.log(0.25))
        self.log_volume = -num_units * math.log(256)
        self.built = True

    @property
    def scale(self):
        return tf.exp(self.log_scale)

    def values(self, x, noise=0.5):
        return (tf.round(255.0 * x) + noise) / 256.0

    def start(self, count, mean, variance):
        self.bias.assign(mean)
        # Pixels that were always black are to be learned, not taken as sure.
        self.log_scale.assign(0.5 * tf.math.log(variance + 0.05**2))

    def features(self, v):
        return (v - self.bias) / self.scale

    def log_factor(self, v):
        return -0.5 * tf.reduce_sum(self.features(v) ** 2, axis=1)

    def log_sum(self, r, beta=1.0):
        constant = 0.5 * self.num_units * math.log(2 * math.pi)
        constant += tf.reduce_sum(self.log_scale)
        return constant + 0.5 * tf.reduce_sum((beta * r) ** 2, axis=1)

    def mean(self, r):
        return self.bias + self.scale * r

    def draw(self, r, seed, beta=1.0):
        noise = randomness.draw_rows(
            tf.random.stateless_normal, tf.shape(r), seed
        )
        return self.mean(beta * r) + self.scale * noise
