"""Dense layers whose output passes through a learnt gate."""

import keras
from keras import ops

from keras_gen import inputs


@keras.saving.register_keras_serializable(package="keras_gen")
class GatedDense(keras.layers.Layer):
    """Dense layer multiplied by a gate of its own.

    Computes `h = (x @ W + b) * sigmoid(x @ V + c)`: a linear path, through
    which gradients flow unchanged where the gate is open. It is the hidden
    layer of the networks of the VampPrior paper. `W` and `V` are the two
    halves of one kernel, so that the layer costs a single product.

    Args:
        units: Positive integer, width of the output.
        kernel_initializer: Initializer of the fused kernel
            `(input_dim, 2 * units)`. The default looks only at the number of
            inputs, so fusing changes nothing, and half of its doubled
            variance is what the gate lets through. An initializer that
            looks at the outputs (Glorot) sees `2 * units` of them.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, ..., input_dim)`.

    Returns:
        Tensor `(batch, ..., units)` in the layer's compute dtype.

    Raises:
        ValueError: If `units` is not a positive integer.

    Example:

    >>> GatedDense(300)(keras.ops.ones((8, 784))).shape  # (8, 300)

    Reference:
        - [VAE with a VampPrior](https://arxiv.org/abs/1705.07120)
    """

    def __init__(self, units, kernel_initializer="he_normal", **kwargs):
        super().__init__(**kwargs)
        self.units = inputs.check_positive_integer(units, "units")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 2 * self.units),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(2 * self.units,), initializer="zeros", name="bias"
        )

    def call(self, x):
        linear, gate = ops.split(
            ops.add(ops.matmul(x, self.kernel), self.bias), 2, axis=-1
        )
        return linear * ops.sigmoid(gate)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }
