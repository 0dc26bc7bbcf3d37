"""Networks of dense layers, for images of any shape."""

import math

from keras import Input, Model, Sequential, layers

from keras_gen.layers.gated import GatedDense


def mlp_encoder(
    image_shape,
    output_dim,
    hidden_dims=(512, 256),
    activation="relu",
    gated=False,
    name="encoder",
    condition_dim=None,
):
    """Dense network from images to a vector.

    Args:
        image_shape: `(height, width, channels)`.
        output_dim: Integer, width of the output; for a Gaussian posterior two
            numbers per latent.
        hidden_dims: Widths of the hidden layers, first to last.
        activation: Activation of the hidden layers.
        gated: Boolean, whether hidden layers are `layers.GatedDense`, which
            take no `activation`.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition, which the first
            layer then takes beside the pixels.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` to
        `(batch, output_dim)`, linear and float32 under every dtype policy.
        With `condition_dim` its input is `[x, condition]`.

    Example:

    >>> mlp_encoder((28, 28, 1), 2 * 40, hidden_dims=(300, 300), gated=True)
    """
    return _network(
        image_shape,
        condition_dim,
        [
            *_hidden_layers(hidden_dims, activation, gated),
            layers.Dense(output_dim, dtype="float32"),
        ],
        name,
    )


def mlp_decoder(
    latent_dim,
    image_shape,
    hidden_dims=(256, 512),
    activation="relu",
    gated=False,
    name="decoder",
    output_channels=None,
    condition_dim=None,
):
    """Dense network from latents to the parameters of p(x given z).

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`.
        hidden_dims: Widths of the hidden layers, first to last.
        activation: Activation of the hidden layers.
        gated: Boolean, whether hidden layers are `layers.GatedDense`, which
            take no `activation`.
        name: Name of the model.
        output_channels: Integer, numbers per pixel; `2 * channels` for a
            location and a scale. Defaults to `channels`.
        condition_dim: Integer or `None`, width of a condition, which the first
            layer then takes beside the latents.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to
        `(batch, height, width, output_channels)`, linear (logits) and float32
        under every dtype policy. With `condition_dim` its input is
        `[z, condition]`.

    Example:

    >>> mlp_decoder(40, (28, 28, 1), hidden_dims=(300, 300), gated=True)
    """
    output_shape = (*image_shape[:-1], output_channels or image_shape[-1])
    return _network(
        (latent_dim,),
        condition_dim,
        [
            *_hidden_layers(hidden_dims, activation, gated),
            layers.Dense(math.prod(output_shape), dtype="float32"),
            layers.Reshape(output_shape, dtype="float32"),
        ],
        name,
    )


def mlp_generator(
    latent_dim,
    image_shape,
    hidden_dims=(256, 512),
    name="generator",
    condition_dim=None,
):
    """Dense generator: ReLU hidden layers and a tanh output.

    Args:
        latent_dim: Integer, width of the input.
        image_shape: `(height, width, channels)`.
        hidden_dims: Widths of the hidden layers, first to last.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition, which the first
            layer then takes beside the latents.

    Returns:
        A built `keras.Model`, `(batch, latent_dim)` to images
        `(batch, *image_shape)` in [-1, 1], float32 under every dtype policy.
        With `condition_dim` its input is `[z, condition]`.

    Example:

    >>> mlp_generator(64, (28, 28, 1))

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661)
    """
    return _network(
        (latent_dim,),
        condition_dim,
        [
            *_hidden_layers(hidden_dims, "relu", gated=False),
            layers.Dense(
                math.prod(image_shape), activation="tanh", dtype="float32"
            ),
            layers.Reshape(image_shape, dtype="float32"),
        ],
        name,
    )


def mlp_discriminator(
    image_shape,
    hidden_dims=(512, 256),
    name="discriminator",
    condition_dim=None,
):
    """Dense discriminator with LeakyReLU of slope 0.2.

    It normalizes nothing, so every gradient penalty may be used with it.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dims: Widths of the hidden layers, first to last.
        name: Name of the model.
        condition_dim: Integer or `None`, width of a condition, which the first
            layer then takes beside the pixels.

    Returns:
        A built `keras.Model`, `(batch, *image_shape)` in [-1, 1] to logits
        `(batch, 1)`, float32 under every dtype policy. With `condition_dim`
        its input is `[x, condition]`.

    Example:

    >>> mlp_discriminator((28, 28, 1))

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661),
          whose discriminator had maxout units and dropout instead.
    """
    hidden = []
    for units in hidden_dims:
        hidden += [layers.Dense(units), layers.LeakyReLU(0.2)]
    return _network(
        image_shape,
        condition_dim,
        [*hidden, layers.Dense(1, dtype="float32")],
        name,
    )


def _network(input_shape, condition_dim, dense_layers, name):
    """The layers in a row, on one flat input or on two side by side."""
    flatten = [layers.Flatten()] if len(input_shape) > 1 else []
    if condition_dim is None:
        return Sequential(
            [Input(input_shape), *flatten, *dense_layers], name=name
        )
    x, condition = Input(input_shape), Input((condition_dim,))
    h = flatten[0](x) if flatten else x
    h = layers.Concatenate()([h, condition])
    for layer in dense_layers:
        h = layer(h)
    return Model([x, condition], h, name=name)


def _hidden_layers(hidden_dims, activation, gated):
    if gated:
        return [GatedDense(units) for units in hidden_dims]
    return [layers.Dense(units, activation=activation) for units in hidden_dims]
