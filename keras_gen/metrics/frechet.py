"""The Frechet distance between Gaussians fitted to two sets of features."""

import numpy as np
from keras import saving

from keras_gen.metrics.features import FeatureMetric

# Two covariances of more dimensions than this take more than 4 GiB.
_MAX_DIM = 16384
# Images of either side from which the standard error is estimated.
_KEPT_ROWS = 2048


@saving.register_keras_serializable(package="keras_gen")
class FrechetDistance(FeatureMetric):
    """Frechet (Wasserstein-2) distance of Gaussians, squared.

    With mean `m` and covariance `c` of the features of the real (`r`) and of
    the generated (`g`) images,

        norm(m_r - m_g)**2 + trace(c_r + c_g - 2 * sqrt(c_r @ c_g)).

    It is 0 for equal moments, has the unit of the features squared, and is
    biased upwards by an amount that falls like 1 / number of images: compare
    values of equal numbers of images only. With Inception features it is
    known as FID, with those of `classifier_features` it is another scale and
    must not be called so; `score_name` says which one it is.

    Memory is bounded by `(dim + 2048) * dim` float64 numbers a side (64 MiB
    for 2,048 dimensions).

    Args:
        feature_extractor: `keras.Model` from float32 images in [0, 1] to
            `(batch, dim)`, or `None` for the pixels.
        name: String, name of the metric.

    Example:

    >>> metric = FrechetDistance(classifier_features(labelled))
    >>> for real in test:
    ...     metric.update_state(real, model.sample(len(real)))
    >>> metric.result()  # 3.1
    >>> metric.details()["relative_to_real_variance"]  # 0.021

    Reference:
        - [GANs Trained by a Two Time-Scale Update Rule Converge to a Local
          Nash Equilibrium](https://arxiv.org/abs/1706.08500)
    """

    _direction = "down"  # where Keras looks for what is better

    def __init__(self, feature_extractor=None, name="frechet_distance"):
        super().__init__(feature_extractor, Moments, name)

    def result(self):
        """The distance, a float of at least 0.

        Raises:
            ValueError: If there are fewer than 2 images of either side.
        """
        self.require(2)
        return frechet_distance(
            self.real.mean,
            self.real.covariance,
            self.generated.mean,
            self.generated.covariance,
        )

    def details(self):
        """As of every metric, with the score on two scales of its own.

        Returns:
            Dict, which has also `"standard_error"`, see `standard_error`;
            `"relative_to_real_variance"`, the distance divided by
            `trace(c_r)`: the scale of the features cancels; and
            `"mean_term"`, the part `norm(m_r - m_g)**2` of the distance.
        """
        details = super().details()
        variance = np.trace(self.real.covariance)
        difference = self.real.mean - self.generated.mean
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.float64(details[self.name]) / variance
        return {
            **details,
            "standard_error": self.standard_error(),
            "relative_to_real_variance": float(relative),
            "mean_term": float(difference @ difference),
        }

    def standard_error(self):
        """Standard error of the distance over the images of both sides.

        The distance is a smooth function of the moments, so that to first
        order an image `x` of the generated side, with `d = x - m_g`, adds

            2 * (m_g - m_r) @ d + d @ (i - t) @ d

        to it, less the mean of this, where `t` is the matrix of the optimal
        transport from that Gaussian to the other; images of the real side
        likewise. The variance of what images add is taken over the first
        2,048 of each side, which should come in random order. Where the
        distance is near 0 its error is of second order and this too small.

        Returns:
            Float of at least 0.

        Raises:
            ValueError: As `result`.
        """
        self.require(2)
        variance = sum(
            np.var(_influence(side, other)) / side.count
            for side, other in (
                (self.real, self.generated),
                (self.generated, self.real),
            )
        )
        return float(np.sqrt(variance))


class Moments:
    """Accumulator of mean and covariance, float64, batch by batch.

    Means and centred products of batches are merged (Chan, Golub & LeVeque,
    1979): nothing cancels, however far the features are from 0.
    """

    full = False

    def __init__(self):
        self.count = 0
        self.rows = []  # the first ones, as they came
        self.mean = None  # (dim,)
        self._products = None  # (dim, dim), sum of (x - mean) (x - mean)'

    def add(self, features):
        """Adds the rows of `(batch, dim)`."""
        batch, dim = features.shape
        if dim > _MAX_DIM:
            raise ValueError(
                "`FrechetDistance` needs features of at most "
                f"{_MAX_DIM} dimensions, since it keeps their covariances, "
                f"got {dim}. Pass a `feature_extractor`, or smaller images."
            )
        if not self.count:
            self.mean = np.zeros(dim)
            self._products = np.zeros((dim, dim))
        if self.count < _KEPT_ROWS:
            self.rows.append(features[: _KEPT_ROWS - self.count])
        total = self.count + batch
        batch_mean = features.mean(axis=0)
        shift = batch_mean - self.mean
        rows = np.concatenate(
            [
                features - batch_mean,
                shift[None] * np.sqrt(self.count * batch / total),
            ]
        )
        self._products += rows.T @ rows
        self.mean += shift * (batch / total)
        self.count = total

    @property
    def covariance(self):
        """The unbiased estimate, divided by `count - 1`: `(dim, dim)`."""
        return self._products / (self.count - 1)


def frechet_distance(
    real_mean, real_covariance, generated_mean, generated_covariance
):
    """Frechet distance of two Gaussians, squared, from their moments.

    `norm(m_r - m_g)**2 + trace(c_r + c_g - 2 * sqrt(c_r @ c_g))`, float64.

    Args:
        real_mean: `(dim,)`.
        real_covariance: `(dim, dim)`, symmetric; it may be singular.
        generated_mean: `(dim,)`.
        generated_covariance: `(dim, dim)`.

    Returns:
        Float of at least 0.

    Raises:
        ValueError: If the shapes do not fit.

    Example:

    >>> frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])  # 3**2 + (2 - 1)**2
    10.0
    """
    means = [np.asarray(m, "float64") for m in (real_mean, generated_mean)]
    covariances = [
        np.asarray(c, "float64")
        for c in (real_covariance, generated_covariance)
    ]
    shapes = [array.shape for array in means + covariances]
    dim = shapes[0][:1]
    if shapes != [dim, dim, dim * 2, dim * 2] or not dim:
        raise ValueError(
            "`real_mean` and `generated_mean` must have the shape (dim,), and "
            "the covariances (dim, dim), got the shapes "
            f"{', '.join(map(str, shapes))}. Take all from the same features."
        )
    difference = means[0] - means[1]
    variances = np.trace(covariances[0]) + np.trace(covariances[1])
    distance = (
        difference @ difference + variances - 2 * _trace_sqrt(covariances)
    )
    return max(0.0, float(distance))  # not below 0 by rounding


def _trace_sqrt(covariances):
    """`trace(sqrt(a @ b))` for symmetric, positive semidefinite `a`, `b`."""
    a, b = covariances
    # With a = l l', the eigenvalues of a b are those of the symmetric l' b l.
    try:
        root = np.linalg.cholesky(a)
        eigenvalues = np.linalg.eigvalsh(root.T @ b @ root)
        if eigenvalues[0] > _rounding(eigenvalues):
            return np.sqrt(eigenvalues).sum()
    except np.linalg.LinAlgError:
        pass
    # Singular, as with fewer images than dimensions. Eigenvalues that are 0
    # up to rounding have large square roots; singular values do not: with
    # a = r r' and b = s s', the roots sought are those of r' s.
    r, s = _symmetric_root(a), _symmetric_root(b)
    return np.linalg.svd(r.T @ s, compute_uv=False).sum()


def _influence(side, other):
    """What each kept row of `side` adds to the distance, to first order."""
    difference = side.mean - other.mean
    d = np.concatenate(side.rows) - side.mean
    # With c = r r' and the pseudo-inverse p r = i, the transport is
    # t = p' sqrt(r' c_other r) p.
    values, vectors = _positive_eigen(side.covariance)
    root = vectors * np.sqrt(values)
    whitened = d @ (vectors / np.sqrt(values))
    values, vectors = _positive_eigen(root.T @ other.covariance @ root)
    transported = (whitened @ vectors) ** 2 @ np.sqrt(values)
    return 2 * d @ difference + np.sum(d * d, axis=1) - transported


def _symmetric_root(covariance):
    """`r` with `r @ r.T = covariance`, a column for each dimension it has."""
    eigenvalues, vectors = _positive_eigen(covariance)
    return vectors * np.sqrt(eigenvalues)


def _positive_eigen(matrix):
    """Eigenvalues that are not 0 up to rounding, and their vectors."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    kept = eigenvalues > _rounding(eigenvalues)
    return eigenvalues[kept], vectors[:, kept]


def _rounding(eigenvalues):
    """What an eigenvalue of 0 may come out as."""
    largest = np.abs(eigenvalues).max(initial=0)
    return len(eigenvalues) * np.finfo("float64").eps * largest
