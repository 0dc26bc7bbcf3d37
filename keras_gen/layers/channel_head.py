"""The last layers of a network that models pixels one after the other."""

import keras
from keras import ops, saving

from keras_gen import inputs


@saving.register_keras_serializable(package="keras_gen")
class ChannelHead(keras.layers.Layer):
    """What a network says of each channel of a pixel, given those before it.

    For features h of the earlier pixels, and x[0], ..., x[c - 1] the channels
    of this one, group c of the output is

        relu(relu(h) @ W_c + sum_{d < c} x[d] U_cd + b_c) @ V_c + d_c

    So one pass of the network serves all channels, where masks would split
    its features among them.

    Args:
        units: Integer, outputs of all groups.
        num_groups: Integer, the number of channels; or 1 for outputs that see
            no channel of their own pixel.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[h, x]`, `(batch, height, width, features)` and images
            `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, units)` float32, the groups one after the other.

    Raises:
        ValueError: If `units` is not a multiple of `num_groups`.

    Example:

    >>> ChannelHead(3 * 256, num_groups=3)([h, images])
    """

    def __init__(self, units, num_groups=1, **kwargs):
        super().__init__(**kwargs)
        self.units = inputs.check_positive_integer(units, "units")
        self.num_groups = inputs.check_positive_integer(
            num_groups, "num_groups"
        )
        if units % num_groups:
            raise ValueError(
                f"`units` must be a multiple of `num_groups` {num_groups}, got "
                f"{units}. Give every group as many."
            )

    def build(self, input_shape):
        features = input_shape[0][-1]

        def dense(name, channels, units, **options):
            layer = keras.layers.Dense(
                units, name=name, **{"dtype": self.dtype_policy, **options}
            )
            layer.build((None, channels))
            return layer

        self.hidden, self.earlier, self.output_layers = [], [], []
        he = {"kernel_initializer": "he_normal"}
        for c in range(self.num_groups):
            self.hidden.append(dense(f"hidden_{c}", features, features, **he))
            if c:
                self.earlier.append(
                    dense(f"earlier_{c}", c, features, use_bias=False)
                )
            self.output_layers.append(
                dense(
                    f"output_{c}",
                    features,
                    self.units // self.num_groups,
                    dtype="float32",
                )
            )

    def call(self, inputs):
        h, x = inputs
        h, groups = ops.relu(h), []
        for c, (hidden, output) in enumerate(
            zip(self.hidden, self.output_layers, strict=True)
        ):
            a = hidden(h)
            if c:
                a = a + self.earlier[c - 1](x[..., :c])
            groups.append(output(ops.relu(a)))
        return groups[0] if len(groups) == 1 else ops.concatenate(groups, -1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_groups": self.num_groups,
        }
