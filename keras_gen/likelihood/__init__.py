"""Estimators of log p(x) for models that cannot compute it."""

from keras_gen.likelihood.annealing import (
    piecewise_schedule,
    sigmoid_schedule,
)
from keras_gen.likelihood.boltzmann import (
    AnnealingPath,
    annealed_log_partition,
    bernoulli_rbm_path,
    normalized_log_prob,
)
from keras_gen.likelihood.decoders import (
    BidirectionalEstimate,
    annealed_importance,
    bidirectional_annealing,
    gaussian_observation,
)
from keras_gen.likelihood.estimate import Estimate
from keras_gen.likelihood.importance import importance_weighted

__all__ = [
    "AnnealingPath",
    "BidirectionalEstimate",
    "Estimate",
    "annealed_importance",
    "annealed_log_partition",
    "bernoulli_rbm_path",
    "bidirectional_annealing",
    "gaussian_observation",
    "importance_weighted",
    "normalized_log_prob",
    "piecewise_schedule",
    "sigmoid_schedule",
]
