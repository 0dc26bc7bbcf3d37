"""Networks that are no functional models are exported as those are."""

import numpy as np
import pytest
import tensorflow as tf

from keras_gen import networks
from keras_gen.networks.pixel_cnn import GatedPixelCNN
from keras_gen.networks.pixel_rnn import PixelLSTM

SHAPE = (8, 8, 1)
MAPS = {"fmap_base": 8, "fmap_max": 2}
NETWORKS = {
    "generator": lambda: networks.progressive_generator(3, SHAPE, **MAPS),
    "conditional_generator": lambda: networks.progressive_generator(
        3, SHAPE, condition_dim=2, **MAPS
    ),
    "discriminator": lambda: networks.progressive_discriminator(SHAPE, **MAPS),
    "pixel_cnn": lambda: GatedPixelCNN(SHAPE, 1, 4, 1),
    "pixel_lstm": lambda: PixelLSTM(SHAPE, 1, 4, 1),
}


def inputs_of(network):
    def noise(shape):
        draw = np.random.default_rng(0).random((2, *shape[1:]), "float32")
        return tf.constant(draw)

    shapes = network.input_shape
    if isinstance(shapes, list):
        return [noise(shape) for shape in shapes]
    return noise(shapes)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_was_never_called_is_exported(name, tmp_path):
    network = NETWORKS[name]()
    network.export(tmp_path, verbose=False)
    x = inputs_of(network)
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.serve(x), network(x), atol=1e-5)


@pytest.mark.filterwarnings(r"ignore:\s+Warning. tf.lite.Interpreter is")
def test_a_network_is_converted_for_phones(tmp_path):
    network = NETWORKS["generator"]()
    path = str(tmp_path / "generator.tflite")
    network.export(path, format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(path)
    (given,), (taken,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    z = inputs_of(network)
    interpreter.resize_tensor_input(given["index"], z.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], z)
    interpreter.invoke()
    images = interpreter.get_tensor(taken["index"])
    np.testing.assert_allclose(images, network(z), atol=1e-4)
