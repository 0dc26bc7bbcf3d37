"""The mathematics of SemiSupervisedGAN, on networks without hidden layers."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_gen import losses, networks
from keras_gen.models.semi_supervised_gan import SemiSupervisedGAN

SHAPE = (2, 2, 1)
CLASSES = 3


def linear_model(**arguments):
    model = SemiSupervisedGAN(
        SHAPE,
        2,
        CLASSES,
        generator=networks.mlp_generator(2, SHAPE, ()),
        discriminator=networks.mlp_encoder(SHAPE, CLASSES, ()),
        seed=1,
        **{"ema": None, **arguments},
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return model


def without_latents(model):
    """The model with a generator of one image."""
    kernel, bias = model.generator.get_weights()
    model.generator.set_weights([0 * kernel, bias])
    return model


def compiled(model, learning_rate=0.1, **arguments):
    arguments = {"jit_compile": False, "steps_per_execution": 1, **arguments}
    model.compile(
        d_optimizer=keras.optimizers.SGD(learning_rate),
        g_optimizer=keras.optimizers.SGD(learning_rate),
        **arguments,
    )
    return model


def images(num_images=6, seed=0):
    return np.random.default_rng(seed).random((num_images, *SHAPE), "float32")


def labels(num_images=6):
    return np.arange(num_images) % CLASSES


# The model once more, in NumPy and float64.


def flat(x):
    return 2 * np.reshape(x, (len(x), -1)).astype("float64") - 1


def class_logits(model, x):
    kernel, bias = model.discriminator.get_weights()
    return flat(x) @ kernel + bias


def with_a_class_of_fakes(logits):
    """Probabilities of K + 1 classes: that of generated images has logit 0."""
    logits = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1)
    return scipy.special.softmax(logits, axis=1)


def losses_by_hand(model, x, y):
    """Adversarial loss, and -log p(y given x, real) of images with labels."""
    fake = np.tanh(model.generator.get_weights()[1])[None] / 2 + 0.5
    real = with_a_class_of_fakes(class_logits(model, x))
    fake = with_a_class_of_fakes(class_logits(model, fake))
    adversarial = -np.log(1 - real[:, -1]).mean() - np.log(fake[0, -1])
    given_real = real[:, :-1] / (1 - real[:, -1:])
    return adversarial, -np.log(given_real[range(len(y)), y])[y >= 0]


# Training


def test_the_loss_is_that_of_one_more_class():
    model = compiled(without_latents(linear_model()), classification_weight=2.0)
    x, y = images(8), np.array([0, 2, -1, -1, 1, -1, -1, -1])
    adversarial, entropy = losses_by_hand(model, x, y)
    right = np.argmax(class_logits(model, x), axis=1)[y >= 0] == y[y >= 0]
    real = with_a_class_of_fakes(class_logits(model, x))[:, -1] < 0.5

    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = adversarial + 2 * entropy.mean()
    assert logs["d_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["accuracy"] == pytest.approx(right.mean())
    assert logs["d_real_accuracy"] == pytest.approx(real.mean())
    logs = model.fit(x, y, batch_size=8, verbose=0).history
    assert logs["d_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert logs["accuracy"][0] == pytest.approx(right.mean())


def test_the_generator_matches_mean_features():
    model = compiled(without_latents(linear_model()))
    x = images()
    fake = np.tanh(model.generator.get_weights()[1])
    # Without hidden layers the features are the pixels.
    expected = np.sum((flat(x).mean(axis=0) - fake) ** 2)
    logs = model.evaluate(x, labels(), verbose=0, return_dict=True)
    assert logs["g_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == logs["g_loss"] and logs["diversity"] < 1e-3


def test_other_losses_look_at_the_logit_of_real():
    model = compiled(without_latents(linear_model()), loss="non_saturating")
    fake = np.tanh(model.generator.get_weights()[1])[None] / 2 + 0.5
    d = scipy.special.logsumexp(class_logits(model, fake))
    logs = model.evaluate(images(), labels(), verbose=0, return_dict=True)
    assert logs["g_loss"] == pytest.approx(np.logaddexp(0, -d), rel=1e-5)


def test_the_penalty_is_on_the_slope_of_that_logit():
    x, y = images(), labels()
    plain, penalized = (
        compiled(without_latents(linear_model()), gradient_penalty=penalty)
        for penalty in (None, losses.R1(3.0))
    )
    d_losses = [
        model.fit(x, y, verbose=0).history["d_loss"][0]
        for model in (plain, penalized)
    ]
    model = linear_model()
    weight = scipy.special.softmax(class_logits(model, x), axis=1)
    slope = weight @ np.array(model.discriminator.get_weights()[0]).T
    expected = 1.5 * np.mean(np.sum(slope**2, axis=1))
    assert d_losses[1] - d_losses[0] == pytest.approx(expected, rel=1e-4)


def test_each_label_counts_the_same_in_batches_of_any_ratio():
    x, y = images(24), np.full(24, -1)
    y[8:14] = [0, 1, 2, 0, 1, 2]  # batches of none, 6 and 0 labels
    model = compiled(without_latents(linear_model()), learning_rate=0.0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert float(model.labelled_share) == pytest.approx(6 / 24)
    # From the thousandth step on the share moves by a thousandth a step.
    model.d_optimizer.iterations.assign(10**6)
    logs = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
    adversarial, entropy = losses_by_hand(model, x, y)
    expected = adversarial + entropy.mean()
    assert logs["d_loss"][0] == pytest.approx(expected, rel=2e-3)


def test_images_without_labels_train_but_are_not_classified():
    x, y = images(16), np.full(16, -1)
    model = compiled(without_latents(linear_model()))
    adversarial, _ = losses_by_hand(model, x, y)
    logs = model.fit(x, y, verbose=0).history
    assert logs["accuracy"] == [0]
    assert logs["d_loss"] == [pytest.approx(adversarial, rel=1e-5)]
    assert int(model.d_optimizer.iterations) == 1


@pytest.mark.parametrize(
    "small", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_a_label_for_each_class_is_enough_for_separate_clusters(small):
    rng = np.random.default_rng(0)
    shape, y = (4, 4, 1), np.arange(300) % 3
    centers = rng.choice([0.1, 0.9], (3, *shape))
    x = (rng.random((300, *shape)) < centers[y]).astype("float32")
    judge = networks.semi_supervised_discriminator(shape, 3, (100, 50))
    maker = networks.semi_supervised_generator(4, shape, (50,))
    parts = {"generator": maker, "discriminator": judge} if small else {}
    model = SemiSupervisedGAN(shape, 4, 3, seed=0, **parts)
    model.compile(
        keras.optimizers.Adam(1e-3, beta_1=0.5),
        keras.optimizers.Adam(1e-3, beta_1=0.5),
        jit_compile=False,
    )
    hidden = np.where(np.arange(300) < 3, y, -1)
    many = np.tile(x, (10, 1, 1, 1)), np.tile(hidden, 10)
    model.fit(*many, epochs=3, batch_size=50, verbose=0)
    assert np.mean(np.argmax(model.classify(x), axis=1) == y) > 0.95
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.95


def test_the_average_follows_the_generator():
    model = compiled(linear_model(ema=0.75))
    before = model.generator.get_weights()
    model.sampler.set_weights(before)
    model.fit(images(), labels(), verbose=0)
    for old, new, average in zip(
        before,
        model.generator.get_weights(),
        model.sampler.get_weights(),
        strict=True,
    ):
        assert np.any(old != new)
        expected = 0.75 * old + 0.25 * new
        np.testing.assert_allclose(average, expected, rtol=1e-5)


def test_two_replicas_train_as_one(two_replicas):
    x, y = images(16), np.array([0, 1, 2, 0] + 12 * [-1])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(
        8, drop_remainder=True
    )
    single = compiled(linear_model())
    single.fit(data, epochs=2, verbose=0)
    with two_replicas.scope():
        model = compiled(linear_model())
    model.fit(data, epochs=2, verbose=0)
    assert np.array(model.labelled_share) == pytest.approx(0.25)
    for one, other in zip(
        single.trainable_weights, model.trainable_weights, strict=True
    ):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-5)


def test_xla_and_half_precision_train():
    keras.config.set_dtype_policy("mixed_float16")
    model = linear_model(ema=0.9)
    model.compile(jit_compile=True, steps_per_execution=2)
    y = np.array([0, 1, 2, -1, -1, -1, -1, -1])
    history = model.fit(images(8), y, batch_size=4, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["d_loss"]))
    assert model.classify(images()).dtype == "float32"


# Verbs


def test_classify_is_the_softmax_over_the_real_classes():
    model = linear_model()
    x = (255 * images()).astype("uint8")
    expected = scipy.special.softmax(class_logits(model, x / 255), axis=1)
    np.testing.assert_allclose(model.classify(x), expected, rtol=1e-4)
    assert model.classify(x / np.float32(255)).dtype == "float32"


def test_samples_are_the_images_of_seeded_latents():
    model = linear_model()
    kernel, bias = model.generator.get_weights()
    x = np.array(model.sample(20_000, seed=0))
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 2))
    expected = 0.5 * np.tanh(z @ kernel + bias) + 0.5
    np.testing.assert_allclose(
        x.mean(axis=0).ravel(), expected.mean(axis=0), atol=0.02
    )
    z = z[:3].astype("float32")
    np.testing.assert_allclose(
        np.reshape(model(z), (3, 4)), expected[:3], atol=1e-5
    )
    np.testing.assert_array_equal(
        model.sample(5, seed=0), model.sample(5, seed=0)
    )
    assert np.any(model.sample(5, seed=0) != model.sample(5, seed=1))


def test_samples_are_of_all_classes_and_take_no_condition():
    model = linear_model()
    np.testing.assert_array_equal(
        model.sample(3, condition=None, seed=0), model.sample(3, seed=0)
    )
    with pytest.raises(ValueError, match=r"`condition`.*SemiSupervisedGAN"):
        model.sample(3, condition=[0, 1, 2])


def test_a_generator_without_features_to_match_needs_no_real_images():
    model = compiled(linear_model(), loss="hinge")
    fake = 2.0 * model.sample(3, seed=0) - 1.0
    given = [model.generator_loss(real, fake) for real in (fake, None)]
    assert float(given[0]) == float(given[1])


def test_project_finds_latents_of_its_own_samples():
    model = linear_model()
    x = model.sample(3, seed=0)
    z = model.project(x, num_steps=200, seed=1)
    assert z.shape == (3, 2)
    np.testing.assert_allclose(model(z), x, atol=0.05)


def test_interpolated_images_begin_and_end_at_those_of_both():
    model = linear_model()
    a, b = model.prior.sample(3, seed=0), model.prior.sample(3, seed=1)
    frames = model.interpolate(a, b, 5)
    assert frames.shape == (5, 3, *SHAPE)
    np.testing.assert_allclose(frames[0], model(a), atol=1e-6)
    np.testing.assert_allclose(frames[-1], model(b), atol=1e-6)


def test_a_saved_model_is_the_same_and_trains_on(tmp_path):
    model = compiled(linear_model(ema=0.9), classification_weight=0.5)
    x, y = images(), np.array([0, 1, 2, -1, -1, -1])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.classification_weight == 0.5
    assert float(loaded.labelled_share) == pytest.approx(0.5)
    np.testing.assert_array_equal(model.classify(x), loaded.classify(x))
    np.testing.assert_array_equal(
        model.sample(3, seed=0), loaded.sample(3, seed=0)
    )
    logs = [m.fit(x, y, verbose=0).history for m in (model, loaded)]
    assert logs[0] == logs[1]


def test_the_export_gives_what_the_verbs_give(tmp_path):
    model, x = linear_model(), images(3)
    model.export(tmp_path / "serving")
    exported = tf.saved_model.load(str(tmp_path / "serving"))
    assert set(exported.signatures) >= {"sample", "classify"}
    assert "conditional_sample" not in exported.signatures
    np.testing.assert_allclose(
        exported.classify(x), model.classify(x), rtol=1e-5
    )
    np.testing.assert_allclose(
        exported.sample(tf.constant(3), tf.constant(0, "int64")),
        model.sample(3, seed=0),
        rtol=1e-5,
    )


# Errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latent_dim": 0}, "`latent_dim`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"ema": 1.5}, "`ema`"),
        ({"generator": networks.mlp_generator(3, SHAPE, ())}, "`generator`"),
        (
            {"discriminator": networks.mlp_discriminator(SHAPE, ())},
            "`discriminator`",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    defaults = {"latent_dim": 2, "num_classes": CLASSES}
    with pytest.raises(ValueError, match=message) as error:
        SemiSupervisedGAN(SHAPE, **{**defaults, **arguments})
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classification_weight": -1}, "`classification_weight`"),
        ({"loss": "x"}, "`loss`"),
        ({"gradient_penalty": "x"}, "`gradient_penalty`"),
    ],
)
def test_bad_arguments_of_compile_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_model().compile(**arguments)


def test_gradient_penalties_warn_of_batch_normalization():
    discriminator = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    model = SemiSupervisedGAN(
        SHAPE,
        2,
        CLASSES,
        generator=networks.mlp_generator(2, SHAPE, ()),
        discriminator=discriminator,
    )
    with pytest.warns(UserWarning, match="`discriminator` has batch norm"):
        model.compile(gradient_penalty=1.0)


def test_bad_data_and_shared_optimizers_are_refused():
    model, x = compiled(linear_model()), images()
    with pytest.raises(ValueError, match="-1 for no label"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match=r"\[-1, 2\].*to 3"):
        model.fit(x, np.arange(6) - 2, verbose=0)
    with pytest.raises(ValueError, match="`x`"):
        model.classify(255 * x)
    with pytest.raises(ValueError, match="`num_samples`"):
        model.sample(0)
    with pytest.raises(ValueError, match="`num_steps`"):
        model.project(x, num_steps=0)
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match=r"`d_optimizer`.*one object"):
        model.compile(optimizer, optimizer)
