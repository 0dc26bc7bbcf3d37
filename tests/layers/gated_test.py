import keras
import numpy as np
import pytest
from scipy.special import expit

from keras_gen.layers.gated import GatedDense


def test_gated_dense_is_a_dense_layer_times_its_gate():
    layer = GatedDense(3)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(2, 5, 3))
    b, c = rng.normal(size=(2, 3))
    layer.set_weights([np.hstack([w, v]), np.hstack([b, c])])
    np.testing.assert_allclose(
        layer(x), (x @ w + b) * expit(x @ v + c), rtol=1e-5
    )


def test_gated_dense_keeps_the_leading_dimensions():
    layer = GatedDense(3)
    assert layer(np.ones((2, 7, 5), "float32")).shape == (2, 7, 3)
    assert layer.compute_output_shape((None, 7, 5)) == (None, 7, 3)


def test_an_open_gate_passes_signals_of_unit_size():
    # The linear path has variance 2 (He), the gate is near one half.
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 400)).astype("float32")
    assert 0.6 < np.std(GatedDense(400)(x)) < 1.0


def test_gated_dense_survives_its_config():
    layer = GatedDense(3, kernel_initializer="zeros", name="gate")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert isinstance(copy, GatedDense)
    assert copy.get_config() == layer.get_config()
    assert not np.any(copy(np.ones((1, 2))))


@pytest.mark.parametrize("units", [0, -1, 2.5, None])
def test_gated_dense_refuses_widths_that_are_no_positive_integers(units):
    with pytest.raises(ValueError, match="`units`"):
        GatedDense(units)
