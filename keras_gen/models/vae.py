"""Variational autoencoder."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import distributions, inputs, networks
from keras_gen.generative_model import GenerativeModel

tfd = tfp.distributions

LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic")


@saving.register_keras_serializable(package="keras_gen")
class VAE(GenerativeModel):
    """Variational autoencoder with a diagonal Gaussian posterior.

    Maximizes `elbo(x) = E_q[log p(x given z)] - KL(q(z given x), p(z))`, nats,
    with `z = loc + scale * noise`. The prior p(z) is standard normal. Logs
    `loss = beta * kl - reconstruction`, `reconstruction` and `kl`, in nats per
    image: sums over pixels and latents, means over images.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z.
        likelihood: p(x given z). `"bernoulli"` models binary images, and takes
            grey values in [0, 1] as probabilities of white; `"gaussian"`,
            with a location and a standard deviation per pixel, models images
            dequantized by uniform noise; `"discretized_logistic"` models the
            256 levels.
        encoder: Optional network, `(batch, *image_shape)` in [0, 1] to
            `(batch, 2 * latent_dim)`: location and unconstrained scale.
            Defaults to `networks.mlp_encoder`.
        decoder: Optional network, `(batch, latent_dim)` to
            `(batch, height, width, channels)` logits of white, or for the two
            other likelihoods `(batch, height, width, 2 * channels)`: location
            minus 0.5 and unconstrained scale. Defaults to
            `networks.mlp_decoder`.
        beta: Number, weight of the KL divergence in the loss. `elbo` and
            `log_prob` do not use it. `model.beta` is a variable that callbacks
            may `assign`.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Mean of p(x given z) at the posterior's mean, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> VAE((28, 28, 1), latent_dim=32).sample(16)  # (16, 28, 28, 1)

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
        - [beta-VAE](https://openreview.net/forum?id=Sy2fzU9gl)
    """

    log_prob_kind = "lower_bound"

    def __init__(
        self,
        image_shape,
        latent_dim,
        *,
        likelihood="bernoulli",
        encoder=None,
        decoder=None,
        beta=1.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"`likelihood` must be one of {LIKELIHOODS}, got {likelihood!r}"
            )
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.likelihood_name = likelihood
        height, width, channels = self.image_shape
        maps = channels if likelihood == "bernoulli" else 2 * channels
        self.encoder = encoder or networks.mlp_encoder(
            self.image_shape, 2 * self.latent_dim
        )
        self.decoder = decoder or networks.mlp_decoder(
            self.latent_dim, self.image_shape, output_channels=maps
        )
        inputs.check_network(
            self.encoder, self.image_shape, (2 * self.latent_dim,), "encoder"
        )
        inputs.check_network(
            self.decoder, (self.latent_dim,), (height, width, maps), "decoder"
        )
        self.beta = self.add_weight(
            name="beta",
            shape=(),
            initializer=keras.initializers.Constant(
                inputs.check_number(beta, "beta", minimum=0)
            ),
            trainable=False,
            autocast=False,
        )
        self.add_metrics("loss", "reconstruction", "kl")
        self.built = True

    # The two networks as distributions, built where they are used: a
    # distribution that is kept would be frozen at its first parameters.

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_dim), 1.0), 1)

    def posterior(self, x, training=False):
        """q(z given x): a `tfd.Distribution` over `(batch, latent_dim)`."""
        h = self.encoder(self.images_from(x), training=training)
        loc, scale = tf.split(tf.cast(h, "float32"), 2, axis=-1)
        return tfd.Independent(tfd.Normal(loc, tf.nn.softplus(scale) + 1e-5), 1)

    def likelihood(self, z, training=False):
        """p(x given z): a `tfd.Distribution` over images in [0, 1].

        Args:
            z: Latents `(..., latent_dim)`.

        Returns:
            A distribution of batch shape `(...)`, event shape `image_shape`.
        """
        z = tf.convert_to_tensor(z)
        flat = tf.reshape(z, (-1, self.latent_dim))
        h = tf.cast(self.decoder(flat, training=training), "float32")
        h = tf.reshape(h, tf.concat([tf.shape(z)[:-1], h.shape[1:]], axis=0))
        if self.likelihood_name == "bernoulli":
            # Of integers, it would cut the grey values of an array to 0.
            pixels = tfd.Bernoulli(logits=h, dtype=tf.float32)
            return tfd.Independent(pixels, 3)
        loc, scale = tf.split(h, 2, axis=-1)
        if self.likelihood_name == "gaussian":
            pixels = tfd.Normal(loc + 0.5, tf.nn.softplus(scale) + 1e-3)
        else:
            pixels = distributions.DiscretizedLogistic(
                loc + 0.5, tf.nn.softplus(scale) + 1e-3
            )
        return tfd.Independent(pixels, 3)

    def _log_likelihood(self, x, z, noise, training=False):
        # Nats of the 8-bit image. A density counts at `(k + noise) / 256`.
        likelihood = self.likelihood(z, training)
        if self.likelihood_name != "gaussian":
            return likelihood.log_prob(x)
        x = (tf.round(x * 255.0) + noise) / 256.0
        num_dims = math.prod(self.image_shape)
        return likelihood.log_prob(x) - num_dims * math.log(256)

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

    def elbo_terms(self, x, training=False):
        """The ELBO's two terms for one draw of the latents.

        Args:
            x: float32 images in [0, 1].

        Returns:
            `(reconstruction, kl)`, each `(batch,)` nats: `log p(x given z)`,
            and the closed form of `KL(q(z given x), p(z))`.
        """
        posterior = self.posterior(x, training)
        loc, scale = posterior.mean(), posterior.stddev()
        z = loc + scale * self.normal(tf.shape(loc), training)
        noise = 0.0
        if self.likelihood_name == "gaussian":
            noise = self.uniform(tf.shape(x), training)
        reconstruction = self._log_likelihood(x, z, noise, training)
        return reconstruction, tfd.kl_divergence(posterior, self.prior)

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            reconstruction, kl = self.elbo_terms(x, training=True)
            loss = self.beta * kl - reconstruction
            regularization = tf.add_n(self.losses) if self.losses else 0.0
            total = tf.reduce_mean(loss) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss, reconstruction=reconstruction, kl=kl)

    def test_step(self, data):
        x, _ = self.unpack(data)
        reconstruction, kl = self.elbo_terms(x)
        loss = self.beta * kl - reconstruction
        return self.log(loss=loss, reconstruction=reconstruction, kl=kl)

    def call(self, x, training=False):
        return self._decode(self.posterior(x, training).mean(), training)

    # Verbs

    def sample(self, num_samples, *, seed=None):
        """Images of latents drawn from the prior.

        Args:
            num_samples: Integer, how many.
            seed: Integer for the same images each time, or `None`.

        Returns:
            Means of p(x given z), `(num_samples, *image_shape)` float32 in
            [0, 1].
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        return self.graph(self._sample, num_samples, self.verb_seed(seed))

    def _sample(self, num_samples, seed):
        shape = tf.stack([num_samples, self.latent_dim])
        return self._decode(tf.random.stateless_normal(shape, seed))

    def encode(self, x):
        """Means of q(z given x), `(batch, latent_dim)` float32."""
        return self.graph(self._encode, self.images_from(x))

    def _encode(self, x):
        return self.posterior(x).mean()

    def decode(self, z):
        """Means of p(x given z), float32 images in [0, 1].

        Args:
            z: Latents `(batch, latent_dim)`.
        """
        z = tf.cast(tf.convert_to_tensor(z), "float32")
        if z.shape.rank != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"`z` must be latents of shape (batch, {self.latent_dim}), "
                f"got shape {tuple(z.shape)}."
            )
        return self.graph(self._decode, z)

    def _decode(self, z, training=False):
        mean = self.likelihood(z, training).mean()
        return tf.clip_by_value(mean, 0.0, 1.0)

    def reconstruct(self, x):
        """`decode(encode(x))`, float32 images in [0, 1]."""
        return self.graph(self.call, self.images_from(x))

    def elbo(self, x, *, num_samples=1, seed=None):
        """Evidence lower bound of log p(x), whatever `beta` is.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            num_samples: Integer, draws of the latents that are averaged.
            seed: Integer for the same value each time, or `None`.

        Returns:
            `(batch,)` nats.
        """
        return self._estimate(self._elbo, x, num_samples, seed)

    def _elbo(self, x, num_samples, seed):
        log_weights = self._over_samples(x, num_samples, seed, tf.reduce_sum)
        return log_weights / tf.cast(num_samples, "float32")

    def log_prob(self, x, *, num_samples=100, seed=None):
        """Importance-weighted lower bound of log p(x).

        `log mean_k p(x given z_k) p(z_k) / q(z_k given x)`: the ELBO for one
        sample, and in expectation it rises to log p(x) with their number.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            num_samples: Integer, how many latents are drawn per image.
            seed: Integer for the same value each time, or `None`.

        Returns:
            `(batch,)` nats of the 8-bit (or binary) image.

        Reference:
            - [Importance Weighted Autoencoders](
              https://arxiv.org/abs/1509.00519)
        """
        return self._estimate(self._log_prob, x, num_samples, seed)

    def _log_prob(self, x, num_samples, seed):
        total = self._over_samples(x, num_samples, seed, tf.reduce_logsumexp)
        return total - tf.math.log(tf.cast(num_samples, "float32"))

    def _estimate(self, estimator, x, num_samples, seed):
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x = self.images_from(x)
        return self.graph(estimator, x, num_samples, self.verb_seed(seed))

    def _over_samples(self, x, num_samples, seed, reduce):
        """`reduce` over k of log p(x given z_k) p(z_k) / q(z_k given x)."""
        posterior = self.posterior(x)
        # In parts, for the decoder's output to stay within some 100 MB.
        batch = tf.maximum(tf.shape(x)[0], 1)
        part = tf.maximum(2**25 // (math.prod(self.image_shape) * batch), 1)
        start = tf.fill([tf.shape(x)[0]], -math.inf)
        if reduce is tf.reduce_sum:
            start = tf.zeros_like(start)

        def add_part(done, total):
            count = tf.minimum(part, num_samples - done)
            seeds = tf.random.split(
                tf.random.experimental.stateless_fold_in(seed, done)
            )
            shape = tf.concat([[count], tf.shape(posterior.mean())], axis=0)
            noise = tf.random.stateless_normal(shape, seeds[0])
            z = posterior.mean() + posterior.stddev() * noise
            shape = tf.concat([[count], tf.shape(x)], axis=0)
            noise = 0.0
            if self.likelihood_name == "gaussian":
                noise = tf.random.stateless_uniform(shape, seeds[1])
            log_weights = (
                self._log_likelihood(x, z, noise)
                + self.prior.log_prob(z)
                - posterior.log_prob(z)
            )
            both = tf.concat([total[tf.newaxis], log_weights], axis=0)
            return done + count, reduce(both, axis=0)

        _, total = tf.while_loop(
            lambda done, total: done < num_samples, add_part, (0, start)
        )
        return total

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "likelihood": self.likelihood_name,
            "encoder": saving.serialize_keras_object(self.encoder),
            "decoder": saving.serialize_keras_object(self.decoder),
            "beta": float(self.beta),
        }

    @classmethod
    def from_config(cls, config):
        for name in ("encoder", "decoder"):
            config[name] = saving.deserialize_keras_object(config[name])
        return cls(**config)
