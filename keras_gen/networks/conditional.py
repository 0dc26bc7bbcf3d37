"""Discriminators that are given a condition beside the image."""

import tensorflow as tf
from keras import Input, Model, layers

from keras_gen.layers.conditional import ProjectionLogit


def conditional_discriminator(
    features,
    condition_dim,
    conditioning="projection",
    spectral_normalization=False,
    kernel_initializer="glorot_uniform",
    name="discriminator",
):
    """Completes a network of features to a conditional discriminator.

    - `"projection"`: `layers.ProjectionLogit` of features and condition.
    - `"concat"`: the condition beside the features (repeated over all
      positions of maps); one more layer with LeakyReLU of slope 0.2, dense or
      a 1x1 convolution, as wide as the features; one logit.
    - `"auxiliary"`: it is not given the condition, but tells it: one logit,
      then one a class.

    Args:
        features: A built `keras.Model`, images to features `(batch, units)`
            or maps `(batch, height, width, maps)`.
        condition_dim: Integer, width of the condition.
        conditioning: `"projection"`, `"concat"` or `"auxiliary"`.
        spectral_normalization: Boolean, whether the layers that are added are
            wrapped in `keras.layers.SpectralNormalization`.
        kernel_initializer: Initializer of these layers.
        name: Name of the model.

    Returns:
        A built `keras.Model`, `[x, condition]` to logits `(batch, 1)`, or for
        `"auxiliary"` `x` to `(batch, 1 + condition_dim)`; float32 under every
        dtype policy.

    Raises:
        ValueError: If `conditioning` is none of the three.

    Example:

    >>> features = mlp_encoder((8, 8, 1), 64, activation="leaky_relu")
    >>> conditional_discriminator(features, condition_dim=10)

    Reference:
        - [Conditional Generative Adversarial Nets](
          https://arxiv.org/abs/1411.1784)
        - [Generative Adversarial Text to Image Synthesis](
          https://arxiv.org/abs/1605.05396), on concatenation to maps
        - [cGANs with Projection Discriminator](
          https://arxiv.org/abs/1802.05637)
        - [Conditional Image Synthesis with Auxiliary Classifier GANs](
          https://arxiv.org/abs/1610.09585)
    """
    check_conditioning(conditioning)

    def normalized(layer):
        if not spectral_normalization:
            return layer
        # Its power iteration is in float32, what it wraps in the policy's.
        return layers.SpectralNormalization(layer, dtype="float32")

    def dense(units, **kwargs):
        return normalized(
            layers.Dense(units, kernel_initializer=kernel_initializer, **kwargs)
        )

    x, h = features.inputs[0], features.outputs[0]
    condition = Input((condition_dim,), name="condition")
    if conditioning == "projection":
        logit = ProjectionLogit(spectral_normalization, kernel_initializer)
        return Model([x, condition], logit([h, condition]), name=name)
    if conditioning == "auxiliary":
        logits = dense(1 + condition_dim, dtype="float32")
        return Model(x, logits(layers.Flatten()(h)), name=name)
    beside = condition
    if len(h.shape) == 4:
        height, width = h.shape[1:3]
        beside = layers.RepeatVector(height * width)(condition)
        beside = layers.Reshape((height, width, condition_dim))(beside)
        hidden = normalized(
            layers.Conv2D(h.shape[-1], 1, kernel_initializer=kernel_initializer)
        )
    else:
        hidden = dense(h.shape[-1])
    h = hidden(layers.Concatenate()([h, beside]))
    h = layers.Flatten()(layers.LeakyReLU(0.2)(h))
    return Model([x, condition], dense(1, dtype="float32")(h), name=name)


def check_conditioning(conditioning):
    """Raises a `ValueError` if `conditioning` is no way to give a condition."""
    ways = ("projection", "concat", "auxiliary")
    if conditioning not in ways:
        raise ValueError(
            f"`conditioning` must be one of {ways}, got {conditioning!r}. "
            "'projection' suits most sets."
        )


def feature_network(discriminator):
    """The part of a discriminator before its last layer.

    Args:
        discriminator: A `keras.Sequential` or a `keras.Model(inputs,
            outputs)`.

    Returns:
        A `keras.Model` that shares its layers, from the same inputs to what
        the last layer with weights takes; if that takes several tensors, the
        first.

    Raises:
        ValueError: If it is a model that Keras does not see through, or its
            last layer is itself a network.
    """
    layers_of = getattr(discriminator, "layers", [])
    last = next((layer for layer in reversed(layers_of) if layer.weights), None)
    try:
        if isinstance(last, Model):  # whose features are those inside
            raise ValueError
        h = tf.nest.flatten(last.input)[0]
    except (AttributeError, ValueError):  # of a subclassed model
        raise ValueError(
            "`discriminator` must be a `keras.Sequential` or a "
            "`keras.Model(inputs, outputs)` where its features are asked for, "
            "whose last layer is not a network itself, got "
            f"{type(discriminator).__name__} that ends with "
            f"{type(last).__name__}."
        ) from None
    inputs = discriminator.inputs
    return Model(inputs if len(inputs) > 1 else inputs[0], h)
