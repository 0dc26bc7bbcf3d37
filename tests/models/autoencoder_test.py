"""The mathematics of autoencoders; what every model must do is in contract_test."""

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import tensorflow as tf

from keras_gen import networks, pixel_likelihoods
from keras_gen.layers.corruption import MaskingNoise
from keras_gen.layers.sparsity import KSparse
from keras_gen.models.autoencoder import Autoencoder

SHAPE = (2, 3, 1)
LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic", "categorical")


def images(num_images=8, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((num_images, *shape), "float32")


def flat(x):
    return np.array(x, "float64").reshape(len(x), -1)


def with_large_weights(model):
    rng = np.random.default_rng(3)
    for network in (model.encoder, model.decoder):
        network.set_weights(
            [rng.normal(0, 0.7, w.shape) for w in network.weights]
        )
    return model


def small(latent_dim=2, **arguments):
    """An autoencoder without hidden layers, of weights that are not small."""
    for name, network in (
        ("encoder", networks.mlp_encoder(SHAPE, latent_dim, ())),
        ("decoder", networks.mlp_decoder(latent_dim, SHAPE, ())),
    ):
        arguments.setdefault(name, network)
    return with_large_weights(
        Autoencoder(SHAPE, latent_dim, seed=1, **arguments)
    )


def encoded(model, x):
    kernel, bias = model.encoder.get_weights()
    return flat(x) @ kernel + bias


def decoded(model, z):
    kernel, bias = model.decoder.get_weights()
    return z @ kernel + bias


def mean_terms(model, x, training=True):
    terms = model.loss_terms(tf.constant(x), training=training)
    return {name: float(np.mean(value)) for name, value in terms.items()}


def trained(model, x, num_steps, learning_rate, batch_size=None, decay=True):
    """Trains on whole copies of `x`, with a rate that falls to nothing."""
    if decay:
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, num_steps
        )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        jit_compile=False,
        steps_per_execution=50,
    )
    data = tf.data.Dataset.from_tensor_slices(x).repeat()
    data = data.batch(batch_size or len(x), drop_remainder=True)
    model.fit(data, steps_per_epoch=num_steps, verbose=0)
    return model


# Plain


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_descends_the_gradient_of_the_squared_error(jit_compile):
    model, x, rate = small(), images(), 0.01
    start = [np.array(w, "float64") for w in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(rate),
        jit_compile=jit_compile,
        steps_per_execution=1,
    )
    z = encoded(model, x)
    error = decoded(model, z) - flat(x)
    history = model.fit(x, batch_size=8, verbose=0).history
    loss = np.mean(np.sum(error**2, axis=1))
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert history["mse"][0] == pytest.approx(loss / 6, rel=1e-5)
    # By hand, through the decoder and then the encoder.
    to_code = error @ start[2].T
    gradients = [
        2 * flat(x).T @ to_code / 8,
        2 * np.mean(to_code, axis=0),
        2 * z.T @ error / 8,
        2 * np.mean(error, axis=0),
    ]
    for weight, before, gradient in zip(
        model.trainable_weights, start, gradients, strict=True
    ):
        np.testing.assert_allclose(
            (before - np.array(weight)) / rate, gradient, rtol=1e-3, atol=1e-4
        )


def test_a_linear_autoencoder_finds_the_principal_subspace():
    rng = np.random.default_rng(0)
    basis = scipy.linalg.qr(rng.normal(size=(6, 6)))[0]
    scales = 0.15 * 0.6 ** np.arange(6)
    x = 0.5 + rng.normal(size=(256, 6)) * scales @ basis.T
    x = np.clip(x, 0, 1).reshape(-1, *SHAPE).astype("float32")
    model = trained(Autoencoder(SHAPE, 2, linear=True, seed=0), x, 800, 0.06)
    centred = flat(x) - flat(x).mean(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    best = np.sum(singular[2:] ** 2) / x.size
    mse = model.evaluate(x, return_dict=True, verbose=0)["mse"]
    assert best * (1 - 1e-4) < mse < 1.01 * best
    kernel = model.decoder.get_weights()[0]
    angles = scipy.linalg.subspace_angles(kernel.T, rows[:2].T)
    assert np.degrees(np.max(angles)) < 5


def test_reconstruct_decodes_the_code_within_zero_and_one():
    model, x = small(), images()
    z = encoded(model, x)
    np.testing.assert_allclose(model.encode(x), z, rtol=1e-4, atol=1e-5)
    expected = np.clip(decoded(model, z), 0, 1).reshape(x.shape)
    np.testing.assert_allclose(model.decode(z), expected, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(x), expected, atol=1e-5)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert expected.min() == 0 and expected.max() == 1


def test_regularization_of_a_network_is_minimized_and_not_logged():
    logs, steps = [], []
    for regularizer in (None, keras.regularizers.L2(0.3)):
        model = small()
        kernel = model.encoder.layers[-1].kernel
        kernel.regularizer = regularizer
        start = np.array(kernel)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        logs.append(model.fit(images(), batch_size=8, verbose=0).history)
        steps.append(start - np.array(kernel))
    assert logs[0] == logs[1]
    np.testing.assert_allclose(
        steps[1] - steps[0], 0.1 * 2 * 0.3 * start, rtol=1e-3, atol=1e-5
    )


def test_it_has_no_verb_of_a_distribution_of_images():
    for verb in ("sample", "log_prob", "elbo", "prior", "posterior"):
        assert not hasattr(small(), verb)


# Denoising


def test_the_encoder_sees_corrupted_images_and_the_loss_clean_ones():
    model, x = small(corruption=MaskingNoise(1.0)), images()
    nothing = decoded(model, encoded(model, 0 * x))
    error = np.sum((flat(x) - nothing) ** 2, axis=1)
    assert mean_terms(model, x)["loss"] == pytest.approx(np.mean(error))
    plain = small()
    assert mean_terms(model, x, training=False) == mean_terms(plain, x)
    np.testing.assert_array_equal(model.reconstruct(x), plain.reconstruct(x))


def test_a_denoiser_points_along_the_gradient_of_the_log_density():
    """`(r(x) - x) / variance` is the score of the noisy density, a Gaussian."""
    rng = np.random.default_rng(0)
    shape, noise = (1, 1, 2), 0.05
    covariance = np.array([[0.01, 0.006], [0.006, 0.008]])
    x = rng.multivariate_normal([0.5, 0.5], covariance, 20_000)
    x = x.reshape(-1, *shape).astype("float32").clip(0, 1)
    model = Autoencoder(
        shape,
        16,
        corruption=keras.layers.GaussianNoise(noise, seed=0),
        encoder=networks.mlp_encoder(shape, 16, (), activation="tanh"),
        decoder=networks.mlp_decoder(16, shape, (32,), activation="tanh"),
        seed=0,
    )
    trained(model, x, 2000, 0.01, batch_size=500)
    total = covariance + noise**2 * np.eye(2)
    seen = (
        0.5
        + scipy.linalg.sqrtm(total)
        @ np.array(
            [[1, 0], [0, 1], [-1, 0], [0, -1], [0.7, 0.7], [0.7, -0.7]]
        ).T
    )
    seen = seen.T.astype("float32")
    reconstructed = np.array(model.reconstruct(seen.reshape(-1, *shape)))
    score = (reconstructed.reshape(-1, 2) - seen) / noise**2
    known = -np.linalg.solve(total, (seen - 0.5).T).T
    error = np.linalg.norm(score - known, axis=1)
    assert np.all(error < 0.15 * np.linalg.norm(known, axis=1))


def test_a_corruption_that_xla_cannot_compile_trains():
    model = small(corruption=keras.layers.RandomTranslation(0.1, 0.1))
    model.compile()
    assert model.jit_compile is False
    history = model.fit(images(), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "corruption, word",
    [
        (0.1, "Keras layer"),
        (keras.layers.Flatten(), "shape"),
    ],
)
def test_a_corruption_that_is_none_is_refused(corruption, word):
    with pytest.raises(ValueError, match=f"`corruption`.*{word}"):
        Autoencoder(SHAPE, 2, corruption=corruption)


# Sparse


def kl(target, mean):
    return scipy.special.rel_entr(target, mean) + scipy.special.rel_entr(
        1 - target, 1 - mean
    )


def test_sparsity_is_the_kl_of_the_running_mean_activity():
    target, weight, x = 0.1, 5.0, images()
    model = small(4, sparsity=target, sparsity_weight=weight)
    code = scipy.special.expit(encoded(model, x))
    error = np.sum((flat(x) - decoded(model, code)) ** 2, axis=1)
    # Before the first batch of training, the mean is that of the images.
    terms = mean_terms(model, x, training=False)
    penalty = weight * np.sum(kl(target, code.mean(axis=0)))
    expected = np.mean(error) + penalty
    assert terms["loss"] == pytest.approx(expected, rel=1e-4)
    mean = code.mean(axis=0)
    for batch in (x, 1 - x, x):
        code = scipy.special.expit(encoded(model, batch))
        error = np.sum((flat(batch) - decoded(model, code)) ** 2, axis=1)
        terms = mean_terms(model, batch)
        mean = 0.9 * mean + 0.1 * code.mean(axis=0)
        penalty = weight * np.sum(kl(target, mean))
        assert terms["loss"] == pytest.approx(
            np.mean(error) + penalty, rel=1e-4
        )
        assert terms["activity"] == pytest.approx(np.mean(code), rel=1e-5)
    np.testing.assert_allclose(model.activity, mean, rtol=1e-5)
    # Evaluation takes the mean of the training, and leaves it alone.
    again = mean_terms(model, x, training=False)["loss"]
    assert again == pytest.approx(np.mean(error) + penalty, rel=1e-4)
    np.testing.assert_allclose(model.activity, mean, rtol=1e-5)


def test_the_running_mean_takes_nothing_from_the_gradient():
    target, x = 0.1, images()
    model = small(4, sparsity=target, sparsity_weight=1.0)
    bias = model.encoder.trainable_weights[-1]
    model.activity.assign(np.full(4, target))
    code = scipy.special.expit(encoded(model, x))
    with tf.GradientTape() as tape:
        loss = model._sparsity_loss(model._code(tf.constant(x)), training=True)
    mean = 0.9 * target + 0.1 * code.mean(axis=0)
    slope = (1 - target) / (1 - mean) - target / mean
    expected = slope * np.mean(code * (1 - code), axis=0)
    np.testing.assert_allclose(tape.gradient(loss, bias), expected, rtol=1e-4)


def test_mean_activity_comes_to_its_target():
    x = images(200, (4, 4, 1))
    model = Autoencoder((4, 4, 1), 24, sparsity=0.1, seed=0)
    trained(model, x, 600, 0.02, batch_size=50)
    activity = np.mean(model.encode(x), axis=0)
    assert np.all(np.abs(activity - 0.1) < 0.02)
    logs = model.evaluate(x, return_dict=True, verbose=0)
    assert logs["activity"] == pytest.approx(np.mean(activity), rel=1e-4)
    assert logs["mse"] < np.var(x, axis=0).mean()  # of the mean image


def test_a_k_sparse_code_keeps_exactly_k():
    x = images(50)
    model = Autoencoder(SHAPE, 20, sparsity=KSparse(3, alpha=2), seed=0)
    assert set(np.count_nonzero(model.encode(x), axis=1)) == {6}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.loss_terms(tf.constant(x[:1]), True)["loss"])
    gradient = tape.gradient(loss, model.decoder.trainable_weights[0])
    assert np.count_nonzero(np.any(gradient != 0, axis=1)) == 3
    keras.config.set_dtype_policy("mixed_float16")
    half = Autoencoder(SHAPE, 20, sparsity="k-sparse", code_noise=0.1, seed=0)
    assert half.encode(x).dtype == "float32"
    half.compile(jit_compile=False, run_eagerly=True)
    half.fit(x[:2], verbose=0)
    default = Autoencoder(SHAPE, 40, sparsity="k-sparse").sparsity
    assert (default.k, default.alpha) == (2, 1.5)


@pytest.mark.parametrize(
    "sparsity", [0, 1.0, -0.1, "dense", True, keras.layers.ReLU()]
)
def test_a_sparsity_that_is_none_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"`sparsity`.*k-sparse"):
        Autoencoder(SHAPE, 20, sparsity=sparsity)


# Contractive


def jacobian_norm(model, x):
    """Squared Frobenius norms, by a loop over images and codes."""
    norms = []
    for image in x:
        image = tf.constant(image[np.newaxis])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(image)
            code = tf.nn.sigmoid(model.encoder(image))
            units = [code[0, j] for j in range(model.latent_dim)]
        norms.append(
            sum(np.sum(tape.gradient(unit, image) ** 2) for unit in units)
        )
    return np.array(norms)


def deep_encoder(latent_dim):
    return networks.mlp_encoder(SHAPE, latent_dim, (5,), activation="tanh")


@pytest.mark.parametrize("deep", [False, True])
def test_contraction_is_the_norm_of_the_jacobian(deep):
    networks_ = {"encoder": deep_encoder(4)} if deep else {}
    model, x = small(4, contractive=0.5, **networks_), images()
    norms = jacobian_norm(model, x)
    code = np.array(model.encode(x), "float64")
    error = np.sum((flat(x) - decoded(model, code)) ** 2, axis=1)
    for training in (False, True):
        terms = model.loss_terms(tf.constant(x), training=training)
        np.testing.assert_allclose(terms["contraction"], norms, rtol=1e-4)
        np.testing.assert_allclose(
            terms["loss"], error + 0.5 * norms, rtol=1e-4
        )


def test_closed_form_and_differentiation_have_the_same_gradient():
    x = images()
    closed = small(4, contractive=0.5)
    # The same network in a form whose layers are not looked at.
    inner = networks.mlp_encoder(SHAPE, 4, ())
    image = keras.Input(SHAPE)
    other = small(4, contractive=0.5, encoder=keras.Model(image, inner(image)))
    gradients = []
    for model in (closed, other):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.loss_terms(tf.constant(x), True)["loss"])
        gradients.append(tape.gradient(loss, model.trainable_weights))
    for one, two in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_the_contraction_of_a_long_code_is_unbiased():
    model = small(70, contractive=0.5, encoder=deep_encoder(70))
    image = images(1)
    draws = model.loss_terms(tf.constant(np.repeat(image, 4000, axis=0)), True)
    draws = np.array(draws["contraction"])
    error = draws.std() / np.sqrt(len(draws))
    assert draws.std() > 0
    assert abs(draws.mean() - jacobian_norm(model, image)[0]) < 4 * error


@pytest.mark.parametrize("latent_dim", [4, 70])
def test_contraction_compiles_with_xla_and_falls_as_it_is_trained(latent_dim):
    x = images(32)
    model = small(latent_dim, contractive=3.0, encoder=deep_encoder(latent_dim))
    before = mean_terms(model, x)["contraction"]
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    model.fit(x, batch_size=8, epochs=10, verbose=0)
    assert mean_terms(model, x)["contraction"] < 0.5 * before


# Stochastic


def test_code_noise_is_added_in_training_alone():
    sigma, x = 0.5, images()
    model, plain = small(code_noise=sigma), small()
    noise = tf.random.stateless_normal((8, 2), (1, 0), alg="philox")
    z = encoded(model, x) + sigma * np.array(noise)
    error = np.sum((flat(x) - decoded(model, z)) ** 2, axis=1)
    assert mean_terms(model, x)["loss"] == pytest.approx(np.mean(error))
    assert mean_terms(model, x, False) == mean_terms(plain, x, False)
    codes = model.code_distribution(x)
    np.testing.assert_allclose(codes.mean(), encoded(model, x), rtol=1e-4)
    np.testing.assert_allclose(codes.stddev(), sigma)
    assert codes.event_shape == (2,)
    with pytest.raises(ValueError, match="`code_noise`"):
        plain.code_distribution(x)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_of_a_stochastic_decoder_is_minus_its_log_probability(
    likelihood,
):
    x = np.round(255 * images()) / 255
    pixels = pixel_likelihoods.get(likelihood)
    decoder = networks.mlp_decoder(2, SHAPE, (), output_channels=pixels.maps(1))
    model = small(likelihood=likelihood, decoder=decoder)
    h = model.decoder(encoded(model, x).astype("float32"))
    noise = tf.random.stateless_uniform(x.shape, (1, 0), alg="philox")
    expected = -np.array(pixels.log_prob(h, x.astype("float32"), noise))
    terms = model.loss_terms(tf.constant(x, "float32"), training=True)
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-4)
    mean = np.array(pixels.distribution(h).mean())
    np.testing.assert_allclose(
        terms["mse"], np.mean((x - mean) ** 2, axis=(1, 2, 3)), rtol=1e-3
    )
    z = model.encode(x)
    np.testing.assert_allclose(model.decode(z), np.clip(mean, 0, 1), atol=1e-4)
    images_ = model.image_distribution(z)
    assert images_.event_shape == SHAPE and images_.batch_shape == (8,)
    np.testing.assert_allclose(images_.mean(), mean, atol=1e-4)
    with pytest.raises(ValueError, match="`likelihood`"):
        small().image_distribution(z)


def test_a_bernoulli_decoder_costs_the_cross_entropy():
    x = images()
    model = small(likelihood="bernoulli")
    logits = decoded(model, encoded(model, x))
    p = scipy.special.expit(logits)
    entropy = -flat(x) * np.log(p) - (1 - flat(x)) * np.log1p(-p)
    assert mean_terms(model, x)["loss"] == pytest.approx(
        np.mean(np.sum(entropy, axis=1)), rel=1e-5
    )


# Imputation


def projector():
    """A linear autoencoder that projects on a line through the centre."""
    direction = np.array([1.0, -1, 2, 0.5, 1, -2])
    direction /= np.linalg.norm(direction)
    model = Autoencoder(SHAPE, 1, linear=True, seed=0)
    kernel = direction[:, np.newaxis]
    model.encoder.set_weights([kernel / 2, np.zeros(1)])  # of 2x - 1
    model.decoder.set_weights([kernel.T, np.full(6, 0.5)])
    return model, direction


def test_iterated_projection_finds_the_image_that_was_observed():
    model, direction = projector()
    x = 0.5 + np.array([-0.4, 0.1, 0.5])[:, np.newaxis] * direction
    x = x.reshape(3, *SHAPE).astype("float32")
    mask = np.array([1, 0, 1, 0, 1, 0], bool).reshape(SHAPE)
    filled = model.impute(x, mask, num_samples=2, seed=0)
    np.testing.assert_allclose(filled, np.stack([x, x]), atol=1e-4)


def test_a_step_of_imputation_reconstructs_what_is_missing():
    model, x = small(), images()
    mask = np.random.default_rng(1).random(x.shape) < 0.5
    filled = np.array(model.impute(x, mask, num_samples=3, num_steps=2, seed=4))
    assert filled.shape == (3, *x.shape) and filled.dtype == "float32"
    noise = tf.random.stateless_uniform((3, *x.shape), (4, 0), alg="philox")
    for one, start in zip(filled, noise, strict=True):
        for _ in range(2):
            start = np.where(mask, x, start)
            start = np.where(mask, x, model.reconstruct(start))
        np.testing.assert_allclose(one, start, atol=1e-6)
        np.testing.assert_array_equal(one[mask], x[mask])
    other = np.where(mask, x, 1 - x)
    np.testing.assert_array_equal(
        model.impute(other, mask, num_samples=3, num_steps=2, seed=4), filled
    )


@pytest.mark.parametrize("name", ["num_samples", "num_steps"])
def test_bad_numbers_of_imputation_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        small().impute(images(), np.ones(SHAPE, bool), **{name: 0})


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"`mask`.*boolean"):
        small().impute(images(), np.full(SHAPE, 0.5))


# The constructor


def test_default_networks_are_deep_unless_the_code_is_regularized():
    def num_layers(**arguments):
        model = Autoencoder(SHAPE, 4, **arguments)
        return len(model.encoder.weights) // 2, len(model.decoder.weights) // 2

    assert num_layers() == num_layers(corruption=MaskingNoise(0.1)) == (3, 3)
    for arguments in (
        {"linear": True},
        {"sparsity": 0.1},
        {"sparsity": "k-sparse"},
        {"contractive": 0.1},
    ):
        assert num_layers(**arguments) == (1, 1)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"latent_dim": 0}, "`latent_dim`"),
        ({"contractive": -1.0}, "`contractive`"),
        ({"code_noise": -1.0}, "`code_noise`"),
        ({"sparsity": 0.1, "sparsity_weight": -1.0}, "`sparsity_weight`"),
        ({"likelihood": "poisson"}, "`likelihood`"),
        ({"linear": True, "sparsity": 0.1}, "`linear=True`"),
        ({"linear": True, "contractive": 0.1}, "`linear=True`"),
        ({"linear": True, "encoder": "mlp"}, "`linear=True`"),
        ({"encoder": networks.mlp_encoder(SHAPE, 3, ())}, "`encoder`"),
        (
            {
                "likelihood": "gaussian",
                "decoder": networks.mlp_decoder(2, SHAPE, ()),
            },
            "`decoder`",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word) as error:
        Autoencoder(SHAPE, **{"latent_dim": 2, **arguments})
    assert len(str(error.value)) <= 600


@keras.saving.register_keras_serializable(package="autoencoder_test")
class SurerGaussian(pixel_likelihoods.Gaussian):
    """Of the same `name` as the plain one."""

    def log_prob(self, h, x, noise=0.0):
        return 2.0 * super().log_prob(h, x, noise)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


@pytest.mark.parametrize(
    "likelihood, kind",
    [
        (SurerGaussian(), SurerGaussian),
        ("gaussian", pixel_likelihoods.Gaussian),
        (pixel_likelihoods.Gaussian(), pixel_likelihoods.Gaussian),
        (None, type(None)),
    ],
)
def test_a_loaded_model_has_the_likelihood_it_was_given(
    likelihood, kind, tmp_path
):
    model = Autoencoder(SHAPE, 2, likelihood=likelihood, linear=True, seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.pixels) is kind
    x = images()
    np.testing.assert_array_equal(loaded.reconstruct(x), model.reconstruct(x))
    np.testing.assert_array_equal(
        loaded.loss_terms(tf.constant(x))["loss"],
        model.loss_terms(tf.constant(x))["loss"],
    )


def test_codes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`z` .*\(batch, 2\)"):
        small().decode(np.zeros((4, 3)))


def test_the_default_optimizer_is_adam_of_a_thousandth():
    model = small()
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)
