"""Training runs of minutes whose numbers docs/results.md also holds."""

import keras
import pytest

from keras_gen import VAE, datasets, networks

pytestmark = pytest.mark.slow


def test_a_vae_of_5000_digits_costs_at_most_105_nats():
    keras.utils.set_random_seed(0)
    train, test = (
        datasets.load("mnist_5k", split, batch_size=128, binarize="static")
        for split in ("train", "test")
    )
    shape, hidden_dims = datasets.image_shape(train), (300, 300)
    vae = VAE(
        shape,
        40,
        encoder=networks.mlp_encoder(shape, 80, hidden_dims, gated=True),
        decoder=networks.mlp_decoder(40, shape, hidden_dims, gated=True),
        seed=0,
    )
    steps = 60 * len(train)
    decay = keras.optimizers.schedules.CosineDecay(1e-3, steps, 0.1)
    vae.compile(keras.optimizers.Adam(decay))
    vae.fit(train, epochs=60, verbose=0)
    assert vae.evaluate(test, verbose=0, return_dict=True)["loss"] <= 105
