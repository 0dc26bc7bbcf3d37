"""Metrics as a group: checked, fed together, and read as one dictionary."""

import collections
import hashlib
import math

import keras
import numpy as np

from keras_gen.metrics.features import FeatureMetric


def check_metrics(metrics):
    """A list of metrics, each of another name.

    Args:
        metrics: A metric, or several.

    Returns:
        List of `keras.metrics.Metric`.

    Raises:
        ValueError: If one is no metric, or two have the same name.
    """
    metrics = list(metrics) if np.iterable(metrics) else [metrics]
    for metric in metrics:
        if not isinstance(metric, keras.metrics.Metric):
            raise ValueError(
                "`metrics` must be a list of metrics such as "
                "`keras_gen.metrics.FrechetDistance()`, got a "
                f"{type(metric).__name__}."
            )
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"`metrics` must have different names, got {name!r} "
                f"{names.count(name)} times. Pass `name=` to one of them."
            )
    return metrics


def update(metrics, real=None, generated=None):
    """`update_state` of all metrics; features of one extractor once for all.

    Args:
        metrics: List of metrics.
        real: Images, or `None`.
        generated: Images, or `None`.
    """
    shared = {}
    for metric in metrics:
        kind = type(metric)
        if (
            not isinstance(metric, FeatureMetric)
            or kind.update_state is not FeatureMetric.update_state
            or kind.features is not FeatureMetric.features
        ):
            metric.update_state(real, generated)
            continue
        for images, name in ((real, "real"), (generated, "generated")):
            side = getattr(metric, name)
            if images is None or side.full:
                continue
            key = (id(metric.feature_extractor), name)
            if key not in shared:
                shared[key] = metric.features(images, name)
            side.add(shared[key])


def results(metrics, details=False):
    """The results of metrics as one flat dictionary of floats.

    A number stands under the metric's name. Of a dictionary, keys that are
    part of that name, or begin with it, stand as they are (`"precision"` of
    `"precision_recall"`), others behind it (`"mode_coverage_modes"`), and so
    do those that another metric has as well.

    Args:
        metrics: List of metrics.
        details: Whether metrics that have more to say are asked for it.

    Returns:
        Dict, name to float.
    """
    found = []  # name, name behind that of the metric, value
    for metric in metrics:
        if details and isinstance(metric, FeatureMetric):
            result = metric.details()
            for name in ("num_real", "num_generated", "feature_extractor"):
                del result[name]  # the same for all, and known
        else:
            result = metric.result()
        if not isinstance(result, dict):
            result = {metric.name: result}
        for key, value in result.items():
            score = str(key).removesuffix("_standard_error")
            is_named = f"_{score}_" in f"_{metric.name}_" or score.startswith(
                metric.name
            )
            long_name = name = f"{metric.name}_{key}"
            if is_named:
                name = str(key)
            if key == metric.name:  # which no other metric has
                long_name = name
            found.append((name, long_name, float(value)))
    times = collections.Counter(name for name, _, _ in found)
    return {
        name if times[name] == 1 else long_name: value
        for name, long_name, value in found
    }


def settings(metric):
    """What the values of a metric depend on: its kind and its arguments."""
    metric.reset_state()
    arguments = {
        name: value
        for name, value in vars(metric).items()
        if name[0] != "_" and isinstance(value, bool | int | float | str)
    }
    extractor = getattr(metric, "feature_extractor", None)
    return {
        "class": type(metric).__name__,
        **arguments,
        "feature_extractor": describe(extractor),
    }


def describe(extractor):
    """Name, fingerprint and what else is known of a feature extractor."""
    if extractor is None:
        return {"name": "pixels"}
    fingerprint = getattr(extractor, "fingerprint", None)
    if fingerprint is None:
        digest = hashlib.sha256()
        for weights in extractor.get_weights():
            digest.update(np.ascontiguousarray(weights).tobytes())
        fingerprint = digest.hexdigest()
    known = {
        name: getattr(extractor, name)
        for name in ("accuracy", "seed")
        if hasattr(extractor, name)
    }
    return {"name": extractor.name, "fingerprint": fingerprint, **known}


def pixels(image_shape):
    """What stands in for a feature extractor: the pixels.

    Args:
        image_shape: `(height, width, channels)`.

    Returns:
        `None`, which is the pixels as they are, or for images larger than
        32 x 32 a network that averages them over boxes.
    """
    height, width, _ = image_shape
    factor = math.ceil(max(height, width) / 32)
    if factor == 1:
        return None
    pool = (min(factor, height), min(factor, width))
    layers = [
        keras.Input(image_shape),
        keras.layers.AveragePooling2D(pool, dtype="float32"),
        keras.layers.Flatten(dtype="float32"),
    ]
    name = f"pixels_{height // pool[0]}x{width // pool[1]}"
    return keras.Sequential(layers, name=name)
