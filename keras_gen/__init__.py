"""Deep generative models for TensorFlow and Keras."""

import os

_backend = os.environ.get("KERAS_BACKEND", "tensorflow")
if _backend == "tensorflow":
    import keras  # which may also take its backend from a configuration file

    _backend = keras.backend.backend()
if _backend != "tensorflow":
    raise ImportError(
        f"keras_gen runs on Keras's TensorFlow backend, got {_backend!r}. Set "
        "KERAS_BACKEND=tensorflow before Python imports Keras."
    )

from keras_gen import (
    audio,
    callbacks,
    datasets,
    distributions,
    images,
    latents,
    layers,
    likelihood,
    losses,
    metrics,
    networks,
    pixel_draws,
    pixel_likelihoods,
)
from keras_gen.evaluation import Report, compare, evaluate
from keras_gen.generative_model import GenerativeModel
from keras_gen.growth import GrowthSchedule
from keras_gen.models import (
    DBM,
    FVBN,
    GAN,
    GSN,
    MADE,
    NADE,
    NICE,
    PCA,
    RBM,
    VAE,
    Autoencoder,
    BayesConditional,
    BernoulliMixture,
    GaussianMixture,
    Glow,
    LaplacianGAN,
    PixelCNN,
    PixelRNN,
    ProgressiveGAN,
    RealNVP,
    SemiSupervisedGAN,
    SemiSupervisedVAE,
    WaveNet,
)

__version__ = "0.1.0"

__all__ = [
    "DBM",
    "FVBN",
    "GAN",
    "GSN",
    "MADE",
    "NADE",
    "NICE",
    "PCA",
    "RBM",
    "VAE",
    "Autoencoder",
    "BayesConditional",
    "BernoulliMixture",
    "GaussianMixture",
    "GenerativeModel",
    "Glow",
    "GrowthSchedule",
    "LaplacianGAN",
    "PixelCNN",
    "PixelRNN",
    "ProgressiveGAN",
    "RealNVP",
    "Report",
    "SemiSupervisedGAN",
    "SemiSupervisedVAE",
    "WaveNet",
    "audio",
    "callbacks",
    "compare",
    "datasets",
    "distributions",
    "evaluate",
    "images",
    "latents",
    "layers",
    "likelihood",
    "losses",
    "metrics",
    "networks",
    "pixel_draws",
    "pixel_likelihoods",
]
