"""Residual generator and discriminator of spectral normalization, 32 to 64 px."""

from keras import Input, Model, layers, ops

from keras_gen.layers.conditional import ConditionalBatchNormalization
from keras_gen.networks.conditional import conditional_discriminator
from keras_gen.networks.dcgan import num_halvings


def resnet_generator(
    latent_dim,
    image_shape,
    filters=None,
    name="generator",
    condition_dim=None,
    conditional_normalization=True,
):
    """Residual generator: from latents to images, one block an octave.

    A dense layer makes the smallest maps, sides of 4 to 7 pixels. Each block
    doubles them: batch normalization, ReLU, nearest-neighbour doubling, 3x3
    convolution, batch normalization, ReLU, 3x3 convolution, to which the
    doubled input is added through a 1x1 convolution. At the end: batch
    normalization, ReLU and a 3x3 convolution with tanh.

    | side | maps |
    | --- | --- |
    | 16 to 56 | 256 all along |
    | 64 and more | 1024 at the start, halved by each block to 64 at 64x64 |

    Args:
        latent_dim: Integer, width of the input; 128 is published.
        image_shape: `(height, width, channels)`, sides as for
            `dcgan_generator`.
        filters: Integer or `None`, maps of the last block, instead of 256 and
            64 above.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition.
        conditional_normalization: Boolean, whether the condition scales and
            shifts in every normalization, or stands beside the latents.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to images
        `(batch, *image_shape)` in [-1, 1], float32 under every dtype policy.
        With `condition_dim` its input is `[z, condition]`.

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> resnet_generator(128, (32, 32, 3), condition_dim=10)

    Reference:
        - [Spectral Normalization for Generative Adversarial Networks](
          https://arxiv.org/abs/1802.05957)
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
    """
    halvings = num_halvings(image_shape)
    if halvings < 4:
        maps = [filters or 256] * (halvings + 1)
    else:  # 16 times as many at 4x4 as in the last block
        maps = [
            (filters or 64) * min(2**level, 16)
            for level in reversed(range(halvings + 1))
        ]
    z, inputs = Input((latent_dim,)), None
    h, condition = z, None
    if condition_dim is not None:
        condition = Input((condition_dim,), name="condition")
        inputs = [z, condition]
        if not conditional_normalization:
            h, condition = layers.Concatenate()(inputs), None
    base = [side >> halvings for side in image_shape[:2]]
    h = layers.Dense(base[0] * base[1] * maps[0])(h)
    h = layers.Reshape((*base, maps[0]))(h)
    for width in maps[1:]:
        shortcut = _convolution(width, 1)(_double(h))
        h = _double(_normalized_relu(h, condition))
        h = _normalized_relu(_convolution(width)(h), condition)
        h = layers.Add()([_convolution(width)(h), shortcut])
    h = _normalized_relu(h)
    x = layers.Conv2D(
        image_shape[-1], 3, padding="same", activation="tanh", dtype="float32"
    )(h)
    return Model(inputs or z, x, name=name)


def resnet_discriminator(
    image_shape,
    filters=None,
    spectral_normalization=True,
    name="discriminator",
    condition_dim=None,
    conditioning="projection",
):
    """Residual discriminator without batch normalization.

    A block is ReLU, 3x3 convolution, ReLU, 3x3 convolution, to which its input
    is added (through a 1x1 convolution where their shapes differ); blocks that
    halve end with averages over 2x2 pixels. The first block has no first ReLU.
    Features are summed over all positions after a last ReLU.

    | side | maps of the blocks |
    | --- | --- |
    | 32 to 56 | 128, 128 that halve; 128, 128 |
    | 64 | 64, 128, 256, 512 that halve; 1024 |

    Smaller and larger images have fewer and more blocks that halve.

    Args:
        image_shape: `(height, width, channels)`, sides as for
            `dcgan_discriminator`.
        filters: Integer or `None`, maps of the first block, instead of 128
            and 64 above.
        spectral_normalization: Boolean, whether every layer is wrapped in
            `keras.layers.SpectralNormalization`, which divides a kernel by
            its largest singular value whenever it is called in training.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition.
        conditioning: `"projection"`, `"concat"` or `"auxiliary"`, see
            `conditional_discriminator`.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` in [-1, 1] to logits
        `(batch, 1)`, float32 under every dtype policy; with `condition_dim`
        see `conditional_discriminator`.

    Raises:
        ValueError: If halving cannot reach such an `image_shape`.

    Example:

    >>> resnet_discriminator((32, 32, 3), condition_dim=10)

    Reference:
        - [Spectral Normalization for Generative Adversarial Networks](
          https://arxiv.org/abs/1802.05957)
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
    """
    halvings = num_halvings(image_shape)
    if halvings < 4:
        maps = filters or 128
        blocks = [(maps, True)] * (halvings - 1) + [(maps, False)] * 2
    else:
        blocks = [
            ((filters or 64) * min(2**level, 16), level < halvings)
            for level in range(halvings + 1)
        ]

    def convolution(maps, kernel_size=3):
        layer = _convolution(maps, kernel_size)
        if not spectral_normalization:
            return layer
        # Its power iteration is in float32, what it wraps in the policy's.
        return layers.SpectralNormalization(layer, dtype="float32")

    x = h = Input(image_shape)
    for i, (maps, halves) in enumerate(blocks):
        shortcut = h
        if i > 0:
            h = layers.ReLU()(h)
        h = layers.ReLU()(convolution(maps)(h))
        h = convolution(maps)(h)
        if halves or shortcut.shape[-1] != maps:
            shortcut = convolution(maps, 1)(shortcut)
        h = layers.Add()([h, shortcut])
        if halves:  # a 1x1 convolution and an average change places freely
            h = layers.AveragePooling2D(2)(h)
    h = layers.ReLU()(h)
    if condition_dim is not None:
        return conditional_discriminator(
            Model(x, h),
            condition_dim,
            conditioning,
            spectral_normalization=spectral_normalization,
            name=name,
        )
    return Model(x, _logit(h, spectral_normalization), name=name)


def _logit(h, spectral_normalization):
    phi = ops.sum(ops.cast(h, "float32"), axis=(1, 2))
    dense = layers.Dense(1, dtype="float32")
    if spectral_normalization:
        dense = layers.SpectralNormalization(dense, dtype="float32")
    return dense(phi)


def _convolution(maps, kernel_size=3):
    return layers.Conv2D(maps, kernel_size, padding="same")


def _double(h):
    return layers.UpSampling2D(interpolation="nearest")(h)


def _normalized_relu(h, condition=None):
    if condition is None:
        normalization = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=True
        )
        return layers.ReLU()(normalization(h))
    return layers.ReLU()(ConditionalBatchNormalization()([h, condition]))
