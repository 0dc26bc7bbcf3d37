"""Layers that let a discriminator see how images of a batch differ."""

import keras
import tensorflow as tf

from keras_gen import inputs, randomness


@keras.saving.register_keras_serializable(package="keras_gen")
class MinibatchDiscrimination(keras.layers.Layer):
    """Tells of each image how close the others of its batch are.

    With `m = einsum("nf,fkd->nkd", x, kernel)`, it puts beside the features
    `x` of image i, for each of the kernels k,

        o[i, k] = sum_{j != i} exp(-sum_d abs(m[i, k, d] - m[j, k, d]) / s[k])

    A generator that gives the same image over and over is found out by it.
    As in the paper's code, the first batch of training fixes how large these
    numbers are. There `s[k]` becomes half the mean distance of two images,
    without which all terms may be 0 and have no slope (the code takes that of
    nearest neighbours, which in few dimensions are too near). From then on
    `o[i, k] / c[k] - 1` is told, where `c[k]` is the mean of `o[:, k]` in
    that batch: sums over a batch would outweigh the features of the image.

    An image is judged with its batch, or its replica's part of it, so that
    penalties of the slope at one image, such as `losses.GradientPenalty`, lose
    their meaning. It computes in float32.

    Args:
        num_kernels: Integer, numbers that an image is told.
        kernel_dim: Integer, dimensions in which it is compared for each.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features `(batch, features)`.
        training: Boolean, whether this may be the first batch.

    Returns:
        `(batch, features + num_kernels)`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> MinibatchDiscrimination(100)(keras.ops.ones((8, 256)))  # (8, 356)

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498)
    """

    def __init__(self, num_kernels=100, kernel_dim=5, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_kernels = inputs.check_positive_integer(
            num_kernels, "num_kernels"
        )
        self.kernel_dim = inputs.check_positive_integer(
            kernel_dim, "kernel_dim"
        )

    def build(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                "`x` must be features of shape (batch, features), got "
                f"{tuple(input_shape)}. Put `keras.layers.Flatten` before."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.num_kernels, self.kernel_dim),
            initializer=keras.initializers.RandomNormal(stddev=0.05),
        )
        self.scale = self.add_weight(
            name="scale",
            shape=(self.num_kernels,),
            initializer="zeros",
            trainable=False,
        )
        self.level = self.add_weight(
            name="level",
            shape=(self.num_kernels,),
            initializer="zeros",
            trainable=False,
        )

    def call(self, x, training=False):
        m = tf.tensordot(x, self.kernel, 1)  # (batch, kernels, dim)
        distances = tf.reduce_sum(tf.abs(m[:, tf.newaxis] - m), axis=-1)
        # (batch, batch, kernels); nothing is its own neighbour
        others = 1.0 - tf.eye(tf.shape(x)[0])[..., tf.newaxis]
        if training:
            num_pairs = tf.reduce_sum(others)
            _fix(self.scale, 0.5 * tf.reduce_sum(distances, (0, 1)) / num_pairs)
        scale = tf.convert_to_tensor(self.scale)
        closeness = tf.exp(-distances / tf.where(scale > 0, scale, 1.0))
        closeness = tf.reduce_sum(others * closeness, axis=1)
        if training:
            level = tf.reduce_mean(closeness, axis=0)
            _fix(self.level, tf.where(scale > 0, level, 0.0))
        level = tf.convert_to_tensor(self.level)
        relative = closeness / tf.where(level > 0, level, 1.0) - 1.0
        closeness = tf.where(level > 0, relative, closeness)
        return tf.concat([x, closeness], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.num_kernels)

    def get_config(self):
        return {
            **super().get_config(),
            "num_kernels": self.num_kernels,
            "kernel_dim": self.kernel_dim,
        }


def _fix(weight, measured):
    """Assigns what replicas measured, in the mean, unless it has a value.

    A batch of one image, or of equal ones, measures nothing.
    """
    # In an unrolled step the weight is a tensor, through which NaN would flow.
    measured = tf.stop_gradient(measured)
    if randomness.replica_position()[1] > 1:
        context = tf.distribute.get_replica_context()
        measured = context.all_reduce("MEAN", measured)
    value = tf.convert_to_tensor(weight)
    usable = (value == 0) & (measured > 0) & tf.math.is_finite(measured)
    weight.assign(tf.where(usable, measured, value))


def pack(images, num_images):
    """Puts images on top of each other for a discriminator to judge at once.

    Args:
        images: `(batch, height, width, channels)`.
        num_images: Integer m, images in a pack. The last one, if it is not
            full, is filled up with the first images once more.

    Returns:
        `(ceil(batch / m), height, width, m * channels)`.

    Reference:
        - [PacGAN](https://arxiv.org/abs/1712.04086)
    """
    if num_images == 1:
        return images
    size, shape = tf.shape(images)[0], images.shape[1:]
    rows = tf.range(-(-size // num_images) * num_images) % size
    packs = tf.reshape(tf.gather(images, rows), (-1, num_images, *shape))
    packs = tf.transpose(packs, (0, 2, 3, 1, 4))
    return tf.reshape(packs, (-1, *shape[:2], num_images * shape[2]))
