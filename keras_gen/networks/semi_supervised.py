"""Dense networks for a GAN that learns classes from few labels."""

import math

from keras import Input, Model, layers


def semi_supervised_generator(
    latent_dim, image_shape, hidden_dims=(500, 500), name="generator"
):
    """Dense generator with batch normalization.

    Without it the generator would soon be no match for the discriminator.

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`.
        hidden_dims: Widths of the hidden layers, first to last, each followed
            by batch normalization and ReLU.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to images
        `(batch, *image_shape)` in [-1, 1], float32 under every dtype policy.

    Example:

    >>> semi_supervised_generator(64, (28, 28, 1))

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498), with softplus for ReLU.
    """
    z = h = Input((latent_dim,))
    for units in hidden_dims:
        h = layers.Dense(units, use_bias=False)(h)
        # Momentum and synchronization as in `dcgan_generator`.
        h = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=True
        )(h)
        h = layers.ReLU()(h)
    x = layers.Dense(
        math.prod(image_shape), activation="tanh", dtype="float32"
    )(h)
    return Model(z, layers.Reshape(image_shape, dtype="float32")(x), name=name)


def semi_supervised_discriminator(
    image_shape,
    num_classes,
    hidden_dims=(1000, 500, 250, 250, 250),
    name="discriminator",
):
    """Dense classifier with Gaussian noise before each layer.

    Noise keeps it from learning few labels, and few images, by heart. Its
    deviation is 0.6 on pixels in [-1, 1], and 0.5 after each hidden layer.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Integer, how many logits it gives.
        hidden_dims: Widths of the hidden layers, first to last, with LeakyReLU
            of slope 0.2.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` in [-1, 1] to logits
        `(batch, num_classes)`, float32 under every dtype policy.

    Example:

    >>> semi_supervised_discriminator((28, 28, 1), num_classes=10)

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498), whose five hidden layers these
          are, there with normalized weights.
    """
    x = Input(image_shape)
    h = layers.GaussianNoise(0.6)(layers.Flatten()(x))
    for units in hidden_dims:
        h = layers.LeakyReLU(0.2)(layers.Dense(units)(h))
        h = layers.GaussianNoise(0.5)(h)
    logits = layers.Dense(num_classes, dtype="float32")
    return Model(x, logits(h), name=name)
