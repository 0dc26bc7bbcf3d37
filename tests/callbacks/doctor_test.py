import warnings

import keras
import numpy as np
import pytest

from keras_gen import VAE, datasets, networks
from keras_gen.callbacks.doctor import Doctor


class Patient(keras.Model):
    def train_step(self, data):
        return {}


def told(epochs, patience=3):
    """What a `Doctor` says of these logs of epochs."""
    doctor = Doctor(patience)
    doctor.set_model(Patient())
    doctor.on_train_begin()
    said = []
    for epoch, logs in enumerate(epochs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            doctor.on_epoch_end(epoch, logs)
        said += [(epoch, str(warning.message)) for warning in caught]
    return said


def kls(*values, **others):
    return [{"kl": value, **others} for value in values]


def test_a_kl_near_zero_is_told_once_after_three_epochs_of_it():
    ((epoch, message),) = told(kls(4.0, 0.04, 0.03, 0.02, 0.01, 0.0))
    assert epoch == 3
    assert message.startswith("Posterior collapse: `kl`")
    for remedy in ("beta_warmup_steps", "free_bits", "decoder"):
        assert remedy in message
    assert len(message) <= 600 and message.count(". ") == 0


def test_a_kl_that_comes_back_is_not_told():
    assert told(kls(0.04, 0.03, 0.06, 0.04, 0.03, 0.1)) == []


def test_patience_is_the_number_of_epochs():
    assert told(kls(0.01), patience=1)[0][0] == 0
    assert told(kls(*[0.01] * 4), patience=5) == []


def test_no_active_unit_is_told_although_free_bits_hold_kl_up():
    ((epoch, message),) = told(kls(2.0, 2.0, 2.0, 2.0, active_units=0.0))
    assert epoch == 3
    assert "`active_units`" in message


def test_a_kl_that_still_moves_or_one_active_unit_is_not_told():
    assert told(kls(0.2, 0.3, 0.5, 0.8, active_units=0.0)) == []
    assert told(kls(2.0, 2.0, 2.0, 2.0, 2.0, active_units=1.0)) == []


def test_logs_of_other_models_and_none_are_passed_over():
    assert told([{"d_loss": 0.0}, None, {}, {"loss": 0.0}]) == []


def test_each_fit_is_told_anew():
    doctor = Doctor(patience=1)
    doctor.set_model(Patient())
    for _ in range(2):
        doctor.on_train_begin()
        with pytest.warns(UserWarning, match="Posterior collapse"):
            doctor.on_epoch_end(0, {"kl": 0.0})


def test_patience_below_one_is_refused():
    with pytest.raises(ValueError, match="`patience` must be a positive"):
        Doctor(patience=0)


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_a_collapsed_vae_is_told_of_and_a_healthy_one_is_not(beta):
    pytest.importorskip("sklearn")
    train = datasets.load("digits", "train", batch_size=100)
    keras.utils.set_random_seed(0)
    vae = VAE(
        (8, 8, 1),
        8,
        encoder=networks.mlp_encoder((8, 8, 1), 16, (64,)),
        decoder=networks.mlp_decoder(8, (8, 8, 1), (64,)),
        beta=beta,
        seed=0,
    )
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vae.fit(train, epochs=20, verbose=0, callbacks=[Doctor()])
    messages = [str(warning.message) for warning in caught]
    collapsed = any("Posterior collapse" in message for message in messages)
    active = np.sum(np.var(vae.encode(next(iter(train))), axis=0) > 0.01)
    assert collapsed == (beta > 1)
    assert (active == 0) == (beta > 1)
