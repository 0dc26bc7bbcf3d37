"""The mathematics of M2 and M1+M2, on networks without hidden layers."""

import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_gen import VAE, networks
from keras_gen.models.semi_supervised import SemiSupervisedVAE

SHAPE = (2, 2, 1)
CLASSES = 3
GRID = np.linspace(-6, 6, 241)  # of latents, for integrals
PRIOR = scipy.stats.norm.logpdf(GRID) + math.log(GRID[1] - GRID[0])


def set_weights(network, seed, scale=0.8):
    rng = np.random.default_rng(seed)
    network.set_weights(
        [rng.normal(0, scale, w.shape) for w in network.weights]
    )


def set_encoder_weights(encoder, seed):
    """Posteriors that differ, and are wide enough to be drawn from."""
    set_weights(encoder, seed, 0.2)
    kernel, bias = encoder.get_weights()
    bias[1::2] += 1.0  # the scales
    encoder.set_weights([kernel, bias])


def linear_vae():
    """M1: one feature."""
    vae = VAE(
        SHAPE,
        1,
        encoder=networks.mlp_encoder(SHAPE, 2, ()),
        decoder=networks.mlp_decoder(1, SHAPE, ()),
        seed=3,
    )
    set_encoder_weights(vae.encoder, 10)
    set_weights(vae.decoder, 11)
    return vae


def linear_model(features=None, **arguments):
    observed = SHAPE if features is None else (1,)
    given = {"condition_dim": CLASSES, "hidden_dims": ()}
    if features is None:
        decoder = networks.mlp_decoder(1, SHAPE, **given)
    else:
        decoder = networks.mlp_encoder((1,), 2, **given)
    model = SemiSupervisedVAE(
        SHAPE,
        1,
        CLASSES,
        features=features,
        encoder=networks.mlp_encoder(observed, CLASSES * 2, ()),
        classifier=networks.mlp_encoder(observed, CLASSES, ()),
        decoder=decoder,
        seed=1,
        **arguments,
    )
    set_encoder_weights(model.encoder, 0)
    set_weights(model.classifier, 1)
    set_weights(model.decoder, 2)
    return model


def compiled(model, learning_rate=0.1, **arguments):
    arguments = {
        "jit_compile": False,
        "steps_per_execution": 1,
        **arguments,
    }
    model.compile(keras.optimizers.SGD(learning_rate), **arguments)
    return model


def without_latents(model):
    """The model with a decoder that does not look at z."""
    kernel, bias = model.decoder.get_weights()
    kernel[0] = 0
    model.decoder.set_weights([kernel, bias])
    return model


def with_prior_as_posterior(model):
    kernel, _ = model.encoder.get_weights()
    unit = math.log(math.expm1(1 - 1e-5))  # what softplus makes 1 of
    model.encoder.set_weights([0 * kernel, np.array([0, unit] * CLASSES)])
    return model


def images(num_images=6, seed=0):
    x = np.random.default_rng(seed).integers(0, 2, (num_images, *SHAPE))
    return x.astype("float32")


# The model once more, in NumPy and float64.


def linear(network, *inputs):
    kernel, bias = (np.asarray(w, "float64") for w in network.get_weights())
    flat = [np.reshape(v, (len(v), -1)) for v in inputs]
    return np.concatenate(flat, axis=1) @ kernel + bias


def bernoulli(x, logits):
    """log p(x) summed over pixels, `(len(x), len(logits))`."""
    x = x.reshape(len(x), 1, -1)
    return (x * logits - np.logaddexp(0, logits)).sum(axis=-1)


def log_softmax(logits):
    return logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)


def kl_by_hand(model, x):
    """KL(q(z given x, y), p(z)), `(batch, classes)`."""
    h = linear(model.encoder, x).reshape(-1, CLASSES, 2)
    loc, scale = h[..., 0], np.logaddexp(0, h[..., 1]) + 1e-5
    return 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)


def bounds_by_hand(model, x):
    """`bound(x, y)` of a decoder that does not look at z."""
    logits = linear(model.decoder, np.zeros((CLASSES, 1)), np.eye(CLASSES))
    return bernoulli(x, logits) - kl_by_hand(model, x) - math.log(CLASSES)


def log_q_by_hand(model, x):
    return log_softmax(linear(model.classifier, x))


def log_joint(model, x):
    """log p(x given y) by a sum over z, `(batch, classes)`."""
    columns = []
    for y in np.eye(CLASSES):
        y = np.tile(y, (len(GRID), 1))
        h = linear(model.decoder, GRID[:, None], y)
        if model.features is None:
            log_p = bernoulli(x, h) + PRIOR
        else:  # features too: (grid of z, grid of features)
            loc, scale = h[:, :1], np.logaddexp(0, h[:, 1:]) + 1e-5
            log_f = scipy.stats.norm.logpdf(GRID[None], loc, scale)
            log_f = scipy.special.logsumexp(log_f + PRIOR[:, None], axis=0)
            logits = linear(model.features.decoder, GRID[:, None])
            step = math.log(GRID[1] - GRID[0])
            log_p = bernoulli(x, logits) + log_f + step
        columns.append(scipy.special.logsumexp(log_p, axis=1))
    return np.stack(columns, axis=1)


# Bounds


def test_unlabelled_bound_is_the_sum_over_all_classes():
    model, x = without_latents(linear_model()), images()
    bounds, log_q = bounds_by_hand(model, x), log_q_by_hand(model, x)
    expected = (np.exp(log_q) * (bounds - log_q)).sum(axis=1)
    found = model.elbo(x, num_samples=40_000, seed=0)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_labelled_bound_is_that_of_its_class():
    model, x = without_latents(linear_model()), images()
    y = np.arange(6) % CLASSES
    expected = bounds_by_hand(model, x)[range(6), y] + math.log(CLASSES)
    found = model.elbo(x, condition=y, num_samples=40_000, seed=0)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_best_classifier_makes_the_unlabelled_bound_a_logsumexp():
    model = with_prior_as_posterior(without_latents(linear_model()))
    x = images()
    # Log-odds of Bernoulli pixels are linear: p(y given x) is a classifier.
    logits = linear(model.decoder, np.zeros((CLASSES, 1)), np.eye(CLASSES))
    constant = -np.logaddexp(0, logits).sum(axis=1)
    model.classifier.set_weights([logits.T, constant])
    log_p = scipy.special.logsumexp(bounds_by_hand(model, x), axis=1)
    np.testing.assert_allclose(model.elbo(x), log_p, rtol=1e-5)
    np.testing.assert_allclose(
        model.log_prob(x, num_samples=1), log_p, rtol=1e-5
    )
    exact = scipy.special.softmax(bounds_by_hand(model, x), axis=1)
    np.testing.assert_allclose(model.classify(x), exact, rtol=1e-4)

    set_weights(model.classifier, 5)  # any other one loses KL(q, p)
    log_q = log_q_by_hand(model, x)
    kl = (np.exp(log_q) * (log_q - np.log(exact))).sum(axis=1)
    assert np.all(kl > 0.01)
    np.testing.assert_allclose(model.elbo(x), log_p - kl, rtol=1e-5)


def test_kl_is_its_formula_and_reconstruction_the_mean_over_latents():
    model, x = linear_model(), images(2)
    many = np.repeat(x, 20_000, axis=0)
    reconstruction, kl = model.bounds(many)
    np.testing.assert_allclose(kl[::20_000], kl_by_hand(model, x), rtol=1e-4)
    found = np.reshape(reconstruction, (2, -1, CLASSES))
    h = linear(model.encoder, x).reshape(-1, CLASSES, 2)
    for c, y in enumerate(np.eye(CLASSES)):
        logits = linear(
            model.decoder, GRID[:, None], np.tile(y, (len(GRID), 1))
        )
        scale = np.logaddexp(0, h[:, c, 1:]) + 1e-5
        density = scipy.stats.norm.pdf(GRID, h[:, c, :1], scale)
        log_p = bernoulli(x, logits) * density * (GRID[1] - GRID[0])
        error = found[..., c].std(axis=1) / math.sqrt(20_000)
        miss = np.abs(found[..., c].mean(axis=1) - log_p.sum(axis=1))
        assert np.all(miss < 4 * error)


@pytest.mark.parametrize("stacked", [False, True])
def test_log_prob_is_the_exact_marginal(stacked):
    model = linear_model(linear_vae() if stacked else None)
    x, y = images(), np.arange(6) % CLASSES
    exact = log_joint(model, x)
    found = model.log_prob(x, condition=y, num_samples=20_000, seed=0)
    np.testing.assert_allclose(found, exact[range(6), y], atol=0.03)
    found = model.log_prob(x, num_samples=20_000, seed=0)
    marginal = scipy.special.logsumexp(exact, axis=1) - math.log(CLASSES)
    np.testing.assert_allclose(found, marginal, atol=0.03)
    # Of so small a model all images can be told: they sum to one.
    bits = np.arange(16)[:, None] >> np.arange(4) & 1
    everything = bits.reshape(16, *SHAPE).astype("float32")
    total = np.exp(model.log_prob(everything, num_samples=5_000, seed=0))
    assert total.sum() == pytest.approx(1, abs=0.02)
    bound = model.elbo(x, num_samples=2_000, seed=0)
    assert np.all(bound < marginal)


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_logistic"])
def test_grey_likelihoods_are_those_of_the_vae(likelihood):
    decoder = networks.mlp_decoder(
        1, SHAPE, (), output_channels=2, condition_dim=1
    )
    set_weights(decoder, 0, 0.3)
    x = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), "uint8")
    model = SemiSupervisedVAE(
        SHAPE, 1, 1, likelihood=likelihood, decoder=decoder, seed=0
    )
    vae = VAE(
        SHAPE,
        1,
        likelihood=likelihood,
        num_classes=1,
        decoder=model.decoder,
        seed=0,
    )
    found, expected = (
        m.log_prob(x, num_samples=20_000, seed=0) for m in (model, vae)
    )
    np.testing.assert_allclose(found, expected, rtol=0.01)


# Training


def fitted(x, y, **arguments):
    model = compiled(linear_model(**arguments))
    logs = model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0).history
    return model, {name: values[0] for name, values in logs.items()}


def test_loss_is_the_mean_bound_and_the_mean_classification_loss():
    model = compiled(without_latents(linear_model(alpha=7.0)))
    x, y = images(8), np.array([0, 2, -1, -1, 1, -1, -1, -1])
    bounds, log_q = bounds_by_hand(model, x), log_q_by_hand(model, x)
    unlabelled = (np.exp(log_q) * (bounds - log_q)).sum(axis=1)
    labelled = bounds[range(8), y]
    bound = np.where(y >= 0, labelled, unlabelled).mean()
    error = -log_q[range(8), y][y >= 0]
    accuracy = np.mean(log_q.argmax(axis=1)[y >= 0] == y[y >= 0])

    weight = np.where(y[:, None] >= 0, np.eye(CLASSES)[y], np.exp(log_q))
    kl = (weight * kl_by_hand(model, x)).sum(axis=1).mean()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(7 * error.mean() - bound, rel=1e-4)
    parts = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
    assert parts["loss"] == pytest.approx(logs["loss"], rel=1e-4)
    of_bytes = y[[0, 1, 4]].astype("uint8")
    scores = model.evaluate(x[[0, 1, 4]], of_bytes, verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(accuracy)
    logs = model.fit(x, y, batch_size=8, verbose=0).history
    assert logs["loss"][0] == pytest.approx(7 * error.mean() - bound, rel=1e-4)
    assert logs["kl"][0] == pytest.approx(kl, rel=1e-4)
    assert logs["accuracy"][0] == pytest.approx(accuracy)


def test_withheld_labels_change_nothing():
    x = images(16)
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 16)
    withheld = np.arange(16) >= 4
    shuffled = y.copy()
    shuffled[withheld] = rng.permutation((y[withheld] + 1) % CLASSES)
    assert np.mean(y[withheld] == shuffled[withheld]) < 1
    weights = []
    for labels in (y, shuffled):
        model = compiled(linear_model())
        hidden = np.where(withheld, -1, labels)
        model.fit(x, hidden, batch_size=4, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_label_counts_the_same_in_batches_of_any_ratio():
    x, y = images(24), np.full(24, -1)
    y[8:14] = [0, 1, 2, 0, 1, 2]  # batches of none, 6 and 0 labels
    model = compiled(without_latents(linear_model()), learning_rate=0.0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert float(model.labelled_share) == pytest.approx(6 / 24)
    # From the thousandth step on the share moves by a thousandth a step.
    model.optimizer.iterations.assign(10**6)
    logs = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
    bounds, log_q = bounds_by_hand(model, x), log_q_by_hand(model, x)
    unlabelled = (np.exp(log_q) * (bounds - log_q)).sum(axis=1)
    bound = np.where(y >= 0, bounds[range(24), y], unlabelled).mean()
    error = -log_q[range(24), y][y >= 0].mean()
    expected = model.alpha * error - bound
    assert logs["loss"][0] == pytest.approx(expected, rel=1e-3)


def test_images_without_labels_alone_train_all_but_nothing_is_classified():
    model, logs = fitted(images(), np.full(6, -1))
    assert logs["accuracy"] == 0 and np.isfinite(logs["loss"])
    assert float(model.labelled_share) == 0


def test_features_stay_as_they_are():
    vae = linear_vae()
    before = vae.get_weights()
    model = compiled(linear_model(vae))
    own = [np.array(w) for w in model.decoder.weights]
    model.fit(images(), np.array([0, 1, 2, -1, -1, -1]), verbose=0)
    for one, other in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(own[0] != np.array(model.decoder.weights[0]))


@pytest.mark.parametrize(
    "stacked", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_label_for_each_class_is_enough_for_separate_clusters(stacked):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    shape, y = (4, 4, 1), np.arange(300) % 3
    centers = rng.choice([0.1, 0.9], (3, *shape))
    x = (rng.random((300, *shape)) < centers[y]).astype("float32")
    features = None
    if stacked:
        features = VAE(shape, 2, encoder=networks.mlp_encoder(shape, 4, (32,)))
        features.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        features.fit(x, epochs=20, batch_size=50, verbose=0)
    model = SemiSupervisedVAE(shape, 2, 3, features=features, seed=0)
    model.compile(keras.optimizers.Adam(0.003), jit_compile=False)
    hidden = np.where(np.arange(300) < 3, y, -1)
    model.fit(x, hidden, epochs=30, batch_size=50, verbose=0)
    accuracy = np.mean(np.argmax(model.classify(x), axis=1) == y)
    assert accuracy > 0.95
    drawn = model.classify(model.sample(60, condition=y[:60], seed=0))
    assert np.mean(np.argmax(drawn, axis=1) == y[:60]) > 0.9


def test_two_replicas_train_as_one(two_replicas):
    x, y = images(16), np.array([0, 1, 2, 0] + 12 * [-1])
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(
        8, drop_remainder=True
    )
    single = compiled(without_latents(linear_model()))
    single.fit(data, epochs=2, verbose=0)
    with two_replicas.scope():
        model = compiled(without_latents(linear_model()))
    model.fit(data, epochs=2, verbose=0)
    assert np.array(model.labelled_share) == pytest.approx(0.25)
    for one, other in zip(
        single._trained_weights(), model._trained_weights(), strict=True
    ):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-5)


@pytest.mark.parametrize("stacked", [False, True])
def test_xla_and_half_precision_train(stacked):
    keras.config.set_dtype_policy("mixed_float16")
    vae = VAE(SHAPE, 2, seed=0) if stacked else None
    model = SemiSupervisedVAE(SHAPE, 2, 3, features=vae, seed=0)
    model.compile(jit_compile=True, steps_per_execution=2)
    y = np.array([0, 1, 2, -1, -1, -1, -1, -1])
    history = model.fit(images(8), y, batch_size=4, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert model.sample(2, seed=0).dtype == "float32"


# Verbs


def test_classify_is_the_softmax_of_the_classifier():
    model, x = linear_model(), images()
    expected = np.exp(log_q_by_hand(model, x))
    np.testing.assert_allclose(model.classify(x), expected, rtol=1e-5)
    grey = (255 * x).astype("uint8")
    np.testing.assert_allclose(model.classify(grey), expected, rtol=1e-5)


def test_without_a_class_images_are_taken_for_their_most_probable_one():
    model, x = linear_model(), images()
    set_weights(model.classifier, 4, 3.0)
    best = log_q_by_hand(model, x).argmax(axis=1)
    assert len(set(best)) > 1
    z = model.encode(x)
    loc = linear(model.encoder, x).reshape(-1, CLASSES, 2)[range(6), best, 0]
    np.testing.assert_allclose(z[:, 0], loc, rtol=1e-4)
    np.testing.assert_array_equal(z, model.encode(x, condition=best))
    np.testing.assert_array_equal(z, model.posterior(x, condition=best).mean())
    decoded = model.decode(z, condition=best)
    for given in ({}, {"condition": best}):
        np.testing.assert_allclose(
            model.reconstruct(x, **given), decoded, rtol=1e-6
        )
    np.testing.assert_allclose(model(x), decoded, rtol=1e-6)
    np.testing.assert_allclose(
        model.likelihood(z, best).mean(), decoded, rtol=1e-6
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_samples_have_the_asked_class_and_seed(stacked):
    model = linear_model(linear_vae() if stacked else None)
    asked = np.repeat(np.arange(CLASSES), 4_000)
    x = np.array(model.sample(len(asked), condition=asked, seed=0))
    assert x.shape == (len(asked), *SHAPE) and x.dtype == "float32"
    for c in range(CLASSES):
        y = np.tile(np.eye(CLASSES)[c], (len(GRID), 1))
        h = linear(model.decoder, GRID[:, None], y)
        if stacked:
            scale = np.logaddexp(0, h[:, 1:]) + 1e-5
            density = scipy.stats.norm.pdf(GRID[None], h[:, :1], scale)
            density = np.exp(PRIOR) @ density * (GRID[1] - GRID[0])
            h = linear(model.features.decoder, GRID[:, None])
        else:
            density = np.exp(PRIOR)
        expected = density @ scipy.special.expit(h)
        mean = x[asked == c].reshape(4_000, -1).mean(axis=0)
        np.testing.assert_allclose(mean, expected, atol=0.02)
    np.testing.assert_array_equal(
        model.sample(9, seed=5), model.sample(9, seed=5)
    )
    assert np.any(model.sample(9, seed=5) != model.sample(9, seed=6))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_imputed_pixels_have_their_exact_mean(stacked, given):
    model = linear_model(linear_vae() if stacked else None)
    x = images(1)
    mask = np.array([True, True, True, False]).reshape(SHAPE)
    arguments = {"condition": [1]} if given else {}
    found = model.impute(
        x, mask, num_samples=2_000, num_steps=200, seed=0, **arguments
    )
    assert found.shape == (2_000, 1, *SHAPE)
    observed = np.broadcast_to(mask, found.shape)
    np.testing.assert_array_equal(
        np.array(found)[observed], np.broadcast_to(x, found.shape)[observed]
    )
    white, black = x.copy(), x.copy()
    white[0, 1, 1, 0], black[0, 1, 1, 0] = 1, 0
    both = log_joint(model, np.concatenate([white, black]))
    if given:
        both = both[:, 1:2]
    expected = scipy.special.softmax(scipy.special.logsumexp(both, axis=1))[0]
    assert np.mean(found[..., 1, 1, 0]) == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_saved_model_is_the_same_and_trains_on(tmp_path, stacked):
    vae = linear_vae() if stacked else None
    model = compiled(linear_model(vae, alpha=3.0))
    x, y = images(), np.array([0, 1, 2, -1, -1, -1])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.alpha == 3.0
    assert float(loaded.labelled_share) == pytest.approx(0.5)
    for verb in ("classify", "encode", "reconstruct"):
        np.testing.assert_array_equal(
            getattr(model, verb)(x), getattr(loaded, verb)(x)
        )
    np.testing.assert_array_equal(
        model.log_prob(x, seed=0), loaded.log_prob(x, seed=0)
    )
    logs = [m.fit(x, y, verbose=0).history for m in (model, loaded)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("stacked", [False, True])
def test_the_export_gives_what_the_verbs_give(tmp_path, stacked):
    model = linear_model(linear_vae() if stacked else None)
    model.export(str(tmp_path / "export"))
    exported = tf.saved_model.load(str(tmp_path / "export"))
    x, y = images(3), np.array([2, 0, 1])
    np.testing.assert_allclose(
        exported.classify(x), model.classify(x), rtol=1e-5
    )
    np.testing.assert_allclose(
        exported.conditional_sample(
            tf.constant(3), tf.constant(y), tf.constant(0, "int64")
        ),
        model.sample(3, condition=y, seed=0),
        rtol=1e-5,
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
        ({"alpha": -1}, "`alpha`"),
        ({"likelihood": "poisson"}, "`likelihood`.*poisson"),
        ({"encoder": networks.mlp_encoder(SHAPE, 4, ())}, "`encoder`"),
        ({"classifier": networks.mlp_encoder(SHAPE, 4, ())}, "`classifier`"),
        ({"decoder": networks.mlp_decoder(2, SHAPE, ())}, "`decoder`.*two"),
        ({"features": networks.mlp_encoder(SHAPE, 4, ())}, "`features`.*VAE"),
        ({"features": "vae"}, "`features`.*str"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    defaults = {"latent_dim": 2, "num_classes": CLASSES}
    with pytest.raises(ValueError, match=message) as error:
        SemiSupervisedVAE(SHAPE, **{**defaults, **arguments})
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "vae, word",
    [
        (lambda: VAE((4, 4, 1), 2), r"\(4, 4, 1\)"),
        (lambda: VAE(SHAPE, 2, num_classes=3), "conditional"),
        (lambda: VAE(SHAPE, 2, latent="categorical"), "categorical"),
        (lambda: VAE(SHAPE, (2, 2)), r"\(2, 2\)"),
    ],
)
def test_features_that_are_no_plain_vae_of_these_images_are_refused(vae, word):
    with pytest.raises(ValueError, match=f"`features`.*{word}"):
        SemiSupervisedVAE(SHAPE, 2, CLASSES, features=vae())


def test_bad_data_is_refused():
    model, x = compiled(linear_model()), images()
    with pytest.raises(ValueError, match="-1 for no label"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match=r"\[-1, 2\].*to 3"):
        model.fit(x, np.arange(6) - 2, verbose=0)
    for verb in (model.encode, model.reconstruct, model.elbo, model.log_prob):
        with pytest.raises(ValueError, match="`condition`"):
            verb(x, condition=[0] * 5 + [-1])
    with pytest.raises(ValueError, match="`condition`"):
        model.sample(3, condition=[0, 1])
    with pytest.raises(ValueError, match="`z`"):
        model.decode(np.zeros((3, 2)), condition=[0, 1, 2])
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.decode(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="`mask`"):
        model.impute(x, x + 0.5)
    with pytest.raises(ValueError, match="`num_steps`"):
        model.impute(x, x > 0.5, num_steps=0)
