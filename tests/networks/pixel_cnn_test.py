import json
import math

import keras
import numpy as np
import pytest

from keras_gen.networks.pixel_cnn import GatedPixelCNN, plain_pixel_cnn


def randomize(network, scale=0.5):
    rng = np.random.default_rng(0)
    for weight in network.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return network


def inputs_seen(network, shape):
    """Which inputs the outputs depend on: `(*shape, *output_shape)` booleans.

    Each input is changed in an image of its own.
    """
    size = math.prod(shape)
    x = np.random.default_rng(0).random((1, *shape), "float32")
    x = np.repeat(x, size, axis=0)
    changed = np.where(np.eye(size, dtype=bool).reshape(x.shape), 1 - x, x)
    seen = np.asarray(network(changed)) != np.asarray(network(x))
    return seen.reshape(*shape, *seen.shape[1:])


@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("make", [GatedPixelCNN, plain_pixel_cnn])
def test_a_group_sees_earlier_pixels_and_earlier_channels_of_its_own(
    make, num_groups
):
    network = randomize(make((4, 5, 3), 6, 12, 3, num_groups=num_groups))
    seen = inputs_seen(network, (4, 5, 3)).reshape(20, 3, 20, 6)
    seeing, seen_by = np.arange(20)[:, None], np.arange(20)
    seen_by = seen_by[:, None, None, None]
    wanted = seen_by < seeing
    if num_groups == 3:
        channels = np.arange(3)[:, None, None] < np.arange(6) // 2
        wanted = wanted | ((seen_by == seeing) & channels)
    wanted = np.broadcast_to(wanted, seen.shape)
    assert not np.any(seen & ~wanted)
    if make is GatedPixelCNN:
        np.testing.assert_array_equal(seen, wanted)  # there is no blind spot


def test_the_border_of_an_image_is_not_taken_for_grey():
    network = randomize(GatedPixelCNN((3, 3, 1), 2, 4, 2))
    y = np.asarray(network(np.full((1, 3, 3, 1), 0.5, "float32")))
    assert np.ptp(y, axis=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("make", [GatedPixelCNN, plain_pixel_cnn])
def test_the_output_is_float32_under_mixed_precision(make):
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = make((3, 3, 1), 2, 4, 2)
    assert network(np.zeros((2, 3, 3, 1), "float32")).dtype == "float32"


def test_a_network_of_conditions_survives_its_config():
    condition_network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Reshape((2, 2, 1))]
        + [keras.layers.UpSampling2D(2)]
    )
    network = GatedPixelCNN(
        *((4, 4, 1), 3, 4, 2),
        kernel_size=5,
        condition_dim=4,
        condition_network=condition_network,
    )
    assert network.input_shape == [(None, 4, 4, 1), (None, 4)]
    assert network.output_shape == (None, 4, 4, 3)
    config = json.loads(
        json.dumps(keras.saving.serialize_keras_object(network))
    )
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(network.get_weights())
    rng = np.random.default_rng(0)
    x, condition = rng.random((2, 4, 4, 1), "float32"), rng.random((2, 4))
    y = network([x, condition])
    np.testing.assert_array_equal(copy([x, condition]), y)
    condition[:, 3] += 1  # the lower right quarter
    changed = np.any(np.asarray(network([x, condition])) != y, axis=-1)
    np.testing.assert_array_equal(changed[0, 2:, 2:], True)
    np.testing.assert_array_equal(changed[:, :2], False)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: GatedPixelCNN((4, 4, 3), 6, num_groups=2), "`num_groups`"),
        (lambda: GatedPixelCNN((4, 4), 6), "`image_shape`"),
        (lambda: GatedPixelCNN((4, 4, 1), 6, num_layers=0), "`num_layers`"),
        (lambda: GatedPixelCNN((4, 4, 1), 6, kernel_size=4), "`kernel_size`"),
        (
            lambda: GatedPixelCNN(
                *((4, 4, 1), 6),
                condition_dim=3,
                condition_network=keras.Sequential(
                    [keras.Input((3,)), keras.layers.Dense(4)]
                ),
            ),
            "`condition_network`.*4, 4, features",
        ),
        (
            lambda: GatedPixelCNN(
                *((4, 4, 1), 6),
                condition_network=keras.Sequential(
                    [keras.Input((16,)), keras.layers.Reshape((4, 4, 1))]
                ),
            ),
            r"`condition_network`.*condition_dim=None.*\(None, 16\)",
        ),
        (
            lambda: plain_pixel_cnn((4, 4, 3), 6, 9, num_groups=3),
            "`num_filters`",
        ),
        (lambda: plain_pixel_cnn((4, 4, 1), 6, 4, 0), "`num_layers`"),
        (lambda: plain_pixel_cnn((4, 4, 1), 6, 4, -2), "`num_layers`"),
    ],
)
def test_bad_arguments_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
