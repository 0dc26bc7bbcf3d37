"""The mathematics of PCA; what every model must do is in contract_test."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.models.pca import PCA

SHAPE = (2, 3, 1)


def correlated(num_images=60, shape=SHAPE, seed=0):
    """Images of a Gaussian well within [0, 1]."""
    rng = np.random.default_rng(seed)
    num_dims = np.prod(shape)
    mix = rng.normal(size=(num_dims, num_dims)) / np.sqrt(num_dims)
    x = 0.5 + 0.06 * rng.normal(size=(num_images, num_dims)) @ mix
    return np.clip(x, 0, 1).reshape(-1, *shape).astype("float32")


def fitted(x, latent_dim=2, batch_size=16, epochs=1, **arguments):
    pca = PCA(x.shape[1:], latent_dim, seed=1)
    pca.compile(**{"jit_compile": False, **arguments})
    pca.fit(x, batch_size=batch_size, epochs=epochs, verbose=0)
    return pca


def flat(x):
    return np.array(x, "float64").reshape(len(x), -1)


# The closed form


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_is_the_pca_of_scikit_learn(jit_compile):
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = correlated(300, (5, 5, 2))
    pca = fitted(x, 7, jit_compile=jit_compile)
    other = decomposition.PCA(7, svd_solver="full").fit(flat(x))
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(pca.mean, other.mean_, **close)
    np.testing.assert_allclose(
        pca.explained_variance, other.explained_variance_, rtol=1e-5
    )
    np.testing.assert_allclose(
        pca.noise_variance, other.noise_variance_, rtol=1e-5
    )
    components = np.array(pca.components)
    signs = np.sign(np.sum(components * other.components_, axis=1))
    np.testing.assert_allclose(
        components, signs[:, None] * other.components_, **close
    )
    codes = other.transform(flat(x))
    np.testing.assert_allclose(pca.encode(x), signs * codes, **close)
    images = other.inverse_transform(codes).reshape(x.shape)
    np.testing.assert_allclose(
        pca.reconstruct(x), np.clip(images, 0, 1), **close
    )


def test_the_largest_entry_of_a_component_is_positive():
    pca = fitted(correlated(), 6)
    components = np.array(pca.components)
    np.testing.assert_allclose(components @ components.T, np.eye(6), atol=1e-6)
    assert np.all(components.max(axis=1) > -components.min(axis=1))


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_moments_of_batches_are_those_of_the_whole(batch_size):
    x = correlated()
    pca = fitted(x, batch_size=batch_size)
    assert float(pca.count) == len(x)
    np.testing.assert_allclose(pca.center, flat(x).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(
        np.array(pca.scatter) / (len(x) - 1), np.cov(flat(x).T), rtol=1e-9
    )


def test_moments_keep_their_digits_far_from_zero():
    rng = np.random.default_rng(0)
    x = 1 - 1e-5 * rng.random((100, 1, 1, 2), "float32")
    pca = fitted(x, batch_size=5)
    np.testing.assert_allclose(
        np.array(pca.scatter) / 99, np.cov(flat(x).T), rtol=1e-9
    )


def test_epochs_and_a_second_fit_count_no_image_twice():
    x = correlated()
    once, twice = fitted(x), fitted(x, epochs=3)
    weights = [once.get_weights(), twice.get_weights()]
    twice.fit(x, batch_size=8, verbose=0)
    weights.append(twice.get_weights())
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert float(twice.count) == len(x)
    other = correlated(seed=1)
    twice.fit(other, verbose=0)
    np.testing.assert_allclose(
        twice.components, fitted(other).components, atol=1e-5
    )


def test_the_loss_of_an_epoch_is_that_of_its_closed_form():
    x, held_out = correlated(), correlated(seed=1)
    pca = PCA(SHAPE, 2)
    pca.compile(jit_compile=False)
    history = pca.fit(x, validation_data=held_out, verbose=0).history
    errors = flat(x) - flat(pca.reconstruct(x))
    loss = np.mean(np.sum(errors**2, axis=1))
    assert history["loss"][0] == pytest.approx(loss, rel=1e-4)
    assert history["mse"][0] == pytest.approx(loss / 6, rel=1e-4)
    # Validation sees the components of its own epoch.
    for data, prefix in ((x, ""), (held_out, "val_")):
        logs = pca.evaluate(data, return_dict=True, verbose=0)
        for name, value in logs.items():
            assert history[prefix + name][0] == pytest.approx(value, rel=1e-4)


def test_as_many_components_as_pixels_lose_nothing():
    x = correlated()
    pca = fitted(x, 6)
    assert float(pca.noise_variance) == 0
    np.testing.assert_allclose(pca.reconstruct(x), x, atol=1e-6)


def test_reconstructions_and_decoded_images_lie_within_zero_and_one():
    pca = fitted(correlated())
    images = pca.decode(100 * np.random.default_rng(0).normal(size=(9, 2)))
    assert images.shape == (9, *SHAPE) and images.dtype == "float32"
    assert np.min(images) == 0 and np.max(images) == 1


def test_a_batch_with_a_nan_is_left_out_and_counted():
    x = correlated(48)
    bad = x.copy()
    bad[16] = np.nan
    data = tf.data.Dataset.from_tensor_slices(bad).batch(16)
    pca = PCA(SHAPE, 2)
    pca.compile(jit_compile=False)
    history = pca.fit(data, verbose=0).history
    assert history["skipped_updates"] == [1] and float(pca.count) == 32
    clean = fitted(np.concatenate([x[:16], x[32:]]))
    np.testing.assert_allclose(pca.components, clean.components, atol=1e-6)
    assert np.isfinite(history["loss"][0])
    with pytest.raises(FloatingPointError, match="in a row"):
        good = tf.data.Dataset.from_tensor_slices(x[:1]).batch(1)
        nan = tf.data.Dataset.from_tensors(np.full((1, *SHAPE), np.nan))
        nan = nan.map(lambda x: tf.cast(x, "float32")).repeat(70)
        pca.fit(good.concatenate(nan), verbose=0)


def test_no_moments_leave_the_components_alone():
    pca = fitted(correlated())
    before = np.array(pca.components)
    pca.restart()
    assert pca.solve() == {}
    np.testing.assert_array_equal(pca.components, before)


def test_two_replicas_sum_up_the_moments_of_all_images(two_replicas):
    x = correlated(64)
    with two_replicas.scope():
        pca = PCA(SHAPE, 2)
        pca.compile()
    pca.fit(x, batch_size=16, verbose=0)
    assert np.asarray(pca.count) == 64
    np.testing.assert_allclose(
        np.array(pca.scatter) / 63, np.cov(flat(x).T), rtol=1e-9
    )
    np.testing.assert_allclose(pca.components, fitted(x).components, atol=1e-6)


def test_it_needs_no_optimizer_and_takes_one_in_vain(tmp_path):
    x = correlated()
    pca = PCA(SHAPE, 2)
    pca.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    assert pca.optimizer is None and not pca.optimizers
    pca.fit(x, verbose=0)
    pca.save(tmp_path / "pca.keras")
    loaded = keras.saving.load_model(tmp_path / "pca.keras")
    np.testing.assert_array_equal(loaded.encode(x), pca.encode(x))
    loaded.fit(x, epochs=2, verbose=0)
    np.testing.assert_allclose(loaded.components, pca.components, atol=1e-6)


def test_it_is_exported_without_what_it_cannot_do(tmp_path):
    x = correlated()
    pca = fitted(x)
    pca.export(tmp_path / "serving")
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    assert set(loaded.signatures) - {"serving_default"} == {
        "encode",
        "decode",
        "reconstruct",
    }
    np.testing.assert_allclose(loaded.encode(x), pca.encode(x), atol=1e-6)
    for verb in ("sample", "log_prob", "elbo"):
        assert not hasattr(pca, verb)


def test_half_precision_leaves_its_weights_whole():
    keras.config.set_dtype_policy("mixed_float16")
    x = correlated()
    pca = fitted(x)
    assert {w.dtype for w in pca.weights} == {"float32", "float64", "int64"}
    keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(pca.components, fitted(x).components)
    assert pca.reconstruct(x).dtype == "float32"


@pytest.mark.parametrize("latent_dim", [0, 7, 2.5])
def test_a_bad_number_of_components_is_refused(latent_dim):
    with pytest.raises(ValueError, match="`latent_dim`"):
        PCA(SHAPE, latent_dim)


def test_codes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`z` .*\(batch, 2\)"):
        PCA(SHAPE, 2).decode(np.zeros((4, 3)))


# Imputation


def conditional(pca, x, observed):
    """Mean and covariance of the missing pixels, by blocks of the whole."""
    components = np.array(pca.components, "float64")
    noise = float(pca.noise_variance)
    scales = np.array(pca.explained_variance, "float64") - noise
    covariance = components.T * scales @ components
    covariance += noise * np.eye(len(components.T))
    mean = np.array(pca.mean, "float64")
    missing = ~observed
    gain = np.linalg.solve(
        covariance[np.ix_(observed, observed)],
        covariance[np.ix_(observed, missing)],
    ).T
    return (
        mean[missing] + gain @ (x[observed] - mean[observed]),
        covariance[np.ix_(missing, missing)]
        - gain @ covariance[np.ix_(observed, missing)],
    )


@pytest.mark.parametrize("latent_dim", [2, 5])
def test_missing_pixels_are_drawn_from_their_conditional(latent_dim):
    x = correlated(3)
    pca = fitted(correlated(), latent_dim)
    masks = np.array(
        [[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool
    )
    num_samples = 40_000
    draws = pca.impute(
        x, masks.reshape(3, *SHAPE), num_samples=num_samples, seed=0
    )
    draws = np.array(draws, "float64").reshape(num_samples, 3, 6)
    for i, observed in enumerate(masks):
        mean, covariance = conditional(pca, flat(x)[i], observed)
        missing = draws[:, i, ~observed]
        error = np.sqrt(np.diag(covariance) / num_samples)
        assert np.all(np.abs(missing.mean(axis=0) - mean) < 4.5 * error)
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        np.testing.assert_allclose(
            np.cov(missing.T) / scale, covariance / scale, atol=0.03
        )


def test_observed_pixels_tell_the_others_where_there_is_no_noise():
    """All components: the limit of the conditional as the noise vanishes."""
    pca = fitted(correlated(), 6)
    x = correlated(1, seed=2)
    observed = np.array([1, 1, 1, 0, 1, 1], bool)
    mean, covariance = conditional(pca, flat(x)[0], observed)
    draws = pca.impute(x, observed.reshape(SHAPE), num_samples=20_000, seed=0)
    missing = np.array(draws)[:, 0].reshape(-1, 6)[:, ~observed]
    error = np.sqrt(covariance[0, 0])
    assert abs(missing.mean() - mean[0]) < 4 * error / np.sqrt(20_000)
    assert missing.std() == pytest.approx(error, rel=0.03)


def test_observed_pixels_come_back_bit_equal_and_the_others_do_not_count():
    pca = fitted(correlated())
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, *SHAPE)).astype("uint8")
    mask = rng.random(x.shape) < 0.5
    filled = np.array(pca.impute(x, mask, num_samples=3, seed=0))
    assert filled.shape == (3, *x.shape) and filled.dtype == "float32"
    observed = x.astype("float32") / np.float32(255)
    for one in filled:
        np.testing.assert_array_equal(one[mask], observed[mask])
    assert np.min(filled) >= 0 and np.max(filled) <= 1
    other = np.where(mask, x, 255 - x)
    np.testing.assert_array_equal(
        pca.impute(other, mask, num_samples=3, seed=0), filled
    )
    assert np.any(filled[0] != filled[1])
    assert np.any(filled != pca.impute(x, mask, num_samples=3, seed=1))
    everything = pca.impute(x, np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(everything[0], observed)


@pytest.mark.parametrize(
    "mask, word",
    [
        (np.full((4, *SHAPE), 0.5), "boolean"),
        (np.ones((4, 3, 3, 1), bool), "shape"),
        (np.ones((2, 4, *SHAPE), bool), "shape"),
    ],
)
def test_a_bad_mask_is_refused(mask, word):
    with pytest.raises(ValueError, match=rf"`mask`.*{word}"):
        PCA(SHAPE, 2).impute(correlated(4), mask)


def test_a_bad_number_of_samples_is_refused():
    with pytest.raises(ValueError, match="`num_samples`"):
        PCA(SHAPE, 2).impute(correlated(4), np.ones(SHAPE, bool), num_samples=0)


def test_callbacks_may_be_given_by_their_position():
    epochs = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epochs.append(epoch)
    )
    pca = PCA(SHAPE, 2)
    pca.compile(jit_compile=False)
    x = correlated()
    pca.fit(x, None, 30, 2, 0, [callback])
    assert epochs == [0, 1] and float(pca.count) == len(x)
