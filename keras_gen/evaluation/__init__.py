"""The report card of a model, and tables of several."""

from keras_gen.evaluation.measure import evaluate
from keras_gen.evaluation.report import Report, compare

__all__ = ["Report", "compare", "evaluate"]
