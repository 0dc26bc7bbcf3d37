import keras
import numpy as np
import pytest

from keras_gen.networks.coupling import (
    coupling_convnet,
    coupling_mlp,
    coupling_resnet,
)

CASES = [
    (coupling_mlp, (6,), (8,)),
    (coupling_resnet, (4, 3, 2), (4, 3, 8)),
    (coupling_convnet, (4, 3, 2), (4, 3, 8)),
]


@pytest.mark.parametrize("make, shape, output_shape", CASES)
def test_a_network_starts_at_zero_in_float32_and_keeps_the_sides(
    make, shape, output_shape
):
    keras.config.set_dtype_policy("mixed_float16")
    network = make(shape, 8, hidden_dim=4)
    assert network.output_shape == (None, *output_shape)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    y = network(x)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, np.zeros((2, *output_shape)))


def test_the_depth_and_width_are_those_asked_for():
    mlp = coupling_mlp((6,), 8, hidden_dim=5, num_layers=3)
    assert mlp.count_params() == 6 * 5 + 5 + 2 * (5 * 5 + 5) + 5 * 8 + 8
    resnet = coupling_resnet((4, 4, 2), 8, hidden_dim=3, num_blocks=2)
    blocks = 2 * 2 * (9 * 3 * 3 + 3)
    assert resnet.count_params() == 9 * 2 * 3 + 3 + blocks + 3 * 8 + 8
    convnet = coupling_convnet((4, 4, 2), 8, hidden_dim=3)
    assert convnet.count_params() == 57 + (9 + 3) + (9 * 3 * 8 + 8)


def test_a_block_of_a_residual_network_adds_to_its_input():
    network = coupling_resnet((4, 4, 1), 2, hidden_dim=3, num_blocks=1)
    first, one, two, last = (layer for layer in network.layers if layer.weights)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.normal(size=(2, 4, 4, 1)).astype("float32")
    relu = keras.ops.relu
    h = first(x)
    wanted = last(relu(h + two(relu(one(relu(h))))))
    np.testing.assert_allclose(network(x), wanted, rtol=1e-4)


@pytest.mark.parametrize("depth", [0, -1, 1.5])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match="`num_layers`"):
        coupling_mlp((6,), 8, num_layers=depth)
    with pytest.raises(ValueError, match="`num_blocks`"):
        coupling_resnet((4, 4, 2), 8, num_blocks=depth)
