"""Missing pixels of a latent-variable model, by Metropolis within Gibbs."""

import tensorflow as tf


def latents_of_observed(x, observed, latents, given, draw, num_steps, seed):
    """Ends of Markov chains whose latents are given the observed pixels.

    One chain for each image. A step proposes latents from an encoder that
    looks at the image with its missing pixels filled in, accepts them by the
    Metropolis-Hastings ratio `weight(new) / weight(old)`, and draws the missing
    pixels anew given the latents. The first quarter of the steps accepts all,
    since chains start far from where they are to be.

    Args:
        x: Images `(batch, *image_shape)`.
        observed: Booleans `(batch, *image_shape)`.
        latents: Tuple of tensors `(batch, ...)`, where the chains begin.
        given: Function, images to what the encoder says of them, two
            functions: `propose(seed)`, latents drawn from q given the images,
            and `log_weight(latents)`, `(batch,)`, which is `log(p(images,
            latents) / q(latents given images))` up to a constant.
        draw: Function, latents and a seed to images, drawn from p.
        num_steps: Integer, steps of each chain.
        seed: int32 `(2,)`.

    Returns:
        Latents like those given.

    Reference:
        - [Leveraging the Exact Likelihood of Deep Latent Variable Models](
          https://arxiv.org/abs/1802.04826)
    """

    def fill(latents, seed):
        return tf.where(observed, x, draw(latents, seed))

    def advance(step, latents, filled):
        seeds = tf.unstack(
            tf.random.split(
                tf.random.experimental.stateless_fold_in(seed, step), 3
            )
        )
        propose, log_weight = given(filled)
        new = propose(seeds[0])
        log_ratio = log_weight(new) - log_weight(latents)
        uniform = tf.random.stateless_uniform(tf.shape(log_ratio), seeds[1])
        accepted = tf.math.log(uniform) < log_ratio
        accepted |= step < num_steps // 4
        latents = tuple(
            tf.where(
                tf.reshape(accepted, [-1] + [1] * (after.shape.rank - 1)),
                after,
                before,
            )
            for before, after in zip(latents, new, strict=True)
        )
        return step + 1, latents, fill(latents, seeds[2])

    first = tf.random.experimental.stateless_fold_in(seed, -1)
    _, latents, _ = tf.while_loop(
        lambda step, *_: step < num_steps,
        advance,
        (0, latents, fill(latents, first)),
    )
    return latents
