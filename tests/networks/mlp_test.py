import keras
import numpy as np
import pytest

from keras_gen.layers.gated import GatedDense
from keras_gen.networks import mlp


def all_networks(image_shape):
    """Every network, its input shape and its output shape."""
    *sides, channels = image_shape
    for gated in (False, True):
        encoder = mlp.mlp_encoder(image_shape, 6, (8, 7), gated=gated)
        decoder = mlp.mlp_decoder(3, image_shape, (7, 8), gated=gated)
        wide = mlp.mlp_decoder(
            3, image_shape, gated=gated, output_channels=2 * channels
        )
        yield encoder, image_shape, (6,)
        yield decoder, (3,), image_shape
        yield wide, (3,), (*sides, 2 * channels)
    yield mlp.mlp_generator(3, image_shape, (7,)), (3,), image_shape
    yield mlp.mlp_discriminator(image_shape, (8, 7)), image_shape, (1,)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (16, 20, 3)])
def test_networks_map_the_shapes_they_document(image_shape):
    for network, input_shape, output_shape in all_networks(image_shape):
        assert network.built
        assert network.output_shape == (None, *output_shape)
        y = network(np.ones((2, *input_shape), "float32"))
        assert y.shape == (2, *output_shape)


def test_outputs_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    for network, input_shape, _ in all_networks((4, 4, 1)):
        y = network(np.ones((2, *input_shape), "float32"))
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        assert any(x.compute_dtype == "float16" for x in network.layers)


def test_published_vae_has_the_parameters_counted_by_hand():
    encoder = mlp.mlp_encoder((28, 28, 1), 80, (300, 300), gated=True)
    decoder = mlp.mlp_decoder(40, (28, 28, 1), (300, 300), gated=True)
    # A gated layer has two affine maps; 2 * 40 outputs, then 784.
    assert encoder.count_params() == 2 * 785 * 300 + 2 * 301 * 300 + 301 * 80
    assert decoder.count_params() == 2 * 41 * 300 + 2 * 301 * 300 + 301 * 784
    assert sum(isinstance(x, GatedDense) for x in encoder.layers) == 2


def test_encoder_without_hidden_layers_is_an_affine_map_of_the_pixels():
    encoder = mlp.mlp_encoder((2, 3, 1), 4, hidden_dims=())
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 1)).astype("float32")
    kernel, bias = encoder.get_weights()
    np.testing.assert_allclose(
        encoder(x), x.reshape(5, 6) @ kernel + bias, rtol=1e-5, atol=1e-6
    )


def test_activation_is_applied_to_hidden_layers_only():
    network = mlp.mlp_decoder(2, (2, 2, 1), (3,), activation="tanh")
    hidden, last = (x for x in network.layers if hasattr(x, "activation"))
    assert hidden.activation is keras.activations.tanh
    assert last.activation is keras.activations.linear


def test_generator_stays_within_minus_one_and_one():
    generator = mlp.mlp_generator(4, (3, 3, 1), (16,))
    z = 1e3 * np.random.default_rng(0).normal(size=(64, 4))
    images = np.asarray(generator(z))
    assert images.min() < -0.99 and images.max() > 0.99
    assert np.abs(images).max() <= 1


def test_discriminator_leaks_a_fifth_of_negative_signals():
    network = mlp.mlp_discriminator((1, 1, 1), (1,))
    network.set_weights(2 * [np.ones((1, 1)), np.zeros(1)])
    logits = network(np.array([-5.0, 5.0]).reshape(2, 1, 1, 1))
    np.testing.assert_allclose(np.ravel(logits), [-1, 5], rtol=1e-6)


def test_networks_survive_their_configs():
    for network, _, _ in all_networks((4, 4, 1)):
        config = keras.saving.serialize_keras_object(network)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.name == network.name
        assert copy.output_shape == network.output_shape
        assert copy.count_params() == network.count_params()


def conditional_networks(image_shape, width):
    """Every network of two inputs, and the shape of its first and output."""
    yield (
        mlp.mlp_encoder(image_shape, 6, (8, 7), condition_dim=width),
        image_shape,
        (6,),
    )
    yield (
        mlp.mlp_decoder(3, image_shape, (7,), gated=True, condition_dim=width),
        (3,),
        image_shape,
    )
    yield (
        mlp.mlp_generator(3, image_shape, (7,), condition_dim=width),
        (3,),
        image_shape,
    )
    yield (
        mlp.mlp_discriminator(image_shape, (8, 7), condition_dim=width),
        image_shape,
        (1,),
    )


def test_a_condition_is_a_second_input():
    for network, input_shape, output_shape in conditional_networks(
        (4, 4, 2), 5
    ):
        assert network.built and len(network.inputs) == 2
        rng = np.random.default_rng(0)
        x = rng.random((3, *input_shape), "float32")
        condition = rng.random((3, 5), "float32")
        y = np.asarray(network([x, condition]))
        assert y.shape == (3, *output_shape)
        for other in ([2 * x, condition], [x, 2 * condition]):
            assert np.any(np.asarray(network(other)) != y)


def test_a_condition_stands_beside_what_the_first_layer_sees():
    encoder = mlp.mlp_encoder((2, 3, 1), 4, (), condition_dim=5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 2, 3, 1)).astype("float32")
    condition = rng.normal(size=(7, 5)).astype("float32")
    kernel, bias = encoder.get_weights()
    beside = np.concatenate([x.reshape(7, 6), condition], axis=1)
    np.testing.assert_allclose(
        encoder([x, condition]), beside @ kernel + bias, rtol=1e-4, atol=1e-5
    )


def test_networks_of_two_inputs_are_float32_outside_and_survive_configs():
    keras.config.set_dtype_policy("mixed_float16")
    for network, input_shape, _ in conditional_networks((4, 4, 1), 3):
        inputs = [np.ones((2, *input_shape)), np.ones((2, 3))]
        y = network(inputs)
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        config = keras.saving.serialize_keras_object(network)
        copy = keras.saving.deserialize_keras_object(config)
        copy.set_weights(network.get_weights())
        np.testing.assert_array_equal(copy(inputs), y)
