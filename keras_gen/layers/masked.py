"""Layers whose units see only the earlier inputs of an order."""

import base64
import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import ops, saving

from keras_gen import inputs


@saving.register_keras_serializable(package="keras_gen")
class MaskedDense(keras.layers.Layer):
    """Dense layer some of whose connections are cut.

    Computes `h = activation(x @ (mask * W) + b)`.

    Args:
        units: Positive integer, width of the output.
        mask: Array `(input_dim, units)` of 0 and 1, see `made_masks`. It is
            saved in the layer's configuration, a bit per connection.
        activation: Activation function or its name. Defaults to none.
        kernel_initializer: Initializer of `W`, which does not know how many
            connections are cut.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, ..., input_dim)`.

    Returns:
        Tensor `(batch, ..., units)` in the layer's compute dtype.

    Raises:
        ValueError: If `units` is not a positive integer, or `mask` not such
            an array, or the input has another width.

    Example:

    >>> mask = np.triu(np.ones((4, 4)))  # unit j sees inputs 0..j
    >>> MaskedDense(4, mask)(keras.ops.ones((8, 4))).shape  # (8, 4)

    Reference:
        - [MADE](https://arxiv.org/abs/1502.03509)
    """

    def __init__(
        self,
        units,
        mask,
        activation=None,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = inputs.check_positive_integer(units, "units")
        mask = np.asarray(mask)
        is_binary = mask.dtype.kind in "biuf" and np.isin(mask, (0, 1)).all()
        if mask.ndim != 2 or mask.shape[1] != self.units or not is_binary:
            raise ValueError(
                "`mask` must be an array of 0 and 1, a row for each input and "
                f"a column for each of the {self.units} units, got shape "
                f"{mask.shape} and type {mask.dtype}. `made_masks` gives such "
                "arrays."
            )
        self.mask = mask.astype(bool)
        self.activation = inputs.check_activation(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        if input_shape[-1] != len(self.mask):
            raise ValueError(
                f"The `mask` of layer {self.name!r} has {len(self.mask)} rows, "
                f"but its input has {input_shape[-1]} features. Give the mask "
                "a row for each of them."
            )
        self.kernel = self.add_weight(
            shape=self.mask.shape,
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="bias"
        )
        # A tensor: graphs capture it, and would copy an array into each node.
        with tf.init_scope():
            self._mask_tensor = tf.constant(self.mask)

    def call(self, x):
        kernel = self.kernel * ops.cast(self._mask_tensor, self.compute_dtype)
        # Unlike `matmul`, it does not repeat the kernel for each batch entry.
        x = ops.tensordot(x, kernel, axes=1)
        return self.activation(ops.add(x, self.bias))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        bits = base64.b64encode(np.packbits(self.mask)).decode("ascii")
        return {
            **super().get_config(),
            "units": self.units,
            "mask": {"num_inputs": len(self.mask), "bits": bits},
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }

    @classmethod
    def from_config(cls, config):
        shape = (config["mask"]["num_inputs"], config["units"])
        packed = np.frombuffer(
            base64.b64decode(config["mask"]["bits"]), np.uint8
        )
        mask = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape)
        return super().from_config({**config, "mask": mask})


def made_degrees(num_inputs, hidden_dims, *, order=None, seed=None):
    """Positions in an order for the inputs and hidden units of a MADE.

    Input i has degree `order[i] + 1`. A hidden unit of degree m may see the
    inputs of degrees up to m: its degree is at least the smallest of the layer
    before, and at most `num_inputs - 1`, since no output sees the last input.

    Args:
        num_inputs: Integer D, number of inputs.
        hidden_dims: Widths of the hidden layers, first to last.
        order: Permutation of `range(num_inputs)`, the position of each input
            in the order. Defaults to the inputs as they stand.
        seed: Integer, which draws the hidden degrees uniformly. With `None`
            they are spread evenly.

    Returns:
        List of integer arrays, for the inputs and for each hidden layer.

    Raises:
        ValueError: If `order` is not such a permutation, or another argument
            is not as above.

    Example:

    >>> made_degrees(4, (5,))  # [array([1, 2, 3, 4]), array([1, 1, 2, 2, 3])]

    Reference:
        - [MADE](https://arxiv.org/abs/1502.03509)
    """
    num_inputs = inputs.check_positive_integer(num_inputs, "num_inputs")
    order = np.arange(num_inputs) if order is None else np.asarray(order)
    if not np.array_equal(np.sort(order, axis=None), np.arange(num_inputs)):
        raise ValueError(
            f"`order` must hold each of 0..{num_inputs - 1} once, the position "
            f"of each input, got {str(order.tolist())[:100]}. Pass for example "
            f"`np.random.permutation({num_inputs})`."
        )
    rng = None if seed is None else np.random.default_rng(seed)
    # A single input is seen by no output; its hidden units are of no use.
    highest = max(num_inputs - 1, 1)
    degrees = [order + 1]
    for units in hidden_dims:
        units = inputs.check_positive_integer(units, "hidden_dims")
        if rng is None:
            degrees.append(np.arange(units) * highest // units + 1)
        else:
            lowest = min(degrees[-1].min(), highest)
            degrees.append(rng.integers(lowest, highest + 1, units))
    return degrees


def made_masks(num_inputs, hidden_dims, *, order=None, seed=None):
    """Masks that make a dense network autoregressive.

    A hidden unit sees the units of the layer before whose degree is not above
    its own (`made_degrees`), an output those below its own: output i depends
    on the inputs before input i in the order, and the first on none.

    Args:
        num_inputs: Integer D, number of inputs and outputs.
        hidden_dims: Widths of the hidden layers, first to last. Without any,
            the one mask is that of direct connections.
        order: Permutation of `range(num_inputs)`, the position of each input
            in the order. Defaults to the inputs as they stand.
        seed: Integer, which draws the hidden degrees uniformly. With `None`
            they are spread evenly.

    Returns:
        List of float32 arrays `(units before, units)` of 0 and 1, for each
        hidden layer and for the output.

    Raises:
        ValueError: As `made_degrees`.

    Example:

    >>> made_masks(3, ())[0]  # [[0, 1, 1], [0, 0, 1], [0, 0, 0]]

    Reference:
        - [MADE](https://arxiv.org/abs/1502.03509)
    """
    degrees = made_degrees(num_inputs, hidden_dims, order=order, seed=seed)
    masks = [
        before[:, np.newaxis] <= after
        for before, after in itertools.pairwise(degrees)
    ]
    masks.append(degrees[-1][:, np.newaxis] < degrees[0])
    return [mask.astype("float32") for mask in masks]
