"""Generative adversarial networks, one for each level of a pyramid."""

import numbers

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import (
    inputs,
    laplacian_pyramid,
    latent_search,
    latents,
    losses,
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
from keras_gen.networks.defaults import default_discriminator, default_generator
from keras_gen.networks.laplacian import (
    laplacian_discriminator,
    laplacian_generator,
)

tfd = tfp.distributions


@saving.register_keras_serializable(package="keras_gen")
class LaplacianGAN(GenerativeModel):
    """Generative adversarial networks on a Laplacian pyramid (LAPGAN).

    Images are made from coarse to fine. The coarsest level is a plain GAN of
    small images. At each finer level a conditional GAN makes the band

        band = generator(low, noise),  low = expand(image of the level below)

    that sharpens the low-pass image, so that `low + band` is the image of the
    level, see `laplacian_pyramid`. Its discriminator sees the sum,
    `low + band`, of real and of generated bands. In training `low` is that of
    real images at every level, so that the levels learn independently of each
    other, together or one at a time; samples are made by the whole chain, where
    each level meets the faults of the one below. `compile(chained=)` lets it
    meet them in training as well.

    Each step updates all discriminators `d_steps` times on one batch, then all
    generators once. Logs `d_loss` (with the penalties) and `g_loss`, sums over
    the levels that train, `loss`, which is `g_loss`, and means over them:
    `d_real_accuracy` and `d_fake_accuracy`, how often a discriminator is right
    (see `losses.accuracies`), and `diversity`, how much generated bands differ
    compared with real ones (see `losses.diversity`).

    Args:
        image_shape: `(height, width, channels)`. Both sides must be divisible
            by `2**(num_levels - 1)`.
        latent_dim: Integer, width of the latents of the coarsest level.
        num_levels: Integer. Level 0 is that of full size, and each other one
            of half the size of the level before it: with 3 levels, images of
            28x28 have 28, 14 and 7 pixels. The coarsest must have at least 2.
        num_classes: Integer, if the model is conditional on classes.
        generators: Optional list of networks, one a level, the largest first.
            The last takes `(batch, latent_dim)` and gives images in [-1, 1];
            the others take the low-pass image and a plane of normal noise,
            `(batch, height, width, channels + 1)`, and give bands. Default to
            `networks.laplacian_generator`, and at the coarsest level to that
            of `GAN`.
        discriminators: Optional list of networks, one a level, the largest
            first, images in [-1, 1] to logits `(batch, 1)`. Default to
            `networks.laplacian_discriminator`, and at the coarsest level to
            that of `GAN`. Networks of conditional models take `[x, condition]`
            (or `[z, condition]`), classes as one-hot vectors.
        ema: Number between 0 and 1 or `None`, decay per step of the moving
            averages of the generators' weights, from which all samples come.
            With `None` they come from the generators themselves.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        z: Latents of all levels, `(batch, z_dim)`: those of the coarsest
            level, then the planes of noise, coarser ones first. `z_dim` is
            `latent_dim` and the pixels of all finer levels.
        condition: Classes `(batch,)` of a conditional model.

    Returns:
        Images, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> gan = LaplacianGAN((28, 28, 1), latent_dim=64, num_levels=3)
    >>> gan.compile(gradient_penalty=losses.R1(0.5))
    >>> gan.fit(train, epochs=20)
    >>> gan.sample(64)

    Reference:
        - [Deep Generative Image Models using a Laplacian Pyramid of
          Adversarial Networks](https://arxiv.org/abs/1506.05751). Here noise
          is normal, not uniform.
    """

    def __init__(
        self,
        image_shape,
        latent_dim,
        num_levels=3,
        *,
        num_classes=None,
        generators=None,
        discriminators=None,
        ema=0.999,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_levels = inputs.check_positive_integer(
            num_levels, "num_levels"
        )
        self.level_shapes = _level_shapes(self.image_shape, self.num_levels)
        self.num_classes = num_classes
        width = check_width(num_classes, None)

        *finer, coarsest = self.level_shapes
        if generators is None or discriminators is None:
            _check_coarsest(self.image_shape, self.num_levels, coarsest)
        self.generators = generators or [
            *(laplacian_generator(s, condition_dim=width) for s in finer),
            default_generator(self.latent_dim, coarsest, width),
        ]
        self.discriminators = discriminators or [
            *(laplacian_discriminator(s, condition_dim=width) for s in finer),
            default_discriminator(coarsest, width),
        ]
        self._check_networks(width)
        self.ema = None
        self.samplers = self.generators
        if ema is not None:
            self.ema = inputs.check_number(
                ema, "ema", minimum=0, maximum=1, exclusive=True
            )
            self.samplers = [self.averaged_copy(g) for g in self.generators]
        self.add_metrics(
            "loss",
            "d_loss",
            "g_loss",
            "d_real_accuracy",
            "d_fake_accuracy",
            "diversity",
        )
        self.built = True

    def _check_networks(self, width):
        for argument in ("generators", "discriminators"):
            networks = getattr(self, argument)
            is_list = isinstance(networks, list | tuple)
            if not is_list or len(networks) != self.num_levels:
                got = len(networks) if is_list else type(networks).__name__
                raise ValueError(
                    f"`{argument}` must be a list of one network a level, the "
                    f"largest first: {self.num_levels}, got {got}. "
                    "Leave it out for the default networks."
                )
        *finer, _ = self.level_shapes
        taken = [(h, w, c + 1) for h, w, c in finer] + [(self.latent_dim,)]
        for k, shape in enumerate(self.level_shapes):
            name = f"generators[{k}]"
            check_network(self.generators[k], taken[k], shape, name, width)
            name = f"discriminators[{k}]"
            check_network(self.discriminators[k], shape, (1,), name, width)

    @property
    def _noise_sizes(self):
        """Numbers in z of each level, the largest level first."""
        *finer, _ = self.level_shapes
        return [h * w for h, w, _ in finer] + [self.latent_dim]

    @property
    def z_dim(self):
        """Width of the latents of all levels together."""
        return sum(self._noise_sizes)

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(z_dim,)`."""
        return tfd.MultivariateNormalDiag(tf.zeros(self.z_dim))

    # Training

    def compile(
        self,
        d_optimizer=None,
        g_optimizer=None,
        loss="non_saturating",
        gradient_penalty=None,
        d_steps=1,
        label_smoothing=0.0,
        levels=None,
        chained=0.0,
        **kwargs,
    ):
        """Configures training.

        Args:
            d_optimizer: Of all discriminators. Defaults to `Adam(2e-4, 0.5)`.
            g_optimizer: Of all generators, which is also `model.optimizer`.
                Defaults to `Adam(2e-4, 0.5)`.
            loss: As in `GAN.compile`, but not `"feature_matching"`.
            gradient_penalty: As in `GAN.compile`.
            d_steps: Integer, updates of the discriminators per step.
            label_smoothing: Number in [0, 1), taken off the label of real
                images.
            levels: Integers, which levels train; the others stay as they are.
                0 is that of full size. By default all train. To train the rest
                later, compile again, with new optimizers.
            chained: Number in [0, 1], the share of each batch for which bands
                are generated on samples of the coarser levels, as in the chain
                that samples come from, and not on low-pass images of the data.
                Defaults to 0, as published.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.

        Raises:
            ValueError: If an argument is not as above, or both kinds of
                networks are given one optimizer.
        """
        self.compiled = False  # until all arguments are found right
        inputs.check_two_optimizers(d_optimizer, g_optimizer, kwargs)
        d_optimizer = d_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        g_optimizer = g_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        self.adversarial_loss = losses.get(loss, label_smoothing)
        if isinstance(self.adversarial_loss, losses.FeatureMatching):
            raise ValueError(
                "`loss` must be one that judges single images, got feature "
                "matching, which belongs to `GAN` and `SemiSupervisedGAN`. "
                "'non_saturating' suits most sets."
            )
        self.penalty = losses.get_penalty(gradient_penalty)
        self.d_steps = inputs.check_positive_integer(d_steps, "d_steps")
        self.levels = _check_levels(levels, self.num_levels)
        for k in self.levels:
            losses.check_penalty(self.penalty, self.discriminators[k])
        self.chained = inputs.check_number(
            chained, "chained", minimum=0, maximum=1
        )
        self.d_optimizer = self.prepare_optimizer(
            d_optimizer,
            self._trained_weights(self.discriminators),
            "d_optimizer",
        )
        super().compile(
            self.prepare_optimizer(
                g_optimizer,
                self._trained_weights(self.generators),
                "g_optimizer",
            ),
            **kwargs,
        )

    def _trained_weights(self, networks):
        return [w for k in self.levels for w in networks[k].trainable_weights]

    @property
    def optimizers(self):
        return [self.optimizer, self.d_optimizer]

    @property
    def g_optimizer(self):
        """The generator's optimizer, which is `model.optimizer`."""
        return self.optimizer

    def train_step(self, data):
        x, condition = self.unpack(data)
        condition = self._vectors(condition, x.shape[0])
        levels = self._trained_levels(x)
        for _ in range(self.d_steps):
            d_logs = self.discriminator_step(levels, condition)
        g_logs = self.generator_step(levels, condition)
        if self.ema is not None:
            for k in self.levels:
                self.update_moving_average(
                    self.samplers[k], self.generators[k], self.ema
                )
        return self.log(loss=g_logs["g_loss"], **d_logs, **g_logs)

    def _trained_levels(self, x):
        """`{level: (low, band)}` of images in [0, 1], as the networks see."""
        pairs = laplacian_pyramid.low_passes_and_bands(
            2.0 * x - 1.0, self.num_levels
        )
        return {k: pairs[k] for k in self.levels}

    def discriminator_step(self, levels, condition=None):
        """Updates the discriminators; gives their logs.

        Args:
            levels: `{level: (low, band)}`, of real images.
            condition: One-hot vectors `(batch, num_classes)`, or `None`.
        """
        fakes = self.generate(levels, condition, training=True)
        mixes = {
            k: self.uniform(tf.stack([tf.shape(low)[0], 1, 1, 1]), True)
            for k, (low, _) in levels.items()
        }
        weights = self._trained_weights(self.discriminators)
        with tf.GradientTape() as tape:
            logs = self.discriminator_logs(levels, fakes, condition, mixes)
            total = logs["d_loss"] + self._regularization(self.discriminators)
            scaled_loss = self.scale_loss(total, self.d_optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.d_optimizer)
        if isinstance(self.penalty, losses.WeightClipping):
            self.penalty.clip(weights)
        return logs

    def discriminator_logs(self, levels, fakes, condition, mixes=None):
        """Loss and accuracies of the discriminators.

        Args:
            levels: `{level: (low, band)}`, of real images.
            fakes: `{level: (low, band)}`, generated, see `generate`.
            condition: One-hot vectors `(batch, num_classes)`, or `None`.
            mixes: `{level: uniform noise (batch, 1, 1, 1)}` of the gradient
                penalty in training; without it there are no penalties.
        """
        training = mixes is not None
        d_loss, accuracies = 0.0, []
        for k, (low, band) in levels.items():
            real, fake = low + band, sum(fakes[k])
            logits = [
                self.discriminate(k, images, condition, training)
                for images in (real, fake)
            ]
            d_loss += self.adversarial_loss.discriminator(*logits)
            if training and self.penalty is not None:
                d_loss += self.penalty(
                    lambda x, k=k: self.discriminate(k, x, condition, True),
                    real,
                    fake,
                    mixes[k],
                )
            accuracies.append(losses.accuracies(self.adversarial_loss, *logits))
        real_accuracies, fake_accuracies = zip(*accuracies, strict=True)
        return {
            "d_loss": d_loss,
            "d_real_accuracy": tf.reduce_mean(real_accuracies),
            "d_fake_accuracy": tf.reduce_mean(fake_accuracies),
        }

    def generator_step(self, levels, condition=None):
        """Updates the generators; gives their logs."""
        weights = self._trained_weights(self.generators)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            fakes = self.generate(levels, condition, training=True)
            logs = self.generator_logs(levels, fakes, condition, training=True)
            total = logs["g_loss"] + self._regularization(self.generators)
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return logs

    def generator_logs(self, levels, fakes, condition, training=False):
        """Loss of the generators, and the diversity of their bands."""
        g_loss, diversities = 0.0, []
        for k, (low, band) in levels.items():
            fake_low, fake_band = fakes[k]
            real_logits = None
            if losses.generator_sees_real(self.adversarial_loss):
                real_logits = self.discriminate(
                    k, low + band, condition, training
                )
            fake_logits = self.discriminate(
                k, fake_low + fake_band, condition, training
            )
            g_loss += self.adversarial_loss.generator(real_logits, fake_logits)
            diversities.append(losses.diversity(band, fake_band))
        return {"g_loss": g_loss, "diversity": tf.reduce_mean(diversities)}

    def test_step(self, data):
        x, condition = self.unpack(data)
        condition = self._vectors(condition, x.shape[0])
        levels = self._trained_levels(x)
        fakes = self.generate(levels, condition)
        d_logs = self.discriminator_logs(levels, fakes, condition)
        g_logs = self.generator_logs(levels, fakes, condition)
        return self.log(loss=g_logs["g_loss"], **d_logs, **g_logs)

    def _regularization(self, networks):
        terms = [loss for k in self.levels for loss in networks[k].losses]
        return tf.add_n(terms) if terms else 0.0

    # Below, images are in [-1, 1] and `condition` the one-hot vectors that the
    # networks take, or `None`.

    def generate(self, levels, condition=None, training=False):
        """Fresh bands for `levels`: `{level: (low, band)}`, of which `low` may
        be that of samples, see `compile(chained=)`.
        """
        fakes = {}
        for k, low in self._low_passes(levels, condition, training).items():
            shape = tf.stack([tf.shape(low)[0], self._noise_sizes[k]])
            noise = self.normal(shape, training)
            band = self._band(
                self.generators, k, low, noise, condition, training
            )
            fakes[k] = low, band
        return fakes

    def _low_passes(self, levels, condition, training):
        """`{level: low}` that bands are made for: at first those of samples,
        as many as the `chained` share of the batch, and then the real ones.
        """
        lows = {k: low for k, (low, _) in levels.items()}
        finest = min(lows)
        if not self.chained or finest == self.num_levels - 1:
            return lows
        count = tf.shape(lows[finest])[0]
        z = self.normal(tf.stack([count, self.z_dim]), training)
        chain = self._sampled_levels(z, condition)
        num_chained = tf.round(self.chained * tf.cast(count, "float32"))
        is_chained = tf.range(count) < tf.cast(num_chained, "int32")
        is_chained = is_chained[:, tf.newaxis, tf.newaxis, tf.newaxis]
        # The coarser levels do not learn from what becomes of their samples.
        return {
            k: tf.where(is_chained, tf.stop_gradient(chain[k][0]), low)
            for k, low in lows.items()
        }

    def _band(self, generators, k, low, noise, condition, training=False):
        """The band of level `k` for noise `(batch, numbers of that level)`."""
        if k < self.num_levels - 1:
            plane = tf.reshape(noise, (-1, *self.level_shapes[k][:2], 1))
            noise = tf.concat([low, plane], axis=-1)
        band = generators[k](beside(noise, condition), training=training)
        return tf.cast(band, "float32")

    def discriminate(self, level, images, condition=None, training=False):
        """Logits `(batch, 1)` of images of a level, float32."""
        logits = self.discriminators[level](
            beside(images, condition), training=training
        )
        return tf.cast(logits, "float32")

    def _vectors(self, condition, count):
        return vectors(condition, count, self.num_classes)

    # Verbs. A graph takes no `None`: the condition is its last argument, or is
    # left out.

    def call(self, z, condition=None, training=False):
        z, condition = unpaired(z, condition)
        z = inputs.check_latents(z, self.z_dim)
        condition = self._vectors(condition, z.shape[0])
        return self._decode(z, condition, training)

    def _decode(self, z, condition=None, training=False):
        return tf.clip_by_value(self._chain(z, condition, training), 0.0, 1.0)

    def _chain(self, z, condition=None, training=False):
        """Images by all levels; hardly outside [0, 1]."""
        image = sum(self._sampled_levels(z, condition, training)[0])
        return 0.5 * image + 0.5

    def _sampled_levels(self, z, condition=None, training=False):
        """`[(low, band)]` of the images of latents, the largest level first."""
        z = tf.cast(z, "float32")  # Keras casts that of `call` to half
        sizes = self._noise_sizes[::-1]
        noises = tf.split(z, sizes, axis=1)[::-1]  # the largest level first
        levels, low = [], tf.zeros((tf.shape(z)[0], *self.level_shapes[-1]))
        for k in reversed(range(self.num_levels)):
            args = k, low, noises[k], condition, training
            band = self._band(self.samplers, *args)
            levels.insert(0, (low, band))
            if k > 0:
                size = self.level_shapes[k - 1][:2]
                low = laplacian_pyramid.expand(low + band, size)
        return levels

    def sample(self, num_samples, *, condition=None, seed=None):
        """Images of latents drawn from the prior, by the averaged generators.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)` of a conditional model. Without
                them, they are drawn uniformly.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        given = []
        if condition is not None:
            given = [self._vectors(condition, num_samples)]
        seed = self.verb_seed(seed)
        return self.graph(self._sample, num_samples, seed, *given)

    def _sample(self, num_samples, seed, condition=None):
        z = self._latents(num_samples, seed=seed)
        if condition is None and self.num_classes:
            seed = tf.random.experimental.stateless_fold_in(seed, 1)
            condition = random_classes(num_samples, self.num_classes, seed)
        return self._decode(z, condition)

    def _latents(self, *leading, seed):
        shape = tf.stack([*leading, self.z_dim])
        return tf.random.stateless_normal(shape, seed, alg="philox")

    def interpolate(
        self, a, b, num_steps=8, *, condition=None, method="spherical"
    ):
        """Images on the way from some latents to others.

        Args:
            a: Latents to begin with, `(batch, z_dim)`.
            b: Latents to end with, one for each.
            num_steps: Integer of at least 2, both ends included.
            condition: Classes `(batch,)` of a conditional model.
            method: `"spherical"` or `"linear"`, see `latents.interpolate`.

        Returns:
            `(num_steps, batch, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        path = latents.check_path(a, b, num_steps, method, self.z_dim)
        condition = self._vectors(condition, path.shape[1])
        given = []
        if condition is not None:
            given = [tf.tile(condition, [num_steps, 1])]
        z = np.reshape(path, (-1, self.z_dim))
        images = self.graph(self._decode, z, *given)
        return tf.reshape(images, (*path.shape[:2], *self.image_shape))

    def project(
        self, x, *, num_steps=300, num_starts=4, condition=None, seed=None
    ):
        """Latents of all levels that reproduce images, by gradient descent.

        They minimize `sum((gan(z) - x)**2) + 0.01 * sum(z**2)`, see
        `latent_search.search`.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            num_steps: Integer, steps of the descent.
            num_starts: Integer, descents for each image, from latents drawn
                from the prior, of which the best one counts.
            condition: Classes `(batch,)` of a conditional model.
            seed: Integer for the same latents each time, or `None`.

        Returns:
            `(batch, z_dim)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_steps, "num_steps")
        inputs.check_positive_integer(num_starts, "num_starts")
        x = self.images_from(x)
        condition = self._vectors(condition, x.shape[0])
        return self.graph(
            self._project,
            x,
            num_steps,
            num_starts,
            self.verb_seed(seed),
            *([] if condition is None else [condition]),
        )

    def _project(self, x, num_steps, num_starts, seed, condition=None):
        if condition is not None:
            condition = tf.tile(condition, [num_starts, 1])
        return latent_search.project(
            lambda z: self._chain(z, condition),
            x,
            self._latents(num_starts, tf.shape(x)[0], seed=seed),
            num_steps,
        )

    # Saving

    def get_compile_config(self):
        if not self.compiled:
            return None
        config = super().get_compile_config()
        return {
            "g_optimizer": config.pop("optimizer"),
            **config,
            "d_optimizer": saving.serialize_keras_object(self.d_optimizer),
            "loss": saving.serialize_keras_object(self.adversarial_loss),
            "gradient_penalty": saving.serialize_keras_object(self.penalty),
            "d_steps": self.d_steps,
            "levels": list(self.levels),
            "chained": self.chained,
        }

    def get_config(self):
        networks = {
            name: [
                saving.serialize_keras_object(n) for n in getattr(self, name)
            ]
            for name in ("generators", "discriminators")
        }
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_levels": self.num_levels,
            "num_classes": self.num_classes,
            **networks,
            "ema": self.ema,
        }


def _level_shapes(image_shape, num_levels):
    """Shapes of the images of all levels, the largest first."""
    height, width, channels = image_shape
    step = 2 ** (num_levels - 1)
    if height % step or width % step:
        raise ValueError(
            f"`num_levels={num_levels}` halves images {num_levels - 1} times, "
            f"so both sides must be divisible by {step}, got `image_shape` "
            f"{image_shape}. Crop, pad or resize the images, or have fewer "
            "levels."
        )
    shapes = tuple(
        (height >> k, width >> k, channels) for k in range(num_levels)
    )
    if min(shapes[-1][:2]) < 2 and num_levels > 1:
        raise ValueError(
            "The coarsest level must have at least 2 pixels in height and "
            f"width, got {shapes[-1][:2]} of `image_shape` {image_shape} at "
            f"`num_levels={num_levels}`. Have fewer levels."
        )
    return shapes


def _check_coarsest(image_shape, num_levels, coarsest):
    """Says of all levels what `default_generator` would of the coarsest."""
    *sides, channels = image_shape
    shorter = min(coarsest[:2])
    # What halves the images to the coarsest level, and that one to 4..7 pixels.
    step = 2 ** (num_levels - 1 + shorter.bit_length() - 3)
    if shorter >= 16 and any(side % step for side in sides):
        fitting = tuple(side // step * step for side in sides)
        raise ValueError(
            f"`image_shape` {image_shape} at `num_levels={num_levels}` leaves "
            f"{coarsest} at the coarsest level, for which there are no default "
            f"networks: both sides of the images must be divisible by {step}. "
            f"Crop or resize them to {(*fitting, channels)}, have another "
            "number of levels, or give `generators` and `discriminators`."
        )


def _check_levels(levels, num_levels):
    """The levels that train, in order."""
    every = tuple(range(num_levels))
    if levels is None:
        return every
    known = isinstance(levels, list | tuple | range) and all(
        isinstance(k, numbers.Integral) and k in every for k in levels
    )
    chosen = {int(k) for k in levels} if known else ()
    if not chosen or len(chosen) != len(levels):
        raise ValueError(
            f"`levels` must be different integers in [0, {num_levels - 1}], "
            f"0 for full size, got {levels!r}. Leave it out to train all."
        )
    return tuple(sorted(chosen))
