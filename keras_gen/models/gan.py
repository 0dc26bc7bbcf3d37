"""Generative adversarial network."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import (
    inputs,
    latent_search,
    latents,
    losses,
    optimization,
    unrolling,
)
from keras_gen.conditioning import (
    beside,
    check_network,
    check_width,
    random_classes,
    unpaired,
    vectors,
)
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.minibatch import pack
from keras_gen.networks.conditional import check_conditioning, feature_network
from keras_gen.networks.defaults import default_discriminator, default_generator

tfd = tfp.distributions


@saving.register_keras_serializable(package="keras_gen")
class GAN(GenerativeModel):
    """Generative adversarial network.

    Each step updates the discriminator `d_steps` times on one batch of real
    images, then the generator once, each by its own loss of `losses` and with
    its own optimizer. Logs `d_loss` (with the penalties), `g_loss`, `loss`,
    which is `g_loss`; `d_real_accuracy` and `d_fake_accuracy`, how often the
    discriminator is right (see `losses.accuracies`); and `diversity`, how much
    generated images differ compared with real ones (see `losses.diversity`).

    A conditional model is one of p(x given y). Of classes, the generator draws
    those of the real batch. Of vectors, the discriminator is matching-aware:
    beside generated images with their vectors it is to reject real images
    with the vectors of others, and each kind counts for a half. Where the
    other's vector is the same, a generated image stands in for the real one.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z, which is standard normal.
        num_classes: Integer, if the model is conditional on classes.
        condition_dim: Integer, if it is conditional on vectors of this width.
        conditioning: How the networks take a condition: `"projection"` of the
            features on it in the discriminator and conditional batch
            normalization in the generator, `"concat"` beside features and
            latents, or, for classes, `"auxiliary"`: a classifier in the
            discriminator, whose cross-entropy both networks lower.
        generator: Optional network, `(batch, latent_dim)` to images
            `(batch, *image_shape)` in [-1, 1]. Defaults to
            `networks.dcgan_generator`, below 16 pixels to
            `networks.mlp_generator`.
        discriminator: Optional network, images in [-1, 1] to logits
            `(batch, 1)`. Defaults to `networks.dcgan_discriminator` without
            batch normalization, as gradient penalties need the logit of an
            image to depend on that image alone, below 16 pixels to
            `networks.mlp_discriminator`. Networks of conditional models take
            `[z, condition]` and `[x, condition]`, classes as one-hot vectors;
            an auxiliary discriminator takes `x`, and gives the logit and one
            logit a class, `(batch, 1 + num_classes)`.
        ema: Number between 0 and 1 or `None`, decay per step of the moving
            average of the generator's weights, from which all samples come.
            With `None` they come from the generator itself.
        packing: Integer m, how many images the discriminator judges at once,
            `(batch, height, width, m * channels)`, so that it sees how they
            differ. Not for conditional models.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        z: Latents `(batch, latent_dim)`.
        condition: Classes or vectors of a conditional model, one an image.

    Returns:
        Images, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> gan = GAN((28, 28, 1), latent_dim=64, num_classes=10)
    >>> gan.compile(loss="wasserstein", gradient_penalty=10.0, d_steps=5)
    >>> gan.fit(labelled, epochs=20)
    >>> gan.sample(10, condition=range(10))

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661)
        - [DCGAN](https://arxiv.org/abs/1511.06434)
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
        - [Conditional Image Synthesis with Auxiliary Classifier GANs](
          https://arxiv.org/abs/1610.09585)
        - [Generative Adversarial Text to Image Synthesis](
          https://arxiv.org/abs/1605.05396), on matching-awareness
        - [PacGAN](https://arxiv.org/abs/1712.04086)
    """

    def __init__(
        self,
        image_shape,
        latent_dim,
        *,
        num_classes=None,
        condition_dim=None,
        conditioning="projection",
        generator=None,
        discriminator=None,
        ema=0.999,
        packing=1,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_classes, self.condition_dim = num_classes, condition_dim
        self.conditioning = conditioning
        self.packing = inputs.check_positive_integer(packing, "packing")
        width = self._check_condition()

        height, width_px, channels = self.image_shape
        seen = (height, width_px, self.packing * channels)
        self.generator = generator or default_generator(
            self.latent_dim, self.image_shape, width, conditioning
        )
        self.discriminator = discriminator or default_discriminator(
            seen, width, conditioning
        )
        check_network(
            self.generator,
            (self.latent_dim,),
            self.image_shape,
            "generator",
            width,
        )
        check_network(
            self.discriminator,
            seen,
            (1 + num_classes,) if self._auxiliary else (1,),
            "discriminator",
            None if self._auxiliary else width,
        )
        self.ema = None
        self.sampler = self.generator
        if ema is not None:
            self.ema = inputs.check_number(
                ema, "ema", minimum=0, maximum=1, exclusive=True
            )
            self.sampler = self.averaged_copy(self.generator)
        self.add_metrics(
            "loss",
            "d_loss",
            "g_loss",
            "d_real_accuracy",
            "d_fake_accuracy",
            "diversity",
        )
        self.built = True

    def _check_condition(self):
        width = check_width(self.num_classes, self.condition_dim)
        check_conditioning(self.conditioning)
        if self.condition_dim and self.conditioning == "auxiliary":
            raise ValueError(
                "`conditioning='auxiliary'` classifies, so it needs "
                f"`num_classes`, got `condition_dim={self.condition_dim}`. Use "
                "'projection' or 'concat'."
            )
        if width and self.packing > 1:
            raise ValueError(
                "`packing` is for models without a condition, as the images "
                f"of a pack would have one each, got `packing={self.packing}`. "
                "Leave it out."
            )
        return width

    @property
    def _auxiliary(self):
        return bool(self.num_classes) and self.conditioning == "auxiliary"

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        return tfd.MultivariateNormalDiag(tf.zeros(self.latent_dim))

    # Training

    def compile(
        self,
        d_optimizer=None,
        g_optimizer=None,
        loss="non_saturating",
        gradient_penalty=None,
        d_steps=1,
        unrolled_steps=0,
        instance_noise=None,
        label_smoothing=0.0,
        drift=0.0,
        gradient_norms=False,
        penalty_interval=1,
        **kwargs,
    ):
        """Configures training.

        Args:
            d_optimizer: The discriminator's. Defaults to `Adam(2e-4, 0.5)`.
            g_optimizer: The generator's, which is also `model.optimizer`.
                Defaults to `Adam(2e-4, 0.5)`.
            loss: `"non_saturating"`, `"minimax"`, `"least_squares"`,
                `"wasserstein"`, `"hinge"`, `"relativistic"`,
                `"feature_matching"`, or an object like those of
                `keras_gen.losses`, which needs `get_config` to be saved.
            gradient_penalty: `None`, a number (weight of
                `losses.GradientPenalty`), or one of `losses.GradientPenalty`,
                `R1`, `R2`, `WeightClipping`.
            d_steps: Integer, updates of the discriminator per step.
            unrolled_steps: Integer, updates of the discriminator that the
                generator looks ahead. Its gradient goes through all of them,
                by `d_optimizer` and on the batch at hand; afterwards the
                discriminator is where it was.
            instance_noise: Standard deviation of normal noise that is added
                to all images, in [-1, 1], that the discriminator sees in
                training: a number, or a function of the generator's step, a
                float32 tensor (`tf.maximum` takes it, `max` does not), such
                as a `keras.optimizers.schedules.LearningRateSchedule`. A model
                saved with a lambda loads with `safe_mode=False` only.
            label_smoothing: Number in [0, 1), taken off the label of real
                images.
            drift: Number, weight of `mean(real_logits**2)` in `d_loss`, which
                keeps a critic's logits near 0.
            gradient_norms: Boolean, whether training logs the Euclidean norms
                of all gradients, `d_gradient_norm` and `g_gradient_norm`.
            penalty_interval: Integer, updates of the discriminator from one
                `gradient_penalty` to the next, each as many times as large.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.

        Raises:
            ValueError: If an argument is not as above, both networks are
                given one optimizer, or some do not go together.

        Reference:
            - [Unrolled Generative Adversarial Networks](
              https://arxiv.org/abs/1611.02163)
            - [Amortised MAP Inference](https://arxiv.org/abs/1610.04490), on
              instance noise
            - [Analyzing and Improving the Image Quality of StyleGAN](
              https://arxiv.org/abs/1912.04958), on lazy penalties
        """
        self.compiled = False  # until all arguments are found right
        inputs.check_two_optimizers(d_optimizer, g_optimizer, kwargs)
        d_optimizer = d_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        g_optimizer = g_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        self.adversarial_loss = losses.get(loss, label_smoothing)
        self.penalty = losses.get_penalty(gradient_penalty)
        self.d_steps = inputs.check_positive_integer(d_steps, "d_steps")
        self.unrolled_steps = inputs.check_count(
            unrolled_steps, "unrolled_steps"
        )
        self.instance_noise = instance_noise
        if instance_noise is not None and not callable(instance_noise):
            inputs.check_number(instance_noise, "instance_noise", minimum=0)
        self.drift = inputs.check_number(drift, "drift", minimum=0)
        losses.check_penalty(self.penalty, self.discriminator)
        self.penalty_interval = inputs.check_positive_integer(
            penalty_interval, "penalty_interval"
        )
        # Plain attributes: Keras would list the weights of this network twice,
        # and keep the metrics of a former `compile`.
        self.__dict__["features"] = None
        if isinstance(self.adversarial_loss, losses.FeatureMatching):
            self.__dict__["features"] = feature_network(self.discriminator)
        inputs.check_boolean(gradient_norms, "gradient_norms")
        names = ("d", "g") if gradient_norms else ()
        self.__dict__["gradient_norms"] = {
            name: keras.metrics.Mean(f"{name}_gradient_norm") for name in names
        }
        self.d_optimizer = self.prepare_optimizer(
            d_optimizer,
            self.discriminator.trainable_weights,
            "d_optimizer",
        )
        if unrolled_steps:
            unrolling.check(self.d_optimizer, self.discriminator, self.penalty)
        super().compile(
            self.prepare_optimizer(
                g_optimizer,
                self.generator.trainable_weights,
                "g_optimizer",
            ),
            **kwargs,
        )

    @property
    def optimizers(self):
        return [self.optimizer, self.d_optimizer]

    @property
    def g_optimizer(self):
        """The generator's optimizer, which is `model.optimizer`."""
        return self.optimizer

    @property
    def metrics(self):
        norms = getattr(self, "gradient_norms", {})  # once it is compiled
        return [*super().metrics, *norms.values()]

    def train_step(self, data):
        x, condition = self.unpack(data)
        condition = self._vectors(condition, x.shape[0])
        real = 2.0 * x - 1.0
        for _ in range(self.d_steps):
            d_logs = self.discriminator_step(real, condition)
        g_logs = self.generator_step(real, condition)
        if self.ema is not None:
            self.update_moving_average(self.sampler, self.generator, self.ema)
        return self.log(loss=g_logs["g_loss"], **d_logs, **g_logs)

    def discriminator_step(self, real, condition=None):
        """Updates the discriminator on images in [-1, 1]; gives its logs."""
        fake = self.generate(tf.shape(real)[0], condition, training=True)
        real, fake = self._shown(real), self._shown(fake)
        mix = self._mix(real)
        weights = self.discriminator.trainable_weights
        with tf.GradientTape() as tape:
            logs = self.discriminator_logs(real, fake, condition, mix)
            total = logs["d_loss"] + optimization.regularization(
                self.discriminator
            )
            scaled_loss = self.scale_loss(total, self.d_optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self._log_gradient_norm("d", gradients, self.d_optimizer)
        self.apply_gradients(gradients, weights, self.d_optimizer)
        if isinstance(self.penalty, losses.WeightClipping):
            self.penalty.clip(weights)
        return logs

    def discriminator_logs(self, real, fake, condition, mix=None):
        """Loss and accuracies of the discriminator.

        Args:
            real: Images that it is shown, in [-1, 1].
            fake: Generated ones.
            condition: Their vectors `(batch, width)`, or `None`.
            mix: Uniform noise `(batch, 1, 1, 1)` of the gradient penalty in
                training; without it there are no penalties.
        """
        training = mix is not None
        real_logits, real_entropy = self._judged(real, condition, training)
        fake_logits, fake_entropy = self._judged(fake, condition, training)
        rejected = fake_logits
        if self.condition_dim:  # real images with the vectors of others too
            others = tf.gather(condition, _neighbours(condition))
            wrong_logits, _ = self._judged(real, others, training)
            is_right = tf.reduce_all(others == condition, 1, keepdims=True)
            wrong_logits = tf.where(is_right, fake_logits, wrong_logits)
            rejected = tf.concat([fake_logits, wrong_logits], axis=0)
        d_loss = self.adversarial_loss.discriminator(real_logits, rejected)
        d_loss += real_entropy + fake_entropy
        if training and self.drift:
            d_loss += self.drift * tf.reduce_mean(tf.square(real_logits))
        if training and self.penalty is not None:
            d_loss += self._penalized(real, fake, condition, mix)
        real_accuracy, fake_accuracy = losses.accuracies(
            self.adversarial_loss, real_logits, fake_logits
        )
        return {
            "d_loss": d_loss,
            "d_real_accuracy": real_accuracy,
            "d_fake_accuracy": fake_accuracy,
        }

    def _penalized(self, real, fake, condition, mix):
        """The gradient penalty, or 0 between two of them."""

        def penalty():
            return self.penalty_interval * self.penalty(
                lambda x: self.discriminate(x, condition, True), real, fake, mix
            )

        if self.penalty_interval == 1:
            return penalty()
        step = self.d_optimizer.iterations
        step = getattr(step, "value", step)  # a tensor, where some accumulate
        is_due = tf.equal(step % self.penalty_interval, 0)
        if isinstance(step, tf.Variable):
            return tf.cond(is_due, penalty, lambda: 0.0)
        # A step that is unrolled: what layers assign is a tensor, which must
        # not stay in a branch.
        return tf.where(is_due, penalty(), 0.0)

    def generator_step(self, real, condition=None):
        """Updates the generator; gives its logs."""
        weights = self.generator.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            fake = self.generate(tf.shape(real)[0], condition, training=True)
            seen = self._shown(real), self._shown(fake)
            with self._unrolled(*seen, condition):
                g_loss = self.generator_loss(*seen, condition, training=True)
            total = g_loss + optimization.regularization(self.generator)
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self._log_gradient_norm("g", gradients, self.optimizer)
        self.apply_gradients(gradients, weights, self.optimizer)
        return {"g_loss": g_loss, "diversity": losses.diversity(real, fake)}

    def generator_loss(self, real, fake, condition, training=False):
        """Loss of the generator; arguments as of `discriminator_logs`."""
        fake_logits, fake_entropy = self._judged(fake, condition, training)
        if self.features is None:
            pair = None, fake_logits
            if losses.generator_sees_real(self.adversarial_loss):
                pair = self.discriminate(real, condition, training), fake_logits
        else:
            pair = (
                self.features(self._beside(x, condition), training=training)
                for x in (real, fake)
            )
        return self.adversarial_loss.generator(*pair) + fake_entropy

    def _unrolled(self, real, fake, condition):
        """A scope in which the discriminator is some steps ahead."""
        if not self.unrolled_steps:
            return contextlib.nullcontext()
        mix = self._mix(real)

        def d_loss():
            logs = self.discriminator_logs(real, fake, condition, mix)
            return logs["d_loss"] + optimization.regularization(
                self.discriminator
            )

        return keras.StatelessScope(
            unrolling.unroll(
                d_loss,
                self.discriminator,
                self.d_optimizer,
                self.unrolled_steps,
            )
        )

    def test_step(self, data):
        x, condition = self.unpack(data)
        condition = self._vectors(condition, x.shape[0])
        real = 2.0 * x - 1.0
        fake = self.generate(tf.shape(x)[0], condition)
        seen = pack(real, self.packing), pack(fake, self.packing)
        logs = self.discriminator_logs(*seen, condition)
        g_loss = self.generator_loss(*seen, condition)
        diversity = losses.diversity(real, fake)
        return self.log(loss=g_loss, g_loss=g_loss, diversity=diversity, **logs)

    # Below, images are in [-1, 1] and `condition` the vectors `(batch, width)`
    # that the networks take, or `None`.

    def generate(self, num_samples, condition=None, training=False):
        """Fresh images of the generator that is trained."""
        z = self.normal(tf.stack([num_samples, self.latent_dim]), training)
        images = self.generator(beside(z, condition), training=training)
        return tf.cast(images, "float32")

    def discriminate(self, images, condition=None, training=False):
        """Logits `(batch, 1)`, float32."""
        return self._judged(images, condition, training)[0]

    def _judged(self, images, condition, training):
        """The logits, and the auxiliary classifier's mean cross-entropy."""
        logits = tf.cast(
            self.discriminator(
                self._beside(images, condition), training=training
            ),
            "float32",
        )
        if not self._auxiliary:
            return logits, 0.0
        entropy = tf.nn.softmax_cross_entropy_with_logits(
            condition, logits[:, 1:]
        )
        return logits[:, :1], tf.reduce_mean(entropy)

    def _beside(self, images, condition):
        return beside(images, None if self._auxiliary else condition)

    def _shown(self, images):
        """Images as the discriminator sees them in training."""
        if self.instance_noise is not None:
            deviation = self.instance_noise
            if callable(deviation):
                step = tf.cast(self.optimizer.iterations, "float32")
                deviation = tf.cast(deviation(step), "float32")
            images += deviation * self.normal(tf.shape(images), True)
        return pack(images, self.packing)

    def _mix(self, images):
        shape = tf.stack([tf.shape(images)[0], 1, 1, 1])
        return self.uniform(shape, training=True)

    def _log_gradient_norm(self, network, gradients, optimizer):
        # Before they are applied, which may change the loss scale.
        if network not in self.gradient_norms:
            return
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            gradients = replicas.all_reduce("SUM", gradients)
        norm = tf.linalg.global_norm(gradients) / optimizer.scale_loss(1.0)
        finite = tf.math.is_finite(norm)  # others are of skipped updates
        self.gradient_norms[network].update_state(
            tf.where(finite, norm, 0.0), tf.cast(finite, "float32")
        )

    def _vectors(self, condition, count):
        return vectors(condition, count, self.num_classes, self.condition_dim)

    # Verbs. A graph takes no `None`: the condition is its last argument, or is
    # left out.

    def call(self, z, condition=None, training=False):
        z, condition = unpaired(z, condition)
        return self._decode(z, self._vectors(condition, z.shape[0]), training)

    def _decode(self, z, condition=None, training=False):
        images = self._unclipped(z, condition, training)
        return tf.clip_by_value(images, 0.0, 1.0)

    def _unclipped(self, z, condition=None, training=False):
        images = self.sampler(beside(z, condition), training=training)
        return 0.5 * tf.cast(images, "float32") + 0.5

    def sample(
        self, num_samples, *, condition=None, truncation=None, seed=None
    ):
        """Images of latents drawn from the prior, by the averaged generator.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)` or vectors `(num_samples,
                condition_dim)` of a conditional model. Without them, classes
                are drawn uniformly.
            truncation: Positive number t or `None`. With it, every number in
                z is drawn from the normal distribution cut to [-t, t], as if
                those beyond were drawn again: images closer to what was seen
                most, and less diverse.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - [BigGAN](https://arxiv.org/abs/1809.11096), on truncation
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, num_samples)
        seed = self.verb_seed(seed)
        if truncation is None:
            return self.graph(self._sample, num_samples, seed, *given)
        truncation = inputs.check_number(
            truncation, "truncation", minimum=0, exclusive=True
        )
        return self.graph(
            self._sample_truncated, num_samples, seed, truncation, *given
        )

    def _sample(self, num_samples, seed, condition=None):
        z = self._latents(num_samples, seed=seed)
        return self._images_of(z, seed, condition)

    def _sample_truncated(self, num_samples, seed, truncation, condition=None):
        shape = tf.stack([num_samples, self.latent_dim])
        z = latents.truncated_normal(shape, truncation, seed)
        return self._images_of(z, seed, condition)

    def _latents(self, *leading, seed):
        shape = tf.stack([*leading, self.latent_dim])
        return tf.random.stateless_normal(shape, seed, alg="philox")

    def _images_of(self, z, seed, condition):
        if condition is None and self.num_classes:
            seed = tf.random.experimental.stateless_fold_in(seed, 1)
            condition = random_classes(tf.shape(z)[0], self.num_classes, seed)
        return self._decode(z, condition)

    def interpolate(
        self, a, b, num_steps=8, *, condition=None, method="spherical"
    ):
        """Images on the way from some latents to others.

        Args:
            a: Latents to begin with, `(batch, latent_dim)`.
            b: Latents to end with, one for each.
            num_steps: Integer of at least 2, both ends included.
            condition: Classes or vectors `(batch, ...)` of a conditional model.
            method: `"spherical"` or `"linear"`, see `latents.interpolate`.

        Returns:
            `(num_steps, batch, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        path = latents.check_path(a, b, num_steps, method, self.latent_dim)
        given = [
            tf.tile(rows, [num_steps, 1])
            for rows in self._given(condition, path.shape[1])
        ]
        z = np.reshape(path, (-1, self.latent_dim))
        images = self.graph(self._decode, z, *given)
        return tf.reshape(images, (*path.shape[:2], *self.image_shape))

    def project(
        self, x, *, num_steps=300, num_starts=4, condition=None, seed=None
    ):
        """Latents that reproduce images, found by gradient descent.

        They minimize `sum((gan(z) - x)**2) + 0.01 * sum(z**2)`, see
        `latent_search.search`.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            num_steps: Integer, steps of the descent.
            num_starts: Integer, descents for each image, from latents drawn
                from the prior, of which the best one counts.
            condition: Classes or vectors of a conditional model.
            seed: Integer for the same latents each time, or `None`.

        Returns:
            `(batch, latent_dim)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_steps, "num_steps")
        inputs.check_positive_integer(num_starts, "num_starts")
        x = self.images_from(x)
        return self.graph(
            self._project,
            x,
            num_steps,
            num_starts,
            self.verb_seed(seed),
            *self._given(condition, x.shape[0]),
        )

    def _project(self, x, num_steps, num_starts, seed, condition=None):
        generate, z = self._begin_search(x, num_starts, seed, condition)
        return latent_search.project(generate, x, z, num_steps)

    def impute(
        self,
        x,
        mask,
        *,
        num_samples=1,
        num_steps=300,
        condition=None,
        seed=None,
    ):
        """Images whose missing pixels come from latents of the observed ones.

        Each sample is the search of `project` on the observed pixels alone,
        from latents drawn from the prior.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
                Missing pixels may have any value.
            mask: Booleans `(batch, *image_shape)` or broadcast to it, True
                where a pixel is observed.
            num_samples: Integer, how many searches an image has.
            num_steps: Integer, steps of each search.
            condition: Classes or vectors of a conditional model.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1], the
            observed pixels as they are.

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - [Semantic Image Inpainting with Deep Generative Models](
              https://arxiv.org/abs/1607.07539)
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
        generate, z = self._begin_search(x, num_samples, seed, condition)
        return latent_search.impute(generate, x, mask, z, num_steps)

    def _begin_search(self, x, num_starts, seed, condition):
        """What a search begins with: images of latents, and the latents."""
        if condition is not None:
            condition = tf.tile(condition, [num_starts, 1])
        z = self._latents(num_starts, tf.shape(x)[0], seed=seed)
        return lambda z: self._unclipped(z, condition), z

    def _given(self, condition, count):
        condition = self._vectors(condition, count)
        return [] if condition is None else [condition]

    # Saving

    def get_compile_config(self):
        if not self.compiled:
            return None
        noise = self.instance_noise
        if callable(noise):
            noise = saving.serialize_keras_object(noise)
        config = super().get_compile_config()
        return {
            "g_optimizer": config.pop("optimizer"),
            **config,
            "d_optimizer": saving.serialize_keras_object(self.d_optimizer),
            "loss": saving.serialize_keras_object(self.adversarial_loss),
            "gradient_penalty": saving.serialize_keras_object(self.penalty),
            "penalty_interval": self.penalty_interval,
            "d_steps": self.d_steps,
            "unrolled_steps": self.unrolled_steps,
            "instance_noise": noise,
            "drift": self.drift,
            "gradient_norms": bool(self.gradient_norms),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "conditioning": self.conditioning,
            "generator": saving.serialize_keras_object(self.generator),
            "discriminator": saving.serialize_keras_object(self.discriminator),
            "ema": self.ema,
            "packing": self.packing,
        }


def _neighbours(rows):
    """Indices of other rows: two and two change places."""
    size = tf.shape(rows)[0]
    others = tf.bitwise.bitwise_xor(tf.range(size), 1)
    return tf.where(others < size, others, 0)
