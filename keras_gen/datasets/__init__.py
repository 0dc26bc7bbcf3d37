"""Real images by name, from TFDS, from folders or installed packages."""

from keras_gen.datasets.loading import image_shape, load

__all__ = ["image_shape", "load"]
