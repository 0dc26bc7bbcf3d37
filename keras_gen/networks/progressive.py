"""The networks of a progressive GAN, of which any resolution can be called."""

import math

import keras
import tensorflow as tf

from keras_gen import inputs
from keras_gen.growth import check_resolution
from keras_gen.layers.equalized import EqualizedConv2D, EqualizedDense
from keras_gen.layers.fade_in import FadeIn, downscale, upscale
from keras_gen.layers.minibatch_std import MinibatchStdDev
from keras_gen.layers.pixel_normalization import PixelNormalization
from keras_gen.networks.exportable import ExportableNetwork

SLOPE = 0.2  # of the LeakyReLUs


def progressive_generator(
    latent_dim,
    image_shape,
    *,
    fmap_base=8192,
    fmap_max=512,
    condition_dim=None,
    name="generator",
):
    """The generator of a progressive GAN with its published widths.

    At a resolution r it has `min(2 * fmap_base / r, fmap_max)` maps; see
    `ProgressiveGenerator`.

    Args:
        latent_dim: Integer, dimensions of z.
        image_shape: `(height, width, channels)` of the last resolution: the
            shorter side 4 times a power of 2, and the longer one divided by
            that power whole. It begins at `(4, 4)`, or for example `(4, 6)`.
        fmap_base: Integer, twice as many maps as 2 pixels would have.
        fmap_max: Integer, the most maps.
        condition_dim: Integer or `None`, width of the condition beside z.
        name: Name of the model.

    Returns:
        A built `ProgressiveGenerator`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> generator = progressive_generator(512, (1024, 1024, 3))
    >>> generator(z, resolution=16, alpha=0.5)  # (batch, 16, 16, 3)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """
    return ProgressiveGenerator(
        latent_dim,
        image_shape,
        _published_maps(image_shape, fmap_base, fmap_max),
        condition_dim=condition_dim,
        name=name,
    )


def progressive_discriminator(
    image_shape,
    *,
    fmap_base=8192,
    fmap_max=512,
    num_logits=1,
    condition_dim=None,
    group_size=4,
    fused=False,
    name="discriminator",
):
    """The discriminator of a progressive GAN with its published widths.

    At a resolution r it has `min(2 * fmap_base / r, fmap_max)` maps; see
    `ProgressiveDiscriminator`.

    Args:
        image_shape: `(height, width, channels)` of the last resolution, see
            `progressive_generator`.
        fmap_base: Integer, twice as many maps as 2 pixels would have.
        fmap_max: Integer, the most maps.
        num_logits: Integer, 1 and the classes of an auxiliary classifier.
        condition_dim: Integer or `None`, width of a condition to project the
            features on.
        group_size: Integer, images of a group of `layers.MinibatchStdDev`.
        fused: Boolean, whether the second convolution of a block also halves
            the resolution, which makes a step faster. The activation then
            follows the pooling, as in the release for TensorFlow; without it
            the pooling follows the activation, as in the paper.
        name: Name of the model.

    Returns:
        A built `ProgressiveDiscriminator`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> discriminator = progressive_discriminator((1024, 1024, 3))
    >>> discriminator(images, resolution=16, alpha=0.5)  # (batch, 1)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """
    return ProgressiveDiscriminator(
        image_shape,
        _published_maps(image_shape, fmap_base, fmap_max),
        min(fmap_base, fmap_max),
        num_logits=num_logits,
        condition_dim=condition_dim,
        group_size=group_size,
        fused=fused,
        name=name,
    )


def resolutions_of(image_shape):
    """The resolutions that lead to an image shape, from 4 up.

    Args:
        image_shape: `(height, width, channels)`.

    Returns:
        List of integers, sizes of the shorter side.

    Raises:
        ValueError: If no doubling of whole images, 4 pixels on their shorter
            side, leads there.

    Example:

    >>> resolutions_of((16, 24, 3))  # [4, 8, 16], from 4x6 pixels
    """
    height, width, _ = inputs.check_image_shape(image_shape)
    shorter, longer = sorted((height, width))
    try:
        check_resolution(shorter, "image_shape")
    except ValueError as error:
        raise ValueError(
            f"{error} Resize the images, or pad them with `tf.pad`."
        ) from None
    if longer % (shorter // 4):
        nearest = longer - longer % (shorter // 4)
        raise ValueError(
            f"`image_shape` {height}x{width} is 4x{4 * longer / shorter:g} "
            f"pixels doubled {(shorter // 4).bit_length() - 1} times. The "
            f"longer side must be a multiple of {shorter // 4}: resize it to "
            f"{nearest}."
        )
    return [4 * 2**i for i in range((shorter // 4).bit_length())]


@keras.saving.register_keras_serializable(package="keras_gen")
class ProgressiveGenerator(ExportableNetwork):
    """Latents to images of any of its resolutions.

    Normalized latents (see `PixelNormalization`), beside them the condition; a
    dense layer to 4x4 pixels (or 4x6 and so on); a 3x3 convolution. Then for
    each resolution nearest-neighbour enlargement and two 3x3 convolutions.
    LeakyReLU and pixelwise normalization follow each of these layers. From the
    maps of each resolution a linear 1x1 convolution makes images. All of them
    are equalized (see `EqualizedConv2D`); enlargement and convolution are one.
    Normalization takes its means in float32 also under `mixed_float16`, where
    the release has a larger epsilon instead.

    The weights of all resolutions exist from the start, and a call computes
    those up to one of them.

    Args:
        latent_dim: Integer, dimensions of z.
        image_shape: `(height, width, channels)` of the last resolution.
        maps: List of integers, maps at each of `resolutions_of(image_shape)`.
        condition_dim: Integer or `None`, width of the condition.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: z `(batch, latent_dim)`, or `[z, condition]`.
        resolution: Integer, which resolution; the last one by default.
        alpha: Number or scalar tensor in [0, 1], or `None` for 1. It blends
            `alpha * image + (1 - alpha) * upscale(image of the resolution
            below)`. At the first resolution there is nothing to blend.

    Returns:
        Images `(batch, height, width, channels)` of the resolution, float32,
        meant to be in [-1, 1], but not bounded.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> ProgressiveGenerator(64, (16, 16, 3), [64, 32, 16])(z, resolution=8)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(
        self, latent_dim, image_shape, maps, *, condition_dim=None, **kwargs
    ):
        # Layers cast for themselves; alpha stays in float32.
        super().__init__(autocast=False, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.image_shape = inputs.check_image_shape(image_shape)
        if condition_dim is not None:
            inputs.check_positive_integer(condition_dim, "condition_dim")
        self.condition_dim = condition_dim
        self.resolutions = tuple(resolutions_of(image_shape))
        self.maps = _check_maps(maps, self.resolutions)
        size = _size_at(4, self.image_shape)
        dtype = {"dtype": self.dtype_policy}
        self.normalize = PixelNormalization(**dtype)
        self.dense = EqualizedDense(
            (*size, maps[0]), gain=math.sqrt(2) / 4, name="dense", **dtype
        )
        # Those of the first resolution and of each further one, in lists of
        # layers, as Keras does not save lists of lists.
        self.first = [
            EqualizedConv2D(
                count, 3, resample="up", name=f"first_{resolution}", **dtype
            )
            for resolution, count in self._levels()[1:]
        ]
        self.second = [
            EqualizedConv2D(count, 3, name=f"second_{resolution}", **dtype)
            for resolution, count in self._levels()
        ]
        self.to_image = [
            EqualizedConv2D(
                self.image_shape[-1],
                1,
                gain=1.0,
                name=f"to_image_{resolution}",
                dtype="float32",
            )
            for resolution in self.resolutions
        ]
        self.fade = FadeIn(dtype="float32")
        self.build()

    def _levels(self):
        return list(zip(self.resolutions, self.maps, strict=True))

    @property
    def input_shape(self):
        if self.condition_dim is None:
            return (None, self.latent_dim)
        return [(None, self.latent_dim), (None, self.condition_dim)]

    @property
    def output_shape(self):
        return (None, *self.image_shape)

    def build(self, input_shape=None):
        if self.built:
            return
        width = self.latent_dim + (self.condition_dim or 0)
        self.dense.build((None, width))
        below = self.maps[0]
        for i, (resolution, count) in enumerate(self._levels()):
            size = _size_at(resolution, self.image_shape)
            if i:
                half = _size_at(resolution // 2, self.image_shape)
                self.first[i - 1].build((None, *half, below))
            self.second[i].build((None, *size, count))
            self.to_image[i].build((None, *size, count))
            below = count
        self.built = True

    def call(self, inputs, resolution=None, alpha=None):
        level = _level(resolution, self.resolutions)
        if self.condition_dim is None:
            h = self.normalize(inputs)
        else:
            z, condition = inputs
            h = self.normalize(z)
            h = tf.concat([h, tf.cast(condition, h.dtype)], axis=-1)
        h = self._activate(self.dense(h))
        h = self._activate(self.second[0](h))
        for first, second in zip(
            self.first[:level], self.second[1:], strict=False
        ):
            below = h
            h = self._activate(second(self._activate(first(below))))
        images = self.to_image[level](h)
        if alpha is None or level == 0:
            return images
        old = upscale(self.to_image[level - 1](below))
        return self.fade([images, old], alpha=alpha)

    def _activate(self, h):
        return self.normalize(tf.nn.leaky_relu(h, SLOPE))

    def compute_output_shape(self, input_shape, resolution=None, alpha=None):
        level = _level(resolution, self.resolutions)
        size = _size_at(self.resolutions[level], self.image_shape)
        shape = input_shape if self.condition_dim is None else input_shape[0]
        return (shape[0], *size, self.image_shape[-1])

    def compute_output_spec(self, inputs, resolution=None, alpha=None):
        return _float32_spec(self, inputs, resolution, alpha)

    def layers_at(self, resolution, is_fading=False):
        """Layers with weights that a call with a resolution uses.

        Args:
            resolution: Integer.
            is_fading: Boolean, whether it is a call with `alpha`.

        Returns:
            List of layers.
        """
        level = _level(resolution, self.resolutions)
        lowest = level - bool(is_fading and level)
        return [
            self.dense,
            *self.second[: level + 1],
            *self.first[:level],
            *self.to_image[lowest : level + 1],
        ]

    def layers_up_to(self, resolution):
        """Layers with weights of a resolution and of all below it."""
        level = _level(resolution, self.resolutions)
        return [*self.layers_at(resolution), *self.to_image[:level]]

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "image_shape": self.image_shape,
            "maps": self.maps,
            "condition_dim": self.condition_dim,
        }


@keras.saving.register_keras_serializable(package="keras_gen")
class ProgressiveDiscriminator(ExportableNetwork):
    """Images of any of its resolutions to logits.

    A 1x1 convolution for each resolution makes maps of images. Then for each
    resolution, down to 8 pixels, come two 3x3 convolutions and pooling over
    2x2 pixels. At 4 pixels follow `MinibatchStdDev`, a 3x3 convolution, a
    dense layer and the linear logits. LeakyReLU follows all layers but the
    last; all are equalized (see `EqualizedConv2D`), none normalizes.

    With a condition y, `sum(features * embedding(y))` is added to the first
    logit, where features are what the last layer takes.

    Args:
        image_shape: `(height, width, channels)` of the last resolution.
        maps: List of integers, maps at each of `resolutions_of(image_shape)`.
        units: Integer, of the dense layer.
        num_logits: Integer, 1 and the classes of an auxiliary classifier.
        condition_dim: Integer or `None`, width of the condition.
        group_size: Integer, images of a group of `MinibatchStdDev`.
        fused: Boolean, whether the second convolution of a block pools too,
            before the activation.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Images `(batch, height, width, channels)` of the resolution,
            or `[images, condition]`.
        resolution: Integer, which resolution; the last one by default.
        alpha: Number or scalar tensor in [0, 1], or `None` for 1. It blends
            the features after the first block, `alpha * features + (1 - alpha)
            * features of the pooled images from the resolution below`.

    Returns:
        Logits `(batch, num_logits)`, float32.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> ProgressiveDiscriminator((16, 16, 3), [64, 32, 16], 64)(x, alpha=0.5)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
    """

    def __init__(
        self,
        image_shape,
        maps,
        units,
        *,
        num_logits=1,
        condition_dim=None,
        group_size=4,
        fused=False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.image_shape = inputs.check_image_shape(image_shape)
        self.resolutions = tuple(resolutions_of(image_shape))
        self.maps = _check_maps(maps, self.resolutions)
        self.units = inputs.check_positive_integer(units, "units")
        self.num_logits = inputs.check_positive_integer(
            num_logits, "num_logits"
        )
        if condition_dim is not None:
            inputs.check_positive_integer(condition_dim, "condition_dim")
        self.condition_dim = condition_dim
        self.group_size, self.fused = group_size, fused
        dtype = {"dtype": self.dtype_policy}
        self.from_image = [
            EqualizedConv2D(count, 1, name=f"from_image_{resolution}", **dtype)
            for resolution, count in self._levels()
        ]
        self.first = [
            EqualizedConv2D(count, 3, name=f"first_{resolution}", **dtype)
            for resolution, count in self._levels()
        ]
        self.second = [
            EqualizedConv2D(
                below,
                3,
                resample="down" if fused else None,
                name=f"second_{resolution}",
                **dtype,
            )
            for resolution, below in zip(
                self.resolutions[1:], self.maps, strict=False
            )
        ]
        self.fade = FadeIn(**dtype)
        self.minibatch_std = MinibatchStdDev(group_size, **dtype)
        self.dense = EqualizedDense(self.units, name="dense", **dtype)
        self.logits = EqualizedDense(
            self.num_logits, gain=1.0, name="logits", dtype="float32"
        )
        self.embedding = None
        if condition_dim is not None:
            # Of one-hot vectors; the sum of `units` products is then about 1.
            self.embedding = EqualizedDense(
                self.units,
                gain=math.sqrt(condition_dim / self.units),
                use_bias=False,
                name="embedding",
                dtype="float32",
            )
        self.build()

    def _levels(self):
        return list(zip(self.resolutions, self.maps, strict=True))

    @property
    def input_shape(self):
        shape = (None, *self.image_shape)
        if self.condition_dim is None:
            return shape
        return [shape, (None, self.condition_dim)]

    @property
    def output_shape(self):
        return (None, self.num_logits)

    def build(self, input_shape=None):
        if self.built:
            return
        for i, (resolution, count) in enumerate(self._levels()):
            size = _size_at(resolution, self.image_shape)
            self.from_image[i].build((None, *size, self.image_shape[-1]))
            # One map more, that of the standard deviation, at the bottom.
            self.first[i].build((None, *size, count + (i == 0)))
            if i:
                self.second[i - 1].build((None, *size, count))
        pixels = math.prod(_size_at(4, self.image_shape))
        self.dense.build((None, pixels * self.maps[0]))
        self.logits.build((None, self.units))
        if self.embedding is not None:
            self.embedding.build((None, self.condition_dim))
        self.built = True

    def call(self, inputs, resolution=None, alpha=None):
        level = _level(resolution, self.resolutions)
        images, condition = inputs, None
        if self.condition_dim is not None:
            images, condition = inputs
        h = _leaky_relu(self.from_image[level](images))
        for i in range(level, 0, -1):
            h = self._block(i, h)
            if i == level and alpha is not None:
                old = self.from_image[i - 1](downscale(images))
                h = self.fade([h, _leaky_relu(old)], alpha=alpha)
        h = _leaky_relu(self.first[0](self.minibatch_std(h)))
        h = tf.reshape(h, (-1, math.prod(h.shape[1:])))
        h = _leaky_relu(self.dense(h))
        logits = self.logits(h)
        if condition is None:
            return logits
        products = tf.cast(h, "float32") * self.embedding(condition)
        projection = tf.reduce_sum(products, axis=-1, keepdims=True)
        return tf.concat([logits[:, :1] + projection, logits[:, 1:]], axis=-1)

    def _block(self, level, h):
        h = _leaky_relu(self.first[level](h))
        h = _leaky_relu(self.second[level - 1](h))
        return h if self.fused else downscale(h)

    def compute_output_shape(self, input_shape, resolution=None, alpha=None):
        shape = input_shape if self.condition_dim is None else input_shape[0]
        return (shape[0], self.num_logits)

    def compute_output_spec(self, inputs, resolution=None, alpha=None):
        return _float32_spec(self, inputs, resolution, alpha)

    def layers_at(self, resolution, is_fading=False):
        """Layers with weights that a call with a resolution uses.

        Args:
            resolution: Integer.
            is_fading: Boolean, whether it is a call with `alpha`.

        Returns:
            List of layers.
        """
        level = _level(resolution, self.resolutions)
        lowest = level - bool(is_fading and level)
        return [
            *self.first[: level + 1],
            *self.second[:level],
            self.dense,
            self.logits,
            *self.from_image[lowest : level + 1],
            *([] if self.embedding is None else [self.embedding]),
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "maps": self.maps,
            "units": self.units,
            "num_logits": self.num_logits,
            "condition_dim": self.condition_dim,
            "group_size": self.group_size,
            "fused": self.fused,
        }


def _leaky_relu(h):
    return tf.nn.leaky_relu(h, SLOPE)


def _float32_spec(network, inputs, *arguments):
    shapes = tf.nest.map_structure(lambda x: x.shape, inputs)
    shape = network.compute_output_shape(shapes, *arguments)
    return keras.KerasTensor(shape, dtype="float32")


def _published_maps(image_shape, fmap_base, fmap_max):
    inputs.check_positive_integer(fmap_base, "fmap_base")
    inputs.check_positive_integer(fmap_max, "fmap_max")
    return [
        max(1, min(2 * fmap_base // resolution, fmap_max))
        for resolution in resolutions_of(image_shape)
    ]


def _check_maps(maps, resolutions):
    if len(maps) != len(resolutions):
        raise ValueError(
            f"`maps` must have one number for each of the resolutions "
            f"{resolutions}, got {list(maps)}."
        )
    return tuple(inputs.check_positive_integer(count, "maps") for count in maps)


def _size_at(resolution, image_shape):
    """`(height, width)` of images at a resolution."""
    height, width, _ = image_shape
    shorter = min(height, width)
    return height * resolution // shorter, width * resolution // shorter


def _level(resolution, resolutions):
    """The index of a resolution; `None` is the last one."""
    if resolution is None:
        return len(resolutions) - 1
    if resolution not in resolutions:
        raise ValueError(
            f"`resolution` must be one of {resolutions}, got {resolution!r}."
        )
    return resolutions.index(resolution)
