"""Generative stochastic network: a Markov chain that is learned."""

import math

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs, optimization, pixel_likelihoods, randomness
from keras_gen.generative_model import GenerativeModel
from keras_gen.models import chains
from keras_gen.models.boltzmann_machine import product

_LIKELIHOODS = "bernoulli", "gaussian"


@saving.register_keras_serializable(package="keras_gen")
class GSN(GenerativeModel):
    """Generative stochastic network, trained with walkback.

    It learns one step of a Markov chain, whose stationary distribution is the
    model. A step corrupts the image, hidden layers look at what is left and
    at each other, and the next image is drawn from p(x given lowest hidden
    layer). With one hidden layer it is the chain of a denoising autoencoder:

        h = tanh(c + corrupted(x) @ W),  x' ~ p(x given b + h @ transpose(W))

    With several, first the layers of odd number are updated and then the
    others, each given those beside it, `h_i = noise + tanh(noise + c_i +
    h_{i - 1} @ W_i + h_{i + 1} @ transpose(W_{i + 1}))`: what an image was
    reaches the top after some steps, and comes back from there. The lowest
    layer is without noise.

    Training takes `walkback_steps` steps of the chain from each image, and
    asks every one of them for that image: `loss` is the mean over the steps of
    `-log p(image given h)`, nats. So the chain learns to come back from where
    it walks to by itself; one step is plain denoising, which leaves modes far
    from the data. The gradient passes through hidden layers, not through
    images that were drawn. Logs this loss, and `mse`, the squared error per
    pixel of the means of the first step.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dim: Integer, width of the hidden layer; or several, of the
            hidden layers from below.
        walkback_steps: Integer, steps of the chain in training. With several
            layers, best at least twice their number.
        noise: Number, how an image is corrupted: of binary ones the
            probability that a pixel becomes black or white at random; of
            Gaussian ones the standard deviation of normal noise. With little
            of it a chain hardly gets away from where it starts.
        hidden_noise: Number, standard deviation of the noise of the hidden
            layers above the lowest, before and after the tanh.
        likelihood: `"bernoulli"`: binary images, or grey values as
            probabilities of white; or `"gaussian"`, with a location and a
            deviation for each pixel, of images dequantized by uniform noise.
        encoder: Optional network, images `(batch, *image_shape)` to
            `(batch, dim)`, dim the width of the lowest hidden layer, in place
            of `c + x @ W`.
        decoder: Optional network, `(batch, dim)` to `(batch, height, width,
            maps)`, as `pixel_likelihoods` have it: the logits of white, or a
            location less 0.5 and an unconstrained deviation. Both networks
            are given or none, which ties them.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Means of the pixels given hidden layers without noise, float32 in
        [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> gsn = GSN((28, 28, 1), hidden_dim=(1500, 1500), walkback_steps=4)
    >>> gsn.compile(keras.optimizers.Adam(1e-3))
    >>> gsn.fit(images, epochs=50)
    >>> gsn.sample(100, chain_length=1100, burn_in=1000)  # a path of one chain

    Reference:
        - [Deep Generative Stochastic Networks Trainable by Backprop](
          https://arxiv.org/abs/1306.1091)
        - [Generalized Denoising Auto-Encoders as Generative Models](
          https://arxiv.org/abs/1305.6663), on walkback
    """

    def __init__(
        self,
        image_shape,
        hidden_dim,
        walkback_steps=5,
        noise=0.4,
        *,
        hidden_noise=2.0,
        likelihood="bernoulli",
        encoder=None,
        decoder=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        several = isinstance(hidden_dim, list | tuple) and len(hidden_dim) > 0
        self.hidden_dims = [
            inputs.check_positive_integer(dim, "hidden_dim")
            for dim in (hidden_dim if several else [hidden_dim])
        ]
        self.walkback_steps = inputs.check_positive_integer(
            walkback_steps, "walkback_steps"
        )
        if likelihood not in _LIKELIHOODS:
            raise ValueError(
                f"`likelihood` of GSN must be one of {_LIKELIHOODS}, got "
                f"{str(likelihood)[:100]!r}."
            )
        self.is_binary = likelihood == "bernoulli"
        self.pixels = pixel_likelihoods.get(likelihood)
        self.noise = inputs.check_number(
            noise, "noise", minimum=0, maximum=1 if self.is_binary else None
        )
        self.hidden_noise = inputs.check_number(
            hidden_noise, "hidden_noise", minimum=0
        )
        self.num_dims = math.prod(self.image_shape)
        self.num_layers = len(self.hidden_dims)
        self.z_dim = sum(self.hidden_dims)
        self._make_pixel_layers(encoder, decoder)
        # Between hidden layers i and i + 1, and biases of the upper ones.
        self.kernels, self.biases = [], []
        for i in range(1, self.num_layers):
            below, dim = self.hidden_dims[i - 1 : i + 1]
            self.kernels.append(
                self._weight(f"kernel_{i}", (below, dim), "glorot_uniform")
            )
            self.biases.append(self._weight(f"bias_{i}", (dim,)))
        # Means of pixels and of their squares, those of uniform noise at first.
        self.moments = self.add_weight(
            name="moments",
            shape=(2, *self.image_shape),
            initializer=_moments_of_noise,
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        # Those of an optimizer begin again with each `compile`.
        self.steps_seen = self.add_weight(
            name="steps_seen",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )
        self.add_metrics("loss", "mse")
        self.built = True

    def _make_pixel_layers(self, encoder, decoder):
        """Networks between images and the lowest layer, or tied weights."""
        self.encoder, self.decoder = encoder, decoder
        if (encoder is None) != (decoder is None):
            name = "encoder" if encoder is None else "decoder"
            raise ValueError(
                f"`{name}` must be given with the other network, got `None`. "
                "Pass both, or none for tied weights."
            )
        dim = self.hidden_dims[0]
        height, width, channels = self.image_shape
        if encoder is not None:
            maps = (height, width, self.pixels.maps(channels))
            inputs.check_network(encoder, self.image_shape, (dim,), "encoder")
            inputs.check_network(decoder, (dim,), maps, "decoder")
            return
        num_dims = self.num_dims
        self.kernel = self._weight("kernel", (num_dims, dim), "glorot_uniform")
        self.hidden_bias = self._weight("hidden_bias", (dim,))
        self.visible_bias = self._weight("visible_bias", (num_dims,))
        if not self.is_binary:
            self.scale_kernel = self._weight("scale_kernel", (dim, num_dims))
            self.scale_bias = self._weight("scale_bias", (num_dims,))

    def _weight(self, name, shape, initializer="zeros"):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            autocast=False,
        )

    # Training

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to
                `Adam(1e-3)`, and of Gaussian pixels, which diverge with it,
                to `Adam(1e-4)`.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None:
            rate = 1e-3 if self.is_binary else 1e-4
            optimizer = keras.optimizers.Adam(rate)
        optimizer = self.prepare_optimizer(optimizer, self.trainable_weights)
        super().compile(optimizer, **kwargs)

    def train_step(self, data):
        x, _ = self.unpack(data)
        self._update_moments(x)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            loss, error = self._walkback(x, training=True)
            regularization = optimization.regularization(self)
            total = tf.reduce_mean(loss) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss, mse=error)

    def _update_moments(self, x):
        """Moves them to those of the images of the last 1,000 steps or so."""
        steps = self.steps_seen.value + 1
        before = self.moments.value
        change = tf.stack([tf.reduce_mean(x**n, axis=0) for n in (1, 2)])
        rate = tf.maximum(1.0 / tf.cast(steps, "float32"), 1e-3)
        finite = optimization.all_finite([change])
        self.moments.assign(
            tf.where(finite, before + (change - before) * rate, before)
        )
        self.steps_seen.assign(tf.where(finite, steps, steps - 1))

    def test_step(self, data):
        x, _ = self.unpack(data)
        loss, error = self._walkback(x)
        return self.log(loss=loss, mse=error)

    def _walkback(self, x, training=False):
        """`(loss, mse)` of images, `(batch,)` each."""
        seeds = self.train_seeds if training else self.eval_seeds
        seeds = tf.random.split(
            seeds.next_shared(), self.walkback_steps, alg="philox"
        )
        visited, layers = x, self._blank_layers(tf.shape(x)[0])
        log_prob, error = 0.0, None
        for seed in tf.unstack(seeds):
            h, layers, visited = self._step(visited, layers, seed, training)
            visited = tf.stop_gradient(visited)
            noise = 0.0
            if self.pixels.needs_noise:
                noise = self.uniform(tf.shape(x), training)
            log_prob += self.pixels.log_prob(h, x, noise)
            if error is None:
                squares = (x - self.pixels.distribution(h).mean()) ** 2
                error = tf.reduce_mean(squares, axis=(1, 2, 3))
        return -log_prob / self.walkback_steps, error

    # The chain. Its state are the images and the hidden layers.

    def _blank_layers(self, count):
        return [tf.zeros((count, dim)) for dim in self.hidden_dims]

    def _step(self, x, layers, seed, training=False):
        """A step of the chain: `(h, layers, new images)`.

        Where h is what p(x given lowest hidden layer) is made of.
        """
        seeds = tf.unstack(
            tf.random.split(seed, 2 + 2 * self.num_layers, alg="philox")
        )
        layers = self._updated_layers(
            self._corrupted(x, seeds[0]), layers, seeds[2:], training
        )
        h = self._pixel_parameters(layers[0], training)
        return h, layers, self._drawn(h, seeds[1])

    def _corrupted(self, x, seed):
        if not self.is_binary:
            return x + self.noise * _normal(tf.shape(x), seed)
        uniform = randomness.draw_rows(
            tf.random.stateless_uniform, tf.shape(x), seed
        )
        white = tf.cast(uniform < 0.5 * self.noise, "float32")
        return tf.where(uniform < self.noise, white, x)

    def _drawn(self, h, seed):
        """Images from p(x given h)."""
        distribution = self.pixels.distribution(h)
        mean = distribution.mean()
        if self.is_binary:
            uniform = randomness.draw_rows(
                tf.random.stateless_uniform, tf.shape(mean), seed
            )
            return tf.cast(uniform < mean, "float32")
        noise = _normal(tf.shape(mean), seed)
        return tf.clip_by_value(mean + distribution.stddev() * noise, 0.0, 1.0)

    def _updated_layers(self, x, layers, seeds, training=False):
        """Hidden layers that have looked at images and at each other.

        Those of odd number, counted from 1, come first. Without seeds, there
        is no noise.
        """
        layers = list(layers)
        dtype = self.compute_dtype if training else "float32"
        for i in [*range(0, self.num_layers, 2), *range(1, self.num_layers, 2)]:
            if i == 0:
                r = self._lowest_inputs(x, training)
            else:
                r = product(layers[i - 1], self.kernels[i - 1], dtype)
                r += self.biases[i - 1]
            if i + 1 < self.num_layers:
                kernel = self.kernels[i]
                r += product(layers[i + 1], kernel, dtype, transpose_b=True)
            if i == 0 or seeds is None:
                layers[i] = tf.tanh(r)
                continue
            before, after = (
                self.hidden_noise * _normal(tf.shape(r), seeds[2 * i + k])
                for k in range(2)
            )
            layers[i] = tf.tanh(r + before) + after
        return layers

    def _lowest_inputs(self, x, training=False):
        if self.encoder is not None:
            return tf.cast(self.encoder(x, training=training), "float32")
        dtype = self.compute_dtype if training else "float32"
        flat = tf.reshape(x, (-1, self.num_dims))
        return self.hidden_bias + product(flat, self.kernel, dtype)

    def _pixel_parameters(self, h, training=False):
        if self.decoder is not None:
            return tf.cast(self.decoder(h, training=training), "float32")
        dtype = self.compute_dtype if training else "float32"
        shape = (-1, *self.image_shape)
        r = product(h, self.kernel, dtype, transpose_b=True)
        location = tf.reshape(self.visible_bias + r, shape)
        if self.is_binary:
            return location
        r = product(h, self.scale_kernel, dtype)
        scale = tf.reshape(self.scale_bias + r, shape)
        return tf.concat([location, scale], axis=-1)

    def call(self, x, training=False):
        return self._decode(self._encode(self.to_float(x)))

    # Verbs

    def encode(self, x):
        """Hidden layers without noise, from below, `(batch, z_dim)` float32.

        Of several layers they stand side by side, the lowest first; each has
        heard from below alone.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(self._encode, self.images_from(x))

    def _encode(self, x):
        layers = [tf.tanh(self._lowest_inputs(x))]
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            layers.append(tf.tanh(bias + product(layers[-1], kernel)))
        return tf.concat(layers, axis=1)

    def decode(self, z):
        """Means of p(x given lowest hidden layer), float32 in [0, 1].

        Args:
            z: Hidden layers side by side, `(batch, z_dim)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(self._decode, inputs.check_latents(z, self.z_dim))

    def _decode(self, z):
        h = self._pixel_parameters(z[:, : self.hidden_dims[0]])
        mean = self.pixels.distribution(h).mean()
        return tf.clip_by_value(mean, 0.0, 1.0)

    def reconstruct(self, x):
        """`decode(encode(x))`, float32 images in [0, 1]."""
        return self.graph(self.call, self.images_from(x))

    def sample(
        self,
        num_samples,
        *,
        condition=None,
        chain_length=200,
        burn_in=None,
        seed=None,
    ):
        """Images from chains that start at noise.

        Its pixels are drawn one by one, with the means and deviations that
        they had in training: of other noise a chain might make what it never
        saw, such as negatives.

        Chains run `chain_length` steps, and what comes after the first
        `burn_in` of them are images: with `burn_in=chain_length - 1` each
        comes from another chain, with less, up to `chain_length - burn_in` are
        the path of one.

        Args:
            num_samples: Integer, how many.
            condition: `None`; taken so that one model can stand for another.
            chain_length: Integer, steps of each chain.
            burn_in: Integer below `chain_length`. Defaults to
                `chain_length - 1`.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1], images of one
            chain side by side: of binary pixels the means from which the
            chain draws its images, of Gaussian ones these images.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        burn_in = chains.check_lengths(chain_length, burn_in)
        return self.graph(
            self._sample,
            num_samples,
            chain_length,
            burn_in,
            self.verb_seed(seed),
        )

    def _sample(self, num_samples, chain_length, burn_in, seed):
        def start(num_chains, seed):
            return self._chain_state(self._pixel_noise(num_chains, seed))

        return chains.sample_images(
            num_samples,
            start,
            self._chain_step,
            lambda state: state[1],
            chain_length,
            burn_in,
            seed,
        )

    def _pixel_noise(self, count, seed):
        """Images whose pixels are independent, where chains start."""
        mean, square = tf.unstack(self.moments.value)
        shape = tf.stack([count, *self.image_shape])
        if self.is_binary:
            uniform = tf.random.stateless_uniform(shape, seed, alg="philox")
            return tf.cast(uniform < mean, "float32")
        deviation = tf.sqrt(tf.maximum(square - mean**2, 0.0))
        noise = tf.random.stateless_normal(shape, seed, alg="philox")
        return mean + deviation * noise

    def _chain_state(self, x):
        """`(images, what is shown of them, *hidden layers)`."""
        return (x, x, *self._blank_layers(tf.shape(x)[0]))

    def _chain_step(self, state, seed):
        x, _, *layers = state
        h, layers, x = self._step(x, layers, seed)
        shown = self.pixels.distribution(h).mean() if self.is_binary else x
        return (x, shown, *layers)

    def impute(self, x, mask, *, num_samples=1, chain_length=200, seed=None):
        """Draws missing pixels by chains in which the others are put back.

        Each draw is the end of a chain of its own, which starts from noise in
        the place of missing pixels.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, draws per image.
            chain_length: Integer, steps of each chain.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`, the others as in `sample`.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_samples, "num_samples")
        inputs.check_positive_integer(chain_length, "chain_length")
        x, mask = self.observed_from(x, mask)
        return self.graph(
            self._impute,
            x,
            mask,
            num_samples,
            chain_length,
            self.verb_seed(seed),
        )

    def _impute(self, x, mask, num_samples, chain_length, seed):
        copies = (num_samples, 1, 1, 1)
        known, observed = tf.tile(x, copies), tf.tile(mask, copies)
        seeds = tf.random.split(seed)
        noise = self._pixel_noise(tf.shape(known)[0], seeds[0])

        def step(state, seed):
            x, shown, *layers = self._chain_step(state, seed)
            return (tf.where(observed, known, x), shown, *layers)

        start = self._chain_state(tf.where(observed, known, noise))
        _, shown, *_ = chains.walk(step, start, 0, chain_length, seeds[1])
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        return tf.where(mask, x, tf.reshape(shown, shape))

    # Saving

    def get_config(self):
        serialize = saving.serialize_keras_object
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dims,
            "walkback_steps": self.walkback_steps,
            "noise": self.noise,
            "hidden_noise": self.hidden_noise,
            "likelihood": self.pixels.name,
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
        }


def _moments_of_noise(shape, dtype=None):
    """Of numbers uniform in [0, 1], for a weight `(2, *image_shape)`."""
    moments = tf.reshape(tf.constant([1 / 2, 1 / 3], dtype), (2, 1, 1, 1))
    return tf.broadcast_to(moments, shape)


def _normal(shape, seed):
    return randomness.draw_rows(tf.random.stateless_normal, shape, seed)
