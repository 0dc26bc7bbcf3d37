"""Langevin Monte Carlo, whose steps choose their size by themselves."""

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
