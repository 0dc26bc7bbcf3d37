"""Annealed importance sampling for decoders, with or without an encoder."""

import dataclasses
import functools
import typing

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import inputs, randomness
from keras_gen.likelihood.annealing import (
    anneal,
    check_betas,
    sigmoid_schedule,
    sum_weights,
)
from keras_gen.likelihood.estimate import Estimate, log_mean
from keras_gen.likelihood.observations import (
    check_parts,
    is_reparameterized,
    observe,
    spread,
)

tfd = tfp.distributions

TARGET_ACCEPTANCE = 0.65
STEP_SIZE_FACTORS = (1.02, 0.98)
STEP_SIZE_LIMITS = (1e-4, 0.5)
# How much of the mean acceptance of former moves is kept.
ACCEPTANCE_MEMORY = 0.9


def gaussian_observation(generator, stddev):
    """p(x given z) of a generator under noise: `Normal(g(z), stddev)`.

    It gives a generator, whose images have no density, a likelihood. That
    likelihood is of the *noisy* model; state `stddev` with it, and choose it
    on validation images.

    Args:
        generator: Function of latents `(batch, latent_dim)` that gives images
            `(batch, *image_shape)` in [0, 1], such as a `GAN`.
        stddev: Positive number, standard deviation of the noise in each
            pixel. The reference uses variances of 0.005 to 0.03.

    Returns:
        Function of latents `(..., latent_dim)` that gives a
        `tfd.Distribution` of batch shape `(...)`.

    Example:

    >>> annealed_importance(
    ...     x,
    ...     prior=tfd.MultivariateNormalDiag(tf.zeros(gan.latent_dim)),
    ...     likelihood=gaussian_observation(gan, stddev=0.1),
    ... )

    Reference:
        - [On the Quantitative Analysis of Decoder-Based Generative Models](
          https://arxiv.org/abs/1611.04273)
    """
    stddev = inputs.check_number(stddev, "stddev", minimum=0, exclusive=True)

    def likelihood(z):
        images = generator(tf.reshape(z, (-1, z.shape[-1])))
        shape = tf.concat([tf.shape(z)[:-1], images.shape[1:]], axis=0)
        loc = tf.reshape(tf.cast(images, tf.float32), shape)
        return tfd.Independent(tfd.Normal(loc, stddev), images.shape.rank - 1)

    return likelihood


@dataclasses.dataclass(frozen=True, eq=False)
class BidirectionalEstimate:
    """Log-likelihoods of simulated data, from below and from above.

    Attributes:
        x: The data, `(num_images, *event_shape)`.
        lower_bound: `Estimate` by forward annealing from the prior.
        upper_bound: `Estimate` by reverse annealing from the latents that
            the data were made of.
    """

    x: np.ndarray
    lower_bound: Estimate
    upper_bound: Estimate

    @property
    def gap(self):
        """`upper_bound - lower_bound`, `(num_images,)` nats.

        In expectation both bounds' errors together.
        """
        return self.upper_bound.value - self.lower_bound.value


def annealed_importance(
    x,
    *,
    prior,
    likelihood,
    num_chains=16,
    betas=None,
    num_leapfrog_steps=10,
    step_size=0.1,
    dequantize=None,
    batch_size=32,
    jit_compile=None,
    seed=0,
    progress=None,
):
    """Lower bound of log p(x) by annealed importance sampling of latents.

    Chains start at the prior and pass through `p(z) * p(x given z)**beta`, by
    one move of Hamiltonian Monte Carlo at each `beta`, to the posterior. The
    log mean of their weights is a lower bound of log p(x) in expectation; how
    tight, `bidirectional_annealing` tells. All it needs of a model is a
    decoder, so that VAEs and GANs can be compared.

    The step size of each image is adapted over its chains to an acceptance of
    65 %: 2 % up or down after each move, within [1e-4, 0.5].

    Args:
        x: Data `(batch, *event_shape)`; images uint8 or float in [0, 1].
        prior: p(z), a `tfd.Distribution` over continuous latents of shape
            `(latent_dim,)`.
        likelihood: Function of latents `(..., latent_dim)`: p(x given z), a
            `tfd.Distribution` of batch shape `(...)`, differentiable in z; for
            a generator see `gaussian_observation`.
        num_chains: Integer, chains for each image.
        betas: Inverse temperatures that increase from 0 to 1. Defaults to
            `sigmoid_schedule(10_000)`.
        num_leapfrog_steps: Integer, gradients for each move.
        step_size: Number in [1e-4, 0.5], at the start.
        dequantize: Whether p(x given z) is a density over [0, 1] of 8-bit
            images; see `importance_weighted`. The noise is drawn once for
            each image, which keeps the lower bound one.
        batch_size: Integer, images at a time; `num_chains` times as many pass
            through the decoder at once.
        jit_compile: Whether XLA compiles the chains; by default on a GPU.
        seed: Integer, for the same chains each time.
        progress: Function of `(done, total)`, called some hundred times for
            each batch; `total` is temperatures times images.

    Returns:
        `Estimate` of kind `"lower_bound"`, `(batch,)` nats.

    Raises:
        ValueError: If an argument is not as above, or the parts do not fit
            each other.

    Example:

    >>> annealed_importance(
    ...     x, prior=vae.prior, likelihood=vae.likelihood
    ... ).value  # (batch,)

    Reference:
        - [On the Quantitative Analysis of Decoder-Based Generative Models](
          https://arxiv.org/abs/1611.04273)
        - Neal, [Annealed Importance Sampling](
          https://arxiv.org/abs/physics/9803008)
    """
    inputs.check_progress(progress)
    chains = _Chains(
        prior,
        likelihood,
        num_chains=num_chains,
        betas=betas,
        num_leapfrog_steps=num_leapfrog_steps,
        step_size=step_size,
        batch_size=batch_size,
        jit_compile=jit_compile,
        seed=seed,
    )
    data = observe(x, prior, likelihood, dequantize)
    x = data.x
    if data.dequantize:
        noise = tf.random.stateless_uniform(x.shape, chains.seed_of("noise"))
        x = spread(x, noise).numpy()
    value, error, size = chains.run(x, progress=progress)
    return Estimate(
        value + data.log_volume,
        "lower_bound",
        error,
        size,
        data.discrete,
        chains.settings("forward", data.dequantize),
    )


def bidirectional_annealing(
    *,
    prior,
    likelihood,
    num_images=16,
    seed=0,
    progress=None,
    **settings,
):
    """Bounds of log p(x) from both sides, for data that the model made.

    A pair drawn from `p(z) p(x given z)` holds an exact sample of the
    posterior of x. Annealing from it back to the prior gives weights of mean
    1 / p(x), and so an upper bound, beside the lower bound of
    `annealed_importance`. Their gap bounds the error of each, and tells
    whether `betas` and the moves suffice for this model.

    Args:
        prior: As for `annealed_importance`.
        likelihood: As for `annealed_importance`.
        num_images: Integer, how many images are simulated.
        seed: Integer, for the same images and chains each time.
        progress: Function of `(done, total)`.
        **settings: Further arguments of `annealed_importance`: `num_chains`,
            `betas`, `num_leapfrog_steps`, `step_size`, `batch_size` and
            `jit_compile`, the same in both directions.

    Returns:
        `BidirectionalEstimate`. The values are of the simulated data itself:
        densities, if p(x given z) is one. The chains of an upper bound start
        at one latent together, which its standard error does not see.

    Raises:
        ValueError: As `annealed_importance`.

    Example:

    >>> both = bidirectional_annealing(
    ...     prior=vae.prior, likelihood=vae.likelihood
    ... )
    >>> both.gap.mean()  # below 1 nat: trust `annealed_importance`

    Reference:
        - [Sandwiching the marginal likelihood using bidirectional Monte
          Carlo](https://arxiv.org/abs/1511.02543)
    """
    num_images = inputs.check_positive_integer(num_images, "num_images")
    inputs.check_progress(progress)
    chains = _Chains(prior, likelihood, seed=seed, **settings)
    z = prior.sample(num_images, seed=chains.seed_of("latents"))
    distribution = likelihood(z)
    x = tf.cast(
        distribution.sample(seed=chains.seed_of("data")), tf.float32
    ).numpy()
    discrete = not is_reparameterized(distribution)
    bounds = {}
    for i, (direction, kind, start) in enumerate(
        (("forward", "lower_bound", None), ("reverse", "upper_bound", z))
    ):

        def report(done, total, i=i):
            progress(i * total + done, 2 * total)

        value, error, size = chains.run(
            x, start, progress=None if progress is None else report
        )
        bounds[kind] = Estimate(
            value, kind, error, size, discrete, chains.settings(direction)
        )
    return BidirectionalEstimate(x, **bounds)


@dataclasses.dataclass
class _Chains:
    """Chains of Hamiltonian Monte Carlo between a prior and posteriors."""

    prior: tfd.Distribution
    likelihood: typing.Callable
    _: dataclasses.KW_ONLY
    num_chains: int = 16
    betas: np.ndarray | None = None
    num_leapfrog_steps: int = 10
    step_size: float = 0.1
    batch_size: int = 32
    jit_compile: bool | None = None
    seed: int = 0

    def __post_init__(self):
        check_parts(self.prior, self.likelihood)
        discrete = getattr(self.prior, "is_discrete", False)
        if discrete or not self.prior.dtype.is_floating:
            kind = "one-hot" if discrete else self.prior.dtype.name
            raise ValueError(
                "`prior` must be a distribution of continuous latents, which "
                f"can be moved along gradients, got {kind} ones. For discrete "
                "latents use `importance_weighted`."
            )
        for name in ("num_chains", "num_leapfrog_steps", "batch_size"):
            inputs.check_positive_integer(getattr(self, name), name)
        self.step_size = inputs.check_number(
            self.step_size, "step_size", *STEP_SIZE_LIMITS
        )
        inputs.check_seed(self.seed)
        if self.betas is None:
            self.betas = sigmoid_schedule()
        self.betas = check_betas(self.betas)

    def seed_of(self, purpose):
        """A seed of its own for each of the draws."""
        index = ("noise", "latents", "data", "starts", "moves").index(purpose)
        return tf.random.experimental.stateless_fold_in(
            randomness.seed_pair(self.seed), index
        )

    def settings(self, direction, dequantize=False):
        return {
            "method": "annealed_importance",
            "direction": direction,
            "num_chains": self.num_chains,
            "num_temperatures": len(self.betas),
            "num_leapfrog_steps": self.num_leapfrog_steps,
            "step_size": self.step_size,
            "dequantize": dequantize,
            "seed": self.seed,
        }

    def run(self, x, z=None, progress=None):
        """Bounds of log p(x): from below, or from above given posterior `z`.

        Returns:
            `(value, standard_error, effective_sample_size)`, `(batch,)` each.
        """
        num_ratios = len(self.betas) - 1
        parts = []
        for start in range(0, len(x), self.batch_size):
            rows = slice(start, start + self.batch_size)
            size = len(x[rows])

            def report(done, start=start, size=size):
                progress(start * num_ratios + done * size, len(x) * num_ratios)

            log_weights = self._anneal(
                tf.constant(x[rows]),
                None if z is None else z[rows],
                start,
                None if progress is None else report,
            )
            parts.append(log_mean(*sum_weights(log_weights)))
        value, error, size = np.concatenate(parts, axis=1)
        return (value if z is None else -value), error, size

    def _anneal(self, x, z, index, progress):
        fold_in = tf.random.experimental.stateless_fold_in
        betas = self.betas
        if z is None:
            z = self.prior.sample(
                (self.num_chains, len(x)),
                seed=fold_in(self.seed_of("starts"), index),
            )
        else:
            z = tf.repeat(z[tf.newaxis], self.num_chains, axis=0)
            betas = betas[::-1]
        # Latents, and for each image the step size and the mean acceptance.
        state = (
            z,  # (num_chains, batch, latent_dim)
            tf.fill([len(x)], self.step_size),
            tf.fill([len(x)], TARGET_ACCEPTANCE),
        )

        def log_ratio(state, beta, next_beta):
            return (next_beta - beta) * self.likelihood(state[0]).log_prob(x)

        log_weights, _ = anneal(
            betas,
            state,
            log_ratio,
            functools.partial(self._move, x),
            fold_in(self.seed_of("moves"), index),
            progress,
            self.jit_compile,
        )
        return log_weights

    def _move(self, x, state, beta, seed):
        z, step_size, acceptance = state

        def log_density(z):
            log_likelihood = self.likelihood(z).log_prob(x)
            return self.prior.log_prob(z) + beta * log_likelihood

        event_rank = self.prior.event_shape.rank
        kernel = tfp.mcmc.HamiltonianMonteCarlo(
            log_density,
            tf.reshape(step_size, [-1] + [1] * event_rank),
            self.num_leapfrog_steps,
        )
        # Anew at each temperature: the results of the last move hold the
        # density of the last temperature, which moves must not compare with.
        z, results = kernel.one_step(z, kernel.bootstrap_results(z), seed=seed)
        accepted = tf.exp(tf.minimum(results.log_accept_ratio, 0.0))
        acceptance = ACCEPTANCE_MEMORY * acceptance + (
            1.0 - ACCEPTANCE_MEMORY
        ) * tf.reduce_mean(accepted, axis=0)
        factor = tf.where(acceptance > TARGET_ACCEPTANCE, *STEP_SIZE_FACTORS)
        step_size = tf.clip_by_value(step_size * factor, *STEP_SIZE_LIMITS)
        return z, step_size, acceptance
