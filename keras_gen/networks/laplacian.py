"""Networks for one level of a Laplacian pyramid."""

from keras import Input, Model, initializers, layers

from keras_gen.layers.minibatch_std import MinibatchStdDev
from keras_gen.networks.conditional import conditional_discriminator


def laplacian_generator(
    image_shape, filters=64, name="generator", condition_dim=None
):
    """Generator of the band that sharpens a low-pass image.

    It sees the image and a plane of noise as one more channel, halves them by
    a 4x4 convolution, goes on by two 3x3 convolutions of as many maps, and is
    back by a 4x4 transposed convolution, which is linear, since a band has no
    range. Batch normalization and ReLU follow all others. A condition becomes
    one more plane, by a dense layer.

    Args:
        image_shape: `(height, width, channels)`, even sides.
        filters: Integer, maps at half the resolution.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition.

    Returns:
        A built `keras.Model`, `(batch, height, width, channels + 1)`, low-pass
        images in [-1, 1] and noise, to bands `(batch, *image_shape)`, float32
        under every dtype policy. With `condition_dim` its input is
        `[x, condition]`.

    Raises:
        ValueError: If a side of `image_shape` is odd.

    Example:

    >>> laplacian_generator((28, 28, 1))

    Reference:
        - [Deep Generative Image Models using a Laplacian Pyramid of
          Adversarial Networks](https://arxiv.org/abs/1506.05751), whose
          convolutions are 7x7 and 5x5 at full resolution.
    """
    height, width, channels = image_shape
    if height % 2 or width % 2:
        raise ValueError(
            "`image_shape` must have even sides, which are halved, got "
            f"{tuple(image_shape)}. Crop or pad the images."
        )
    inputs = x = Input((height, width, channels + 1))
    if condition_dim is not None:
        condition = Input((condition_dim,), name="condition")
        inputs = [x, condition]
        plane = layers.Dense(height * width)(condition)
        plane = layers.Reshape((height, width, 1))(plane)
        x = layers.Concatenate()([x, plane])
    h = _normalized(_conv(filters, 4, strides=2, use_bias=False)(x))
    for _ in range(2):
        h = _normalized(_conv(filters, 3, use_bias=False)(h))
    band = layers.Conv2DTranspose(
        channels,
        4,
        strides=2,
        padding="same",
        kernel_initializer=_normal(),
        dtype="float32",
    )
    return Model(inputs, band(h), name=name)


def laplacian_discriminator(
    image_shape,
    filters=64,
    name="discriminator",
    condition_dim=None,
    minibatch_std=False,
):
    """Discriminator of the images of a level, of any size.

    Two 5x5 convolutions of stride 2, of `filters` and twice as many maps, each
    followed by LeakyReLU of slope 0.2, then one logit. It normalizes nothing,
    so every gradient penalty may be used with it.

    Args:
        image_shape: `(height, width, channels)`.
        filters: Integer, maps of the first convolution.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition, of which the
            logit is the projection (`layers.ProjectionLogit`).
        minibatch_std: Boolean, as of `dcgan_discriminator`.

    Returns:
        A built `keras.Model`, images `(batch, *image_shape)` in [-1, 1] to
        logits `(batch, 1)`, float32 under every dtype policy. With
        `condition_dim` its input is `[x, condition]`.

    Example:

    >>> laplacian_discriminator((28, 28, 1))

    Reference:
        - [Deep Generative Image Models using a Laplacian Pyramid of
          Adversarial Networks](https://arxiv.org/abs/1506.05751), where
          dropout follows each convolution.
    """
    x = h = Input(image_shape)
    for maps in (filters, 2 * filters):
        h = layers.LeakyReLU(0.2)(_conv(maps, 5, strides=2)(h))
    if minibatch_std:
        h = layers.LeakyReLU(0.2)(_conv(maps, 3)(MinibatchStdDev()(h)))
    if condition_dim is not None:
        return conditional_discriminator(
            Model(x, h),
            condition_dim,
            kernel_initializer=_normal(),
            name=name,
        )
    logit = layers.Dense(1, kernel_initializer=_normal(), dtype="float32")
    return Model(x, logit(layers.Flatten()(h)), name=name)


def _conv(maps, kernel_size, **kwargs):
    return layers.Conv2D(
        maps,
        kernel_size,
        padding="same",
        kernel_initializer=_normal(),
        **kwargs,
    )


def _normal():
    return initializers.RandomNormal(stddev=0.02)


def _normalized(h):
    # Momentum and synchronization as in `dcgan_generator`.
    h = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=True
    )(h)
    return layers.ReLU()(h)
