"""What the flows share: an exact density of points, and verbs of images."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import distributions, inputs, langevin, optimization
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.dequantization import (
    UniformDequantization,
    VariationalDequantization,
)
from keras_gen.networks.coupling import coupling_resnet

tfd = tfp.distributions


class Flow(GenerativeModel):
    """What `NICE`, `RealNVP` and `Glow` share: `z = transform(points of x)`.

    The density of a point v of `[0, 1]**D` is exact,

        log p(v) = log p(z) + log_det(transform) + log_det(logit),

    with independent, identical `marginal`s of z. An 8-bit image becomes points
    by `dequantization`, and has

        log P(x) >= E[log p(v) - log q(v given x)], v drawn from q,

    whose negative is the `loss` that training minimizes, in nats per image;
    it also logs `bits_per_dim`. `log_prob_kind` is then `"lower_bound"`.
    Without dequantization images are points themselves, `log_prob` is their
    exact log-density, which may be positive, and no `bits_per_dim` are logged.

    The logit maps points to all of R: `logit(margin + (1 - 2 margin) v)`, with
    a margin of 0.05 under dequantization, as published, and else of 1e-6, so
    that the density has its mass on `[0, 1]**D`. Without it, `v - 0.5` is what
    the transform is given.

    Args:
        image_shape: `(height, width, channels)`.
        transform: Invertible layer, from images to what z is when flat.
        dequantization: `"uniform"` noise, `"variational"` (its distribution
            is learned), a layer of `layers.dequantization`, or `None`, if
            images are not of 256 levels but continuous.
        logit: Boolean, whether the logit of points is taken.
        network: The function that made the networks of couplings, or `None`
            if it is the default.
        seed: Integer or `None`, seed of noise and samples.
    """

    marginal = tfd.Normal

    def __init__(
        self,
        image_shape,
        transform,
        *,
        dequantization,
        logit,
        network,
        seed,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = math.prod(self.image_shape)
        self.transform = transform
        self.transform.build((None, *self.image_shape))
        self.dequantization = _dequantization(dequantization, self.image_shape)
        self._dequantization_argument = dequantization
        self._network_argument = network
        self.logit = inputs.check_boolean(logit, "logit")
        self.add_metrics("loss")
        if self.dequantization is None:
            self.log_prob_kind, self._margin = "exact", 1e-6
        else:
            self.log_prob_kind, self._margin = "lower_bound", 0.05
            self.add_metrics("bits_per_dim")
        self.built = True

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        loc = tf.zeros(self.latent_dim)
        return tfd.Independent(self.marginal(loc, 1.0), 1)

    # From points of [0, 1] to R and back

    def _to_reals(self, v):
        """What the transform is given, and the log-determinant, `(batch,)`."""
        if not self.logit:
            return v - 0.5, tf.zeros(tf.shape(v)[:1])
        p = self._margin + (1.0 - 2.0 * self._margin) * v
        log_p, log_not_p = tf.math.log(p), tf.math.log1p(-p)
        log_slope = math.log(1.0 - 2.0 * self._margin) - log_p - log_not_p
        return log_p - log_not_p, tf.reduce_sum(log_slope, axis=[1, 2, 3])

    def _from_reals(self, y):
        if not self.logit:
            return y + 0.5
        return (tf.sigmoid(y) - self._margin) / (1.0 - 2.0 * self._margin)

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

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            log_prob = self._log_prob_of_draw(
                x, self.uniform(tf.shape(x), training=True), training=True
            )
            regularization = optimization.regularization(self)
            loss = regularization - tf.reduce_mean(log_prob)
            scaled_loss = self.scale_loss(loss, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self._log_of(log_prob)

    def test_step(self, data):
        x, _ = self.unpack(data)
        noise = self.uniform(tf.shape(x))
        return self._log_of(self._log_prob_of_draw(x, noise))

    def _log_of(self, log_prob):
        logs = {"loss": -log_prob}
        if self.dequantization is not None:
            logs["bits_per_dim"] = distributions.bits_per_dim(
                log_prob, self.image_shape
            )
        return self.log(**logs)

    def _log_prob_of_draw(self, x, noise, training=False):
        """`log p(v) - log q(v given x)` of one draw, `(batch,)` nats."""
        v, log_q = x, 0.0
        if self.dequantization is not None:
            v, log_q = self.dequantization.draw(x, noise, training)
        return self._log_density(v, training) - log_q

    def _log_density(self, v, training=False):
        """`log p(v)` of points, `(batch,)`."""
        y, log_slope = self._to_reals(v)
        z, log_det = self.transform.forward(y, training)
        z = tf.reshape(z, (-1, self.latent_dim))
        return self.prior.log_prob(z) + log_det + log_slope

    def call(self, x, training=False):
        return self._reconstruct(self.images_from(x))

    # Verbs

    def log_prob(self, x, *, condition=None, num_samples=1, seed=None):
        """Log-probability of 8-bit images by dequantization, nats.

        `log(mean(p(v) / q(v given x)))` over `num_samples` draws of the points
        v. The mean is unbiased for the probability of the 8-bit image, and its
        logarithm too low on average, by the less the more draws there are.
        Without dequantization it is the exact log-density of `x`, and draws
        nothing.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`; taken so that one model can stand for another.
            num_samples: Integer, draws of the points.
            seed: Integer for the same points each time, or `None`.

        Returns:
            `(batch,)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x = self.images_from(x)
        if self.dequantization is None:
            return self.graph(self._log_density, x, compiled=True)
        seed = self.verb_seed(seed)
        if not tf.executing_eagerly():
            return self._log_prob(x, num_samples, seed)
        # XLA would draw other noise than the SavedModel, at the same seed.
        draws = [
            self.graph(
                self._log_prob_of_draw, x, _noise(x, seed, i), compiled=True
            )
            for i in range(int(num_samples))
        ]
        return tf.reduce_logsumexp(draws, axis=0) - math.log(len(draws))

    def _log_prob(self, x, num_samples, seed):
        def add_draw(i, total):
            log_prob = self._log_prob_of_draw(x, _noise(x, seed, i))
            pair = tf.stack([total, log_prob])
            return i + 1, tf.reduce_logsumexp(pair, axis=0)

        _, total = tf.while_loop(
            lambda i, _: i < num_samples,
            add_draw,
            (0, tf.fill(tf.shape(x)[:1], -math.inf)),
        )
        return total - tf.math.log(tf.cast(num_samples, "float32"))

    def sample(
        self, num_samples, *, condition=None, temperature=1.0, seed=None
    ):
        """Draws images.

        Args:
            num_samples: Integer, how many.
            condition: `None`; taken so that one model can stand for another.
            temperature: Number, factor of the latents: below 1, images are
                nearer to the most likely ones and less diverse; at 0 all are
                the image of z = 0.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1], under
            dequantization of 256 levels.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        if not tf.is_tensor(temperature):
            temperature = inputs.check_number(
                temperature, "temperature", minimum=0
            )
        # Compilers draw noise slowly.
        z = self.graph(
            self._sample_latents, num_samples, self.verb_seed(seed), temperature
        )
        return self.graph(self._images_of_latents, z, compiled=True)

    def _sample_latents(self, num_samples, seed, temperature):
        return temperature * self.prior.sample(num_samples, seed=seed)

    def _images_of_latents(self, z):
        x = self._decode(z)
        return x if self.dequantization is None else tf.round(255.0 * x) / 255.0

    def encode(self, x):
        """Latents of images, `(batch, latent_dim)` float32.

        Those of coarse scales come first. Under dequantization, of the points
        in the middle of the levels, so that nothing is drawn and `decode` is
        the inverse.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(self._encode, self.images_from(x), compiled=True)

    def _encode(self, x):
        v = x if self.dequantization is None else (255.0 * x + 0.5) / 256.0
        z, _ = self.transform.forward(self._to_reals(v)[0])
        return tf.reshape(z, (-1, self.latent_dim))

    def decode(self, z):
        """Images of latents, float32 in [0, 1], not rounded to levels.

        Args:
            z: Latents `(batch, latent_dim)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        z = inputs.check_latents(z, self.latent_dim)
        return self.graph(self._decode, z, compiled=True)

    def _decode(self, z):
        z = tf.reshape(z, (-1, *self.transform.output_event_shape))
        v = self._from_reals(self.transform.inverse(z))
        x = v if self.dequantization is None else (256.0 * v - 0.5) / 255.0
        return tf.clip_by_value(x, 0.0, 1.0)

    def reconstruct(self, x):
        """`decode(encode(x))`, which is x: float32 in [0, 1]."""
        return self.graph(self._reconstruct, self.images_from(x))

    def _reconstruct(self, x):
        return self._decode(self._encode(x))

    def impute(self, x, mask, *, num_samples=1, num_steps=500, seed=None):
        """Draws missing pixels by Langevin chains, given the observed ones.

        Each draw is the end of a chain of its own, which starts from a sample
        of the model in the place of missing pixels. Its density is that of the
        points that are observed images: under uniform dequantization each
        observed pixel keeps its level and moves within it, so that in the
        limit of many steps draws have the exact conditional distribution.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, draws per image.
            num_steps: Integer, steps of each chain.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`, the others as in `sample`.

        Raises:
            ValueError: If an argument is not as above.
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
        )

    def _impute(self, x, mask, num_samples, num_steps, seed):
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        copies = (num_samples, 1, 1, 1)
        known, observed = tf.tile(x, copies), tf.tile(mask, copies)
        seeds = tf.unstack(tf.random.split(seed, 3))

        def points(state):
            """The state is the logit of what is free, pixel by pixel."""
            free = tf.sigmoid(tf.reshape(state, tf.shape(known)))
            if self.dequantization is None:
                return tf.where(observed, known, free)
            level = tf.round(255.0 * known)
            return tf.where(observed, (level + free) / 256.0, free)

        def log_density(state):
            return self._log_density(points(state)) + langevin.log_slope(state)

        start = self._decode(self.prior.sample(tf.shape(known)[0], seeds[0]))
        noise = tf.random.stateless_uniform(
            tf.shape(known), seeds[1], alg="philox"
        )
        start = tf.where(observed, noise, start)
        start = langevin.to_state(start, margin=1e-3)
        path, _ = langevin.chains(
            log_density, start, 1, num_steps - 1, seeds[2]
        )
        drawn = points(path[0])
        if self.dequantization is not None:
            drawn = tf.minimum(tf.floor(256.0 * drawn), 255.0) / 255.0
        return tf.where(mask, x, tf.reshape(drawn, shape))

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "dequantization": saving.serialize_keras_object(
                self._dequantization_argument
            ),
            "logit": self.logit,
            "network": saving.serialize_keras_object(self._network_argument),
        }


def _noise(x, seed, i):
    """Uniform noise of the shape of `x`, another for each `i`."""
    seed = tf.random.experimental.stateless_fold_in(seed, i)
    return tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")


def _dequantization(choice, image_shape):
    """The layer of a model's argument, built, or `None`."""
    if choice == "uniform":
        return UniformDequantization()
    if choice == "variational":
        network = coupling_resnet(
            image_shape, 2 * image_shape[-1], hidden_dim=32, num_blocks=1
        )
        choice = VariationalDequantization(network)
    # A class has `draw` too.
    is_layer = isinstance(choice, keras.layers.Layer)
    if choice is not None and not (is_layer and hasattr(choice, "draw")):
        raise ValueError(
            "`dequantization` must be 'uniform', 'variational', a layer of "
            "`layers.dequantization`, or `None` for continuous data, got "
            f"{str(choice)[:100]!r}."
        )
    if choice is not None and not choice.built:
        choice.build((None, *image_shape))
    return choice


def check_flow(image_shape, network):
    """Checks what all flows are built of.

    Args:
        image_shape: `(height, width, channels)`, two numbers at least.
        network: Function of `(input_shape, output_dim)`, or `None`.

    Returns:
        `image_shape` as a tuple of three Python integers.

    Raises:
        ValueError: If they are anything else.
    """
    image_shape = inputs.check_image_shape(image_shape)
    if math.prod(image_shape) < 2:
        raise ValueError(
            "`image_shape` of a flow must hold two numbers at least, of which "
            f"one changes the other, got {image_shape}."
        )
    is_network = isinstance(network, keras.layers.Layer)
    if network is not None and (is_network or not callable(network)):
        raise ValueError(
            "`network` must be a function of (input_shape, output_dim) that "
            "makes a network, one for each coupling, got "
            f"{type(network).__name__}. See `networks.coupling_mlp`."
        )
    return image_shape


def check_num_scales(num_scales, image_shape, most):
    """How many scales a multi-scale flow of images has.

    Args:
        num_scales: Integer, or `None` for as many as there can be, up to 3.
        image_shape: `(height, width, channels)`.
        most: Integer, how many there can be.

    Returns:
        Integer.

    Raises:
        ValueError: If there cannot be so many.
    """
    if num_scales is None:
        return min(3, most)
    num_scales = inputs.check_positive_integer(num_scales, "num_scales")
    if num_scales > most:
        raise ValueError(
            f"`num_scales={num_scales}` is too many for images of shape "
            f"{tuple(image_shape)}: each halves the sides, which must be even. "
            f"Choose at most {most}, or leave it out."
        )
    return num_scales


def num_halvings(image_shape):
    """How often height and width can both be halved."""
    count = 0
    while all(side % 2 ** (count + 1) == 0 for side in image_shape[:2]):
        count += 1
    return count
