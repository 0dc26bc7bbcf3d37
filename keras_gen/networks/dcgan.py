"""Generator and discriminator by the guidelines of DCGAN."""

from keras import Input, Model, initializers, layers

from keras_gen.layers.conditional import ConditionalBatchNormalization
from keras_gen.layers.minibatch_std import MinibatchStdDev
from keras_gen.networks.conditional import conditional_discriminator


def dcgan_generator(
    latent_dim,
    image_shape,
    filters=64,
    name="generator",
    condition_dim=None,
    conditional_normalization=False,
):
    """DCGAN generator: from latents to images by transposed convolutions.

    The latents are projected to the smallest maps, sides of 4 to 7 pixels,
    which 4x4 transposed convolutions of stride 2 double until they are the
    image, while the number of maps halves down to `filters`. Batch
    normalization and ReLU follow every layer but the last, whose activation
    is tanh. Kernel and stride divide evenly, which avoids checkerboards. At
    28x28: 7x7x128, 14x14x64, 28x28.

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`. Both sides must be divisible
            by `2**k`, where `k` halvings bring the shorter one to 4..7: 8,
            10, 12, 14; 16, 20, 24, 28; 32, 40, 48, 56; 64, 80, ...
        filters: Integer, maps at half the image's resolution.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition.
        conditional_normalization: Boolean, whether the condition scales and
            shifts in every normalization
            (`layers.ConditionalBatchNormalization`), or stands beside the
            latents.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to images
        `(batch, *image_shape)` in [-1, 1], float32 under every dtype policy.
        With `condition_dim` its input is `[z, condition]`.

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> dcgan_generator(100, (28, 28, 1))

    Reference:
        - [Unsupervised Representation Learning with Deep Convolutional
          Generative Adversarial Networks](https://arxiv.org/abs/1511.06434)
    """
    halvings = num_halvings(image_shape)
    height, width, channels = image_shape
    base_height, base_width = height >> halvings, width >> halvings
    maps = _num_maps(filters, halvings - 1)
    z, inputs = Input((latent_dim,)), None
    h, condition = z, None
    if condition_dim is not None:
        condition = Input((condition_dim,), name="condition")
        inputs = [z, condition]
        if not conditional_normalization:
            h, condition = layers.Concatenate()(inputs), None
    h = layers.Dense(
        base_height * base_width * maps,
        use_bias=False,
        kernel_initializer=_normal(),
    )(h)
    h = layers.Reshape((base_height, base_width, maps))(h)
    h = layers.ReLU()(_normalized(h, condition))
    for level in reversed(range(halvings - 1)):
        h = layers.Conv2DTranspose(
            _num_maps(filters, level),
            4,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=_normal(),
        )(h)
        h = layers.ReLU()(_normalized(h, condition))
    x = layers.Conv2DTranspose(
        channels,
        4,
        strides=2,
        padding="same",
        activation="tanh",
        kernel_initializer=_normal(),
        dtype="float32",
    )(h)
    return Model(inputs or z, x, name=name)


def dcgan_discriminator(
    image_shape,
    filters=64,
    batch_normalization=True,
    name="discriminator",
    condition_dim=None,
    conditioning="projection",
    minibatch_std=False,
):
    """DCGAN discriminator: strided convolutions, then one logit.

    4x4 convolutions of stride 2 halve the image until its sides are 4 to 7
    pixels, while the number of maps doubles from `filters`. Batch
    normalization follows every convolution but the first, LeakyReLU of slope
    0.2 follows all. At 28x28: 14x14x64, 7x7x128, 1.

    Args:
        image_shape: `(height, width, channels)`. Both sides must be divisible
            by `2**k`, where `k` halvings bring the shorter one to 4..7: 8,
            10, 12, 14; 16, 20, 24, 28; 32, 40, 48, 56; 64, 80, ...
        filters: Integer, maps of the first convolution.
        batch_normalization: Boolean. Set it to `False` with a gradient
            penalty, which needs logits that depend on one image each.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition.
        conditioning: `"projection"`, `"concat"` or `"auxiliary"`, see
            `conditional_discriminator`.
        minibatch_std: Boolean, whether `layers.MinibatchStdDev` and a 3x3
            convolution follow at the smallest maps, as in progressive GANs,
            which show whether samples vary less than the data.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` in [-1, 1] to logits
        `(batch, 1)`, float32 under every dtype policy; with `condition_dim`
        see `conditional_discriminator`.

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> dcgan_discriminator((28, 28, 1), batch_normalization=False)

    Reference:
        - [Unsupervised Representation Learning with Deep Convolutional
          Generative Adversarial Networks](https://arxiv.org/abs/1511.06434)
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196), on
          `minibatch_std`
    """
    x = h = Input(image_shape)
    for level in range(num_halvings(image_shape)):
        normalized = batch_normalization and level > 0
        h = layers.Conv2D(
            _num_maps(filters, level),
            4,
            strides=2,
            padding="same",
            use_bias=not normalized,
            kernel_initializer=_normal(),
        )(h)
        if normalized:
            h = _normalized(h)
        h = layers.LeakyReLU(0.2)(h)
    if minibatch_std:
        convolution = layers.Conv2D(
            h.shape[-1], 3, padding="same", kernel_initializer=_normal()
        )
        h = layers.LeakyReLU(0.2)(convolution(MinibatchStdDev()(h)))
    if condition_dim is not None:
        return conditional_discriminator(
            Model(x, h),
            condition_dim,
            conditioning,
            kernel_initializer=_normal(),
            name=name,
        )
    logit = layers.Dense(1, kernel_initializer=_normal(), dtype="float32")
    return Model(x, logit(layers.Flatten()(h)), name=name)


def _normal():
    return initializers.RandomNormal(stddev=0.02)


def _normalized(h, condition=None):
    # The momentum is the paper's code's: statistics must follow a moving
    # target. Both are synchronized, so that two replicas normalize as one
    # device would.
    if condition is not None:
        return ConditionalBatchNormalization(momentum=0.9)([h, condition])
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=True
    )(h)


def _num_maps(filters, level):
    # Doubling stops at eight times: only images above 64 pixels get there.
    return filters * min(2**level, 8)


def num_halvings(image_shape):
    """How many halvings bring the shorter side to 4..7 pixels.

    Raises:
        ValueError: If both sides cannot be halved that often.
    """
    if len(image_shape) != 3 or min(image_shape[:2]) < 8 or image_shape[2] < 1:
        raise ValueError(
            "`image_shape` must be (height, width, channels) with sides of at "
            f"least 8 pixels. Got {tuple(image_shape)}; smaller images suit "
            "`networks.mlp_generator` and `networks.mlp_discriminator`."
        )
    *sides, channels = image_shape
    step = _step(sides)
    if any(side % step for side in sides):
        down = [side // step * step for side in sides]
        up = [-(-side // step) * step for side in sides]
        # Rounding up may reach a size that is halved once more.
        up = [-(-side // _step(up)) * _step(up) for side in sides]
        raise ValueError(
            f"`image_shape` {tuple(image_shape)} does not halve evenly: both "
            f"sides must be divisible by {step}. Crop, pad or resize the "
            f"images to {(*down, channels)} or {(*up, channels)}."
        )
    return step.bit_length() - 1


def _step(sides):
    """The power of two that divides the shorter side to 4..7 pixels."""
    return 2 ** (min(sides).bit_length() - 3)
