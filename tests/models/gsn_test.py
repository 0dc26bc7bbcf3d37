"""The mathematics of a GSN; what every model must do is in contract_test."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import networks
from keras_gen.datasets import toys
from keras_gen.models.gsn import GSN

special = pytest.importorskip("scipy.special")
spatial = pytest.importorskip("scipy.spatial")

SHAPE = (2, 3, 1)


def gsn(hidden_dim=4, **arguments):
    """A chain whose weights are not small."""
    model = GSN(SHAPE, hidden_dim, seed=1, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return model


def images(count=4, seed=0):
    x = np.random.default_rng(seed).integers(0, 2, (count, *SHAPE))
    return x.astype("float32")


def bars(count=256, seed=0):
    """Binary images of 3 x 3 with one white row or column, all as likely."""
    rows = np.zeros((6, 3, 3, 1), "float32")
    for k in range(3):
        rows[k, k], rows[k + 3, :, k] = 1, 1
    return rows[np.random.default_rng(seed).integers(0, 6, count)]


# A step of the chain


def test_one_layer_is_the_chain_of_a_denoising_autoencoder():
    model, x = gsn(noise=0.0), images()
    h, (code,), visited = model._step(x, model._blank_layers(4), (0, 1))
    flat = x.reshape(4, 6)
    expected = np.tanh(np.array(model.hidden_bias) + flat @ model.kernel)
    np.testing.assert_allclose(code, expected, rtol=1e-5)
    logits = np.array(model.visible_bias) + expected @ np.transpose(
        model.kernel
    )
    np.testing.assert_allclose(np.reshape(h, (4, 6)), logits, rtol=1e-4)
    assert set(np.unique(visited)) <= {0, 1}
    np.testing.assert_allclose(model.encode(x), expected, rtol=1e-5)
    np.testing.assert_allclose(
        np.reshape(model.reconstruct(x), (4, 6)),
        special.expit(logits),
        rtol=1e-4,
    )


def test_layers_look_at_those_beside_them_odd_ones_first():
    model, x = gsn((4, 3, 2), hidden_noise=0.0), images()
    rng = np.random.default_rng(1)
    h1, h2, h3 = (rng.normal(size=(4, dim)) for dim in (4, 3, 2))
    k1, k2, k3 = (
        np.array(w, "float64") for w in (model.kernel, *model.kernels)
    )
    c1, c2, c3 = (np.array(c) for c in (model.hidden_bias, *model.biases))
    found = model._updated_layers(
        tf.constant(x),
        [tf.constant(h, "float32") for h in (h1, h2, h3)],
        [(0, k) for k in range(6)],
    )
    n1 = np.tanh(c1 + x.reshape(4, 6) @ k1 + h2 @ k2.T)
    n3 = np.tanh(c3 + h2 @ k3)
    n2 = np.tanh(c2 + n1 @ k2 + n3 @ k3.T)
    for layer, expected in zip(found, (n1, n2, n3), strict=True):
        np.testing.assert_allclose(layer, expected, rtol=1e-4, atol=1e-5)
    assert model.encode(x).shape == (4, 9) and model.z_dim == 9


def test_noise_is_that_of_upper_layers_before_and_after_the_tanh():
    model, count = gsn((4, 3), hidden_noise=2.0), 20_000
    x = np.repeat(images(1), count, axis=0)
    blank = model._blank_layers(count)
    seeds = [(0, k) for k in range(4)]
    lowest, upper = model._updated_layers(tf.constant(x), blank, seeds)
    assert np.ptp(lowest, axis=0).max() == 0
    r = np.array(lowest)[:1] @ model.kernels[0] + np.array(model.biases[0])
    before = np.random.default_rng(0).normal(size=(200_000, 1))
    inner = np.tanh(r + 2 * before)
    np.testing.assert_allclose(np.mean(upper, 0), inner.mean(0), atol=0.06)
    np.testing.assert_allclose(np.var(upper, 0), 4 + inner.var(0), rtol=0.05)


def test_corruption_is_salt_and_pepper_or_normal():
    x = np.full((20_000, *SHAPE), 0.25, "float32")
    corrupted = np.array(gsn(noise=0.4)._corrupted(x, (0, 1)))
    shares = [np.mean(corrupted == value) for value in (0, 0.25, 1)]
    np.testing.assert_allclose(shares, [0.2, 0.6, 0.2], atol=0.01)
    model = gsn(noise=0.3, likelihood="gaussian")
    noise = np.array(model._corrupted(x, (0, 1))) - x
    np.testing.assert_allclose(noise.std(axis=0), 0.3, rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.01)


def test_next_images_are_drawn_from_the_likelihood():
    model = gsn(likelihood="gaussian")
    z = np.random.default_rng(0).normal(size=(1, 4)).astype("float32") / 4
    h = model._pixel_parameters(tf.repeat(z, 20_000, axis=0))
    location, scale = np.split(np.array(h[0]), 2, axis=-1)
    drawn = np.array(model._drawn(h, (0, 1)))
    scale = np.logaddexp(0, scale) + 1e-3
    noise = np.random.default_rng(0).normal(size=(20_000, *SHAPE))
    expected = np.clip(location + 0.5 + scale * noise, 0, 1)
    for statistic in (np.mean, np.std):
        np.testing.assert_allclose(
            statistic(drawn, axis=0), statistic(expected, axis=0), atol=0.02
        )


# Training


def test_the_loss_asks_every_step_for_the_image_it_started_from():
    """Of certain steps: no noise, and pixels that are black or white."""
    model, x = gsn(noise=0.0, walkback_steps=3), images()
    model.kernel.assign(100 * np.array(model.kernel))
    visited, expected, errors = x, 0.0, []
    w, c, b = (
        np.array(v, "float64")
        for v in (model.kernel, model.hidden_bias, model.visible_bias)
    )
    for _ in range(3):
        logits = b + np.tanh(c + visited.reshape(4, 6) @ w) @ w.T
        signed = (2 * x.reshape(4, 6) - 1) * logits
        expected += np.logaddexp(0, -signed).sum(axis=1) / 3
        errors.append((special.expit(-signed) ** 2).mean(axis=1))
        visited = (logits > 0).astype("float32")
    loss, error = model._walkback(tf.constant(x))
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    np.testing.assert_allclose(error, errors[0], atol=1e-4)
    assert np.any(visited != x.reshape(4, 6))  # it did walk away


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)  # `fresh_keras` does it after this
    model = GSN((3, 3, 1), 32, walkback_steps=3, noise=0.2, seed=1)
    model.compile(
        keras.optimizers.Adam(0.01), steps_per_execution=40, jit_compile=False
    )
    x = np.tile(bars(), (100, 1, 1, 1))
    model.fit(x, batch_size=64, epochs=2, verbose=0)
    return model


def test_the_chain_visits_all_modes_and_little_else(trained):
    path = trained.sample(1800, chain_length=1820, burn_in=20, seed=0)
    assert path.shape == (1800, 3, 3, 1) and path.dtype == "float32"
    white = np.round(path)
    modes = [v.tobytes() for v in np.unique(bars(), axis=0)]
    visits = [v.tobytes() for v in white]
    counts = np.array([visits.count(mode) for mode in modes])
    assert counts.sum() > 990 and counts.min() > 90
    again = trained.sample(1800, chain_length=1820, burn_in=20, seed=0)
    np.testing.assert_array_equal(path, again)


def test_chains_start_at_pixels_drawn_one_by_one():
    rng = np.random.default_rng(0)
    for likelihood in ("bernoulli", "gaussian"):
        model = GSN(
            (2, 2, 1), 3, likelihood=likelihood, walkback_steps=1, seed=1
        )
        uniform = np.array(model._pixel_noise(4000, (0, 0)))
        np.testing.assert_allclose(uniform.mean(axis=0), 0.5, atol=0.04)
        images = rng.random((64, 2, 2, 1), "float32")
        images[:, 0] = np.round(0.4 * images[:, 0] + 0.2)  # some are white
        model.compile(jit_compile=False)
        model.fit(images, batch_size=32, epochs=3, verbose=0)
        noise = np.array(model._pixel_noise(4000, (0, 0)))
        np.testing.assert_allclose(noise.mean(0), images.mean(0), atol=0.04)
        if model.is_binary:
            assert set(np.unique(noise)) == {0, 1}
        else:
            np.testing.assert_allclose(noise.std(0), images.std(0), atol=0.05)


def test_the_start_of_chains_is_of_all_batches_without_nan():
    model = GSN((2, 2, 1), 3, seed=1)
    model.compile()
    model._update_moments(tf.fill((4, 2, 2, 1), np.nan))
    np.testing.assert_allclose(np.array(model.moments)[0], 0.5)
    # It does not count as the first, nor does one after another `compile`.
    model._update_moments(tf.fill((4, 2, 2, 1), 0.2))
    np.testing.assert_allclose(np.array(model.moments)[0], 0.2)
    model.compile()
    model._update_moments(tf.fill((4, 2, 2, 1), 0.4))
    np.testing.assert_allclose(np.array(model.moments)[0], 0.3)


def test_imputation_keeps_what_is_seen_and_finds_the_rest(trained):
    x = np.unique(bars(), axis=0)
    mask = np.zeros((3, 3, 1), bool)
    mask[0] = mask[:, 0] = True
    drawn = np.array(
        trained.impute(x, mask, num_samples=20, chain_length=30, seed=0)
    )
    assert drawn.shape == (20, 6, 3, 3, 1)
    np.testing.assert_array_equal(
        drawn[:, :, mask], np.tile(x[:, mask], (20, 1, 1))
    )
    assert np.mean(np.abs(np.round(drawn) - x)) < 0.1


def energy_distance(a, b):
    """`2 E|a - b| - E|a - a'| - E|b - b'|` of points `(n, 2)`."""
    distances = [
        spatial.distance.cdist(u, v).mean() for u, v in ((a, b), (a, a), (b, b))
    ]
    return 2 * distances[0] - distances[1] - distances[2]


@pytest.mark.slow
def test_a_chain_in_two_dimensions_is_distributed_as_the_data():
    """Nearer than twice the distance between two sets of data."""
    train, _ = toys.generate("two_moons", 20_000, seed=0)
    shape = (1, 1, 2)
    model = GSN(
        shape,
        64,
        likelihood="gaussian",
        walkback_steps=1,
        noise=0.05,
        encoder=networks.mlp_encoder(shape, 64, (128, 128)),
        decoder=networks.mlp_decoder(64, shape, (128,), output_channels=4),
        seed=1,
    )
    decay = keras.optimizers.schedules.CosineDecay(3e-3, 4000, 0.01)
    model.compile(
        keras.optimizers.Adam(decay), steps_per_execution=80, jit_compile=False
    )
    model.fit(train, batch_size=250, epochs=50, verbose=0)
    count = 400
    points = np.reshape(model.sample(count, chain_length=400, seed=0), (-1, 2))
    sets = [
        np.reshape(toys.generate("two_moons", count, seed)[0], (-1, 2))
        for seed in range(1, 6)
    ]
    floor = np.mean(
        [energy_distance(*pair) for pair in itertools.combinations(sets, 2)]
    )

    def distance(points):
        return np.mean([energy_distance(points, other) for other in sets])

    assert distance(np.random.default_rng(0).random((count, 2))) > 10 * floor
    assert distance(points) < 2 * floor


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"hidden_dim": ()}, "hidden_dim"),
        ({"hidden_dim": (4, 0)}, "hidden_dim"),
        ({"hidden_dim": 4, "walkback_steps": 0}, "walkback_steps"),
        ({"hidden_dim": 4, "noise": 1.5}, "noise"),
        ({"hidden_dim": 4, "hidden_noise": -1.0}, "hidden_noise"),
        ({"hidden_dim": 4, "likelihood": "categorical"}, "likelihood"),
        (
            {"hidden_dim": 4, "encoder": networks.mlp_encoder(SHAPE, 4, (3,))},
            "decoder",
        ),
        (
            {
                "hidden_dim": 4,
                "encoder": networks.mlp_encoder(SHAPE, 5, (3,)),
                "decoder": networks.mlp_decoder(4, SHAPE, (3,)),
            },
            "encoder",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        GSN(SHAPE, **arguments)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 3, "chain_length": 0}, "chain_length"),
        ({"num_samples": 3, "burn_in": -1}, "burn_in"),
        ({"num_samples": 3, "chain_length": 5, "burn_in": 5}, "burn_in"),
        ({"num_samples": 3, "condition": [0, 1, 2]}, "condition"),
    ],
)
def test_bad_arguments_of_sample_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        gsn().sample(**arguments)


@pytest.mark.parametrize(
    "likelihood, rate", [("bernoulli", 1e-3), ("gaussian", 1e-4)]
)
def test_gaussian_pixels_are_trained_at_a_lower_rate(likelihood, rate):
    model = gsn(likelihood=likelihood)
    model.compile()
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)
