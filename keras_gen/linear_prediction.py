"""Linear prediction: what a model of waveforms has to be better than."""

import numpy as np

from keras_gen import audio, inputs, waveforms

_DECAYS = (0.8, 0.9, 0.95, 0.98)
_WIDTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
_FLAT = 1e-3  # weight of the uniform distribution, against surprises


class LinearPredictor:
    """Predicts each sample by a linear function of those before it.

    Its `log_prob` is of mu-law levels, as that of `WaveNet`: the two compare.
    For the amplitudes `a_t` of the levels, the prediction `m_t = sum_k c_k *
    a_{t - k}` and the mean `s_t` of earlier errors `abs(a - m)`, which
    forgets by `decay` at each sample, the level at t has the probability that
    a logistic distribution of location `m_t` and scale `width * s_t` gives to
    the amplitudes that round to it. Before the first sample amplitudes are
    zero, and errors the mean of those in `fit`.

    `fit` finds the coefficients by least squares, once plain and once with
    each error divided by `s_t`, so that quiet passages count; and `decay` and
    `width` by trying which make its waveforms most probable.

    Args:
        num_taps: Integer, how many samples the prediction sees.
        levels: Integer, how many levels there are.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> predictor = LinearPredictor(16).fit(train_waveforms)
    >>> predictor.log_prob(test_waveforms)  # (batch,), nats

    Reference:
        - [Linear Prediction: A Tutorial Review](
          https://doi.org/10.1109/PROC.1975.9792)
    """

    def __init__(self, num_taps=16, levels=256):
        self.num_taps = inputs.check_positive_integer(num_taps, "num_taps")
        self.levels = audio.check_levels(levels)
        edges = audio.mu_law_decode(
            np.arange(self.levels + 1) - 0.5, self.levels
        ).numpy()
        # The outermost levels take all that lies beyond them.
        self._edges = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
        self._floor = np.diff(edges).min() / 10

    def fit(self, x):
        """Fits the predictor to waveforms.

        Args:
            x: Waveforms `(batch, num_samples)`, floats in [-1, 1].

        Returns:
            The predictor itself.

        Raises:
            ValueError: If `x` is not as above.
        """
        _, amplitude = self._rounded(x)
        past, weight = self._past(amplitude), np.ones_like(amplitude)
        # Where the whole past is seen.
        seen = np.s_[:, min(self.num_taps, amplitude.shape[1] - 1) :]
        for _ in range(2):
            a = past[seen] * weight[seen][..., np.newaxis]
            b = amplitude[seen] * weight[seen]
            self.coefficients = np.linalg.lstsq(
                a.reshape(-1, self.num_taps), b.reshape(-1)
            )[0]
            error = np.abs(amplitude - past @ self.coefficients)
            self.start = error.mean()
            weight = 1 / self._scale(error, 0.95)
        trials = []
        for self.decay in _DECAYS:
            for self.width in _WIDTHS:
                mean = np.mean(self.log_prob(x))
                trials.append((mean, self.decay, self.width))
        _, self.decay, self.width = max(trials)
        return self

    def log_prob(self, x):
        """Log-probability of the levels that waveforms round to.

        Args:
            x: Waveforms `(batch, num_samples)`, floats in [-1, 1].

        Returns:
            Array `(batch,)`, nats.

        Raises:
            ValueError: If `x` is not as above, or `fit` has not been called.
        """
        if not hasattr(self, "coefficients"):
            raise ValueError(
                "`log_prob` must be that of a fitted predictor, got one without "
                "coefficients. Call `fit` first."
            )
        level, amplitude = self._rounded(x)
        prediction = self._past(amplitude) @ self.coefficients
        error = np.abs(amplitude - prediction)
        scale = self.width * self._scale(error, self.decay)
        below, above = (
            _sigmoid((self._edges[level + i] - prediction) / scale)
            for i in (0, 1)
        )
        share = (1 - _FLAT) * (above - below) + _FLAT / self.levels
        return np.log(share).sum(axis=1)

    def _rounded(self, x):
        shape = np.shape(x)
        x = waveforms.check_waveforms(x, shape[1] if len(shape) == 2 else None)
        level = audio.mu_law_encode(x, self.levels)
        amplitude = audio.mu_law_decode(level, self.levels)
        return level.numpy(), amplitude.numpy().astype("float64")

    def _past(self, amplitude):
        """The samples before each one, `(batch, num_samples, num_taps)`."""
        taps, num_samples = self.num_taps, amplitude.shape[1]
        padded = np.pad(amplitude, ((0, 0), (taps, 0)))
        return np.stack(
            [
                padded[:, taps - k :][:, :num_samples]
                for k in range(1, taps + 1)
            ],
            axis=-1,
        )

    def _scale(self, error, decay):
        scale, now = np.empty_like(error), np.full(len(error), self.start)
        for t in range(error.shape[1]):
            scale[:, t] = now
            now = decay * now + (1 - decay) * error[:, t]
        return scale + self._floor


def _sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)
