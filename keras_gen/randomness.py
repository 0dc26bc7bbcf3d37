"""Random numbers that replicas never share and that a resumed run repeats.

Keras draws the same noise on every replica of a `tf.distribute` strategy. Here
the replicas share one stateless draw for the *global* batch and each takes its
own rows of it, so a step on two replicas is the step on one.
"""

import functools

import keras
import tensorflow as tf


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose draws differ on every replica.

    `next()` gives an int32 tensor `(2,)` for `tf.random.stateless_*`, TFP's
    `sample(seed=...)` and `keras.random.*`; `next_shared()` gives the seed
    that all replicas agree on.
    """

    def next_shared(self):
        """The next seed, int32 `(2,)`, equal on all replicas."""
        seed = super().next()
        return tf.cast(tf.math.floormod(seed, 2**31 - 1), "int32")

    def next(self, ordered=True):
        replica, num_replicas = replica_position()
        seed = self.next_shared()
        if num_replicas == 1:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, replica)


def replica_position():
    """`(index of this replica, number of replicas)`; `(0, 1)` outside."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def draw_rows(stateless_draw, shape, seed):
    """This replica's rows of one draw for the global batch.

    Args:
        stateless_draw: `tf.random.stateless_normal` or another function of
            `(shape, seed)`.
        shape: Shape of the rows wanted here, `(batch, ...)`.
        seed: int32 `(2,)`, the same on all replicas.

    Returns:
        Tensor of `shape`. With one replica it is the draw itself.
    """
    # TensorFlow's own choice takes milliseconds under XLA on a CPU.
    stateless_draw = functools.partial(stateless_draw, alg="philox")
    replica, num_replicas = replica_position()
    if num_replicas == 1:
        return stateless_draw(shape, seed)
    shape = tf.convert_to_tensor(shape)
    rows = shape[0]
    everything = tf.concat([[rows * num_replicas], shape[1:]], axis=0)
    return stateless_draw(everything, seed)[replica * rows :][:rows]


def seed_pair(seed):
    """The int32 `(2,)` seed of an integer, in Python and in a SavedModel."""
    if not tf.is_tensor(seed):
        return tf.constant([seed % 2**31, seed // 2**31], "int32")
    seed = tf.cast(seed, "int64")
    return tf.stack(
        [tf.cast(seed % 2**31, "int32"), tf.cast(seed // 2**31, "int32")]
    )


def seed_generators(model):
    """The seed generators of a model and all its layers, in a fixed order."""
    generators = []
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                generators.append(value)
    return generators


def separate_replicas(model):
    """Make the layers of `model` (Dropout, GaussianNoise) differ by replica.

    The generators of Keras's own layers are locked in at construction, and
    hold nothing but their state variable: giving them the class above is what
    keeps users free to build networks from stock layers.
    """
    for generator in seed_generators(model):
        if type(generator) is keras.random.SeedGenerator:
            generator.__class__ = ReplicaSeedGenerator
