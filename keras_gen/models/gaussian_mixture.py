"""Mixture of Gaussians: full, diagonal, or factor-analyser covariances."""

import math

import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.models.gaussian_components import (
    DiagonalGaussians,
    FactorAnalysers,
    FullGaussians,
)
from keras_gen.models.mixture import Mixture

_COVARIANCES = ("full", "diagonal", "factor")


@saving.register_keras_serializable(package="keras_gen")
class GaussianMixture(Mixture):
    """Mixture of Gaussians of the dequantized image, trained by EM.

    `p(x) = sum_k proportions[k] * Normal(x; means[k], covariances()[k])`, a
    density over images dequantized by uniform noise: level k of an 8-bit image
    stands for `(k + noise) / 256`. A covariance is free, diagonal, or that of a
    factor analyser: `W @ transpose(W) + diag(psi)`, W of `num_factors` columns.

    EM needs no draws of the noise, since its moments are known. With one
    distribution of the component k for all of a level it raises
    `log sum_k proportions[k] * exp(E[log Normal_k((x + noise) / 256)])
    - D * log(256)`, a lower bound of log p(x) that is tight where the noise
    does not tell the components apart. The noise keeps all variances at
    `1 / (12 * 256**2)` or more, so that no component shrinks to a point. Without
    `ridge` no iteration lowers the bound.

    How EM starts, what an epoch is and what becomes of empty components is
    told in `models.mixture.Mixture`. `train_step` needs no optimizer. Logs
    `loss`, minus the bound in nats an image, of the parameters with which the
    epoch began. A batch of a thousand images or more is the fastest.

    Statistics are summed up in float64. Full covariances take
    `12 * num_components * D**2` bytes for the `D` numbers of an image, an epoch
    `2 * num_components * D**2` operations an image, and an iteration time in
    proportion to `num_components * D**3`.

    Args:
        image_shape: `(height, width, channels)`.
        num_components: Integer, how many are mixed.
        covariance: `"full"`, `"diagonal"` or `"factor"`.
        num_factors: Integer, columns of W, at most `D`, where `covariance` is
            `"factor"`. Defaults to 10, or `D` if that is less.
        ridge: Number, variance added to each pixel in every maximization.
            Helps where components have few images.
        memory: `None` for one maximization an epoch. Or an integer, for one
            after each batch, from sums over about so many of the last images.
        seed: Integer or `None`, seed of the start, and of the verbs.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Mean of the components given x, float32 in [0, 1].

    Attributes:
        proportions: A weight `(num_components,)` that sums to 1.
        components: Layer of `means`, `(num_components, D)`, and for full
            covariances of `roots`, lower triangular with `inverse(covariance)
            = transpose(root) @ root`; otherwise of `variances` (psi) and, for
            factor analysers, `loadings` (W).
        started: A weight, 0 until `fit` has chosen the first means. With 1 it
            goes on from the parameters that were assigned.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> mixture = GaussianMixture((28, 28, 1), num_components=25)
    >>> mixture.compile()
    >>> mixture.fit(train, epochs=10)
    >>> mixture.log_prob(images)  # (batch,), nats
    >>> mixture.impute(images, mask, num_samples=8)

    Reference:
        - Dempster, Laird and Rubin, Maximum Likelihood from Incomplete Data
          via the EM Algorithm, 1977
        - Ghahramani and Hinton, The EM Algorithm for Mixtures of Factor
          Analyzers, 1996
        - [On GANs and GMMs](https://arxiv.org/abs/1805.12462), on images
    """

    def __init__(
        self,
        image_shape,
        num_components,
        covariance="full",
        *,
        num_factors=None,
        ridge=0.0,
        memory=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape, num_components, memory=memory, seed=seed, **kwargs
        )
        if covariance not in _COVARIANCES:
            raise ValueError(
                f"`covariance` must be one of {_COVARIANCES}, got "
                f"{str(covariance)[:100]!r}."
            )
        self.covariance = covariance
        self.num_factors = self._checked_factors(num_factors)
        self.ridge = inputs.check_number(ridge, "ridge", minimum=0)
        sizes = self.num_components, self.num_dims
        if covariance == "full":
            self.components = FullGaussians(*sizes, self.ridge)
        elif covariance == "diagonal":
            self.components = DiagonalGaussians(*sizes, self.ridge)
        else:
            self.components = FactorAnalysers(
                *sizes, self.ridge, self.num_factors
            )
        self.built = True

    def _checked_factors(self, num_factors):
        if self.covariance != "factor":
            if num_factors is not None:
                raise ValueError(
                    f"`num_factors={num_factors}` has no meaning for "
                    f"{self.covariance} covariances. Leave it out, or pass "
                    "`covariance='factor'`."
                )
            return None
        if num_factors is None:
            num_factors = min(10, self.num_dims)
        num_factors = inputs.check_positive_integer(num_factors, "num_factors")
        if num_factors > self.num_dims:
            raise ValueError(
                f"`num_factors` must be at most the {self.num_dims} numbers "
                f"of an image, got {num_factors}. Choose fewer, or pass "
                "`covariance='full'`."
            )
        return num_factors

    def covariances(self):
        """Covariance matrices, `(num_components, D, D)` float64."""
        return self.graph(self.components.covariances)

    def log_prob(self, x, *, condition=None, num_samples=1, seed=None):
        """Log-probability of 8-bit images by dequantization, nats.

        `log(mean(p((x + noise) / 256) / 256**D))` over `num_samples` draws of
        the uniform noise. The mean is unbiased for the probability of the
        8-bit image, and its logarithm too low on average, by the less the
        more draws there are.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`; taken so that one model can stand for another.
            num_samples: Integer, draws of the noise.
            seed: Integer for the same noise each time, or `None`.

        Returns:
            `(batch,)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x, seed = self.images_from(x), self.verb_seed(seed)
        return self.graph(self._log_prob, x, num_samples, seed)

    def _log_prob(self, x, num_samples, seed):
        def add_draw(i, total):
            noise = tf.random.stateless_uniform(
                tf.shape(x),
                tf.random.experimental.stateless_fold_in(seed, i),
                alg="philox",
            )
            joint = tf.math.log(self.proportions) + self.components.log_prob(
                self.components.points(x, noise)
            )
            log_prob = tf.reduce_logsumexp(joint, axis=1)
            pair = tf.stack([total, log_prob])
            return i + 1, tf.reduce_logsumexp(pair, axis=0)

        _, total = tf.while_loop(
            lambda i, _: i < num_samples,
            add_draw,
            (0, tf.fill(tf.shape(x)[:1], -math.inf)),
        )
        return (
            total
            - tf.math.log(tf.cast(num_samples, "float32"))
            - self.num_dims * math.log(256)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "covariance": self.covariance,
            "num_factors": self.num_factors,
            "ridge": self.ridge,
        }
