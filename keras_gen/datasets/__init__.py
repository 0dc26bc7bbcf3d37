"""Real images and sound by name, from TFDS, folders or installed packages."""

from keras_gen.datasets import toys
from keras_gen.datasets.audio import load_audio
from keras_gen.datasets.loading import image_shape, load

__all__ = ["image_shape", "load", "load_audio", "toys"]
