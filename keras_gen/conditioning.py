"""Conditions of a model, classes or vectors, as the numbers networks take.

A network of a conditional model has two inputs, `[x, condition]` or
`[z, condition]`. The condition is float32 `(batch, width)`: a class as a
one-hot vector of `width = num_classes`, or a vector of `width = condition_dim`.
"""

import numbers

import keras
import tensorflow as tf

from keras_gen import inputs


def check_width(num_classes, condition_dim):
    """Checks the two arguments that make a model conditional.

    Args:
        num_classes: Integer or `None`, how many classes there are.
        condition_dim: Integer or `None`, width of the condition vectors.

    Returns:
        Width of the condition that the networks take, `None` if the model is
        not conditional.

    Raises:
        ValueError: If both are given, or one is not a positive integer.

    Example:

    >>> check_width(num_classes=10, condition_dim=None)  # 10
    """
    if num_classes is not None and condition_dim is not None:
        raise ValueError(
            "`num_classes` and `condition_dim` must not both be given, got "
            f"{num_classes!r} and {condition_dim!r}. For both at once, "
            "append one-hot classes to the vectors and pass `condition_dim`."
        )
    if num_classes is not None:
        return inputs.check_positive_integer(num_classes, "num_classes")
    if condition_dim is not None:
        return inputs.check_positive_integer(condition_dim, "condition_dim")
    return None


def beside(x, condition):
    """What a network takes: `x` alone, or `[x, condition]` if there is one."""
    return x if condition is None else [x, condition]


def check_network(network, input_shape, output_shape, argument, width=None):
    """Checks the shapes of a network, with those of its condition.

    Args:
        network: A built `keras.Model`, with the two inputs `[x, condition]`
            if `width` is given.
        input_shape: Expected shape of `x`, without the batch.
        output_shape: Expected shape of the output, without the batch.
        argument: String, the name of the argument in error messages.
        width: Integer or `None`, expected width of the condition.

    Raises:
        ValueError: If it is not a built model, or has other shapes.

    Example:

    >>> check_network(decoder, (40,), (28, 28, 1), "decoder", width=10)
    """
    is_built = isinstance(network, keras.Model) and network.built
    if width is None or not is_built:
        # Its message says what to do about a network that is not built.
        inputs.check_network(network, input_shape, output_shape, argument)
        return
    wanted = [(None, *input_shape), (None, width)]
    if hasattr(network, "input_shape"):
        shapes, given = network.input_shape, network.output_shape
        shapes = shapes if isinstance(shapes, list) else [shapes]
    else:
        shapes = wanted
        given = inputs.traced_output_shape(network, wanted, argument)
    if [tuple(shape) for shape in shapes] != wanted:
        raise ValueError(
            f"`{argument}` of a conditional model must have two inputs, of "
            f"the shapes {wanted[0]} and {wanted[1]}, got {shapes}. Make it "
            "as `keras.Model([x, condition], h)`, or leave the argument out "
            "for the default network."
        )
    if tuple(given) != (None, *output_shape):
        raise ValueError(
            f"`{argument}` must have outputs of shape {(None, *output_shape)}, "
            f"got {given}. Change its last layer, or leave the "
            "argument out for the default network."
        )


def unpaired(x, condition):
    """What `call` is given, `x` and its condition.

    Keras's `predict` gives both as a pair, in the place of `x`.
    """
    if condition is None and isinstance(x, tuple | list) and len(x) == 2:
        return x
    return x, condition


def vectors(condition, num_samples, num_classes=None, condition_dim=None):
    """A condition as networks take it, checked.

    Args:
        condition: Integer class ids `(num_samples,)` in
            `[0, num_classes - 1]`, or vectors `(num_samples, condition_dim)`:
            an array, a tensor (symbolic ones too) or a list. `None` if the
            model is not conditional.
        num_samples: Integer, how many; `None` or a tensor to take any number.
        num_classes: Integer or `None`, if the model is conditional on classes.
        condition_dim: Integer or `None`, if it is conditional on vectors.

    Returns:
        float32 `(num_samples, num_classes)`, one-hot, or
        `(num_samples, condition_dim)`; `None` for a model without condition.

    Raises:
        ValueError: If `condition` is missing, is not as above, or is given
            to a model without condition.

    Example:

    >>> vectors([2, 0], 2, num_classes=3)  # [[0, 0, 1], [1, 0, 0]]
    """
    count = num_samples if isinstance(num_samples, numbers.Integral) else None
    condition = inputs.check_labels(
        condition,
        count,
        num_classes=num_classes,
        condition_dim=condition_dim,
        argument="condition",
    )
    if num_classes is not None:
        return tf.one_hot(condition, num_classes)
    return condition


def random_classes(num_samples, num_classes, seed):
    """One-hot vectors of classes that are drawn uniformly.

    Args:
        num_samples: Integer or integer tensor, how many.
        num_classes: Integer, how many classes there are.
        seed: int32 `(2,)`, see `GenerativeModel.verb_seed`.

    Returns:
        float32 `(num_samples, num_classes)`.
    """
    shape = tf.reshape(num_samples, (1,))
    classes = tf.random.stateless_uniform(
        shape, seed, maxval=num_classes, dtype=tf.int32
    )
    return tf.one_hot(classes, num_classes)
