"""Posteriors q(z given x): layers that turn an encoder's output into latents.

The encoder gives `h`, `(batch, num_parameters)`. `draw(h, noise)` makes
reparameterized draws of z with their log-densities; `mean`, `distribution`
and, where it has a closed form, `kl` read the same `h`. Everything is float32
under every dtype policy.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs
from keras_gen.layers import priors
from keras_gen.layers.masked import MaskedDense, made_masks

tfd = tfp.distributions


class Posterior(keras.layers.Layer):
    """What posteriors have in common: their attributes and methods.

    Attributes:
        num_parameters: Integer, units that the encoder must output.
        z_dim: Integer, width of z.
        noise: `"normal"` or `"uniform"`, the noise that `draw` takes.
        noise_dim: Integer, width of the noise of one draw.
        num_strata: Integer, latents that one draw gives: the components of a
            mixture, one otherwise.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    noise = "normal"
    num_strata = 1

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def draw(self, h, noise, hard=False):
        """Reparameterized draws of z.

        Means over draws are `sum(exp(log_share) * f(z))`, and importance
        weights gain the factor `exp(log_share)`.

        Args:
            h: Encoder output `(batch, num_parameters)`.
            noise: Standard normal or uniform in [0, 1), by `self.noise`;
                `(batch, k, noise_dim)` for k draws per row of `h`.
            hard: Boolean, whether categorical latents are exact one-hot
                vectors, without a gradient. Others ignore it.

        Returns:
            `(z, log_q, log_share)`: latents `(batch, n, z_dim)` where
            `n = k * num_strata`, the log-density of each under q(z given x),
            and the log of its share in means, `(batch, n)`. The shares of a
            row sum to one.
        """
        raise NotImplementedError

    def mean(self, h):
        """Mean of q(z given x), `(batch, z_dim)`."""
        raise NotImplementedError

    def distribution(self, h):
        """q(z given x), a `tfd.Distribution` over `(batch, z_dim)`."""
        raise NotImplementedError

    def kl(self, h, prior):
        """Closed form of `KL(q(z given x), p(z))`, or `None` if it has none.

        Args:
            h: Encoder output `(batch, num_parameters)`.
            prior: Layer of `layers.priors`.

        Returns:
            `None`, or `(batch, n)` nats whose sum over the last axis is the
            divergence, a term for each latent variable.
        """
        return None


@saving.register_keras_serializable(package="keras_gen")
class DiagonalPosterior(Posterior):
    """Gaussian posterior with a location and a scale for each latent.

    `z = loc + scale * noise` for `loc, scale = h[:, :d], softplus(h[:, d:])`.

    Args:
        latent_dim: Integer d, dimensions of z.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `latent_dim` is not a positive integer.

    Example:

    >>> posterior = DiagonalPosterior(32)
    >>> h = encoder(x)  # (batch, posterior.num_parameters)
    >>> z, log_q, log_share = posterior.draw(h, tf.random.normal((8, 5, 32)))

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
        self.noise_dim = self.z_dim
        self.num_parameters = 2 * self.z_dim

    def draw(self, h, noise, hard=False):
        normal = self.distribution(h).distribution
        scale = normal.scale[:, tf.newaxis]
        z = normal.loc[:, tf.newaxis] + scale * noise
        log_q = _log_normal(noise) - _sum(tf.math.log(scale))
        return z, log_q, _equal_shares(log_q)

    def mean(self, h):
        return tf.cast(h, "float32")[:, : self.z_dim]

    def distribution(self, h):
        return priors.diagonal_normal(
            *tf.split(tf.cast(h, "float32"), 2, axis=-1)
        )

    def kl(self, h, prior):
        if not isinstance(prior, priors.StandardNormalPrior):
            return None
        normal = self.distribution(h).distribution
        return _kl_to_standard(
            tf.square(normal.loc) + tf.square(normal.scale), normal.scale
        )

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.z_dim}


@saving.register_keras_serializable(package="keras_gen")
class FullCovariancePosterior(Posterior):
    """Gaussian posterior with a full covariance matrix.

    `z = loc + L @ noise` with a lower triangular `L` of positive diagonal, so
    that the covariance is `L @ L.T`. `h` is the location and the
    `d * (d + 1) / 2` entries of `L`, those of the diagonal unconstrained.

    Args:
        latent_dim: Integer d, dimensions of z.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `latent_dim` is not a positive integer.

    Example:

    >>> FullCovariancePosterior(32).num_parameters  # 560
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
        self.noise_dim = self.z_dim
        self.num_parameters = self.z_dim + self.z_dim * (self.z_dim + 1) // 2

    def _loc_and_tril(self, h):
        h = tf.cast(h, "float32")
        tril = tfp.math.fill_triangular(h[:, self.z_dim :])
        diagonal = tf.nn.softplus(tf.linalg.diag_part(tril)) + 1e-5
        return h[:, : self.z_dim], tf.linalg.set_diag(tril, diagonal)

    def draw(self, h, noise, hard=False):
        loc, tril = self._loc_and_tril(h)
        z = loc[:, tf.newaxis] + tf.matmul(noise, tril, transpose_b=True)
        log_diagonal = tf.math.log(tf.linalg.diag_part(tril))
        log_q = _log_normal(noise) - _sum(log_diagonal)[:, tf.newaxis]
        return z, log_q, _equal_shares(log_q)

    def mean(self, h):
        return tf.cast(h, "float32")[:, : self.z_dim]

    def distribution(self, h):
        return tfd.MultivariateNormalTriL(*self._loc_and_tril(h))

    def kl(self, h, prior):
        if not isinstance(prior, priors.StandardNormalPrior):
            return None
        # The chain rule: term i is that of z_i given the latents before it.
        loc, tril = self._loc_and_tril(h)
        return _kl_to_standard(
            tf.square(loc) + _sum(tf.square(tril)), tf.linalg.diag_part(tril)
        )

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.z_dim}


@saving.register_keras_serializable(package="keras_gen")
class MixturePosterior(Posterior):
    """Posterior that is a mixture of diagonal Gaussians.

    `q(z given x) = sum_c softmax(logits)[c] * N(z; loc[c], scale[c])`, able to
    hold apart several explanations of one image. A draw is stratified: it
    gives one z from each component, whose share is the component's weight, so
    the weights get a gradient and nothing is chosen at random.

    Args:
        latent_dim: Integer, dimensions of z.
        num_components: Integer, Gaussians in the mixture.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If one of the two is not a positive integer.

    Example:

    >>> posterior = MixturePosterior(32, num_components=5)
    >>> noise = tf.random.normal((8, 1, posterior.noise_dim))
    >>> posterior.draw(h, noise)[0].shape  # (8, 5, 32)
    """

    def __init__(self, latent_dim, num_components=5, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
        self.num_components = inputs.check_positive_integer(
            num_components, "num_components"
        )
        self.num_strata = self.num_components
        self.noise_dim = self.num_components * self.z_dim
        self.num_parameters = self.num_components * (1 + 2 * self.z_dim)

    def distribution(self, h):
        logits, parameters = tf.split(
            tf.cast(h, "float32"),
            [self.num_components, 2 * self.noise_dim],
            axis=-1,
        )
        parameters = tf.reshape(
            parameters, (-1, self.num_components, 2 * self.z_dim)
        )
        return priors.DiagonalMixture(
            tfd.Categorical(logits=logits),
            priors.diagonal_normal(*tf.split(parameters, 2, axis=-1)),
        )

    def draw(self, h, noise, hard=False):
        mixture = self.distribution(h)
        normal = mixture.components_distribution.distribution
        log_weights = tf.nn.log_softmax(mixture.mixture_distribution.logits)
        k = tf.shape(noise)[1]
        noise = tf.reshape(
            noise, tf.stack([-1, k, self.num_components, self.z_dim])
        )
        z = normal.loc[:, tf.newaxis] + normal.scale[:, tf.newaxis] * noise
        z = tf.reshape(z, tf.stack([-1, k * self.num_components, self.z_dim]))
        log_q = priors.mixture_log_prob(
            z, log_weights, normal.loc, normal.scale
        )
        log_share = tf.tile(log_weights, tf.stack([1, k]))
        return z, log_q, log_share - tf.math.log(tf.cast(k, "float32"))

    def mean(self, h):
        return self.distribution(h).mean()

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.z_dim,
            "num_components": self.num_components,
        }


@saving.register_keras_serializable(package="keras_gen")
class FlowPosterior(Posterior):
    """Inverse autoregressive flow: Gaussian noise through masked networks.

    A diagonal Gaussian draw passes through `num_flows` steps
    `z' = gate * z + (1 - gate) * shift`, whose `gate` and `shift` in each
    dimension are functions of the earlier ones and of x:
    `log q(z') = log q(z) - sum(log(gate))`. The order is reversed from step
    to step. Drawing is one pass; the density of another point takes
    `latent_dim` passes.

    Args:
        latent_dim: Integer, dimensions of z.
        num_flows: Integer, steps.
        hidden_dim: Integer, width of each step's hidden layer. The encoder
            outputs what is added to it, `hidden_dim` units for each step,
            after the Gaussian's `2 * latent_dim`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If one of the three is not a positive integer.

    Example:

    >>> FlowPosterior(32, num_flows=2, hidden_dim=256).num_parameters  # 576

    Reference:
        - [Improving Variational Inference with Inverse Autoregressive Flow](
          https://arxiv.org/abs/1606.04934)
    """

    def __init__(self, latent_dim, num_flows=2, hidden_dim=256, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
        self.num_flows = inputs.check_positive_integer(num_flows, "num_flows")
        self.hidden_dim = inputs.check_positive_integer(
            hidden_dim, "hidden_dim"
        )
        self.noise_dim = self.z_dim
        self.num_parameters = 2 * self.z_dim + self.num_flows * self.hidden_dim
        order = np.arange(self.z_dim)
        self.flows = [
            AutoregressiveFlow(
                self.z_dim,
                self.hidden_dim,
                order=order if i % 2 == 0 else order[::-1],
            )
            for i in range(self.num_flows)
        ]

    def _base_and_contexts(self, h):
        sizes = [self.z_dim] * 2 + [self.hidden_dim] * self.num_flows
        loc, scale, *contexts = tf.split(tf.cast(h, "float32"), sizes, axis=-1)
        return priors.diagonal_normal(loc, scale), contexts

    def draw(self, h, noise, hard=False):
        base, contexts = self._base_and_contexts(h)
        scale = base.distribution.scale[:, tf.newaxis]
        z = base.distribution.loc[:, tf.newaxis] + scale * noise
        log_q = _log_normal(noise) - _sum(tf.math.log(scale))
        for flow, context in zip(self.flows, contexts, strict=True):
            z, log_det = flow(z, context[:, tf.newaxis])
            log_q -= log_det
        return z, log_q, _equal_shares(log_q)

    def mean(self, h):
        """Draw of zero noise, `(batch, z_dim)`; the mean has no closed form."""
        noise = tf.zeros(tf.stack([tf.shape(h)[0], 1, self.noise_dim]))
        return self.draw(h, noise)[0][:, 0]

    def distribution(self, h):
        return FlowDistribution(*self._base_and_contexts(h), self.flows)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.z_dim,
            "num_flows": self.num_flows,
            "hidden_dim": self.hidden_dim,
        }


class AutoregressiveFlow(keras.layers.Layer):
    """One step of an inverse autoregressive flow: a MADE with a context.

    `(shift, s) = masked(relu(masked(z) + context))` give
    `z' = gate * z + (1 - gate) * shift` for `gate = sigmoid(s + 2)`, which at
    first is close to one: the step changes little.

    Args:
        latent_dim: Integer, dimensions of z.
        hidden_dim: Integer, width of the hidden layer.
        order: Position of each dimension in the order.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        z: `(..., latent_dim)`.
        context: `(..., hidden_dim)`, broadcast against the leading axes of z.

    Returns:
        `(z', log_det)`, of shapes `(..., latent_dim)` and `(...)`.
    """

    def __init__(self, latent_dim, hidden_dim, order, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.latent_dim = latent_dim
        first, last = made_masks(latent_dim, (hidden_dim,), order=order)
        self.first = MaskedDense(hidden_dim, first, dtype="float32")
        self.last = MaskedDense(
            2 * latent_dim, np.tile(last, 2), dtype="float32"
        )
        self.first.build((None, latent_dim))
        self.last.build((None, hidden_dim))
        self.built = True

    def _shift_and_logit(self, z, context):
        hidden = tf.nn.relu(self.first(z) + context)
        shift, logit = tf.split(self.last(hidden), 2, axis=-1)
        return shift, logit + 2.0

    def call(self, z, context):
        shift, logit = self._shift_and_logit(z, context)
        gate = tf.sigmoid(logit)
        return gate * z + (1 - gate) * shift, _sum(tf.math.log_sigmoid(logit))

    def inverse(self, z, context):
        """`(z, log_det)` of the call whose result is `z`.

        After i rounds the first i dimensions of the order are exact.
        """

        def improve(source):
            shift, logit = self._shift_and_logit(source, context)
            gate = tf.sigmoid(logit)
            return (z - (1 - gate) * shift) / gate

        # The first round also brings z to the shape it broadcasts to. XLA
        # keeps what gradients need only if the number of rounds is fixed.
        (source,) = tf.while_loop(
            lambda source: True,
            lambda source: (improve(source),),
            (improve(tf.zeros_like(z)),),
            maximum_iterations=self.latent_dim - 1,
        )
        logit = self._shift_and_logit(source, context)[1]
        return source, _sum(tf.math.log_sigmoid(logit))


class FlowDistribution(tfd.Distribution):
    """A base distribution pushed through flows.

    Args:
        base: `tfd.Distribution` of event shape `(latent_dim,)`.
        contexts: List of `(..., hidden_dim)`, in the batch shape of `base`,
            one for each flow.
        flows: List of `AutoregressiveFlow`.
        name: Name of the distribution.

    Example:

    >>> FlowPosterior(32).distribution(h).sample()  # (batch, 32)
    """

    def __init__(self, base, contexts, flows, name="FlowDistribution"):
        parameters = dict(locals())
        self.base = base
        self.steps = list(zip(flows, contexts, strict=True))
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self):
        return self.base.batch_shape

    def _batch_shape_tensor(self):
        return self.base.batch_shape_tensor()

    def _event_shape(self):
        return self.base.event_shape

    def _event_shape_tensor(self):
        return self.base.event_shape_tensor()

    def _sample_n(self, n, seed=None):
        z = self.base.sample(n, seed=seed)
        for flow, context in self.steps:
            z, _ = flow(z, context)
        return z

    def _log_prob(self, z):
        total = 0.0
        for flow, context in reversed(self.steps):
            z, log_det = flow.inverse(z, context)
            total += log_det
        return self.base.log_prob(z) - total


@saving.register_keras_serializable(package="keras_gen")
class CategoricalPosterior(Posterior):
    """Independent categorical latents, relaxed by the Gumbel-softmax.

    `y = softmax((logits + g) / temperature)` for Gumbel noise
    `g = -log(-log(noise))`; z is the `latent_dim` vectors y side by side. The
    lower the temperature, the closer they are to one-hot draws of
    `softmax(logits)`, and the noisier their gradient.

    `log_q = sum(z * log_softmax(logits))` is the log-probability of a one-hot
    z, continued linearly, and not the density of relaxed draws: bounds of
    log p(x) hold for `hard` draws. `temperature` is a weight that does not
    train; `posterior.temperature.assign` anneals it.

    Args:
        latent_dim: Integer, number of variables.
        num_categories: Integer, categories of each.
        temperature: Positive number, at the start.
        straight_through: Boolean, whether draws are one-hot vectors whose
            gradient is that of the relaxed ones.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> posterior = CategoricalPosterior(20, 10)
    >>> noise = tf.random.uniform((8, 1, posterior.noise_dim))
    >>> posterior.draw(h, noise)[0].shape  # (8, 1, 200)

    Reference:
        - [Categorical Reparameterization with Gumbel-Softmax](
          https://arxiv.org/abs/1611.01144)
    """

    noise = "uniform"

    def __init__(
        self,
        latent_dim,
        num_categories,
        temperature=1.0,
        straight_through=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_categories = inputs.check_positive_integer(
            num_categories, "num_categories"
        )
        self.straight_through = straight_through
        self.z_dim = self.latent_dim * self.num_categories
        self.noise_dim = self.num_parameters = self.z_dim
        self.temperature = self.add_weight(
            name="temperature",
            shape=(),
            initializer=keras.initializers.Constant(
                inputs.check_number(
                    temperature, "temperature", minimum=0, exclusive=True
                )
            ),
            trainable=False,
            autocast=False,
        )

    def draw(self, h, noise, hard=False):
        distribution = self.distribution(h)
        logits = distribution.logits[:, tf.newaxis]
        shape = tf.concat([tf.shape(noise)[:2], logits.shape[2:]], axis=0)
        # Uniform numbers may be zero, whose logarithm is not finite.
        noise = tf.maximum(tf.reshape(noise, shape), np.finfo("float32").tiny)
        scores = logits - tf.math.log(-tf.math.log(noise))
        one_hot = tf.one_hot(tf.argmax(scores, axis=-1), self.num_categories)
        relaxed = tf.nn.softmax(scores / self.temperature)
        if hard:
            z = one_hot
        elif self.straight_through:
            z = one_hot + (relaxed - tf.stop_gradient(relaxed))
        else:
            z = relaxed
        z = priors.flatten_variables(z)
        log_probs = priors.flatten_variables(tf.nn.log_softmax(logits))
        log_q = _sum(z * log_probs)
        return z, log_q, _equal_shares(log_q)

    def mean(self, h):
        """Probabilities of the categories, `(batch, z_dim)`."""
        return self.distribution(h).mean()

    def distribution(self, h):
        shape = (-1, self.latent_dim, self.num_categories)
        return priors.FlatOneHot(tf.reshape(tf.cast(h, "float32"), shape))

    def kl(self, h, prior):
        if not isinstance(prior, priors.UniformCategoricalPrior):
            return None
        log_probs = tf.nn.log_softmax(self.distribution(h).logits)
        log_ratios = log_probs + np.log(self.num_categories)
        return _sum(tf.exp(log_probs) * log_ratios)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_categories": self.num_categories,
            # By way of an array: that of several replicas is no float.
            "temperature": float(np.asarray(self.temperature)),
            "straight_through": self.straight_through,
        }


@saving.register_keras_serializable(package="keras_gen")
class TwoLayerPosterior(Posterior):
    """Posterior of two stochastic layers, the second depending on the first.

    `q(z given x) = N(z1; loc, scale) * N(z2; loc(z1), scale(z1))` for z1 and
    z2 side by side. `h` gives the first Gaussian; `loc` and `scale` of the
    second come from a network of two tanh layers.

    Args:
        latent_dims: `(dim1, dim2)`, dimensions of z1 and z2.
        hidden_dim: Integer, width of the network's two hidden layers.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> TwoLayerPosterior((100, 50), 100).num_parameters  # 200

    Reference:
        - [Importance Weighted Autoencoders](https://arxiv.org/abs/1509.00519)
    """

    def __init__(self, latent_dims, hidden_dim=100, **kwargs):
        super().__init__(**kwargs)
        self.latent_dims = priors.check_two_dims(latent_dims)
        self.hidden_dim = inputs.check_positive_integer(
            hidden_dim, "hidden_dim"
        )
        dim1, dim2 = self.latent_dims
        self.z_dim = self.noise_dim = dim1 + dim2
        self.num_parameters = 2 * dim1
        self.network = priors.tanh_network(dim1, self.hidden_dim, 2 * dim2)

    def _second(self, z1):
        return priors.normal_from(self.network, z1)

    def draw(self, h, noise, hard=False):
        noise1, noise2 = tf.split(noise, self.latent_dims, axis=-1)
        first = self.distribution(h).first.distribution
        scale1 = first.scale[:, tf.newaxis]
        z1 = first.loc[:, tf.newaxis] + scale1 * noise1
        second = self._second(z1).distribution
        z2 = second.loc + second.scale * noise2
        log_q = (
            _log_normal(noise)
            - _sum(tf.math.log(scale1))
            - _sum(tf.math.log(second.scale))
        )
        return tf.concat([z1, z2], axis=-1), log_q, _equal_shares(log_q)

    def mean(self, h):
        """Means of z1 and of z2 given the mean of z1, `(batch, z_dim)`."""
        z1 = self.distribution(h).first.mean()
        return tf.concat([z1, self._second(z1).mean()], axis=-1)

    def distribution(self, h):
        first = priors.diagonal_normal(
            *tf.split(tf.cast(h, "float32"), 2, axis=-1)
        )
        return priors.TwoLayers(first, self._second, self.latent_dims)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dims": self.latent_dims,
            "hidden_dim": self.hidden_dim,
        }


def _sum(values):
    return tf.reduce_sum(values, axis=-1)


def _log_normal(noise):
    """Log-density of standard normal vectors."""
    return -0.5 * _sum(tf.square(noise) + np.log(2 * np.pi))


def _equal_shares(log_q):
    return tf.zeros_like(log_q) - tf.math.log(
        tf.cast(tf.shape(log_q)[1], "float32")
    )


def _kl_to_standard(second_moment, scale):
    return 0.5 * (second_moment - 1) - tf.math.log(scale)
