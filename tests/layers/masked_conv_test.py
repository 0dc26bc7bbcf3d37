import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.masked_conv import GatedMaskedConv2D, MaskedConv2D


def images(*shape, seed=0):
    return tf.constant(
        np.random.default_rng(seed).normal(size=shape), "float32"
    )


def randomize(layer, scale=0.7):
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))


def pixels_seen(function, x, row, column):
    """Where the gradient of the features of one pixel is not zero."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(function(x)[0, row, column] ** 2)
    return np.any(np.asarray(tape.gradient(y, x))[0] != 0, axis=-1)


def earlier(shape, row, column, itself):
    """The pixels before one in raster order, and with `itself` that one."""
    place = np.arange(shape[0] * shape[1]).reshape(shape)
    return place < row * shape[1] + column + itself


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_a_pixel_sees_the_earlier_ones_under_the_kernel(mask_type):
    layer, x = MaskedConv2D(4, 3, mask_type), images(1, 5, 5, 2)
    randomize(layer(x) is not None and layer)
    window = np.zeros((5, 5), bool)
    window[1:4, 1:4] = True
    seen = pixels_seen(layer, x, 2, 2)
    wanted = window & earlier((5, 5), 2, 2, mask_type == "B")
    np.testing.assert_array_equal(seen, wanted)


def test_it_is_a_convolution_with_zeros_where_the_mask_is():
    layer, x = (
        MaskedConv2D(6, (3, 5), "A", activation="tanh"),
        images(2, 4, 6, 3),
    )
    y = layer(x)
    kernel = np.zeros((3, 5, 3, 6), "float32")
    kernel[:2] = np.asarray(layer.kernel)
    kernel[1, 2:] = 0
    expected = tf.nn.conv2d(x, kernel, 1, "SAME") + layer.bias
    np.testing.assert_allclose(y, np.tanh(expected), atol=1e-5)


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_groups_see_the_channels_before_and_in_later_layers_their_own(
    mask_type,
):
    layer, x = MaskedConv2D(6, 3, mask_type, num_groups=3), images(1, 3, 3, 3)
    layer(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)[0, 1, 1]
    slopes = np.asarray(tape.jacobian(y, x))[:, 0, 1, 1]  # (filters, channels)
    groups = np.repeat(np.arange(3), 2)[:, np.newaxis]
    wanted = np.arange(3) < groups + (mask_type == "B")
    np.testing.assert_array_equal(slopes != 0, wanted)


def stacked(layers, x):
    v = h = x
    for layer in layers:
        v, h = layer([v, h])
    return h


def test_gated_layers_have_no_blind_spot_and_masked_ones_do():
    x = images(1, 7, 7, 1)
    gated = [GatedMaskedConv2D(3, 3, "A")]
    gated += [GatedMaskedConv2D(3, 3) for _ in range(4)]
    plain = [MaskedConv2D(3, 3, "A", activation="tanh")]
    plain += [MaskedConv2D(3, 3, activation="tanh") for _ in range(4)]
    stacked(gated, x), keras.Sequential(plain)(x)
    for layer in gated + plain:
        randomize(layer)
    wanted = earlier((7, 7), 5, 2, itself=False)
    wanted &= np.abs(np.arange(7) - 2) <= 5
    seen = pixels_seen(lambda x: stacked(gated, x), x, 5, 2)
    np.testing.assert_array_equal(seen, wanted)
    missed = wanted & ~pixels_seen(keras.Sequential(plain), x, 5, 2)
    # The corner of the kernel cuts off what is right of its diagonal.
    rows, columns = np.nonzero(missed)
    assert len(rows) > 3 and np.all(columns - 2 > 5 - rows)


def test_gated_layer_computes_what_its_formula_says():
    layer = GatedMaskedConv2D(2, 3)
    v, h, condition = (
        images(2, 4, 3, 2),
        images(2, 4, 3, 2, seed=1),
        images(2, 5),
    )
    layer([v, h, condition])
    randomize(layer)
    new_v, new_h = (np.asarray(y) for y in layer([v, h, condition]))
    v, h, condition = (np.asarray(y) for y in (v, h, condition))
    kernel, bias = (np.asarray(w) for w in layer.vertical.weights)
    across = np.asarray(layer.horizontal.kernel)[0]
    link, link_bias = (np.asarray(w) for w in layer.link.weights)
    last, last_bias = (np.asarray(w) for w in layer.projection.weights)
    more = condition @ np.asarray(layer.conditioning.kernel)

    def gate(a):
        return np.tanh(a[..., :2]) / (1 + np.exp(-a[..., 2:]))

    v = np.pad(v, ((0, 0), (1, 0), (1, 1), (0, 0)))
    left = np.pad(h, ((0, 0), (0, 0), (1, 0), (0, 0)))
    for i in range(4):
        for j in range(3):
            window = v[:, i : i + 2, j : j + 3]
            a = np.einsum("brcf,rcfg->bg", window, kernel) + bias + more[:, :4]
            b = np.einsum("bcf,cfg->bg", left[:, i, j : j + 2], across)
            b += a @ link + link_bias + more[:, 4:]
            wanted = h[:, i, j] + gate(b) @ last + last_bias
            np.testing.assert_allclose(new_v[:, i, j], gate(a), atol=1e-5)
            np.testing.assert_allclose(new_h[:, i, j], wanted, atol=1e-4)


def test_a_map_as_condition_acts_on_its_own_pixels():
    layer, x = GatedMaskedConv2D(2, 3), images(1, 3, 4, 2)
    condition = images(1, 3, 4, 5)
    layer([x, x, condition])
    changed = np.array(condition)
    changed[0, 1, 2] += 1.0
    for y, z in zip(
        layer([x, x, condition]), layer([x, x, changed]), strict=True
    ):
        differs = np.any(np.asarray(y) != np.asarray(z), axis=-1)[0]
        assert differs[1, 2] and differs.sum() == 1
    uniform = layer([x, x, tf.broadcast_to(condition[:, :1, :1], (1, 3, 4, 5))])
    vector = layer([x, x, condition[:, 0, 0]])
    np.testing.assert_allclose(uniform[1], vector[1], atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        MaskedConv2D(6, (3, 5), "A", num_groups=3, activation="relu"),
        GatedMaskedConv2D(4, 5, "A"),
    ],
    ids=["masked", "gated"],
)
def test_a_layer_survives_its_config(layer):
    x = images(1, 4, 4, 3)
    x = [x, x] if isinstance(layer, GatedMaskedConv2D) else x
    y = layer(x)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(config)
    copy(x)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    tf.nest.map_structure(np.testing.assert_array_equal, copy(x), y)
    shapes = [v.shape for v in x] if isinstance(x, list) else x.shape
    shapes = layer.compute_output_shape(shapes)
    flat = [shapes] if isinstance(shapes[0], int) else shapes
    assert [tuple(v.shape) for v in tf.nest.flatten(y)] == flat


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: MaskedConv2D(4, 4), "`kernel_size` must be odd"),
        (lambda: MaskedConv2D(4, (3, 3, 3)), "`kernel_size`"),
        (lambda: MaskedConv2D(4, 3, "C"), "`mask_type`"),
        (lambda: MaskedConv2D(4, 3, num_groups=3), "`filters`.*12"),
        (lambda: GatedMaskedConv2D(4, 1), "`kernel_size` must be at least 3"),
        (lambda: GatedMaskedConv2D(4, 2), "`kernel_size` must be odd"),
        (lambda: GatedMaskedConv2D(4, 3, "a"), "`mask_type`"),
        (lambda: GatedMaskedConv2D(0, 3), "`filters`"),
        (
            lambda: MaskedConv2D(6, 3, num_groups=3)(images(1, 3, 3, 4)),
            "`num_groups` 3 channels, got 4",
        ),
        (lambda: MaskedConv2D(4, 3, strides=2), "`strides`.*got '2'"),
        (lambda: MaskedConv2D(4, 3, padding="same"), "`padding`.*'same'"),
        (
            lambda: MaskedConv2D(4, 3, data_format="channels_first"),
            "`data_format`.*channels_first",
        ),
        (lambda: MaskedConv2D(4, 3, dilation_rate=2), "`dilation_rate`"),
        (lambda: MaskedConv2D(4, 3, groups=2), "`groups`"),
    ],
)
def test_bad_arguments_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
