"""Autoencoders: linear, deep, sparse, denoising, contractive, stochastic."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs, networks, optimization, pixel_likelihoods
from keras_gen.generative_model import GenerativeModel
from keras_gen.layers.sparsity import KSparse

tfd = tfp.distributions

ACTIVITY_MOMENTUM = 0.9  # of the running mean activity, per step
MAX_EXACT_DIM = 16  # of codes whose Jacobian is worked out row by row


@saving.register_keras_serializable(package="keras_gen")
class Autoencoder(GenerativeModel):
    """Autoencoder, with the regularizers that the arguments ask for.

    Minimizes the mean over images of `loss`, the sum of

    - `sum((x - decoder(z))**2)`, or `-log p(x given z)` in nats if there is a
      `likelihood`, where `z = code + code_noise * noise` in training and
      `code = encoder(corruption(x))`;
    - `sparsity_weight * sum(KL(sparsity, activity))` over the units of the
      code, with their mean activity over images, a running mean;
    - `contractive * contraction`, the squared Frobenius norm of the Jacobian
      of the code with respect to its input. Without hidden layers it is the
      closed form `sum((h * (1 - h))**2 * sum(kernel**2))`; otherwise it comes
      from automatic differentiation: exactly, an encoder pass for each number
      of the code, up to 16 of them, and beyond that unbiased from one random
      direction per image (Hutchinson), in a single pass.

    `sparsity` as a number and `contractive` make the code
    `sigmoid(encoder(x))`. Noise and corruption act in training alone. Logs
    `loss`; `mse`, the squared error per pixel of the decoder's mean, which the
    clipping to [0, 1] of `reconstruct` only lowers; and `activity` and
    `contraction`, means over images, if the loss has them.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, numbers in a code.
        corruption: Keras layer that is called with `training=True` on the
            images of the encoder, while the loss compares with the clean ones
            (denoising): `layers.MaskingNoise`, `layers.SaltAndPepper`,
            `keras.layers.GaussianNoise`, ...
        sparsity: Target of each unit's mean activity, a number between 0 and
            1; or `"k-sparse"`, which keeps a twentieth of the code, `alpha`
            1.5 of that outside of training; or a `layers.KSparse`.
        sparsity_weight: Number, weight of a target activity in the loss.
        contractive: Number, weight of the contraction in the loss.
        code_noise: Number, standard deviation of Gaussian noise on the code:
            a stochastic encoder.
        likelihood: `None` for the squared error, or the distribution of
            pixels of a stochastic decoder: `"bernoulli"`, `"gaussian"`,
            `"discretized_logistic"` or `"categorical"`, as in `VAE`.
        linear: Boolean, whether both networks are one linear layer each, that
            of the encoder on `2 * x - 1`: about zero it learns much faster.
            With the squared error alone, its optimum spans the principal
            subspace.
        encoder: Optional network, `(batch, *image_shape)` in [0, 1] to
            `(batch, latent_dim)`. Defaults to `networks.mlp_encoder`, without
            hidden layers if it is `linear`, sparse or contractive.
        decoder: Optional network, `(batch, latent_dim)` to images, or with a
            `likelihood` to what the decoder of a `VAE` gives. Defaults to
            `networks.mlp_decoder`, the mirror of the encoder.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Their reconstruction, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> Autoencoder((28, 28, 1), 32).encode(images)  # (batch, 32)
    >>> Autoencoder((28, 28, 1), 1000, sparsity=KSparse(40, anneal_steps=5000))

    Reference:
        - [Stacked Denoising Autoencoders](
          https://www.jmlr.org/papers/v11/vincent10a.html)
        - [Contractive Auto-Encoders](
          https://icml.cc/2011/papers/455_icmlpaper.pdf) and
          [k-Sparse Autoencoders](https://arxiv.org/abs/1312.5663), whose
          decoders share the encoder's kernel; here they have their own.
    """

    def __init__(
        self,
        image_shape,
        latent_dim,
        *,
        corruption=None,
        sparsity=None,
        sparsity_weight=3.0,
        contractive=0.0,
        code_noise=0.0,
        likelihood=None,
        linear=False,
        encoder=None,
        decoder=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.corruption = self._checked_corruption(corruption)
        self.sparsity = self._checked_sparsity(sparsity)
        self.sparsity_weight = inputs.check_number(
            sparsity_weight, "sparsity_weight", minimum=0
        )
        self.contractive = inputs.check_number(
            contractive, "contractive", minimum=0
        )
        self.code_noise = inputs.check_number(
            code_noise, "code_noise", minimum=0
        )
        self.pixels = None
        if likelihood is not None:
            self.pixels = pixel_likelihoods.get(likelihood)
        self.has_target = isinstance(self.sparsity, float)
        self.has_sigmoid = self.has_target or self.contractive > 0
        self.linear = inputs.check_boolean(linear, "linear")
        if linear and (self.has_sigmoid or encoder or decoder):
            raise ValueError(
                "`linear=True` means networks of one linear layer. Leave out "
                "`encoder` and `decoder`, and a `sparsity` or `contractive` "
                "that makes the code a sigmoid."
            )
        shallow = self.linear or self.sparsity is not None or self.contractive
        hidden_dims = () if shallow else (512, 256)
        height, width, channels = self.image_shape
        maps = self.pixels.maps(channels) if self.pixels else channels
        if self.linear:
            encoder = _linear_encoder(self.image_shape, self.latent_dim)
        self.encoder = encoder or networks.mlp_encoder(
            self.image_shape, self.latent_dim, hidden_dims
        )
        self.decoder = decoder or networks.mlp_decoder(
            self.latent_dim,
            self.image_shape,
            hidden_dims[::-1],
            output_channels=maps,
        )
        inputs.check_network(
            self.encoder, self.image_shape, (self.latent_dim,), "encoder"
        )
        inputs.check_network(
            self.decoder, (self.latent_dim,), (height, width, maps), "decoder"
        )
        self.add_metrics("loss", "mse")
        if self.has_target:
            self.activity = self.add_weight(
                name="activity",
                shape=(self.latent_dim,),
                # Below 0 until the first batch of training is seen.
                initializer=keras.initializers.Constant(-1.0),
                dtype="float32",
                trainable=False,
                autocast=False,
            )
            self.add_metrics("activity")
        if self.contractive:
            self.add_metrics("contraction")
        self.built = True

    def _checked_corruption(self, corruption):
        if corruption is None:
            return None
        if not isinstance(corruption, keras.layers.Layer):
            raise ValueError(
                "`corruption` must be a Keras layer, got "
                f"{str(corruption)[:100]!r}. Pass for example "
                "`keras.layers.GaussianNoise(0.1)`."
            )
        shape = corruption(tf.zeros((1, *self.image_shape))).shape  # builds it
        if shape[1:] != self.image_shape:
            raise ValueError(
                f"`corruption` must give images of shape {self.image_shape}, "
                f"got {tuple(shape[1:])}. Choose a layer that keeps the shape."
            )
        return corruption

    def _checked_sparsity(self, sparsity):
        if sparsity == "k-sparse":
            sparsity = KSparse(max(1, self.latent_dim // 20), alpha=1.5)
        if isinstance(sparsity, KSparse):
            if not sparsity.built:
                sparsity.build((None, self.latent_dim))
        elif sparsity is not None:
            try:
                return inputs.check_number(sparsity, "sparsity", 0, 1, True)
            except ValueError as error:
                raise ValueError(
                    f"{error} Or pass 'k-sparse' or a `layers.KSparse`."
                ) from None
        return sparsity

    # Codes and images as distributions, built where they are used

    def code_distribution(self, x):
        """The stochastic encoder: a Gaussian over `(batch, latent_dim)`.

        Its standard deviation is `code_noise`, which must not be 0.
        """
        if not self.code_noise:
            raise ValueError(
                "`code_noise` is 0, so a code has no distribution. Call "
                "`encode`, or give the model a positive `code_noise`."
            )
        codes = tfd.Normal(self.encode(x), self.code_noise)
        return tfd.Independent(codes, 1)

    def image_distribution(self, z):
        """The stochastic decoder: a `tfd.Distribution` over images in [0, 1].

        It is that of the `likelihood`, which the model must have.

        Args:
            z: Codes `(batch, latent_dim)`.
        """
        if not self.pixels:
            raise ValueError(
                "`likelihood` is None, so an image has no distribution. Call "
                '`decode`, or give the model for example `likelihood="gaussian"`.'
            )
        return self.pixels.distribution(
            self.decoder(inputs.check_latents(z, self.latent_dim))
        )

    def _code(self, x, training=False):
        code = tf.cast(self.encoder(x, training=training), "float32")
        return tf.nn.sigmoid(code) if self.has_sigmoid else code

    def _mean(self, h):
        if self.pixels:
            return self.pixels.distribution(h).mean()
        return tf.cast(h, "float32")

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

    def loss_terms(self, x, training=False):
        """What `train_step` and `test_step` log, by name.

        Args:
            x: float32 images in [0, 1].

        Returns:
            Dictionary of `(batch,)` values; `loss` is what is minimized.
        """
        terms = {}
        corrupted = x
        if self.corruption is not None:
            corrupted = self.corruption(x, training=training)
            corrupted = tf.cast(corrupted, "float32")
        if self.contractive:
            z, terms["contraction"] = self._code_and_contraction(
                corrupted, training
            )
        else:
            z = self._code(corrupted, training)
        loss = self.contractive * terms.get("contraction", 0.0)
        if self.has_target:
            terms["activity"] = tf.reduce_mean(z, axis=1)
            loss += self.sparsity_weight * self._sparsity_loss(z, training)
        elif self.sparsity is not None:
            z = tf.cast(self.sparsity(z, training=training), "float32")
        if self.code_noise and training:
            z += self.code_noise * self.normal(tf.shape(z), training)
        h = self.decoder(z, training=training)
        error = tf.reduce_sum((x - self._mean(h)) ** 2, axis=(1, 2, 3))
        terms["mse"] = error / math.prod(self.image_shape)
        if self.pixels:
            noise = 0.0
            if self.pixels.needs_noise:
                noise = self.uniform(tf.shape(x), training)
            terms["loss"] = loss - self.pixels.log_prob(h, x, noise)
        else:
            terms["loss"] = loss + error
        return terms

    def _sparsity_loss(self, code, training):
        """KL of Bernoulli variables of the target and of the mean activity."""
        mean, here = self.activity.value, tf.reduce_mean(code, axis=0)
        if not training:
            mean = tf.where(mean < 0, here, mean)
        else:
            everywhere = tf.stop_gradient(here)
            context = tf.distribute.get_replica_context()
            if context is not None and context.num_replicas_in_sync > 1:
                everywhere = context.all_reduce("MEAN", everywhere)
            before = tf.where(mean < 0, everywhere, mean)
            after = before + (1 - ACTIVITY_MOMENTUM) * (everywhere - before)
            # A batch that holds a NaN is skipped, and must leave none here.
            mean = tf.where(tf.math.is_finite(after), after, mean)
            self.activity.assign(mean)
            # Its value with the gradient of this batch, of full size.
            mean += here - tf.stop_gradient(here)
        mean = tf.clip_by_value(mean, 1e-6, 1 - 1e-6)
        target = tfd.Bernoulli(probs=self.sparsity)
        return tf.reduce_sum(
            tfd.kl_divergence(target, tfd.Bernoulli(probs=mean))
        )

    def _code_and_contraction(self, x, training):
        """Codes, and `sum((d code / d x)**2)` of each image, `(batch,)`."""
        dense = _only_dense_layer(self.encoder)
        if dense is not None:
            code = self._code(x, training)
            slope = (code * (1 - code)) ** 2
            kernel = tf.cast(dense.kernel, "float32")
            return code, tf.linalg.matvec(slope, tf.reduce_sum(kernel**2, 0))
        # A row of the Jacobian for each copy of the images, or one direction.
        num_rows = self.latent_dim if self.latent_dim <= MAX_EXACT_DIM else 1
        batch = tf.shape(x)[0]
        x = tf.tile(x, (num_rows, 1, 1, 1))
        with tf.GradientTape() as tape:
            tape.watch(x)
            code = self._code(x, training)
        if num_rows > 1:
            rows = tf.repeat(tf.eye(num_rows), batch, axis=0)
        else:
            rows = tf.sign(self.uniform(tf.shape(code), training) - 0.5)
        gradient = tape.gradient(code, x, output_gradients=rows)
        norms = tf.reduce_sum(gradient**2, axis=(1, 2, 3))
        norms = tf.reduce_sum(tf.reshape(norms, (num_rows, batch)), axis=0)
        return code[:batch], norms

    def train_step(self, data):
        x, _ = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            terms = self.loss_terms(x, training=True)
            regularization = optimization.regularization(self)
            total = tf.reduce_mean(terms["loss"]) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(**terms)

    def test_step(self, data):
        x, _ = self.unpack(data)
        return self.log(**self.loss_terms(x))

    def call(self, x, training=False):
        return self._decode(self._encode(self.to_float(x), training), training)

    # Verbs

    def encode(self, x):
        """Codes without noise, `(batch, latent_dim)` float32."""
        return self.graph(self._encode, self.images_from(x))

    def _encode(self, x, training=False):
        code = self._code(x, training)
        if isinstance(self.sparsity, KSparse):
            code = tf.cast(self.sparsity(code), "float32")
        return code

    def decode(self, z):
        """Mean images of codes, clipped to [0, 1], float32.

        Args:
            z: Codes `(batch, latent_dim)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(
            self._decode, inputs.check_latents(z, self.latent_dim)
        )

    def _decode(self, z, training=False):
        mean = self._mean(self.decoder(z, training=training))
        return tf.clip_by_value(mean, 0.0, 1.0)

    def reconstruct(self, x):
        """`decode(encode(x))`, float32 images in [0, 1]."""
        return self.graph(self.call, self.images_from(x))

    def impute(self, x, mask, *, num_samples=1, num_steps=50, seed=None):
        """Fills missing pixels by iterated projection.

        From uniform noise on, missing pixels become those of the
        reconstruction, `num_steps` times. An autoencoder has no distribution
        of images: several results show which fixed points it has, not how
        probable they are.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, starts per image.
            num_steps: Integer, reconstructions from each start.
            seed: Integer for the same starts each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`.

        Raises:
            ValueError: If an argument is not as above.
        """
        for name, value in (
            ("num_samples", num_samples),
            ("num_steps", num_steps),
        ):
            if not tf.is_tensor(value):
                inputs.check_positive_integer(value, name)
        x, mask = self.observed_from(x, mask)
        seed = self.verb_seed(seed)
        return self.graph(self._impute, x, mask, num_samples, num_steps, seed)

    def _impute(self, x, mask, num_samples, num_steps, seed):
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        noise = tf.random.stateless_uniform(shape, seed, alg="philox")

        def project(step, images):
            flat = tf.reshape(images, (-1, *self.image_shape))
            projected = tf.reshape(self.call(flat), shape)
            return step + 1, tf.where(mask, x, projected)

        start = (0, tf.where(mask, x, noise))
        _, images = tf.while_loop(
            lambda step, images: step < num_steps, project, start
        )
        return images

    # Saving

    def get_config(self):
        serialize = saving.serialize_keras_object
        config = {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "corruption": serialize(self.corruption),
            "sparsity": serialize(self.sparsity),
            "sparsity_weight": self.sparsity_weight,
            "contractive": self.contractive,
            "code_noise": self.code_noise,
            "likelihood": serialize(
                pixel_likelihoods.name_of(self.pixels) or self.pixels
            ),
            "linear": self.linear,
        }
        if not self.linear:
            config["encoder"] = serialize(self.encoder)
            config["decoder"] = serialize(self.decoder)
        return config


def _linear_encoder(image_shape, latent_dim):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Rescaling(2.0, offset=-1.0, dtype="float32"),
            layers.Flatten(dtype="float32"),
            layers.Dense(latent_dim, dtype="float32"),
        ],
        name="encoder",
    )


def _only_dense_layer(network):
    """The linear dense layer of a network that has no other, or `None`."""
    if not isinstance(network, keras.Sequential):
        return None
    layers = [
        layer
        for layer in network.layers
        if not isinstance(layer, keras.layers.Flatten)
    ]
    if len(layers) != 1 or type(layers[0]) is not keras.layers.Dense:
        return None
    is_linear = layers[0].activation is keras.activations.linear
    return layers[0] if is_linear else None
