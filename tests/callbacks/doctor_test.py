import warnings

import keras
import numpy as np
import pytest

from keras_gen import (
    GAN,
    VAE,
    LaplacianGAN,
    ProgressiveGAN,
    SemiSupervisedGAN,
    SemiSupervisedVAE,
    datasets,
    losses,
    networks,
)
from keras_gen.callbacks import doctor as checks
from keras_gen.callbacks.doctor import Doctor


class Patient(keras.Model):
    """Has the arguments of a VAE and of a GAN."""

    def __init__(self, beta=1, beta_warmup_steps=0, free_bits=0, packing=1):
        super().__init__()

    def compile(
        self,
        gradient_penalty=None,
        instance_noise=None,
        d_steps=1,
        unrolled_steps=0,
    ):
        pass


def told(epochs, patience=3, model=None):
    """What a `Doctor` says of these logs of epochs."""
    doctor = Doctor(patience)
    doctor.set_model(model or Patient())
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


def accuracies(real, fake):
    return [
        {"d_real_accuracy": one, "d_fake_accuracy": other}
        for one, other in zip(real, fake, strict=True)
    ]


def test_a_discriminator_that_is_always_right_is_told_with_remedies():
    ((epoch, message),) = told(accuracies([0.9, 1, 1, 1, 1], [1, 1, 1, 1, 1]))
    assert epoch == 3
    assert message.startswith("The discriminator wins: `d_real_accuracy`")
    for remedy in ("gradient_penalty", "instance_noise", "d_steps", "rate"):
        assert remedy in message
    assert len(message) <= 600 and message.count(". ") == 0


def test_a_discriminator_that_errs_now_and_then_is_not_told():
    assert told(accuracies([1, 1, 0.98, 1, 1], [1] * 5)) == []
    assert told(accuracies([1] * 5, [0.9] * 5)) == []


def test_a_sure_critic_of_images_that_become_diverse_is_not_told():
    logs = accuracies([1] * 5, [1] * 5)
    for epoch, diversity in zip(
        logs, (0.3, 0.33, 0.37, 0.42, 0.5), strict=True
    ):
        epoch["diversity"] = diversity
    assert told(logs) == []


def diversities(*values):
    return [{"diversity": value} for value in values]


def test_images_that_stay_alike_are_told_with_remedies():
    ((epoch, message),) = told(diversities(0.3, 0.19, 0.1, 0.1, 0.1, 0.0))
    assert epoch == 3
    assert message.startswith("Mode collapse: `diversity`")
    for remedy in ("g_optimizer", "packing", "MinibatchDiscrimination"):
        assert remedy in message
    assert len(message) <= 600 and message.count(". ") == 0


def test_images_that_are_diverse_or_become_so_are_not_told():
    assert told(diversities(0.21, 0.1, 0.1, 0.3, 0.1, 0.1, 0.2)) == []


def test_what_is_not_finite_is_neither_of_them():
    logs = accuracies([np.nan] * 5, [np.nan] * 5)
    assert told(logs) == told(diversities(*[np.nan] * 5)) == []


def test_two_failures_are_two_warnings():
    logs = {"diversity": 0.0, "d_real_accuracy": 1, "d_fake_accuracy": 1}
    said = told([logs] * 6)
    assert [epoch for epoch, _ in said] == [2, 2]
    assert [message[:8] for _, message in said] == ["The disc", "Mode col"]


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


def test_batches_of_one_image_are_no_collapse():
    pair = np.random.default_rng(0).random((2, 1, 2, 2, 1), "float32")
    assert told(diversities(*[float(losses.diversity(*pair))] * 5)) == []


@pytest.mark.parametrize(
    "model_class, remedies",
    [
        (
            GAN,
            "gradient_penalty instance_noise d_steps packing unrolled_steps",
        ),
        (LaplacianGAN, "gradient_penalty d_steps"),
        (ProgressiveGAN, "gradient_penalty d_steps"),
        (SemiSupervisedGAN, "gradient_penalty"),
        (VAE, "beta beta_warmup_steps free_bits"),
        (SemiSupervisedVAE, ""),
    ],
)
def test_only_arguments_that_the_model_has_are_remedies(model_class, remedies):
    all_remedies = (
        "gradient_penalty instance_noise d_steps packing unrolled_steps "
        "beta beta_warmup_steps free_bits"
    ).split()
    arguments = checks.arguments_of(model_class)
    logs = dict(kl=0, d_real_accuracy=1, d_fake_accuracy=1, diversity=0)
    findings = [check(logs, {}, arguments) for check in checks.CHECKS]
    named = [r for r in all_remedies if f"`{r}`" in " ".join(findings)]
    assert named == remedies.split()
    for message in findings:
        assert message.count(". ") == 0 and message.endswith(".")


def test_a_doctor_asks_the_model_at_hand():
    class Other(keras.Model):
        def compile(self, d_steps=1):
            pass

    ((_, message),) = told(accuracies([1], [1]), patience=1, model=Other())
    assert "with fewer `d_steps`, or a smaller learning rate" in message
    assert "instance_noise" not in message


def test_a_check_alone_names_the_remedies_it_is_given():
    logs = {"diversity": 0.0}
    message = checks.mode_collapse(logs, {}, {"packing"})
    assert "train again with a smaller learning rate in" in message
    assert "`packing`, or `layers.MinibatchDiscrimination`" in message
    assert "unrolled_steps" not in message
    message = checks.posterior_collapse({"kl": 0.0}, {}, set())
    assert message.endswith("with a stronger encoder or a weaker decoder.")


def test_arguments_that_a_subclass_hands_on_are_known():
    class Bold(GAN):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

        def compile(self, d_steps=2):  # which hands nothing on
            super().compile(d_steps=d_steps)

    known = checks.arguments_of(Bold)
    assert {"packing", "d_steps"} <= known
    assert "instance_noise" not in known


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


@pytest.mark.parametrize(
    "rates, failure",
    [
        ((3e-2, 3e-5), "The discriminator wins"),
        ((1e-4, 1.0), "Mode collapse"),
        ((2e-4, 2e-4), None),
    ],
    ids=["discriminator", "generator", "healthy"],
)
def test_a_broken_gan_is_told_of_and_a_healthy_one_is_not(rates, failure):
    pytest.importorskip("sklearn")
    train = datasets.load("digits", "train", batch_size=100)
    keras.utils.set_random_seed(0)
    gan = GAN(
        (8, 8, 1),
        8,
        generator=networks.mlp_generator(8, (8, 8, 1), (64,)),
        discriminator=networks.mlp_discriminator((8, 8, 1), (64,)),
        ema=None,
        seed=0,
    )
    optimizers = [keras.optimizers.Adam(rate, beta_1=0.5) for rate in rates]
    gan.compile(*optimizers, jit_compile=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = gan.fit(
            train, epochs=6, verbose=0, callbacks=[Doctor()]
        ).history
    messages = [str(warning.message) for warning in caught]
    failures = {m.split(":")[0] for m in messages if "train again" in m}
    assert failure in failures if failure else not failures
    alike = np.array(history["diversity"]) < 0.2
    assert (alike.sum() >= 3) == (failure == "Mode collapse")
