"""Layers that Keras lacks."""

from keras_gen.layers.gated import GatedDense

__all__ = ["GatedDense"]
