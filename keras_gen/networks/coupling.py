"""Networks inside coupling layers: from the part that stays to parameters.

Their last layer starts at zero, so that a new coupling changes nothing.
"""

from keras import Input, Model, Sequential, layers

from keras_gen import inputs


def coupling_mlp(
    input_shape, output_dim, hidden_dim=64, num_layers=2, activation="relu"
):
    """Dense network for couplings of vectors.

    Args:
        input_shape: `(width,)`, of the part that stays.
        output_dim: Integer, width of the output.
        hidden_dim: Integer, width of the hidden layers.
        num_layers: Integer, how many hidden layers.
        activation: Activation of the hidden layers.

    Returns:
        A built `keras.Model`, `(batch, *input_shape)` to
        `(batch, output_dim)`, at first zero, float32 under every dtype policy.

    Raises:
        ValueError: If a width or the depth is not a positive integer.

    Example:

    >>> AdditiveCoupling(coupling_mlp((392,), 392, hidden_dim=1000))

    Reference:
        - [NICE](https://arxiv.org/abs/1410.8516)
    """
    inputs.check_positive_integer(output_dim, "output_dim")
    inputs.check_positive_integer(hidden_dim, "hidden_dim")
    inputs.check_positive_integer(num_layers, "num_layers")
    hidden = [
        layers.Dense(hidden_dim, activation=activation)
        for _ in range(num_layers)
    ]
    last = layers.Dense(output_dim, kernel_initializer="zeros", dtype="float32")
    return Sequential([Input(input_shape), *hidden, last], name="coupling")


def coupling_resnet(input_shape, output_dim, hidden_dim=64, num_blocks=2):
    """Residual convolutional network for couplings of images.

    A 3x3 convolution; blocks of ReLU, 3x3 convolution, ReLU, 3x3 convolution,
    to which their input is added; ReLU and a last 1x1 convolution. Without
    normalization, it is the same function in training and outside of it.

    Args:
        input_shape: `(height, width, channels)` of the part that stays.
        output_dim: Integer, channels of the output.
        hidden_dim: Integer, maps of the hidden layers.
        num_blocks: Integer, how many residual blocks.

    Returns:
        A built `keras.Model`, `(batch, *input_shape)` to
        `(batch, height, width, output_dim)`, at first zero, float32 under
        every dtype policy.

    Raises:
        ValueError: If a width or the depth is not a positive integer.

    Example:

    >>> shape, _ = coupling_shapes((28, 28, 1), "checkerboard")
    >>> AffineCoupling(coupling_resnet(shape, 2 * 2), "checkerboard")

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803), whose networks also have weight
          and batch normalization, and sum the outputs of all blocks.
    """
    inputs.check_positive_integer(output_dim, "output_dim")
    inputs.check_positive_integer(hidden_dim, "hidden_dim")
    inputs.check_positive_integer(num_blocks, "num_blocks")
    x = Input(input_shape)
    h = layers.Conv2D(hidden_dim, 3, padding="same")(x)
    for _ in range(num_blocks):
        shortcut = h
        for _ in range(2):
            h = layers.ReLU()(h)
            h = layers.Conv2D(hidden_dim, 3, padding="same")(h)
        h = layers.Add()([shortcut, h])
    last = layers.Conv2D(
        output_dim, 1, kernel_initializer="zeros", dtype="float32"
    )
    return Model(x, last(layers.ReLU()(h)), name="coupling")


def coupling_convnet(input_shape, output_dim, hidden_dim=128):
    """Three convolutions, 3x3, 1x1 and 3x3: the couplings of Glow.

    Args:
        input_shape: `(height, width, channels)` of the part that stays.
        output_dim: Integer, channels of the output.
        hidden_dim: Integer, maps of the two hidden layers; 512 is published.

    Returns:
        A built `keras.Model`, `(batch, *input_shape)` to
        `(batch, height, width, output_dim)`, at first zero, float32 under
        every dtype policy.

    Example:

    >>> AffineCoupling(coupling_convnet((14, 14, 2), 2 * 2))

    Reference:
        - [Glow](https://arxiv.org/abs/1807.03039), which also has activation
          normalization in them.
    """
    inputs.check_positive_integer(output_dim, "output_dim")
    inputs.check_positive_integer(hidden_dim, "hidden_dim")
    return Sequential(
        [
            Input(input_shape),
            layers.Conv2D(hidden_dim, 3, padding="same", activation="relu"),
            layers.Conv2D(hidden_dim, 1, activation="relu"),
            layers.Conv2D(
                output_dim,
                3,
                padding="same",
                kernel_initializer="zeros",
                dtype="float32",
            ),
        ],
        name="coupling",
    )
