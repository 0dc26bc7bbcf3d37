"""The importance-weighted bound of models with an approximate posterior."""

import math

import numpy as np
import tensorflow as tf

from keras_gen import inputs, randomness
from keras_gen.likelihood.estimate import Estimate, log_mean
from keras_gen.likelihood.observations import check_parts, observe, spread

# Floats of a decoder's output at a time: 16 MB, its layers perhaps 500 MB.
PART = 2**22


def importance_weighted(
    x,
    *,
    posterior,
    prior,
    likelihood,
    num_samples=5000,
    dequantize=None,
    batch_size=100,
    seed=0,
    progress=None,
):
    """Importance-weighted lower bound of log p(x).

    `log mean_k p(x given z_k) p(z_k) / q(z_k given x)` over `num_samples`
    draws of q. In expectation it rises to log p(x) with their number.

    Args:
        x: Data `(batch, *event_shape)`; images uint8 or float in [0, 1].
        posterior: Function of x: q(z given x), a `tfd.Distribution`.
        prior: p(z), a `tfd.Distribution`.
        likelihood: Function of latents `(..., *latent_shape)`: p(x given z), a
            `tfd.Distribution` of batch shape `(...)`.
        num_samples: Integer, draws for each image.
        dequantize: Whether p(x given z) is a density over [0, 1] of 8-bit
            images: each draw sees `(k + noise) / 256`, noise uniform in
            [0, 1), and `log(256)` is subtracted for every dimension. By
            default this is so if TFP can reparameterize the distribution, as
            it can a Normal. `False` gives the density at `x` itself.
        batch_size: Integer, images at a time.
        seed: Integer, for the same draws each time.
        progress: Function of `(done, total)` draws, called between parts.

    Returns:
        `Estimate` of kind `"lower_bound"`, `(batch,)` nats.

    Raises:
        ValueError: If the parts or their shapes do not fit each other, or
            the data are not as above.

    Example:

    >>> importance_weighted(
    ...     x,
    ...     posterior=vae.posterior,
    ...     prior=vae.prior,
    ...     likelihood=vae.likelihood,
    ... ).value  # (batch,)

    Reference:
        - [Importance Weighted Autoencoders](
          https://arxiv.org/abs/1509.00519)
    """
    num_samples = inputs.check_positive_integer(num_samples, "num_samples")
    batch_size = inputs.check_positive_integer(batch_size, "batch_size")
    seed = inputs.check_seed(seed)
    inputs.check_progress(progress)
    check_parts(prior, likelihood, posterior)
    data = observe(x, prior, likelihood, dequantize)

    @tf.function(autograph=False, reduce_retracing=True)
    def add_part(x, count, seed, log_sums):
        seeds = tf.unstack(tf.random.split(seed))
        q = posterior(x)
        z = q.sample(count, seed=seeds[0])
        observed = x
        if data.dequantize:
            shape = tf.concat([[count], tf.shape(x)], axis=0)
            observed = spread(x, tf.random.stateless_uniform(shape, seeds[1]))
        log_weights = (
            likelihood(z).log_prob(observed)
            + prior.log_prob(z)
            - q.log_prob(z)
            + data.log_volume
        )
        log_weights = tf.cast(log_weights, tf.float64)
        # Of the weights and of their squares.
        powers = tf.stack([log_weights, 2 * log_weights], axis=1)
        everything = tf.concat([log_sums[tf.newaxis], powers], axis=0)
        return tf.reduce_logsumexp(everything, axis=0)

    part = max(PART // (math.prod(data.x.shape[1:]) * batch_size), 1)
    total = len(data.x) * num_samples
    done = 0
    log_sums = []
    for i in range(0, len(data.x), batch_size):
        batch = tf.constant(data.x[i : i + batch_size])
        batch_seed = tf.random.experimental.stateless_fold_in(
            randomness.seed_pair(seed), i
        )
        sums = tf.fill((2, len(batch)), tf.constant(-math.inf, tf.float64))
        for start in range(0, num_samples, part):
            count = min(part, num_samples - start)
            part_seed = tf.random.experimental.stateless_fold_in(
                batch_seed, start
            )
            sums = add_part(batch, tf.constant(count), part_seed, sums)
            done += count * len(batch)
            if progress is not None:
                progress(done, total)
        log_sums.append(sums.numpy())
    value, error, size = log_mean(
        *np.concatenate(log_sums, axis=1), num_samples
    )
    return Estimate(
        value,
        "lower_bound",
        error,
        size,
        data.discrete,
        {
            "method": "importance_weighted",
            "num_samples": num_samples,
            "dequantize": data.dequantize,
            "seed": seed,
        },
    )
