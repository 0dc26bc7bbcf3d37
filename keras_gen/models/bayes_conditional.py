"""Class-conditional images from any model and any classifier, by Bayes' rule."""

import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs, langevin, optimization
from keras_gen.generative_model import GenerativeModel

METHODS = ("latent", "data", "resampling")
_PART = 500  # images that are resampled at once


@saving.register_keras_serializable(package="keras_gen")
class BayesConditional(GenerativeModel):
    """p(x given y) of a model of images and a classifier, neither of which
    knows the other.

    `p(x given y) = p(y given x) * p(x) / p(y)`, where p(x) is the model,
    p(y given x) the classifier, and `p(y) = mean(p(y given x))` over samples
    of the model, which `adapt` draws. Other frequencies of the classes are a
    `class_prior` pi: then the joint is `pi(y) * p(x given y)`, so that
    `classify` gives `pi(y) * p(y given x) / p(y)`, normalized, and `log_prob`
    without a condition `log sum_y pi(y) * p(x given y)`.

    Images of a class are drawn in one of three ways:

    - `"latent"`, for models with a `prior` p(z) of continuous latents and a
      decoder: Metropolis-adjusted Langevin chains of
      `p(z) * p(y given decode(z))`;
    - `"data"`, for models whose `log_prob` is a density that has a gradient:
      the same of `p(x) * p(y given x)`, in the logits of the pixels;
    - `"resampling"`, for all others: samples of the model, drawn again in
      proportion to p(y given x).

    Chains start from such a resampling, each image has one of its own, and
    `diagnose` says how well they mix.

    `fit` on labelled images trains the classifier, with the model as it is,
    and logs `loss`, the mean of -log p(y given x), and `accuracy`. A
    classifier that is trained already needs no `fit`.

    Args:
        model: A model of images without condition, of keras_gen or with the
            same `image_shape` and verbs.
        classifier: `keras.Model`, images `(batch, *image_shape)` in [0, 1] to
            probabilities `(batch, num_classes)`, as from a softmax.
        class_prior: `None` for the p(y) of model and classifier, or positive
            numbers `(num_classes,)` that sum to 1.
        from_logits: Boolean, whether the classifier gives logits.
        method: `"latent"`, `"data"` or `"resampling"`. Defaults to the first
            if the model has such latents, else to the last.
        seed: Integer or `None`, seed of all draws.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        `classify(x)`.

    Attributes:
        num_classes: Integer.
        evidence: p(y), a weight `(num_classes,)`; negative until it is known.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> bayes = BayesConditional(vae, classifier)
    >>> bayes.sample(10, condition=range(10))  # (10, 28, 28, 1)
    >>> bayes.diagnose(condition=3)["r_hat"]

    Reference:
        - [Plug & Play Generative Networks](https://arxiv.org/abs/1612.00005),
          on chains in the latents of a model
        - Roberts and Rosenthal, Optimal Scaling of Discrete Approximations to
          Langevin Diffusions, 1998
    """

    def __init__(
        self,
        model,
        classifier,
        class_prior=None,
        *,
        from_logits=False,
        method=None,
        seed=None,
        **kwargs,
    ):
        _check_model(model)
        super().__init__(model.image_shape, seed=seed, **kwargs)
        shape = getattr(classifier, "output_shape", None)
        is_built = isinstance(classifier, keras.Model) and classifier.built
        if shape is None and is_built:  # of a subclassed model
            shape = inputs.traced_output_shape(
                classifier, (None, *self.image_shape), "classifier"
            )
        shape = tuple(shape or ())
        if len(shape) != 2 or (shape[1] or 0) < 2:
            raise ValueError(
                "`classifier` must be a built `keras.Model` with outputs "
                "(batch, num_classes), of two or more classes, got "
                f"{type(classifier).__name__} with outputs {shape}."
            )
        self.num_classes = shape[1]
        inputs.check_network(
            classifier, self.image_shape, shape[1:], "classifier"
        )
        self.model, self.classifier = model, classifier
        self.from_logits = inputs.check_boolean(from_logits, "from_logits")
        if not self.from_logits:
            self._check_probabilities()
        self.class_prior = self._checked_prior(class_prior)
        if method is None:
            method = "resampling"
            if _has_continuous_latents(model):
                method = "latent"
        self.method = self._checked_method(method)
        self.evidence = self.add_weight(
            name="evidence",
            shape=(self.num_classes,),
            initializer=keras.initializers.Constant(-1.0),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self.add_metrics("loss", "accuracy")
        self.built = True

    def _check_probabilities(self):
        x = tf.random.stateless_uniform((4, *self.image_shape), (0, 0))
        probabilities = np.asarray(self.classifier(x), "float64")
        totals = probabilities.sum(axis=1)
        if (probabilities < 0).any() or (np.abs(totals - 1) > 0.02).any():
            raise ValueError(
                "`classifier` must give probabilities that sum to 1, got rows "
                f"from {probabilities.min():.3g} to {probabilities.max():.3g} "
                f"with sums from {totals.min():.3g} to {totals.max():.3g}. If "
                "they are logits, pass `from_logits=True`."
            )

    def _checked_prior(self, class_prior):
        if class_prior is None:
            return None
        try:
            prior = np.asarray(class_prior, "float64")
        except (TypeError, ValueError):
            prior = np.empty(0)
        if (
            prior.shape != (self.num_classes,)
            or not (prior > 0).all()
            or abs(prior.sum() - 1) > 1e-4
        ):
            raise ValueError(
                f"`class_prior` must be {self.num_classes} positive numbers "
                f"that sum to 1, got {str(class_prior)[:100]}. Leave it out "
                "for the frequencies of model and classifier."
            )
        return (prior / prior.sum()).tolist()

    def _checked_method(self, method):
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {METHODS}, got {str(method)[:100]!r}."
            )
        if method == "latent" and not _has_continuous_latents(self.model):
            raise ValueError(
                "`method='latent'` needs a model with a `prior` of continuous "
                f"latents, which this {type(self.model).__name__} has not. "
                "Leave it out."
            )
        if method == "data" and not _has_gradient(self.model):
            raise ValueError(
                "`method='data'` needs a model whose `log_prob` has a "
                f"gradient with respect to images, and that of "
                f"{type(self.model).__name__} has none. Leave it out."
            )
        return method

    # Training, of the classifier alone

    def compile(self, optimizer=None, **kwargs):
        """Configures the training of the classifier.

        Args:
            optimizer: Keras optimizer or its name. Defaults to
                `Adam(1e-3)`.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None:
            optimizer = keras.optimizers.Adam(1e-3)
        weights = self.classifier.trainable_weights
        super().compile(self.prepare_optimizer(optimizer, weights), **kwargs)

    @property
    def metrics(self):
        # Those of the two networks have the same names.
        return [*self.logged.values(), self.skipped]

    def train_step(self, data):
        x, y = self.unpack(data)
        weights = self.classifier.trainable_weights
        with tf.GradientTape() as tape:
            log_probs = self._class_log_probs(x, training=True)
            loss = _nll(log_probs, y)
            total = tf.reduce_mean(loss)
            total += optimization.regularization(self.classifier)
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        # That of another classifier; a callback may have measured it.
        self.evidence.assign(-tf.ones_like(self.evidence))
        return self.log(loss=loss, accuracy=_is_right(log_probs, y))

    def test_step(self, data):
        x, y = self.unpack(data)
        log_probs = self._class_log_probs(x)
        return self.log(
            loss=_nll(log_probs, y), accuracy=_is_right(log_probs, y)
        )

    def call(self, x, training=False):
        return self._classify(self.to_float(x))

    def make_predict_function(self, force=False):
        if self.class_prior is not None:
            self._log_evidence()  # a graph traced before does not measure it
        return super().make_predict_function(force)

    # The parts of Bayes' rule

    def _class_log_probs(self, x, training=False):
        """log p(y given x) of the classifier, `(batch, num_classes)`."""
        outputs = tf.cast(self.classifier(x, training=training), "float32")
        if self.from_logits:
            return tf.nn.log_softmax(outputs)
        return tf.math.log(tf.maximum(outputs, 1e-30))

    def adapt(self, num_samples=10_000, *, seed=0):
        """Measures `evidence`, p(y), on samples of the model.

        `log_prob` with a condition, and all that a `class_prior` enters, need
        it, and measure it at their first use. It is to be called again when
        the model or the classifier changed otherwise than by `fit`.

        Args:
            num_samples: Integer, how many are drawn.
            seed: Integer, for the same samples each time.

        Returns:
            p(y), `(num_classes,)` float32, with a standard error of at most
            `0.5 / sqrt(num_samples)`.
        """
        inputs.check_positive_integer(num_samples, "num_samples")
        seed = inputs.check_seed(seed)
        total, part = 0.0, 500
        for start in range(0, num_samples, part):
            count = min(part, num_samples - start)
            x = self.model.sample(count, seed=seed + start)
            log_probs = self.graph(self._class_log_probs, x)
            total += np.exp(np.asarray(log_probs, "float64")).sum(axis=0)
        self.evidence.assign(total / total.sum())
        return tf.convert_to_tensor(self.evidence)

    def _log_evidence(self):
        """log p(y), measured if it is not known.

        A graph has it measured when it is traced. Where it does not know p(y)
        later, since the classifier was trained on, it gives NaN.
        """
        with tf.init_scope():
            if tf.executing_eagerly() and np.min(self.evidence) < 0:
                self.adapt()
        evidence = self.evidence.value
        log_evidence = tf.math.log(tf.maximum(evidence, 1e-30))
        return tf.where(evidence < 0, np.nan, log_evidence)

    # Verbs

    def classify(self, x):
        """p(y given x), `(batch, num_classes)` float32.

        Without a `class_prior` that of the classifier.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        if self.class_prior is not None:
            self._log_evidence()
        return self.graph(self._classify, self.images_from(x))

    def _classify(self, x):
        log_probs = self._class_log_probs(x)
        if self.class_prior is not None:
            log_probs += tf.math.log(self.class_prior) - self._log_evidence()
        return tf.nn.softmax(log_probs)

    @property
    def log_prob_kind(self):
        """`"estimate"`, or `None` if the model has no `log_prob`."""
        return "estimate" if hasattr(self.model, "log_prob") else None

    @property
    def log_prob(self):
        """`log_prob(x, *, condition=None, num_samples=100, seed=None)`.

        log p(x given y) with a condition, else log p(x): `(batch,)` nats, as
        far as the `log_prob` of the model is one. `condition` are classes
        `(batch,)`; `num_samples` and `seed` are those of the model's
        `log_prob`, if it has them. Only models with `log_prob` have it.
        """
        if not hasattr(self.model, "log_prob"):
            raise AttributeError(
                f"{type(self.model).__name__} has no `log_prob`."
            )
        return self._log_prob

    def _log_prob(self, x, *, condition=None, num_samples=100, seed=None):
        x = self.images_from(x)
        log_prob = _model_log_prob(
            self.model, x, num_samples=num_samples, seed=seed
        )
        if condition is None and self.class_prior is None:
            return log_prob
        log_ratio = self.graph(self._class_log_probs, x) - self._log_evidence()
        if condition is None:
            log_prior = tf.math.log(self.class_prior)
            return log_prob + tf.reduce_logsumexp(log_ratio + log_prior, axis=1)
        y = self._classes(condition, x.shape[0])
        return log_prob + tf.gather(log_ratio, y, batch_dims=1)

    def _classes(self, condition, count):
        return inputs.check_labels(
            condition,
            count if isinstance(count, int) else None,
            num_classes=self.num_classes,
            argument="condition",
        )

    def sample(
        self,
        num_samples,
        *,
        condition=None,
        num_steps=100,
        num_proposals=None,
        seed=None,
    ):
        """Images of classes.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)`. Without them, images of all
                classes: drawn from `class_prior`, or without that samples of
                the model.
            num_steps: Integer, steps of each chain, whose size is adapted in
                the first four fifths.
            num_proposals: Integer, samples of the model from which images are
                resampled, or chains start. Defaults to 1,000, and where there
                are no chains to 20 times `num_samples` if that is more. The
                rarer a class, the more are needed.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        inputs.check_positive_integer(num_steps, "num_steps")
        resamples = num_proposals is None and self.method == "resampling"
        if resamples:
            num_proposals = tf.maximum(1000, 20 * num_samples)
        elif num_proposals is None:
            num_proposals = 1000
        else:
            inputs.check_positive_integer(num_proposals, "num_proposals")
        seed = self.verb_seed(seed)
        if condition is None:
            if self.class_prior is None:
                return self.model.sample(num_samples, seed=_integer(seed))
            seeds = tf.random.split(seed)
            condition = tf.random.stateless_categorical(
                tf.math.log([self.class_prior]), num_samples, seeds[0]
            )[0]
            seed = seeds[1]
        y = self._classes(condition, num_samples)
        if resamples and tf.executing_eagerly() and len(y) > _PART:
            # In parts, for memory: each image has 20 proposals.
            parts = range(0, len(y), _PART)
            seeds = tf.random.split(seed, len(parts))
            images = [
                self.graph(
                    self._sample, y[i : i + _PART], num_steps, 20 * _PART, seed
                )
                for i, seed in zip(parts, seeds, strict=True)
            ]
            return tf.concat(images, axis=0)
        return self.graph(self._sample, y, num_steps, num_proposals, seed)

    def _sample(self, y, num_steps, num_proposals, seed):
        seeds = tf.random.split(seed)
        state, images_of, _ = self._resampled(y, num_proposals, seeds[0])
        if self.method != "resampling":
            state, _ = self._chain(state, y, 1, num_steps - 1, seeds[1])
            state = state[0]
        return tf.clip_by_value(images_of(state), 0.0, 1.0)

    @property
    def impute(self):
        """Draws missing pixels of images of classes, given the observed ones.

        `impute(x, mask, *, condition=None, num_samples=1, num_proposals=100,
        seed=None)`: of each image the model's `impute` fills in the missing
        pixels `num_proposals` times, and draws are taken from these in
        proportion to p(y given x). They have the exact conditional
        distribution in the limit of many, if those of the model have it.

        `condition` are classes `(batch,)`; without them it is the `impute` of
        the joint, which is that of the model if there is no `class_prior`.
        Returns `(num_samples, batch, *image_shape)` float32 in [0, 1], with
        observed pixels as they are. Only models with `impute` have it.
        """
        if not hasattr(self.model, "impute"):
            raise AttributeError(
                f"{type(self.model).__name__} has no `impute`."
            )
        return self._impute

    def _impute(
        self,
        x,
        mask,
        *,
        condition=None,
        num_samples=1,
        num_proposals=100,
        seed=None,
    ):
        inputs.check_positive_integer(num_samples, "num_samples")
        inputs.check_positive_integer(num_proposals, "num_proposals")
        x, mask = self.observed_from(x, mask)
        seeds = tf.unstack(tf.random.split(self.verb_seed(seed)))
        if condition is None and self.class_prior is None:
            return self.model.impute(
                x, mask, num_samples=num_samples, seed=_integer(seeds[0])
            )
        given = ()
        if condition is None:
            self._log_evidence()
        else:
            given = (self._classes(condition, x.shape[0]),)
        proposals = self.model.impute(
            x, mask, num_samples=num_proposals, seed=_integer(seeds[0])
        )
        return self.graph(
            self._chosen, proposals, num_samples, seeds[1], *given
        )

    def _chosen(self, proposals, num_samples, seed, y=None):
        """Of `(num_proposals, batch, ...)`, as many as p(y given x) wants."""
        shape = tf.shape(proposals)[:2]
        flat = tf.reshape(proposals, (-1, *self.image_shape))
        log_weights = self._class_log_probs(flat)
        if y is None:
            log_prior = tf.math.log(self.class_prior) - self._log_evidence()
            log_weights = tf.reduce_logsumexp(log_weights + log_prior, axis=1)
        else:
            y = tf.tile(y, shape[:1])
            log_weights = tf.gather(log_weights, y, batch_dims=1)
        log_weights = tf.transpose(tf.reshape(log_weights, shape))
        index = tf.random.stateless_categorical(log_weights, num_samples, seed)
        swap = [1, 0, 2, 3, 4]
        of_image = tf.gather(tf.transpose(proposals, swap), index, batch_dims=1)
        return tf.transpose(of_image, swap)

    def diagnose(
        self,
        condition,
        *,
        num_chains=8,
        num_results=200,
        burn_in=100,
        num_proposals=1000,
        seed=0,
    ):
        """How well images of a class are drawn.

        Chains that start at different places and come to the same have an
        `r_hat` near 1; above 1.1 they are stuck at some of the modes, though
        `num_steps` of `sample` be as large as `burn_in`.

        Args:
            condition: Integer, the class.
            num_chains: Integer, two or more chains.
            num_results: Integer, steps of a chain that are looked at.
            burn_in: Integer, steps before them.
            num_proposals: Integer, samples of the model that are resampled.
            seed: Integer, for the same numbers each time.

        Returns:
            Dictionary of floats. `proposals`: effective number among the
            samples of the model that chains start from, `sum(w)**2 /
            sum(w**2)` with `w = p(y given x)`. Unless there are no chains also
            `r_hat` and `effective_sample_size`, of the worst dimension, and
            `acceptance_rate`.

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - Gelman and Rubin, Inference from Iterative Simulation Using
              Multiple Sequences, 1992
        """
        for name, value in (
            ("num_chains", num_chains),
            ("num_results", num_results),
            ("burn_in", burn_in),
            ("num_proposals", num_proposals),
        ):
            inputs.check_positive_integer(value, name)
        inputs.check_number(num_chains, "num_chains", minimum=2)
        y = self._classes([condition] * num_chains, num_chains)
        values = self.graph(
            self._diagnose,
            y,
            num_results,
            burn_in,
            num_proposals,
            self.verb_seed(seed),
        )
        return {name: float(value) for name, value in values.items()}

    def _diagnose(self, y, num_results, burn_in, num_proposals, seed):
        seeds = tf.random.split(seed)
        state, _, log_weights = self._resampled(y, num_proposals, seeds[0])
        log_weights = log_weights[y[0]]
        found = {
            "proposals": tf.exp(
                2 * tf.reduce_logsumexp(log_weights)
                - tf.reduce_logsumexp(2 * log_weights)
            )
        }
        if self.method == "resampling":
            return found
        path, log_accept = self._chain(state, y, num_results, burn_in, seeds[1])
        r_hat = tfp.mcmc.potential_scale_reduction(path)
        size = tfp.mcmc.effective_sample_size(path, cross_chain_dims=1)
        rate = tf.reduce_mean(tf.exp(tf.minimum(log_accept, 0.0)))
        return {
            **found,
            "r_hat": tf.reduce_max(r_hat),
            "effective_sample_size": tf.reduce_min(size),
            "acceptance_rate": rate,
        }

    # Chains: their states are latents, logits of pixels, or images.

    def _resampled(self, y, num_proposals, seed):
        """Samples of the model, in proportion to p(y given x).

        Returns:
            `(state, images_of, log_weights)`: one state for each class of
            `y`, the function from states to images, and log p(y given x) of
            all proposals, `(num_classes, num_proposals)`.
        """
        seeds = tf.random.split(seed)
        if self.method == "latent":
            state = self.model.prior.sample(num_proposals, seed=seeds[0])
            images_of = getattr(self.model, "decode", self.model)
        else:
            state = self.model.sample(num_proposals, seed=_integer(seeds[0]))
            images_of = tf.identity
            if self.method == "data":
                state = langevin.to_state(state, margin=1e-4)
                images_of = self._images_of_logits
        log_weights = tf.transpose(self._class_log_probs(images_of(state)))
        index = _resample(log_weights, y, seeds[1])
        return tf.gather(state, index), images_of, log_weights

    def _images_of_logits(self, state):
        return tf.sigmoid(tf.reshape(state, (-1, *self.image_shape)))

    def _log_density(self, state, y, seed):
        """Unnormalized log-density of states given their classes.

        `seed` is that of the noise of the model's `log_prob`, int32 `(2,)`.
        """
        if self.method == "latent":
            images = getattr(self.model, "decode", self.model)(state)
            total = self.model.prior.log_prob(state)
        else:
            images = self._images_of_logits(state)
            total = langevin.log_slope(state)
            total += _model_log_prob(self.model, images, seed=_integer(seed))
        log_probs = self._class_log_probs(images)
        return total + tf.gather(log_probs, y, batch_dims=1)

    def _chain(self, state, y, num_results, burn_in, seed):
        """Paths of Langevin chains, and their log acceptance ratios."""
        # The same at all steps, for ratios to compare under the same noise.
        noise = tf.random.experimental.stateless_fold_in(seed, 1)
        return langevin.chains(
            lambda state: self._log_density(state, y, noise),
            state,
            num_results,
            burn_in,
            seed,
        )

    # Saving

    def endpoints(self):
        self._log_evidence()  # which a graph cannot measure
        return super().endpoints()

    def get_config(self):
        config = super().get_config()
        config.pop("image_shape")
        return {
            **config,
            "model": saving.serialize_keras_object(self.model),
            "classifier": saving.serialize_keras_object(self.classifier),
            "class_prior": self.class_prior,
            "from_logits": self.from_logits,
            "method": self.method,
        }


def _check_model(model):
    if not hasattr(model, "image_shape") or not hasattr(model, "sample"):
        raise ValueError(
            "`model` must be a generative model with an `image_shape` and "
            f"`sample`, got an object of type {type(model).__name__}."
        )
    for name in ("num_classes", "condition_dim"):
        if getattr(model, name, None) and getattr(model, "draws_classes", True):
            raise ValueError(
                "`model` must be one without a condition, got "
                f"{type(model).__name__} with `{name}={getattr(model, name)}`"
                ". A conditional model needs no `BayesConditional`: call its "
                "`sample(condition=...)`."
            )


def _has_continuous_latents(model):
    """Whether chains can walk in its latents: one-hot vectors are no places."""
    return hasattr(model, "prior") and not getattr(
        model.prior, "is_discrete", False
    )


def _model_log_prob(model, x, **arguments):
    """`log_prob` of a model, with those of the arguments that it takes."""
    taken = inspect.signature(model.log_prob).parameters
    taken = {k: v for k, v in arguments.items() if k in taken}
    return model.log_prob(x, **taken)


def _has_gradient(model):
    """Whether `log_prob` has a gradient with respect to images."""
    if not hasattr(model, "log_prob"):
        return False
    x = tf.random.stateless_uniform((1, *model.image_shape), (0, 0))

    @tf.function(autograph=False)
    def gradient_of(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = model.log_prob(x)
        gradient = tape.gradient(log_prob, x)
        return tf.zeros_like(x) if gradient is None else gradient

    return bool(np.any(gradient_of(x)))


def _resample(log_weights, y, seed):
    """Indices drawn for each class of `y` in proportion to its weights.

    Args:
        log_weights: `(num_classes, num_proposals)`.
        y: Classes `(n,)`, int32.
        seed: int32 `(2,)`.

    Returns:
        int32 `(n,)`.
    """
    num_classes = log_weights.shape[0]
    num_proposals = tf.shape(log_weights)[1]
    weights = tf.nn.softmax(tf.cast(log_weights, "float64"), axis=1)
    # The distribution functions of all classes, one above the other.
    offsets = tf.range(num_classes, dtype="float64")[:, tf.newaxis]
    steps = tf.reshape(tf.cumsum(weights, axis=1) + offsets, [-1])
    uniform = tf.random.stateless_uniform(
        tf.shape(y), seed, dtype="float64", alg="philox"
    )
    place = tf.searchsorted(steps, tf.cast(y, "float64") + uniform, "right")
    return tf.clip_by_value(place - y * num_proposals, 0, num_proposals - 1)


def _integer(seed):
    """An integer tensor for the `seed` of another model's verb."""
    return tf.cast(seed[0], "int64")


def _nll(log_probs, y):
    return -tf.gather(log_probs, tf.cast(y, "int32"), batch_dims=1)


def _is_right(log_probs, y):
    found = tf.argmax(log_probs, axis=1, output_type="int32")
    return tf.cast(found == tf.cast(y, "int32"), "float32")
