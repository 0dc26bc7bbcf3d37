"""Layers that Keras lacks."""

from keras_gen.layers.corruption import MaskingNoise, SaltAndPepper
from keras_gen.layers.gated import GatedDense
from keras_gen.layers.masked import MaskedDense
from keras_gen.layers.posteriors import (
    CategoricalPosterior,
    DiagonalPosterior,
    FlowPosterior,
    FullCovariancePosterior,
    MixturePosterior,
    TwoLayerPosterior,
)
from keras_gen.layers.priors import (
    FixedPrior,
    MixturePrior,
    StandardNormalPrior,
    TwoLayerPrior,
    UniformCategoricalPrior,
    VampPrior,
)
from keras_gen.layers.sparsity import KSparse

__all__ = [
    "CategoricalPosterior",
    "DiagonalPosterior",
    "FixedPrior",
    "FlowPosterior",
    "FullCovariancePosterior",
    "GatedDense",
    "KSparse",
    "MaskedDense",
    "MaskingNoise",
    "MixturePosterior",
    "MixturePrior",
    "SaltAndPepper",
    "StandardNormalPrior",
    "TwoLayerPosterior",
    "TwoLayerPrior",
    "UniformCategoricalPrior",
    "VampPrior",
]
