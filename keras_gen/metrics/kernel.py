"""The kernel distance: an unbiased comparison of two sets of features."""

import numpy as np
from keras import saving

from keras_gen import inputs
from keras_gen.metrics.features import FeatureMetric, Samples

_MIN_BLOCKS = 10


@saving.register_keras_serializable(package="keras_gen")
class KernelDistance(FeatureMetric):
    """Squared maximum mean discrepancy under a cubic kernel, in blocks.

    With `k(a, b) = (a @ b / dim + 1)**3`, real features `x` and generated
    ones `y` of `n` images each, a block is

        sum(k(x_i, x_j) + k(y_i, y_j) for i != j) / (n * (n - 1))
        - 2 * mean(k(x_i, y_j)).

    It is unbiased: its expectation is 0 for two sets of one distribution,
    whatever `n`, so single values may be negative. The score is the mean over
    blocks of different images; its standard error is their standard deviation
    divided by the square root of their number.

    Departs from the paper: features are standardized first by mean and
    standard deviation of the real ones (a dimension that does not vary there
    is only centred), since the cube of an unbounded feature is dominated by a
    few images; and no image is in two blocks, which makes the error valid.

    Keeps `max_samples * dim` float64 numbers a side.

    Args:
        feature_extractor: `keras.Model` from float32 images in [0, 1] to
            `(batch, dim)`, or `None` for the pixels.
        block_size: Integer of at least 2, images of each side in a block.
            Fewer are taken if there would not be 10 blocks otherwise.
        max_samples: Integer of at least 20, images of each side that are used:
            the first.
        name: String, name of the metric.

    Raises:
        ValueError: If an argument is none of those above.

    Example:

    >>> metric = KernelDistance(extractor)
    >>> metric.update_state(test_images, model.sample(10_000))
    >>> metric.result()
    {"kernel_distance": 0.021, "standard_error": 0.002}

    Reference:
        - [Demystifying MMD GANs](https://arxiv.org/abs/1801.01401)
    """

    _direction = "down"  # where Keras looks for what is better

    def __init__(
        self,
        feature_extractor=None,
        *,
        block_size=1000,
        max_samples=10_000,
        name="kernel_distance",
    ):
        self.block_size = inputs.check_positive_integer(
            block_size, "block_size", minimum=2
        )
        self.max_samples = inputs.check_positive_integer(
            max_samples, "max_samples", minimum=2 * _MIN_BLOCKS
        )
        super().__init__(feature_extractor, lambda: Samples(max_samples), name)

    def result(self):
        """Dict of the floats `"kernel_distance"` and `"standard_error"`.

        Raises:
            ValueError: If there are fewer than 20 images of either side.
        """
        self.require(2 * _MIN_BLOCKS)
        mean = self.real.features().mean(axis=0)
        scale = self.real.features().std(axis=0)
        scale[scale == 0] = 1.0
        x, y = (
            (side.shuffled() - mean) / scale
            for side in (self.real, self.generated)
        )
        num_images = min(len(x), len(y))
        size = min(self.block_size, num_images // _MIN_BLOCKS)
        blocks = [
            squared_mmd(x[start : start + size], y[start : start + size])
            for start in range(0, num_images - size + 1, size)
        ]
        error = np.std(blocks, ddof=1) / np.sqrt(len(blocks))
        return {
            "kernel_distance": float(np.mean(blocks)),
            "standard_error": float(error),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "block_size": self.block_size,
            "max_samples": self.max_samples,
        }


def squared_mmd(x, y):
    """Unbiased squared maximum mean discrepancy under the cubic kernel.

    Args:
        x: Features `(n, dim)`, `n` of at least 2.
        y: Features `(m, dim)`, `m` of at least 2.

    Returns:
        Float, the formula of `KernelDistance`; below 0 by chance.

    Example:

    >>> squared_mmd([[0.0], [0.0]], [[1.0], [1.0]])  # 1 + 2**3 - 2
    7.0
    """
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    between = _kernel(x, y).mean()
    return float(_mean_of_pairs(x) + _mean_of_pairs(y) - 2 * between)


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_pairs(x):
    """Mean of the kernel over pairs of different rows."""
    kernel = _kernel(x, x)
    return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))
