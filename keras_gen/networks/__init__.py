"""The default networks, for users to take and replace."""

from keras_gen.networks.conditional import (
    conditional_discriminator,
    feature_network,
)
from keras_gen.networks.conv import conv_decoder, conv_encoder
from keras_gen.networks.coupling import (
    coupling_convnet,
    coupling_mlp,
    coupling_resnet,
)
from keras_gen.networks.dcgan import dcgan_discriminator, dcgan_generator
from keras_gen.networks.defaults import default_discriminator, default_generator
from keras_gen.networks.infogan import infogan_discriminator, infogan_generator
from keras_gen.networks.laplacian import (
    laplacian_discriminator,
    laplacian_generator,
)
from keras_gen.networks.mlp import (
    mlp_decoder,
    mlp_discriminator,
    mlp_encoder,
    mlp_generator,
)
from keras_gen.networks.pixel_cnn import GatedPixelCNN, plain_pixel_cnn
from keras_gen.networks.pixel_rnn import PixelLSTM
from keras_gen.networks.progressive import (
    progressive_discriminator,
    progressive_generator,
)
from keras_gen.networks.resnet import resnet_discriminator, resnet_generator
from keras_gen.networks.semi_supervised import (
    semi_supervised_discriminator,
    semi_supervised_generator,
)

__all__ = [
    "GatedPixelCNN",
    "PixelLSTM",
    "conditional_discriminator",
    "conv_decoder",
    "conv_encoder",
    "coupling_convnet",
    "coupling_mlp",
    "coupling_resnet",
    "dcgan_discriminator",
    "dcgan_generator",
    "default_discriminator",
    "default_generator",
    "feature_network",
    "infogan_discriminator",
    "infogan_generator",
    "laplacian_discriminator",
    "laplacian_generator",
    "mlp_decoder",
    "mlp_discriminator",
    "mlp_encoder",
    "mlp_generator",
    "plain_pixel_cnn",
    "progressive_discriminator",
    "progressive_generator",
    "resnet_discriminator",
    "resnet_generator",
    "semi_supervised_discriminator",
    "semi_supervised_generator",
]
