import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.conditional import ProjectionLogit
from keras_gen.networks import conditional, defaults, mlp

CLASSES = np.eye(5, dtype="float32")[[0, 3, 4]]


def features(kind):
    x = keras.Input((4, 4, 2))
    h = keras.layers.Conv2D(6, 3, activation="relu")(x)
    return keras.Model(x, h if kind == "maps" else keras.layers.Flatten()(h))


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4, 4, 2)).astype("float32")


@pytest.mark.parametrize("kind", ["maps", "vector"])
def test_projection_ends_with_a_projection_logit_of_the_features(kind):
    base = features(kind)
    network = conditional.conditional_discriminator(base, 5)
    head = network.layers[-1]
    assert isinstance(head, ProjectionLogit)
    x = images()
    np.testing.assert_allclose(
        network([x, CLASSES]), head([base(x), CLASSES]), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["maps", "vector"])
def test_concatenated_condition_bends_with_the_image(kind):
    network = conditional.conditional_discriminator(features(kind), 5, "concat")
    assert network.output_shape == (None, 1)
    x, other = images(), np.roll(CLASSES, 1, axis=0)
    change = network([x, CLASSES]) - network([x, other])
    same_change = network([3 * x, CLASSES]) - network([3 * x, other])
    assert np.all(change) and np.any(np.abs(change - same_change) > 1e-4)


@pytest.mark.parametrize("kind", ["maps", "vector"])
def test_auxiliary_discriminator_gives_a_logit_and_one_a_class(kind):
    network = conditional.conditional_discriminator(
        features(kind), 5, "auxiliary"
    )
    assert network.input_shape == (None, 4, 4, 2)
    assert network(images()).shape == (3, 6)


@pytest.mark.parametrize("conditioning", ["projection", "concat", "auxiliary"])
def test_logits_are_float32_and_spectral_norms_one(conditioning):
    keras.config.set_dtype_policy("mixed_float16")
    network = conditional.conditional_discriminator(
        features("maps"), 5, conditioning, spectral_normalization=True
    )
    inputs = images()
    if conditioning != "auxiliary":
        inputs = [inputs, CLASSES]
    judge = tf.function(lambda: network(inputs, training=True), autograph=False)
    for _ in range(30):
        logits = judge()
    assert logits.dtype == "float32"
    wrapped = [
        layer.layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.SpectralNormalization)
    ]
    assert len(wrapped) == (1 if conditioning == "auxiliary" else 2)
    for layer in wrapped:
        kernel = np.array(layer.kernel)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        assert np.linalg.norm(kernel, 2) == pytest.approx(1, rel=0.02)


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match=r"`conditioning`.*'add'"):
        conditional.conditional_discriminator(features("maps"), 5, "add")


def test_features_are_what_the_last_layer_takes():
    network = mlp.mlp_discriminator((2, 2, 1), (7,))
    h = conditional.feature_network(network)
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 1)).astype("float32")
    np.testing.assert_allclose(network.layers[-1](h(x)), network(x), rtol=1e-5)
    projection = conditional.conditional_discriminator(features("vector"), 5)
    h = conditional.feature_network(projection)
    assert h([images(), CLASSES]).shape == (3, 2 * 2 * 6)


def test_what_has_no_weights_is_not_the_last_layer():
    network = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(7),
            keras.layers.Dense(1),
            keras.layers.Activation("linear", dtype="float32"),
        ]
    )
    assert conditional.feature_network(network).output_shape == (None, 7)


def test_features_inside_a_nested_network_are_refused():
    x = keras.Input((2, 2, 1))
    nested = keras.Model(x, mlp.mlp_discriminator((2, 2, 1), (7,))(x))
    with pytest.raises(ValueError, match=r"not a network itself, got Func"):
        conditional.feature_network(nested)


def test_features_of_a_subclassed_model_are_refused():
    class Plain(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"`discriminator`.*Plain"):
        conditional.feature_network(Plain())


@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 16, 3)])
@pytest.mark.parametrize("conditioning", ["projection", "concat", "auxiliary"])
def test_default_networks_take_every_kind_of_condition(shape, conditioning):
    generator = defaults.default_generator(3, shape, 5, conditioning)
    discriminator = defaults.default_discriminator(shape, 5, conditioning)
    x = np.array(generator([np.ones((3, 3)), CLASSES]))
    assert x.shape == (3, *shape)
    if conditioning == "auxiliary":
        assert discriminator(x).shape == (3, 6)
    else:
        assert discriminator([x, CLASSES]).shape == (3, 1)
    assert not any(
        isinstance(layer, keras.layers.BatchNormalization)
        for layer in discriminator._flatten_layers()
    )
