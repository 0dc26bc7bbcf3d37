"""`evaluate`: what the samples and likelihoods of a model are worth."""

import hashlib
import json
import math
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_gen import distributions, images, inputs
from keras_gen.evaluation import batches, scores
from keras_gen.evaluation.report import Report
from keras_gen.metrics.features import FeatureMetric, Samples
from keras_gen.metrics.frechet import FrechetDistance
from keras_gen.metrics.inception_score import InceptionScore
from keras_gen.metrics.kernel import KernelDistance
from keras_gen.metrics.manifold import DensityCoverage, PrecisionRecall
from keras_gen.metrics.neighbours import nearest
from keras_gen.metrics.sliced_wasserstein import SlicedWassersteinDistance

_NUM_QUERIES = 1000  # images whose nearest reference image is looked for
_NUM_PAIRS = 16  # of them that are shown
_MAX_PICTURE = 2**22  # pixels in a picture
_MAX_FIT = 2**28  # values that the Gaussian is fitted to: 1 GiB
_MAX_SEARCH = 2**24  # values of reference images that are searched at once


def evaluate(
    model,
    dataset,
    metrics=None,
    num_samples=10_000,
    *,
    reference=None,
    feature_extractor=None,
    seed=0,
    verbose=1,
):
    """Measures a model's samples and likelihood on real images.

    Samples are compared with the first `num_samples` images of `dataset`, and
    so are two other sets, whose numbers make those of the model readable:
    `"real"`, which no model beats, and `"gaussian"`, samples of a Gaussian
    with the mean and the covariance of the reference images' pixels, clipped
    to [0, 1]. If the model has a `log_prob`, its mean over the same images
    comes with the standard error over images. Grey images have no probability
    under a likelihood of binary ones: what it gives then is minus a
    cross-entropy, of which there are no bits a dimension, and the report says
    `log_prob_is_cross_entropy`.

    Does the model copy? `nearest_distance` is the median distance from one of
    1,000 samples to the nearest of all reference images; in the row `"real"`
    it is that from an image of `dataset`. `copies` is the share of samples
    that are as close to a reference image as only 1 of 100 images of
    `dataset` is: 0.01 for new images.

    Samples of a conditional model are given the labels of `dataset` in turn,
    if it has some; its likelihood is then that given the labels.

    Args:
        model: A model with the verb `sample`.
        dataset: Images to compare with, usually test images: an array, or a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches of `x` or
            `(x, y)`. It is read several times, and is to give the same images
            each time, as `datasets.load(name, "test")` does.
        reference: More real images of the same kind, the training images, in
            any order. Without them, the images of `dataset` at even positions
            are compared with those at odd ones, which then take the place of
            the reference images: a higher floor, as they are half as many,
            and only the training images would show copies.
        metrics: List of metrics such as those of `keras_gen.metrics`, each
            with the feature extractor that it was made with. Defaults to the
            Fréchet and kernel distances, precision and recall, density and
            coverage and, if there is a classifier, the Inception score, all
            on `feature_extractor`; and for images of at least 16 pixels to
            the sliced Wasserstein distance.
        num_samples: Integer, how many samples to draw. Most metrics depend on
            it: compare numbers of the same `num_samples` only.
        feature_extractor: `keras.Model` from images in [0, 1] to vectors.
            Prefer `metrics.classifier_features(train)` or
            `metrics.inception_features()`, as distances between pixels say
            little about images. Defaults to the pixels, so that no network is
            trained or downloaded unasked; of images larger than 32 x 32, to
            averages over boxes. If it has an attribute `classifier`, classes
            are counted.
        seed: Integer, of the samples and all else that is random.
        verbose: 0 for silence, 1 for progress bars, 2 for a line a step.

    Returns:
        `Report`, a dictionary of these numbers.

    Raises:
        ValueError: If the model has no `sample`, an argument is not as
            above, or there are too few images for a metric.

    Example:

    >>> features = metrics.classifier_features(labelled_train)
    >>> report = evaluate(
    ...     model, test, reference=train, feature_extractor=features
    ... )
    >>> report["frechet_distance"]
    >>> report.save("report.html")

    Reference:
        - [Are GANs Created Equal?](https://arxiv.org/abs/1711.10337)
        - [An empirical study on evaluation metrics of generative adversarial
          networks](https://arxiv.org/abs/1806.07755)
    """
    check_samples(model, "evaluate")
    inputs.check_positive_integer(num_samples, "num_samples")
    inputs.check_seed(seed)
    shape = model.image_shape
    real = batches.RealImages(dataset, model, "dataset")
    training = None
    if reference is not None:
        training = batches.RealImages(reference, model, "reference")
        if training.is_endless:
            raise ValueError(
                "`reference` must end, as all of it is read, got a dataset "
                "that repeats for ever. Leave out its `repeat()`."
            )
    if feature_extractor is None:
        feature_extractor = scores.pixels(shape)
    classifier = getattr(feature_extractor, "classifier", None)
    if metrics is None:
        metrics = _default_metrics(feature_extractor, shape)
    metrics = scores.check_metrics(metrics)
    settings = {metric.name: scores.settings(metric) for metric in metrics}
    extract = FeatureMetric(
        feature_extractor, lambda: Samples(1), "neighbours"
    ).features

    def real_batches():
        return real.batches(num_samples)

    def held_out_batches():
        if training:
            return real_batches()
        return batches.every_other(real_batches(), 0)

    def reference_batches(limit=math.inf):
        if training:
            return training.batches(limit)
        return batches.every_other(real_batches(), 1)

    def start(step, title, target=None):
        if verbose:
            print(f"Step {step}/5: {title}")
        return keras.utils.Progbar(target, verbose=verbose, unit_name="image")

    # The model.
    bar = start(1, "real images and their likelihood")
    row = _Row(metrics, classifier, bar)
    likelihood = _Likelihood(model, seed)
    labels, digests = [], []
    first_real = batches.First(_num_shown(shape))
    for x, y in real_batches():
        likelihood.add(x, y)
        digests += [hashlib.sha256(image.tobytes()).digest() for image in x]
        labels += [] if y is None else [y]
        first_real.add(x)
        row.add_real(x)
    row.bar.update(row.num_real, finalize=True)

    row.bar = start(2, f"samples of {model.name}", num_samples)
    queries = batches.First(_NUM_QUERIES)
    first_samples = batches.First(max(_num_shown(shape), _NUM_PAIRS))
    labels = np.concatenate(labels) if labels else None
    for x in batches.sample_batches(model, num_samples, seed, labels):
        if not queries.is_full:
            queries.add(extract(x))
        first_samples.add(x)
        row.add_generated(x)
    numbers = row.numbers()

    # What no model beats, and what every model should.
    bar = start(3, "real images against real images")
    row = _Row(metrics, classifier, bar)
    held_out_queries = batches.First(_NUM_QUERIES)
    for x, _ in held_out_batches():
        if not held_out_queries.is_full:
            held_out_queries.add(extract(x))
        row.add_real(x)
    fitted = batches.First(max(2, _MAX_FIT // math.prod(shape)))
    for x, _ in reference_batches(num_samples):
        fitted.add(x)
        row.add_generated(x)
    row.bar.update(row.num_real + row.num_generated, finalize=True)
    floor = row.numbers()

    bar = start(4, "a Gaussian", len(digests) + num_samples)
    row = _Row(metrics, classifier, bar)
    for x, _ in real_batches():
        row.add_real(x)
    for x in batches.gaussian_batches(fitted.rows(), num_samples, seed):
        row.add_generated(x)
    gaussian = row.numbers()

    # Copies.
    bar = start(5, "nearest reference images")
    queries, held_out_queries = queries.rows(), held_out_queries.rows()
    search = _Search(np.concatenate([queries, held_out_queries]), shape)
    size = max(1, _MAX_SEARCH // math.prod(shape))
    for x in batches.rebatched(reference_batches(), size):
        search.add(x, extract(x))
        bar.update(search.num_searched)
    bar.update(search.num_searched, finalize=True)
    found, expected = np.split(search.distances, [len(queries)])
    threshold = np.quantile(expected, 0.01, method="lower")
    for row, distances in ((numbers, found), (floor, expected)):
        row["nearest_distance"] = np.median(distances)
        row["copies"] = np.mean(distances <= threshold)

    report = {
        "model": {
            "class": type(model).__name__,
            "name": model.name,
            "num_parameters": _num_parameters(model),
        },
        **likelihood.numbers(),
        **numbers,
        "references": {"real": floor, "gaussian": gaussian},
        "conditions": {
            "data": {
                "num_images": len(digests),
                "image_shape": shape,
                # Of the images as a set, in whatever order they came.
                "fingerprint": hashlib.sha256(
                    b"".join(sorted(digests))
                ).hexdigest(),
                "origin": real.origin,
            },
            "reference": training
            and {"num_images": search.num_searched, "origin": training.origin},
            "num_samples": num_samples,
            "seed": seed,
            "feature_extractor": scores.describe(feature_extractor),
            "metrics": settings,
            "versions": {
                "keras_gen": sys.modules["keras_gen"].__version__,
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
                "numpy": np.__version__,
            },
        },
    }
    pairs = min(_NUM_PAIRS, len(queries))
    samples = first_samples.rows()
    return Report(
        json.loads(json.dumps(report, default=lambda number: number.tolist())),
        pictures=_pictures(
            first_real.rows(),
            samples[: _num_shown(shape)],
            np.stack([samples[:pairs], search.images[:pairs]]),
        ),
    )


def check_samples(model, asker):
    """Raises a `ValueError` if the model cannot sample."""
    if not callable(getattr(model, "sample", None)):
        raise ValueError(
            f"`{asker}` needs a model with the method `sample`, got a "
            f"{type(model).__name__}, which has none. Pass a model that "
            "generates images."
        )
    if getattr(model, "image_shape", ()) is None:
        raise ValueError(
            f"`{asker}` needs a model of images, got a "
            f"{type(model).__name__}, whose samples are none."
        )


class _Row:
    """What is measured of one set of images against the real ones."""

    def __init__(self, metrics, classifier, bar):
        self.metrics = metrics
        self.classifier = classifier
        self.bar = bar
        self.num_real = self.num_generated = 0
        self.class_counts = 0
        for metric in metrics:
            metric.reset_state()

    def add_real(self, x):
        scores.update(self.metrics, real=x)
        self.num_real += len(x)
        self.bar.add(len(x))

    def add_generated(self, x):
        scores.update(self.metrics, generated=x)
        if self.classifier is not None:
            probabilities = self.classifier.predict_on_batch(x)
            self.class_counts += np.bincount(
                probabilities.argmax(-1), minlength=probabilities.shape[-1]
            )
        self.num_generated += len(x)
        self.bar.add(len(x))

    def numbers(self):
        numbers = {
            "num_real": self.num_real,
            "num_generated": self.num_generated,
            **scores.results(self.metrics, details=True),
        }
        if self.classifier is not None:
            shares = self.class_counts / self.num_generated
            seen = shares[shares > 0]
            numbers["class_kl_to_uniform"] = np.sum(
                seen * np.log(seen * len(shares))
            )
            numbers["class_counts"] = self.class_counts
        return numbers


class _Likelihood:
    """The mean of a model's `log_prob`, if it has one."""

    def __init__(self, model, seed):
        self.model = model
        self.log_prob = getattr(model, "log_prob", None)
        self.seeds = np.random.default_rng([seed, 1])
        self.seed = None
        self.values = []
        self.has_grey_values = False

    def add(self, x, y):
        if self.log_prob is None:
            return
        arguments = {}
        if batches.takes(self.log_prob, "seed"):
            arguments["seed"] = self._next_seed()
        self.is_conditional = y is not None and batches.takes(
            self.log_prob, "condition"
        )
        if self.is_conditional:
            arguments["condition"] = y
        grey = np.modf(x)[0] if _is_binary(self.model) else 0.0
        self.has_grey_values |= bool(np.any(grey))
        values = self.log_prob(x, **arguments)
        self.values.append(np.asarray(values, "float64"))

    def _next_seed(self):
        # A log Z is one for all images, and takes minutes for each seed; also
        # that of the model of a `BayesConditional`.
        parts = self.model, getattr(self.model, "model", None)
        anneals = any(hasattr(part, "log_partition") for part in parts)
        if self.seed is None or not anneals:
            self.seed = int(self.seeds.integers(2**31))
        return self.seed

    def numbers(self):
        if self.log_prob is None:
            return {}
        values = np.concatenate(self.values)
        count = len(values)
        error = values.std(ddof=min(1, count - 1)) / math.sqrt(count)
        numbers = {
            "log_prob": values.mean(),
            "log_prob_standard_error": error,
            "log_prob_kind": getattr(self.model, "log_prob_kind", None),
            "log_prob_is_conditional": self.is_conditional,
            "log_prob_is_cross_entropy": self.has_grey_values,
            "log_prob_images": count,
        }
        # A density of continuous data has no bits, nor has a cross-entropy.
        dequantization = getattr(self.model, "dequantization", "uniform")
        if dequantization is not None and not self.has_grey_values:
            shape = self.model.image_shape
            bits = distributions.bits_per_dim(values.mean(), shape)
            error = -distributions.bits_per_dim(error, shape)
            numbers.update(bits_per_dim=bits, bits_per_dim_standard_error=error)
        return numbers


def _is_binary(model):
    """Whether the likelihood of a model is one of binary images."""
    model = getattr(model, "model", model)  # that of a `BayesConditional`
    name = getattr(getattr(model, "pixels", None), "name", None)
    return getattr(model, "is_binary", name == "bernoulli")


class _Search:
    """The nearest of images that come in batches, for each query."""

    def __init__(self, queries, image_shape):
        self.queries = queries
        self.distances = np.full(len(queries), np.inf)
        # Of the first queries alone, the images themselves.
        self.images = np.zeros((_NUM_PAIRS, *image_shape), "float32")
        self.num_searched = 0

    def add(self, x, features):
        distances, indices = nearest(self.queries, features)
        closer = distances[:, 0] < self.distances
        self.distances[closer] = distances[closer, 0]
        for i in np.flatnonzero(closer[:_NUM_PAIRS]):
            self.images[i] = x[indices[i, 0]]
        self.num_searched += len(x)


def _default_metrics(feature_extractor, image_shape):
    kinds = [FrechetDistance, KernelDistance, PrecisionRecall, DensityCoverage]
    if hasattr(feature_extractor, "classifier"):
        kinds.append(InceptionScore)
    metrics = [kind(feature_extractor) for kind in kinds]
    if min(image_shape[:2]) >= 16:
        metrics.append(SlicedWassersteinDistance())
    return metrics


def _pictures(real, samples, pairs):
    """Grids of uint8 for the report's page.

    Args:
        real: Real images.
        samples: Samples of the model.
        pairs: `(2, pairs, *image_shape)`, samples and what is nearest to them.
    """
    if math.prod(real.shape[1:]) == 2:  # points in the plane
        both = np.stack([_density(real), _density(samples)])
        return {"points": images.grid(both, num_columns=2)}
    return {
        "real": images.grid(real),
        "samples": images.grid(samples),
        "neighbours": images.grid(
            np.concatenate(pairs), num_columns=pairs.shape[1]
        ),
    }


def _density(points):
    """Where points of [0, 1]^2 lie, as an image; the second axis upwards."""
    counts, _, _ = np.histogram2d(
        *points.reshape(-1, 2).T, bins=128, range=[(0, 1), (0, 1)]
    )
    return np.sqrt(counts / counts.max()).T[::-1, :, np.newaxis]


def _num_parameters(model):
    """Trained numbers, without averages, chains or sums beside them."""
    counts = [math.prod(weight.shape) for weight in model.trainable_weights]
    return sum(counts) or model.count_params()  # a PCA trains no weight


def _num_shown(image_shape):
    num_pixels = math.prod(image_shape[:2])
    if num_pixels * image_shape[2] == 2:
        return 2500
    return max(4, min(64, _MAX_PICTURE // num_pixels))
