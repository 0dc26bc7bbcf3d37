"""Modes found and share of good samples, where the modes are known."""

import keras
import numpy as np
from keras import ops, saving

from keras_gen import inputs


@saving.register_keras_serializable(package="keras_gen")
class ModeCoverage(keras.metrics.Metric):
    """Counts the modes of a known mixture that samples find.

    A sample is good if it lies within `3 * std` of the nearest centre,
    `norm(sample - centre) <= 3 * std`, and then counts for that mode. A mode
    is found if it has at least 20 of each 2,500 samples. The result is
    `{"modes", "high_quality"}`: the number of modes found, and the share of
    good samples.

    For samples of the mixture itself in the plane, `high_quality` is
    `1 - exp(-9 / 2) = 0.989` in expectation, and all modes are found.

    Args:
        centers: `(modes, dim)`, in the units of the samples, e.g.
            `datasets.toys.centers("ring")`.
        std: Number, standard deviation of a mode in each coordinate, e.g.
            `datasets.toys.std("ring")`.
        name: String.

    Raises:
        ValueError: If an argument is not as above; from `update_state`, if
            samples have another dimension; from `result`, if there was no
            sample.

    Example:

    >>> metric = ModeCoverage(toys.centers("grid"), toys.std("grid"))
    >>> metric.update_state(None, model.sample(2500, seed=0))
    >>> metric.result()  # {"modes": 25.0, "high_quality": 0.99}

    Reference:
        - [VEEGAN](https://arxiv.org/abs/1705.07761)
        - [PacGAN](https://arxiv.org/abs/1712.04086)
    """

    _direction = "up"  # where Keras looks for what is better

    def __init__(self, centers, std, name="mode_coverage", **kwargs):
        super().__init__(name=name, **kwargs)
        self.centers = np.asarray(centers, "float64")
        if self.centers.ndim != 2 or 0 in self.centers.shape:
            raise ValueError(
                "`centers` must be an array of shape (modes, dim), got shape "
                f"{self.centers.shape}. Pass one row a mode, such as "
                "`datasets.toys.centers('ring')`."
            )
        self.std = inputs.check_number(std, "std", minimum=0, exclusive=True)
        self.num_good = self.add_variable(
            (len(self.centers),), "zeros", dtype="int64", name="num_good"
        )
        self.num_samples = self.add_variable(
            (), "zeros", dtype="int64", name="num_samples"
        )

    def update_state(self, real, generated):
        """Counts samples.

        Args:
            real: Not used, as the modes are known; may be `None`.
            generated: Samples `(batch, ...)` of `dim` values each, or `None`.
                Integers are taken as 0 to 255.
        """
        if generated is None:
            return
        samples = np.asarray(generated)
        scale = 255.0 if samples.dtype.kind in "iu" else 1.0
        dim = self.centers.shape[1]
        if samples.ndim < 2 or samples[:1].size not in (0, dim):
            raise ValueError(
                f"`generated` must hold samples of {dim} values, as `centers` "
                f"has, got shape {samples.shape}. Pass `(batch, {dim})` or "
                f"images `(batch, 1, 1, {dim})`."
            )
        samples = samples.reshape(-1, dim).astype("float64") / scale
        distances = np.linalg.norm(samples[:, None] - self.centers, axis=-1)
        nearest = distances.argmin(axis=-1)
        good = nearest[distances.min(axis=-1) <= 3 * self.std]
        counts = np.bincount(good, minlength=len(self.centers))
        self.num_good.assign_add(ops.convert_to_tensor(counts, "int64"))
        self.num_samples.assign_add(len(samples))

    def result(self):
        """`{"modes", "high_quality"}`, two floats."""
        num_good = np.asarray(self.num_good)
        num_samples = int(self.num_samples)
        if not num_samples:
            raise ValueError(
                f"`{self.name}` needs at least 1 sample, got 0. Call "
                "`update_state(None, samples)` before `result()`."
            )
        return {
            # Integers, for a threshold that no rounding moves.
            "modes": float(np.sum(num_good * 2500 >= 20 * num_samples)),
            "high_quality": float(num_good.sum() / num_samples),
        }

    def get_config(self):
        return {
            "centers": self.centers.tolist(),
            "std": self.std,
            "name": self.name,
            "dtype": self.dtype,
        }
