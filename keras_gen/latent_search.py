"""Search for the latents of given images, where no encoder exists."""

import math

import tensorflow as tf

RATE = 0.1
PRIOR_WEIGHT = 0.01


def search(generate, x, observed, z, num_steps):
    """Follows the gradient to latents whose images look like those given.

    For each image and each start alone it minimizes

        sum(observed * (generate(z) - x)**2) + 0.01 * sum(z**2)

    which is the most likely z under a standard normal prior and pixels with
    noise of deviation 0.1, by Adam, whose rate falls from 0.1 to 0.

    Args:
        generate: Function, latents `(starts * batch, latent_dim)` to images
            in [0, 1], those of the first start first.
        x: Images `(batch, *image_shape)` in [0, 1].
        observed: Booleans `(batch, *image_shape)`, which pixels count.
        z: Latents to begin with, `(starts, batch, latent_dim)`.
        num_steps: Integer or tensor, steps of Adam.

    Returns:
        `(z, loss)`: the latents, and `(starts, batch)` values of the sum.

    Reference:
        - [Compressed Sensing using Generative Models](
          https://arxiv.org/abs/1703.03208)
    """
    starts, batch, latent_dim = tf.shape(z)[0], tf.shape(z)[1], z.shape[-1]
    z = tf.reshape(z, (-1, latent_dim))
    x, observed = (
        tf.tile(rows, (starts, *[1] * (x.shape.rank - 1)))
        for rows in (x, observed)
    )

    def losses(z):
        error = tf.where(observed, generate(z) - x, 0.0)
        axes = tuple(range(1, x.shape.rank))
        return tf.reduce_sum(tf.square(error), axes) + (
            PRIOR_WEIGHT * tf.reduce_sum(tf.square(z), axis=1)
        )

    def step(i, z, mean, square):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            loss = losses(z)
        gradient = tape.gradient(loss, z)
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (tf.square(gradient) - square)
        t = tf.cast(i, "float32")
        progress = t / tf.cast(num_steps, "float32")
        rate = RATE * 0.5 * (1.0 + tf.cos(math.pi * progress))
        unbiased_mean = mean / (1.0 - tf.pow(0.9, t + 1.0))
        unbiased_square = square / (1.0 - tf.pow(0.999, t + 1.0))
        z -= rate * unbiased_mean / (tf.sqrt(unbiased_square) + 1e-8)
        return i + 1, z, mean, square

    zeros = tf.zeros_like(z)
    _, z, _, _ = tf.while_loop(
        lambda i, *_: i < num_steps, step, (0, z, zeros, zeros)
    )
    loss = tf.reshape(losses(z), (starts, batch))
    return tf.reshape(z, (starts, batch, latent_dim)), loss


def project(generate, x, z, num_steps):
    """Latents that reproduce images: of all starts of a search, the best.

    Args:
        generate, x, z, num_steps: As for `search`, all pixels observed.

    Returns:
        Latents `(batch, latent_dim)`.
    """
    z, loss = search(generate, x, tf.ones_like(x, "bool"), z, num_steps)
    best = tf.argmin(loss, axis=0)
    return tf.gather(tf.transpose(z, (1, 0, 2)), best, batch_dims=1)


def impute(generate, x, observed, z, num_steps):
    """Images whose missing pixels come from latents of the observed ones.

    Args:
        generate, x, observed, z, num_steps: As for `search`.

    Returns:
        `(starts, batch, *image_shape)` in [0, 1], one image of each search,
        the observed pixels as they are.

    Reference:
        - [Semantic Image Inpainting with Deep Generative Models](
          https://arxiv.org/abs/1607.07539)
    """
    z, _ = search(generate, x, observed, z, num_steps)
    images = generate(tf.reshape(z, (-1, z.shape[-1])))
    shape = tf.concat([tf.shape(z)[:1], tf.shape(x)], axis=0)
    images = tf.reshape(tf.clip_by_value(images, 0.0, 1.0), shape)
    return tf.where(observed, x, images)
