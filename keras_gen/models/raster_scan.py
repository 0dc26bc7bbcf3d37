"""What the models of pixels in raster order share: their verbs."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import cached_sampling, conditioning, inputs, pixel_draws
from keras_gen.distributions import bits_per_dim
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.masked_conv import MaskedConv2D


class RasterScan(GenerativeModel):
    """What `PixelCNN` and `PixelRNN` share: their verbs.

    `p(x) = prod_i p(x_i given the pixels before pixel i)`, row by row and from
    left to right, the channels of a pixel in their order.

    A subclass sets `network`, in `set_network`, and writes `train_step`.
    """

    log_prob_kind = "exact"

    def __init__(
        self,
        image_shape,
        *,
        likelihood,
        num_components,
        num_classes,
        condition_dim,
        seed,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.num_classes, self.condition_dim = num_classes, condition_dim
        self.condition_width = conditioning.check_width(
            num_classes, condition_dim
        )
        self.num_components = num_components
        self.pixels = pixel_draws.get(likelihood, num_components)
        channels = self.image_shape[-1]
        self.num_maps = self.pixels.maps(channels)
        self.num_groups = self.pixels.num_groups(channels)
        self.add_metrics("loss", "bits_per_dim")

    def set_network(self, network):
        """Takes the network that the verbs use, once it is checked."""
        conditioning.check_network(
            network,
            self.image_shape,
            (*self.image_shape[:-1], self.num_maps),
            "network",
            self.condition_width,
        )
        head = getattr(network, "head", None)
        self._check_groups(getattr(head, "num_groups", self.num_groups))
        for layer in network._flatten_layers():
            # Those of one group see whole pixels that come before only.
            if isinstance(layer, MaskedConv2D) and layer.num_groups != 1:
                self._check_groups(layer.num_groups)
        if not hasattr(network, "cached"):  # as those of this package have it
            self._check_causal(network)
        self.network = network
        self.built = True

    def _check_causal(self, network):
        # Convolutions that see too much do so everywhere, so also at the last
        # value. Later layers never see that one, so that normalization over
        # all pixels, for example, shows at others only.
        x = np.random.default_rng(0).uniform(size=(1, *self.image_shape))
        x = np.repeat(x, 3, axis=0).astype("float32")
        pixels = x.reshape(3, -1, x.shape[-1])  # the same memory
        last = pixels.shape[1] - 1
        places = (last, last // 2)
        for row, place in enumerate(places):
            pixels[row, place, -1] = (pixels[row, place, -1] + 0.5) % 1.0
        condition = None
        if self.condition_width:
            condition = tf.ones((3, self.condition_width))
        maps = network(conditioning.beside(tf.constant(x), condition))
        maps = tf.cast(maps, "float32").numpy().reshape(3, last + 1, -1)
        for row, place in enumerate(places):
            changed, kept = maps[[row, 2], : place + 1]
            if np.allclose(changed, kept, 1e-3, 1e-4, equal_nan=True):
                continue
            raise ValueError(
                "`network` must let each output see the values before its own "
                "alone, got one whose outputs at or before a pixel change with "
                "its last channel. Build it of `keras_gen.layers.MaskedConv2D`"
                ", the first one with `mask_type='A'`, and of layers that see "
                "each pixel alone."
            )

    def _check_groups(self, groups):
        if groups != self.num_groups:
            raise ValueError(
                f"`network` must have `num_groups={self.num_groups}`, which "
                "says whose channels outputs may depend on, for "
                f"`likelihood={self.pixels.name!r}`, got {groups}."
            )

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

    def losses_of(self, x, condition, training=False):
        """`loss` (-log p(x) in nats) and `bits_per_dim`, each `(batch,)`."""
        condition = self._vectors(condition, x.shape[0])
        loss = -self._log_prob_given(x, condition, training)
        return {
            "loss": loss,
            "bits_per_dim": bits_per_dim(-loss, self.image_shape),
        }

    def test_step(self, data):
        return self.log(**self.losses_of(*self.unpack(data)))

    def call(self, x, condition=None, training=False):
        x, condition = conditioning.unpaired(x, condition)
        x = self.pixels.observed(self.images_from(x))
        condition = self._vectors(condition, x.shape[0])
        return self.pixels.mean(self._maps(x, condition, training), x)

    # Below, `x` are float32 images in [0, 1] and `condition` the vectors
    # `(batch, width)` that the network of a conditional model takes, or `None`.

    def _vectors(self, condition, count):
        return conditioning.vectors(
            condition, count, self.num_classes, self.condition_dim
        )

    def _maps(self, x, condition, training=False):
        network_input = x if condition is None else [x, condition]
        h = self.network(network_input, training=training)
        return tf.cast(h, "float32")

    def _log_prob_given(self, x, condition, training=False):
        x = self.pixels.observed(x)
        return self.pixels.log_prob(self._maps(x, condition, training), x)

    # Verbs. A graph takes no `None`: the condition is its last argument, or is
    # left out.

    def conditionals(self, x, *, condition=None):
        """p(x_i given the pixels of `x` before pixel i), for all i at once.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model.

        Returns:
            A `tfd.Distribution` of batch shape `(batch,)` and event shape
            `image_shape`, whose log-probability of `x` is `log_prob(x)`. Its
            samples are not those of the model: to draw an image, each pixel
            has to wait for those before it.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        given = self._given(condition, x.shape[0])
        h = self.graph(self._maps_of_images, x, *given)
        return self.pixels.distribution(h)

    def _maps_of_images(self, x, condition=None):
        return self._maps(self.pixels.observed(x), condition)

    def log_prob(self, x, *, condition=None, num_samples=None, seed=None):
        """Exact log-probability of 8-bit (or binary) images.

        Under `likelihood="bernoulli"`, where a pixel is not 0 or 1, it is the
        cross-entropy of black and white with the probabilities `1 - x` and
        `x`, and the sum no log-probability.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: Classes or vectors of a conditional model, for
                log p(x given y). Without them, log p(x) is that of the mean
                of p(x given y) over all classes.
            num_samples, seed: Accepted, as by models that estimate it, and
                ignored.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above.
        """
        x = self.images_from(x)
        given = []
        if condition is not None or not self.num_classes:
            given = self._given(condition, x.shape[0])
        return self.graph(self._log_prob, x, *given)

    def _log_prob(self, x, condition=None):
        if condition is not None or not self.num_classes:
            return self._log_prob_given(x, condition)
        of_classes = self._log_probs_of_classes(x)
        log_mean = tf.reduce_logsumexp(of_classes, axis=1)
        return log_mean - math.log(self.num_classes)

    def _log_probs_of_classes(self, x):
        """log p(x given y) for all classes, `(batch, num_classes)`."""

        def of_class(y):
            y = tf.one_hot(tf.fill(tf.shape(x)[:1], y), self.num_classes)
            return self._log_prob_given(x, y)

        classes = tf.range(self.num_classes)
        of_classes = tf.map_fn(
            of_class,
            classes,
            fn_output_signature=tf.TensorSpec((None,)),
            parallel_iterations=1,  # for memory: a pass keeps all cores busy
        )
        return tf.transpose(of_classes)

    @property
    def classify(self):
        """`classify(x)`, probabilities of the classes by Bayes' rule.

        `p(y given x) = p(x given y) / sum_y p(x given y)`, classes being
        equally likely, `(batch, num_classes)`. Only models with `num_classes`
        have it.
        """
        if not self.num_classes:
            raise AttributeError("`classify` needs a model with `num_classes`.")
        return self._classify_images

    def _classify_images(self, x):
        return self.graph(self._classify, self.images_from(x))

    def _classify(self, x):
        return tf.nn.softmax(self._log_probs_of_classes(x))

    def sample(self, num_samples, *, condition=None, seed=None, cached=True):
        """Images drawn pixel by pixel.

        Args:
            num_samples: Integer, how many.
            condition: Classes `(num_samples,)` or vectors `(num_samples,
                condition_dim)` of a conditional model. Without them, classes
                are drawn uniformly.
            seed: Integer for the same images each time, or `None`.
            cached: Boolean, whether each feature is computed once, in one
                compiled loop, rather than by a full pass of the network for
                each pixel. It is hundreds of times faster, once it is compiled
                for `num_samples`, and gives the same images: rounding errors
                of some 1e-6 of a probability could move a pixel, and under
                mixed precision it computes in float32. A network of one's own
                has no cache, and makes full passes.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].

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

    def _sample(self, num_samples, seed, condition=None, cached=True):
        if condition is None and self.num_classes:
            seeds = tf.random.split(seed)
            seed = seeds[0]
            condition = conditioning.random_classes(
                num_samples, self.num_classes, seeds[1]
            )
        x = tf.zeros(tf.stack([num_samples, *self.image_shape]))
        x = tf.ensure_shape(x, (None, *self.image_shape))
        return self._draw(x, tf.zeros_like(x, "bool"), seed, condition, cached)

    def _sample_plainly(self, num_samples, seed, condition=None):
        return self._sample(num_samples, seed, condition, cached=False)

    def impute(self, x, mask, *, num_samples=1, condition=None, seed=None):
        """Keeps the observed pixels, and draws the others in raster order.

        A pixel is drawn given those before it, observed or drawn, and so
        **not given observed pixels that come later**: the draws follow
        `p(missing given observed)` if all observed pixels come before the
        missing ones.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel (or one of its channels) is observed.
            num_samples: Integer, draws per image.
            condition: Classes or vectors of a conditional model, one an image.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_samples, "num_samples")
        x, mask = self.observed_from(x, mask)
        return self.graph(
            self._impute,
            x,
            mask,
            num_samples,
            self.verb_seed(seed),
            *self._given(condition, x.shape[0]),
        )

    def _impute(self, x, mask, num_samples, seed, condition=None):
        if condition is not None:
            condition = tf.tile(condition, [num_samples, 1])
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        x, mask = (tf.tile(v, (num_samples, 1, 1, 1)) for v in (x, mask))
        drawn = self._draw(tf.where(mask, x, 0.0), mask, seed, condition)
        return tf.reshape(drawn, shape)

    def _draw(self, x, known, seed, condition, cached=True):
        """Images whose pixels that are not `known` are drawn."""
        noise_dim = self.pixels.noise_dim(self.image_shape[-1])
        shape = [tf.shape(x)[0], *self.image_shape[:-1], noise_dim]
        noise = tf.random.stateless_uniform(tf.stack(shape), seed, alg="philox")
        noise = tf.ensure_shape(noise, (None, *shape[1:]))
        given = self.pixels, noise, self.pixels.observed(x), known
        if cached and hasattr(self.network, "cached"):
            drawn = cached_sampling.draw_cached(self.network, *given, condition)
        else:
            drawn = cached_sampling.draw_plainly(
                lambda x: self._maps(x, condition), *given
            )
        return tf.where(known, x, drawn)

    def _given(self, condition, count):
        vectors = self._vectors(condition, count)
        return [] if vectors is None else [vectors]

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "likelihood": self.pixels.name,
            "num_components": self.num_components,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "network": saving.serialize_keras_object(self.network),
        }
