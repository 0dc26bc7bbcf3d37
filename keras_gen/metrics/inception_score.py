"""The Inception score, with any classifier."""

import numpy as np
from keras import saving

from keras_gen import inputs
from keras_gen.metrics.features import FeatureMetric, Samples


@saving.register_keras_serializable(package="keras_gen")
class InceptionScore(FeatureMetric):
    """How sure a classifier is of each image, and how varied of all.

    With the classifier's `p(y given x)` of generated images `x` and its mean
    over them, `p(y)`,

        exp(mean(KL(p(y given x), p(y)))),

    between 1 (all images look alike to the classifier) and the number of
    classes (each image certainly of one class, all classes equally often). The
    mean over `splits` equal parts of the images is given, as published. Real
    images are not looked at: the score of the real test set is what to
    compare with, and copies of one good image a class get the best score.

    Keeps `max_samples * num_classes` float64 numbers.

    Args:
        feature_extractor: `keras.Model` from float32 images in [0, 1] to
            class probabilities `(batch, num_classes)`, ending in a softmax. A
            model with an attribute `classifier`, as `classifier_features`
            gives it, stands for that classifier.
        splits: Integer, parts of the images, drawn at random (always the
            same ones).
        max_samples: Integer of at least `splits`, images that are used: the
            first.
        name: String, name of the metric.

    Raises:
        ValueError: If an argument is none of those above, or the classifier's
            outputs are no probabilities.

    Example:

    >>> metric = InceptionScore(classifier_features(labelled))
    >>> metric.update_state(None, model.sample(10_000))
    >>> metric.result()  # 8.1
    >>> metric.details()["standard_deviation"]  # over the splits: 0.06

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498)
    """

    _direction = "up"  # where Keras looks for what is better

    def __init__(
        self,
        feature_extractor,
        *,
        splits=10,
        max_samples=10_000,
        name="inception_score",
    ):
        if feature_extractor is None:
            raise ValueError(
                "`feature_extractor` must be a classifier, a `keras.Model` "
                "that ends in a softmax, got `None`. For example, pass "
                "`metrics.classifier_features(dataset)`."
            )
        self.splits = inputs.check_positive_integer(splits, "splits")
        self.max_samples = inputs.check_positive_integer(
            max_samples, "max_samples", minimum=self.splits
        )
        super().__init__(feature_extractor, lambda: Samples(max_samples), name)
        self._network = getattr(
            feature_extractor, "classifier", feature_extractor
        )

    def update_state(self, real=None, generated=None):
        """Adds a batch of generated images; `real` is ignored."""
        if generated is not None:
            super().update_state(None, generated)

    def features(self, images, argument="images"):
        """Class probabilities, float64 `(batch, num_classes)`."""
        probabilities = super().features(images, argument)
        sums = probabilities.sum(axis=1)
        # Those of a softmax in bfloat16 sum to 1 within 1 %.
        if probabilities.min() < 0 or np.abs(sums - 1).max() > 0.02:
            raise ValueError(
                "`feature_extractor` must be a classifier that gives class "
                "probabilities, got outputs in "
                f"[{probabilities.min():.3g}, {probabilities.max():.3g}] of "
                f"sums in [{sums.min():.3g}, {sums.max():.3g}]. End it with "
                '`keras.layers.Softmax()` or `activation="softmax"`.'
            )
        return probabilities / sums[:, np.newaxis]

    def result(self):
        """The mean over the splits, a float.

        Raises:
            ValueError: If there is not an image for each split.
        """
        return float(np.mean(self._scores()))

    def details(self):
        """As of every metric, with the errors that the splits show.

        Returns:
            Dict, which has also `"standard_deviation"` over the splits, the
            number that papers give, and `"standard_error"`, of their mean.
        """
        scores = self._scores()
        return {
            **super().details(),
            "standard_deviation": float(np.std(scores)),
            "standard_error": float(np.std(scores) / np.sqrt(len(scores))),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "splits": self.splits,
            "max_samples": self.max_samples,
        }

    def _scores(self):
        self.require(self.splits, ["generated"])
        parts = np.array_split(self.generated.shuffled(), self.splits)
        return [np.exp(np.mean(_kl(p, p.mean(axis=0)))) for p in parts]


def _kl(p, q):
    """`sum(p * log(p / q))` over the classes, where `0 * log(0)` is 0."""
    ratio = np.where(p > 0, p, 1.0) / np.where(q > 0, q, 1.0)
    return np.sum(p * np.log(ratio), axis=1)
