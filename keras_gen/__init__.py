"""Deep generative models for TensorFlow and Keras."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_gen runs on Keras's TensorFlow backend, but KERAS_BACKEND is "
        f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before "
        "Python imports Keras."
    )

from keras_gen import (
    callbacks,
    datasets,
    distributions,
    images,
    latents,
    layers,
    losses,
    networks,
)
from keras_gen.generative_model import GenerativeModel
from keras_gen.models import GAN, VAE

__version__ = "0.1.0"

__all__ = [
    "GAN",
    "VAE",
    "GenerativeModel",
    "callbacks",
    "datasets",
    "distributions",
    "images",
    "latents",
    "layers",
    "losses",
    "networks",
]
