import json
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.layers.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    FlattenEvenFirst,
    Squeeze2D,
    coupling_shapes,
)
from keras_gen.layers.invertible import Chain
from keras_gen.networks.coupling import coupling_mlp, coupling_resnet

SPLITS = [
    ((12,), "channels"),
    ((2, 2, 3), "channels"),
    ((2, 2, 3), "checkerboard"),
    ((3, 4, 1), "checkerboard"),
    ((1, 3, 4), "checkerboard"),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def coupling(event_shape, split="channels", kind=AffineCoupling, **arguments):
    """A built coupling whose weights are not small."""
    flip = arguments.get("flip", False)
    kept, changed = coupling_shapes(event_shape, split, flip)
    make = coupling_mlp if len(event_shape) == 1 else coupling_resnet
    units = changed[-1] * (2 if kind is AffineCoupling else 1)
    layer = kind(make(kept, units, 5), split, **arguments)
    layer.build((None, *event_shape))
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.5 * normal(*weight.shape, seed=i))
    return layer


def jacobians(function, x):
    """Derivative of output i by input j, `(batch, i, j)`."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = tf.reshape(function(x), (len(x), -1))
        outputs = tf.unstack(outputs, axis=1)
    rows = [tape.gradient(y, x).numpy().reshape(len(x), -1) for y in outputs]
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("event_shape, split", SPLITS)
@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize("recompute", [False, True])
def test_in_float64_inverses_have_ten_digits(
    event_shape, split, kind, recompute
):
    arguments = {"recompute": recompute, "dtype": "float64"}
    layer = coupling(event_shape, split, kind, **arguments)
    chain = Chain([layer, coupling(event_shape, split, kind, **arguments)])
    chain.build((None, *event_shape))
    x = tf.constant(normal(3, *event_shape), "float64")
    y, log_det = chain.forward(x)
    assert y.dtype == log_det.dtype == "float64"
    np.testing.assert_allclose(chain.inverse(y), x, rtol=0, atol=1e-10)
    bijector = layer.as_bijector()
    np.testing.assert_allclose(
        bijector.inverse(tf.identity(bijector.forward(x))), x, atol=1e-10
    )


@pytest.mark.parametrize("event_shape, split", SPLITS)
@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
def test_the_log_determinant_is_that_of_the_jacobian(event_shape, split, kind):
    for flip in (False, True):
        layer = coupling(event_shape, split, kind, flip=flip)
        x = tf.constant(normal(3, *event_shape))
        y, log_det = layer(x)
        slopes = jacobians(lambda x, layer=layer: layer.forward(x)[0], x)
        sign, wanted = np.linalg.slogdet(slopes.astype("float64"))
        np.testing.assert_array_equal(sign, 1.0)
        np.testing.assert_allclose(log_det, wanted, atol=1e-5)
        if kind is AffineCoupling:
            assert np.ptp(log_det) > 0.01
        np.testing.assert_allclose(layer.inverse(y), x, atol=1e-5)


def test_a_checkerboard_keeps_the_pixels_of_one_colour():
    rows, columns = np.indices((3, 4))
    even = ((rows + columns) % 2 == 0)[..., np.newaxis]
    x = normal(1, 3, 4, 1)
    for flip, kept in ((False, even), (True, ~even)):
        layer = coupling((3, 4, 1), "checkerboard", flip=flip)
        y = layer.forward(tf.constant(x))[0].numpy()
        np.testing.assert_array_equal((y == x)[0], kept)


def test_an_affine_coupling_is_that_of_tfp():
    layer = coupling((6,), max_log_scale=1.5)

    def shift_and_log_scale(kept, units):
        raw, shift = tf.split(layer.network(kept), 2, axis=-1)
        return shift, 1.5 * tf.tanh(raw / 1.5)

    reference = tfp.bijectors.RealNVP(
        num_masked=3, shift_and_log_scale_fn=shift_and_log_scale
    )
    x = tf.constant(normal(4, 6))
    y, log_det = layer.forward(x)
    np.testing.assert_allclose(y, reference.forward(x), rtol=1e-5)
    np.testing.assert_allclose(
        log_det, reference.forward_log_det_jacobian(x, 1), rtol=1e-5
    )


def test_log_scales_are_bounded_whatever_the_network_gives():
    layer = coupling((6,), max_log_scale=1.5)
    layer.network.layers[-1].bias.assign([1e9, -1e9, 1e9, 0.0, 0.0, 0.0])
    x = tf.constant(normal(50, 6))
    a, b = tf.split(x, 2, axis=1)
    y = layer.forward(x)[0][:, 3:] - layer.network(a)[:, 3:]
    np.testing.assert_allclose(
        np.abs(np.log(y / b)), np.full((50, 3), 1.5), rtol=1e-3
    )


# Gradients that compute the hidden layers once more


def gradients(layer, x, mode):
    """Of a loss that uses both outputs, by the input and all weights."""
    weights = layer.trainable_weights

    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, log_det = layer.forward(x, training=True)
            loss = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(log_det**2)
        return tape.gradient(loss, [x, *weights])

    if mode != "eager":
        compute = tf.function(compute, jit_compile=mode == "xla")
    return compute(x)


@pytest.mark.parametrize(
    "mode, event_shape, split",
    [
        ("eager", (2, 2, 3), "checkerboard"),
        ("graph", (3, 4, 1), "checkerboard"),
        ("xla", (7,), "channels"),
    ],
)
@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
def test_recomputed_gradients_are_those_of_the_plain_layer(
    mode, event_shape, split, kind
):
    plain = coupling(event_shape, split, kind)
    lean = coupling(event_shape, split, kind, recompute=True)
    x = tf.constant(normal(3, *event_shape))
    for one, other in zip(plain.forward(x), lean.forward(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    pairs = zip(
        gradients(plain, x, mode), gradients(lean, x, mode), strict=True
    )
    for one, other in pairs:
        assert np.any(one != 0)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


class Remembering(keras.layers.Layer):
    """Passes its input on, and watches whether it is still in memory."""

    seen = []

    def call(self, x):
        y = tf.tanh(x)
        self.seen.append(weakref.ref(y))
        return y


def test_recomputing_keeps_no_hidden_layer_until_the_gradient():
    for recompute in (False, True):
        network = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(3), Remembering()]
        )
        layer = AdditiveCoupling(
            keras.Sequential([network, keras.layers.Dense(3)]),
            recompute=recompute,
        )
        layer.network.build((None, 3))
        layer.build((None, 6))
        Remembering.seen.clear()
        with tf.GradientTape() as tape:
            y, _ = layer.forward(tf.constant(normal(2, 6)))
            loss = tf.reduce_sum(y**2)
        alive = [reference() is not None for reference in Remembering.seen]
        assert alive == [not recompute]
        first = layer.network.trainable_weights[0].value
        assert np.any(tape.gradient(loss, first) != 0)
        assert len(Remembering.seen) == 1 + recompute


def test_xla_does_not_merge_the_second_pass_with_the_first():
    def number_of_products(layer, x):
        @tf.function(jit_compile=True)
        def slopes(x):
            with tf.GradientTape() as tape:
                y, log_det = layer.forward(x)
                loss = tf.reduce_sum(y**2) + tf.reduce_sum(log_det)
            weights = [weight.value for weight in layer.trainable_weights]
            return tape.gradient(loss, weights)

        program = slopes.experimental_get_compiler_ir(x)("optimized_hlo")
        return program.count(" dot(")

    x = tf.constant(normal(2, 6))
    plain = number_of_products(coupling((6,)), x)
    lean = number_of_products(coupling((6,), recompute=True), x)
    assert plain > 0 and lean == plain + 3  # its layers


def test_recomputing_refuses_networks_whose_second_pass_may_differ():
    for layer, variable in (
        (keras.layers.BatchNormalization(), "moving_mean"),
        (keras.layers.Dropout(0.5), "seed_generator_state"),
    ):
        network = keras.Sequential(
            [keras.Input((3,)), layer, keras.layers.Dense(3)]
        )
        with pytest.raises(ValueError, match=f"`recompute.*{variable}"):
            AdditiveCoupling(network, recompute=True).build((None, 6))


# Shapes


def test_squeezing_puts_blocks_of_pixels_into_channels():
    layer = Squeeze2D()
    x = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
    y, log_det = layer(x)
    np.testing.assert_array_equal(
        y[0], [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]
    )
    np.testing.assert_array_equal(log_det, [0.0])
    np.testing.assert_array_equal(layer.inverse(y), x)
    assert layer.output_event_shape == (2, 2, 4)


def test_flattening_puts_numbers_of_even_index_first():
    layer = FlattenEvenFirst()
    x = tf.reshape(tf.range(9.0), (1, 3, 3, 1))
    y, log_det = layer(x)
    np.testing.assert_array_equal(y[0], [0, 2, 4, 6, 8, 1, 3, 5, 7])
    np.testing.assert_array_equal(log_det, [0.0])
    np.testing.assert_array_equal(layer.inverse(y), x)


def test_a_coupling_survives_its_config_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    layer = coupling((2, 2, 2), "checkerboard", flip=True, max_log_scale=0.7)
    x = tf.constant(normal(2, 2, 2, 2))
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    copy.set_weights(layer.get_weights())
    y, log_det = copy(x)
    assert y.dtype == log_det.dtype == tf.float32
    np.testing.assert_array_equal(y, layer.forward(x)[0])
    np.testing.assert_allclose(copy.inverse(y), x, atol=1e-5)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: coupling_shapes((4, 4, 1), "halves"), "split.*halves"),
        (lambda: coupling_shapes((4, 4, 1)), r"two channels.*\(4, 4, 1\)"),
        (lambda: coupling_shapes((1, 1, 4), "checkerboard"), "two pixels"),
        (lambda: coupling_shapes((8,), "checkerboard"), "two pixels"),
        (lambda: Squeeze2D().build((None, 4, 3, 1)), "even.*4, 3, 1"),
        (lambda: coupling((4,), max_log_scale=0.0), "max_log_scale"),
        (
            lambda: AffineCoupling(coupling_mlp((2,), 2)).build((None, 4)),
            r"`network`.*batch, 4",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
