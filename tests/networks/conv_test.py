import keras
import numpy as np
import pytest

from keras_gen.networks import conv


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(16, 16), (28, 28), (29, 35), (5, 1)])
def test_networks_take_and_give_images_of_any_size(sides, channels):
    image_shape = (*sides, channels)
    for depth in (1, 2, 3):
        encoder = conv.conv_encoder(image_shape, 6, filters=(4,) * depth)
        decoder = conv.conv_decoder(3, image_shape, filters=(4,) * depth)
        assert encoder(np.ones((2, *image_shape))).shape == (2, 6)
        assert decoder(np.ones((2, 3))).shape == (2, *image_shape)


def test_decoder_gives_the_numbers_per_pixel_asked_for():
    decoder = conv.conv_decoder(3, (8, 8, 3), output_channels=6)
    assert decoder.output_shape == (None, 8, 8, 6)


def test_outputs_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        vector = conv.conv_encoder((9, 9, 1), 6)(np.ones((2, 9, 9, 1)))
        image = conv.conv_decoder(3, (9, 9, 1))(np.ones((2, 3)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert keras.backend.standardize_dtype(vector.dtype) == "float32"
    assert keras.backend.standardize_dtype(image.dtype) == "float32"


def test_default_networks_have_the_parameters_counted_by_hand():
    encoder = conv.conv_encoder((28, 28, 1), 64)
    decoder = conv.conv_decoder(32, (28, 28, 1))
    kernel = 4 * 4
    assert encoder.count_params() == (
        (kernel + 1) * 32 + (kernel * 32 + 1) * 64 + (7 * 7 * 64 + 1) * 64
    )
    assert decoder.count_params() == (
        33 * 7 * 7 * 64 + kernel * 64 * 32 + 32 + kernel * 32 + 1
    )


def test_decoder_of_odd_images_is_aligned_with_their_encoder():
    # With one kernel the two are transposes: sum(code * E(x)) = sum(D(code) * x)
    # holds if both put pixel and code at the same places, ends included.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 7, 9, 1)).astype("float32")
    code = rng.normal(size=(1, 4, 5, 1)).astype("float32")
    encoder = conv.conv_encoder((7, 9, 1), 1, filters=(1,), activation=None)
    decoder = conv.conv_decoder(1, (7, 9, 1), filters=(1,), activation=None)
    downsample = encoder.layers[0]
    upsample, crop = decoder.layers[-2:]
    kernel = rng.normal(size=(4, 4, 1, 1))
    for layer in (downsample, upsample):
        layer.set_weights([kernel, np.zeros(1)])
    np.testing.assert_allclose(
        np.sum(code * downsample(x)),
        np.sum(crop(upsample(code)) * x),
        rtol=1e-4,
    )


def test_networks_survive_their_configs():
    for network in (
        conv.conv_encoder((9, 9, 1), 6),
        conv.conv_decoder(3, (9, 9, 1)),
    ):
        config = keras.saving.serialize_keras_object(network)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.output_shape == network.output_shape
        assert copy.count_params() == network.count_params()


@pytest.mark.parametrize("image_shape", [(28, 28), (0, 28, 1)])
def test_networks_refuse_what_is_not_an_image_shape(image_shape):
    with pytest.raises(ValueError, match="`image_shape`"):
        conv.conv_encoder(image_shape, 6)
    with pytest.raises(ValueError, match="`image_shape`"):
        conv.conv_decoder(3, image_shape)
