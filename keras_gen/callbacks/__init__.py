"""Callbacks: pictures, measurements and warnings while a model trains, and
checkpoints to resume from.
"""

from keras_gen.callbacks.animation import TrainingAnimation
from keras_gen.callbacks.checkpoint import Checkpoint
from keras_gen.callbacks.doctor import Doctor
from keras_gen.callbacks.evaluation import EvaluateSamples
from keras_gen.callbacks.latent_pictures import (
    InterpolationGrid,
    LatentManifold,
    LatentTraversal,
)
from keras_gen.callbacks.pictures import ReconstructionGrid, SampleGrid

__all__ = [
    "Checkpoint",
    "Doctor",
    "EvaluateSamples",
    "InterpolationGrid",
    "LatentManifold",
    "LatentTraversal",
    "ReconstructionGrid",
    "SampleGrid",
    "TrainingAnimation",
]
