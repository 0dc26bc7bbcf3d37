"""The networks of a large-scale study, on which losses were compared."""

from keras import Input, Sequential, initializers, layers


def infogan_generator(latent_dim, image_shape, name="generator"):
    """Generator of the large-scale study of GANs, first that of InfoGAN.

    Dense layers of 1024 and of 128 maps at a quarter of the image's size, then
    4x4 transposed convolutions of stride 2 to 64 maps and to the image. Batch
    normalization and LeakyReLU of slope 0.2 follow all but the last. The
    study's images were in [0, 1] and its last activation a sigmoid; that is
    the same function up to the scale of its input.

    Args:
        latent_dim: Integer, width of the input; 64 in the study.
        image_shape: `(height, width, channels)`, both sides divisible by 4;
            28x28 in the study.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to images
        `(batch, *image_shape)` in [-1, 1], float32 under every dtype policy.

    Raises:
        ValueError: If a side is not divisible by 4.

    Example:

    >>> infogan_generator(64, (28, 28, 1))

    Reference:
        - [InfoGAN](https://arxiv.org/abs/1606.03657)
        - [Are GANs Created Equal? A Large-Scale Study](
          https://arxiv.org/abs/1711.10337)
    """
    height, width = _quarter(image_shape)
    return Sequential(
        [
            Input((latent_dim,)),
            layers.Dense(1024, kernel_initializer=_normal()),
            *_normalized_activation(),
            layers.Dense(height * width * 128, kernel_initializer=_normal()),
            *_normalized_activation(),
            layers.Reshape((height, width, 128)),
            layers.Conv2DTranspose(
                64, 4, strides=2, padding="same", kernel_initializer=_normal()
            ),
            *_normalized_activation(),
            layers.Conv2DTranspose(
                image_shape[-1],
                4,
                strides=2,
                padding="same",
                activation="tanh",
                kernel_initializer=_normal(),
                dtype="float32",
            ),
        ],
        name=name,
    )


def infogan_discriminator(
    image_shape, batch_normalization=True, name="discriminator"
):
    """Discriminator of the large-scale study of GANs, first that of InfoGAN.

    4x4 convolutions of stride 2 to 64 and 128 maps, a dense layer of 1024, and
    the logit, with LeakyReLU of slope 0.2. Batch normalization follows the
    second and the third layer.

    Args:
        image_shape: `(height, width, channels)`, both sides divisible by 4.
        batch_normalization: Boolean. Set it to `False` with a gradient
            penalty, which needs logits that depend on one image each.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` in [-1, 1] to logits
        `(batch, 1)`, float32 under every dtype policy.

    Raises:
        ValueError: If a side is not divisible by 4.

    Example:

    >>> infogan_discriminator((28, 28, 1), batch_normalization=False)

    Reference:
        - [InfoGAN](https://arxiv.org/abs/1606.03657)
        - [Are GANs Created Equal? A Large-Scale Study](
          https://arxiv.org/abs/1711.10337)
    """
    _quarter(image_shape)

    def activation():
        if batch_normalization:
            return _normalized_activation()
        return [layers.LeakyReLU(0.2)]

    return Sequential(
        [
            Input(image_shape),
            layers.Conv2D(
                64, 4, strides=2, padding="same", kernel_initializer=_normal()
            ),
            layers.LeakyReLU(0.2),
            layers.Conv2D(
                128, 4, strides=2, padding="same", kernel_initializer=_normal()
            ),
            *activation(),
            layers.Flatten(),
            layers.Dense(1024, kernel_initializer=_normal()),
            *activation(),
            layers.Dense(1, kernel_initializer=_normal(), dtype="float32"),
        ],
        name=name,
    )


def _normalized_activation():
    return [
        layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=True
        ),
        layers.LeakyReLU(0.2),
    ]


def _normal():
    return initializers.RandomNormal(stddev=0.02)


def _quarter(image_shape):
    if len(image_shape) != 3 or any(
        side < 4 or side % 4 for side in image_shape[:2]
    ):
        raise ValueError(
            "`image_shape` must be (height, width, channels) with sides "
            f"divisible by 4, got {tuple(image_shape)}. Pad or resize the "
            "images, for example to (28, 28, 1)."
        )
    return image_shape[0] // 4, image_shape[1] // 4
