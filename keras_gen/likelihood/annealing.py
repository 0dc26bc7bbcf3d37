"""Annealed importance sampling: its temperatures and its one loop."""

import itertools

import numpy as np
import tensorflow as tf

from keras_gen import inputs


def sigmoid_schedule(num_temperatures=10_000, sharpness=4.0):
    """Inverse temperatures from 0 to 1 that move slowly near both ends.

    `sigmoid(sharpness * t)` for t evenly from -1 to 1, rescaled to [0, 1].

    Args:
        num_temperatures: Integer of at least 2, both ends included.
        sharpness: Positive number; near 0 the schedule is linear.

    Returns:
        `(num_temperatures,)` float64, increasing from exactly 0 to exactly 1.

    Example:

    >>> sigmoid_schedule(3)  # [0.0, 0.5, 1.0]

    Reference:
        - [On the Quantitative Analysis of Decoder-Based Generative Models](
          https://arxiv.org/abs/1611.04273)
    """
    inputs.check_positive_integer(num_temperatures, "num_temperatures")
    inputs.check_number(num_temperatures, "num_temperatures", minimum=2)
    sharpness = inputs.check_number(
        sharpness, "sharpness", minimum=0, exclusive=True
    )
    t = np.linspace(-1, 1, num_temperatures)
    # tanh(s t / 2) is the sigmoid up to what the rescaling undoes.
    betas = 0.5 + 0.5 * np.tanh(sharpness * t / 2) / np.tanh(sharpness / 2)
    betas[0], betas[-1] = 0.0, 1.0
    return betas


def piecewise_schedule(counts=(500, 4000, 10_000), ends=(0.5, 0.9, 1.0)):
    """Inverse temperatures from 0 to 1, evenly spaced in each piece.

    The default is that of the reference: 14,500 temperatures, most of them
    where the target's modes have formed.

    Args:
        counts: Integers, temperatures in each piece.
        ends: Increasing numbers, where each piece ends; the last is 1.

    Returns:
        `(sum(counts),)` float64, increasing from 0 to 1.

    Raises:
        ValueError: If `counts` and `ends` are not as above.

    Example:

    >>> piecewise_schedule((2, 3), (0.5, 1.0))  # [0, 0.25, 0.5, 0.75, 1]

    Reference:
        - Salakhutdinov and Murray, On the Quantitative Analysis of Deep
          Belief Networks, 2008
    """
    counts = [inputs.check_positive_integer(n, "counts") for n in counts]
    ends = [inputs.check_number(end, "ends", 0, 1) for end in ends]
    starts = [0.0, *ends[:-1]]
    if len(counts) != len(ends) or ends[-1:] != [1.0] or counts[-1] < 2:
        raise ValueError(
            "`counts` and `ends` must be of one length, the last count at "
            f"least 2 and the last end 1, got {counts} and {ends}."
        )
    if not all(a < b for a, b in itertools.pairwise([0.0, *ends])):
        raise ValueError(
            f"`ends` must increase from above 0 to 1, got {ends}. Sort them."
        )
    last = len(ends) - 1
    return check_betas(
        np.concatenate(
            [
                np.linspace(start, end, count, endpoint=i == last)
                for i, (start, end, count) in enumerate(
                    zip(starts, ends, counts, strict=True)
                )
            ]
        )
    )


def check_betas(betas):
    """`betas` as an array; raises ValueError unless it rises from 0 to 1."""
    try:
        array = np.asarray(betas, "float64")
    except (TypeError, ValueError):
        array = np.empty(0)
    valid = array.ndim == 1 and len(array) >= 2
    # The comparisons are false for NaN, too.
    if not (
        valid
        and array[0] == 0
        and array[-1] == 1
        and bool(np.all(np.diff(array) > 0))
    ):
        raise ValueError(
            "`betas` must be inverse temperatures that increase from 0 to 1, "
            f"got {str(betas)[:100]}. Pass for example "
            "`sigmoid_schedule(1000)`."
        )
    return array


def anneal(
    betas, state, log_ratio, transition, seed, progress=None, jit_compile=None
):
    """Log-weights of Markov chains that follow a path of distributions.

    The weight of a chain is the product over k of `f[k + 1](state[k]) /
    f[k](state[k])`, f[k] the unnormalized density at `betas[k]` and
    `state[k + 1]` a transition from `state[k]` that leaves `f[k + 1]`
    invariant. Its expectation is Z[last] / Z[0], if the chains start at exact
    samples of f[0]. With reversible transitions the path may be walked from
    1 to 0 as well.

    Args:
        betas: `(num_temperatures,)`, rising or falling.
        state: Tensor or tuple of tensors, where the chains start.
        log_ratio: Function of `(state, beta, next_beta)`: the logarithm of
            the ratio, of the chains' shape.
        transition: Function of `(state, beta, seed)`: the next state.
        seed: int32 `(2,)`.
        progress: Function that is called with the number of temperatures
            done, some hundred times.
        jit_compile: Whether XLA compiles the loop. Defaults to whether there
            is a GPU: on a CPU, XLA's loops are several times slower.

    Returns:
        `(log_weights, state)`: float64, of the chains' shape, and the state
        at the end.
    """
    betas = tf.constant(betas, tf.float32)
    num_ratios = betas.shape[0] - 1
    if jit_compile is None:
        jit_compile = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(autograph=False, jit_compile=jit_compile)
    def walk(start, stop, state, log_weights):
        def step(k, state, log_weights):
            ratio = log_ratio(state, betas[k], betas[k + 1])
            # Thousands of small terms add up to hundreds of nats.
            log_weights += tf.cast(ratio, tf.float64)
            step_seed = tf.random.experimental.stateless_fold_in(seed, k)
            return (
                k + 1,
                transition(state, betas[k + 1], step_seed),
                log_weights,
            )

        _, state, log_weights = tf.while_loop(
            lambda k, *_: k < stop, step, (start, state, log_weights)
        )
        return state, log_weights

    shape = tf.shape(log_ratio(state, betas[0], betas[1]))
    log_weights = tf.zeros(shape, tf.float64)
    part = max(num_ratios // 100, 100)
    for start in range(0, num_ratios, part):
        stop = min(start + part, num_ratios)
        state, log_weights = walk(
            tf.constant(start), tf.constant(stop), state, log_weights
        )
        if progress is not None:
            progress(stop)
    return log_weights, state


def sum_weights(log_weights):
    """`(log(sum(w)), log(sum(w**2)), count)` over the first axis."""
    log_weights = np.asarray(log_weights)
    return (
        np.logaddexp.reduce(log_weights, axis=0),
        np.logaddexp.reduce(2 * log_weights, axis=0),
        len(log_weights),
    )
