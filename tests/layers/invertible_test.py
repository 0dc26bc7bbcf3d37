import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.layers.coupling import (
    AffineCoupling,
    FlattenEvenFirst,
    Squeeze2D,
)
from keras_gen.layers.invertible import Chain, FactorOut
from keras_gen.layers.invertible_normalization import (
    ActivationNormalization,
    InvertibleConv1x1,
)
from keras_gen.networks.coupling import coupling_mlp

tfb, tfd = tfp.bijectors, tfp.distributions


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(layer, event_shape):
    """The layer with weights that are not those of the start."""
    layer.build((None, *event_shape))
    for i, weight in enumerate(layer.trainable_weights):
        noise = 0.3 * normal(*weight.shape, seed=i)
        weight.assign(np.array(weight) + noise)
    return layer


def scaling(channels, seed=0):
    layer = ActivationNormalization()
    layer.build((None, channels))
    layer.log_scale.assign(normal(channels, seed=seed))
    layer.bias.assign(normal(channels, seed=seed + 1))
    return layer


def multi_scale():
    coarse = Chain([Squeeze2D(), InvertibleConv1x1()])
    return Chain([Squeeze2D(), ActivationNormalization(), FactorOut(coarse)])


def test_a_chain_applies_its_parts_in_turn_and_adds_their_log_determinants():
    first, second = scaling(3), scaling(3, seed=5)
    chain = Chain([first, second])
    chain.build((None, 3))
    x = tf.constant(normal(4, 3))
    y, log_det = chain(x)
    middle, one = first.forward(x)
    wanted, other = second.forward(middle)
    np.testing.assert_allclose(y, wanted, rtol=1e-6)
    np.testing.assert_allclose(log_det, one + other, rtol=1e-6)
    np.testing.assert_allclose(chain.inverse(y), x, atol=1e-5)


def test_a_factored_half_takes_no_part_in_what_follows():
    rest = built(Chain([InvertibleConv1x1()]), (2, 2, 2))
    layer = FactorOut(rest)
    layer.build((None, 2, 2, 3))
    x = tf.constant(normal(5, 2, 2, 3))
    z, log_det = layer.forward(x)
    coarse, wanted = rest.forward(x[..., :2])
    assert layer.output_event_shape == (12,)
    np.testing.assert_array_equal(z[:, :8], tf.reshape(coarse, (5, 8)))
    np.testing.assert_array_equal(z[:, 8:], tf.reshape(x[..., 2:], (5, 4)))
    np.testing.assert_array_equal(log_det, wanted)
    np.testing.assert_allclose(layer.inverse(z), x, atol=1e-5)


def test_a_flow_of_several_scales_survives_its_config():
    flow = built(multi_scale(), (4, 4, 1))
    x = tf.constant(normal(3, 4, 4, 1))
    config = keras.saving.serialize_keras_object(flow)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert isinstance(copy, Chain) and copy.output_event_shape == (16,)
    copy.set_weights(flow.get_weights())
    np.testing.assert_array_equal(copy.forward(x)[0], flow.forward(x)[0])


def test_a_flow_pushes_a_distribution_of_tfp_and_composes_with_its_bijectors():
    flow = built(multi_scale(), (4, 4, 1))
    bijector = tfb.Chain([flow.as_bijector(), tfb.Scale(2.0)])
    latents = tfd.MultivariateNormalDiag(tf.zeros(16))
    pushed = tfd.TransformedDistribution(latents, tfb.Invert(bijector))
    assert pushed.event_shape == (4, 4, 1) and pushed.batch_shape == ()
    x = tf.constant(normal(3, 4, 4, 1))
    z, log_det = flow.forward(2.0 * x)
    wanted = latents.log_prob(z) + log_det + 16 * np.log(2.0)
    np.testing.assert_allclose(pushed.log_prob(x), wanted, rtol=1e-5)
    assert pushed.sample(seed=(0, 1)).shape == (4, 4, 1)
    samples = pushed.sample((2, 3), seed=(0, 1))
    assert samples.shape == (2, 3, 4, 4, 1)
    values = pushed.log_prob(tf.identity(samples))
    flat = flow.forward(2.0 * tf.reshape(samples, (6, 4, 4, 1)))[0]
    np.testing.assert_allclose(
        values,
        tf.reshape(
            latents.log_prob(flat) + log_det[0] + 16 * np.log(2), (2, 3)
        ),
        rtol=1e-4,
    )


def test_a_bijector_knows_its_shapes_and_both_log_determinants():
    network = coupling_mlp((6,), 12, hidden_dim=4)
    layers = [FlattenEvenFirst(), AffineCoupling(network)]
    flow = built(Chain(layers), (2, 2, 3))
    bijector = flow.as_bijector()
    assert bijector.forward_event_shape((7, 2, 2, 3)) == (7, 12)
    assert bijector.inverse_event_shape((7, 12)) == (7, 2, 2, 3)
    shape = bijector.forward_event_shape_tensor((7, 2, 2, 3))
    np.testing.assert_array_equal(shape, (7, 12))
    shape = bijector.inverse_event_shape_tensor((7, 12))
    np.testing.assert_array_equal(shape, (7, 2, 2, 3))
    x = tf.constant(normal(5, 2, 2, 3))
    y, log_det = flow.forward(x)
    np.testing.assert_array_equal(
        bijector.forward_log_det_jacobian(tf.identity(x)), log_det
    )
    np.testing.assert_allclose(
        bijector.inverse_log_det_jacobian(tf.identity(y)), -log_det, rtol=1e-5
    )
    compiled = tf.function(bijector.inverse, jit_compile=True)
    np.testing.assert_allclose(compiled(tf.identity(y)), x, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="not built"):
        FlattenEvenFirst().as_bijector()
    with pytest.raises(ValueError, match=r"FactorOut.*\(2, 2, 1\)"):
        FactorOut(Squeeze2D()).build((None, 2, 2, 1))
