"""Small convolutional networks for autoencoders."""

import math

from keras import Input, Sequential, layers


def conv_encoder(
    image_shape,
    output_dim,
    filters=(32, 64),
    activation="relu",
    name="encoder",
):
    """Convolutional network from images to a vector.

    Each 4x4 convolution of stride 2 halves the sides, rounding up; a dense
    layer follows the last.

    Args:
        image_shape: `(height, width, channels)`, of any size.
        output_dim: Integer, width of the output; for a Gaussian posterior two
            numbers per latent.
        filters: Maps of each convolution, first to last.
        activation: Activation of the convolutions.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` to
        `(batch, output_dim)`, linear and float32 under every dtype policy.

    Raises:
        ValueError: If `image_shape` is not three positive integers.

    Example:

    >>> conv_encoder((28, 28, 1), 2 * 32)
    """
    _check_image_shape(image_shape)
    return Sequential(
        [
            Input(image_shape),
            *(
                layers.Conv2D(
                    maps, 4, strides=2, padding="same", activation=activation
                )
                for maps in filters
            ),
            layers.Flatten(),
            layers.Dense(output_dim, dtype="float32"),
        ],
        name=name,
    )


def conv_decoder(
    latent_dim,
    image_shape,
    filters=(64, 32),
    activation="relu",
    name="decoder",
    output_channels=None,
):
    """Convolutional network from latents to the parameters of p(x given z).

    A dense layer makes the smallest maps, then each 4x4 transposed
    convolution of stride 2 doubles the sides: the mirror of `conv_encoder`.

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`, of any size.
        filters: Maps at each resolution below the image's, smallest first.
        activation: Activation of the hidden layers.
        name: Name of the model.
        output_channels: Integer, numbers per pixel; `2 * channels` for a
            location and a scale. Defaults to `channels`.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to
        `(batch, height, width, output_channels)`, linear (logits) and float32
        under every dtype policy.

    Raises:
        ValueError: If `image_shape` is not three positive integers.

    Example:

    >>> conv_decoder(32, (28, 28, 1))
    """
    _check_image_shape(image_shape)
    height, width, channels = image_shape
    stride = 2 ** len(filters)
    base_height = math.ceil(height / stride)
    base_width = math.ceil(width / stride)
    hidden = [
        layers.Dense(
            base_height * base_width * filters[0], activation=activation
        ),
        layers.Reshape((base_height, base_width, filters[0])),
    ]
    for maps in filters[1:]:
        hidden.append(
            layers.Conv2DTranspose(
                maps, 4, strides=2, padding="same", activation=activation
            )
        )
    return Sequential(
        [
            Input((latent_dim,)),
            *hidden,
            layers.Conv2DTranspose(
                output_channels or channels,
                4,
                strides=2,
                padding="same",
                dtype="float32",
            ),
            # `conv_encoder` rounds odd sides up by padding at their end, so
            # that is where to crop. For even sides this does nothing.
            layers.Cropping2D(
                (
                    (0, base_height * stride - height),
                    (0, base_width * stride - width),
                ),
                dtype="float32",
            ),
        ],
        name=name,
    )


def _check_image_shape(image_shape):
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            "`image_shape` must be (height, width, channels), three positive "
            f"integers. Got {tuple(image_shape)}; a grey image has 1 channel."
        )
