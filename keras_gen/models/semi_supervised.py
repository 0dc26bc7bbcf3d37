"""Semi-supervised variational autoencoder."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import (
    conditioning,
    inputs,
    metropolis_within_gibbs,
    networks,
    optimization,
    pixel_likelihoods,
)
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.priors import diagonal_normal
from keras_gen.models.vae import VAE

tfd = tfp.distributions

_NETWORKS = ("features", "encoder", "classifier", "decoder")


@saving.register_keras_serializable(package="keras_gen")
class SemiSupervisedVAE(GenerativeModel):
    """Variational autoencoder that learns from few labels (M2, M1+M2).

    The class y of an image is a latent variable beside z, seen for some of
    the images: p(x, y, z) = p(y) p(z) p(x given y, z), with y uniform, z
    standard normal, and q(y given x) a classifier. With

        bound(x, y) = E_q(z given x, y)[log p(x given y, z)] + log p(y)
                      - KL(q(z given x, y), p(z))

    an image with a label has the bound `bound(x, y)` of log p(x, y), and one
    without (`y = -1`), summed over all classes in one pass of the networks,
    `sum_y q(y given x) * (bound(x, y) - log q(y given x))` of log p(x).
    Training minimizes

        -(mean bound of all images)
        + alpha * (mean of -log q(y given x) of the images with labels)

    where the second mean is over the data set, not the batch: it is estimated
    by the batch's sum and the share of labels met so far, so that batches may
    hold any number of labels, also none. Logs this `loss`, `reconstruction`
    and `kl` (nats per image), and `accuracy`, of the images with labels.

    With `features` this is M1+M2: x is a draw from the posterior q(features
    given x) of a VAE trained before (M1), and p(x given y, z) a Gaussian over
    features. All verbs remain those of images.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z.
        num_classes: Integer, how many classes y may take.
        likelihood: p(x given y, z), one of the names or objects of
            `pixel_likelihoods`; as in `VAE`. `features` bring their own.
        alpha: Number, weight of the classification loss. The paper's is
            0.1 times the number of labelled images.
        features: Optional `VAE` without conditions, M1. It stays as it is.
        encoder: Optional network, `(batch, *image_shape)` in [0, 1] to
            `(batch, num_classes * 2 * latent_dim)`: location and unconstrained
            scale of q(z given x, y) for each class, the first class first, so
            that one pass serves all classes.
        classifier: Optional network, `(batch, *image_shape)` in [0, 1] to
            logits of q(y given x), `(batch, num_classes)`.
        decoder: Optional network of two inputs, `[z, y]` of the shapes
            `(batch, latent_dim)` and `(batch, num_classes)`, one-hot, to
            `(batch, height, width, maps)`, as in `VAE`. All three default to
            dense networks. With `features` they take `(batch,
            features.z_dim)` for images, and the decoder gives `(batch,
            2 * features.z_dim)`, location and unconstrained scale.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Mean of p(x given y, z) at the most probable y and the mean of
        q(z given x, y), float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> model = SemiSupervisedVAE((28, 28, 1), latent_dim=50, num_classes=10)
    >>> model.compile()
    >>> model.fit(x, np.where(labelled, y, -1), epochs=20)
    >>> model.classify(x_test)  # (batch, 10)

    Reference:
        - [Semi-Supervised Learning with Deep Generative Models](
          https://arxiv.org/abs/1406.5298). Its encoder takes the class beside
          the image; here it gives one posterior for each class.
    """

    allows_unlabelled = True
    log_prob_kind = "lower_bound"

    def __init__(
        self,
        image_shape,
        latent_dim,
        num_classes,
        *,
        likelihood="bernoulli",
        alpha=10.0,
        features=None,
        encoder=None,
        classifier=None,
        decoder=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_classes = inputs.check_positive_integer(
            num_classes, "num_classes"
        )
        self.alpha = inputs.check_number(alpha, "alpha", minimum=0)
        self.features = features
        # What the networks see and give: x, or with `features` vectors.
        if features is None:
            self.pixels = pixel_likelihoods.get(likelihood)
            self.observation = self.pixels
            height, width, channels = self.observed_shape = self.image_shape
            maps = (height, width, self.observation.maps(channels))
            decoder = decoder or networks.mlp_decoder(
                self.latent_dim,
                self.image_shape,
                hidden_dims=(500,),
                output_channels=maps[-1],
                condition_dim=self.num_classes,
            )
        else:
            _check_features(features, self.image_shape)
            self.pixels = features.pixels
            self.observation = GaussianFeatures()
            self.observed_shape = (features.z_dim,)
            maps = (2 * features.z_dim,)
            decoder = decoder or networks.mlp_encoder(
                (self.latent_dim,),
                *maps,
                hidden_dims=(500,),
                condition_dim=self.num_classes,
                name="decoder",
            )
        self._likelihood = likelihood
        num_parameters = self.num_classes * 2 * self.latent_dim
        self.encoder = encoder or networks.mlp_encoder(
            self.observed_shape, num_parameters, hidden_dims=(500,)
        )
        self.classifier = classifier or networks.mlp_encoder(
            self.observed_shape,
            self.num_classes,
            hidden_dims=(500,),
            name="classifier",
        )
        self.decoder = decoder
        for name, width in (
            ("encoder", num_parameters),
            ("classifier", self.num_classes),
        ):
            inputs.check_network(
                getattr(self, name), self.observed_shape, (width,), name
            )
        conditioning.check_network(
            decoder, (self.latent_dim,), maps, "decoder", self.num_classes
        )
        self._decoded_size = math.prod(maps)
        # Share of the training images that had labels, of late.
        self.labelled_share = self.add_weight(
            name="labelled_share",
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.logged["loss"] = _MeanLoss(self.alpha)
        self.add_metrics("reconstruction", "kl", "accuracy")
        self.built = True

    # The parts as distributions, built where they are used: a distribution
    # that is kept would be frozen at its first parameters.

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_dim), 1.0), 1)

    def posterior(self, x, condition=None):
        """q(z given x, y): a `tfd.Distribution` over `(batch, latent_dim)`.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes `(batch,)`. Without them, the most probable
                class of each image.

        Raises:
            ValueError: If an argument is not as above.
        """
        v = self._observed(self.images_from(x))
        y = self._most_probable(v)
        if condition is not None:
            y = self._one_hot(condition, v.shape[0])
        return self._posterior(v, y[:, tf.newaxis])[:, 0]

    def likelihood(self, z, condition=None):
        """p(x given y, z): a `tfd.Distribution` over images in [0, 1].

        With `features`, p(features given y, z), over `(features.z_dim,)`.

        Args:
            z: Latents `(batch, latent_dim)`.
            condition: Classes `(batch,)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        z = inputs.check_latents(z, self.latent_dim)
        y = self._one_hot(condition, z.shape[0])
        return self.observation.distribution(self._decoded(z, y))

    # Below, x are float32 images in [0, 1], v what the networks see of them,
    # `(..., *observed_shape)`, and y one-hot vectors `(batch, n, classes)`:
    # all n = num_classes classes, or n = 1 that is given.

    def _one_hot(self, condition, count):
        return conditioning.vectors(condition, count, self.num_classes)

    def _all_classes(self, count):
        return tf.tile(tf.eye(self.num_classes)[tf.newaxis], [count, 1, 1])

    def _observed(self, x):
        """What the networks see: x, or the mean of q(features given x)."""
        if self.features is None:
            return x
        return self.features.encode(x)

    def _class_log_probs(self, v, training=False):
        """Logarithm of q(y given v), `(..., num_classes)`."""
        return tf.nn.log_softmax(
            _applied(self.classifier, v, self.observed_shape, training)
        )

    def _posterior(self, v, y, training=False):
        """q(z given v, y), over `(..., batch, n, latent_dim)`."""
        h = _applied(self.encoder, v, self.observed_shape, training)
        shape = [self.num_classes, 2 * self.latent_dim]
        h = tf.reshape(h, tf.concat([tf.shape(h)[:-1], shape], axis=0))
        return diagonal_normal(*tf.split(tf.matmul(y, h), 2, axis=-1))

    def _decoded(self, z, y, training=False):
        """What the decoder says of v, for latents with leading axes."""
        leading = tf.shape(z)[:-1]
        y = tf.broadcast_to(y, tf.concat([leading, [self.num_classes]], axis=0))
        flat = [
            tf.reshape(z, (-1, self.latent_dim)),
            tf.reshape(y, (-1, self.num_classes)),
        ]
        h = tf.cast(self.decoder(flat, training=training), "float32")
        return tf.reshape(h, tf.concat([leading, h.shape[1:]], axis=0))

    def _log_likelihood(self, v, z, y, noise, training=False):
        """log p(v given y, z), `(..., n)`."""
        h = self._decoded(z, y, training)
        class_axis = -1 - len(self.observed_shape)
        return self.observation.log_prob(
            h, tf.expand_dims(v, class_axis), noise
        )

    # Training

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
        optimizer = self.prepare_optimizer(optimizer, self._trained_weights())
        super().compile(optimizer, **kwargs)

    def _trained_weights(self):
        """Weights of the three networks, without those of `features`."""
        trained = (self.encoder, self.classifier, self.decoder)
        return [w for network in trained for w in network.trainable_weights]

    def bounds(self, v, training=False):
        """The two terms of `bound(v, y)` for every class y, by one latent.

        Args:
            v: float32 images in [0, 1], or with `features` draws of these,
                `(batch, features.z_dim)`.

        Returns:
            `(reconstruction, kl)`, each `(batch, num_classes)` nats.
        """
        y = self._all_classes(tf.shape(v)[0])
        posterior = self._posterior(v, y, training)
        # The same noise for all classes: what differs is their doing.
        shape = tf.stack([tf.shape(v)[0], 1, self.latent_dim])
        noise = self.normal(shape, training)
        z = posterior.mean() + posterior.stddev() * noise
        pixel_noise = 0.0
        if self.observation.needs_noise:
            pixel_noise = self.uniform(tf.shape(v), training)[:, tf.newaxis]
        return (
            self._log_likelihood(v, z, y, pixel_noise, training),
            tfd.kl_divergence(posterior, self.prior),
        )

    def _terms(self, x, y, training=False):
        """The bound of each image and what else is logged."""
        v, y = x, tf.cast(y, "int32")
        if self.features is not None:
            seed = self.next_seed(training)
            v = self.features.posterior(x).sample(seed=seed)
        log_q = self._class_log_probs(v, training)
        reconstruction, kl = self.bounds(v, training)
        bound = reconstruction - kl - math.log(self.num_classes)
        labelled = tf.cast(y >= 0, "float32")
        label = tf.one_hot(y, self.num_classes)  # zeros, if there is none
        unlabelled = 1.0 - labelled[:, tf.newaxis]
        weight = label + unlabelled * tf.exp(log_q)

        def mean(values):
            return tf.reduce_sum(weight * values, axis=1)

        terms = {
            "bound": mean(bound - unlabelled * log_q),
            "reconstruction": mean(reconstruction),
            "kl": mean(kl),
            "classification": -tf.reduce_sum(label * log_q, axis=1),
        }
        correct = tf.equal(tf.argmax(log_q, axis=1, output_type="int32"), y)
        self.logged["accuracy"].update_state(correct, sample_weight=labelled)
        self.logged["loss"].update_state(
            terms["bound"], terms["classification"], labelled
        )
        return terms

    def train_step(self, data):
        x, y = self.unpack(data)
        weights = self._trained_weights()
        with tf.GradientTape() as tape:
            terms = self._terms(x, y, training=True)
            share = self._update_labelled_share(y)
            classification = tf.math.divide_no_nan(
                terms.pop("classification"), share
            )
            loss = self.alpha * classification - terms.pop("bound")
            regularization = optimization.regularization(self)
            total = tf.reduce_mean(loss) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(**terms)

    def _update_labelled_share(self, y):
        """The share of images with labels in the last thousand steps or so."""
        labelled = tf.cast(y >= 0, "float32")
        steps = tf.cast(self.optimizer.iterations + 1, "float32")
        rate = tf.maximum(1.0 / steps, 1e-3)
        before = self.labelled_share.value
        change = tf.reduce_mean(labelled) - before
        self.labelled_share.assign(before + rate * change)
        return self.labelled_share.value

    def test_step(self, data):
        x, y = self.unpack(data)
        terms = self._terms(x, y)
        return self.log(reconstruction=terms["reconstruction"], kl=terms["kl"])

    def call(self, x, training=False):
        return self._reconstruct(self.images_from(x), training=training)

    # Verbs. A graph takes no `None`: the classes are its last argument, or
    # are left out.

    def classify(self, x):
        """q(y given x), `(batch, num_classes)` float32 probabilities."""
        return self.graph(self._classify, self.images_from(x))

    def _classify(self, x):
        return tf.exp(self._class_log_probs(self._observed(x)))

    def sample(self, num_samples, *, condition=None, seed=None):
        """Images of latents drawn from the prior.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)`. Without them, classes are
                drawn uniformly.
            seed: Integer for the same images each time, or `None`.

        Returns:
            Means of p(x given y, z) (of p(x given features), for features
            drawn from p(features given y, z)), `(num_samples, *image_shape)`
            float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        return self.graph(
            self._sample,
            num_samples,
            self.verb_seed(seed),
            *self._given(condition, num_samples),
        )

    def _sample(self, num_samples, seed, y=None):
        seeds = tf.random.split(seed, 3)
        if y is None:
            y = conditioning.random_classes(
                num_samples, self.num_classes, seeds[1]
            )
        z = self.prior.sample(num_samples, seed=seeds[0])
        if self.features is None:
            return self._decode(z, y)
        observed = self.observation.distribution(self._decoded(z, y))
        return self.features.decode(observed.sample(seed=seeds[2]))

    def encode(self, x, *, condition=None):
        """Means of q(z given x, y), `(batch, latent_dim)` float32.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes `(batch,)`. Without them, the most probable
                class of each image.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        return self.graph(self._encode, x, *self._given(condition, x.shape[0]))

    def _encode(self, x, y=None):
        v = self._observed(x)
        y = self._most_probable(v) if y is None else y
        return self._posterior(v, y[:, tf.newaxis]).mean()[:, 0]

    def _most_probable(self, v, training=False):
        classes = tf.argmax(self._class_log_probs(v, training), axis=1)
        return tf.one_hot(classes, self.num_classes)

    def decode(self, z, *, condition=None):
        """Means of p(x given y, z), float32 images in [0, 1].

        Args:
            z: Latents `(batch, latent_dim)`.
            condition: Classes `(batch,)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        z = inputs.check_latents(z, self.latent_dim)
        return self.graph(self._decode, z, self._one_hot(condition, z.shape[0]))

    def _decode(self, z, y, training=False):
        h = self._decoded(z, y, training)
        mean = self.observation.distribution(h).mean()
        if self.features is not None:
            return self.features.decode(mean)
        return tf.clip_by_value(mean, 0.0, 1.0)

    def reconstruct(self, x, *, condition=None):
        """`decode(encode(x))`, float32 images in [0, 1].

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes `(batch,)`. Without them, the most probable
                class of each image.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        return self.graph(self._reconstruct, x, *given)

    def _reconstruct(self, x, y=None, training=False):
        v = self._observed(x)
        y = self._most_probable(v, training) if y is None else y
        z = self._posterior(v, y[:, tf.newaxis], training).mean()[:, 0]
        return self._decode(z, y, training)

    def elbo(self, x, *, condition=None, num_samples=1, seed=None):
        """Evidence lower bound of log p(x), or of log p(x given y).

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes `(batch,)`, for the bound of log p(x given y):
                `bound(x, y) - log p(y)`. Without them, that of log p(x).
            num_samples: Integer, draws of the latents that are averaged.
            seed: Integer for the same value each time, or `None`.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self._estimate(self._elbo, x, condition, num_samples, seed)

    def _elbo(self, x, num_samples, seed, y=None):
        def value(log_weights, log_q):
            if y is not None:
                return log_weights[..., 0]
            log_weights -= math.log(self.num_classes)
            return tf.reduce_sum(tf.exp(log_q) * (log_weights - log_q), axis=-1)

        total = self._over_samples(
            x, y, num_samples, seed, value, tf.reduce_sum
        )
        return total / tf.cast(num_samples, "float32")

    def log_prob(self, x, *, condition=None, num_samples=100, seed=None):
        """Importance-weighted lower bound of log p(x), or log p(x given y).

        `log mean_k w_k` with `w = p(x given y, z) p(z) / q(z given x, y)`;
        without classes, w is the mean over all of them, which needs no
        q(y given x). In expectation it rises to the log-likelihood with the
        number of samples.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes `(batch,)`, for log p(x given y).
            num_samples: Integer, how many latents are drawn per image.
            seed: Integer for the same value each time, or `None`.

        Returns:
            `(batch,)` nats of the 8-bit (or binary) image.

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - [Importance Weighted Autoencoders](
              https://arxiv.org/abs/1509.00519)
        """
        return self._estimate(self._log_prob, x, condition, num_samples, seed)

    def _log_prob(self, x, num_samples, seed, y=None):
        def value(log_weights, log_q):
            count = 1 if y is not None else self.num_classes
            return tf.reduce_logsumexp(log_weights, axis=-1) - math.log(count)

        total = self._over_samples(
            x, y, num_samples, seed, value, tf.reduce_logsumexp
        )
        return total - tf.math.log(tf.cast(num_samples, "float32"))

    def _given(self, condition, count):
        return [] if condition is None else [self._one_hot(condition, count)]

    def _estimate(self, estimator, x, condition, num_samples, seed):
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        return self.graph(
            estimator, x, num_samples, self.verb_seed(seed), *given
        )

    def _over_samples(self, x, y, num_samples, seed, value, reduce):
        """`reduce` over draws of `value(log_weights, log_q)`, `(batch,)`.

        `log_weights` are log p(x given y, z) p(z) / q(z given x, y), of each
        class `(count, batch, classes)`, or of the given one `(count, batch,
        1)`; `log_q` is log q(y given x).
        """
        batch = tf.shape(x)[0]
        if y is None:
            y = self._all_classes(batch)
        else:
            y = y[:, tf.newaxis]
        # In parts, for the decoder's output to stay within some 100 MB.
        size = self._decoded_size * y.shape[1]
        part = tf.maximum(2**25 // (size * tf.maximum(batch, 1)), 1)
        start = tf.fill([batch], -math.inf)
        if reduce is tf.reduce_sum:
            start = tf.zeros_like(start)

        def add_part(done, total):
            count = tf.minimum(part, num_samples - done)
            seeds = tf.random.split(
                tf.random.experimental.stateless_fold_in(seed, done), 3
            )
            noise = 0.0
            if self.pixels.needs_noise:
                shape = tf.concat([[count], tf.shape(x)], axis=0)
                noise = tf.random.stateless_uniform(shape, seeds[0])
            v, log_density = x[tf.newaxis], 0.0
            if self.features is not None:
                q = self.features.posterior(x)
                v = q.sample(count, seed=seeds[1])
                h = self._features_decoded(v)
                log_density = self.pixels.log_prob(h, x, noise) - q.log_prob(v)
            elif self.pixels.needs_noise:
                noise = noise[:, :, tf.newaxis]
            posterior = self._posterior(v, y)
            shape = [count, batch, 1, self.latent_dim]
            z = tf.random.stateless_normal(shape, seeds[2])
            z = posterior.mean() + posterior.stddev() * z
            log_weights = (
                self._log_likelihood(v, z, y, noise)
                + self.prior.log_prob(z)
                - posterior.log_prob(z)
            )
            values = log_density + value(log_weights, self._class_log_probs(v))
            both = tf.concat([total[tf.newaxis], values], axis=0)
            return done + count, reduce(both, axis=0)

        _, total = tf.while_loop(
            lambda done, total: done < num_samples, add_part, (0, start)
        )
        return total

    def impute(
        self,
        x,
        mask,
        *,
        num_samples=1,
        num_steps=100,
        condition=None,
        seed=None,
    ):
        """Images whose missing pixels are drawn given the observed ones.

        Markov chains, one for each image and sample, whose latents come from
        p(y, z given observed pixels): each step proposes latents from
        q(y given x) q(z given x, y), with the missing pixels filled in,
        accepts them by the Metropolis-Hastings ratio, and draws the missing
        pixels from p(x given y, z). The first quarter of the steps accepts
        all.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
                Missing pixels may have any value.
            mask: Booleans `(batch, *image_shape)` or broadcast to it, True
                where a pixel is observed.
            num_samples: Integer, how many independent chains an image has.
            num_steps: Integer, steps of each chain.
            condition: Optional classes `(batch,)` of the images.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]: the
            observed pixels as they are, and as in `sample` the means of the
            missing ones given the latents.

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - [Leveraging the Exact Likelihood of Deep Latent Variable Models](
              https://arxiv.org/abs/1802.04826)
        """
        inputs.check_positive_integer(num_samples, "num_samples")
        inputs.check_positive_integer(num_steps, "num_steps")
        x, mask = self.observed_from(x, mask)
        return self.graph(
            self._impute,
            x,
            mask,
            num_samples,
            num_steps,
            self.verb_seed(seed),
            *self._given(condition, x.shape[0]),
        )

    def _impute(self, x, mask, num_samples, num_steps, seed, y=None):
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        x, mask = (
            tf.reshape(tf.broadcast_to(values, shape), (-1, *self.image_shape))
            for values in (x, mask)
        )
        if y is not None:
            y = tf.tile(y, [num_samples, 1])

        def given(filled):
            q = self.features and self.features.posterior(filled)

            def propose(seed):
                seeds = tf.unstack(tf.random.split(seed, 3))
                v, label = filled, y
                if q is not None:
                    v = q.sample(seed=seeds[0])
                if y is None:
                    label = tfd.OneHotCategorical(
                        self._class_log_probs(v), dtype=tf.float32
                    ).sample(seed=seeds[1])
                posterior = self._posterior(v, label[:, tf.newaxis])
                z = posterior.sample(seed=seeds[2])[:, 0]
                return v, label, z, self._pixel_parameters(v, label, z)

            def log_weight(latents):
                v, label, z, h = latents
                log_weight = self.pixels.log_prob(h, filled, 0.5)
                if q is None:
                    v = filled
                else:
                    log_weight += self.observation.log_prob(
                        self._decoded(z, label), v, 0.0
                    ) - q.log_prob(v)
                if y is None:
                    log_q = self._class_log_probs(v)
                    log_weight -= tf.reduce_sum(label * log_q, axis=1)
                posterior = self._posterior(v, label[:, tf.newaxis])
                log_q = posterior.log_prob(z[:, tf.newaxis])[:, 0]
                return log_weight + self.prior.log_prob(z) - log_q

            return propose, log_weight

        def draw(latents, seed):
            return self.pixels.distribution(latents[-1]).sample(seed=seed)

        # The chains begin at latents of samples of the model.
        seeds = tf.unstack(tf.random.split(seed, 3))
        start = self._sample(tf.shape(x)[0], seeds[0], y)
        propose, _ = given(tf.where(mask, x, start))
        latents = metropolis_within_gibbs.latents_of_observed(
            x, mask, propose(seeds[1]), given, draw, num_steps, seeds[2]
        )
        mean = self.pixels.distribution(latents[-1]).mean()
        mean = tf.clip_by_value(mean, 0.0, 1.0)
        return tf.reshape(tf.where(mask, x, mean), shape)

    def _pixel_parameters(self, v, y, z):
        """What says p(x given latents), `(batch, *maps)`."""
        if self.features is None:
            return self._decoded(z, y)
        return self._features_decoded(v)

    def _features_decoded(self, v):
        return _applied(self.features.decoder, v, self.observed_shape)

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_classes": self.num_classes,
            "likelihood": saving.serialize_keras_object(
                pixel_likelihoods.name_of(self._likelihood) or self._likelihood
            ),
            "alpha": self.alpha,
            **{
                name: saving.serialize_keras_object(getattr(self, name))
                for name in _NETWORKS
            },
        }


class GaussianFeatures:
    """Gaussian p(features given y, z), a location and a scale each.

    It is to feature vectors what the classes of `pixel_likelihoods` are to
    images.
    """

    needs_noise = False

    def distribution(self, h):
        """p(features given h), for h `(..., 2 * dim)`."""
        loc, scale = tf.split(tf.cast(h, "float32"), 2, axis=-1)
        return diagonal_normal(loc, scale)

    def log_prob(self, h, v, noise=0.0):
        """Log-density of features `(..., dim)`, `(...)` nats."""
        return self.distribution(h).log_prob(v)


class _MeanLoss(keras.metrics.Metric):
    """The loss of a data set, of which any part may have labels."""

    def __init__(self, alpha, name="loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.alpha = alpha
        self.bound = keras.metrics.Mean("bound")
        self.classification = keras.metrics.Mean("classification")

    def update_state(self, bound, classification, labelled):
        """Adds a batch: values `(batch,)`, and 1 where there is a label."""
        self.bound.update_state(bound)
        self.classification.update_state(classification, labelled)

    def result(self):
        return self.alpha * self.classification.result() - self.bound.result()


def _applied(network, v, event_shape, training=False):
    """The network of `(..., *event_shape)`, as float32 `(..., *output)`."""
    leading = tf.shape(v)[: -len(event_shape)]
    flat = tf.reshape(v, (-1, *event_shape))
    h = tf.cast(network(flat, training=training), "float32")
    return tf.reshape(h, tf.concat([leading, h.shape[1:]], axis=0))


def _check_features(features, image_shape):
    """Checks that M2 can be put on this VAE."""
    expected = (
        "`features` must be a `VAE` of images "
        f"{image_shape} with one layer of Gaussian latents and no condition"
    )
    if not isinstance(features, VAE):
        raise ValueError(
            f"{expected}, got {type(features).__name__}. Train one first, and "
            "pass the model itself, not its encoder: its decoder is what makes "
            "images of features."
        )
    conditional = features.num_classes or features.condition_dim
    if (
        conditional
        or tuple(features.image_shape) != tuple(image_shape)
        or features.latent != "gaussian"
        or features.decoder_dim != features.z_dim
    ):
        kind = "conditional" if conditional else features.latent
        raise ValueError(
            f"{expected}, got one of images {features.image_shape} with "
            f"`latent_dim={features.latent_dim}`, {kind}."
        )
