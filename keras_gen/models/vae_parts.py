"""What the arguments of a VAE stand for, and which of them go together."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import inputs
from keras_gen.layers import posteriors, priors

tfd = tfp.distributions

POSTERIORS = {
    "diagonal": posteriors.DiagonalPosterior,
    "full": posteriors.FullCovariancePosterior,
    "mixture": posteriors.MixturePosterior,
    "flow": posteriors.FlowPosterior,
}
PRIORS = {
    "normal": priors.StandardNormalPrior,
    "mixture": priors.MixturePrior,
    "vamp": priors.VampPrior,
}
# What a VAE asks of a posterior.
POSTERIOR_ATTRIBUTES = (
    "num_parameters",
    "noise",
    "noise_dim",
    "num_strata",
    "draw",
    "mean",
    "distribution",
    "kl",
)


def make_posterior(posterior, latent_dim, latent, num_categories):
    """The layer of a name; a layer is returned as it is.

    Args:
        posterior: A name or a layer, see `VAE`, as are the others.
        latent_dim: Integer, or two for two stochastic layers.
        latent: `"gaussian"` or `"categorical"`.
        num_categories: Integer, categories of each categorical latent.

    Raises:
        ValueError: If there is no such posterior over such latents, or the
            layer is none.
    """
    if isinstance(posterior, keras.layers.Layer):
        if not all(hasattr(posterior, name) for name in POSTERIOR_ATTRIBUTES):
            raise ValueError(
                "`posterior` must be a layer with the attributes and methods "
                "of `keras_gen.layers.posteriors.Posterior`, got a "
                f"{type(posterior).__name__}. Pass one of {[*POSTERIORS]}, or "
                "inherit from that class."
            )
        return posterior
    check_choice(posterior, "posterior", POSTERIORS, "a layer")
    if posterior == "diagonal" and is_pair(latent_dim):
        return posteriors.TwoLayerPosterior(latent_dim)
    if posterior == "diagonal" and latent == "categorical":
        return posteriors.CategoricalPosterior(latent_dim, num_categories)
    _check_single_gaussian("posterior", posterior, latent_dim, latent)
    return POSTERIORS[posterior](latent_dim)


def make_prior(prior, image_shape, latent_dim, latent, num_categories):
    """The layer of a name or a distribution; a layer is returned as it is.

    Args:
        prior: A name, a layer or a `tfd.Distribution`, see `VAE`, as are the
            others.
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, or two for two stochastic layers.
        latent: `"gaussian"` or `"categorical"`.
        num_categories: Integer, categories of each categorical latent.

    Raises:
        ValueError: If there is no such prior over such latents, the layer is
            none, or a `VampPrior` has images of another shape.
    """
    if isinstance(prior, keras.layers.Layer):
        # The `distribution` of a posterior takes something else.
        if isinstance(prior, posteriors.Posterior) or not hasattr(
            prior, "distribution"
        ):
            raise ValueError(
                "`prior` must be a layer with a method "
                f"`distribution(posterior)`, got a {type(prior).__name__}. "
                f"Pass one of {[*PRIORS]}, a layer of "
                "`keras_gen.layers.priors` or a `tfd.Distribution`."
            )
        if isinstance(prior, priors.VampPrior) and prior.image_shape != tuple(
            image_shape
        ):
            raise ValueError(
                "`prior` must have pseudo-images of the shape of the images, "
                f"{tuple(image_shape)}, got a VampPrior of "
                f"`image_shape={prior.image_shape}`. Make it for these images."
            )
        return prior
    if isinstance(prior, tfd.Distribution):
        return priors.FixedPrior(prior)
    check_choice(prior, "prior", PRIORS, "a layer, a `tfd.Distribution`")
    if prior == "normal" and is_pair(latent_dim):
        return priors.TwoLayerPrior(latent_dim)
    if prior == "normal" and latent == "categorical":
        return priors.UniformCategoricalPrior(latent_dim, num_categories)
    _check_single_gaussian("prior", prior, latent_dim, latent)
    return PRIORS[prior](image_shape if prior == "vamp" else latent_dim)


def is_pair(latent_dim):
    """Whether it means two stochastic layers."""
    return isinstance(latent_dim, tuple | list)


def _check_single_gaussian(argument, name, latent_dim, latent):
    if is_pair(latent_dim) or latent == "categorical":
        raise ValueError(
            f"`{argument}={name!r}` is for one layer of Gaussian latents, got "
            f"`latent_dim={latent_dim}` and `latent={latent!r}`. Leave "
            f"`{argument}` out, or pass a layer of `keras_gen.layers`."
        )


def check_z_dim(posterior, prior, latent_dim, latent, num_categories):
    """Width of z, which the two layers must agree on, as on what z is.

    Raises:
        ValueError: If `latent_dim` is no such size, a layer has another, or
            only one of the two is over discrete latents.
    """
    if is_pair(latent_dim) and latent == "categorical":
        raise ValueError(
            "`latent='categorical'` has one stochastic layer, got "
            f"`latent_dim={latent_dim}`. Pass one integer."
        )
    if is_pair(latent_dim):
        z_dim = sum(priors.check_two_dims(latent_dim, "latent_dim"))
    else:
        z_dim = inputs.check_positive_integer(latent_dim, "latent_dim")
    if latent == "categorical":
        z_dim *= num_categories
    for argument, layer in (("posterior", posterior), ("prior", prior)):
        width = getattr(layer, "z_dim", z_dim)  # a VampPrior takes any
        if width != z_dim:
            raise ValueError(
                f"`{argument}` must be over {z_dim} dimensions, as "
                f"`latent_dim={latent_dim}` with `latent={latent!r}` says, "
                f"got one over {width}. Make both for the same latents."
            )
    kinds = "continuous", "discrete"
    discrete = _is_discrete(posterior), _is_discrete(prior)
    if None not in discrete and discrete[0] != discrete[1]:
        raise ValueError(
            "`posterior` and `prior` must both be over continuous latents or "
            f"both over discrete ones, got {type(posterior).__name__} "
            f"({kinds[discrete[0]]}) and {type(prior).__name__} "
            f"({kinds[discrete[1]]}): a density and a probability have no "
            "ratio. For discrete ones set `latent='categorical'`, and leave "
            "the two out."
        )
    return z_dim


def _is_discrete(layer):
    """Whether it gives probabilities of z; `None` if it may be over any."""
    if isinstance(
        layer,
        posteriors.CategoricalPosterior | priors.UniformCategoricalPrior,
    ):
        return True
    if isinstance(layer, priors.FixedPrior):
        return _gives_probabilities(layer.distribution(None))
    continuous = (
        *POSTERIORS.values(),
        posteriors.TwoLayerPosterior,
        priors.StandardNormalPrior,
        priors.MixturePrior,
        priors.TwoLayerPrior,
    )
    return False if isinstance(layer, continuous) else None


def _gives_probabilities(distribution):
    """Whether `prob` of it is one, and no density.

    TFP does not say so. Its densities are reparameterized, all but those of
    mixtures, which are what their components are.
    """
    if isinstance(distribution, tfd.MixtureSameFamily):
        return _gives_probabilities(distribution.components_distribution)
    if isinstance(distribution, tfd.Mixture):
        return any(map(_gives_probabilities, distribution.components))
    if isinstance(
        distribution,
        tfd.Independent | tfd.Sample | tfd.TransformedDistribution,
    ):
        return _gives_probabilities(distribution.distribution)
    return distribution.reparameterization_type != tfd.FULLY_REPARAMETERIZED


def check_objective(
    objective, posterior, prior, doubly_reparameterized, free_bits
):
    """Refuses options that `objective` does not have with these layers."""
    check_choice(objective, "objective", ("elbo", "iwae"))
    if doubly_reparameterized and objective != "iwae":
        raise ValueError(
            "`doubly_reparameterized=True` is a gradient of "
            f"`objective='iwae'`, got `objective={objective!r}`. Leave one of "
            "the two out."
        )
    if doubly_reparameterized and (
        posterior.num_strata > 1
        or posterior.trainable_weights
        or isinstance(posterior, posteriors.CategoricalPosterior)
    ):
        raise ValueError(
            "`doubly_reparameterized=True` needs a Gaussian posterior whose "
            "parameters all come from the encoder, `'diagonal'` or `'full'`, "
            f"got {type(posterior).__name__}. Leave it out, or change "
            "`posterior`."
        )
    if free_bits and objective != "elbo":
        raise ValueError(
            "`free_bits` are of the KL divergence in `objective='elbo'`, got "
            f"`objective={objective!r}`. Leave them out."
        )
    if free_bits:
        check_closed_form("free_bits", posterior, prior)


def check_closed_form(name, posterior, prior):
    """Refuses `name`, if the layers have no KL divergence in closed form."""
    if posterior.kl(tf.zeros((1, posterior.num_parameters)), prior) is None:
        raise ValueError(
            f"`{name}` needs a KL divergence of each latent in closed form, "
            f"got {type(posterior).__name__} with {type(prior).__name__}. "
            "Diagonal and full Gaussians have one from the normal prior, "
            "categorical latents from the uniform one."
        )


def check_choice(value, argument, names, or_else=None):
    """Refuses a value that is not one of the strings `names`."""
    if isinstance(value, str) and value in names:
        return
    others = f", or {or_else}" if or_else else ""
    raise ValueError(
        f"`{argument}` must be one of {[*names]}{others}, got "
        f"{str(value)[:100]!r}."
    )
