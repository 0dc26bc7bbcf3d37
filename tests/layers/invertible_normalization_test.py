import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.invertible_normalization import (
    ActivationNormalization,
    InvertibleBatchNormalization,
    InvertibleConv1x1,
)

SHAPE = (2, 2, 3)
NORMALIZATIONS = [ActivationNormalization, InvertibleBatchNormalization]


def images(num_images=50, seed=0):
    """Of channels whose means and deviations differ."""
    x = np.random.default_rng(seed).normal(size=(num_images, *SHAPE))
    return tf.constant(x * [0.1, 1.0, 5.0] + [3.0, 0.0, -7.0], "float32")


def trained(kind, **arguments):
    layer = kind(**arguments)
    layer.build((None, *SHAPE))
    layer.forward(images(), training=True)
    return layer


def log_det_of_jacobian(layer, x):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = tf.reshape(layer.forward(x)[0], (len(x), -1))
        outputs = tf.unstack(outputs, axis=1)
    rows = [tape.gradient(y, x).numpy().reshape(len(x), -1) for y in outputs]
    return np.linalg.slogdet(np.stack(rows, axis=1).astype("float64"))[1]


@pytest.mark.parametrize("kind", [*NORMALIZATIONS, InvertibleConv1x1])
def test_the_log_determinant_is_that_of_the_jacobian(kind):
    layer, x = trained(kind), images(4, seed=1)
    for weight in layer.trainable_weights:
        weight.assign(weight + 0.3)
    y, log_det = layer(x)
    wanted = log_det_of_jacobian(layer, x)
    np.testing.assert_allclose(log_det, wanted, rtol=1e-4)
    assert abs(wanted[0]) > 0.1
    np.testing.assert_allclose(layer.inverse(y), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_the_first_batch_of_training_comes_out_normal(kind):
    layer = kind()
    y, log_det = layer(images(), training=True)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1.0, atol=1e-3)
    variance = np.var(np.float64(images()), (0, 1, 2))
    wanted = -0.5 * 4 * np.sum(np.log(variance))
    np.testing.assert_allclose(log_det, np.full(50, wanted), rtol=1e-3)


def test_activation_normalization_starts_once_from_a_finite_batch():
    layer = ActivationNormalization()
    layer.build((None, *SHAPE))
    before = layer.get_weights()
    layer.forward(images())  # not in training
    layer.forward(images() * np.nan, training=True)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    layer.forward(images(), training=True)
    started = layer.get_weights()
    layer.forward(2.0 * images(), training=True)
    for old, new in zip(started, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(layer.started) == 1


def test_batch_normalization_averages_plainly_and_then_by_its_momentum():
    layer = InvertibleBatchNormalization(momentum=0.5, epsilon=1e-5)
    layer.build((None, *SHAPE))
    batches = [images(seed=i) for i in range(3)]
    means = [np.mean(batch, (0, 1, 2)) for batch in batches]
    for i, batch in enumerate(batches):
        layer.forward(batch, training=True)
        if i == 1:
            np.testing.assert_allclose(
                layer.moving_mean, (means[0] + means[1]) / 2, rtol=1e-5
            )
    wanted = (means[0] + means[1]) / 4 + means[2] / 2
    np.testing.assert_allclose(layer.moving_mean, wanted, rtol=1e-5)
    before = layer.get_weights()
    layer.forward(images() * np.nan, training=True)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_1x1_convolution_starts_as_a_rotation_and_keeps_its_determinant():
    keras.utils.set_random_seed(3)
    layer = InvertibleConv1x1()
    layer.build((None, 2, 2, 6))
    w = layer.matrix.numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(6), atol=1e-5)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    w = layer.matrix.numpy().astype("float64")
    x = rng.normal(size=(3, 2, 2, 6)).astype("float32")
    y, log_det = layer.forward(tf.constant(x))
    np.testing.assert_allclose(y, x @ w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, 4 * np.linalg.slogdet(w)[1], rtol=1e-4)
    np.testing.assert_allclose(layer.inverse(y), x, atol=1e-5)


def test_a_1x1_convolution_in_float64_is_a_rotation_to_its_precision():
    layer = InvertibleConv1x1(dtype="float64")
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 6))
    y, log_det = layer(x)
    assert y.dtype == log_det.dtype == layer.matrix.dtype == "float64"
    w = layer.matrix.numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(log_det, np.zeros(3), atol=1e-12)
    np.testing.assert_allclose(y, x @ w, atol=1e-12)
    np.testing.assert_allclose(layer.inverse(y), x, atol=1e-12)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_normalizations_compute_in_float64(kind):
    layer, x = kind(dtype="float64"), tf.cast(images(), "float64")
    y, log_det = layer(x, training=True)
    assert y.dtype == log_det.dtype == "float64"
    y, _ = layer(x)
    assert y.dtype == "float64"
    np.testing.assert_allclose(layer.inverse(y), x, atol=1e-12)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_replicas_normalize_by_all_of_the_batch(kind, two_replicas):
    one = kind()
    one.build((None, *SHAPE))
    with two_replicas.scope():
        two = kind()
        two.build((None, *SHAPE))
    x = images(8)
    wanted, _ = one.forward(x, training=True)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: x[4 * context.replica_id_in_sync_group :][:4]
    )
    step = tf.function(
        lambda x: two_replicas.run(lambda x: two.forward(x, True)[0], (x,))
    )
    got = two_replicas.experimental_local_results(step(halves))
    np.testing.assert_allclose(tf.concat(got, axis=0), wanted, atol=1e-4)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("kind", [*NORMALIZATIONS, InvertibleConv1x1])
def test_the_layers_survive_their_config_and_compile(kind):
    layer = trained(kind)
    copy = kind.from_config(layer.get_config())
    copy.build((None, *SHAPE))
    copy.set_weights(layer.get_weights())
    x = images(4, seed=1)
    y, log_det = tf.function(copy.forward, jit_compile=True)(x)
    wanted, of_wanted = layer.forward(x)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, of_wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: ActivationNormalization(epsilon=0.0), "epsilon"),
        (lambda: InvertibleBatchNormalization(epsilon=-1.0), "epsilon"),
        (lambda: InvertibleBatchNormalization(momentum=1.5), "momentum"),
    ],
)
def test_bad_arguments_are_refused(make, argument):
    with pytest.raises(ValueError, match=argument):
        make()
