"""Restricted Boltzmann machine of binary or Gaussian visible units."""

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.likelihood.boltzmann import sample_bernoulli
from keras_gen.models.boltzmann_machine import BoltzmannMachine, product
from keras_gen.models.visible_units import BinaryUnits, GaussianUnits

_UNITS = {"bernoulli": BinaryUnits, "gaussian": GaussianUnits}


@saving.register_keras_serializable(package="keras_gen")
class RBM(BoltzmannMachine):
    """Restricted Boltzmann machine: visible and hidden units, nothing between.

    `p(v) = exp(-free_energy(v)) / Z`, for binary images v with

        free_energy(v) = -b . v - sum_j softplus(c[j] + v @ W[:, j])

    Gaussian visible units have `sum(u**2) / 2` in place of `-b . v`, and
    `u = (v - b) / scale` in place of v in the sum; W, b, c and `scale` are
    trained. They model images dequantized by uniform noise.

    A training step minimizes `free_energy(data) - free_energy(model)`, both
    means, whose gradient is that of `-log p(data)` if the second images are
    from the model. They come from `num_chains` Gibbs chains that go on from
    step to step (persistent contrastive divergence), `gibbs_steps` sweeps
    each; without chains they are the data after `gibbs_steps` sweeps
    (contrastive divergence, CD-k), which is a worse model of what is far
    from the data. The visible units start with the means (Gaussian: and
    deviations) of the first batch.

    Logs this `loss`, whose sign means nothing: with persistent chains,
    `val_loss - loss` is by how much the training images are more probable
    than those held out. Of binary units also `pseudo_log_prob`, an estimate of
    `sum_i log p(v[i] given all others)`, nats per image, by one random pixel
    of each image; it rises as the model becomes better. Of Gaussian units
    `mse`, the squared error per pixel of the reconstruction.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dim: Integer, number of hidden units.
        likelihood: `"bernoulli"`: binary images, of which grey values in
            training are taken as they are; or `"gaussian"`.
        num_chains: Integer, persistent chains over all replicas; 0 for
            contrastive divergence.
        gibbs_steps: Integer, sweeps of a training step.
        seed: Integer or `None`, seed of all chains.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Means of the pixels given the means of the hidden units, float32 in
        [0, 1].

    Attributes:
        kernel: W, a weight `(D, hidden_dim)`.
        hidden_bias: c, a weight `(hidden_dim,)`.
        units: Layer of the visible units: `bias` is b, `scale` is positive.
        chains: Weight `(num_chains, hidden_dim)`, the hidden units of the
            chains; `None` without them.
        started: A weight, 0 until `fit` has set the visible units. With 1 it
            goes on from those that were assigned.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> rbm = RBM((28, 28, 1), hidden_dim=500)
    >>> rbm.compile(keras.optimizers.SGD(0.05))
    >>> rbm.fit(binary_images, epochs=50)
    >>> log_z = rbm.log_partition()
    >>> unnormalized = rbm.log_unnormalized(x)
    >>> likelihood.normalized_log_prob(unnormalized, log_z).interval()

    Reference:
        - Hinton, Training Products of Experts by Minimizing Contrastive
          Divergence, 2002
        - Tieleman, Training Restricted Boltzmann Machines using Approximations
          to the Likelihood Gradient, 2008
        - Hinton, A Practical Guide to Training Restricted Boltzmann Machines,
          2010
        - [Improved Learning of Gaussian-Bernoulli Restricted Boltzmann
          Machines](https://doi.org/10.1007/978-3-642-21735-7_2), on scales
    """

    def __init__(
        self,
        image_shape,
        hidden_dim,
        *,
        likelihood="bernoulli",
        num_chains=100,
        gibbs_steps=1,
        seed=None,
        **kwargs,
    ):
        hidden_dim = inputs.check_positive_integer(hidden_dim, "hidden_dim")
        if likelihood not in tuple(_UNITS):
            raise ValueError(
                f"`likelihood` of RBM must be one of {tuple(_UNITS)}, got "
                f"{str(likelihood)[:100]!r}."
            )
        num_chains = inputs.check_count(num_chains, "num_chains")
        super().__init__(
            image_shape,
            (hidden_dim,),
            make_units=_UNITS[likelihood],
            num_chains=num_chains,
            gibbs_steps=gibbs_steps,
            seed=seed,
            **kwargs,
        )
        self.hidden_dim, self.likelihood = hidden_dim, likelihood
        self.kernel, self.hidden_bias = self.kernels[0], self.hidden_biases[0]
        self.is_binary = likelihood == "bernoulli"
        self.add_metrics("loss", "pseudo_log_prob" if self.is_binary else "mse")
        self.built = True

    # Training

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `SGD(0.05)`,
                with Gaussian units to `Adam(1e-4)`: pixels of small scale have
                large gradients, and chains collapse at faster rates. A rate that
                falls towards 0 gives better models: chains that mix slowly
                cannot follow fast weights.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None and self.is_binary:
            optimizer = keras.optimizers.SGD(0.05)
        elif optimizer is None:
            optimizer = keras.optimizers.Adam(1e-4)
        super().compile(optimizer, **kwargs)

    def train_step(self, data):
        x, _ = self.unpack(data)
        v = self._values(x, training=True)
        self._start(v)
        of_model = self._negative_phase(v, training=True)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            r = self._hidden_logits(v, self.compute_dtype)
            free_energy = self._free_energy(v, r)
            r_of_model = self._hidden_logits(of_model, self.compute_dtype)
            loss = free_energy - tf.reduce_mean(
                self._free_energy(of_model, r_of_model)
            )
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        logs = self._monitored(v, r, training=True)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(loss=loss, **logs)

    def test_step(self, data):
        x, _ = self.unpack(data)
        v = self._values(x)
        of_model = self._negative_phase(v, training=False)
        r, r_of_model = self._hidden_logits(v), self._hidden_logits(of_model)
        loss = self._free_energy(v, r) - tf.reduce_mean(
            self._free_energy(of_model, r_of_model)
        )
        return self.log(loss=loss, **self._monitored(v, r, training=False))

    def _negative_phase(self, v, training):
        """Visible values that take the part of the model's, `(n, D)`."""
        if self.num_chains:
            return self._advanced_chains(training)[0]
        seeds = self.train_seeds if training else self.eval_seeds
        seed = seeds.next_shared()
        h = sample_bernoulli(self._hidden_logits(v), seed)
        return self._walked(h, training)[0]

    def _monitored(self, v, r, training):
        if not self.is_binary:
            v_again = self.units.mean(self._visible_inputs(tf.sigmoid(r)))
            return {"mse": tf.reduce_mean((v - v_again) ** 2, axis=1)}
        # Of `log p(v[i] given all others)` for all pixels, one for each image.
        shape = tf.shape(v)[:1]
        uniform = self.uniform(shape, training)
        pixel = tf.cast(uniform * self.num_dims, "int32")
        change = 1.0 - 2.0 * tf.gather(v, pixel, batch_dims=1)
        flipped = r + change[:, tf.newaxis] * tf.gather(self.kernel, pixel)
        log_odds = change * tf.gather(self.units.bias, pixel) + tf.reduce_sum(
            tf.nn.softplus(flipped) - tf.nn.softplus(r), axis=1
        )
        return {"pseudo_log_prob": -self.num_dims * tf.nn.softplus(log_odds)}

    # The machine

    def _hidden_logits(self, v, dtype="float32"):
        features = self.units.features(v)
        return self.hidden_bias + product(features, self.kernel, dtype)

    def _visible_inputs(self, h):
        return product(h, self.kernel, transpose_b=True)

    def _free_energy(self, v, r):
        """`(n,)`, of values and the logits of hidden units given them."""
        softplus = tf.reduce_sum(tf.nn.softplus(r), axis=1)
        return -self.units.log_factor(v) - softplus

    def _log_unnormalized(self, v):
        return -self._free_energy(v, self._hidden_logits(v))

    def _encode(self, x):
        v = self._values(x, noise=0.5)
        return tf.sigmoid(self._hidden_logits(v))

    # Verbs

    def free_energy(self, x):
        """`-log p(x) - log Z`, `(batch,)` nats.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. With
                Gaussian units, a density at the middles of the 256 levels.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.units.log_volume - self.log_unnormalized(x)

    def log_prob(self, x, *, condition=None, num_samples=100, seed=None):
        """log p(x) by annealed importance sampling.

        `log_unnormalized(x) - log Z`. For log Z, `num_samples` chains pass
        14,500 temperatures, once for the weights as they are: calls without a
        `seed`, or with the same one, use it again. It tends to be too small, and
        log p(x) too large, where chains are few. For error bars, or other
        temperatures, see `log_unnormalized`. With Gaussian units the images
        are dequantized by one draw of uniform noise.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`; taken so that one model can stand for another.
            num_samples: Integer, chains that are annealed.
            seed: Integer for the same estimate each time, or `None`.

        Returns:
            `(batch,)` nats of the binary (Gaussian units: 8-bit) image. Grey
            values have no probability under binary units.

        Raises:
            ValueError: If an argument is not as above, or log-probabilities
                are positive: the chains were too few.
        """
        inputs.check_no_condition(condition, self)
        return self._estimate(x, num_samples, seed)

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "likelihood": self.likelihood,
        }
