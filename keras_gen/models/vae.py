"""Variational autoencoder, composed of a likelihood, a prior and a posterior."""

import math

import keras
import numpy as np
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
    randomness,
)
from keras_gen.generative_model import GenerativeModel
from keras_gen.models import vae_parts


@saving.register_keras_serializable(package="keras_gen")
class VAE(GenerativeModel):
    """Variational autoencoder.

    With k latents `z_i` drawn from q(z given x) for each image, it minimizes
    one of two bounds of -log p(x), in nats per image (sums over pixels and
    latents, means over images):

        "elbo": beta * KL(q(z given x), p(z)) - mean_i log p(x given z_i)
        "iwae": -log mean_i p(x given z_i) * (p(z_i) / q(z_i given x))**beta

    The KL divergence has its closed form where there is one, and is else
    estimated by the same draws. Logs this `loss`, `reconstruction` (the mean
    of log p(x given z)), `kl`, and `active_units`: how many latents have
    `Var_x E[z given x] > 0.01`.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z (of categorical latents: how many
            there are). Two integers make two stochastic layers: z is `z1` and
            `z2` side by side, p(z) is p(z2) p(z1 given z2), and the decoder
            sees z1.
        likelihood: p(x given z). `"bernoulli"` models binary images, and takes
            grey values in [0, 1] as probabilities of white; `"gaussian"`,
            with a location and a standard deviation per pixel, models images
            dequantized by uniform noise; `"discretized_logistic"` and
            `"categorical"` model the 256 levels. Or an object like those of
            `pixel_likelihoods`.
        prior: p(z). `"normal"` (for categorical latents uniform), `"mixture"`
            of 10 Gaussians that are learned, `"vamp"` of the posteriors of 500
            pseudo-images that are learned, a layer of `layers.priors`, or a
            `tfd.Distribution` over `(latent_dim,)`, which stays as it is.
        posterior: q(z given x). `"diagonal"` Gaussian (or independent
            categorical latents), Gaussian of `"full"` covariance, `"mixture"`
            of 5 Gaussians, `"flow"` (inverse autoregressive), or a layer of
            `layers.posteriors`.
        latent: `"gaussian"` or `"categorical"`, relaxed by Gumbel-softmax
            while it trains.
        num_categories: Integer, categories of each categorical latent.
        temperature_decay: Number, rate at which the relaxation hardens: its
            temperature is `max(0.5, exp(-temperature_decay * step))`. 0 leaves
            `model.posterior_layer.temperature` to callbacks.
        objective: `"elbo"` or `"iwae"`, the importance-weighted bound.
        num_importance_samples: Integer, k above, in one pass of the decoder;
            a mixture draws as many from each of its components.
        doubly_reparameterized: Boolean, whether the encoder's gradient of
            `"iwae"` is the one whose signal does not fade as k grows. For
            `"diagonal"` and `"full"` posteriors.
        beta: Number, weight of the KL divergence in the loss. `elbo` and
            `log_prob` do not use it. `model.beta` is a variable that callbacks
            may `assign`.
        beta_warmup_steps: Integer, optimizer steps in which the weight rises
            from 0 to `beta` in training.
        free_bits: Number, nats of each latent's KL divergence, a mean over the
            batch, below which training does not push it. Needs a closed form.
        num_classes: Integer, if the model is conditional on classes: p(x given
            z, y), with q(z given x, y) and the same p(z) for all y.
        condition_dim: Integer, if it is conditional on vectors of this width.
        encoder: Optional network, `(batch, *image_shape)` in [0, 1] to
            `(batch, num_parameters)`; `layers.posteriors` say how many there
            are, for a diagonal Gaussian `2 * latent_dim`: location and
            unconstrained scale. Defaults to `networks.mlp_encoder`.
        decoder: Optional network, `(batch, latent_dim)` (categorical:
            `latent_dim * num_categories`) to `(batch, height, width, maps)`:
            for `"bernoulli"` the logits of white, for the other likelihoods
            see `pixel_likelihoods`. Defaults to `networks.mlp_decoder`.
            Networks of conditional models take `[x, condition]` and
            `[z, condition]`, classes as one-hot vectors.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
        condition: Classes or vectors of a conditional model, one an image.

    Returns:
        Mean of p(x given z) at the posterior's mean, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, some do not go together,
            or the networks do not have these shapes.

    Example:

    >>> VAE((28, 28, 1), latent_dim=32).sample(16)  # (16, 28, 28, 1)

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
        - [Importance Weighted Autoencoders](https://arxiv.org/abs/1509.00519)
        - [Doubly Reparameterized Gradient Estimators](
          https://arxiv.org/abs/1810.04152)
        - [beta-VAE](https://openreview.net/forum?id=Sy2fzU9gl)
        - [Improved Variational Inference with Inverse Autoregressive Flow](
          https://arxiv.org/abs/1606.04934), on free bits.
        - [VAE with a VampPrior](https://arxiv.org/abs/1705.07120)
        - [Categorical Reparameterization with Gumbel-Softmax](
          https://arxiv.org/abs/1611.01144)
    """

    log_prob_kind = "lower_bound"

    def __init__(
        self,
        image_shape,
        latent_dim,
        *,
        likelihood="bernoulli",
        prior="normal",
        posterior="diagonal",
        latent="gaussian",
        num_categories=10,
        temperature_decay=3e-5,
        objective="elbo",
        num_importance_samples=1,
        doubly_reparameterized=False,
        beta=1.0,
        beta_warmup_steps=0,
        free_bits=0.0,
        num_classes=None,
        condition_dim=None,
        encoder=None,
        decoder=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        vae_parts.check_choice(latent, "latent", ("gaussian", "categorical"))
        self.num_classes, self.condition_dim = num_classes, condition_dim
        width = conditioning.check_width(num_classes, condition_dim)

        self.latent_dim, self.latent = latent_dim, latent
        self.num_categories = num_categories
        self.pixels = pixel_likelihoods.get(likelihood)
        latents = latent_dim, latent, num_categories
        self.posterior_layer = vae_parts.make_posterior(posterior, *latents)
        self.prior_layer = vae_parts.make_prior(
            prior, self.image_shape, *latents
        )
        self.z_dim = vae_parts.check_z_dim(
            self.posterior_layer, self.prior_layer, *latents
        )
        # Of two stochastic layers the decoder sees the first.
        two_layers = vae_parts.is_pair(latent_dim)
        self.decoder_dim = latent_dim[0] if two_layers else self.z_dim
        self._names = {
            "likelihood": pixel_likelihoods.name_of(self.pixels),
            "posterior": posterior if isinstance(posterior, str) else None,
            "prior": prior if isinstance(prior, str) else None,
        }
        num_parameters = self.posterior_layer.num_parameters
        maps = self.pixels.maps(self.image_shape[-1])
        self.encoder = encoder or networks.mlp_encoder(
            self.image_shape, num_parameters, condition_dim=width
        )
        self.decoder = decoder or networks.mlp_decoder(
            self.decoder_dim,
            self.image_shape,
            output_channels=maps,
            condition_dim=width,
        )
        conditioning.check_network(
            self.encoder, self.image_shape, (num_parameters,), "encoder", width
        )
        conditioning.check_network(
            self.decoder,
            (self.decoder_dim,),
            (*self.image_shape[:-1], maps),
            "decoder",
            width,
        )
        self._decoded_size = math.prod(self.image_shape[:-1]) * maps

        self.objective = objective
        self.num_importance_samples = inputs.check_positive_integer(
            num_importance_samples, "num_importance_samples"
        )
        self.doubly_reparameterized = inputs.check_boolean(
            doubly_reparameterized, "doubly_reparameterized"
        )
        self.free_bits = inputs.check_number(free_bits, "free_bits", minimum=0)
        vae_parts.check_objective(
            objective,
            self.posterior_layer,
            self.prior_layer,
            self.doubly_reparameterized,
            self.free_bits,
        )
        self.beta = self.add_weight(
            name="beta",
            shape=(),
            initializer=keras.initializers.Constant(
                inputs.check_number(beta, "beta", minimum=0)
            ),
            dtype="float32",
            trainable=False,
            autocast=False,
        )
        self.beta_warmup_steps = inputs.check_count(
            beta_warmup_steps, "beta_warmup_steps"
        )
        self.temperature_decay = inputs.check_number(
            temperature_decay, "temperature_decay", minimum=0
        )
        self.add_metrics("loss", "reconstruction", "kl")
        self.logged["active_units"] = ActiveUnits(self.z_dim)
        self.built = True

    # The parts as distributions, built where they are used: a distribution
    # that is kept would be frozen at its first parameters.

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(z_dim,)`."""
        return self.prior_layer.distribution(self._pseudo_posterior)

    def _pseudo_posterior(self, images):
        # Of a conditional model the pseudo-images take all classes in turn,
        # or the vector 0: p(z) is the same under all conditions.
        condition = None
        if self.num_classes:
            classes = np.arange(images.shape[0]) % self.num_classes
            condition = tf.one_hot(classes, self.num_classes)
        elif self.condition_dim:
            condition = tf.zeros((images.shape[0], self.condition_dim))
        return self._posterior(images, condition)

    def posterior(self, x, condition=None, training=False):
        """q(z given x): a `tfd.Distribution` over `(batch, z_dim)`."""
        x = self.images_from(x)
        return self._posterior(
            x, self._vectors(condition, x.shape[0]), training
        )

    def likelihood(self, z, condition=None, training=False):
        """p(x given z): a `tfd.Distribution` over images in [0, 1].

        Args:
            z: Latents `(..., z_dim)`.
            condition: Classes or vectors of a conditional model, as many as
                the last axis but one of `z` is long.

        Returns:
            A distribution of batch shape `(...)`, event shape `image_shape`.

        Raises:
            ValueError: If an argument is not as above.
        """
        z = inputs.check_latents(z, self.z_dim, one_batch=False)
        count = z.shape[-2] if z.shape.rank > 1 else None
        condition = self._vectors(condition, count)
        return self.pixels.distribution(self._decoded(z, condition, training))

    # Below, `x` are float32 images in [0, 1] and `condition` the vectors
    # `(batch, width)` that the networks take, or `None`.

    def _vectors(self, condition, count):
        return conditioning.vectors(
            condition, count, self.num_classes, self.condition_dim
        )

    def _encoded(self, x, condition, training=False):
        """What the encoder says of q(z given x): `(batch, num_parameters)`."""
        network_input = x if condition is None else [x, condition]
        h = self.encoder(network_input, training=training)
        return tf.cast(h, "float32")

    def _posterior(self, x, condition, training=False):
        h = self._encoded(x, condition, training)
        return self.posterior_layer.distribution(h)

    def _decoded(self, z, condition, training=False):
        """What the decoder says of p(x given z): `(..., *map_shape)`.

        The vectors of `condition` are broadcast to the leading axes of `z`.
        """
        leading = tf.shape(z)[:-1]
        flat = tf.reshape(z[..., : self.decoder_dim], (-1, self.decoder_dim))
        if condition is not None:
            width = condition.shape[-1:]
            condition = tf.broadcast_to(
                condition, tf.concat([leading, width], axis=0)
            )
            flat = [flat, tf.reshape(condition, (-1, *width))]
        h = tf.cast(self.decoder(flat, training=training), "float32")
        return tf.reshape(h, tf.concat([leading, h.shape[1:]], axis=0))

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
        optimizer = self.prepare_optimizer(optimizer, self.trainable_weights)
        super().compile(optimizer, **kwargs)

    def elbo_terms(self, x, condition=None, training=False):
        """The ELBO's two terms, for as many latents as the loss draws.

        Args:
            x: float32 images in [0, 1].
            condition: Classes or vectors of a conditional model.
            training: Boolean, as in `loss_terms`.

        Returns:
            `(reconstruction, kl)`, each `(batch,)` nats: the mean of
            `log p(x given z)`, and `KL(q(z given x), p(z))` in closed form or
            by the same latents.
        """
        condition = self._vectors(condition, x.shape[0])
        terms = self.loss_terms(tf.convert_to_tensor(x), condition, training)
        return terms["reconstruction"], terms["kl"]

    def loss_terms(self, x, condition=None, training=False):
        """The loss of each image, and what else is logged.

        Args:
            x: float32 images in [0, 1].
            condition: Vectors `(batch, width)` that the networks of a
                conditional model take, see `conditioning.vectors`.
            training: Boolean, whether latents are drawn as in training, with
                warm-up and free bits.

        Returns:
            Dict of `loss`, `reconstruction` and `kl`, `(batch,)` nats, and
            `active_units`, the means of q(z given x).
        """
        h = self._encoded(x, condition, training)
        z, log_q, log_share = self._latents(h, training)  # (batch, n, ...)
        if self.doubly_reparameterized:
            # Of `w = p(x given z) (p(z) / q(z given x))**beta`; at 1, `weights`.
            z, log_q = self._reweighted(
                z, h, lambda: 1.0 - beta + beta * weights
            )
        noise = 0.0
        if self.pixels.needs_noise:
            noise = self.uniform(tf.shape(x), training)[:, tf.newaxis]
        log_likelihood = self._log_likelihood(x, z, noise, condition, training)
        share = tf.exp(log_share)  # 1 / n, but for mixtures
        reconstruction = tf.reduce_sum(share * log_likelihood, axis=1)
        beta = self._beta(training)
        of_latents = self.posterior_layer.kl(h, self.prior_layer)
        if of_latents is None or self.objective == "iwae":
            log_ratio = log_q - self.prior.log_prob(z)
            kl = counted = tf.reduce_sum(share * log_ratio, axis=1)
        else:  # in closed form
            kl = counted = tf.reduce_sum(of_latents, axis=1)
            if training and self.free_bits:
                counted = self._above_free_bits(of_latents)
        loss = beta * counted - reconstruction
        if self.objective == "iwae":
            log_weights = log_share + log_likelihood - beta * log_ratio
            weights = tf.nn.softmax(log_weights, axis=1)
            loss = -tf.reduce_logsumexp(log_weights, axis=1)
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": kl,
            "active_units": self.posterior_layer.mean(h),
        }

    def _latents(self, h, training):
        layer = self.posterior_layer
        draw = self.normal if layer.noise == "normal" else self.uniform
        shape = (tf.shape(h)[0], self.num_importance_samples, layer.noise_dim)
        noise = draw(tf.stack(shape), training)
        return layer.draw(h, noise, hard=not training)

    def _log_likelihood(self, x, z, noise, condition, training=False):
        """log p(x given z) of latents `(batch, n, z_dim)`, `(batch, n)`."""
        if condition is not None:
            condition = condition[:, tf.newaxis]
        h = self._decoded(z, condition, training)
        return self.pixels.log_prob(h, x[:, tf.newaxis], noise)

    def _reweighted(self, z, h, weights):
        """Latents whose gradient counts by their weight once more.

        Together with the weights of the bound itself, they are what is squared
        in the doubly reparameterized gradient. `weights()` is asked when the
        gradient is taken, since latents come before their weights.
        """

        @tf.custom_gradient
        def reweighted(z):
            return tf.identity(z), lambda dz: weights()[..., tf.newaxis] * dz

        z = reweighted(z)
        # The density of z, but not as a function of its own parameters.
        posterior = self.posterior_layer.distribution(tf.stop_gradient(h))
        log_q = posterior.log_prob(tf.transpose(z, (1, 0, 2)))
        return z, tf.transpose(log_q)

    def _beta(self, training):
        if not (training and self.beta_warmup_steps):
            return self.beta
        step = tf.cast(self.optimizer.iterations, "float32")
        return self.beta * tf.minimum(step / self.beta_warmup_steps, 1.0)

    def _above_free_bits(self, kl):
        """Sum over latents of KL `(batch, n)`, those below `free_bits` fixed.

        Its mean over the batch is `sum_j max(free_bits, mean(kl[:, j]))`.
        """
        mean = tf.reduce_mean(kl, axis=0)
        if randomness.replica_position()[1] > 1:
            context = tf.distribute.get_replica_context()
            mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, mean)
        return tf.reduce_sum(
            tf.where(mean > self.free_bits, kl, self.free_bits), axis=1
        )

    def train_step(self, data):
        x, condition = self.unpack(data)
        condition = self._vectors(condition, x.shape[0])
        weights = self.trainable_weights
        if self.latent == "categorical" and self.temperature_decay:
            step = tf.cast(self.optimizer.iterations, "float32")
            self.posterior_layer.temperature.assign(
                tf.maximum(0.5, tf.exp(-self.temperature_decay * step))
            )
        with tf.GradientTape() as tape:
            terms = self.loss_terms(x, condition, training=True)
            regularization = optimization.regularization(self)
            total = tf.reduce_mean(terms["loss"]) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(**terms)

    def test_step(self, data):
        x, condition = self.unpack(data)
        return self.log(
            **self.loss_terms(x, self._vectors(condition, x.shape[0]))
        )

    def call(self, x, condition=None, training=False):
        x, condition = conditioning.unpaired(x, condition)
        x = self.images_from(x)
        return self._reconstruct(
            x, self._vectors(condition, x.shape[0]), training
        )

    # Verbs. A graph takes no `None`: the condition is its last argument, or is
    # left out.

    def sample(self, num_samples, *, condition=None, seed=None):
        """Images of latents drawn from the prior.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)` or vectors `(num_samples,
                condition_dim)` of a conditional model. Without them, classes
                are drawn uniformly.
            seed: Integer for the same images each time, or `None`.

        Returns:
            Means of p(x given z), `(num_samples, *image_shape)` float32 in
            [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, num_samples)
        return self.graph(
            self._sample, num_samples, self.verb_seed(seed), *given
        )

    def _sample(self, num_samples, seed, condition=None):
        if condition is None and self.num_classes:
            seeds = tf.random.split(seed)
            seed = seeds[0]
            condition = conditioning.random_classes(
                num_samples, self.num_classes, seeds[1]
            )
        return self._decode(
            self.prior.sample(num_samples, seed=seed), condition
        )

    def encode(self, x, *, condition=None):
        """Means of q(z given x), `(batch, z_dim)` float32.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        return self.graph(self._encode, x, *self._given(condition, x.shape[0]))

    def _encode(self, x, condition=None, training=False):
        h = self._encoded(x, condition, training)
        return self.posterior_layer.mean(h)

    def decode(self, z, *, condition=None):
        """Means of p(x given z), float32 images in [0, 1].

        Args:
            z: Latents `(batch, z_dim)`.
            condition: Classes or vectors of a conditional model.

        Raises:
            ValueError: If an argument is not as above.
        """
        z = inputs.check_latents(z, self.z_dim)
        return self.graph(self._decode, z, *self._given(condition, z.shape[0]))

    def _decode(self, z, condition=None, training=False):
        h = self._decoded(z, condition, training)
        return tf.clip_by_value(self.pixels.distribution(h).mean(), 0.0, 1.0)

    def reconstruct(self, x, *, condition=None):
        """`decode(encode(x))`, float32 images in [0, 1]."""
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        return self.graph(self._reconstruct, x, *given)

    def _reconstruct(self, x, condition=None, training=False):
        z = self._encode(x, condition, training)
        return self._decode(z, condition, training)

    def kl_per_dimension(self, x, *, condition=None):
        """KL divergence of q(z given x) from p(z), of each latent alone.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model.

        Returns:
            `(batch, latent_dim)` nats, whose sum over latents is the `kl` that
            is logged.

        Raises:
            ValueError: If an argument is not as above, or the posterior and
                the prior have no closed form.
        """
        vae_parts.check_closed_form(
            "kl_per_dimension", self.posterior_layer, self.prior_layer
        )
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        return self.graph(self._kl_per_dimension, x, *given)

    def _kl_per_dimension(self, x, condition=None):
        h = self._encoded(x, condition)
        return self.posterior_layer.kl(h, self.prior_layer)

    def elbo(self, x, *, condition=None, num_samples=1, seed=None):
        """Evidence lower bound of log p(x), whatever `beta` is.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model. Without
                them, the bound is that of the mean over all classes.
            num_samples: Integer, draws of the latents that are averaged.
            seed: Integer for the same value each time, or `None`.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self._estimate(self._elbo, x, condition, num_samples, seed)

    def _elbo(self, x, num_samples, seed, condition=None):
        if condition is None and self.num_classes:
            return self._mean_over_classes(self._elbo, x, num_samples, seed)
        return self._bound("elbo", x, num_samples, seed, condition)

    def log_prob(self, x, *, condition=None, num_samples=100, seed=None):
        """Importance-weighted lower bound of log p(x).

        `log mean_k p(x given z_k) p(z_k) / q(z_k given x)`: the ELBO for one
        sample, and in expectation it rises to log p(x) with their number.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model, for
                log p(x given y). Without them, log p(x) is that of the mean
                of p(x given y) over all classes.
            num_samples: Integer, how many latents are drawn per image (and
                class).
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

    def _log_prob(self, x, num_samples, seed, condition=None):
        if condition is None and self.num_classes:
            return self._mean_over_classes(self._log_prob, x, num_samples, seed)
        return self._bound("iwae", x, num_samples, seed, condition)

    @property
    def classify(self):
        """`classify(x, *, num_samples=100, seed=None)` by Bayes' rule.

        `p(y given x) = p(x given y) / sum_y p(x given y)`, classes being
        equally likely, `(batch, num_classes)`; `num_samples` and `seed` are
        those of `log_prob`. Only models with `num_classes` have it.
        """
        if not self.num_classes:
            raise AttributeError("`classify` needs a model with `num_classes`.")
        return self._classify_images

    def _classify_images(self, x, *, num_samples=100, seed=None):
        return self._estimate(self._classify, x, None, num_samples, seed)

    def _classify(self, x, num_samples, seed):
        return tf.nn.softmax(
            self._of_classes(self._log_prob, x, num_samples, seed)
        )

    def _estimate(self, estimator, x, condition, num_samples, seed):
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x = self.images_from(x)
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, x.shape[0])
        seed = self.verb_seed(seed)
        return self.graph(estimator, x, num_samples, seed, *given)

    def _given(self, condition, count):
        vectors = self._vectors(condition, count)
        return [] if vectors is None else [vectors]

    def _of_classes(self, estimator, x, num_samples, seed):
        """`estimator` of each image under each class, `(batch, classes)`."""
        condition = tf.tile(tf.eye(self.num_classes), [tf.shape(x)[0], 1])
        x = tf.repeat(x, self.num_classes, axis=0)
        values = estimator(x, num_samples, seed, condition)
        return tf.reshape(values, (-1, self.num_classes))

    def _mean_over_classes(self, estimator, x, num_samples, seed):
        values = self._of_classes(estimator, x, num_samples, seed)
        return tf.reduce_logsumexp(values, axis=1) - math.log(self.num_classes)

    def _bound(self, objective, x, num_samples, seed, condition):
        """The ELBO or the importance-weighted bound, `(batch,)`."""
        layer, prior = self.posterior_layer, self.prior
        h = self._encoded(x, condition)
        draw = (
            tf.random.stateless_normal
            if layer.noise == "normal"
            else tf.random.stateless_uniform
        )
        # In parts, for the decoder's output to stay within some 100 MB.
        batch = tf.shape(x)[0]
        size = layer.num_strata * self._decoded_size
        part = tf.maximum(2**25 // (size * tf.maximum(batch, 1)), 1)
        start = tf.fill([batch], 0.0 if objective == "elbo" else -math.inf)

        def add_part(done, total):
            count = tf.minimum(part, num_samples - done)
            seeds = tf.random.split(
                tf.random.experimental.stateless_fold_in(seed, done)
            )
            noise = draw(tf.stack([batch, count, layer.noise_dim]), seeds[0])
            z, log_q, log_share = layer.draw(h, noise, hard=True)
            noise = 0.0
            if self.pixels.needs_noise:
                shape = tf.concat([tf.shape(z)[:2], tf.shape(x)[1:]], axis=0)
                noise = tf.random.stateless_uniform(shape, seeds[1])
            log_likelihood = self._log_likelihood(x, z, noise, condition)
            log_weights = log_likelihood + prior.log_prob(z) - log_q
            log_share += tf.math.log(tf.cast(count / num_samples, "float32"))
            if objective == "elbo":
                new = tf.reduce_sum(tf.exp(log_share) * log_weights, axis=1)
                return done + count, total + new
            new = tf.reduce_logsumexp(log_share + log_weights, axis=1)
            return done + count, tfp.math.log_add_exp(total, new)

        _, total = tf.while_loop(
            lambda done, total: done < num_samples,
            add_part,
            (0, start),
            # Of a single image TensorFlow knows the batch only at the start.
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
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
        p(z given observed pixels): each step proposes z from q(z given x) with
        the missing pixels filled in, accepts it by the Metropolis-Hastings
        ratio, and draws the missing pixels from p(x given z). The first
        quarter of the steps accepts all.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
                Missing pixels may have any value.
            mask: Booleans `(batch, *image_shape)` or broadcast to it, True
                where a pixel is observed.
            num_samples: Integer, how many independent chains an image has.
            num_steps: Integer, steps of each chain.
            condition: Classes or vectors of a conditional model.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]: the
            observed pixels as they are, and as in `sample` the means of
            p(x given z) of the missing ones.

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

    def _impute(self, x, mask, num_samples, num_steps, seed, condition=None):
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        x, mask = (
            tf.reshape(tf.broadcast_to(v, shape), (-1, *self.image_shape))
            for v in (x, mask)
        )
        if condition is not None:
            condition = tf.tile(condition, [num_samples, 1])
        prior = self.prior

        def given(filled):
            posterior = self._posterior(filled, condition)

            def propose(seed):
                z = posterior.sample(seed=seed)
                return z, self._decoded(z, condition)

            def log_weight(latents):
                z, h = latents
                log_p = self.pixels.log_prob(h, filled, 0.5) + prior.log_prob(z)
                return log_p - posterior.log_prob(z)

            return propose, log_weight

        def draw(latents, seed):
            return self.pixels.distribution(latents[1]).sample(seed=seed)

        seeds = tf.unstack(tf.random.split(seed))
        z = prior.sample(tf.shape(x)[0], seed=seeds[0])
        _, h = metropolis_within_gibbs.latents_of_observed(
            x,
            mask,
            (z, self._decoded(z, condition)),
            given,
            draw,
            num_steps,
            seeds[1],
        )
        mean = tf.clip_by_value(self.pixels.distribution(h).mean(), 0.0, 1.0)
        return tf.reshape(tf.where(mask, x, mean), shape)

    # Saving

    def get_config(self):
        parts = {
            "likelihood": self._names["likelihood"] or self.pixels,
            "prior": self._names["prior"] or self.prior_layer,
            "posterior": self._names["posterior"] or self.posterior_layer,
            "encoder": self.encoder,
            "decoder": self.decoder,
        }
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "latent": self.latent,
            "num_categories": self.num_categories,
            "temperature_decay": self.temperature_decay,
            "objective": self.objective,
            "num_importance_samples": self.num_importance_samples,
            "doubly_reparameterized": self.doubly_reparameterized,
            # By way of an array: that of several replicas is no float.
            "beta": float(np.asarray(self.beta)),
            "beta_warmup_steps": self.beta_warmup_steps,
            "free_bits": self.free_bits,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            **{
                name: saving.serialize_keras_object(part)
                for name, part in parts.items()
            },
        }


@saving.register_keras_serializable(package="keras_gen")
class ActiveUnits(keras.metrics.Metric):
    """Number of latents whose mean varies from image to image.

    Counts the j with `Var_x E[z_j given x] > threshold` over all images that
    it was shown. A latent that is not active says nothing of an image.

    Args:
        z_dim: Integer, width of the latents.
        threshold: Number, the least variance of an active one.
        name: Name of the metric.
        **kwargs: Arguments of `keras.metrics.Metric`.

    Example:

    >>> active_units = ActiveUnits(40)
    >>> active_units.update_state(vae.encode(x))
    >>> active_units.result()

    Reference:
        - [Importance Weighted Autoencoders](https://arxiv.org/abs/1509.00519)
    """

    def __init__(self, z_dim, threshold=0.01, name="active_units", **kwargs):
        super().__init__(name=name, **kwargs)
        self.z_dim, self.threshold = z_dim, threshold
        self.count, self.total, self.squares = (
            self.add_variable(shape, "zeros", name=part)
            for part, shape in (
                ("count", ()),
                ("total", (z_dim,)),
                ("squares", (z_dim,)),
            )
        )

    def update_state(self, means):
        """Adds the posterior means `(batch, z_dim)` of a batch of images."""
        means = tf.cast(means, "float32")
        count = tf.cast(tf.shape(means)[0], "float32")
        self.count.assign_add(count)
        self.total.assign_add(tf.reduce_sum(means, axis=0))
        self.squares.assign_add(tf.reduce_sum(tf.square(means), axis=0))

    def result(self):
        count = tf.maximum(self.count, 1.0)
        variance = self.squares / count - tf.square(self.total / count)
        active = tf.cast(variance > self.threshold, "float32")
        return tf.reduce_sum(active)

    def get_config(self):
        return {
            **super().get_config(),
            "z_dim": self.z_dim,
            "threshold": self.threshold,
        }
