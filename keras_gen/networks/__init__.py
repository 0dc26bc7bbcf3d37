"""The default networks, for users to take and replace."""

from keras_gen.networks.conv import conv_decoder, conv_encoder
from keras_gen.networks.dcgan import dcgan_discriminator, dcgan_generator
from keras_gen.networks.mlp import (
    mlp_decoder,
    mlp_discriminator,
    mlp_encoder,
    mlp_generator,
)

__all__ = [
    "conv_decoder",
    "conv_encoder",
    "dcgan_discriminator",
    "dcgan_generator",
    "mlp_decoder",
    "mlp_discriminator",
    "mlp_encoder",
    "mlp_generator",
]
