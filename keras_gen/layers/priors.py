"""Priors p(z) over latents: layers that hold what the prior learns.

A prior's `distribution(posterior)` is a `tfd.Distribution` of event shape
`(z_dim,)`, built anew at each use, since one that is kept would freeze its
parameters. `posterior` is a function from images `(n, *image_shape)` to
q(z given x); only `VampPrior` calls it. Everything is float32 under every
dtype policy.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs

tfd = tfp.distributions


class Prior(keras.layers.Layer):
    """What priors have in common: float32 weights made at construction.

    A subclass has `z_dim`, the width of z, and `distribution(posterior)`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def distribution(self, posterior):
        """p(z).

        Args:
            posterior: Function from images `(n, *image_shape)`, float32 in
                [0, 1], to a `tfd.Distribution` over `(n, z_dim)`.

        Returns:
            A `tfd.Distribution` of event shape `(z_dim,)`.
        """
        raise NotImplementedError


@saving.register_keras_serializable(package="keras_gen")
class StandardNormalPrior(Prior):
    """Standard normal prior, `p(z) = N(z; 0, I)`.

    Args:
        latent_dim: Integer, dimensions of z.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `latent_dim` is not a positive integer.

    Example:

    >>> StandardNormalPrior(32).distribution(None).sample(16)  # (16, 32)

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")

    def distribution(self, posterior):
        return tfd.Independent(tfd.Normal(tf.zeros(self.z_dim), 1.0), 1)

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.z_dim}


@saving.register_keras_serializable(package="keras_gen")
class UniformCategoricalPrior(Prior):
    """Independent categorical variables whose categories are equally likely.

    A z is `latent_dim` one-hot vectors, one after the other, of probability
    `num_categories ** -latent_dim` each.

    Args:
        latent_dim: Integer, number of variables.
        num_categories: Integer, categories of each.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If one of the two is not a positive integer.

    Example:

    >>> UniformCategoricalPrior(20, 10).distribution(None).sample(16)
    >>> # (16, 200), 20 ones in each row

    Reference:
        - [Categorical Reparameterization with Gumbel-Softmax](
          https://arxiv.org/abs/1611.01144)
    """

    def __init__(self, latent_dim, num_categories, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_categories = inputs.check_positive_integer(
            num_categories, "num_categories"
        )
        self.z_dim = self.latent_dim * self.num_categories

    def distribution(self, posterior):
        return FlatOneHot(tf.zeros((self.latent_dim, self.num_categories)))

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_categories": self.num_categories,
        }


@saving.register_keras_serializable(package="keras_gen")
class MixturePrior(Prior):
    """Trainable mixture of diagonal Gaussians.

    `p(z) = sum_c softmax(logits)[c] * N(z; loc[c], scale[c])`. At first the
    components are equally likely and of scale one, around centers drawn from
    a standard normal, so that no two of them are the same.

    Args:
        latent_dim: Integer, dimensions of z.
        num_components: Integer, Gaussians in the mixture.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If one of the two is not a positive integer.

    Example:

    >>> MixturePrior(32, num_components=10).distribution(None)
    """

    def __init__(self, latent_dim, num_components=10, **kwargs):
        super().__init__(**kwargs)
        self.z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
        self.num_components = inputs.check_positive_integer(
            num_components, "num_components"
        )
        shape = (self.num_components, self.z_dim)
        self.logits = self.add_weight(
            name="logits",
            shape=shape[:1],
            initializer="zeros",
            autocast=False,
        )
        self.loc = self.add_weight(
            name="loc",
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            autocast=False,
        )
        self.unconstrained_scale = self.add_weight(
            name="unconstrained_scale",
            shape=shape,
            # softplus of it is one.
            initializer=keras.initializers.Constant(np.log(np.expm1(1.0))),
            autocast=False,
        )

    def distribution(self, posterior):
        return DiagonalMixture(
            tfd.Categorical(logits=tf.convert_to_tensor(self.logits)),
            diagonal_normal(
                tf.convert_to_tensor(self.loc),
                tf.convert_to_tensor(self.unconstrained_scale),
            ),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.z_dim,
            "num_components": self.num_components,
        }


@saving.register_keras_serializable(package="keras_gen")
class VampPrior(Prior):
    """Mixture of the posteriors of trainable pseudo-images.

    `p(z) = mean_c q(z given u_c)`, the pseudo-images u passing through a hard
    tanh that keeps them in [0, 1]. They start as grey images with a little
    noise, or as training images after `adapt`.

    Args:
        image_shape: `(height, width, channels)`.
        num_components: Integer, pseudo-images.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> prior = VampPrior((28, 28, 1), num_components=500)
    >>> prior.adapt(x_train)
    >>> vae = VAE((28, 28, 1), latent_dim=40, prior=prior)

    Reference:
        - [VAE with a VampPrior](https://arxiv.org/abs/1705.07120)
    """

    def __init__(self, image_shape, num_components=500, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = inputs.check_image_shape(image_shape)
        self.num_components = inputs.check_positive_integer(
            num_components, "num_components"
        )
        self.pseudo_images = self.add_weight(
            name="pseudo_images",
            shape=(self.num_components, *self.image_shape),
            initializer=keras.initializers.RandomNormal(0.5, 0.01),
            autocast=False,
        )

    def adapt(self, x, seed=0):
        """Starts the pseudo-images at training images.

        Args:
            x: Images `(n, *image_shape)`, uint8 or float in [0, 1], at least
                `num_components` of them.
            seed: Integer, which images are taken.

        Raises:
            ValueError: If `x` holds other images, or too few.
        """
        if len(x) < self.num_components:
            raise ValueError(
                f"`x` holds {len(x)} images, fewer than `num_components="
                f"{self.num_components}`. Pass more images, or lower "
                "`num_components`."
            )
        chosen = np.random.default_rng(inputs.check_seed(seed)).choice(
            len(x), self.num_components, replace=False
        )
        x = inputs.check_images(np.asarray(x)[chosen], self.image_shape)
        scale = 255.0 if x.dtype.is_integer else 1.0
        self.pseudo_images.assign(tf.cast(x, "float32") / scale)

    def distribution(self, posterior):
        components = posterior(tf.clip_by_value(self.pseudo_images, 0.0, 1.0))
        weights = tfd.Categorical(logits=tf.zeros(self.num_components))
        is_diagonal = isinstance(components, tfd.Independent) and isinstance(
            components.distribution, tfd.Normal
        )
        mixture = DiagonalMixture if is_diagonal else tfd.MixtureSameFamily
        return mixture(weights, components)

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "num_components": self.num_components,
        }


@saving.register_keras_serializable(package="keras_gen")
class TwoLayerPrior(Prior):
    """Prior of two stochastic layers, the first depending on the second.

    `p(z) = N(z2; 0, I) * N(z1; loc(z2), scale(z2))` for z1 and z2 side by
    side. `loc` and `scale` come from a network of two tanh layers.

    Args:
        latent_dims: `(dim1, dim2)`, dimensions of z1 and z2.
        hidden_dim: Integer, width of the network's two hidden layers.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> TwoLayerPrior((100, 50), 100).distribution(None).sample(16)  # (16, 150)

    Reference:
        - [Importance Weighted Autoencoders](https://arxiv.org/abs/1509.00519)
    """

    def __init__(self, latent_dims, hidden_dim=100, **kwargs):
        super().__init__(**kwargs)
        self.latent_dims = check_two_dims(latent_dims)
        self.hidden_dim = inputs.check_positive_integer(
            hidden_dim, "hidden_dim"
        )
        dim1, dim2 = self.latent_dims
        self.z_dim = dim1 + dim2
        self.network = tanh_network(dim2, self.hidden_dim, 2 * dim1)

    def distribution(self, posterior):
        return TwoLayers(
            tfd.Independent(tfd.Normal(tf.zeros(self.latent_dims[1]), 1.0), 1),
            lambda z2: normal_from(self.network, z2),
            self.latent_dims,
            first_is_last=True,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dims": self.latent_dims,
            "hidden_dim": self.hidden_dim,
        }


@saving.register_keras_serializable(package="keras_gen")
class FixedPrior(Prior):
    """Any TFP distribution as a prior that does not learn.

    It is saved as the names of its class and of its parameters, with their
    values, and built again from them at each use: later changes to variables
    or arrays that it was made of are not seen.

    Args:
        distribution: A float32 `tfd.Distribution` of event shape
            `(latent_dim,)` and batch shape `()`, made of classes of
            `tfp.distributions` and `tfp.bijectors`, arrays and plain Python
            values.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the distribution is not as above. A prior of another
            kind is a layer with a method `distribution(posterior)`.

    Example:

    >>> FixedPrior(tfd.Independent(tfd.Laplace(tf.zeros(8), 1.0), 1))
    """

    def __init__(self, distribution, **kwargs):
        super().__init__(**kwargs)
        expected = (
            "`distribution` must be a float32 `tfd.Distribution` of event "
            "shape `(latent_dim,)` and batch shape `()`"
        )
        if not isinstance(distribution, tfd.Distribution):
            raise ValueError(
                f"{expected}, got {str(distribution)[:100]!r}. Pass for "
                "example `tfd.MultivariateNormalDiag(tf.zeros(32))`."
            )
        if (
            distribution.event_shape.rank != 1
            or not distribution.event_shape.is_fully_defined()
            or distribution.batch_shape != ()
            or distribution.dtype != tf.float32
        ):
            raise ValueError(
                f"{expected}, got {str(distribution)[:200]}. `tfd.Independent("
                "distribution, 1)` makes a batch the event; float32 "
                "parameters make it float32."
            )
        self.description = _describe(distribution)
        self.z_dim = distribution.event_shape[0]

    def distribution(self, posterior):
        return _rebuild(self.description)

    def get_config(self):
        return {**super().get_config(), "distribution": self.description}

    @classmethod
    def from_config(cls, config):
        config["distribution"] = _rebuild(config["distribution"])
        return cls(**config)


# Distributions and networks that priors and posteriors share.


def diagonal_normal(loc, unconstrained_scale):
    """Independent normals of scale `softplus(unconstrained_scale) + 1e-5`."""
    scale = tf.nn.softplus(unconstrained_scale) + 1e-5
    return tfd.Independent(tfd.Normal(loc, scale), 1)


def mixture_log_prob(z, log_weights, loc, scale):
    """Log-density of a mixture of diagonal Gaussians, as one matrix product.

    Of `log sum_c exp(log_weights[c]) * N(z; loc[c], scale[c])`, the exponents
    `-sum((z - loc[c])**2 / scale[c]**2) / 2` are products of `(z**2, z)` with
    `(-1 / scale**2 / 2, loc / scale**2)`, up to a constant: no tensor of
    shape `(n, num_components, dim)` is made.

    Args:
        z: Points `(..., n, dim)`.
        log_weights: Log-probabilities `(..., num_components)`.
        loc: Centers `(..., num_components, dim)`.
        scale: Standard deviations `(..., num_components, dim)`.

    Returns:
        `(..., n)` nats, float32.
    """
    # The squares cancel, and GPUs round float32 factors to ten bits (TF32).
    z, loc, scale = (tf.cast(value, "float64") for value in (z, loc, scale))
    precision = 1.0 / tf.square(scale)
    exponents = tf.matmul(
        tf.concat([tf.square(z), z], axis=-1),
        tf.concat([-0.5 * precision, loc * precision], axis=-1),
        transpose_b=True,
    )  # (..., n, num_components)
    constants = -tf.reduce_sum(
        0.5 * tf.square(loc) * precision
        + tf.math.log(scale)
        + 0.5 * np.log(2 * np.pi),
        axis=-1,
    )
    exponents += constants[..., tf.newaxis, :]
    log_probs = tf.cast(exponents, "float32") + log_weights[..., tf.newaxis, :]
    return tf.reduce_logsumexp(log_probs, axis=-1)


class DiagonalMixture(tfd.MixtureSameFamily):
    """`tfd.MixtureSameFamily` of diagonal Gaussians, for many components.

    Without a batch, `log_prob` is `mixture_log_prob` and `sample` draws from
    the chosen component alone, instead of from each.

    Args:
        mixture_distribution: `tfd.Categorical`.
        components_distribution: `tfd.Independent` of a `tfd.Normal`, of batch
            shape `(num_components,)`.

    Example:

    >>> DiagonalMixture(
    ...     tfd.Categorical(logits=tf.zeros(500)),
    ...     tfd.Independent(tfd.Normal(tf.zeros((500, 40)), 1.0), 1),
    ... ).log_prob(tf.zeros((100, 40)))  # (100,)
    """

    def _log_prob(self, x):
        if self.batch_shape.rank != 0:
            return super()._log_prob(x)
        normal = self.components_distribution.distribution
        log_prob = mixture_log_prob(
            tf.reshape(x, (-1, x.shape[-1])),
            tf.nn.log_softmax(self.mixture_distribution.logits_parameter()),
            normal.loc,
            tf.broadcast_to(normal.scale, tf.shape(normal.loc)),
        )
        return tf.reshape(log_prob, tf.shape(x)[:-1])

    def _sample_n(self, n, seed=None):
        if self.batch_shape.rank != 0:
            return super()._sample_n(n, seed)
        seeds = tfp.random.split_seed(seed, salt="DiagonalMixture")
        chosen = self.mixture_distribution.sample(n, seed=seeds[0])
        normal = self.components_distribution.distribution
        loc = tf.gather(normal.loc, chosen)
        scale = tf.gather(
            tf.broadcast_to(normal.scale, tf.shape(normal.loc)), chosen
        )
        return tfd.Normal(loc, scale).sample(seed=seeds[1])


class FlatOneHot(tfd.Distribution):
    """Independent categorical variables as one-hot vectors side by side.

    `log_prob(z) = sum(z * log_softmax(logits))`, which at relaxed vectors
    inside the simplex interpolates linearly between its corners.

    Args:
        logits: Float tensor `(..., num_variables, num_categories)`.
        validate_args: Boolean, see `tfd.Distribution`.
        allow_nan_stats: Boolean, see `tfd.Distribution`.
        name: Name of the distribution.

    Example:

    >>> FlatOneHot(tf.zeros((8, 20, 10))).sample()  # (8, 200)
    """

    is_discrete = True  # though its vectors are floats

    def __init__(
        self,
        logits,
        validate_args=False,
        allow_nan_stats=True,
        name="FlatOneHot",
    ):
        parameters = dict(locals())
        self.logits = tf.cast(logits, tf.float32)
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=2)}

    def _event_shape(self):
        return tf.TensorShape([self.logits.shape[-2] * self.logits.shape[-1]])

    def _event_shape_tensor(self):
        return tf.constant(self._event_shape().as_list(), tf.int32)

    def _log_prob(self, z):
        return tf.reduce_sum(
            z * flatten_variables(tf.nn.log_softmax(self.logits)), axis=-1
        )

    def _sample_n(self, n, seed=None):
        one_hot = tfd.OneHotCategorical(self.logits, dtype=tf.float32)
        return flatten_variables(one_hot.sample(n, seed=seed))

    def _mean(self):
        return flatten_variables(tf.nn.softmax(self.logits))


def flatten_variables(z):
    """`(..., num_variables, num_categories)` with the last two axes as one."""
    shape = tf.concat([tf.shape(z)[:-2], [z.shape[-2] * z.shape[-1]]], axis=0)
    return tf.reshape(z, shape)


class TwoLayers(tfd.Distribution):
    """Two latent vectors side by side, one conditional on the other.

    `p(z) = p(a) * p(b given a)`, where z is `(a, b)` or, if `first_is_last`,
    `(b, a)`.

    Args:
        first: `tfd.Distribution` p(a).
        second: Function from a to the `tfd.Distribution` p(b given a).
        dims: Sizes of the two parts of z, in their order in z.
        first_is_last: Boolean, whether a is the last part of z.
        name: Name of the distribution.

    Example:

    >>> normal = tfd.MultivariateNormalDiag(tf.zeros(3))
    >>> TwoLayers(normal, tfd.MultivariateNormalDiag, (3, 3)).sample()  # (6,)
    """

    def __init__(
        self, first, second, dims, first_is_last=False, name="TwoLayers"
    ):
        parameters = dict(locals())
        self.first, self.second, self.dims = first, second, dims
        self.first_is_last = first_is_last
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self):
        return self.first.batch_shape

    def _batch_shape_tensor(self):
        return self.first.batch_shape_tensor()

    def _event_shape(self):
        return tf.TensorShape([sum(self.dims)])

    def _event_shape_tensor(self):
        return tf.constant([sum(self.dims)], tf.int32)

    def _log_prob(self, z):
        a, b = tf.split(z, self.dims, axis=-1)
        if self.first_is_last:
            a, b = b, a
        return self.first.log_prob(a) + self.second(a).log_prob(b)

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, salt="TwoLayers")
        a = self.first.sample(n, seed=seeds[0])
        b = self.second(a).sample(seed=seeds[1])
        return tf.concat([b, a] if self.first_is_last else [a, b], axis=-1)


def check_two_dims(latent_dims, argument="latent_dims"):
    """`(dim1, dim2)` of positive integers, or a `ValueError`."""
    if not isinstance(latent_dims, (tuple, list)) or len(latent_dims) != 2:
        raise ValueError(
            f"`{argument}` must be the sizes of two latent layers, got "
            f"{str(latent_dims)[:100]!r}. Pass for example "
            f"`{argument}=(100, 50)`."
        )
    return tuple(
        inputs.check_positive_integer(dim, argument) for dim in latent_dims
    )


def tanh_network(input_dim, hidden_dim, output_dim):
    """Network of two tanh layers and a linear one, float32."""
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.Input((input_dim,), dtype="float32"),
            dense(hidden_dim, activation="tanh", dtype="float32"),
            dense(hidden_dim, activation="tanh", dtype="float32"),
            dense(output_dim, dtype="float32"),
        ]
    )


def normal_from(network, z):
    """Diagonal normal over `(..., dim)` given z, by a network of vectors."""
    h = network(tf.reshape(z, (-1, z.shape[-1])))
    h = tf.reshape(h, tf.concat([tf.shape(z)[:-1], h.shape[1:]], axis=0))
    return diagonal_normal(*tf.split(h, 2, axis=-1))


def _describe(value):
    """Names and values that `_rebuild` makes `value` of, fit for JSON."""
    for kind, (base, module) in _KINDS.items():
        if isinstance(value, base):
            # The types of some instances are private twins of public classes.
            name = type(value).__name__.lstrip("_")
            public = getattr(module, name, None)
            if public is None or not isinstance(value, public):
                break
            arguments = inspect.signature(public.__init__).parameters
            return {
                kind: name,
                "parameters": {
                    key: _describe(item)
                    for key, item in value.parameters.items()
                    if item is not arguments[key].default
                },
            }
    if isinstance(value, (list, tuple)):
        return [_describe(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    array = value.numpy() if hasattr(value, "numpy") else value
    if isinstance(array, (np.ndarray, np.generic)):
        return {"array": array.tolist(), "dtype": str(array.dtype)}
    raise ValueError(
        "`distribution` must be made of classes of `tfp.distributions` and "
        "`tfp.bijectors`, arrays and plain Python values, to be saved with the "
        f"model; got {str(value)[:100]!r} among its parts. Write a layer with "
        "a method `distribution(posterior)` instead."
    )


def _rebuild(description):
    if isinstance(description, list):
        return [_rebuild(item) for item in description]
    if not isinstance(description, dict):
        return description
    if "array" in description:
        return tf.constant(description["array"], description["dtype"])
    for kind, (_, module) in _KINDS.items():
        if kind in description:
            parameters = description["parameters"].items()
            return getattr(module, description[kind])(
                **{key: _rebuild(item) for key, item in parameters}
            )


_KINDS = {
    "distribution": (tfd.Distribution, tfd),
    "bijector": (tfp.bijectors.Bijector, tfp.bijectors),
}
