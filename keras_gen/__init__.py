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
    pixel_likelihoods,
)
from keras_gen.evaluation import Report, compare, evaluate
from keras_gen.generative_model import GenerativeModel
from keras_gen.models import (
    FVBN,
    GAN,
    MADE,
    NADE,
    PCA,
    VAE,
    Autoencoder,
    BernoulliMixture,
    GaussianMixture,
    SemiSupervisedVAE,
)

__version__ = "0.1.0"

__all__ = [
    "FVBN",
    "GAN",
    "MADE",
    "NADE",
    "PCA",
    "VAE",
    "Autoencoder",
    "BernoulliMixture",
    "GaussianMixture",
    "GenerativeModel",
    "Report",
    "SemiSupervisedVAE",
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
    "pixel_likelihoods",
]
