"""Multi-scale structural similarity: how much the samples resemble each other."""

import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen.metrics.features import FeatureMetric

_WINDOW_SIZE = 11
_WINDOW_STD = 1.5
_SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
# Stabilizers of the luminance and of the contrast, (k * 255)**2.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_BATCH_SIZE = 128


@saving.register_keras_serializable(package="keras_gen")
class MultiScaleSSIM(FeatureMetric):
    """Mean similarity of pairs of images: 1 if all are the same.

    The pairs are consecutive images, the first with the second, the third
    with the fourth, and so on. The similarity of a pair is

        prod(contrast[i] ** weights[i]) * luminance_and_contrast[-1] ** weights[-1]

    over `num_scales` scales, each half the size of the one before (means of
    2x2 pixels). `contrast` and `luminance_and_contrast` are the two parts of
    SSIM, means over pixels and channels, in a Gaussian window of 11x11 pixels
    and deviation 1.5 that stays inside of the image, with `k1 = 0.01`,
    `k2 = 0.03` and a range of 255; negative ones become 0.

    The result is a dict of two floats, `"ms_ssim"` of the generated images
    and `"ms_ssim_real"` of the real ones. A side with less than two images is
    left out.

    The metric tells how varied images are, not how good. A generated value
    above the real one means that samples resemble each other more than data
    does. Let the images come in random order.

    The paper has five scales, for which the shorter side needs 176 pixels, 11
    at the last scale. Smaller images have as many as fit (4 from 88 pixels, 3
    from 44, 2 from 22, 1 from 11), `metric.num_scales`, with the first of the
    paper's weights, divided by their sum. Values of different numbers of
    scales cannot be compared, nor can those of the paper with fewer than five.

    Args:
        name: String.

    Raises:
        ValueError: From `update_state`, if images are smaller than 11 pixels
            or no images; from `result`, if no side has two.

    Example:

    >>> metric = MultiScaleSSIM()
    >>> metric.update_state(real, model.sample(10_000, seed=0))
    >>> metric.result()  # {"ms_ssim": 0.31, "ms_ssim_real": 0.28}
    >>> metric.num_scales  # of 32x32 images: 2

    Reference:
        - [Multi-Scale Structural Similarity for Image Quality Assessment](
          https://doi.org/10.1109/ACSSC.2003.1292216)
        - [Conditional Image Synthesis with Auxiliary Classifier GANs](
          https://arxiv.org/abs/1610.09585)
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(self, *, name="ms_ssim"):
        super().__init__(None, PairSimilarity, name)

    @property
    def num_scales(self):
        """Integer, how many scales the images have; `None` before any came."""
        if self.image_shape is None:
            return None
        return _num_scales(self.image_shape)

    def features(self, images, argument="images"):
        """The images themselves, checked: uint8, or float32 in [0, 1]."""
        shape = tuple(getattr(images, "shape", ()))
        if len(shape) == 4 and min(shape[1:3]) < _WINDOW_SIZE:
            raise ValueError(
                f"`{argument}` must be images of at least {_WINDOW_SIZE} "
                "pixels in height and width, the size of the window, got "
                f"shape {shape}. Enlarge them with `tf.image.resize`."
            )
        return self._check_images(images, argument)

    def result(self):
        """`{"ms_ssim", "ms_ssim_real"}`, floats."""
        return {name: float(np.mean(v)) for name, v in self._of_pairs().items()}

    def details(self):
        """As of every metric, with the standard errors of the means."""
        errors = {
            f"{name}_standard_error": float(np.std(v) / np.sqrt(len(v)))
            for name, v in self._of_pairs().items()
        }
        return {**super().details(), **errors}

    def _of_pairs(self):
        if self.real.count < 2:
            self.require(2, sides=("generated",))
        sides = {"ms_ssim": self.generated, "ms_ssim_real": self.real}
        return {
            name: side.of_pairs()
            for name, side in sides.items()
            if side.count > 1
        }


class PairSimilarity:
    """Accumulator of the similarity of consecutive images."""

    full = False

    def __init__(self):
        self._unpaired = []
        self._similarities = []
        self.count = 0

    def add(self, images):
        """Takes pairs of `(batch, height, width, channels)`."""
        for begin in range(0, len(images), _BATCH_SIZE):
            x = _to_grey_levels(images[begin : begin + _BATCH_SIZE])
            self.count += len(x)
            x = tf.concat([*self._unpaired, x], axis=0)
            end = len(x) // 2 * 2
            self._unpaired = [x[end:]]
            if end:
                similarity = multi_scale_ssim(x[:end:2], x[1:end:2])
                self._similarities.append(np.asarray(similarity, "float64"))

    def of_pairs(self):
        """float64 `(count // 2,)`."""
        return np.concatenate(self._similarities)


def multi_scale_ssim(x, y):
    """Similarity of images, pair by pair: see `MultiScaleSSIM`.

    Args:
        x: Grey levels less 127.5, float32 `(batch, height, width, channels)`.
        y: The same.

    Returns:
        float32 `(batch,)`, at most 1.
    """
    num_scales = _num_scales(x.shape[1:])
    weights = _SCALE_WEIGHTS[:num_scales] / _SCALE_WEIGHTS[:num_scales].sum()
    similarity = 1.0
    for i in range(num_scales):
        if i > 0:
            x, y = _halve(x), _halve(y)
        similarity_of_scale, contrast = _ssim(x, y)
        part = contrast if i < num_scales - 1 else similarity_of_scale
        similarity *= tf.maximum(part, 0.0) ** weights[i]
    return similarity


def _ssim(x, y):
    """SSIM and its contrast and structure part, `(batch,)` each."""
    # Squares are of grey levels less 127.5, which spares float32 two digits.
    moments = _smooth(tf.concat([x, y, x * x, y * y, x * y], axis=-1))
    mean_x, mean_y, xx, yy, xy = tf.split(moments, 5, axis=-1)
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x**2 + yy - mean_y**2
    mean_x, mean_y = mean_x + 127.5, mean_y + 127.5
    contrast = (2 * covariance + _C2) / (variances + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (
        tf.reduce_mean(luminance * contrast, axis=(1, 2, 3)),
        tf.reduce_mean(contrast, axis=(1, 2, 3)),
    )


def _smooth(x):
    """Means in a Gaussian window, wherever it lies inside of the image."""
    offsets = np.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
    window = np.exp(-0.5 * (offsets / _WINDOW_STD) ** 2)
    window = np.tile(window / window.sum(), (x.shape[-1], 1)).T
    for shape in ((-1, 1), (1, -1)):  # a column, then a row
        kernel = window.reshape(*shape, x.shape[-1], 1).astype("float32")
        x = tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID")
    return x


def _halve(x):
    """Means of 2x2 pixels; the edge of an odd size counts twice."""
    height, width = x.shape[1:3]
    padding = [[0, 0], [0, height % 2], [0, width % 2], [0, 0]]
    return tf.nn.avg_pool2d(tf.pad(x, padding, "SYMMETRIC"), 2, 2, "VALID")


def _to_grey_levels(images):
    """float32 in [-127.5, 127.5]."""
    if images.dtype != "uint8":
        images = 255.0 * images
    return tf.cast(images, "float32") - 127.5


def _num_scales(image_shape):
    """How often the shorter side can be halved with room for the window."""
    size = min(image_shape[:2])
    scales = range(1, len(_SCALE_WEIGHTS) + 1)
    return max(n for n in scales if size >= _WINDOW_SIZE * 2 ** (n - 1))
