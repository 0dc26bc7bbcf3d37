"""The networks that a GAN builds if it is given none."""

from keras_gen.networks.conditional import (
    conditional_discriminator,
    feature_network,
)
from keras_gen.networks.dcgan import dcgan_discriminator, dcgan_generator
from keras_gen.networks.mlp import mlp_discriminator, mlp_generator


def default_generator(
    latent_dim, image_shape, condition_dim=None, conditioning="projection"
):
    """`dcgan_generator`, or below 16 pixels `mlp_generator`.

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`, sides as for
            `dcgan_generator`, or one of them below 16.
        condition_dim: Integer or `None`, width of a condition.
        conditioning: With `"projection"`, the condition scales and shifts in
            the normalizations of `dcgan_generator`; otherwise, and in
            `mlp_generator`, it stands beside the latents.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)`, or with `condition_dim`
        `[z, condition]`, to images `(batch, *image_shape)` in [-1, 1].

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> default_generator(64, (28, 28, 1), condition_dim=10)
    """
    if _is_small(image_shape):
        return mlp_generator(
            latent_dim, image_shape, condition_dim=condition_dim
        )
    return dcgan_generator(
        latent_dim,
        image_shape,
        condition_dim=condition_dim,
        conditional_normalization=conditioning == "projection",
    )


def default_discriminator(
    image_shape, condition_dim=None, conditioning="projection"
):
    """`dcgan_discriminator`, or below 16 pixels `mlp_discriminator`.

    Neither has batch normalization, so that every gradient penalty may be used
    with them.

    Args:
        image_shape: `(height, width, channels)`, sides as for
            `dcgan_discriminator`, or one of them below 16.
        condition_dim: Integer or `None`, width of a condition.
        conditioning: `"projection"`, `"concat"` or `"auxiliary"`, see
            `conditional_discriminator`.

    Returns:
        A built `keras.Model`, images in [-1, 1] to logits `(batch, 1)`; with
        `condition_dim` see `conditional_discriminator`.

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> default_discriminator((28, 28, 1), condition_dim=10)
    """
    if not _is_small(image_shape):
        return dcgan_discriminator(
            image_shape,
            batch_normalization=False,
            condition_dim=condition_dim,
            conditioning=conditioning,
        )
    discriminator = mlp_discriminator(image_shape)
    if condition_dim is None:
        return discriminator
    return conditional_discriminator(
        feature_network(discriminator), condition_dim, conditioning
    )


def _is_small(image_shape):
    return min(image_shape[:2]) < 16
