"""What every model must do. A new model is one more line in `MODELS`."""

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import (
    DBM,
    FVBN,
    GAN,
    GSN,
    MADE,
    NADE,
    NICE,
    PCA,
    RBM,
    VAE,
    Autoencoder,
    Glow,
    GrowthSchedule,
    LaplacianGAN,
    PixelCNN,
    PixelRNN,
    ProgressiveGAN,
    RealNVP,
    layers,
    networks,
)
from keras_gen.callbacks import Checkpoint

SHAPE = (8, 8, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """How to make a small model, and the names of its optimizers."""

    make: Callable
    optimizers: tuple = ("optimizer",)
    arguments: dict = dataclasses.field(default_factory=dict)

    def compiled(self, optimizer=keras.optimizers.Adam, seed=0, **arguments):
        keras.utils.set_random_seed(seed)
        model = self.make()
        optimizers = {name: optimizer(1e-2) for name in self.optimizers}
        defaults = {"jit_compile": False, **self.arguments}
        if not tf.distribute.has_strategy():
            defaults["steps_per_execution"] = 1
        model.compile(**optimizers, **{**defaults, **arguments})
        return model


def small_vae(likelihood="bernoulli"):
    maps = 1 if likelihood == "bernoulli" else 2
    return VAE(
        SHAPE,
        3,
        likelihood=likelihood,
        encoder=networks.mlp_encoder(SHAPE, 6, (16,)),
        decoder=networks.mlp_decoder(3, SHAPE, (16,), output_channels=maps),
        seed=1,
    )


def small_autoencoder(**arguments):
    return Autoencoder(
        SHAPE,
        3,
        encoder=networks.mlp_encoder(SHAPE, 3, (16,)),
        decoder=networks.mlp_decoder(3, SHAPE, (16,)),
        seed=1,
        **arguments,
    )


def shallow_autoencoder(**arguments):
    return Autoencoder(SHAPE, 9, seed=1, **arguments)


def composed_vae(posterior, latent_dim=3, **arguments):
    return VAE(
        SHAPE,
        latent_dim,
        posterior=posterior,
        encoder=networks.mlp_encoder(SHAPE, posterior.num_parameters, (16,)),
        decoder=networks.mlp_decoder(posterior.z_dim, SHAPE, (16,)),
        seed=1,
        **arguments,
    )


def mixture_vae():
    return composed_vae(
        layers.MixturePosterior(3, num_components=2),
        prior=layers.VampPrior(SHAPE, num_components=4),
        objective="iwae",
        num_importance_samples=2,
    )


def flow_vae():
    return composed_vae(
        layers.FlowPosterior(3, hidden_dim=8),
        prior=layers.MixturePrior(3, num_components=4),
        beta_warmup_steps=10,
    )


def categorical_vae():
    return composed_vae(
        layers.CategoricalPosterior(3, 4),
        latent="categorical",
        num_categories=4,
        temperature_decay=0.1,
    )


def small_gan():
    return GAN(
        SHAPE,
        3,
        generator=networks.mlp_generator(3, SHAPE, (16,)),
        discriminator=networks.mlp_discriminator(SHAPE, (16,)),
        ema=0.9,
        seed=1,
    )


def small_dcgan():
    return GAN(
        SHAPE,
        3,
        generator=networks.dcgan_generator(3, SHAPE, filters=4),
        discriminator=networks.dcgan_discriminator(
            SHAPE, filters=4, batch_normalization=False
        ),
        seed=1,
    )


def small_laplacian_gan():
    coarse = (4, 4, 1)
    return LaplacianGAN(
        SHAPE,
        3,
        2,
        generators=[
            networks.laplacian_generator(SHAPE, 4),
            networks.mlp_generator(3, coarse, (16,)),
        ],
        discriminators=[
            networks.laplacian_discriminator(SHAPE, 4),
            networks.mlp_discriminator(coarse, (16,)),
        ],
        seed=1,
    )


def small_progressive_gan():
    # Groups are of one replica's images: none, for two replicas to be as one.
    maps = {"fmap_base": 8, "fmap_max": 2}
    judge = networks.progressive_discriminator(SHAPE, group_size=1, **maps)
    return ProgressiveGAN(SHAPE, 3, discriminator=judge, seed=1, **maps)


def small_dbm():
    return DBM(
        SHAPE,
        (6, 5),
        num_chains=8,
        gibbs_steps=1,
        mean_field_steps=3,
        pretrain_steps=1,
        seed=1,
    )


def small_pixel_rnn():
    options = {"kind": "diagonal_bilstm", "likelihood": "bernoulli", "seed": 1}
    return PixelRNN(SHAPE, 3, 1, **options)


TWO = ("d_optimizer", "g_optimizer")
WGAN_GP = {"loss": "wasserstein", "gradient_penalty": 10.0, "d_steps": 2}
MODELS = {
    "VAE": Case(small_vae),
    "VAE-gaussian": Case(lambda: small_vae("gaussian")),
    "VAE-mixture": Case(mixture_vae),
    "VAE-flow": Case(flow_vae),
    "VAE-categorical": Case(categorical_vae),
    "VAE-discretized_logistic": Case(lambda: small_vae("discretized_logistic")),
    "GAN": Case(small_gan, TWO),
    "GAN-wasserstein": Case(small_gan, TWO, WGAN_GP),
    "GAN-convolutional": Case(small_dcgan, TWO),
    "LaplacianGAN-two_levels": Case(small_laplacian_gan, TWO),
    # In one fade, where all weights learn.
    "ProgressiveGAN-fading": Case(
        small_progressive_gan,
        TWO,
        {"schedule": GrowthSchedule(1000, 0, batch_size=32)},
    ),
    "NADE": Case(lambda: NADE(SHAPE, 8, seed=1)),
    "NADE-orders": Case(lambda: NADE(SHAPE, 8, num_orders=2, seed=1)),
    "NADE-made": Case(lambda: MADE(SHAPE, (8,), num_masks=2, seed=1)),
    "NADE-fvbn": Case(lambda: FVBN(SHAPE, seed=1)),
    "PixelCNN-categorical": Case(lambda: PixelCNN(SHAPE, 4, 2, seed=1)),
    "PixelRNN-diagonal": Case(small_pixel_rnn),
    "NICE-additive": Case(lambda: NICE(SHAPE, 2, 1, 8, num_layers=1, seed=1)),
    "RealNVP-two_scales": Case(
        lambda: RealNVP(SHAPE, 1, 2, hidden_dim=4, num_blocks=1, seed=1)
    ),
    "Glow-two_scales": Case(lambda: Glow(SHAPE, 1, 2, hidden_dim=4, seed=1)),
    "RBM-binary": Case(lambda: RBM(SHAPE, 6, num_chains=8, seed=1)),
    "RBM-gaussian": Case(
        lambda: RBM(SHAPE, 6, likelihood="gaussian", num_chains=0, seed=1)
    ),
    "DBM-two_layers": Case(small_dbm),
    "GSN-two_layers": Case(
        lambda: GSN(SHAPE, (8, 4), walkback_steps=2, seed=1)
    ),
    "PCA": Case(lambda: PCA(SHAPE, 3, seed=1), ()),
    "Autoencoder": Case(small_autoencoder),
    "Autoencoder-linear": Case(lambda: shallow_autoencoder(linear=True)),
    "Autoencoder-denoising": Case(
        lambda: small_autoencoder(
            corruption=layers.MaskingNoise(0.3, seed=2), contractive=0.1
        )
    ),
    "Autoencoder-sparse": Case(
        lambda: shallow_autoencoder(sparsity=0.1, contractive=0.1)
    ),
    "Autoencoder-k-sparse": Case(
        lambda: shallow_autoencoder(
            sparsity=layers.KSparse(2, 1.5, anneal_steps=4)
        )
    ),
    "Autoencoder-stochastic": Case(
        lambda: shallow_autoencoder(code_noise=0.1, likelihood="gaussian")
    ),
}


# Of a variant, whose name goes on after a dash, only what its own algorithm
# could break is asked; what the base class does for all, of each class once.
CLASSES = [name for name in MODELS if "-" not in name]
# Those that compile the longest, or differ little from another one, are left
# to the slow tests.
SLOW = {
    "DBM-two_layers",
    "GSN-two_layers",
    "Glow-two_scales",
    "LaplacianGAN-two_levels",
    "NADE-orders",
    "NICE-additive",
    "PixelRNN-diagonal",
    "RBM-gaussian",
    "RealNVP-two_scales",
    "VAE-discretized_logistic",
    "VAE-flow",
    "VAE-gaussian",
}
CASES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW), id=name)
    for name in MODELS
]


# Of the module, for the tests of a case to follow each other: see `plain`.
@pytest.fixture(scope="module")
def case(request):
    return MODELS[request.param]


@pytest.fixture
def class_case(case):
    return case


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        names = CLASSES if "class_case" in metafunc.fixturenames else CASES
        metafunc.parametrize("case", names, indirect=True)


@pytest.fixture(scope="module")
def plain(case):
    """A case trained plainly: its model, the weights then, and the history.

    To train it takes longer than what is asked of it, hence one for all tests
    of a case. They may train the model further, but not change its parts.
    """
    model = case.compiled()
    history = model.fit(images(), batch_size=8, epochs=2, verbose=0).history
    return model, weights_of(model), history


def images(num_images=32, seed=0):
    return np.random.default_rng(seed).random((num_images, *SHAPE), "float32")


def variables_of(model):
    """All that training changes."""
    variables = [*model.variables]
    for optimizer in model.optimizers:
        variables += optimizer.variables
    return variables


def state_of(model):
    return [np.array(variable) for variable in variables_of(model)]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_trained(before, after):
    # All but one: the last bias of a Wasserstein critic cancels out.
    changed = [np.any(a != b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) >= len(changed) - 1


def weights_of(model):
    return [np.array(weight) for weight in model.trainable_weights]


def some_images(model):
    """Images that a model makes, by the verb that it has."""
    if hasattr(model, "sample"):
        return model.sample(3, seed=0)
    return model.reconstruct(images(3, seed=5))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return images(8, seed=index)


# Data


def test_fit_takes_what_keras_takes(class_case):
    kinds = [
        images(seed=0),
        (255 * images(seed=1)).astype("uint8"),
        tf.data.Dataset.from_tensor_slices(images(seed=2)).batch(8),
        Batches(),
    ]
    model = class_case.compiled()
    for k, data in enumerate(kinds):
        before = weights_of(model)
        history = model.fit(
            data,
            batch_size=8 if isinstance(data, np.ndarray) else None,
            epochs=2,
            validation_data=data,
            verbose=0,
        ).history
        assert {"loss", "val_loss", "skipped_updates"} <= set(history)
        assert "val_skipped_updates" not in history
        assert all(np.all(np.isfinite(v)) for v in history.values())
        for optimizer in model.optimizers[:1]:
            assert int(optimizer.iterations) == 8 * (k + 1)
        assert_trained(before, weights_of(model))


@pytest.mark.parametrize(
    "bad, word",
    [
        (images() * 255, "255"),
        (images()[..., 0], "channel"),
        (images()[:, :4], "8, 8, 1)"),
        (np.full((4, *SHAPE), np.nan, "float32"), "NaN"),
        (tf.data.Dataset.from_tensor_slices(images()), "batch"),
        (None, "None"),
        ("folder", "datasets.load"),
    ],
)
def test_bad_images_are_refused_before_training(class_case, bad, word):
    model = class_case.compiled()
    before = state_of(model)
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="`x`") as error:
            method(bad, verbose=0)
        assert word in str(error.value) and len(str(error.value)) <= 600
    assert_same(before, state_of(model))


def test_bad_validation_data_is_refused_before_training(class_case):
    model = class_case.compiled()
    for bad in (images() * 255, (images(), None, np.ones(32))):
        with pytest.raises(ValueError, match="validation_data"):
            model.fit(images(), validation_data=bad, verbose=0)
    assert all(int(o.iterations) == 0 for o in model.optimizers)


def test_datasets_without_end_need_a_number_of_steps(class_case):
    class Endless(Batches):
        num_batches = None

    model = class_case.compiled()
    data = tf.data.Dataset.from_tensor_slices(images()).batch(8).repeat()
    for endless in (data, Endless()):
        with pytest.raises(ValueError, match="`steps_per_epoch` must be"):
            model.fit(endless, verbose=0)
        with pytest.raises(ValueError, match="`validation_steps` must be"):
            model.fit(images(), validation_data=endless, verbose=0)
        with pytest.raises(ValueError, match="`steps` must be given"):
            model.evaluate(endless, verbose=0)


def test_bad_arguments_of_fit_are_refused(class_case):
    model = class_case.compiled()
    for name, bad in (
        ("epochs", -1),
        ("epochs", 2.5),
        ("batch_size", 0),
        ("steps_per_epoch", 0),
        ("sample_weight", np.ones(32)),
        ("class_weight", {0: 1.0}),
        ("validation_freq", 0),
        ("validation_batch_size", 0),
    ):
        held_out = images() if "validation" in name else None
        with pytest.raises(ValueError, match=f"`{name}`"):
            model.fit(images(), validation_data=held_out, **{name: bad})


@pytest.mark.parametrize("x", [255 * np.eye(8), np.full((8, 8), np.nan)])
def test_bad_batches_are_refused_everywhere(class_case, x):
    model, x = class_case.compiled(), np.tile(x[None, ..., None], (2, 1, 1, 1))
    verbs = [model.train_on_batch, model.test_on_batch]
    if "x" in inspect.signature(model.call).parameters:
        verbs.append(model.predict)
    before = weights_of(model)
    for verb in verbs:
        with pytest.raises(ValueError, match="`x` must be"):
            verb(x.astype("float32"))
    assert_same(before, weights_of(model))


def test_bad_latents_are_refused(class_case):
    model = class_case.make()
    if not hasattr(model, "decode"):
        return
    width = getattr(model, "z_dim", None) or model.latent_dim
    verbs = [v for v in ("decode", "likelihood") if hasattr(model, v)]
    for verb in [getattr(model, name) for name in verbs]:
        for z in (np.zeros((2, width + 1)), np.full((2, width), np.nan), "z"):
            if getattr(model, "pixels", True):
                with pytest.raises(ValueError, match="`z` must be latents"):
                    verb(z)


def test_bad_steps_per_execution_are_refused(class_case):
    for steps in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="`steps_per_execution` must be"):
            class_case.compiled(steps_per_execution=steps)


@pytest.mark.parametrize("rate", [np.nan, np.inf, -1.0])
def test_bad_learning_rates_are_refused(rate):
    gan = MODELS["GAN"].make()
    for name in ("d_optimizer", "g_optimizer"):
        message = rf"`{name}\.learning_rate` must be"
        with pytest.raises(ValueError, match=message):
            gan.compile(**{name: keras.optimizers.Adam(rate)})
    with pytest.raises(ValueError, match="Pass `d_optimizer` and"):
        gan.compile(optimizer="adam")
    gan.compile()
    assert gan.g_optimizer is gan.optimizer


def test_a_short_dataset_is_repeated_with_a_warning():
    model = MODELS["VAE"].compiled()
    data = tf.data.Dataset.from_tensor_slices(images(8)).batch(4)
    with pytest.warns(UserWarning, match="2 batches, fewer than"):
        model.fit(data, steps_per_epoch=3, verbose=0)
    assert int(model.optimizer.iterations) == 3


def test_validation_changes_nothing_in_training(class_case, plain):
    validated = class_case.compiled()
    validated.fit(
        images(),
        batch_size=8,
        epochs=2,
        validation_split=0.0,
        verbose=0,
        validation_data=[images(seed=1), np.arange(32)],
    )
    assert_same(plain[1], weights_of(validated))


def test_evaluate_gives_the_loss_first(class_case):
    logs = class_case.compiled().evaluate(images(), return_dict=True, verbose=0)
    assert next(iter(logs)) == "loss" and "skipped_updates" not in logs
    values = class_case.compiled().evaluate(images(), verbose=0)
    # A number if there is one, as everywhere in Keras.
    assert values == (list(logs.values()) if len(logs) > 1 else logs["loss"])


def test_validation_split_holds_out_the_last_images_of_arrays(class_case):
    split, given = (class_case.compiled(run_eagerly=True) for _ in range(2))
    x = images()
    one = split.fit(x, validation_split=0.25, verbose=0).history
    other = given.fit(x[:24], validation_data=x[24:], verbose=0).history
    assert one == other
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    for bad, word in ((data, "Dataset"), (None, "None")):
        with pytest.raises(ValueError, match=f"validation_split.*{word}"):
            split.fit(bad, validation_split=0.25, verbose=0)
    with pytest.raises(ValueError, match="validation_split"):
        split.fit(x, validation_split=1.5, verbose=0)


def test_each_epoch_has_another_order_and_a_seed_repeats_it(class_case, plain):
    model = class_case.compiled()
    history = model.fit(images(), batch_size=8, epochs=2, verbose=0).history
    assert history["loss"] == plain[2]["loss"]
    assert history["loss"][0] != history["loss"][1]


def test_steps_per_epoch_goes_on_through_the_data(class_case):
    straight, cut = class_case.compiled(), class_case.compiled()
    data = tf.data.Dataset.from_tensor_slices(images()).batch(8).repeat()
    straight.fit(data, steps_per_epoch=6, epochs=1, verbose=0)
    cut.fit(data, steps_per_epoch=3, epochs=2, verbose=0)
    assert_same(weights_of(straight), weights_of(cut))


def test_one_batch_is_one_step(class_case):
    model = class_case.compiled(steps_per_execution=None)
    before = weights_of(model)
    # As everywhere in Keras, the loss comes first.
    logs = model.train_on_batch(images(8), return_dict=True)
    loss, *_, skipped = model.test_on_batch(images(8))
    assert np.isfinite(loss) and skipped == logs["skipped_updates"] == 0
    for optimizer in model.optimizers[:1]:
        assert int(optimizer.iterations) == 1
    if model.optimizers:
        assert_trained(before, weights_of(model))


def test_executions_are_no_longer_than_an_epoch():
    model = MODELS["VAE"].compiled(steps_per_execution=None)
    ends = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(batch)
    )
    options = {"batch_size": 8, "callbacks": [watch], "verbose": 0}
    model.fit(images(), epochs=2, **options)
    assert ends == [3, 3] and int(model.optimizer.iterations) == 8
    model.fit(np.concatenate([images()] * 20), **options)
    assert ends[2:] == [49, 99] and int(model.optimizer.iterations) == 88


@pytest.mark.parametrize("name", MODELS)
def test_all_variables_are_of_a_type_that_xla_reaches_on_a_gpu(name):
    for variable in MODELS[name].make().variables:
        # TensorFlow keeps those of int32 in the memory of the host.
        assert variable.dtype != "int32", variable.path


def test_labels_of_any_kind_are_ignored():
    x, names = images(), np.array(["a name", "another"] * 16)
    model = MODELS["VAE"].compiled(jit_compile=True)
    for data in (
        (x, names),
        (x, {"id": names}),
        (x, np.arange(32).astype(object)),
        (tf.data.Dataset.from_tensor_slices((x, {"id": names})).batch(32),),
    ):
        model.fit(*data, verbose=0)


def test_steps_per_epoch_are_the_steps_of_an_epoch(class_case):
    data = tf.data.Dataset.from_tensor_slices(images()).batch(8).repeat()
    model = class_case.compiled(steps_per_execution=None)
    options = {"verbose": 0, "validation_data": data, "validation_steps": 3}
    model.fit(data, steps_per_epoch=np.int64(6), **options)
    for optimizer in model.optimizers[:1]:
        assert int(optimizer.iterations) == 6
    # Keras keeps a function of as many batches as it was first called with.
    if isinstance(model, Autoencoder | VAE):
        assert len(model.predict(images(9), batch_size=2, verbose=0)) == 9
        model.fit(images(), batch_size=8, verbose=0)
        assert len(model.predict(images(9), batch_size=2, verbose=0)) == 9
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_test_batch_end=lambda batch, logs: counts.append(batch)
    )
    model.evaluate(data, steps=3, callbacks=[count], verbose=0)
    assert counts[0] >= 2 and len(counts) == 1
    model = class_case.compiled(steps_per_execution=4)
    with pytest.raises(
        ValueError, match=r"of the `steps_per_execution=4`.*got 6"
    ):
        model.fit(data, steps_per_epoch=6, verbose=0)


def test_epochs_in_two_calls_of_fit_are_those_of_one():
    def trained(*calls):
        data = tf.data.Dataset.from_tensor_slices(images())
        data = data.shuffle(32, seed=0).batch(8)
        model = MODELS["VAE"].compiled()
        for first, last in calls:
            model.fit(data, initial_epoch=first, epochs=last, verbose=0)
        return weights_of(model)

    assert_same(trained((0, 3)), trained((0, 1), (1, 3)))


@pytest.mark.parametrize("name", ["VAE", "GAN"])
def test_memory_of_a_trained_model_is_freed_with_it(name):
    model = MODELS[name].compiled(steps_per_execution=2)
    model.fit(images(), batch_size=8, validation_data=images(8), verbose=0)
    is_alive = weakref.ref(model)
    del model
    keras.utils.clear_session(free_memory=True)
    assert is_alive() is None


# Steps


def train_in(policy, case):
    keras.config.set_dtype_policy(policy)
    model = case.compiled()
    history = model.fit(images(), batch_size=8, epochs=3, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    for optimizer in model.optimizers:
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16")
        assert int(optimizer.iterations) > 0
    assert all(np.all(np.isfinite(w)) for w in weights_of(model))
    assert some_images(model).dtype == "float32"


def test_float16_trains_in_every_optimizer(case):
    train_in("mixed_float16", case)


def test_bfloat16_trains(class_case):
    train_in("mixed_bfloat16", class_case)


@pytest.mark.slow
def test_bfloat16_trains_in_every_optimizer(case):
    train_in("mixed_bfloat16", case)


@pytest.mark.parametrize("name", ["NADE-made", "PixelCNN-categorical", "VAE"])
def test_float64_trains(name):
    train_in("float64", MODELS[name])


@pytest.mark.slow
def test_float64_trains_in_every_optimizer(case):
    train_in("float64", case)


class Sample(keras.callbacks.Callback):
    """Draws samples after each execution."""

    def on_train_batch_end(self, batch, logs=None):
        some_images(self.model)
        if hasattr(self.model, "sample"):
            self.model.sample(3)


def test_neither_steps_per_execution_nor_samples_change_training(case, plain):
    several = case.compiled(steps_per_execution=3)
    # Keras's own list takes the place of the one that `fit` would make.
    callbacks = keras.callbacks.CallbackList([Sample()])
    several.fit(
        images(), batch_size=8, epochs=2, verbose=0, callbacks=callbacks
    )
    assert_same(plain[1], weights_of(several))


def test_xla_trains_as_the_graph_does(case):
    model = case.compiled(jit_compile=True, steps_per_execution=2)
    before = weights_of(model)
    history = model.fit(images(16), batch_size=8, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert_trained(before, weights_of(model))


def poisoned(good_steps, bad_steps):
    """Batches of eight of which the later ones hold a NaN."""
    x = images(8 * (good_steps + bad_steps))
    x[8 * good_steps :: 8, 0, 0, 0] = np.nan
    return tf.data.Dataset.from_tensor_slices(x).batch(8)


def test_updates_that_are_not_finite_are_skipped_and_counted(case):
    model, good = case.compiled(), []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:  # the last one without a NaN
                good.extend(weights_of(model))

    history = model.fit(poisoned(3, 2), verbose=0, callbacks=[Keep()])
    d_steps = case.arguments.get("d_steps", 1)
    num_updates = d_steps if len(model.optimizers) == 2 else 1
    # A generator sees no data: its updates go on unless D's logits suffer.
    assert history.history["skipped_updates"][0] >= 2 * num_updates
    for optimizer in model.optimizers[-1:]:
        assert int(optimizer.iterations) == 3 * num_updates
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    if len(model.optimizers) < 2:
        assert_same(good, weights_of(model))


def test_twenty_skipped_updates_in_a_row_stop_training(class_case, tmp_path):
    model = class_case.compiled()
    checkpoint = Checkpoint(tmp_path, save_freq=7)
    with pytest.raises(FloatingPointError, match="in a row"):
        model.fit(poisoned(2, 40), verbose=0, callbacks=[checkpoint])
    assert max(os.listdir(tmp_path)) == "step_0000000021_epoch_000000"
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    again = class_case.compiled()
    again.fit(
        poisoned(2, 1),
        verbose=0,
        callbacks=[Checkpoint(tmp_path, save_freq=100)],
    )
    assert all(np.all(np.isfinite(w)) for w in again.get_weights())


def test_fit_before_compile_and_unknown_losses_are_errors(class_case):
    with pytest.raises(ValueError, match="compile"):
        class_case.make().fit(images())


# Replicas


def test_a_step_on_two_replicas_is_the_step_on_one(case, two_replicas):
    x = tf.data.Dataset.from_tensor_slices(images())
    x = x.batch(16, drop_remainder=True)
    # A step as it stands, without a graph, is the least that says what it is.
    one = case.compiled(keras.optimizers.SGD, run_eagerly=True)
    with two_replicas.scope():
        two = case.compiled(keras.optimizers.SGD)
    start = one.get_weights()
    two.set_weights(start)
    logs_one = one.fit(x, verbose=0).history
    logs_two = two.fit(x, verbose=0).history
    for a, b, first in zip(
        one.get_weights(), two.get_weights(), start, strict=True
    ):
        np.testing.assert_allclose(
            a, b, atol=1e-5 * max(1, np.abs(a - first).max())
        )
    for name in logs_one:
        np.testing.assert_allclose(logs_one[name], logs_two[name], rtol=1e-4)


@pytest.mark.parametrize("in_one_program", [True, False])
def test_weights_that_were_frozen_after_compile_are_refused(in_one_program):
    model = small_vae()
    steps = 2 if in_one_program else 1
    model.compile(jit_compile=in_one_program, steps_per_execution=steps)
    model.trainable = False
    with pytest.raises(ValueError, match="none of 0 trainable weights"):
        model.fit(images(32), batch_size=16, verbose=0)


def test_an_overflow_on_one_replica_skips_the_step_on_both(
    class_case, two_replicas
):
    bad = images(16)
    bad[15] = np.nan  # the second replica's
    data = tf.data.Dataset.from_tensors(bad).concatenate(
        tf.data.Dataset.from_tensors(images(16))
    )
    first = tf.data.Dataset.from_tensors(images(16))
    with two_replicas.scope():
        model = class_case.compiled()
    before = weights_of(model)
    history = model.fit(first.concatenate(data), verbose=0)
    assert history.history["skipped_updates"][0] >= 1
    for weight in model.trainable_weights:
        copies = [np.array(v) for v in weight.value.values]
        np.testing.assert_array_equal(*copies)
        assert np.all(np.isfinite(copies[0]))
    assert not before or any(
        np.any(a != b) for a, b in zip(before, weights_of(model), strict=True)
    )


def test_compile_outside_the_scope_is_refused(class_case, two_replicas):
    with two_replicas.scope():
        model = class_case.make()
    with pytest.raises(ValueError, match=r"strategy.scope\(\)"):
        model.compile()
    model = class_case.make()
    with two_replicas.scope(), pytest.raises(ValueError, match="scope"):
        model.compile()


def test_a_strategy_refuses_what_it_cannot_do(class_case, two_replicas):
    for arguments in (
        {"jit_compile": True},
        {"steps_per_execution": 4},
    ):
        with two_replicas.scope(), pytest.raises(ValueError, match="strategy"):
            class_case.compiled(**arguments)
    with two_replicas.scope():
        if class_case.optimizers:
            with pytest.raises(ValueError, match="clip"):
                class_case.compiled(
                    lambda r: keras.optimizers.SGD(r, clipnorm=1.0)
                )
        model = class_case.compiled()
    with pytest.raises(ValueError, match="drop_remainder"):
        model.fit(tf.data.Dataset.from_tensor_slices(images()).batch(7))


# Verbs


def test_samples_are_images_and_a_seed_repeats_them(plain):
    model = plain[0]
    if not hasattr(model, "sample"):
        return
    first = model.sample(np.int64(3), seed=np.uint8(3))
    second = model.sample(3, condition=None, seed=3)
    assert first.shape == (3, *SHAPE) and first.dtype == "float32"
    assert np.min(first) >= 0 and np.max(first) <= 1
    np.testing.assert_array_equal(first, second)
    assert np.any(first != model.sample(3, seed=4))
    assert np.any(model.sample(3) != model.sample(3))


def test_bad_numbers_of_samples_and_seeds_are_refused(class_case):
    model = class_case.make()
    if not hasattr(model, "sample"):
        return
    for num_samples in (0, -1, 2.5, "64", None):
        with pytest.raises(ValueError, match="num_samples"):
            model.sample(num_samples)
    for seed in (-1, 2.5, "0", 2**64):
        with pytest.raises(ValueError, match="`seed`"):
            model.sample(1, seed=seed)


def test_an_optimizer_of_another_model_is_refused(class_case):
    if not class_case.optimizers:
        return
    other = class_case.compiled()
    with pytest.raises(ValueError, match="other weights"):
        class_case.make().compile(
            **{
                name: getattr(other, name, other.optimizer)
                for name in class_case.optimizers
            }
        )


@pytest.mark.parametrize("verb", ["encode", "reconstruct", "log_prob", "elbo"])
def test_verbs_check_their_images(class_case, verb):
    model = class_case.make()
    if not hasattr(model, verb):
        return
    for bad in (images() * 255, images()[..., 0], None, "x"):
        with pytest.raises(ValueError, match="`x`"):
            getattr(model, verb)(bad)
    of_bytes = (255 * images(4)).astype("uint8")
    # Models that need no draws take them, too: models are exchangeable.
    seed = {
        "elbo": {"seed": 0},
        "log_prob": {
            "condition": None,
            "num_samples": np.int64(2),
            "seed": np.int32(0),
        },
    }.get(verb, {})
    np.testing.assert_allclose(
        getattr(model, verb)(of_bytes, **seed),
        getattr(model, verb)(of_bytes / np.float32(255), **seed),
        rtol=1e-5,
    )


def test_missing_pixels_may_hold_anything(class_case):
    model = class_case.make()
    if not hasattr(model, "impute"):
        return
    x = np.round(images(3))
    mask = np.random.default_rng(1).random(x.shape) < 0.5
    with_nan = np.where(mask, x, np.nan)
    first, second = (
        np.asarray(model.impute(given, mask, seed=0))
        for given in (with_nan, np.where(mask, x, 7.0))
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0][mask], x[mask])
    for bad, word in (((x, x + 0.1), "mask"), ((with_nan, ~mask), "finite")):
        with pytest.raises(ValueError, match=word):
            model.impute(*bad)


# Saving


def test_a_loaded_model_trains_on_as_the_original(plain, tmp_path):
    original = plain[0]
    original.save(tmp_path / "model.keras")
    # It has the dtypes that it was saved with, whatever is the policy now.
    keras.config.set_dtype_policy("mixed_float16")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(
        [np.array(w) for w in original.weights],
        [np.array(w) for w in loaded.weights],
    )
    np.testing.assert_array_equal(some_images(original), some_images(loaded))
    logs = [
        model.fit(images(seed=2), batch_size=8, verbose=0).history
        for model in (original, loaded)
    ]
    assert logs[0] == logs[1]
    assert_same(state_of(original), state_of(loaded))
    configs = [
        json.dumps(keras.saving.serialize_keras_object(model), default=list)
        for model in (original, loaded)
    ]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
def test_a_dtype_that_layers_would_not_have_is_refused(policy):
    other = {"mixed_bfloat16": "float32", "float32": "mixed_bfloat16"}[policy]
    keras.config.set_dtype_policy(policy)
    assert VAE(SHAPE, 2, dtype=policy).dtype_policy.name == policy
    with pytest.raises(ValueError, match=f"`dtype`.*{policy}.*got.*{other}"):
        VAE(SHAPE, 2, dtype=other)


def test_saving_over_a_file_that_cannot_be_written_keeps_it(
    class_case, tmp_path
):
    model = class_case.compiled()
    path = tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    model.get_config = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]


CLIENT = """
    import sys
    import traceback

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("keras_gen", "keras", "tf_keras",
                                      "tensorflow_probability"):
                raise ModuleNotFoundError(name)

    import numpy as np
    import tensorflow as tf
    sys.meta_path.insert(0, Absent())
    for name in list(sys.modules):
        if name.split(".")[0] in ("keras", "tf_keras"):
            del sys.modules[name]

    def serve(folder):
        loaded = tf.saved_model.load(folder + "/serving")
        x = np.load(folder + "/x.npy")
        out = {}
        if "sample" in loaded.signatures:
            out["sample"] = loaded.sample(
                num_samples=tf.constant(7), seed=tf.constant(5, tf.int64)
            )
        if "encode" in loaded.signatures:
            z = loaded.encode(x)
            out.update(encode=z, decode=loaded.decode(z))
            out["reconstruct"] = loaded.reconstruct(x)
        if "log_prob" in loaded.signatures:
            taken = loaded.signatures["log_prob"].structured_input_signature[1]
            draws = {
                "num_samples": tf.constant(9), "seed": tf.constant(5, tf.int64)
            }
            draws = draws if "seed" in taken else {}
            out["log_prob"] = loaded.log_prob(x=x, **draws)
        np.savez(folder + "/out.npz", **{k: v.numpy() for k, v in out.items()})

    for line in sys.stdin:
        try:
            serve(line.rstrip())
            print("served", flush=True)
        except Exception as error:
            print(repr(traceback.format_exc()), flush=True)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A process without Keras: a folder's name in, a line about it out.

    To start it takes longer than to serve one model, hence one for them all.
    """
    folder = tmp_path_factory.mktemp("client")
    script = folder / "client.py"
    script.write_text(textwrap.dedent(CLIENT))
    with (
        open(folder / "stderr.txt", "w") as stderr,
        subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
        ) as process,
    ):

        def serve(folder):
            print(folder, file=process.stdin, flush=True)
            return process.stdout.readline().rstrip()

        yield serve
        process.stdin.close()


def test_an_exported_model_serves_its_verbs_without_keras(
    plain, client, tmp_path
):
    model, x = plain[0], images(5)
    (tmp_path / "serving" / "assets" / "old").mkdir(parents=True)
    model.export(tmp_path / "serving")
    assert not (tmp_path / "serving" / "assets" / "old").exists()
    np.save(tmp_path / "x.npy", x)
    assert client(tmp_path) == "served"
    out = np.load(tmp_path / "out.npz")
    wanted = {}
    if hasattr(model, "sample"):
        wanted["sample"] = model.sample(7, seed=5)
    if hasattr(model, "encode"):
        wanted["encode"] = z = model.encode(x)
        wanted["decode"] = model.decode(z)
        wanted["reconstruct"] = model.reconstruct(x)
    if hasattr(model, "log_prob"):
        is_exact = model.log_prob_kind == "exact"
        draws = {} if is_exact else {"num_samples": 9, "seed": 5}
        wanted["log_prob"] = model.log_prob(x, **draws)
    assert set(out) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(out[name], value, rtol=1e-5, atol=1e-5)


def test_the_largest_seed_is_taken():
    assert RBM((2, 2, 1), 3, seed=2**63 - 1).sample(1).shape == (1, 2, 2, 1)


def test_an_unknown_format_of_export_is_refused(class_case, tmp_path):
    with pytest.raises(ValueError, match="format"):
        class_case.make().export(tmp_path / "x", format="pickle")


def test_names_that_cannot_be_written_to_are_refused(class_case, tmp_path):
    model, file = class_case.make(), tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="`filepath` must be a folder"):
        model.export(file)
    with pytest.raises(ValueError, match="something else: 'file'"):
        model.export(tmp_path)
    assert file.exists()
    for name in ("model", "model.h5"):
        with pytest.raises(
            ValueError, match=r"must end with '\.keras', got .*/"
        ):
            model.save(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


# Resuming


class Crash(keras.callbacks.Callback):
    """Copies what a crash would leave on the disk, after so many steps.

    It stands behind the checkpoint. Of the batches that a resumed run passes
    over, the last one counts as a step.
    """

    def __init__(self, step, source, target):
        super().__init__()
        self.left, self.source, self.target = step, source, target

    def on_train_batch_end(self, batch, logs=None):
        if not self.model.resuming:
            self.left -= 1
            if self.left == 0:
                shutil.copytree(self.source, self.target)


def seeded_dataset():
    data = tf.data.Dataset.from_tensor_slices(images())
    return data.shuffle(32, seed=3, reshuffle_each_iteration=True).batch(8)


def check_resumed(case, make_data, tmp_path):
    def run(model, folder, *crashes):
        history = model.fit(
            make_data(),
            batch_size=8 if make_data is images else None,
            epochs=3,
            validation_data=images(16, seed=9),
            callbacks=[Checkpoint(folder, save_freq=1), *crashes],
            verbose=0,
        )
        return state_of(model), history.history, history.epoch

    whole, killed, again = (tmp_path / name for name in "abc")
    # Half-way through the second epoch, and in the first step after that.
    wanted = run(case.compiled(), whole, Crash(6, whole, killed))
    assert max(os.listdir(killed)) == "step_0000000006_epoch_000001"
    model = case.compiled()
    resumed = run(model, killed, Crash(2, killed, again))
    assert max(os.listdir(again)) == "step_0000000007_epoch_000001"
    for variable in variables_of(model):
        variable.assign(tf.ones_like(variable))
    for found in (resumed, run(model, again)):
        assert_same(wanted[0], found[0])
        assert wanted[1:] == found[1:]


def test_a_killed_run_resumes_bit_for_bit(class_case, tmp_path):
    check_resumed(class_case, images, tmp_path)


# What the data are does not depend on the model: of one here, of all slowly.
@pytest.mark.parametrize("make_data", [seeded_dataset, Batches])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "VAE"))
        for name in CLASSES
    ],
)
def test_a_killed_run_resumes_on_any_data(name, make_data, tmp_path):
    check_resumed(MODELS[name], make_data, tmp_path)
