"""The models, one file each."""

from keras_gen.models.autoencoder import Autoencoder
from keras_gen.models.gan import GAN
from keras_gen.models.pca import PCA
from keras_gen.models.semi_supervised import SemiSupervisedVAE
from keras_gen.models.vae import VAE

__all__ = ["GAN", "PCA", "VAE", "Autoencoder", "SemiSupervisedVAE"]
