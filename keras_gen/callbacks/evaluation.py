"""Metrics of a model's samples in the logs of each epoch."""

import keras
import numpy as np

from keras_gen import inputs
from keras_gen.evaluation import batches, scores
from keras_gen.evaluation.measure import check_samples


class EvaluateSamples(keras.callbacks.Callback):
    """Puts metrics of samples into the logs, for callbacks to act on.

    After the first epoch of each `fit` and after each `every`-th one, samples
    are compared with real images. In the epochs between, the logs repeat the
    last values, so that their keys are always there: `CSVLogger` has no gaps,
    and `ModelCheckpoint` and `EarlyStopping` see no improvement.

    `fit` calls it before the callbacks that read its values, and tells those
    of Keras which way they get better.

    Metrics that give one number are logged under their name; of those that
    give several, as in a `Report`: `"precision"` and `"recall"`,
    `"kernel_distance"` and `"kernel_distance_standard_error"`.

    The samples are of the same latents every time: `model.sample` is given
    integer seeds, which leaves the random streams of training alone. The first
    `num_samples` images of `dataset` are read once, when training starts, and
    kept in memory. Several workers all measure, and find the same, so that
    their callbacks agree.

    Args:
        dataset: Real images, as for `fit`; prefer test images. A conditional
            model is given their labels in turn.
        metrics: List of metrics such as those of `keras_gen.metrics`.
        every: Integer, epochs from one measurement to the next.
        num_samples: Integer, how many samples to draw, and how many real
            images to read at most. Values of few images are biased: they
            tell epochs apart, and are not to be published.
        seed: Integer, which latents to draw.

    Raises:
        ValueError: If an argument is not as above; before training starts,
            if the model has no `sample`, or `dataset` is not for the model;
            after the first epoch, if there are too few images for a metric.

    Example:

    >>> extractor = metrics.classifier_features(labelled_train)
    >>> watch = EvaluateSamples(test, [metrics.FrechetDistance(extractor)])
    >>> best = keras.callbacks.ModelCheckpoint(
    ...     "best.keras", "frechet_distance", save_best_only=True
    ... )
    >>> model.fit(train, epochs=20, callbacks=[watch, best])
    """

    def __init__(self, dataset, metrics, *, every=1, num_samples=1000, seed=0):
        super().__init__()
        self.dataset = dataset
        self.metrics = scores.check_metrics(metrics)
        self.every = inputs.check_positive_integer(every, "every")
        self.num_samples = inputs.check_positive_integer(
            num_samples, "num_samples"
        )
        self.seed = inputs.check_seed(seed)
        self.real = None

    def on_train_begin(self, logs=None):
        check_samples(self.model, "EvaluateSamples")
        if self.real is None:
            real = batches.RealImages(self.dataset, self.model, "dataset")
            self.real = list(real.batches(self.num_samples))
            labels = [y for _, y in self.real if y is not None]
            self.labels = np.concatenate(labels) if labels else None
        self.values = None

    def on_epoch_end(self, epoch, logs=None):
        if self.values is None or (epoch + 1) % self.every == 0:
            self.values = self.measure()
        logs.update(self.values)

    def direction(self, name):
        """`"min"` or `"max"`, the better values under a name in the logs."""
        if name.endswith("_standard_error"):
            return None
        of_name = [
            metric
            for metric in self.metrics
            if name.startswith(f"{metric.name}_")
            or f"_{name}_" in f"_{metric.name}_"
        ]
        # Its own name before a beginning, the longest one, before a part.
        metric = max(
            of_name,
            key=lambda metric: (
                name == metric.name,
                name.startswith(metric.name),
                len(metric.name),
            ),
            default=None,
        )
        direction = getattr(metric, "_direction", None)
        return {"up": "max", "down": "min"}.get(direction)

    def measure(self):
        """The values of now: `{name: float}`."""
        for metric in self.metrics:
            metric.reset_state()
        for x, _ in self.real:
            scores.update(self.metrics, real=x)
        for x in batches.sample_batches(
            self.model, self.num_samples, self.seed, self.labels
        ):
            scores.update(self.metrics, generated=x)
        values = scores.results(self.metrics)
        for metric in self.metrics:  # not to keep features while training
            metric.reset_state()
        return values
