"""The models, one file each."""

from keras_gen.models.autoencoder import Autoencoder
from keras_gen.models.bernoulli_mixture import BernoulliMixture
from keras_gen.models.gan import GAN
from keras_gen.models.gaussian_mixture import GaussianMixture
from keras_gen.models.made import MADE
from keras_gen.models.nade import FVBN, NADE
from keras_gen.models.pca import PCA
from keras_gen.models.semi_supervised import SemiSupervisedVAE
from keras_gen.models.vae import VAE

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
    "SemiSupervisedVAE",
]
