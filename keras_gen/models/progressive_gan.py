"""Progressive-growing generative adversarial network."""

import collections
import functools
import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs, latent_search, latents, losses
from keras_gen.conditioning import (
    beside,
    check_network,
    check_width,
    random_classes,
    unpaired,
    vectors,
)
from keras_gen.generative_model import GenerativeModel
from keras_gen.growth import GrowthSchedule, by_resolution, entry_at
from keras_gen.layers.fade_in import downscale, upscale
from keras_gen.models import growing, growth_plan
from keras_gen.networks.progressive import (
    progressive_discriminator,
    progressive_generator,
    resolutions_of,
)
from keras_gen.staged_data import StagedStream

tfd = tfp.distributions


@saving.register_keras_serializable(package="keras_gen")
class ProgressiveGAN(GenerativeModel):
    """Progressive-growing generative adversarial network.

    Training begins with images of 4x4 pixels. Whenever the schedule says so,
    both networks get a block for twice the resolution, which is faded in: with
    `alpha` rising from 0 to 1, generated and real images are

        alpha * image + (1 - alpha) * upscale(image of the resolution below)

    and the features after the discriminator's new block are blended with those
    of the pooled image. All layers go on learning. At the beginning and at the
    end of each fade both optimizers start afresh, moments and steps. One `fit`
    goes through all resolutions; where it is depends on `images_seen` alone.

    Of each batch it updates the discriminator `d_steps` times, then the
    generator once, then the moving average of the generator. Logs `d_loss`
    (with penalties), `g_loss`, `loss`, which is `g_loss`, `d_real_accuracy`
    and `d_fake_accuracy` (see `losses.accuracies`), `diversity` (see
    `losses.diversity`), `resolution` and `alpha`; while it trains, also
    `images_per_second` and `hours_left` of the whole schedule, by counting
    operations.

    Args:
        image_shape: `(height, width, channels)` of the last resolution. The
            shorter side is 4 times a power of 2; see
            `networks.progressive_generator`.
        latent_dim: Integer, dimensions of z, which is standard normal; the
            generator scales it to a length of `sqrt(latent_dim)`.
        fmap_base, fmap_max: Integers, widths of the default networks:
            `min(2 * fmap_base / resolution, fmap_max)` maps.
        num_classes: Integer, if the model is conditional on classes. The
            generator draws those of the real batch.
        conditioning: How the discriminator takes classes: `"auxiliary"`, as
            in the paper: it classifies, and both networks lower the
            cross-entropy, or `"projection"` of its features on the class.
        generator: Optional network like `networks.progressive_generator`.
        discriminator: Optional network like
            `networks.progressive_discriminator`; with `"auxiliary"` classes
            it has `num_logits=1 + num_classes`.
        ema: Number between 0 and 1 or `None`, decay per step of the moving
            average of the generator's weights, from which all samples come.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        z: Latents `(batch, latent_dim)`.
        condition: Classes of a conditional model, one an image.

    Returns:
        Images of the resolution at hand, enlarged to `image_shape`, float32 in
        [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> gan = ProgressiveGAN((64, 64, 3), latent_dim=128, fmap_max=128)
    >>> gan.compile(schedule=GrowthSchedule(40_000, 40_000, batch_size=16))
    >>> gan.plan()
    >>> gan.fit(train, epochs=20)
    >>> gan.sample(16)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(
        self,
        image_shape,
        latent_dim=512,
        *,
        fmap_base=8192,
        fmap_max=512,
        num_classes=None,
        conditioning="auxiliary",
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
        self.resolutions = tuple(resolutions_of(self.image_shape))
        self.fmap_base, self.fmap_max = fmap_base, fmap_max
        self.num_classes = num_classes
        width = check_width(num_classes, None)
        if conditioning not in ("auxiliary", "projection"):
            raise ValueError(
                "`conditioning` must be 'auxiliary' or 'projection', got "
                f"{conditioning!r}."
            )
        self.conditioning = conditioning
        num_logits = 1 + (num_classes or 0) * self._auxiliary
        projected = None if self._auxiliary else width

        maps = {"fmap_base": fmap_base, "fmap_max": fmap_max}
        self.generator = generator or progressive_generator(
            self.latent_dim, self.image_shape, condition_dim=width, **maps
        )
        self.discriminator = discriminator or progressive_discriminator(
            self.image_shape,
            num_logits=num_logits,
            condition_dim=projected,
            **maps,
        )
        _check_growing(
            self.generator,
            (self.latent_dim,),
            self.image_shape,
            "generator",
            width,
        )
        _check_growing(
            self.discriminator,
            self.image_shape,
            (num_logits,),
            "discriminator",
            projected,
        )
        self.ema = None
        self.sampler = self.generator
        if ema is not None:
            self.ema = inputs.check_number(
                ema, "ema", minimum=0, maximum=1, exclusive=True
            )
            self.sampler = self.averaged_copy(self.generator)

        # Where training is, for it to go on from there in another process:
        # "here" is at the present resolution.
        self._images_seen = self._add_state("images_seen", "int64", 0)
        self._resolution = self._add_state(
            "resolution", "int64", self.resolutions[0]
        )
        self._is_fading = self._add_state("is_fading", "int64", 0)
        self._batches_here = self._add_state("batches_here", "int64", 0)
        self._alpha = self._add_state("alpha", "float32", 1.0)
        self.phase = None  # the one that `train_step` is for
        self._tested_resolution = None  # the one that `test_step` is for
        self._predicted_resolution = None  # and `predict_step`
        self._stream = None
        self._epoch_size = None  # images of an epoch, of arrays
        self.add_metrics(
            "loss",
            "d_loss",
            "g_loss",
            "d_real_accuracy",
            "d_fake_accuracy",
            "diversity",
        )
        self.built = True

    def _add_state(self, name, dtype, value):
        return self.add_weight(
            name=name,
            shape=(),
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )

    @property
    def _auxiliary(self):
        return bool(self.num_classes) and self.conditioning == "auxiliary"

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        return tfd.MultivariateNormalDiag(tf.zeros(self.latent_dim))

    @property
    def images_seen(self):
        """Images that it was trained on so far, an integer."""
        return int(_value(self._images_seen))

    @property
    def resolution(self):
        """Resolution of the last training step, or the first; an integer."""
        return int(_value(self._resolution))

    @property
    def alpha(self):
        """Weight of the newest block in the last training step, a float."""
        return float(_value(self._alpha))

    # Training

    def compile(
        self,
        d_optimizer=None,
        g_optimizer=None,
        loss="wasserstein",
        gradient_penalty=10.0,
        drift=0.001,
        d_steps=1,
        schedule=None,
        max_batch_size=None,
        **kwargs,
    ):
        """Configures training.

        Args:
            d_optimizer: The discriminator's. Defaults to the paper's,
                `Adam(1e-3, beta_1=0.0, beta_2=0.99, epsilon=1e-8)`. Any must
                be one whose state begins at 0.
            g_optimizer: The generator's, which is also `model.optimizer`, with
                the same default.
            loss: `"wasserstein"` or another loss as in `GAN.compile`, but not
                `"feature_matching"`.
            gradient_penalty: `None`, a number (weight of
                `losses.GradientPenalty`) or an object, as in `GAN.compile`.
            drift: Number, weight of `mean(real_logits**2)` in `d_loss`, which
                keeps a critic's logits near 0.
            d_steps: Integer, updates of the discriminator per step.
            schedule: `GrowthSchedule`, when to grow, with which batches and
                learning rates. Defaults to `GrowthSchedule()`.
            max_batch_size: Optional integer, or dictionary by resolution, the
                most images that a replica computes at once. The gradient of a
                larger batch is accumulated over k parts, images i, i + k,
                i + 2k, ... It is the same gradient, also of `MinibatchStdDev`
                if k divides the number of its groups; the smallest such k is
                taken, unless it is more than twice what the images need. With
                `loss="relativistic"` it is not: the logits that it takes means
                of are then those of a part.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.

        Raises:
            ValueError: If an argument is not as above, both networks are
                given one optimizer, or some do not go together.
        """
        self.compiled = False  # until all arguments are found right
        inputs.check_two_optimizers(d_optimizer, g_optimizer, kwargs)
        self.adversarial_loss = losses.get(loss)
        if isinstance(self.adversarial_loss, losses.FeatureMatching):
            raise ValueError(
                "`loss='feature_matching'` is not for networks that grow. "
                "Choose another one; 'wasserstein' is the paper's."
            )
        self.penalty = losses.get_penalty(gradient_penalty)
        self.drift = inputs.check_number(drift, "drift", minimum=0)
        self.d_steps = inputs.check_positive_integer(d_steps, "d_steps")
        self.schedule = self._check_schedule(
            GrowthSchedule() if schedule is None else schedule
        )
        self.max_batch_size = by_resolution(
            {} if max_batch_size is None else max_batch_size,
            "max_batch_size",
            inputs.check_positive_integer,
        )
        self.d_optimizer = self.prepare_optimizer(
            d_optimizer or growing.published_adam(),
            self.discriminator.trainable_weights,
            "d_optimizer",
        )
        super().compile(
            self.prepare_optimizer(
                g_optimizer or growing.published_adam(),
                self.generator.trainable_weights,
                "g_optimizer",
            ),
            **kwargs,
        )
        for optimizer in self.optimizers:
            growing.prepare(optimizer, self.schedule)
        self.phase = self.schedule.phase(self.images_seen)
        self._set_learning_rate(self.phase.resolution)
        if not self.images_seen:  # the schedule may begin above 4 pixels
            self._enter(self.phase)

    def _check_schedule(self, schedule):
        if not isinstance(schedule, GrowthSchedule):
            raise ValueError(
                "`schedule` must be a `GrowthSchedule`, got "
                f"{type(schedule).__name__}."
            )
        last = self.resolutions[-1]
        for name in ("start_resolution", "end_resolution"):
            resolution = getattr(schedule, name) or last
            if resolution > last:
                raise ValueError(
                    f"`schedule` must not go beyond the images, whose shorter "
                    f"side is {last}, got `{name}={resolution}`."
                )
        return schedule.ending_at(schedule.end_resolution or last)

    @property
    def optimizers(self):
        return [self.optimizer, self.d_optimizer]

    @property
    def g_optimizer(self):
        """The generator's optimizer, which is `model.optimizer`."""
        return self.optimizer

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
        """Trains the model through the schedule, from where it is.

        Each batch of the data makes one or more training steps, so that none
        has more images than the schedule says. Its images are reduced to the
        resolution at hand, means over squares of pixels.

        Args:
            x: Images of `image_shape`, as `GenerativeModel.fit` takes them,
                best in batches as large as the largest of the schedule. Or a
                function `(resolution, batch_size)` that gives a
                `tf.data.Dataset` of such batches, for data that are stored in
                several resolutions: made anew at each call, for a seeded
                shuffle to begin as it did. Batches may be smaller, not larger.
                `fit` looks at the first batch of every resolution at once.
                An epoch is then about as many images as the dataset of the
                schedule's first resolution has, and each resolution begins
                with the first batch of its dataset.
            y: Classes `(batch,)`, if `x` is an array.
            batch_size: Integer, of arrays: images in a batch of data. Defaults
                to the largest batch of the schedule.
            epochs, verbose, callbacks, **kwargs: See `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If the data is not what the model takes, or the sizes
                and numbers are not positive.
            FloatingPointError: If 20 updates in a row were skipped because
                gradients were not finite.
        """
        try:
            return super().fit(
                x,
                y,
                batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=[growing.Progress(), callbacks],
                **kwargs,
            )
        finally:
            self.__dict__["_stream"] = None

    def _checked(self, x, y=None, *, batch_size=None, argument="x", **feeding):
        if "shuffle" not in feeding:  # not training data
            return super()._checked(
                x, y, batch_size=batch_size, argument=argument, **feeding
            )
        if callable(x):
            return self._ticks(x, y, feeding["steps_per_epoch"])
        if batch_size is None:
            batch_size = self._largest_batch()
        dataset = super()._checked(x, y, batch_size=batch_size, **feeding)
        self._epoch_size = None
        if not isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
            num_batches = feeding["steps_per_epoch"]
            self._epoch_size = num_batches and num_batches * batch_size
            if not num_batches:
                several = self.distribute_strategy.num_replicas_in_sync > 1
                size, batch_size = len(x), min(len(x), batch_size)
                self._epoch_size = size - size % batch_size * several
        return dataset

    def _position(self):
        epoch, seed = super()._position()
        if self._epoch_size:  # of arrays, in whichever `fit` they come
            epoch = self.images_seen // self._epoch_size
        return epoch, seed

    def _largest_batch(self):
        return max(map(self.batch_size_at, self.resolutions))

    def batch_size_at(self, resolution):
        """Images of a step over all replicas, as many on each, an integer."""
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        images = self.schedule.batch_size_at(resolution)
        return max(1, images // num_replicas) * num_replicas

    def _ticks(self, make_dataset, y, steps_per_epoch):
        """A dataset of zeros, one for each largest batch of an epoch."""
        if y is not None:
            raise ValueError(
                "`y` must be `None` beside a function of datasets, which yield "
                "`(x, y)` themselves."
            )
        try:
            inspect.signature(make_dataset).bind(4, 1)
        except TypeError:
            raise ValueError(
                "`x` must be a function of (resolution, batch_size) that gives "
                "a `tf.data.Dataset`, got one of other arguments."
            ) from None
        # A plain attribute: Keras would wrap what the stream holds.
        self.__dict__["_stream"] = StagedStream(
            make_dataset,
            self._check_staged,
            self.distribute_strategy.experimental_distribute_dataset,
        )
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        ticks = tf.data.Dataset.from_tensors(tf.zeros(num_replicas)).repeat()
        # All are looked at now, and made anew when training comes to them. The
        # first one's length is that of an epoch: the same in each `fit`.
        for resolution in reversed(self.schedule.resolutions()):
            batch_size = self.batch_size_at(resolution)
            dataset = self._stream.dataset(resolution, batch_size)
        if steps_per_epoch:
            return ticks
        length = int(dataset.cardinality())
        if length < 0:
            raise ValueError(
                "`x` must give datasets that know their length, or "
                "`steps_per_epoch` must say what an epoch is. Use "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`."
            )
        num_images = length * batch_size
        return ticks.take(-(-num_images // self._largest_batch()))

    def _check_staged(self, dataset, resolution):
        argument = f"x({resolution}, batch_size)"
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                f"`{argument}` must be a `tf.data.Dataset` of batches, got a "
                f"{type(dataset).__name__}."
            )
        inputs.check_data(
            dataset,
            image_shape=self.shape_at(resolution),
            num_classes=self.num_classes,
            argument=argument,
        )
        size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        if self.distribute_strategy.num_replicas_in_sync > 1 and not size:
            raise ValueError(
                f"`{argument}` may end with a batch too short for all "
                "replicas. Batch it with `drop_remainder=True`."
            )

    def _make_function(self, step_function):
        make = super()._make_function
        function = make(step_function)
        if step_function != self.train_step:
            return function
        # One for each number of rows, on which that of the parts depends.
        functions = collections.defaultdict(lambda: make(step_function))
        traced = None  # the phase that they are for

        def growing_function(iterator):
            nonlocal traced
            if self.resuming:
                return function(iterator)
            logs = None
            for _, data in zip(
                range(self.steps_per_execution), iterator, strict=False
            ):
                for batch in self._batches(data):
                    if traced != self.phase:
                        functions.clear()
                        traced = self.phase
                    logs = functions[self._num_rows(batch)]([batch])
            if logs is None:
                raise StopIteration
            return logs

        return growing_function

    def make_test_function(self, force=False):
        resolution = self.resolution
        grown = resolution != self._tested_resolution
        self._tested_resolution = resolution
        return super().make_test_function(force=force or grown)

    def make_predict_function(self, force=False):
        resolution = self.resolution
        grown = resolution != self._predicted_resolution
        self._predicted_resolution = resolution
        return super().make_predict_function(force=force or grown)

    def _follow_schedule(self):
        """Enters the phase of the next image, if it is a new one."""
        phase = self.schedule.phase(self.images_seen)
        now = self.resolution, bool(_value(self._is_fading))
        if (phase.resolution, phase.is_fading) != now:
            for optimizer in self.optimizers:
                growing.forget(optimizer)
            if phase.resolution != self.resolution:
                self._batches_here.assign(0)
                self._set_learning_rate(phase.resolution)
            self._enter(phase)
        self.phase = phase

    def _enter(self, phase):
        self._resolution.assign(phase.resolution)
        self._is_fading.assign(int(phase.is_fading))
        self._alpha.assign(self.schedule(self.images_seen)[1])
        self._graphs.clear()

    def _set_learning_rate(self, resolution):
        rate = self.schedule.learning_rate_at(resolution)
        if rate is not None:
            for optimizer in self.optimizers:
                optimizer.learning_rate = rate

    def _batches(self, data):
        """Batches of one step each, of a batch of data.

        The schedule is followed before each: none is larger than it says.
        """
        if self._stream is not None:
            yield from self._batches_of_stream()
            return
        strategy = self.distribute_strategy
        num_rows = self._num_rows(data)
        left = np.arange(num_rows)
        while left.size:
            self._follow_schedule()
            size = self.batch_size_at(self.phase.resolution)
            size //= strategy.num_replicas_in_sync
            # Every so many rows: on two replicas these are the same as on one.
            every = slice(None, None, -(-left.size // size))
            rows, left = left[every], np.delete(left, every)
            if rows.size == num_rows:
                yield data
            else:
                take = functools.partial(_take, rows)
                yield strategy.run(take, args=(data,))

    def _batches_of_stream(self):
        num_left = self._largest_batch()
        while num_left > 0:
            self._follow_schedule()
            resolution = self.phase.resolution
            size = self.batch_size_at(resolution)
            num_before = int(_value(self._batches_here))
            batch = self._stream.batch(resolution, size, num_before)
            num_replicas = self.distribute_strategy.num_replicas_in_sync
            num_images = num_replicas * self._num_rows(batch)
            if num_images > size:
                raise ValueError(
                    f"`x({resolution}, {size})` must give batches of {size} "
                    f"images, got {num_images}. Batch it with "
                    "`.batch(batch_size)`."
                )
            yield batch
            num_left -= size

    def _num_rows(self, data):
        """Images of a batch on each replica."""
        images = tf.nest.flatten(data)[0]
        strategy = self.distribute_strategy
        return strategy.experimental_local_results(images)[0].shape[0]

    def train_step(self, data):
        x, condition = self._unpack(data)
        alpha = self._next_alpha()
        real = self._real_images(x, self.phase.resolution, alpha)
        for _ in range(self.d_steps):
            d_logs = self.discriminator_step(real, condition, alpha)
        g_logs = self.generator_step(real, condition, alpha)
        if self.ema is not None:
            self._update_moving_averages()
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        num_images = tf.shape(x, out_type="int64")[0] * num_replicas
        self._images_seen.assign(self._images_seen.value + num_images)
        self._batches_here.assign(self._batches_here.value + 1)
        return self.log(loss=g_logs["g_loss"], **d_logs, **g_logs)

    def _unpack(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = tf.convert_to_tensor(x)
        if not self.num_classes:
            return x, None
        return x, vectors(y, x.shape[0], self.num_classes)

    def _next_alpha(self):
        """Weight of the block that fades in; `None` if none does."""
        if not self.phase.is_fading:
            self._alpha.assign(1.0)
            return None
        images = self._images_seen.value - self.phase.start
        alpha = tf.cast(images, "float32") / self.schedule.fade_images
        alpha = tf.minimum(alpha, 1.0)
        self._alpha.assign(alpha)
        return alpha

    def _real_images(self, x, resolution, alpha=None):
        """Images of a resolution in [-1, 1], of some of the full size."""
        shape = self.shape_at(resolution)
        if tuple(x.shape[1:]) == shape:
            scale = 255.0 if tf.as_dtype(x.dtype).is_integer else 1.0
            x = tf.cast(x, "float32") / scale
        else:
            factor = self.image_shape[0] // shape[0]
            x = downscale(self.to_float(x), factor)
        # At the first resolution nothing fades, and sides may be odd.
        if alpha is not None and resolution > self.resolutions[0]:
            x = alpha * x + (1.0 - alpha) * upscale(downscale(x))
        return 2.0 * x - 1.0

    def shape_at(self, resolution):
        """`(height, width, channels)` of images of a resolution."""
        factor = self.resolutions[-1] // resolution
        height, width, channels = self.image_shape
        return height // factor, width // factor, channels

    def discriminator_step(self, real, condition=None, alpha=None):
        """Updates the discriminator once; gives its logs.

        Args:
            real: Images of the resolution at hand, in [-1, 1].
            condition: Their classes as one-hot vectors, or `None`.
            alpha: Weight of the newest block, or `None` for 1.
        """
        num_images = tf.shape(real)[0]
        z = self._draw_latents(num_images)
        mix = self.uniform(tf.stack([num_images, 1, 1, 1]), training=True)
        weights = self._active_weights(self.discriminator)

        def logs_and_gradients(real, condition, z, mix):
            fake = self._generate(z, condition, alpha)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([weight.value for weight in weights])
                logs = self._discriminator_logs(
                    real, fake, condition, self.phase.resolution, alpha, mix
                )
                scaled_loss = self.scale_loss(logs["d_loss"], self.d_optimizer)
            return logs, tape.gradient(scaled_loss, weights)

        logs, gradients = growing.in_parts(
            self.num_parts(self.phase.resolution, real.shape[0]),
            logs_and_gradients,
            (real, condition, z, mix),
        )
        self.apply_gradients(gradients, weights, self.d_optimizer)
        if isinstance(self.penalty, losses.WeightClipping):
            self.penalty.clip(weights)
        return logs

    def generator_step(self, real, condition=None, alpha=None):
        """Updates the generator; arguments as of `discriminator_step`."""
        z = self._draw_latents(tf.shape(real)[0])
        weights = self._active_weights(self.generator)

        def logs_and_gradients(real, condition, z):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([weight.value for weight in weights])
                fake = self._generate(z, condition, alpha)
                g_loss = self._generator_loss(
                    real, fake, condition, self.phase.resolution, alpha
                )
                scaled_loss = self.scale_loss(g_loss, self.optimizer)
            diversity = losses.diversity(real, fake)
            logs = {"g_loss": g_loss, "diversity": diversity}
            return logs, tape.gradient(scaled_loss, weights)

        logs, gradients = growing.in_parts(
            self.num_parts(self.phase.resolution, real.shape[0]),
            logs_and_gradients,
            (real, condition, z),
        )
        self.apply_gradients(gradients, weights, self.optimizer)
        return logs

    def _active_weights(self, network):
        layers = network.layers_at(self.phase.resolution, self.phase.is_fading)
        return [w for layer in layers for w in layer.trainable_weights]

    def num_parts(self, resolution, num_images=None):
        """In how many parts a replica computes a batch, an integer.

        Args:
            resolution: Integer.
            num_images: Integer, images on the replica. Defaults to its share
                of the schedule's batch.
        """
        if num_images is None:
            num_replicas = self.distribute_strategy.num_replicas_in_sync
            num_images = self.batch_size_at(resolution) // num_replicas
        most = entry_at(self.max_batch_size, resolution)
        group_size = getattr(self.discriminator, "group_size", 1)
        return growing.num_parts(num_images, most or num_images, group_size)

    def _update_moving_averages(self):
        # Also of layers that have learned and are no longer used.
        for average, layer in zip(
            self.sampler.layers_up_to(self.phase.resolution),
            self.generator.layers_up_to(self.phase.resolution),
            strict=True,
        ):
            self.update_moving_average(average, layer, self.ema)

    def test_step(self, data):
        x, condition = self._unpack(data)
        resolution = self._tested_resolution or self.resolution
        alpha = self._alpha.value
        real = self._real_images(x, resolution, alpha)
        z = self._draw_latents(tf.shape(x)[0], training=False)
        fake = self._generate(z, condition, alpha, resolution)
        where = resolution, alpha
        logs = self._discriminator_logs(real, fake, condition, *where)
        g_loss = self._generator_loss(real, fake, condition, *where)
        diversity = losses.diversity(real, fake)
        return self.log(loss=g_loss, g_loss=g_loss, diversity=diversity, **logs)

    # Below, images are in [-1, 1] and `condition` one-hot vectors, or `None`.

    def _draw_latents(self, num_images, training=True):
        return self.normal(tf.stack([num_images, self.latent_dim]), training)

    def _generate(self, z, condition, alpha, resolution=None):
        return self.generator(
            beside(z, condition),
            resolution=resolution or self.phase.resolution,
            alpha=alpha,
        )

    def _judge(self, images, condition, resolution, alpha):
        """The logits, and the auxiliary classifier's mean cross-entropy."""
        logits = self.discriminator(
            beside(images, None if self._auxiliary else condition),
            resolution=resolution,
            alpha=alpha,
        )
        if not self._auxiliary:
            return logits, 0.0
        entropy = tf.nn.softmax_cross_entropy_with_logits(
            condition, logits[:, 1:]
        )
        return logits[:, :1], tf.reduce_mean(entropy)

    def _discriminator_logs(
        self, real, fake, condition, resolution, alpha, mix=None
    ):
        where = condition, resolution, alpha
        real_logits, real_entropy = self._judge(real, *where)
        fake_logits, fake_entropy = self._judge(fake, *where)
        d_loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        d_loss += real_entropy + fake_entropy
        if mix is not None:
            d_loss += self.drift * tf.reduce_mean(tf.square(real_logits))
        if mix is not None and self.penalty is not None:
            d_loss += self.penalty(
                lambda x: self._judge(x, *where)[0], real, fake, mix
            )
        real_accuracy, fake_accuracy = losses.accuracies(
            self.adversarial_loss, real_logits, fake_logits
        )
        return {
            "d_loss": d_loss,
            "d_real_accuracy": real_accuracy,
            "d_fake_accuracy": fake_accuracy,
        }

    def _generator_loss(self, real, fake, condition, resolution, alpha):
        where = condition, resolution, alpha
        fake_logits, fake_entropy = self._judge(fake, *where)
        real_logits = None
        if losses.generator_sees_real(self.adversarial_loss):
            real_logits, _ = self._judge(real, *where)
        return (
            self.adversarial_loss.generator(real_logits, fake_logits)
            + fake_entropy
        )

    # What is to come

    def plan(self, measured_steps=0):
        """Prints what training will do at each resolution.

        For each: the parameters of generator and discriminator, the batch and
        in how many parts a replica computes it (see `max_batch_size` in
        `compile`), the images of fade and rest, GFLOP of a step for each
        image, and an estimate of the memory that a step takes on a replica.

        Args:
            measured_steps: Integer. If positive, so many steps are run on
                noise at each resolution to time them, after one to compile;
                the model is then put back as it was.

        Returns:
            The rows of the table, a list of dictionaries.

        Raises:
            ValueError: If the model is not compiled, or `measured_steps` is
                not an integer of at least 0.
        """
        self._assert_compile_called("plan")
        measured_steps = inputs.check_count(measured_steps, "measured_steps")
        rows = growth_plan.rows_of(self, measured_steps)
        print(growth_plan.text_table(rows))
        return rows

    # Verbs. Graphs are kept for each resolution. They take no `None`: the
    # condition is their last argument, or is left out.

    def call(self, z, condition=None, training=False):
        z, condition = unpaired(z, condition)
        z = inputs.check_latents(z, self.latent_dim)
        return self._decode(None, z, *self._given(condition, z.shape[0]))

    def _decode(self, resolution, z, condition=None):
        """Images in [0, 1] of one resolution; `None` is now, enlarged."""
        images = self._unclipped(resolution, z, condition)
        return tf.clip_by_value(images, 0.0, 1.0)

    def _unclipped(self, resolution, z, condition=None):
        now = resolution is None
        images = self.sampler(
            beside(z, condition),
            resolution=self.resolution if now else resolution,
            alpha=self._alpha.value if now else None,
        )
        images = 0.5 * images + 0.5
        if now:
            images = upscale(images, self.image_shape[0] // images.shape[1])
        return images

    def _graph_of(self, function, resolution, *arguments):
        at_resolution = functools.partial(function, resolution)
        at_resolution.__name__ = (
            f"{function.__name__}_{resolution}_{self.resolution}"
        )
        return self.graph(at_resolution, *arguments)

    def sample(
        self,
        num_samples,
        *,
        condition=None,
        resolution=None,
        truncation=None,
        seed=None,
    ):
        """Images of latents drawn from the prior, by the averaged generator.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)` of a conditional model. Without
                them, classes are drawn uniformly.
            resolution: Integer, a resolution that was trained, for its images
                as they are. By default it is the present one, faded in as far
                as it is, and enlarged to `image_shape`.
            truncation: Positive number t or `None`. With it, every number in
                z is drawn from the normal distribution cut to [-t, t]: images
                closer to what was seen most, and less diverse.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1], or of the size of
            `resolution`.

        Raises:
            ValueError: If an argument is not as above.

        Reference:
            - [BigGAN](https://arxiv.org/abs/1809.11096), on truncation
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        if resolution is not None:
            self._check_trained(resolution)
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, num_samples)
        arguments = [num_samples, self.verb_seed(seed)]
        function = self._sample
        if truncation is not None:
            function = self._sample_truncated
            arguments.append(
                inputs.check_number(
                    truncation, "truncation", minimum=0, exclusive=True
                )
            )
        return self._graph_of(function, resolution, *arguments, *given)

    def _check_trained(self, resolution):
        first = self.schedule.start_resolution if self.compiled else 4
        trained = [r for r in self.resolutions if first <= r <= self.resolution]
        if resolution not in trained:
            raise ValueError(
                f"`resolution` must be one that was trained, of {trained}, got "
                f"{resolution!r}. Leave it out for the present one."
            )

    def _sample(self, resolution, num_samples, seed, condition=None):
        shape = tf.stack([num_samples, self.latent_dim])
        z = tf.random.stateless_normal(shape, seed, alg="philox")
        return self._images_of(resolution, z, seed, condition)

    def _sample_truncated(
        self, resolution, num_samples, seed, truncation, condition=None
    ):
        shape = tf.stack([num_samples, self.latent_dim])
        z = latents.truncated_normal(shape, truncation, seed)
        return self._images_of(resolution, z, seed, condition)

    def _images_of(self, resolution, z, seed, condition):
        if condition is None and self.num_classes:
            seed = tf.random.experimental.stateless_fold_in(seed, 1)
            condition = random_classes(tf.shape(z)[0], self.num_classes, seed)
        return self._decode(resolution, z, condition)

    def interpolate(
        self, a, b, num_steps=8, *, condition=None, method="spherical"
    ):
        """Images on the way from some latents to others.

        Args:
            a: Latents to begin with, `(batch, latent_dim)`.
            b: Latents to end with, one for each.
            num_steps: Integer of at least 2, both ends included.
            condition: Classes `(batch,)` of a conditional model.
            method: `"spherical"` or `"linear"`, see `latents.interpolate`.

        Returns:
            `(num_steps, batch, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        path = latents.check_path(a, b, num_steps, method, self.latent_dim)
        given = [
            tf.tile(one_hot, [num_steps, 1])
            for one_hot in self._given(condition, path.shape[1])
        ]
        z = np.reshape(path, (-1, self.latent_dim))
        images = self._graph_of(self._decode, None, z, *given)
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
            condition: Classes of a conditional model.
            seed: Integer for the same latents each time, or `None`.

        Returns:
            `(batch, latent_dim)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_steps, "num_steps")
        inputs.check_positive_integer(num_starts, "num_starts")
        x = self.images_from(x)
        return self._graph_of(
            self._project,
            None,
            x,
            num_steps,
            num_starts,
            self.verb_seed(seed),
            *self._given(condition, x.shape[0]),
        )

    def _project(
        self, resolution, x, num_steps, num_starts, seed, condition=None
    ):
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
            condition: Classes of a conditional model.
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
        return self._graph_of(
            self._impute,
            None,
            x,
            mask,
            num_samples,
            num_steps,
            self.verb_seed(seed),
            *self._given(condition, x.shape[0]),
        )

    def _impute(
        self,
        resolution,
        x,
        mask,
        num_samples,
        num_steps,
        seed,
        condition=None,
    ):
        generate, z = self._begin_search(x, num_samples, seed, condition)
        return latent_search.impute(generate, x, mask, z, num_steps)

    def _begin_search(self, x, num_starts, seed, condition):
        """What a search begins with: images of latents, and the latents."""
        if condition is not None:
            condition = tf.tile(condition, [num_starts, 1])
        shape = tf.stack([num_starts, tf.shape(x)[0], self.latent_dim])
        z = tf.random.stateless_normal(shape, seed, alg="philox")
        return lambda z: self._unclipped(None, z, condition), z

    def _given(self, condition, count):
        condition = vectors(condition, count, self.num_classes)
        return [] if condition is None else [condition]

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
            "drift": self.drift,
            "d_steps": self.d_steps,
            "schedule": saving.serialize_keras_object(self.schedule),
            # A list: the keys of JSON are strings.
            "max_batch_size": [*self.max_batch_size.items()],
        }

    def compile_from_config(self, config):
        config = {**config, "max_batch_size": dict(config["max_batch_size"])}
        super().compile_from_config(config)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "fmap_base": self.fmap_base,
            "fmap_max": self.fmap_max,
            "num_classes": self.num_classes,
            "conditioning": self.conditioning,
            "generator": saving.serialize_keras_object(self.generator),
            "discriminator": saving.serialize_keras_object(self.discriminator),
            "ema": self.ema,
        }


def _check_growing(network, input_shape, output_shape, argument, width):
    check_network(network, input_shape, output_shape, argument, width)
    if not hasattr(network, "layers_at"):
        raise ValueError(
            f"`{argument}` must be a network that grows, got "
            f"{type(network).__name__}. Make it with "
            f"`networks.progressive_{argument}`."
        )


def _value(variable):
    """What a variable holds now, also while a graph is traced."""
    with tf.init_scope():
        return np.asarray(variable)


def _take(rows, data):
    # `train_on_batch` gives `None` for what it was not given.
    return tf.nest.map_structure(
        lambda x: None if x is None else tf.gather(x, rows), data
    )
