import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.channel_head import ChannelHead


def arrays():
    rng = np.random.default_rng(0)
    h, x = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 3))
    return tf.constant(h, "float32"), tf.constant(x, "float32")


def test_each_group_sees_the_channels_before_it():
    head, (h, x) = ChannelHead(6, num_groups=3), arrays()
    head([h, x])
    for weight in head.trainable_weights:
        weight.assign(tf.random.stateless_normal(weight.shape, (1, 2)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(head([h, x]), axis=(0, 1, 2))
    # Summed over the pixels, which have parts of their own in the gradient.
    slopes = np.asarray(tape.jacobian(y, x)).any(axis=(1, 2, 3))
    wanted = np.arange(3) < np.repeat(np.arange(3), 2)[:, np.newaxis]
    np.testing.assert_array_equal(slopes, wanted)


def test_one_group_is_two_dense_layers_after_relu():
    head, (h, x) = ChannelHead(7), arrays()
    y = head([h, x])
    (kernel, bias), (last, last_bias) = (
        [np.asarray(w) for w in layer.weights]
        for layer in (head.hidden[0], head.output_layers[0])
    )
    hidden = np.maximum(np.maximum(h, 0) @ kernel + bias, 0)
    np.testing.assert_allclose(y, hidden @ last + last_bias, atol=1e-5)


def test_its_output_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    head = ChannelHead(6, num_groups=3)
    assert head(list(arrays())).dtype == "float32"
    assert head.hidden[0].compute_dtype == "float16"


def test_it_survives_its_config_and_refuses_uneven_groups():
    head = ChannelHead(6, num_groups=2)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(head)))
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == head.get_config()
    assert head.compute_output_shape([(2, 3, 4, 5), ()]) == (2, 3, 4, 6)
    with pytest.raises(ValueError, match="`units` must be a multiple"):
        ChannelHead(7, num_groups=3)
