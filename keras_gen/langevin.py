"""Langevin Monte Carlo, whose steps choose their size by themselves."""

import tensorflow as tf
import tensorflow_probability as tfp


def chains(log_density, state, num_results, burn_in, seed):
    """Paths of Metropolis-adjusted Langevin chains, side by side.

    A step is one leapfrog step of Hamiltonian Monte Carlo: more of them can
    turn full circle, and get nowhere. The step size, which all chains share,
    adapts during the first four fifths of the burn-in.

    Args:
        log_density: Function, states `(chains, dims)` to unnormalized
            log-densities `(chains,)`.
        state: Where they begin, `(chains, dims)`.
        num_results: Integer, states of each path.
        burn_in: Integer, steps before the first of them.
        seed: int32 `(2,)`.

    Returns:
        `(path, log_accept_ratio)`, `(num_results, chains, dims)` and
        `(num_results, chains)`.
    """
    kernel = tfp.mcmc.HamiltonianMonteCarlo(
        log_density, step_size=0.1, num_leapfrog_steps=1
    )
    kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
        kernel,
        num_adaptation_steps=burn_in * 4 // 5,
        target_accept_prob=0.6,
    )
    return tfp.mcmc.sample_chain(
        num_results,
        state,
        kernel=kernel,
        num_burnin_steps=burn_in,
        trace_fn=lambda _, results: results.inner_results.log_accept_ratio,
        seed=seed,
    )


def to_state(points, margin):
    """Points of [0, 1] as a state without bounds: flat rows of their logits.

    Args:
        points: `(chains, ...)`, float32 in [0, 1].
        margin: Number, how far from 0 and 1 they are kept.
    """
    p = tf.clip_by_value(points, margin, 1.0 - margin)
    logits = tf.math.log(p) - tf.math.log1p(-p)
    return tf.reshape(logits, (tf.shape(p)[0], -1))


def log_slope(state):
    """`log(abs(det(d sigmoid(state) / d state)))`, `(chains,)` nats."""
    slopes = tf.math.log_sigmoid(state) - tf.nn.softplus(state)
    return tf.reduce_sum(slopes, axis=1)
