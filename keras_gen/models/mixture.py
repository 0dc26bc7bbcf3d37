"""Expectation-maximization: what mixtures share, whatever they mix."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs, optimization, randomness
from keras_gen.generative_model import GenerativeModel


class Mixture(GenerativeModel):
    """A mixture `p(x) = sum_k proportions[k] * p_k(x)`, trained by EM.

    `train_step` is the expectation step: the responsibilities
    `r[k] = p(k given x)` of a batch, and the sums over its images, weighted by
    `r`, that the components ask for. The maximization step computes the
    parameters from these sums in closed form in float64: at the end of each
    epoch, so that an epoch is one exact iteration of EM and the order and size
    of batches make no difference, or with `memory` after each batch. If
    training is stopped within an epoch, the parameters are those of the last
    whole one, as part of the images may be unlike all; if there is none, those
    of the images that were seen.

    What the model starts from are means drawn by k-means++ from the first
    batch that `fit` is given (that of all replicas together; of hundreds of
    images, better), equal proportions and one variance. A component that has
    lost all images takes over one half of the largest one, and the two means
    move apart by one standard deviation, along a draw from that component. So
    it goes with components that a first batch of fewer different images had no
    mean for.

    A subclass sets `self.components`, a layer with these attributes, where
    `x` are points `(batch, D)`, all that starts with an axis of components has
    it at their front, and draws are of what the model calls points:

    - `means`, a weight `(num_components, D)`, and whichever more it needs;
    - `statistics`, list of float64 weights: sums over images, the first of
      them the counts `(num_components,)`;
    - `points(x)`, images as points `(batch, D)`, and `images(points)`, the
      way back, in [0, 1] and flat;
    - `log_prob(x)` and `expected_log_prob(x)`, `(batch, num_components)`
      nats, the second being what EM raises;
    - `start(means, variance, seed)`, which sets the first parameters;
    - `sums(x, responsibilities)`, what a batch adds to the statistics;
    - `maximize(statistics)`, which sets the parameters of highest likelihood,
      and `implied(counts)`, the statistics that have the present ones;
    - `draw(k, num_samples, seed)`, `(num_samples, D)`;
    - `given(k, x, observed)`, of `observed` a bool `(D,)`: the log-density of
      the observed numbers of the points, `(batch,)`, and a function of
      `(num_samples, seed)` that draws `(num_samples, batch, D)` whose
      missing numbers follow their conditional distribution.

    Args:
        image_shape: `(height, width, channels)`.
        num_components: Integer, how many are mixed.
        memory: `None` for one maximization an epoch. Or an integer, for one
            after each batch, from sums over about so many of the last images:
            with every batch of B the former sums shrink by
            `1 - B / memory`. For data too large to pass over often.
        seed: Integer or `None`, seed of the start, and of the verbs.
    """

    log_prob_kind = "exact"
    optimizers = ()

    def __init__(
        self, image_shape, num_components, *, memory=None, seed=None, **kwargs
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.num_components = inputs.check_positive_integer(
            num_components, "num_components"
        )
        if memory is not None:
            memory = inputs.check_positive_integer(memory, "memory")
        self.memory = memory
        self.num_dims = math.prod(self.image_shape)
        share = keras.initializers.Constant(1 / self.num_components)
        self.proportions = self.add_weight(
            name="proportions",
            shape=(self.num_components,),
            initializer=share,
            dtype="float32",
            autocast=False,
        )
        # 0 until `fit` has chosen the first means; 1 keeps those of the user.
        self.started = self.add_weight(
            name="started",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )
        self.add_metrics("loss")

    # Training

    def compile(self, optimizer=None, *, jit_compile=False, **kwargs):
        """Configures training.

        Args:
            optimizer: Not used; taken so that one model can stand for another.
            jit_compile: Whether XLA compiles the training step; that pays for
                small images alone.
            **kwargs: `steps_per_execution` and `run_eagerly`, see
                `GenerativeModel.compile`.
        """
        super().compile(None, jit_compile=jit_compile, **kwargs)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **kwargs,
    ):
        """Trains the model; arguments and result are those of `keras.Model`."""
        callbacks = [_Maximization(), callbacks]
        return super().fit(
            x,
            y,
            batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            **kwargs,
        )

    def train_on_batch(self, *args, **kwargs):
        """A step of EM on one batch; arguments are those of `keras.Model`."""
        if not self.memory:
            self.restart()
        logs = super().train_on_batch(*args, **kwargs)
        self.maximize()
        return logs

    def train_step(self, data):
        x, _ = self.unpack(data)
        x = self.components.points(x)
        finite = optimization.all_finite([x])
        seed = self.train_seeds.next_shared()
        self._start_from(x, finite, seed)
        joint = self._log_joint(x)
        log_prob = tf.reduce_logsumexp(joint, axis=1)
        responsibilities = tf.exp(joint - log_prob[:, tf.newaxis])
        sums = self.components.sums(
            tf.where(finite, x, 0.0), tf.where(finite, responsibilities, 0.0)
        )
        kept = 1.0
        if self.memory:
            num_images = tf.reduce_sum(sums[0])
            kept = tf.maximum(1 - _over_replicas(num_images) / self.memory, 0.0)
        for total, added in zip(self.components.statistics, sums, strict=True):
            total.assign(kept * total + _over_replicas(added))
        if self.memory:
            tf.cond(
                tf.equal(self.started, 1),
                lambda: self._maximize(seed),
                lambda: None,
            )
        self.count_skipped(finite)
        return self.log(loss=-log_prob)

    def _log_joint(self, x):
        """`log(proportions[k]) + log p_k(x)`, `(batch, num_components)`."""
        log_prob = self.components.expected_log_prob(x)
        return tf.math.log(self.proportions) + log_prob

    def _start_from(self, x, finite, seed):
        """Sets the first parameters, once, from a batch of all replicas."""
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            x = context.all_gather(x, axis=0)  # its shape may be unknown
            x = tf.ensure_shape(x, (None, self.num_dims))

        def start():
            seeds = tf.random.split(seed)
            means, chosen, variance = _k_means_plus_plus(
                x, self.num_components, seeds[0]
            )
            self.components.start(means, variance, seeds[1])
            chosen = tf.cast(chosen, "float32")
            self.proportions.assign(chosen / tf.reduce_sum(chosen))
            if self.memory:
                self.remember_parameters()
            self.started.assign(1)

        tf.cond(
            tf.logical_and(tf.equal(self.started, 0), finite),
            start,
            lambda: None,
        )

    def remember_parameters(self):
        """Sets the sums to those of `memory` images of the present mixture.

        So that the first batches alone do not tell the parameters.
        """
        counts = tf.cast(self.memory * self.proportions, "float64")
        _assign(self.components.statistics, self.components.implied(counts))

    def restart(self):
        """Forgets the sums; `fit` does so before each epoch."""
        _assign(
            self.components.statistics,
            [tf.zeros_like(total) for total in self.components.statistics],
        )

    def maximize(self):
        """The maximization step of an epoch, which `fit` takes at its end.

        Without images since the last one it changes nothing.
        """
        if not self.memory and np.sum(self.components.statistics[0]) > 0:
            self._maximize(self.train_seeds.next_shared())
            self.restart()

    def _maximize(self, seed):
        components = self.components
        before = components.statistics[0]
        source, counts = _without_empty(tf.convert_to_tensor(before))
        split = tf.not_equal(counts, before)
        share = counts / tf.gather(before, source)
        statistics = []
        for total in components.statistics:
            shape = [-1] + [1] * (len(total.shape) - 1)
            total = tf.gather(total, source) * tf.reshape(share, shape)
            statistics.append(total)
        components.maximize(statistics)
        self.proportions.assign(
            tf.cast(counts / tf.reduce_sum(counts), "float32")
        )

        def move_apart():
            draws = [
                components.draw(
                    k,
                    1,
                    tf.random.experimental.stateless_fold_in(seed, k),
                )[0]
                for k in range(self.num_components)
            ]
            means = tf.convert_to_tensor(components.means)
            moved = means + (tf.stack(draws) - means) / self.num_dims**0.5
            components.means.assign(
                tf.where(split[:, tf.newaxis], moved, means)
            )
            return components.implied(counts)

        # The means of the next batch come from these sums.
        statistics = tf.cond(
            tf.reduce_any(split), move_apart, lambda: statistics
        )
        if self.memory:
            _assign(components.statistics, statistics)

    def test_step(self, data):
        x, _ = self.unpack(data)
        joint = self._log_joint(self.components.points(x))
        return self.log(loss=-tf.reduce_logsumexp(joint, axis=1))

    def call(self, x, training=False):
        shares = self._responsibilities(self.to_float(x))
        x = self.components.images(tf.matmul(shares, self.components.means))
        return tf.reshape(x, (-1, *self.image_shape))

    # Verbs

    def responsibilities(self, x):
        """p(component given image), `(batch, num_components)` float32.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
        """
        return self.graph(self._responsibilities, self.images_from(x))

    def _responsibilities(self, x):
        return tf.nn.softmax(self._log_joint(self.components.points(x)))

    def sample(self, num_samples, *, condition=None, seed=None):
        """Draws images.

        Args:
            num_samples: Integer, how many.
            condition: `None`; taken so that one model can stand for another.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1], of 256 levels
            (binary ones from a mixture of Bernoullis).

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        return self.graph(self._sample, num_samples, self.verb_seed(seed))

    def _sample(self, num_samples, seed):
        seeds = tf.random.split(seed)
        uniform = tf.random.stateless_uniform(
            [num_samples], seeds[0], alg="philox"
        )
        edges = tf.cumsum(self.proportions)[:-1]
        component = tf.searchsorted(edges, uniform, side="right")

        def add_those_of(k, points):
            rows = tf.where(tf.equal(component, k))
            fold = tf.random.experimental.stateless_fold_in(seeds[1], k)
            drawn = self.components.draw(k, tf.shape(rows)[0], fold)
            return k + 1, tf.tensor_scatter_nd_update(points, rows, drawn)

        _, points = tf.while_loop(
            lambda k, _: k < self.num_components,
            add_those_of,
            (0, tf.zeros(tf.stack([num_samples, self.num_dims]))),
        )
        x = self.components.images(points)
        return tf.reshape(x, (-1, *self.image_shape))

    def impute(self, x, mask, *, num_samples=1, seed=None):
        """Draws missing pixels from their distribution given the others.

        It is exact: of each component the conditional distribution, each with
        its probability given the observed pixels. Images of one mask share
        its costs.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, draws per image.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_samples, "num_samples")
        x, mask = self.observed_from(x, mask)
        seed = self.verb_seed(seed)
        masks, which = np.unique(
            np.reshape(mask, (-1, self.num_dims)), axis=0, return_inverse=True
        )
        drawn = np.zeros((num_samples, *x.shape), "float32")
        for i, observed in enumerate(masks):
            rows = np.flatnonzero(which == i)
            drawn[:, rows] = self.graph(
                self._impute,
                tf.gather(x, rows),
                observed,
                num_samples,
                tf.random.experimental.stateless_fold_in(seed, i),
            )
        return tf.where(mask, x, drawn)

    def _impute(self, x, observed, num_samples, seed):
        points = tf.cast(self.components.points(x), "float64")
        log_proportions = tf.math.log(tf.cast(self.proportions, "float64"))
        seeds = tf.random.split(seed)
        shape = tf.stack([num_samples, tf.shape(x)[0]])

        def consider(k, best, drawn):
            # The component of the greatest `log p + Gumbel noise` is a draw
            # from p, so that one pass over them does.
            log_prob, draw = self.components.given(k, points, observed)
            fold = tf.random.experimental.stateless_fold_in
            score = log_prob + log_proportions[k]
            score += gumbel(shape, fold(seeds[0], k))
            new = draw(num_samples, fold(seeds[1], k))
            drawn = tf.where((score > best)[:, :, tf.newaxis], new, drawn)
            return k + 1, tf.maximum(best, score), drawn

        best = tf.fill(shape, tf.constant(-math.inf, "float64"))
        drawn = tf.zeros(tf.concat([shape, [self.num_dims]], 0), "float64")
        _, _, drawn = tf.while_loop(
            lambda k, *_: k < self.num_components,
            consider,
            (0, best, drawn),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None, self.num_dims]),
            ),
        )
        drawn = tf.cast(self.components.images(drawn), "float32")
        return tf.reshape(drawn, tf.concat([[num_samples], tf.shape(x)], 0))

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "num_components": self.num_components,
            "memory": self.memory,
        }


class _Maximization(keras.callbacks.Callback):
    """Restarts the sums with each epoch, and maximizes at its end."""

    _num_batches = None  # of a whole epoch, if Keras does not know

    def on_train_begin(self, logs=None):
        model = self.model
        if model.memory and int(np.asarray(model.started)):
            if not np.any(model.components.statistics[0]):
                model.remember_parameters()

    def on_epoch_begin(self, epoch, logs=None):
        resuming, self._num_seen = self.model.resuming, 0
        # Whether this epoch found parameters, or started from drawn means.
        started = int(np.asarray(self.model.started)) == 1
        self._has_parameters = started and (epoch > 0 or not resuming)
        if not resuming and not self.model.memory:
            self.model.restart()

    def on_train_batch_end(self, batch, logs=None):
        self._num_seen = batch + 1

    def on_test_begin(self, logs=None):
        # The validation of an epoch comes before its end.
        self._maximize()

    def on_epoch_end(self, epoch, logs=None):
        self._maximize()
        if not self.model.stop_training:
            self._num_batches = self._num_seen

    def _maximize(self):
        num_batches = self.params["steps"] or self._num_batches or math.inf
        stopped = self.model.stop_training and self._num_seen < num_batches
        if stopped and self._has_parameters and not self.model.memory:
            self.model.restart()
        self.model.maximize()

    def direction(self, name):
        # Callbacks that have this are the first to act (see `_introduce` of
        # `generative_model`), and what measures must find the new parameters.
        return None


def _k_means_plus_plus(x, count, seed):
    """Draws `count` rows of `x`, each in proportion to `d(x)**2`.

    That is the squared distance to the nearest row drawn before.

    Args:
        x: `(batch, D)` float32.
        count: Integer.
        seed: int32 `(2,)`.

    Returns:
        `(rows, chosen, variance)`: `(count, D)`; bools `(count,)`, False where
        no row was left that is not among the others; and the mean over rows
        and dimensions of the squared distance that remains.

    Reference:
        - Arthur and Vassilvitskii, k-means++: The Advantages of Careful
          Seeding, 2007
    """
    uniform = tf.random.stateless_uniform([count], seed, alg="philox")
    uniform = tf.cast(uniform, "float64")

    def choose(i, distance, rows, chosen):
        cumulative = tf.cumsum(tf.cast(distance, "float64"))
        index = tf.searchsorted(
            cumulative, uniform[i : i + 1] * cumulative[-1], side="right"
        )[0]
        row = tf.gather(x, tf.minimum(index, tf.shape(x)[0] - 1))
        to_row = tf.reduce_sum(tf.square(x - row), axis=1)
        at = [[i]]
        rows = tf.tensor_scatter_nd_update(rows, at, [row])
        chosen = tf.tensor_scatter_nd_update(chosen, at, [cumulative[-1] > 0])
        nearest = tf.where(i > 0, tf.minimum(distance, to_row), to_row)
        return i + 1, nearest, rows, chosen

    _, distance, rows, chosen = tf.while_loop(
        lambda i, *_: i < count,
        choose,
        (
            0,
            tf.ones_like(x[:, 0]),  # the first one: all alike
            tf.zeros((count, x.shape[1])),
            tf.zeros([count], "bool"),
        ),
        maximum_iterations=count,
    )
    return rows, chosen, tf.reduce_mean(distance) / x.shape[1]


def _without_empty(counts):
    """Gives empty components one half of the largest.

    Args:
        counts: `(num_components,)` float64.

    Returns:
        `(source, counts)`: the component whose statistics each is to share,
        int32, and the new counts. None of them is under half an image.
    """
    num_components = counts.shape[0]
    least = tf.minimum(
        tf.constant(0.5, "float64"),
        tf.reduce_sum(counts) / (4 * num_components),
    )

    def split(source, counts):
        empty, largest = tf.argmin(counts), tf.argmax(counts)
        half = counts[largest] / 2
        counts = tf.tensor_scatter_nd_update(
            counts, [[empty], [largest]], [half, half]
        )
        source = tf.tensor_scatter_nd_update(
            source, [[empty]], [source[largest]]
        )
        return source, counts

    return tf.while_loop(
        lambda source, counts: tf.reduce_min(counts) < least,
        split,
        (tf.range(num_components), counts),
        maximum_iterations=num_components,
    )


def normal(shape, seed, dtype):
    """Standard normal noise of `shape`, in `dtype`."""
    draw = tf.random.stateless_normal(shape, seed, alg="philox")
    return tf.cast(draw, dtype)


def gumbel(shape, seed):
    """Standard Gumbel noise of `shape`, float64."""
    uniform = tf.random.stateless_uniform(
        shape, seed, minval=1e-300, dtype="float64", alg="philox"
    )
    return -tf.math.log(-tf.math.log(uniform))


def _over_replicas(value):
    if randomness.replica_position()[1] == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce("SUM", value)


def _assign(weights, values):
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
