"""Generative adversarial network."""

import warnings

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs, losses, networks
from keras_gen.generative_model import GenerativeModel


@saving.register_keras_serializable(package="keras_gen")
class GAN(GenerativeModel):
    """Generative adversarial network.

    Each step updates the discriminator `d_steps` times on one batch of real
    images, then the generator once, each by its own loss of `losses` and with
    its own optimizer. Logs `d_loss` (with the penalty), `g_loss`, and `loss`,
    which is `g_loss`.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z, which is standard normal.
        generator: Optional network, `(batch, latent_dim)` to images
            `(batch, *image_shape)` in [-1, 1]. Defaults to
            `networks.dcgan_generator`, below 16 pixels to
            `networks.mlp_generator`.
        discriminator: Optional network, images in [-1, 1] to logits
            `(batch, 1)`. Defaults to `networks.dcgan_discriminator` without
            batch normalization, as gradient penalties need the logit of an
            image to depend on that image alone.
        ema: Number between 0 and 1 or `None`, decay per step of the moving
            average of the generator's weights, from which all samples come.
            With `None` they come from the generator itself.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        z: Latents `(batch, latent_dim)`.

    Returns:
        Images, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> gan = GAN((28, 28, 1), latent_dim=64)
    >>> gan.compile(loss="wasserstein", gradient_penalty=10.0, d_steps=5)

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661)
        - [DCGAN](https://arxiv.org/abs/1511.06434)
    """

    def __init__(
        self,
        image_shape,
        latent_dim,
        *,
        generator=None,
        discriminator=None,
        ema=0.999,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        shape = self.image_shape
        small = min(shape[:2]) < 16
        if generator is None and small:
            generator = networks.mlp_generator(self.latent_dim, shape)
        elif generator is None:
            generator = networks.dcgan_generator(self.latent_dim, shape)
        if discriminator is None and small:
            discriminator = networks.mlp_discriminator(shape)
        elif discriminator is None:
            discriminator = networks.dcgan_discriminator(
                shape, batch_normalization=False
            )
        self.generator = generator
        self.discriminator = discriminator
        inputs.check_network(generator, (self.latent_dim,), shape, "generator")
        inputs.check_network(discriminator, shape, (1,), "discriminator")
        self.ema = None
        self.sampler = self.generator
        if ema is not None:
            self.ema = inputs.check_number(
                ema, "ema", minimum=0, maximum=1, exclusive=True
            )
            self.sampler = self.averaged_copy(self.generator)
        self.add_metrics("loss", "d_loss", "g_loss")
        self.built = True

    # Training

    def compile(
        self,
        d_optimizer=None,
        g_optimizer=None,
        loss="non_saturating",
        gradient_penalty=None,
        d_steps=1,
        label_smoothing=0.0,
        **kwargs,
    ):
        """Configures training.

        Args:
            d_optimizer: The discriminator's. Defaults to `Adam(2e-4, 0.5)`.
            g_optimizer: The generator's, which is also `model.optimizer`.
                Defaults to `Adam(2e-4, 0.5)`.
            loss: `"non_saturating"`, `"minimax"`, `"least_squares"`,
                `"wasserstein"`, `"hinge"`, `"relativistic"`, or an object like
                those of `keras_gen.losses`.
            gradient_penalty: `None`, a number (weight of
                `losses.GradientPenalty`), or one of `losses.GradientPenalty`,
                `R1`, `R2`, `WeightClipping`.
            d_steps: Integer, updates of the discriminator per step.
            label_smoothing: Number in [0, 1), taken off the label of real
                images.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.

        Raises:
            ValueError: If an argument is not as above, or both networks are
                given one optimizer.
        """
        is_object = isinstance(d_optimizer, keras.optimizers.Optimizer)
        if is_object and d_optimizer is g_optimizer:
            raise ValueError(
                "`d_optimizer` and `g_optimizer` must be two optimizers, got "
                "one object for both. Make one for each network."
            )
        d_optimizer = d_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        g_optimizer = g_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        self.adversarial_loss = losses.get(loss, label_smoothing)
        self.penalty = losses.get_penalty(gradient_penalty)
        self.d_steps = inputs.check_positive_integer(d_steps, "d_steps")
        self._warn_of_batch_normalization()
        self.d_optimizer = self.prepare_optimizer(
            d_optimizer, self.discriminator.trainable_weights
        )
        super().compile(
            self.prepare_optimizer(
                g_optimizer, self.generator.trainable_weights
            ),
            **kwargs,
        )

    def _warn_of_batch_normalization(self):
        penalized = isinstance(self.penalty, losses.GradientPenalty | losses.R1)
        normalized = any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in self.discriminator._flatten_layers()
        )
        if penalized and normalized:
            warnings.warn(
                "`discriminator` has batch normalization, under which the "
                "gradient penalty of an image depends on the whole batch. Use "
                "`networks.dcgan_discriminator(..., "
                "batch_normalization=False)`.",
                stacklevel=3,
            )

    @property
    def optimizers(self):
        return [self.optimizer, self.d_optimizer]

    def train_step(self, data):
        x, _ = self.unpack(data)
        real = 2.0 * x - 1.0
        for _ in range(self.d_steps):
            d_loss = self.discriminator_step(real)
        g_loss = self.generator_step(real)
        if self.ema is not None:
            self.update_moving_average(self.sampler, self.generator, self.ema)
        return self.log(loss=g_loss, d_loss=d_loss, g_loss=g_loss)

    def discriminator_step(self, real):
        """Updates the discriminator on images in [-1, 1]; gives its loss."""
        fake = self.generate(tf.shape(real)[0], training=True)
        mix = self.uniform(tf.stack([tf.shape(real)[0], 1, 1, 1]), True)
        weights = self.discriminator.trainable_weights
        with tf.GradientTape() as tape:
            d_loss = self.adversarial_loss.discriminator(
                self.discriminate(real, True), self.discriminate(fake, True)
            )
            if self.penalty is not None:
                d_loss += self.penalty(
                    lambda x: self.discriminate(x, True), real, fake, mix
                )
            total = d_loss + _regularization(self.discriminator)
            scaled_loss = self.scale_loss(total, self.d_optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.d_optimizer)
        if isinstance(self.penalty, losses.WeightClipping):
            self.penalty.clip(weights)
        return d_loss

    def generator_step(self, real):
        """Updates the generator; gives its loss."""
        weights = self.generator.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            fake = self.generate(tf.shape(real)[0], training=True)
            g_loss = self.adversarial_loss.generator(
                self.discriminate(real, True), self.discriminate(fake, True)
            )
            total = g_loss + _regularization(self.generator)
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return g_loss

    def test_step(self, data):
        x, _ = self.unpack(data)
        real_logits = self.discriminate(2.0 * x - 1.0)
        fake_logits = self.discriminate(self.generate(tf.shape(x)[0]))
        d_loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        g_loss = self.adversarial_loss.generator(real_logits, fake_logits)
        return self.log(loss=g_loss, d_loss=d_loss, g_loss=g_loss)

    def generate(self, num_samples, training=False):
        """Fresh images in [-1, 1] of the generator that is trained."""
        z = self.normal(tf.stack([num_samples, self.latent_dim]), training)
        return tf.cast(self.generator(z, training=training), "float32")

    def discriminate(self, images, training=False):
        """Logits `(batch, 1)`, float32, of images in [-1, 1]."""
        logits = self.discriminator(images, training=training)
        return tf.cast(logits, "float32")

    def call(self, z, training=False):
        images = tf.cast(self.sampler(z, training=training), "float32")
        return tf.clip_by_value(0.5 * images + 0.5, 0.0, 1.0)

    # Verbs

    def sample(self, num_samples, *, seed=None):
        """Images of latents drawn from the prior, by the averaged generator.

        Args:
            num_samples: Integer, how many.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        return self.graph(self._sample, num_samples, self.verb_seed(seed))

    def _sample(self, num_samples, seed):
        shape = tf.stack([num_samples, self.latent_dim])
        return self.call(tf.random.stateless_normal(shape, seed))

    # Saving

    def get_compile_config(self):
        if self.compiled:
            config = super().get_compile_config()
            return {
                "g_optimizer": config.pop("optimizer"),
                **config,
                "d_optimizer": saving.serialize_keras_object(self.d_optimizer),
                "loss": saving.serialize_keras_object(self.adversarial_loss),
                "gradient_penalty": saving.serialize_keras_object(self.penalty),
                "d_steps": self.d_steps,
            }

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "generator": saving.serialize_keras_object(self.generator),
            "discriminator": saving.serialize_keras_object(self.discriminator),
            "ema": self.ema,
        }

    @classmethod
    def from_config(cls, config):
        for name in ("generator", "discriminator"):
            config[name] = saving.deserialize_keras_object(config[name])
        return cls(**config)


def _regularization(network):
    return tf.add_n(network.losses) if network.losses else 0.0
