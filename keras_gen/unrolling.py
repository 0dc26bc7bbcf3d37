"""Steps of an optimizer as a function of tensors, to differentiate through."""

import keras
import tensorflow as tf

from keras_gen import losses, randomness


def unroll(loss, network, optimizer, num_steps):
    """The state of a network after updates that are never made.

    `optimizer` minimizes `loss()` for `num_steps` steps, beginning with the
    moments and the step count that it has. The network and the optimizer stay
    as they are: their weights, moments and statistics are tensors meanwhile,
    and a `tf.GradientTape` around the call sees through all of it.

    Args:
        loss: Function without arguments that gives the mean loss of this
            replica, calling `network` in training.
        network: A built `keras.Model`.
        optimizer: Its optimizer, from `optimization.prepare`.
        num_steps: Integer, how many updates.

    Returns:
        List of `(variable, tensor)`, the network's variables with their new
        values, for `keras.StatelessScope`.

    Raises:
        ValueError: If the updates cannot be unrolled, see `check`.

    Example:

    >>> with keras.StatelessScope(unroll(loss, network, network.optimizer, 5)):
    ...     later_loss = loss()

    Reference:
        - [Unrolled Generative Adversarial Networks](
          https://arxiv.org/abs/1611.02163)
    """
    check(optimizer, network)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    on_tensors = _on_tensors(inner)
    trained = network.trainable_weights
    num_trained = len(trained)
    of_network = [*trained, *network.non_trainable_variables]
    variables = [*of_network, *inner.variables]
    state = [_start(variable) for variable in variables]
    for _ in range(num_steps):
        weights = state[:num_trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with _scope(variables, state) as scope:
                scaled_loss = _scaled(loss(), optimizer)
        gradients = tape.gradient(
            scaled_loss, weights, unconnected_gradients="zero"
        )
        state = _values(scope, variables)  # with new statistics of layers
        with _scope(variables, state) as scope:
            on_tensors.apply(_unscaled(gradients, optimizer), trained)
        state = _values(scope, variables)
    return list(zip(of_network, state[: len(of_network)], strict=True))


def check(optimizer, network, penalty=None):
    """Raises a `ValueError` if these updates cannot be unrolled.

    Args:
        optimizer: The optimizer, whose updates must be a function of the
            gradient and its moments.
        network: Its network, which no layer may change otherwise.
        penalty: What is added to its loss, see `losses.get_penalty`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    update = type(inner)._backend_update_step
    if (
        update is not keras.optimizers.Optimizer._backend_update_step
        or inner.gradient_accumulation_steps
    ):
        raise ValueError(
            f"`unrolled_steps` does not work with this {type(inner).__name__}, "
            "whose updates are more than a function of gradient and moments. "
            "Use `SGD`, `Adam` or `RMSprop`, without "
            "`gradient_accumulation_steps`."
        )
    if isinstance(penalty, losses.WeightClipping) or any(
        isinstance(layer, keras.layers.SpectralNormalization)
        for layer in network._flatten_layers()
    ):
        raise ValueError(
            "`unrolled_steps` goes through steps of an optimizer, but weight "
            "clipping and spectral normalization change the discriminator's "
            "weights otherwise. Leave one of the two out."
        )


def _start(variable):
    value = tf.identity(variable.value)
    if variable.path.endswith("velocity"):
        # Adam takes its root, whose slope at 0 would be infinite.
        value = tf.maximum(value, 1e-30)
    return value


def _scope(variables, values):
    return keras.StatelessScope(zip(variables, values, strict=True))


def _values(scope, variables):
    return [scope.get_current_value(variable) for variable in variables]


def _scaled(loss, optimizer):
    _, num_replicas = randomness.replica_position()
    return optimizer.scale_loss(tf.cast(loss, "float32") / num_replicas)


def _unscaled(gradients, optimizer):
    """Sums over the replicas, which Keras would take while it updates."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = optimizer.dynamic_scale
        gradients = [gradient / scale for gradient in gradients]
    if randomness.replica_position()[1] > 1:
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce("SUM", gradients)
    return gradients


def _on_tensors(optimizer):
    """A twin of `optimizer` that works within a `keras.StatelessScope`.

    Keras's own cannot on TensorFlow, where it updates `tf.Variable`s.
    """
    keys = {
        id(variable): optimizer._var_key(variable)
        for variable in optimizer._trainable_variables
    }

    class OnTensors(type(optimizer)):
        """The same updates, assigned to `keras.Variable`s."""

        def assign(self, variable, value):
            variable.assign(value)

        def assign_add(self, variable, value):
            variable.assign(variable + value)

        def assign_sub(self, variable, value):
            variable.assign(variable - value)

        def _var_key(self, variable):
            return keys[id(variable)]

        def _backend_update_step(self, gradients, variables, learning_rate):
            for gradient, variable in zip(gradients, variables, strict=True):
                self.update_step(gradient, variable, learning_rate)

        def _apply_weight_decay(self, variables):
            for variable in variables:
                if self.weight_decay and self._use_weight_decay(variable):
                    rate = self.learning_rate * self.weight_decay
                    variable.assign(variable - variable * rate)

    twin = object.__new__(OnTensors)  # of the same state
    object.__setattr__(twin, "__dict__", optimizer.__dict__)
    return twin
