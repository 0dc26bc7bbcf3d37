"""Deep Boltzmann machine: several hidden layers, trained together."""

import itertools

import keras
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.likelihood.boltzmann import sample_bernoulli
from keras_gen.models.boltzmann_machine import (
    BoltzmannMachine,
    over_replicas,
    product,
)
from keras_gen.models.visible_units import BinaryUnits


@saving.register_keras_serializable(package="keras_gen")
class DBM(BoltzmannMachine):
    """Deep Boltzmann machine of binary images and binary hidden layers.

    `p(v, h_1, ..., h_L) = exp(-energy) / Z`, for two layers with

        -energy = b . v + c_1 . h_1 + c_2 . h_2 + v @ W_1 @ h_1 + h_1 @ W_2 @ h_2

    For each image `q(h)` are independent units whose means m come from
    `mean_field_steps` rounds of `m_1 = sigmoid(c_1 + v @ W_1 + m_2 @
    transpose(W_2))`, `m_2 = sigmoid(c_2 + m_1 @ W_2)`; each of these updates
    raises the bound `log p(v) >= -energy(v, m) + entropy(m) - log Z`. A
    training step raises it by its gradient, in which that of log Z comes from
    `num_chains` Gibbs chains that go on from step to step, `gibbs_steps`
    sweeps of all layers each.

    This gradient is centred: the step is that of the same machine written with
    units that count from their means over the batch, which leaves to biases
    what units do in all images. All layers then learn from the first step on.
    The older remedy is a start that uses all of them. With `pretrain_steps`,
    the first `L * pretrain_steps` training steps train one layer after the
    other, from below, by contrastive divergence with `gibbs_steps` sweeps, as
    restricted Boltzmann machines between the means of one layer and the next.
    As a layer will later hear from both sides, in these machines the input
    from below counts double for all but the top layer, and that from above
    for all but the images. The visible units start with the means of the
    first batch.

    Logs `loss`, `-energy` of the model's chains minus the bound without
    log Z, whose sign means nothing (while it pretrains, the difference of the
    energies that contrastive divergence compares); and `mse`, the squared
    error per pixel of the images that the means of the lowest layer give.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dims: Integers, widths of the hidden layers from below, two or
            more.
        num_chains: Integer, persistent chains over all replicas.
        gibbs_steps: Integer, sweeps of a training step.
        mean_field_steps: Integer, rounds of mean field for each image.
        pretrain_steps: Integer, training steps for each layer before they
            are trained together.
        centered: Boolean, whether the gradient of all layers is centred.
        seed: Integer or `None`, seed of all chains.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Means of the pixels given the means of the lowest hidden layer, float32
        in [0, 1].

    Attributes:
        kernels: List of the W, weights `(dim_below, dim_above)`.
        hidden_biases: List of the c, weights `(dim,)`.
        units: Layer of the visible units; `bias` is b.
        chains: Weight, the hidden layers of odd number of each chain, side by
            side.
        started: A weight, 0 until `fit` has set the visible bias. With 1 it
            goes on from the one that was assigned.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> dbm = DBM((28, 28, 1), hidden_dims=(500, 1000))
    >>> dbm.compile(keras.optimizers.SGD(0.01))
    >>> dbm.fit(binary_images, epochs=100)
    >>> dbm.elbo(images)  # (batch,), nats

    Reference:
        - Salakhutdinov and Hinton, Deep Boltzmann Machines, 2009
        - [Learning Feature Hierarchies with Centered Deep Boltzmann Machines](
          https://arxiv.org/abs/1203.3783)
        - [How to Center Binary Deep Boltzmann Machines](
          https://arxiv.org/abs/1311.1354)
    """

    is_binary = True

    def __init__(
        self,
        image_shape,
        hidden_dims,
        *,
        num_chains=100,
        gibbs_steps=5,
        mean_field_steps=10,
        pretrain_steps=0,
        centered=True,
        seed=None,
        **kwargs,
    ):
        hidden_dims = _checked_dims(hidden_dims)
        super().__init__(
            image_shape,
            hidden_dims,
            make_units=BinaryUnits,
            num_chains=inputs.check_positive_integer(num_chains, "num_chains"),
            gibbs_steps=gibbs_steps,
            seed=seed,
            **kwargs,
        )
        self.hidden_dims = hidden_dims
        self.mean_field_steps = inputs.check_positive_integer(
            mean_field_steps, "mean_field_steps"
        )
        self.pretrain_steps = inputs.check_count(
            pretrain_steps, "pretrain_steps"
        )
        self.centered = inputs.check_boolean(centered, "centered")
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

    # Training

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `SGD(0.01)`. A
                learning rate that falls towards 0 gives better models.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None:
            optimizer = keras.optimizers.SGD(0.01)
        super().compile(optimizer, **kwargs)

    def train_step(self, data):
        x, _ = self.unpack(data)
        v = self._values(x)
        self._start(v)
        _, state = self._advanced_chains(training=True)
        seed = self.train_seeds.next_shared()
        if self.pretrain_steps:
            stages = [
                lambda i=i: self._pretraining_gradients(v, i, seed)
                for i in range(1, self.num_layers + 1)
            ]
            stage = tf.minimum(
                self.steps_seen.value // self.pretrain_steps, self.num_layers
            )
            loss, first, sums, *gradients = tf.switch_case(
                tf.cast(stage, "int32"),
                [*stages, lambda: self._joint_gradients(v, state)],
            )
        else:
            loss, first, sums, *gradients = self._joint_gradients(v, state)
        error = self._squared_error(v, first)
        weights = self.trainable_weights
        if self.centered:
            gradients = self._centered(weights, gradients, sums, v)
        self.apply_gradients(gradients, weights, self.optimizer)
        self.steps_seen.assign(self.steps_seen + 1)
        return self.log(loss=loss, mse=error)

    def test_step(self, data):
        x, _ = self.unpack(data)
        v = self._values(x)
        _, state = self._advanced_chains(training=False)
        means = self._mean_field(v)
        loss = tf.reduce_mean(self._log_sum(state)) - self._bound(v, means)
        return self.log(loss=loss, mse=self._squared_error(v, means[0]))

    # Either gives `(loss, means of the lowest hidden layer, sums over the batch
    # of all units, *gradients)`.

    def _joint_gradients(self, v, state):
        dtype = self.compute_dtype
        means = self._mean_field(v, dtype)
        with tf.GradientTape() as tape:
            of_model = tf.reduce_mean(self._log_sum(state, dtype=dtype))
            loss = of_model - self._bound(v, means, dtype)
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        gradients = tape.gradient(scaled_loss, self.trainable_weights)
        sums = tf.reduce_sum(tf.concat([v, *means], axis=1), axis=0)
        return loss, means[0], sums, *gradients

    def _pretraining_gradients(self, v, i, seed):
        """Those of contrastive divergence between layers i - 1 and i."""
        dtype = self.compute_dtype
        layers = [v]
        for j in range(1, i):
            layers.append(tf.sigmoid(self._upwards(layers[-1], j, dtype)))
        below, r = layers[-1], self._upwards(layers[-1], i, dtype)
        means = tf.sigmoid(r)
        bias_below = self.hidden_biases[i - 2] if i > 1 else self.units.bias
        factor = 2.0 if i > 1 else 1.0
        kernel = self.kernels[i - 1]
        seeds = tf.unstack(
            tf.random.split(seed, 2 * self.gibbs_steps, alg="philox")
        )
        for k in range(self.gibbs_steps):
            h = sample_bernoulli(r, seeds[2 * k])
            r_below = factor * product(h, kernel, dtype, transpose_b=True)
            below_of_model = sample_bernoulli(
                bias_below + r_below, seeds[2 * k + 1]
            )
            r = self._upwards(below_of_model, i, dtype)
        means_of_model = tf.sigmoid(r)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            loss = tf.zeros_like(v[:, 0])
            for sign, y, m in (
                (-1.0, below, means),
                (1.0, below_of_model, means_of_model),
            ):
                r = self.hidden_biases[i - 1] + product(y, kernel, dtype)
                loss += sign * tf.reduce_sum(m * r, axis=1)
                if i == 1:
                    loss += sign * self.units.log_factor(y)
            scaled_loss = self.scale_loss(tf.reduce_mean(loss), self.optimizer)
        gradients = [
            tf.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(
                weights, tape.gradient(scaled_loss, weights), strict=True
            )
        ]
        # Means of 0 leave the gradient as it is.
        sums = tf.zeros(self.num_dims + self.z_dim)
        return loss, [*layers, means][1], sums, *gradients

    def _centered(self, weights, gradients, sums, v):
        """Gradients of the machine whose units count from their means.

        With means m, below and above a kernel: that of the kernel is of
        `(below - m) @ kernel @ (above - m)`, and biases take the opposite of
        what its change does at the means.
        """
        count = over_replicas(tf.cast(tf.shape(v)[0], "float32"))
        means = tf.split(
            over_replicas(sums) / count, [self.num_dims, *self.hidden_dims]
        )
        place = {weight.path: i for i, weight in enumerate(weights)}
        biases = [self.units.bias, *self.hidden_biases]
        of_kernels = [gradients[place[w.path]] for w in self.kernels]
        of_biases = [gradients[place[w.path]] for w in biases]
        for i, (below, above) in enumerate(itertools.pairwise(means)):
            of_kernels[i] -= tf.tensordot(below, of_biases[i + 1], 0)
            of_kernels[i] -= tf.tensordot(of_biases[i], above, 0)
        for i, (below, above) in enumerate(itertools.pairwise(means)):
            of_biases[i] -= tf.linalg.matvec(of_kernels[i], above)
            of_biases[i + 1] -= tf.linalg.matvec(
                of_kernels[i], below, transpose_a=True
            )
        centered = list(gradients)
        for weight, gradient in zip(
            [*self.kernels, *biases], [*of_kernels, *of_biases], strict=True
        ):
            centered[place[weight.path]] = gradient
        return centered

    def _squared_error(self, v, first):
        r = product(first, self.kernels[0], transpose_b=True)
        return tf.reduce_mean((v - self.units.mean(r)) ** 2, axis=1)

    # The machine

    def _upwards(self, below, i, dtype="float32"):
        """Logits of layer i given the one below, if none has come from above."""
        factor = 2.0 if i < self.num_layers else 1.0
        r = factor * product(below, self.kernels[i - 1], dtype)
        return self.hidden_biases[i - 1] + r

    def _mean_field(self, v, dtype="float32"):
        """Means of all hidden layers, a list of `(n, dim)`."""
        layers = [v]
        for i in range(1, self.num_layers + 1):
            layers.append(tf.sigmoid(self._upwards(layers[-1], i, dtype)))
        biases = [tf.convert_to_tensor(bias) for bias in self.hidden_biases]
        # What the images say does not change.
        biases[0] += product(v, self.kernels[0], dtype)
        layers[0] = None
        for _ in range(self.mean_field_steps):
            for start in (1, 2):
                for i in range(start, self.num_layers + 1, 2):
                    r = self._hidden_inputs(i, layers, dtype)
                    layers[i] = tf.sigmoid(biases[i - 1] + r)
        return layers[1:]

    def _hidden_inputs(self, i, layers, dtype):
        """What layer i gets from the hidden layers beside it."""
        total = 0.0
        if i > 1:
            total += product(layers[i - 1], self.kernels[i - 1], dtype)
        if i < self.num_layers:
            above, kernel = layers[i + 1], self.kernels[i]
            total += product(above, kernel, dtype, transpose_b=True)
        return total

    def _bound(self, v, means, dtype="float32"):
        """`-energy(v, means) + entropy(means)`, `(n,)`."""
        total, below = self.units.log_factor(v), v
        for m, kernel, bias in zip(
            means, self.kernels, self.hidden_biases, strict=True
        ):
            r = bias + product(below, kernel, dtype)
            entropy = -tf.math.xlogy(m, m) - tf.math.xlogy(1 - m, 1 - m)
            total += tf.reduce_sum(m * r + entropy, axis=1)
            below = m
        return total

    def _log_unnormalized(self, v):
        return self._bound(v, self._mean_field(v))

    def _encode(self, x):
        return tf.concat(self._mean_field(self._values(x)), axis=1)

    # Verbs

    def elbo(self, x, *, num_samples=100, seed=None):
        """The bound of log p(x), with log Z by annealed importance sampling.

        For log Z, `num_samples` chains pass 14,500 temperatures, once for the
        weights as they are: calls without a `seed`, or with the same one, use
        it again. It tends to be too small, and the bound too large, where
        chains are few. For error bars, or other temperatures, see
        `log_unnormalized`.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. Grey
                values have no probability.
            num_samples: Integer, chains that are annealed.
            seed: Integer for the same estimate each time, or `None`.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above, or log-probabilities
                are positive: the chains were too few.
        """
        return self._estimate(x, num_samples, seed)

    def log_prob(self, x, *, condition=None, num_samples=100, seed=None):
        """The same as `elbo`: log p(x) has no closed form even up to log Z.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`; taken so that one model can stand for another.
            num_samples: Integer, chains that are annealed.
            seed: Integer for the same estimate each time, or `None`.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        return self._estimate(x, num_samples, seed)

    # Saving

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dims": self.hidden_dims,
            "mean_field_steps": self.mean_field_steps,
            "pretrain_steps": self.pretrain_steps,
            "centered": self.centered,
        }


def _checked_dims(hidden_dims):
    try:
        dims = tuple(hidden_dims)
    except TypeError:
        dims = ()
    if len(dims) < 2:
        raise ValueError(
            "`hidden_dims` must be the widths of two or more hidden layers, "
            f"got {str(hidden_dims)[:100]!r}. Pass for example `(500, 1000)`, "
            "or take an `RBM`, which has one."
        )
    return tuple(inputs.check_positive_integer(d, "hidden_dims") for d in dims)
