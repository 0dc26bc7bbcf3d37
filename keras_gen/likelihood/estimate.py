"""What an estimator of a likelihood gives back: numbers and how sure they are."""

import dataclasses

import numpy as np

from keras_gen import distributions, inputs

KINDS = ("exact", "lower_bound", "estimate", "upper_bound")

# Sums of float32 over the pixels of an image are right to about this, nats.
ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """Log-probabilities, or a log partition function, with error bars.

    A mean of n importance weights, in logarithms, has the effective sample
    size `sum(w)**2 / sum(w**2)` and, to first order, the standard error
    `std(w) / (sqrt(n) * mean(w))`. Neither knows of regions that no sample
    reached: a small effective sample size says that the error bars, too, are
    too small.

    Args:
        value: Array, nats: `(batch,)`, or `()` for a partition function.
        kind: `"exact"`, `"estimate"`, or, of an estimate that is never too
            large or never too small *in expectation*, `"lower_bound"` or
            `"upper_bound"`.
        standard_error: Array like `value`, nats; NaN for a single weight.
        effective_sample_size: Array like `value`, or `None` where nothing was
            sampled.
        discrete: Boolean, whether these are log-probabilities of discrete
            data (binary or 8-bit images), which are never positive.
        settings: Dictionary of numbers and strings: how it was computed.

    Raises:
        ValueError: If `kind` is unknown, or `discrete` values are positive by
            more than rounding: such an estimate is wrong.

    Example:

    >>> estimate = importance_weighted(x, **parts)
    >>> estimate.value.mean(), estimate.kind  # (-98.1, "lower_bound")
    >>> low, high = estimate.interval()  # 3 standard errors to each side
    >>> estimate.bits_per_dim((28, 28, 1))  # (batch,)
    """

    value: np.ndarray
    kind: str
    standard_error: np.ndarray = 0.0
    effective_sample_size: np.ndarray | None = None
    discrete: bool = True
    settings: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"`kind` must be one of {KINDS}, got {self.kind!r}."
            )
        value = np.asarray(self.value, "float64")
        if self.discrete:
            positive = value > ROUNDING
            if positive.any():
                raise ValueError(
                    "Log-probabilities of discrete data must not be positive, "
                    f"got {positive.sum()} of {value.size} above 0, up to "
                    f"{value.max():.4g} nats: the estimate is off by more "
                    "than that. Anneal over more temperatures and chains, or "
                    "draw more samples. If p(x given z) is a density, pass "
                    "`dequantize`."
                )
            value = np.minimum(value, 0.0)
        for name, array in (
            ("value", value),
            ("standard_error", self.standard_error),
            ("effective_sample_size", self.effective_sample_size),
        ):
            if array is not None:
                array = np.broadcast_to(
                    np.asarray(array, "float64"), value.shape
                )
            object.__setattr__(self, name, array)

    def interval(self, num_sigmas=3.0):
        """`(low, high)`: the value and `num_sigmas` standard errors around it.

        Args:
            num_sigmas: Positive number.

        Returns:
            Two arrays in the shape of `value`, nats.
        """
        num_sigmas = inputs.check_number(num_sigmas, "num_sigmas", minimum=0)
        margin = num_sigmas * self.standard_error
        return self.value - margin, self.value + margin

    def bits_per_dim(self, image_shape):
        """Bits per dimension, see `distributions.bits_per_dim`.

        Args:
            image_shape: `(height, width, channels)`.

        Returns:
            Array in the shape of `value`. A lower bound of the likelihood is
            an upper bound of the bits.

        Raises:
            ValueError: If the values are densities: these are no bits.
        """
        if not self.discrete:
            raise ValueError(
                "`bits_per_dim` needs probabilities of 8-bit images, got the "
                "density of continuous data. Estimate with `dequantize=True`."
            )
        return distributions.bits_per_dim(self.value, image_shape)


def log_mean(log_sum, log_sum_of_squares, count):
    """The log mean of weights, and how sure it is.

    Args:
        log_sum: Array, `log(sum(w))`.
        log_sum_of_squares: Array, `log(sum(w**2))`.
        count: Integer, the number of weights.

    Returns:
        `(log_mean, standard_error, effective_sample_size)`, arrays.
    """
    size = np.exp(2 * log_sum - log_sum_of_squares)
    size = np.clip(size, 1, count)  # of rounding
    if count == 1:
        error = np.full_like(log_sum, np.nan)
    else:
        error = np.sqrt((count / size - 1) / (count - 1))
    return log_sum - np.log(count), error, size
