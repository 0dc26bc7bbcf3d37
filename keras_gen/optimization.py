"""Gradient application that is right under replicas and in float16."""

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs


@keras.saving.register_keras_serializable(package="keras_gen")
class SyncedLossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Loss scaling whose replicas agree on whether gradients are finite.

    Keras looks at the first replica alone: an overflow on another one makes
    its weights NaN, or stops two workers at different collectives.
    """

    def check_finite(self, grads):
        return all_finite(grads)


def prepare(optimizer, weights, half, argument="optimizer"):
    """An optimizer that is built here, and scales the loss if need be.

    Args:
        optimizer: A Keras optimizer, or its name.
        weights: The variables that it is to update.
        half: Whether some of the gradients are computed in float16.
        argument: What messages call the optimizer.

    Returns:
        The optimizer, with `half` inside a `SyncedLossScaleOptimizer`.

    Raises:
        ValueError: If there are no weights, it was made outside the scope of
            the strategy, or has an option that does not work here.
    """
    weights = list(weights)
    if not weights:
        raise ValueError(
            f"`{argument}` has nothing to update: its network has no trainable "
            "weights. Set `trainable = True` on it before `compile`."
        )
    optimizer = keras.optimizers.get(optimizer)
    strategy = tf.distribute.get_strategy()
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    name = type(inner).__name__
    if inner._distribution_strategy is not strategy:
        raise ValueError(
            f"`{argument}` ({name}) was made outside the scope of the strategy. "
            "Create the model and the optimizers and call `compile` inside "
            "`strategy.scope()`."
        )
    clips = inner.clipnorm or inner.global_clipnorm or inner.clipvalue
    if clips and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"`{argument}` ({name}) clips gradients, which under a strategy "
            "would clip each replica's share alone. Leave out `clipnorm`, "
            "`global_clipnorm` and `clipvalue`."
        )
    if inner.use_ema:
        raise ValueError(
            f"`{argument}` ({name}) has `use_ema=True`, which overwrites the "
            "trained weights at the end of `fit`. Leave it out; models with "
            "an `ema` argument keep their own moving average."
        )
    rate = inner._learning_rate
    if isinstance(rate, keras.Variable):  # not a schedule
        inputs.check_number(
            float(np.asarray(rate)), f"{argument}.learning_rate", minimum=0
        )
    if type(optimizer) is keras.optimizers.LossScaleOptimizer:
        optimizer.__class__ = SyncedLossScaleOptimizer  # of the same state
    if half and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = SyncedLossScaleOptimizer(optimizer)
    if not optimizer.built:
        optimizer.build(weights)
    known = {id(weight) for weight in inner._trainable_variables}
    if known != {id(weight) for weight in weights}:
        raise ValueError(
            f"`{argument}` ({name}) was built for other weights, of another "
            "model or network. Make a new one for each."
        )
    return optimizer


def regularization(network):
    """Sum of the losses that the layers of a network add, 0 without any."""
    return tf.add_n(network.losses) if network.losses else 0.0


def all_finite(gradients):
    """Whether every gradient is finite on every replica: a bool scalar."""
    # A sum carries each inf and NaN, and takes one pass over the gradient.
    sums = [
        tf.reduce_sum(tf.cast(tf.convert_to_tensor(gradient), "float32"))
        for gradient in gradients
        if gradient is not None
    ]
    finite = tf.math.is_finite(tf.add_n(sums))
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return finite
    num_finite = context.all_reduce("SUM", tf.cast(finite, "float32"))
    return num_finite > context.num_replicas_in_sync - 0.5


def keeps_failures(optimizer):
    """Whether a gradient that is not finite shows in the variables afterwards.

    Slots beyond its step and rate become infinite or NaN for good, unless the
    gradient is clipped by value first. An optimizer with a loss scale leaves
    them alone. Weights are no proof: a model may clip them.
    """
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    has_slots = len(optimizer.variables) > 2
    return not scaled and has_slots and optimizer.clipvalue is None


def apply_at_once(optimizer, gradients, weights):
    """Update `weights`, whether or not gradients are finite.

    For one device, and for a caller who looks at the variables afterwards (see
    `keeps_failures`) and undoes the update if need be.
    """
    # Every update waits for the first layer's gradient, the last to be known.
    # Otherwise XLA copies each matrix of weights that is still read on the way
    # there.
    first = next(g for g in gradients if g is not None)
    last = 0.0 * tf.reshape(tf.convert_to_tensor(first), [-1])[0]
    gradients = [
        g if g is None else tf.convert_to_tensor(g) + tf.cast(last, g.dtype)
        for g in gradients
    ]
    optimizer.apply(gradients, weights)


def apply_if_finite(optimizer, gradients, weights):
    """Update `weights`, or leave all of them if one gradient is not finite.

    Call it in a replica context. Gradients are summed over the replicas.

    Args:
        optimizer: A built Keras optimizer.
        gradients: List of tensors, scaled by `optimizer.scale_loss`.
        weights: List of variables, one for each gradient.

    Returns:
        Bool scalar, the same on all replicas: whether all gradients are
        finite.
    """
    finite = all_finite(gradients)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # A loss scale is halved by `apply` itself.
        optimizer.apply(gradients, weights)
    elif tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(
            finite,
            lambda: optimizer.apply(gradients, weights),
            lambda: None,
        )
    else:
        tf.distribute.get_replica_context().merge_call(
            _apply_across_replicas, args=(finite, gradients, optimizer, weights)
        )
    return finite


def _apply_across_replicas(strategy, finite, gradients, optimizer, weights):
    # An optimizer's own merge call may not stand in a branch of a replica's
    # graph, so the branch is taken here, for all replicas at once.
    tf.cond(
        strategy.experimental_local_results(finite)[0],
        lambda: strategy.extended.call_for_each_replica(
            optimizer.apply, args=(gradients, weights)
        ),
        lambda: None,
    )
