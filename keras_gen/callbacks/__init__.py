"""Callbacks: pictures while a model trains, and checkpoints to resume from."""

from keras_gen.callbacks.checkpoint import Checkpoint
from keras_gen.callbacks.pictures import ReconstructionGrid, SampleGrid

__all__ = ["Checkpoint", "ReconstructionGrid", "SampleGrid"]
