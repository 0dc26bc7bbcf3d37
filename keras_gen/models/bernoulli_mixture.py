"""Mixture of independent Bernoulli pixels, for binary images."""

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.models.mixture import Mixture


@saving.register_keras_serializable(package="keras_gen")
class BernoulliMixture(Mixture):
    """Mixture of independent Bernoulli pixels, trained by EM.

    `p(x) = sum_k proportions[k] * prod_d means[k, d]**x[d]
    * (1 - means[k, d])**(1 - x[d])`, of binary images; a grey value counts as
    the probability of white. With `r[n, k] = p(k given x[n])` the maximization
    step is `proportions[k] = mean_n(r[n, k])` and `means[k] =
    (sum_n(r[n, k] * x[n]) + smoothing) / (sum_n(r[n, k]) + 2 * smoothing)`.
    Without `smoothing` no iteration lowers the likelihood; with it, none
    lowers that plus `smoothing * sum(log(means * (1 - means)))`.

    How EM starts, what an epoch is and what becomes of empty components is
    told in `models.mixture.Mixture`. `train_step` needs no optimizer. Logs
    `loss`, `-log p(x)` in nats an image, of the parameters with which the epoch
    began.

    Args:
        image_shape: `(height, width, channels)`.
        num_components: Integer, how many are mixed.
        smoothing: Number, how many white and how many black images more each
            component is to have seen. Keeps a pixel that was always black in
            training from making an image impossible.
        memory: `None` for one maximization an epoch. Or an integer, for one
            after each batch, from sums over about so many of the last images.
        seed: Integer or `None`, seed of the start, and of the verbs.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Mean of the components given x, float32 in [0, 1].

    Attributes:
        proportions: A weight `(num_components,)` that sums to 1.
        components: Layer whose `means` are the probabilities of white,
            `(num_components, D)`.
        started: A weight, 0 until `fit` has chosen the first means. With 1 it
            goes on from those that were assigned.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> mixture = BernoulliMixture((28, 28, 1), num_components=50)
    >>> mixture.compile()
    >>> mixture.fit(train, epochs=30)
    >>> mixture.log_prob(images)  # (batch,), nats

    Reference:
        - Bishop, Pattern Recognition and Machine Learning, 2006, section 9.3.3
    """

    is_binary = True

    def __init__(
        self,
        image_shape,
        num_components,
        *,
        smoothing=0.1,
        memory=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape, num_components, memory=memory, seed=seed, **kwargs
        )
        self.smoothing = inputs.check_number(smoothing, "smoothing", minimum=0)
        self.components = Bernoullis(
            self.num_components, self.num_dims, self.smoothing
        )
        self.built = True

    def log_prob(self, x, *, condition=None, num_samples=None, seed=None):
        """Log-probability of binary images, `(batch,)` nats.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`; taken so that one model can stand for another.
            num_samples: Not used, as nothing is drawn.
            seed: Not used either.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        return self.graph(self._log_prob, self.images_from(x))

    def _log_prob(self, x):
        joint = self._log_joint(self.components.points(x))
        return tf.reduce_logsumexp(joint, axis=1)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}


class Bernoullis(keras.layers.Layer):
    """The components of `BernoulliMixture`; see `Mixture`."""

    def __init__(self, num_components, num_dims, smoothing):
        super().__init__()
        self.num_dims, self.smoothing = num_dims, smoothing
        self.means = self.add_weight(
            name="means",
            shape=(num_components, num_dims),
            initializer=keras.initializers.Constant(0.5),
            dtype="float32",
            autocast=False,
        )
        self.statistics = [
            self.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                dtype="float64",
                trainable=False,
                autocast=False,
            )
            for name, shape in (
                ("counts", (num_components,)),
                ("first_moments", (num_components, num_dims)),
            )
        ]
        self.built = True

    def points(self, x):
        return tf.reshape(x, (-1, self.num_dims))

    def images(self, points):
        return points

    def log_prob(self, x):
        white, black = tf.math.log(self.means), tf.math.log1p(-self.means)
        log_odds = tf.matmul(x, white - black, transpose_b=True)
        return log_odds + tf.reduce_sum(black, axis=1)

    expected_log_prob = log_prob

    def start(self, means, variance, seed):
        # Half-way from grey, since no other image has just these pixels.
        self.means.assign(0.25 + 0.5 * means)

    def sums(self, x, responsibilities):
        r = tf.cast(responsibilities, "float64")
        return [
            tf.reduce_sum(r, axis=0),
            tf.matmul(r, tf.cast(x, "float64"), transpose_a=True),
        ]

    def maximize(self, statistics):
        counts, first = statistics
        means = (first + self.smoothing) / (
            counts[:, tf.newaxis] + 2 * self.smoothing
        )
        # What is likeliest among probabilities that float32 tells from 0 and 1.
        means = tf.clip_by_value(tf.cast(means, "float32"), 1e-6, 1 - 1e-6)
        self.means.assign(means)

    def implied(self, counts):
        return [counts, counts[:, tf.newaxis] * tf.cast(self.means, "float64")]

    def draw(self, k, num_samples, seed):
        shape = tf.stack([num_samples, self.num_dims])
        uniform = tf.random.stateless_uniform(shape, seed, alg="philox")
        return tf.cast(uniform < self.means[k], "float32")

    def given(self, k, x, observed):
        mean = tf.cast(self.means[k], "float64")
        log_prob = x * tf.math.log(mean) + (1 - x) * tf.math.log1p(-mean)
        log_prob = tf.reduce_sum(tf.where(observed, log_prob, 0.0), axis=1)

        def draw(num_samples, seed):
            num_images = tf.shape(x)[0]
            drawn = self.draw(k, num_samples * num_images, seed)
            shape = tf.stack([num_samples, num_images, self.num_dims])
            return tf.cast(tf.reshape(drawn, shape), "float64")

        return log_prob, draw
