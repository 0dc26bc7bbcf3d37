"""The models, one file each."""

from keras_gen.models.autoencoder import Autoencoder
from keras_gen.models.bayes_conditional import BayesConditional
from keras_gen.models.bernoulli_mixture import BernoulliMixture
from keras_gen.models.dbm import DBM
from keras_gen.models.gan import GAN
from keras_gen.models.gaussian_mixture import GaussianMixture
from keras_gen.models.glow import Glow
from keras_gen.models.gsn import GSN
from keras_gen.models.laplacian_gan import LaplacianGAN
from keras_gen.models.made import MADE
from keras_gen.models.nade import FVBN, NADE
from keras_gen.models.nice import NICE
from keras_gen.models.pca import PCA
from keras_gen.models.pixel_cnn import PixelCNN
from keras_gen.models.pixel_rnn import PixelRNN
from keras_gen.models.progressive_gan import ProgressiveGAN
from keras_gen.models.rbm import RBM
from keras_gen.models.real_nvp import RealNVP
from keras_gen.models.semi_supervised import SemiSupervisedVAE
from keras_gen.models.semi_supervised_gan import SemiSupervisedGAN
from keras_gen.models.vae import VAE
from keras_gen.models.wavenet import WaveNet

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
    "Glow",
    "LaplacianGAN",
    "PixelCNN",
    "PixelRNN",
    "ProgressiveGAN",
    "RealNVP",
    "SemiSupervisedGAN",
    "SemiSupervisedVAE",
    "WaveNet",
]
