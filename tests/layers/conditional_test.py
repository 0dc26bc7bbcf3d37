import keras
import numpy as np
import pytest

from keras_gen.layers.conditional import (
    ConditionalBatchNormalization,
    ProjectionLogit,
)

RNG = np.random.default_rng(0)


def maps(batch=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 2, (batch, 2, 3, 4)).astype("float32")


def classes(labels, num_classes=3):
    return np.eye(num_classes, dtype="float32")[labels]


def fill(layer):
    for weight in layer.trainable_weights:
        weight.assign(RNG.normal(size=weight.shape))


@pytest.mark.parametrize("shape", [(6, 2, 3, 4), (6, 4)])
def test_every_class_has_its_own_scale_and_shift(shape):
    h = maps().reshape(6, -1)[:, : np.prod(shape[1:])].reshape(shape)
    labels = np.array([0, 1, 2, 2, 1, 0])
    layer = ConditionalBatchNormalization(epsilon=1e-3)
    layer.build([(None, *shape[1:]), (None, 3)])
    fill(layer)
    axes = tuple(range(h.ndim - 1))
    normalized = (h - h.mean(axes)) / np.sqrt(h.var(axes) + 1e-3)
    for i, label in enumerate(labels):
        gamma, beta = np.array(layer.gamma)[label], np.array(layer.beta)[label]
        np.testing.assert_allclose(
            layer([h, classes(labels)], training=True)[i],
            (1 + gamma) * normalized[i] + beta,
            rtol=1e-4,
            atol=1e-5,
        )


def test_at_first_all_classes_are_normalized_alike():
    layer = ConditionalBatchNormalization()
    y = np.array(layer([maps(), classes([0] * 3 + [1] * 3)], training=True))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


def test_sampling_uses_the_moving_statistics():
    layer = ConditionalBatchNormalization(momentum=0.5)
    h, condition = maps(), classes([0, 1, 2, 0, 1, 2])
    layer([h, condition], training=True)
    mean, variance = 0.5 * h.mean((0, 1, 2)), 0.5 + 0.5 * h.var((0, 1, 2))
    one = layer([h[:1], condition[:1]])
    np.testing.assert_allclose(
        one, (h[:1] - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5
    )


def test_vectors_act_linearly():
    layer = ConditionalBatchNormalization()
    h, a, b = maps(), np.full((6, 2), 0.3), RNG.normal(size=(6, 2))
    layer.build([h.shape, a.shape])
    fill(layer)
    a, b = a.astype("float32"), b.astype("float32")
    middle = layer([h, (a + b) / 2], training=True)
    ends = layer([h, a], training=True) + layer([h, b], training=True)
    np.testing.assert_allclose(middle, ends / 2, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 2, 3, 4), (6, 4)])
def test_projection_logit_is_score_plus_inner_product_with_embedding(shape):
    h = maps().reshape(6, -1)[:, : np.prod(shape[1:])].reshape(shape)
    labels = [0, 1, 2, 2, 1, 0]
    layer = ProjectionLogit()
    layer.build([(None, *shape[1:]), (None, 3)])
    fill(layer)
    phi = h.sum(tuple(range(1, h.ndim - 1)))
    kernel, bias = layer.score.get_weights()
    (embedding,) = layer.embedding.get_weights()
    expected = [
        p @ kernel[:, 0] + bias[0] + p @ embedding[label]
        for p, label in zip(phi, labels, strict=True)
    ]
    logits = np.array(layer([h, classes(labels)]))
    assert logits.shape == (6, 1)
    np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-4)


def test_projection_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    h, condition = np.full((6, 9, 9, 4), 1e3), classes([0] * 6)
    logits = ProjectionLogit()([h, condition])
    assert logits.dtype == "float32" and np.all(np.isfinite(logits))


def test_spectral_normalization_bounds_both_maps():
    layer = ProjectionLogit(spectral_normalization=True)
    layer.build([(None, 4), (None, 3)])
    fill(layer)
    for _ in range(30):
        layer([maps()[:, 0, 0], classes([0, 1, 2] * 2)], training=True)
    for wrapped in (layer.score, layer.embedding):
        kernel = np.array(wrapped.layer.kernel)
        assert np.linalg.norm(kernel, 2) == pytest.approx(1, rel=1e-3)


def test_layers_survive_their_configs():
    h, condition = keras.Input((2, 3, 4)), keras.Input((3,))
    normalized = ConditionalBatchNormalization(0.7, 1e-3)([h, condition])
    logit = ProjectionLogit(True, keras.initializers.Constant(0.5))
    network = keras.Model([h, condition], logit([normalized, condition]))
    config = keras.saving.serialize_keras_object(network)
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(network.get_weights())
    inputs = [maps(), classes([0, 1, 2] * 2)]
    np.testing.assert_allclose(copy(inputs), network(inputs))
    _, _, first, last = copy.layers
    assert first.normalization.momentum == 0.7
    assert first.normalization.epsilon == 1e-3
    assert last.spectral_normalization
    assert np.all(np.array(last.embedding.layer.kernel) == 0.5)
