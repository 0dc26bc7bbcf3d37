"""Layers that Keras lacks."""

from keras_gen.layers.causal import CausalConv1D
from keras_gen.layers.conditional import (
    ConditionalBatchNormalization,
    ProjectionLogit,
)
from keras_gen.layers.corruption import MaskingNoise, SaltAndPepper
from keras_gen.layers.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    Squeeze2D,
)
from keras_gen.layers.dequantization import (
    UniformDequantization,
    VariationalDequantization,
)
from keras_gen.layers.equalized import EqualizedConv2D, EqualizedDense
from keras_gen.layers.fade_in import FadeIn
from keras_gen.layers.gated import GatedDense
from keras_gen.layers.invertible import Chain, FactorOut, InvertibleLayer
from keras_gen.layers.invertible_normalization import (
    ActivationNormalization,
    InvertibleBatchNormalization,
    InvertibleConv1x1,
)
from keras_gen.layers.masked import MaskedDense
from keras_gen.layers.masked_conv import GatedMaskedConv2D, MaskedConv2D
from keras_gen.layers.minibatch import MinibatchDiscrimination
from keras_gen.layers.minibatch_std import MinibatchStdDev
from keras_gen.layers.pixel_lstm import DiagonalBiLSTM, RowLSTM
from keras_gen.layers.pixel_normalization import PixelNormalization
from keras_gen.layers.posteriors import (
    CategoricalPosterior,
    DiagonalPosterior,
    FlowPosterior,
    FullCovariancePosterior,
    MixturePosterior,
    Posterior,
    TwoLayerPosterior,
)
from keras_gen.layers.priors import (
    FixedPrior,
    MixturePrior,
    Prior,
    StandardNormalPrior,
    TwoLayerPrior,
    UniformCategoricalPrior,
    VampPrior,
)
from keras_gen.layers.sparsity import KSparse

__all__ = [
    "ActivationNormalization",
    "AdditiveCoupling",
    "AffineCoupling",
    "CategoricalPosterior",
    "CausalConv1D",
    "Chain",
    "ConditionalBatchNormalization",
    "DiagonalBiLSTM",
    "DiagonalPosterior",
    "EqualizedConv2D",
    "EqualizedDense",
    "FactorOut",
    "FadeIn",
    "FixedPrior",
    "FlowPosterior",
    "FullCovariancePosterior",
    "GatedDense",
    "GatedMaskedConv2D",
    "InvertibleBatchNormalization",
    "InvertibleConv1x1",
    "InvertibleLayer",
    "KSparse",
    "MaskedConv2D",
    "MaskedDense",
    "MaskingNoise",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "MixturePosterior",
    "MixturePrior",
    "PixelNormalization",
    "Posterior",
    "Prior",
    "ProjectionLogit",
    "RowLSTM",
    "SaltAndPepper",
    "Squeeze2D",
    "StandardNormalPrior",
    "TwoLayerPosterior",
    "TwoLayerPrior",
    "UniformCategoricalPrior",
    "UniformDequantization",
    "VampPrior",
    "VariationalDequantization",
]
