"""Waveforms with an exact likelihood, one sample at a time: WaveNet."""

import functools
import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import audio, conditioning, inputs, waveforms
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.causal import GatedResidualBlock

tfd = tfp.distributions

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@saving.register_keras_serializable(package="keras_gen")
class WaveNet(GenerativeModel):
    """WaveNet: causal dilated convolutions over a waveform.

    A waveform is rounded to `levels` by the mu-law (`audio.mu_law_encode`),
    and `p(x) = prod_t p(level_t given levels before t)`, each factor a softmax
    over all levels. A stack of `GatedResidualBlock`s, of kernel size 2 and one
    for each of `dilations`, sees the `receptive_field` = `1 + sum(dilations)`
    samples before t, and zeros in place of those before the first. Of each
    sample it sees two numbers: the level, scaled to [-1, 1], and its
    amplitude.

    It minimizes `loss`, the mean of `-log p(x)` in nats per waveform, and logs
    `bits_per_sample = loss / (num_samples * log(2))` too.

    Args:
        num_samples: Integer, length of a waveform.
        num_filters: Integer, width of the residual path.
        dilations: Integers, the dilation of each block.
        skip_filters: Integer, width of the output path. Defaults to twice
            `num_filters`.
        levels: Integer, how many amplitudes are told apart.
        num_classes: Integer, if the model is conditional on a class, the
            speaker for example: `y` are class ids `(batch,)`.
        condition_dim: Integer, if it is conditional on vectors `(batch,
            condition_dim)`, or with `frame_length` on a sequence of them.
        frame_length: Integer that divides `num_samples`, if the condition
            changes over time: `y` are `(batch, num_samples / frame_length,
            condition_dim)`, each frame for that many samples in a row.
        seed: Integer or `None`, seed of all draws.

    Call arguments:
        x: Waveforms `(batch, num_samples)`, floats in [-1, 1].
        condition: Classes, vectors or frames of a conditional model.

    Returns:
        The mean of each sample given those before it in `x`, `(batch,
        num_samples)`, float32 in [-1, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> model = WaveNet(4096, num_filters=32)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(datasets.load_audio("speech", num_samples=4096, batch_size=8))
    >>> audio.write_wav("sample.wav", model.sample(1)[0], sample_rate=8000)

    Reference:
        - [WaveNet](https://arxiv.org/abs/1609.03499), of which the first
          convolution and the upsampling of frames are simpler here: a product
          with one earlier sample, and repetition.
        - [Fast Wavenet Generation Algorithm](
          https://arxiv.org/abs/1611.09482), on the queues of `sample`.
    """

    log_prob_kind = "exact"

    def __init__(
        self,
        num_samples,
        num_filters=32,
        dilations=DILATIONS,
        *,
        skip_filters=None,
        levels=256,
        num_classes=None,
        condition_dim=None,
        frame_length=None,
        seed=None,
        **kwargs,
    ):
        num_samples = inputs.check_positive_integer(num_samples, "num_samples")
        super().__init__(None, event_shape=(num_samples,), seed=seed, **kwargs)
        self.num_samples = num_samples
        self.num_filters = inputs.check_positive_integer(
            num_filters, "num_filters"
        )
        self.dilations = _check_dilations(dilations)
        if skip_filters is None:
            skip_filters = 2 * self.num_filters
        self.skip_filters = inputs.check_positive_integer(
            skip_filters, "skip_filters"
        )
        self.levels = audio.check_levels(levels)
        width = conditioning.check_width(num_classes, condition_dim)
        self.num_classes, self.condition_dim = num_classes, condition_dim
        self.frame_length = frame_length
        if frame_length is not None:
            self._check_frame_length()

        self.entry = keras.layers.Dense(self.num_filters, name="entry")
        self.entry.build((None, num_samples, 2))
        self.blocks = [
            GatedResidualBlock(self.skip_filters, dilation=d, name=f"block_{i}")
            for i, d in enumerate(self.dilations)
        ]
        for block in self.blocks:
            block.build(
                (None, num_samples, self.num_filters),
                None if width is None else (None, None, width),
            )
        self.hidden = keras.layers.Dense(
            self.skip_filters, activation="relu", name="hidden"
        )
        self.output_layer = keras.layers.Dense(
            self.levels, dtype="float32", name="output"
        )
        for layer in (self.hidden, self.output_layer):
            layer.build((None, num_samples, self.skip_filters))
        self.add_metrics("loss", "bits_per_sample")
        self.built = True

    def _check_frame_length(self):
        length = inputs.check_positive_integer(
            self.frame_length, "frame_length"
        )
        if self.num_samples % length or self.condition_dim is None:
            raise ValueError(
                "`frame_length` must divide `num_samples`, and needs "
                f"`condition_dim`, got {length} for num_samples="
                f"{self.num_samples} and condition_dim={self.condition_dim}. "
                "Choose `num_samples = num_frames * frame_length`."
            )

    @property
    def receptive_field(self):
        """How many samples before it a sample depends on."""
        return 1 + sum(self.dilations)

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to
                `Adam(1e-3)`.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None:
            optimizer = keras.optimizers.Adam(1e-3)
        optimizer = self.prepare_optimizer(optimizer, self.trainable_weights)
        super().compile(optimizer, **kwargs)

    # Data: waveforms where other models have images.

    @property
    def check_data(self):
        conditional = self.num_classes or self.condition_dim
        return functools.partial(
            waveforms.check_data,
            num_samples=self.num_samples,
            check_condition=self._check_y if conditional else None,
        )

    def _check_y(self, y, batch):
        if self.frame_length:
            waveforms.check_frames(y, batch, self.condition_shape, "y")
        else:
            inputs.check_labels(
                y,
                batch,
                num_classes=self.num_classes,
                condition_dim=self.condition_dim,
            )

    def _check_call_condition(self, condition, batch):
        self._frames(condition, batch)

    def images_from(self, x, argument="x"):
        return waveforms.check_waveforms(x, self.num_samples, argument)

    @property
    def condition_shape(self):
        if not self.frame_length:
            return super().condition_shape
        return self.num_samples // self.frame_length, self.condition_dim

    def _frames(self, condition, count):
        """A checked condition as blocks take it: `(batch, frames, width)`."""
        if self.frame_length:
            count = None if tf.is_tensor(count) else count
            return waveforms.check_frames(
                condition, count, self.condition_shape
            )
        vectors = conditioning.vectors(
            condition, count, self.num_classes, self.condition_dim
        )
        return None if vectors is None else vectors[:, tf.newaxis]

    def _given(self, condition, count):
        frames = self._frames(condition, count)
        return [] if frames is None else [frames]

    # The network. Levels are float32 integers here, so that a NaN stays one.

    def _features(self, level):
        scaled = 2.0 * level / (self.levels - 1) - 1.0
        amplitude = audio.mu_law_decode(level, self.levels)
        return tf.stack([scaled, amplitude], axis=-1)

    def _logits(self, level, condition=None):
        """Of each sample given those before it: `(batch, steps, levels)`."""
        earlier = tf.pad(
            self._features(level)[:, :-1], ((0, 0), (1, 0), (0, 0))
        )
        x, total = self.entry(earlier), 0.0
        for block in self.blocks:
            x, skip = block(x, condition)
            total += skip
        return self._head(total)

    def _head(self, skips):
        return self.output_layer(self.hidden(tf.nn.relu(skips)))

    def _log_prob_given(self, x, condition=None):
        level = audio.mu_law_round(x, self.levels)
        is_nan = tf.math.is_nan(level)
        labels = tf.cast(tf.where(is_nan, 0.0, level), "int32")
        logits = self._logits(level, condition)
        log_prob = tfd.Categorical(logits).log_prob(labels)
        # NaN in the gradient too, for the update to be skipped.
        log_prob *= tf.where(is_nan, math.nan, 1.0)
        return tf.reduce_sum(log_prob, axis=1)

    # Training

    def train_step(self, data):
        x, condition = self.unpack(data)
        condition = self._frames(condition, x.shape[0])
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            loss = -self._log_prob_given(x, condition)
            # Their sum over all samples could overflow in float16.
            mean_loss = tf.reduce_mean(loss) / self.num_samples
            scaled_loss = self.scale_loss(mean_loss, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self._log_loss(loss)

    def test_step(self, data):
        x, condition = self.unpack(data)
        condition = self._frames(condition, x.shape[0])
        return self._log_loss(-self._log_prob_given(x, condition))

    def _log_loss(self, loss):
        bits = loss / (self.num_samples * math.log(2))
        return self.log(loss=loss, bits_per_sample=bits)

    def call(self, x, condition=None, training=False):
        x, condition = conditioning.unpaired(x, condition)
        logits = self.conditionals(x, condition=condition).distribution.logits
        amplitudes = audio.mu_law_decode(tf.range(self.levels), self.levels)
        return tf.linalg.matvec(tf.nn.softmax(logits), amplitudes)

    # Verbs

    def conditionals(self, x, *, condition=None):
        """p(level_t given the samples of `x` before t), for all t at once.

        Args:
            x: Waveforms `(batch, num_samples)`, floats in [-1, 1].
            condition: Classes, vectors or frames of a conditional model.

        Returns:
            A `tfd.Distribution` of batch shape `(batch,)` over the levels
            `(num_samples,)`; for `level = audio.mu_law_encode(x, levels)`,
            `conditionals(x).log_prob(level)` is `log_prob(x)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        logits = self.graph(self._conditional_logits, x, *given)
        return tfd.Independent(tfd.Categorical(logits), 1)

    def _conditional_logits(self, x, condition=None):
        return self._logits(audio.mu_law_round(x, self.levels), condition)

    def log_prob(self, x, *, condition=None, num_samples=None, seed=None):
        """Exact log-probability of the levels that a waveform rounds to.

        It is no density of the waveform itself: all waveforms that round to
        the same levels have the same one, and those of all
        `levels**num_samples` sequences sum to one.

        Args:
            x: Waveforms `(batch, num_samples)`, floats in [-1, 1].
            condition: Classes, vectors or frames of a conditional model.
                Without them it is the log of the mean probability over all
                classes.
            num_samples, seed: Accepted, as by models that estimate it, and
                ignored.

        Returns:
            `(batch,)` nats. Of uniform noise over the levels it is at most
            `-num_samples * log(levels)` on average.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, x.shape[0])
        return self.graph(self._log_prob, x, *given)

    def _log_prob(self, x, condition=None):
        if condition is None and self.num_classes:
            log_probs = self._of_classes(x)
            total = tf.reduce_logsumexp(log_probs, axis=1)
            return total - math.log(self.num_classes)
        return self._log_prob_given(x, condition)

    def _of_classes(self, x):
        """log p(x given y) of each class, `(batch, num_classes)`."""

        def of_class(y):
            one_hot = tf.one_hot(y, self.num_classes)
            condition = tf.tile(one_hot[tf.newaxis, tf.newaxis], (len_x, 1, 1))
            return self._log_prob_given(x, condition)

        len_x, classes = tf.shape(x)[0], tf.range(self.num_classes)
        log_probs = tf.map_fn(of_class, classes, fn_output_signature="float32")
        return tf.transpose(log_probs)

    @property
    def classify(self):
        """`classify(x)` by Bayes' rule, exactly: `(batch, num_classes)`.

        `p(y given x) = p(x given y) / sum_y p(x given y)`, classes being
        equally likely. Only models with `num_classes` have it.
        """
        if not self.num_classes:
            raise AttributeError("`classify` needs a model with `num_classes`.")
        return self._classify_waveforms

    def _classify_waveforms(self, x):
        return self.graph(self._classify, self.images_from(x))

    def _classify(self, x):
        return tf.nn.softmax(self._of_classes(x))

    def sample(self, num_samples, *, condition=None, seed=None, cached=True):
        """Waveforms drawn sample by sample, in one compiled loop.

        Each block keeps the last of its inputs in a queue as long as its
        dilation, so that a sample costs the same whatever the
        `receptive_field`. The loop is compiled once for each `num_samples`,
        which takes some seconds.

        Args:
            num_samples: Integer, how many waveforms.
            condition: Classes `(num_samples,)`, vectors or frames of a
                conditional model. Without them, classes are drawn uniformly.
            seed: Integer for the same waveforms each time, or `None`.
            cached: Boolean, whether there are queues, or the whole network is
                computed anew for each sample. Makes no difference but in time.

        Returns:
            `(num_samples, self.num_samples)` float32 in [-1, 1], amplitudes of
            levels.

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, num_samples)
        sample = self._sample if cached else self._sample_plainly
        return self.graph(sample, num_samples, self.verb_seed(seed), *given)

    def _sample(self, count, seed, condition=None, cached=True):
        if condition is None and self.num_classes:
            seeds = tf.random.split(seed)
            seed = seeds[0]
            classes = conditioning.random_classes(
                count, self.num_classes, seeds[1]
            )
            condition = classes[:, tf.newaxis]
        x = tf.zeros((count, self.num_samples))
        known = tf.zeros_like(x, "bool")
        return self._draw(x, known, seed, condition, cached)

    def _sample_plainly(self, count, seed, condition=None):
        return self._sample(count, seed, condition, cached=False)

    def impute(self, x, mask, *, num_samples=1, condition=None, seed=None):
        """Keeps the observed samples, and draws the others in their turn.

        A sample is drawn given those before it, observed or drawn, and **not
        given observed samples that come later**: the draws follow `p(missing
        given observed)` if all observed samples come first, as where a
        waveform is to be continued.

        Args:
            x: Waveforms `(batch, self.num_samples)`, floats in [-1, 1]. What
                stands in missing samples makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                sample is observed.
            num_samples: Integer, draws per waveform.
            condition: Classes, vectors or frames of a conditional model.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, self.num_samples)` float32 in [-1, 1];
            observed samples are those of `x`, others amplitudes of levels.

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x, mask = self.observed_from(x, mask)
        given = self._given(condition, x.shape[0])
        seed = self.verb_seed(seed)
        return self.graph(self._impute, x, mask, num_samples, seed, *given)

    def _impute(self, x, mask, num_samples, seed, condition=None):
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        if condition is not None:
            condition = tf.tile(condition, (num_samples, 1, 1))
        x, mask = (tf.tile(rows, (num_samples, 1)) for rows in (x, mask))
        return tf.reshape(self._draw(x, mask, seed, condition), shape)

    def _draw(self, x, known, seed, condition, cached=True):
        """Waveforms `(batch, num_samples)` whose unknown samples are drawn."""
        level = tf.transpose(audio.mu_law_round(x, self.levels))
        shape = tf.stack([self.num_samples, tf.shape(x)[0]])
        uniform = tf.random.stateless_uniform(shape, seed, alg="philox")
        # XLA makes the many small steps fast, and would not help full passes.
        draw = tf.function(
            self._draw_from_queues if cached else self._draw_plainly,
            jit_compile=cached,
            autograph=False,
        )
        drawn = draw(level, tf.transpose(known), uniform, condition)
        amplitude = audio.mu_law_decode(tf.transpose(drawn), self.levels)
        return tf.where(known, x, amplitude)

    # Below, time is the first axis of levels, known ones and uniform noise.

    def _draw_from_queues(self, level, known, uniform, condition):
        count, frame, shifts = tf.shape(uniform)[1], self.num_samples, None
        if condition is not None:
            shifts = tf.stack(
                [block.projection(condition) for block in self.blocks]
            )
            shifts = tf.transpose(shifts, (2, 0, 1, 3))  # (frames, blocks, ...)
            frame = self.num_samples // condition.shape[1]
        # The inputs of all blocks so far: the last `d` of each lie in the `d`
        # rows from its first one on, in turn.
        dilations = tf.constant(self.dilations)
        first = tf.cumsum(dilations, exclusive=True)
        dtype, shape = self.entry.compute_dtype, (count, self.num_filters)
        queues = tf.zeros((sum(self.dilations), *shape), dtype)
        inputs_before = tf.zeros((len(self.dilations), *shape), dtype)
        drawn = tf.TensorArray(
            "float32", self.num_samples, element_shape=uniform.shape[1:]
        )

        def body(t, features, inputs_before, queues, drawn):
            # Written before it is read, as XLA then copies no queue.
            rows = first + (t - 1) % dilations
            queues = tf.tensor_scatter_nd_update(
                queues, rows[:, tf.newaxis], inputs_before
            )
            past = tf.gather(queues, first + t % dilations)
            shift = None if shifts is None else shifts[t // frame]
            x, total, block_inputs = self.entry(features), 0.0, []
            for i, block in enumerate(self.blocks):
                block_inputs.append(x)
                x, skip = block.of_taps(
                    [past[i], x], None if shift is None else shift[i]
                )
                total += skip
            new = _draw_level(self._head(total), uniform[t])
            new = tf.where(known[t], level[t], new)
            features = self._features(new)
            drawn = drawn.write(t, new)
            return t + 1, features, tf.stack(block_inputs), queues, drawn

        *_, drawn = tf.while_loop(
            lambda t, *_: t < self.num_samples,
            body,
            (0, tf.zeros((count, 2)), inputs_before, queues, drawn),
            maximum_iterations=self.num_samples,
        )
        return drawn.stack()

    def _draw_plainly(self, level, known, uniform, condition):
        steps = tf.range(self.num_samples)[:, tf.newaxis]

        def body(t, drawn):
            logits = self._logits(tf.transpose(drawn), condition)[:, t]
            new = _draw_level(logits, uniform[t])
            new = tf.where(known[t], level[t], new)
            return t + 1, tf.where(steps == t, new, drawn)

        _, drawn = tf.while_loop(
            lambda t, _: t < self.num_samples,
            body,
            (0, tf.zeros_like(level)),
            maximum_iterations=self.num_samples,
        )
        return drawn

    def get_config(self):
        config = super().get_config()
        del config["image_shape"]
        return {
            **config,
            "num_samples": self.num_samples,
            "num_filters": self.num_filters,
            "dilations": self.dilations,
            "skip_filters": self.skip_filters,
            "levels": self.levels,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "frame_length": self.frame_length,
        }


def _draw_level(logits, uniform):
    """Levels `(batch,)` float32 by the inverse of the distribution function.

    Args:
        logits: `(batch, levels)`.
        uniform: Noise in [0, 1), `(batch,)`.
    """
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    threshold = uniform[:, tf.newaxis] * cumulative[:, -1:]
    below = tf.cast(cumulative <= threshold, "float32")
    # Rounding may put the threshold at the very end.
    return tf.minimum(tf.reduce_sum(below, axis=-1), logits.shape[-1] - 1.0)


def _check_dilations(dilations):
    if not isinstance(dilations, list | tuple) or not dilations:
        raise ValueError(
            "`dilations` must be the dilations of the blocks, a list of "
            f"positive integers, got {str(dilations)[:100]!r}. Pass for "
            "example `[1, 2, 4, 8]`."
        )
    return tuple(
        inputs.check_positive_integer(d, "dilations") for d in dilations
    )
