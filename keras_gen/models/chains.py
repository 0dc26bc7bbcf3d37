"""Markov chains of images: what the verbs of models that walk share."""

import tensorflow as tf

from keras_gen import inputs


def check_lengths(chain_length, burn_in):
    """Checks how long chains are, and gives `burn_in` as an integer.

    Args:
        chain_length: Integer, steps of each chain.
        burn_in: Integer, steps that are thrown away, or `None` for all but
            the last.

    Returns:
        `burn_in`, an integer below `chain_length`.

    Raises:
        ValueError: If an argument is not as above.
    """
    inputs.check_positive_integer(chain_length, "chain_length")
    if burn_in is None:
        return chain_length - 1
    burn_in = inputs.check_count(burn_in, "burn_in")
    if burn_in >= chain_length:
        raise ValueError(
            "`burn_in` must be less than the `chain_length`, got "
            f"{burn_in} of {chain_length} steps, which leaves no image. Leave "
            "it out for one image a chain."
        )
    return burn_in


def walk(step, state, start, stop, seed):
    """The state of chains after the steps of number `start` to `stop - 1`.

    Args:
        step: Function of `(state, seed)` that gives the next state.
        state: Nested tensors, `(num_chains, ...)` each.
        start: Integer or scalar tensor.
        stop: Integer or scalar tensor.
        seed: int32 `(2,)`; the steps have seeds of their own.

    Returns:
        The state.
    """
    state = tf.nest.map_structure(tf.convert_to_tensor, state)

    def advance(i, state):
        fold = tf.random.experimental.stateless_fold_in(seed, i)
        return i + 1, step(state, fold)

    _, state = tf.while_loop(
        lambda i, _: i < stop,
        advance,
        (tf.convert_to_tensor(start), state),
        shape_invariants=(
            tf.TensorShape([]),
            tf.nest.map_structure(
                lambda part: tf.TensorShape([None, *part.shape[1:]]), state
            ),
        ),
    )
    return state


def sample_images(
    num_samples, start, step, image_of, chain_length, burn_in, seed
):
    """Images from chains, those of one chain side by side.

    Args:
        num_samples: Integer or scalar tensor, how many.
        start: Function of `(num_chains, seed)` that gives the first state.
        step: Function of `(state, seed)` that gives the next state.
        image_of: Function of a state that gives images `(num_chains, ...)`.
        chain_length: Integer, steps of each chain.
        burn_in: Integer, steps before the first image.
        seed: int32 `(2,)`.

    Returns:
        `(num_samples, ...)` float32, from as few chains as it takes.
    """
    seeds = tf.random.split(seed)
    kept = chain_length - burn_in
    num_chains = -(-num_samples // kept)
    state = walk(step, start(num_chains, seeds[0]), 0, burn_in, seeds[1])
    shape = image_of(state).shape[1:]

    def add_images(i, state, images):
        now = burn_in + i
        state = walk(step, state, now, now + 1, seeds[1])
        return i + 1, state, images.write(i, image_of(state))

    images = tf.TensorArray("float32", kept, element_shape=(None, *shape))
    _, _, images = tf.while_loop(
        lambda i, *_: i < kept, add_images, (0, state, images)
    )
    images = images.stack()  # (kept, num_chains, ...)
    images = tf.transpose(images, [1, 0, *range(2, images.shape.rank)])
    return tf.reshape(images, (-1, *shape))[:num_samples]
