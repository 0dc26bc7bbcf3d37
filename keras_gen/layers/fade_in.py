"""The smooth change from one resolution to the next."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_gen")
class FadeIn(keras.layers.Layer):
    """Fades from an old tensor to a new one.

    `alpha * new + (1 - alpha) * old`: exactly `old` at 0, exactly `new` at 1.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[new, old]`, two tensors of the same shape.
        alpha: Scalar in [0, 1], a number or a tensor.

    Returns:
        A tensor of that shape.

    Example:

    >>> FadeIn()([keras.ops.ones(3), keras.ops.zeros(3)], alpha=0.25)  # 0.25

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(self, **kwargs):
        # Or alpha would be rounded before 1 - alpha is.
        super().__init__(autocast=False, **kwargs)
        # Keras would refuse a number that is given by position.
        self._allow_non_tensor_positional_args = True

    def call(self, inputs, alpha):
        shapes = [tf.TensorShape(x.shape) for x in inputs]
        if len(shapes) != 2 or not shapes[0].is_compatible_with(shapes[1]):
            raise ValueError(
                "`inputs` must be two tensors of the same shape, got "
                f"{str(shapes)[:200]}."
            )
        new, old = (tf.cast(x, self.compute_dtype) for x in inputs)
        alpha = tf.cast(alpha, "float32")
        return (
            tf.cast(alpha, new.dtype) * new
            + tf.cast(1.0 - alpha, new.dtype) * old
        )

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def upscale(images, factor=2):
    """Nearest-neighbour enlargement: every pixel becomes a square of them.

    Args:
        images: `(batch, height, width, channels)`, with a known size.
        factor: Integer, rows and columns of the square.

    Returns:
        `(batch, factor * height, factor * width, channels)`.
    """
    if factor == 1:
        return images
    height, width, channels = images.shape[1:]
    squares = tf.broadcast_to(
        images[:, :, tf.newaxis, :, tf.newaxis],
        tf.stack(
            [tf.shape(images)[0], height, factor, width, factor, channels]
        ),
    )
    return tf.reshape(squares, (-1, factor * height, factor * width, channels))


def downscale(images, factor=2):
    """Means over squares of pixels.

    Args:
        images: `(batch, height, width, channels)`, whose height and width are
            multiples of `factor`.
        factor: Integer, rows and columns of a square.

    Returns:
        `(batch, height / factor, width / factor, channels)`.
    """
    if factor == 1:
        return images
    return tf.nn.avg_pool2d(images, factor, factor, "VALID")
