"""The models, one file each."""

from keras_gen.models.gan import GAN
from keras_gen.models.vae import VAE

__all__ = ["GAN", "VAE"]
