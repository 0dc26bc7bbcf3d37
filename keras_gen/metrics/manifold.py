"""Fidelity and variety apart: which images lie near those of the other set."""

import numpy as np
from keras import saving

from keras_gen import inputs
from keras_gen.metrics.features import FeatureMetric, Samples
from keras_gen.metrics.neighbours import count_balls, nearest


class _NeighbourMetric(FeatureMetric):
    """Keeps the features, for what is said of balls around them.

    The ball of an image reaches to its `k`-th nearest neighbour of its own
    set, not counting itself.
    """

    _direction = "up"  # where Keras looks for what is better

    def __init__(self, feature_extractor, k, max_samples, name):
        self.k = inputs.check_positive_integer(k, "k")
        self.max_samples = inputs.check_positive_integer(
            max_samples, "max_samples", minimum=self.k + 1
        )
        super().__init__(feature_extractor, lambda: Samples(max_samples), name)

    def radii(self, features):
        """Distance of each row to its `k`-th nearest other one."""
        return nearest(features, features, self.k + 1)[0][:, -1]

    def details(self):
        """As of every metric, with the standard errors of the numbers.

        Each number is a mean over images, and its error, for instance
        `"precision_standard_error"`, that of this mean: the balls count as
        given.
        """
        values = self.of_images()
        errors = {
            f"{name}_standard_error": float(np.std(v) / np.sqrt(len(v)))
            for name, v in values.items()
        }
        return {**_means(values), **errors, **self.measured_on()}

    def get_config(self):
        return {
            **super().get_config(),
            "k": self.k,
            "max_samples": self.max_samples,
        }


@saving.register_keras_serializable(package="keras_gen")
class PrecisionRecall(_NeighbourMetric):
    """How much of each set lies in the estimated support of the other.

    The support of a set is the union of the balls around its features, each
    reaching to the `k`-th nearest other one. Precision is the share of
    generated images in the support of the real ones: whether they look real.
    Recall is the share of real images in the support of the generated ones:
    whether everything is generated.

    Both are below 1 for two sets of one distribution, the more so the more
    dimensions the features have, and depend on the number of images; one
    outlier has a large ball. `DensityCoverage` suffers less from either.

    Keeps `max_samples * dim` float64 numbers a side; distances are computed in
    blocks.

    Args:
        feature_extractor: `keras.Model` from float32 images in [0, 1] to
            `(batch, dim)`, or `None` for the pixels.
        k: Integer, which neighbour a ball reaches to.
        max_samples: Integer above `k`, images of each side that are used: the
            first.
        name: String, name of the metric.

    Raises:
        ValueError: If an argument is none of those above.

    Example:

    >>> metric = PrecisionRecall(extractor)
    >>> metric.update_state(test_images, model.sample(10_000))
    >>> metric.result()
    {"precision": 0.74, "recall": 0.52}

    Reference:
        - [Improved Precision and Recall Metric for Assessing Generative
          Models](https://arxiv.org/abs/1904.06991)
    """

    def __init__(
        self,
        feature_extractor=None,
        *,
        k=3,
        max_samples=10_000,
        name="precision_recall",
    ):
        super().__init__(feature_extractor, k, max_samples, name)

    def result(self):
        """Dict of the floats `"precision"` and `"recall"` in [0, 1].

        Raises:
            ValueError: If there are fewer than `k + 1` images of either side.
        """
        return _means(self.of_images())

    def of_images(self):
        """What `result` is the mean of, a number for each image."""
        self.require(self.k + 1)
        real, generated = self.real.features(), self.generated.features()
        in_real = count_balls(generated, real, self.radii(real))
        in_generated = count_balls(real, generated, self.radii(generated))
        return {
            "precision": in_real > 0,
            "recall": in_generated > 0,
        }


@saving.register_keras_serializable(package="keras_gen")
class DensityCoverage(_NeighbourMetric):
    """Precision and recall that outliers do not inflate.

    Of balls around the real features only, each reaching to the `k`-th nearest
    other real one: density is the mean number of balls that a generated image
    lies in, divided by `k`; coverage is the share of balls with a generated
    image inside.

    For two sets of one distribution the expected density is 1, it may be more;
    the expected coverage is `1 - 2**-k` for equally many images, 0.97 for 5.

    Keeps `max_samples * dim` float64 numbers a side; distances are computed in
    blocks.

    Args:
        feature_extractor: `keras.Model` from float32 images in [0, 1] to
            `(batch, dim)`, or `None` for the pixels.
        k: Integer, which neighbour a ball reaches to.
        max_samples: Integer above `k`, images of each side that are used: the
            first.
        name: String, name of the metric.

    Raises:
        ValueError: If an argument is none of those above.

    Example:

    >>> metric = DensityCoverage(extractor)
    >>> metric.update_state(test_images, model.sample(10_000))
    >>> metric.result()
    {"density": 0.93, "coverage": 0.81}

    Reference:
        - [Reliable Fidelity and Diversity Metrics for Generative Models](
          https://arxiv.org/abs/2002.09797)
    """

    def __init__(
        self,
        feature_extractor=None,
        *,
        k=5,
        max_samples=10_000,
        name="density_coverage",
    ):
        super().__init__(feature_extractor, k, max_samples, name)

    def result(self):
        """Dict of the floats `"density"`, at least 0, and `"coverage"`.

        Raises:
            ValueError: If there are fewer than `k + 1` images of the real
                side, or none of the generated one.
        """
        return _means(self.of_images())

    def of_images(self):
        """What `result` is the mean of, a number for each image."""
        self.require(self.k + 1, ["real"])
        self.require(1, ["generated"])
        real, generated = self.real.features(), self.generated.features()
        radii = self.radii(real)
        counts = count_balls(generated, real, radii)
        distances = nearest(real, generated)[0][:, 0]
        return {
            "density": counts / self.k,
            "coverage": distances <= radii,
        }


def _means(values):
    return {name: float(np.mean(of)) for name, of in values.items()}
