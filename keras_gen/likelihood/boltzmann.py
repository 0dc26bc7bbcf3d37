"""Partition functions of Boltzmann machines by annealed importance sampling."""

import typing

import numpy as np
import tensorflow as tf

from keras_gen import inputs, randomness
from keras_gen.likelihood.annealing import (
    anneal,
    check_betas,
    piecewise_schedule,
    sum_weights,
)
from keras_gen.likelihood.estimate import ROUNDING, Estimate, log_mean


class AnnealingPath(typing.NamedTuple):
    """A family of unnormalized distributions between a base and a target.

    Attributes:
        initial: Function of `(num_chains, seed)`: exact samples of the base,
            `(num_chains, ...)`; `seed` is int32 `(2,)`.
        log_partition: Number or scalar tensor, log Z of the base, nats.
        log_unnormalized: Function of `(v, beta)`: the logarithm of the
            unnormalized probability, `(num_chains,)`. At `beta` 0 it is that
            of the base, at 1 of the target. Sum hidden units out where you
            can: -free_energy.
        transition: Function of `(v, beta, seed)`: a Markov transition that
            leaves the distribution at `beta` invariant, such as a Gibbs
            sweep; for reverse annealing it must be reversible.

    `bernoulli_rbm_path` is the one of a Boltzmann machine.
    """

    initial: typing.Callable
    log_partition: typing.Any
    log_unnormalized: typing.Callable
    transition: typing.Callable


def bernoulli_rbm_path(weights, visible_bias, hidden_bias, base_rates=None):
    """The path to a restricted Boltzmann machine of binary units.

    The base has no weights and visible units that are independent, at
    `base_rates`. At `beta`, with `a = logit(base_rates)`,
    `log f(v) = (1 - beta) * a.v + beta * b.v
    + sum_j softplus(beta * (c[j] + v.W[:, j]))`.

    Args:
        weights: `(num_visible, num_hidden)`, W.
        visible_bias: `(num_visible,)`, b.
        hidden_bias: `(num_hidden,)`, c.
        base_rates: `(num_visible,)` in [0, 1], best the means of the training
            images; they are clipped to [0.001, 0.999]. Defaults to 0.5.

    Returns:
        `AnnealingPath` over `v`, `(num_chains, num_visible)` float32 of 0
        and 1.

    Raises:
        ValueError: If the shapes do not fit each other, or rates are not in
            [0, 1].

    Example:

    >>> path = bernoulli_rbm_path(w, b, c, base_rates=x.mean(axis=0))
    >>> log_z = annealed_log_partition(path)
    >>> normalized_log_prob(-free_energy(x), log_z).value  # (batch,)

    Reference:
        - Salakhutdinov and Murray, On the Quantitative Analysis of Deep
          Belief Networks, 2008
    """
    w = tf.cast(tf.convert_to_tensor(weights), tf.float32)
    b = tf.cast(tf.convert_to_tensor(visible_bias), tf.float32)
    c = tf.cast(tf.convert_to_tensor(hidden_bias), tf.float32)
    if w.shape.rank != 2 or b.shape != w.shape[:1] or c.shape != w.shape[1:]:
        raise ValueError(
            "`weights` must be (num_visible, num_hidden), `visible_bias` "
            "(num_visible,) and `hidden_bias` (num_hidden,), got the shapes "
            f"{tuple(w.shape)}, {tuple(b.shape)} and {tuple(c.shape)}."
        )
    if base_rates is None:
        base_rates = np.full(b.shape, 0.5)
    rates = np.asarray(base_rates, "float64")
    if rates.shape != tuple(b.shape) or not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError(
            "`base_rates` must be probabilities of the visible units, of "
            f"shape {tuple(b.shape)} and in [0, 1], got shape {rates.shape}. "
            "Pass the means of binary training images, flattened."
        )
    rates = np.clip(rates, 0.001, 0.999)
    a = tf.constant(np.log(rates / (1 - rates)), tf.float32)
    log_partition = c.shape[0] * np.log(2) - np.log1p(-rates).sum()

    def initial(num_chains, seed):
        logits = tf.repeat(a[tf.newaxis], num_chains, axis=0)
        return sample_bernoulli(logits, seed)

    def log_unnormalized(v, beta):
        hidden = tf.nn.softplus(beta * (c + tf.matmul(v, w)))
        visible = tf.linalg.matvec(v, (1 - beta) * a + beta * b)
        return visible + tf.reduce_sum(hidden, axis=-1)

    def transition(v, beta, seed):
        seeds = tf.unstack(tf.random.split(seed))
        h = sample_bernoulli(beta * (c + tf.matmul(v, w)), seeds[0])
        logits = (1 - beta) * a + beta * (b + tf.matmul(h, w, transpose_b=True))
        return sample_bernoulli(logits, seeds[1])

    return AnnealingPath(initial, log_partition, log_unnormalized, transition)


def sample_bernoulli(logits, seed):
    """Draws 0 or 1, float32, of probability `sigmoid(logits)` for 1.

    In a replica context the rows are this replica's, of one draw for all.
    """
    noise = randomness.draw_rows(
        tf.random.stateless_uniform, tf.shape(logits), seed
    )
    return tf.cast(noise < tf.sigmoid(logits), tf.float32)


def annealed_log_partition(
    path,
    *,
    samples=None,
    num_chains=100,
    betas=None,
    jit_compile=None,
    seed=0,
    progress=None,
):
    """The log partition function of a path's target.

    Chains walk from the base to the target; the mean of their weights is an
    unbiased estimate of `Z_target / Z_base`, and its logarithm a lower bound
    in expectation. Too short an annealing makes log Z too small and all
    log-probabilities too large. The reverse, from samples of the target,
    errs to the other side: together they bound log Z, as far as the samples
    are exact.

    Args:
        path: `AnnealingPath`.
        samples: `(num_chains, ...)` samples of the target for the reverse
            direction, such as chains that ran for long, or `None`.
        num_chains: Integer, chains of the forward direction.
        betas: Inverse temperatures that increase from 0 to 1. Defaults to
            `piecewise_schedule()`, 14,500 of them.
        jit_compile: Whether XLA compiles the chains; by default on a GPU.
        seed: Integer, for the same chains each time.
        progress: Function of `(done, total)` temperatures.

    Returns:
        `Estimate` of log Z, a scalar in nats, of kind `"lower_bound"`, with
        `samples` `"upper_bound"`. Its `interval()` is the three-sigma bar.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> log_z = annealed_log_partition(bernoulli_rbm_path(w, b, c))
    >>> log_z.value, log_z.standard_error, log_z.effective_sample_size

    Reference:
        - Salakhutdinov and Murray, On the Quantitative Analysis of Deep
          Belief Networks, 2008
        - [Sandwiching the marginal likelihood using bidirectional Monte
          Carlo](https://arxiv.org/abs/1511.02543)
    """
    if not isinstance(path, AnnealingPath):
        raise ValueError(
            "`path` must be an `AnnealingPath`, got an object of type "
            f"{type(path).__name__}. Pass for example "
            "`bernoulli_rbm_path(weights, visible_bias, hidden_bias)`."
        )
    betas = piecewise_schedule() if betas is None else check_betas(betas)
    seed = inputs.check_seed(seed)
    inputs.check_progress(progress)
    seeds = tf.unstack(tf.random.split(randomness.seed_pair(seed)))
    if samples is None:
        num_chains = inputs.check_positive_integer(num_chains, "num_chains")
        v = path.initial(num_chains, seeds[0])
    else:
        v = tf.cast(tf.convert_to_tensor(samples), tf.float32)
        num_chains = len(v)
    shape = path.log_unnormalized(v, tf.constant(0.0)).shape
    if shape != (num_chains,):
        raise ValueError(
            "`path.log_unnormalized(v, beta)` must give one number for each "
            f"of the {num_chains} chains, got shape {tuple(shape)} for `v` of "
            f"shape {tuple(v.shape)}."
        )
    log_weights, _ = anneal(
        betas if samples is None else betas[::-1],
        v,
        lambda v, beta, next_beta: (
            path.log_unnormalized(v, next_beta) - path.log_unnormalized(v, beta)
        ),
        path.transition,
        seeds[1],
        progress and (lambda done: progress(done, len(betas) - 1)),
        jit_compile,
    )
    value, error, size = log_mean(*sum_weights(log_weights))
    return Estimate(
        float(path.log_partition) + (value if samples is None else -value),
        "lower_bound" if samples is None else "upper_bound",
        error,
        size,
        discrete=False,
        settings={
            "method": "annealed_log_partition",
            "direction": "forward" if samples is None else "reverse",
            "num_chains": num_chains,
            "num_temperatures": len(betas),
            "seed": seed,
        },
    )


def normalized_log_prob(log_unnormalized, log_partition):
    """Log-probabilities `log_unnormalized - log Z` of discrete data.

    Args:
        log_unnormalized: `(batch,)` nats: -free_energy of a Boltzmann
            machine with hidden units, or a variational lower bound of it.
        log_partition: `Estimate` of log Z, from `annealed_log_partition`.

    Returns:
        `Estimate`, `(batch,)` nats, with the error bars of log Z, which all
        images share. Of a lower bound of log Z, which makes it too large on
        average, the kind is `"estimate"`; of an upper bound `"lower_bound"`.

    Raises:
        ValueError: If a log-probability is positive by more than rounding:
            log Z is too small by more than that, and the annealing was too
            short.

    Example:

    >>> normalized_log_prob(-free_energy(x), log_z).interval()
    """
    values = np.asarray(log_unnormalized, "float64") - log_partition.value
    kinds = {"exact": "exact", "upper_bound": "lower_bound"}
    if not (values <= ROUNDING).all():
        number = int((values > ROUNDING).sum())
        raise ValueError(
            f"Log-probabilities must not be positive, got {number} of "
            f"{values.size} above 0, up to {values.max():.4g} nats: "
            "`log_partition` is too small by more than that. The annealing "
            "was too short: use more temperatures and chains."
        )
    return Estimate(
        values,
        kinds.get(log_partition.kind, "estimate"),
        log_partition.standard_error,
        log_partition.effective_sample_size,
        settings=log_partition.settings,
    )
