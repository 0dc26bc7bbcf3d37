"""The mathematics of LaplacianGAN, on networks without hidden layers."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import losses, networks
from keras_gen.laplacian_pyramid import collapse, expand, pyramid, reduce
from keras_gen.models.laplacian_gan import LaplacianGAN
from keras_gen.networks import laplacian

SHAPE = (4, 4, 1)
COARSE = (2, 2, 1)


def linear_generator():
    """Bands of 4x4 images, a linear map of the image and the noise."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, dtype="float32"),
            keras.layers.Reshape(SHAPE, dtype="float32"),
        ]
    )


def linear_model(noisy=True, **arguments):
    model = LaplacianGAN(
        SHAPE,
        2,
        2,
        generators=[
            linear_generator(),
            networks.mlp_generator(2, COARSE, ()),
        ],
        discriminators=[
            networks.mlp_discriminator(SHAPE, ()),
            networks.mlp_discriminator(COARSE, ()),
        ],
        seed=1,
        **{"ema": None, **arguments},
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    if not noisy:  # bands and small images that are always the same
        fine, coarse = (g.trainable_weights[0] for g in model.generators)
        fine.assign(np.array(fine) * (np.arange(32) % 2 == 0)[:, None])
        coarse.assign(np.zeros(coarse.shape))
    for average, network in zip(model.samplers, model.generators, strict=True):
        average.set_weights(network.get_weights())
    return model


def compiled(model, learning_rate=0.1, **arguments):
    arguments = {"jit_compile": False, "steps_per_execution": 1, **arguments}
    model.compile(
        d_optimizer=keras.optimizers.SGD(learning_rate),
        g_optimizer=keras.optimizers.SGD(learning_rate),
        **arguments,
    )
    return model


def conditional_model():
    """The default networks of both levels, but small, for three classes."""
    return LaplacianGAN(
        SHAPE,
        2,
        2,
        num_classes=3,
        generators=[
            laplacian.laplacian_generator(SHAPE, 4, condition_dim=3),
            networks.mlp_generator(2, COARSE, (8,), condition_dim=3),
        ],
        discriminators=[
            laplacian.laplacian_discriminator(SHAPE, 4, condition_dim=3),
            networks.mlp_discriminator(COARSE, (8,), condition_dim=3),
        ],
        seed=1,
    )


def images(num_images=6, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random((num_images, *shape), "float32")


def weights_of(networks):
    return [np.array(w) for network in networks for w in network.weights]


def changed(before, after):
    return [bool(np.any(a != b)) for a, b in zip(before, after, strict=True)]


# The model once more, in NumPy. Only the pyramid, tested by itself, is shared.


def linear(network, x):
    kernel, bias = network.get_weights()
    return np.reshape(x, (len(x), -1)) @ kernel + bias


def band_by_hand(model, low):
    """The band for a low-pass image and no noise."""
    seen = np.concatenate([low, np.zeros_like(low)], axis=-1)
    return linear(model.generators[0], seen).reshape(-1, *SHAPE)


def coarse_by_hand(model, z):
    return np.tanh(linear(model.generators[1], z)).reshape(-1, *COARSE)


def levels_by_hand(model, x):
    """Per level real and generated images, by real low-pass images."""
    coarse = np.array(reduce(2 * x - 1))
    low = np.array(expand(coarse, SHAPE[:2]))
    fake = coarse_by_hand(model, np.zeros((len(x), 2)))
    return [(2 * x - 1, low + band_by_hand(model, low)), (coarse, fake)]


def softplus(x):
    return np.logaddexp(0, x)


# Training


@pytest.mark.parametrize("levels", [None, [0], [1]])
def test_losses_are_sums_over_levels_of_low_pass_plus_band(levels):
    model = compiled(linear_model(noisy=False), levels=levels)
    x = images()
    d_loss, g_loss, right = 0.0, 0.0, []
    for k, (real, fake) in enumerate(levels_by_hand(model, x)):
        if levels is not None and k not in levels:
            continue
        real = linear(model.discriminators[k], real)
        fake = linear(model.discriminators[k], fake)
        d_loss += softplus(-real).mean() + softplus(fake).mean()
        g_loss += softplus(-fake).mean()
        right.append([(real > 0).mean(), (fake <= 0).mean()])
    right = np.mean(right, axis=0)
    for logs in (
        model.evaluate(x, verbose=0, return_dict=True),
        {k: v[0] for k, v in model.fit(x, verbose=0).history.items()},
    ):
        if "skipped_updates" not in logs:  # before any update
            assert logs["g_loss"] == pytest.approx(g_loss, rel=1e-5)
            assert logs["loss"] == logs["g_loss"]
        assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-5)
        assert logs["d_real_accuracy"] == pytest.approx(right[0])
        assert logs["d_fake_accuracy"] == pytest.approx(right[1])


def test_diversity_is_that_of_the_bands():
    model, x = compiled(linear_model(noisy=False)), images()
    (_, fine), _ = levels_by_hand(model, x)
    low = np.array(expand(reduce(2 * x - 1), SHAPE[:2]))
    real_band = np.array(pyramid(2 * x - 1, 2)[0])
    spread = [np.sum(np.var(b, axis=0)) for b in (fine - low, real_band)]
    # The small images are always the same one: their diversity is 0.
    expected = 0.5 * np.sqrt(spread[0] / spread[1])
    logs = model.evaluate(x, verbose=0, return_dict=True)
    assert logs["diversity"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("levels", [None, [0]])
def test_a_share_of_the_bands_is_made_for_samples_of_the_coarser_level(levels):
    model, x = linear_model(noisy=False), images(6)
    compiled(model, levels=levels, chained=0.5)
    pairs = model._trained_levels(x)
    low, band = (np.array(a) for a in model.generate(pairs)[0])
    coarse = coarse_by_hand(model, np.zeros((3, 2)))
    sampled = np.array(expand(coarse.astype("float32"), SHAPE[:2]))
    np.testing.assert_allclose(low[:3], sampled, atol=1e-6)
    np.testing.assert_allclose(low[3:], pairs[0][0][3:], atol=1e-6)
    np.testing.assert_allclose(band, band_by_hand(model, low), atol=1e-5)


def test_all_bands_are_chained_as_samples_are():
    model = compiled(linear_model(), chained=1.0)
    pairs = model._trained_levels(images(4000))
    fakes = np.array(sum(model.generate(pairs)[0]))
    samples = 2 * np.array(model.sample(4000, seed=0)) - 1
    inside = np.clip(fakes, -1, 1)
    assert samples.mean() == pytest.approx(inside.mean(), abs=0.02)
    assert samples.std() == pytest.approx(inside.std(), abs=0.02)


def test_a_coarse_level_does_not_learn_from_the_finer_ones():
    x, after = images(), []
    for arguments in ({"chained": 1.0}, {"levels": [1]}):
        model = compiled(linear_model(noisy=False), **arguments)
        model.fit(x, verbose=0)
        _, bias = weights_of([model.generators[1]])  # the kernel sees noise
        after.append(bias)
    np.testing.assert_allclose(*after, rtol=1e-5)


def test_a_level_can_train_alone_and_the_rest_later():
    model, x = linear_model(ema=0.9), images()
    for levels in ([1], [0]):
        makers = [[model.generators[k], model.samplers[k]] for k in range(2)]
        before = [weights_of(pair) for pair in makers]
        judges = [weights_of([d]) for d in model.discriminators]
        compiled(model, levels=levels).fit(x, verbose=0)
        for k in range(2):
            after = weights_of(makers[k])
            assert any(changed(before[k], after)) == (k in levels)
            after = weights_of([model.discriminators[k]])
            assert any(changed(judges[k], after)) == (k in levels)


def test_levels_together_learn_what_they_learn_alone():
    x = images(8)
    models = []
    for levels in ([0, 1], [0], [1]):
        model = compiled(
            linear_model(noisy=False),
            gradient_penalty=losses.R1(1.0),
            levels=levels,
        )
        model.discriminator_step(model._trained_levels(x))
        models.append(model)
    together, *alone = models
    for k in range(2):
        for one, other in zip(
            weights_of([together.discriminators[k]]),
            weights_of([alone[k].discriminators[k]]),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_average_follows_the_generators_of_all_levels():
    model = compiled(linear_model(ema=0.75))
    before = weights_of(model.generators)
    model.fit(images(), verbose=0)
    for old, new, average in zip(
        before,
        weights_of(model.generators),
        weights_of(model.samplers),
        strict=True,
    ):
        assert np.any(old != new)
        expected = 0.75 * old + 0.25 * new
        np.testing.assert_allclose(average, expected, rtol=1e-5)


def test_weight_clipping_clips_the_discriminators_alone():
    model = compiled(
        linear_model(),
        loss="wasserstein",
        gradient_penalty=losses.WeightClipping(0.01),
        d_steps=2,
    )
    model.fit(images(), verbose=0)
    assert int(model.d_optimizer.iterations) == 2
    for weight in weights_of(model.discriminators):
        assert np.max(np.abs(weight)) <= 0.01
    assert np.max(np.abs(weights_of(model.generators)[0])) > 0.01


def test_a_fine_level_learns_what_the_coarse_one_cannot_show():
    rng = np.random.default_rng(0)
    board = (np.indices((4, 4)).sum(axis=0) % 2 - 0.5)[..., None]
    x = rng.uniform(0.4, 0.6, (512, 1, 1, 1)) + 0.6 * board
    x = x.astype("float32")
    model = linear_model(ema=0.9)
    model.compile(
        keras.optimizers.Adam(0.01, beta_1=0.5),
        keras.optimizers.Adam(0.01, beta_1=0.5),
        gradient_penalty=losses.R1(1.0),
        jit_compile=False,
    )
    model.fit(x, batch_size=32, epochs=20, verbose=0)
    band = np.array(pyramid(model.sample(200, seed=0), 2)[0]).mean(axis=0)
    wanted = np.array(pyramid(x, 2)[0]).mean(axis=0)
    cosine = np.sum(band * wanted) / np.linalg.norm(band)
    assert cosine / np.linalg.norm(wanted) > 0.95


def test_a_model_of_classes_trains_saves_and_exports(tmp_path):
    model, x, y = conditional_model(), images(), [0, 1, 2, 0, 1, 2]
    compiled(model, levels=[0], chained=0.5).fit(x, np.array(y), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.levels == (0,) and loaded.chained == 0.5
    samples = model.sample(6, condition=y, seed=0)
    np.testing.assert_array_equal(
        samples, loaded.sample(6, condition=y, seed=0)
    )
    model.export(tmp_path / "serving")
    exported = tf.saved_model.load(str(tmp_path / "serving"))
    seed = tf.constant(0, "int64")
    found = exported.conditional_sample(
        tf.constant(6), tf.constant(y, "int64"), seed
    )
    np.testing.assert_allclose(found, samples, atol=1e-5)
    found = exported.sample(tf.constant(6), seed)
    np.testing.assert_allclose(found, model.sample(6, seed=0), atol=1e-5)


# Verbs


def test_samples_come_from_the_whole_chain():
    model = linear_model(noisy=False)
    z = np.random.default_rng(0).normal(size=(5, 18)).astype("float32")
    low = expand(coarse_by_hand(model, z[:, :2]), SHAPE[:2])
    expected = np.array(low) + band_by_hand(model, np.array(low))
    found = model(z)
    np.testing.assert_allclose(
        found, np.clip(0.5 * expected + 0.5, 0, 1), atol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_latents_become_images_in_half_precision(policy):
    model = linear_model()
    z = np.random.default_rng(0).normal(size=(3, 18)).astype("float32")
    expected, weights = model(z), model.get_weights()
    keras.config.set_dtype_policy(policy)
    model = linear_model()
    model.set_weights(weights)
    found = model(z)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_latents_are_the_coarse_ones_and_then_a_plane_of_noise():
    model = linear_model()
    kernel, bias = model.generators[0].get_weights()
    kernel[::2] = 0  # it does not see the image
    kernel[1::2] = 0.1 * np.eye(16)
    model.samplers[0].set_weights([kernel, 0 * bias])
    z = np.random.default_rng(0).normal(size=(3, model.z_dim))
    z = z.astype("float32")
    assert model.z_dim == 18 and model.prior.event_shape == (18,)
    coarse = coarse_by_hand(model, 0.2 * z[:, :2])
    z[:, :2] *= 0.2
    expected = collapse([0.1 * z[:, 2:].reshape(-1, *SHAPE), coarse])
    expected = np.clip(0.5 * np.array(expected) + 0.5, 0, 1)
    np.testing.assert_allclose(model(z), expected, atol=1e-5)


def test_samples_are_of_the_asked_classes():
    model = conditional_model()
    first = [model.sample(4, condition=[c] * 4, seed=0) for c in range(3)]
    assert np.any(first[0] != first[1]) and np.any(first[1] != first[2])
    drawn = np.array(model.sample(4, seed=0))
    for i in range(4):  # the same latents, of one of the classes each
        assert any(
            np.allclose(drawn[i], of_class[i], atol=1e-5) for of_class in first
        )
    with pytest.raises(ValueError, match="`condition`"):
        model.sample(3, condition=[0, 1, 3])
    with pytest.raises(ValueError, match="`condition`"):
        linear_model().sample(3, condition=[0, 1, 2])


def test_project_finds_latents_of_its_own_samples():
    model = linear_model()
    x = model(0.3 * model.prior.sample(3, seed=0))
    z = model.project(x, num_steps=200, seed=1)
    assert z.shape == (3, model.z_dim)
    assert np.mean((model(z) - x) ** 2) < 0.01 * np.var(x)
    np.testing.assert_array_equal(z, model.project(x, num_steps=200, seed=1))


def test_interpolated_images_are_of_their_class():
    model = conditional_model()
    a, b = model.prior.sample(2, seed=0), model.prior.sample(2, seed=1)
    frames = model.interpolate(a, b, 3, condition=[0, 2])
    assert frames.shape == (3, 2, *SHAPE)
    for images_, z in ((frames[0], a), (frames[-1], b)):
        expected = model(z, np.array([0, 2]))
        np.testing.assert_allclose(images_, expected, atol=1e-5)
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.interpolate(a, b)


# Errors


@pytest.mark.parametrize(
    "shape, num_levels, word",
    [
        ((28, 28, 1), 4, "divisible by 8"),
        ((10, 8, 1), 3, "divisible by 4"),
        ((4, 8, 1), 3, "at least 2 pixels"),
        (
            (200, 100, 1),
            2,
            r"\(200, 100, 1\).*divisible by 16.* \(192, 96, 1\)",
        ),
        ((8, 8, 1), 0, "`num_levels`"),
        ((8, 8, 1), 1.5, "`num_levels`"),
    ],
)
def test_sizes_that_do_not_halve_are_refused(shape, num_levels, word):
    with pytest.raises(ValueError, match=word) as error:
        LaplacianGAN(shape, 2, num_levels)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latent_dim": 0}, "`latent_dim`"),
        ({"ema": 1.0}, "`ema`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"generators": [linear_generator()]}, "`generators`.*2, got 1"),
        ({"generators": linear_generator()}, "`generators`.*2, got Sequential"),
        (
            {"generators": [linear_generator()] * 2},
            r"`generators\[1\]`",
        ),
        (
            {"discriminators": [networks.mlp_discriminator(SHAPE, ())] * 2},
            r"`discriminators\[1\]`",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        LaplacianGAN(SHAPE, **{"latent_dim": 2, "num_levels": 2, **arguments})
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"levels": [2]}, r"`levels`.*\[0, 1\].*\[2\]"),
        ({"levels": []}, "`levels`"),
        ({"levels": [0, 0]}, "`levels`"),
        ({"levels": 1}, "`levels`.*got 1"),
        ({"levels": [0.0, 1.0]}, "`levels`.*got"),
        ({"levels": [[0]]}, "`levels`.*got"),
        ({"loss": "feature_matching"}, "`loss`.*feature"),
        ({"loss": "x"}, "`loss`"),
        ({"d_steps": 0}, "`d_steps`"),
        ({"chained": 1.5}, "`chained`.*1.5"),
        ({"gradient_penalty": -1.0}, "positive"),
    ],
)
def test_bad_arguments_of_compile_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        linear_model().compile(**arguments)
    assert len(str(error.value)) <= 600


def test_latents_that_do_not_fit_are_refused():
    model = linear_model()
    for z in (
        np.zeros((2, model.z_dim + 1)),
        np.full((2, model.z_dim), np.nan),
    ):
        with pytest.raises(ValueError, match="`z`"):
            model(z.astype("float32"))


def test_gradient_penalties_warn_of_batch_normalization():
    model = linear_model()
    model.discriminators[1] = keras.Sequential(
        [
            keras.Input(COARSE),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    with pytest.warns(UserWarning, match="`discriminator` has batch norm"):
        model.compile(gradient_penalty=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.compile(gradient_penalty=1.0, levels=[0])


def test_one_optimizer_for_both_kinds_is_refused():
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match=r"`d_optimizer`.*one object"):
        linear_model().compile(optimizer, optimizer)
