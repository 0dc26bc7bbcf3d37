"""Measures of samples against real images, and of what a model learned."""

from keras_gen.metrics.extractors import (
    classifier_features,
    inception_features,
)
from keras_gen.metrics.frechet import FrechetDistance
from keras_gen.metrics.inception_score import InceptionScore
from keras_gen.metrics.kernel import KernelDistance
from keras_gen.metrics.manifold import DensityCoverage, PrecisionRecall
from keras_gen.metrics.modes import ModeCoverage
from keras_gen.metrics.ms_ssim import MultiScaleSSIM
from keras_gen.metrics.probe import linear_probe
from keras_gen.metrics.sliced_wasserstein import SlicedWassersteinDistance

__all__ = [
    "DensityCoverage",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "ModeCoverage",
    "MultiScaleSSIM",
    "PrecisionRecall",
    "SlicedWassersteinDistance",
    "classifier_features",
    "inception_features",
    "linear_probe",
]
