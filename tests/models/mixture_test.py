"""The mathematics of mixtures; what every model must do is in contract_test."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.callbacks import Checkpoint
from keras_gen.models.bernoulli_mixture import BernoulliMixture
from keras_gen.models.gaussian_mixture import GaussianMixture

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")

SHAPE = (2, 2, 1)
COVARIANCES = ("full", "diagonal", "factor")


def three_blobs(num_images=240, shape=SHAPE, seed=0):
    """Images of three Gaussians that overlap, well within [0, 1]."""
    rng = np.random.default_rng(seed)
    num_dims = math.prod(shape)
    centers = rng.uniform(0.35, 0.65, (3, num_dims))
    mixes = 0.06 * rng.normal(size=(3, num_dims, num_dims))
    which = rng.integers(0, 3, num_images)
    noise = rng.normal(size=(num_images, num_dims))
    x = centers[which] + np.einsum("nd,nde->ne", noise, mixes[which])
    return np.clip(x, 0, 1).reshape(-1, *shape).astype("float32")


def gaussian(covariance="full", num_components=3, **arguments):
    if covariance == "factor":
        arguments.setdefault("num_factors", 2)
    return GaussianMixture(
        SHAPE, num_components, covariance, seed=1, **arguments
    )


def fitted(model, x, epochs=1, batch_size=80, **arguments):
    model.compile(**{"steps_per_execution": 4, **arguments})
    history = model.fit(x, batch_size=batch_size, epochs=epochs, verbose=0)
    return model, np.array(history.history["loss"])


@pytest.fixture(scope="module", params=COVARIANCES)
def trained(request):
    """One fitted mixture for each kind of covariance."""
    return fitted(gaussian(request.param), three_blobs(), epochs=4)[0]


def flat(x):
    return np.array(x, "float64").reshape(len(x), -1)


def middles(x):
    """What the middles of 8-bit levels are in the model's density."""
    return (np.round(255 * flat(x)) + 0.5) / 256


def log_joint(model, points):
    """By SciPy, `(batch, num_components)`."""
    parameters = (model.proportions, model.components.means)
    return np.stack(
        [
            np.log(float(share))
            + stats.multivariate_normal(mean, covariance).logpdf(points)
            for share, mean, covariance in zip(
                *map(np.array, parameters),
                np.array(model.covariances()),
                strict=True,
            )
        ],
        axis=1,
    )


# Expectation-maximization


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_iteration_never_lowers_the_likelihood(covariance):
    model, losses = fitted(gaussian(covariance, 4), three_blobs(), epochs=20)
    assert np.all(np.diff(losses) <= 1e-6 * np.abs(losses[1:]))
    assert losses[-1] < losses[0] - 0.5
    now = model.evaluate(three_blobs(), verbose=0)
    assert now <= losses[-1] + 1e-6 * abs(now)


@pytest.mark.parametrize(
    "covariance, kind", [("full", "full"), ("diagonal", "diag")]
)
def test_em_is_that_of_scikit_learn_from_the_same_start(covariance, kind):
    sklearn_mixture = pytest.importorskip("sklearn.mixture")
    x, model = three_blobs(), gaussian(covariance)
    points = middles(x)
    means = points[[0, 80, 160]]
    model.components.means.assign(means)
    start = np.array(model.covariances())  # of one variance
    model.started.assign(1)
    fitted(model, x, epochs=8)
    precisions = np.linalg.inv(start)
    other = sklearn_mixture.GaussianMixture(
        3,
        covariance_type=kind,
        reg_covar=1 / (12 * 256**2),  # of the dequantization
        max_iter=8,
        tol=0,
        weights_init=np.full(3, 1 / 3),
        means_init=means,
        precisions_init=precisions
        if kind == "full"
        else np.diagonal(precisions, axis1=1, axis2=2),
    )
    with pytest.warns(UserWarning):  # that 8 iterations are not enough
        other.fit(points)
    covariances = other.covariances_
    if kind == "diag":
        covariances = np.stack([np.diag(row) for row in covariances])
    for ours, theirs in (
        (model.proportions, other.weights_),
        (model.components.means, other.means_),
        (model.covariances(), covariances),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_one_factor_analyser_is_that_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(0)
    x = 0.5 + 0.1 * rng.normal(size=(400, 1)) @ [[1.0, 0.8, -0.6, 0.5]]
    x += 0.06 * rng.normal(size=(400, 4))
    x = np.clip(x, 0, 1).reshape(-1, *SHAPE).astype("float32")
    model, _ = fitted(gaussian("factor", 1, num_factors=1), x, 60, 400)
    other = decomposition.FactorAnalysis(1, tol=1e-6, svd_method="lapack")
    other.fit(middles(x))
    np.testing.assert_allclose(
        model.covariances()[0], other.get_covariance(), atol=1e-4
    )


@pytest.mark.parametrize("covariance", ["full", "factor"])
def test_order_and_size_of_batches_make_no_difference(covariance):
    models = []
    for batch_size in (240, 50):
        model = gaussian(covariance)
        points = middles(three_blobs())
        model.components.means.assign(points[[0, 80, 160]])
        model.started.assign(1)
        models.append(fitted(model, three_blobs(), 2, batch_size)[0])
    for one, other in zip(*(m.trainable_weights for m in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_statistics_that_parameters_imply_maximize_at_them(trained):
    components = trained.components
    before = [np.array(weight) for weight in components.trainable_weights]
    counts = tf.constant([5.0, 9.0, 2.0], "float64")
    components.maximize(components.implied(counts))
    for old, new in zip(before, components.trainable_weights, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-6)
        new.assign(old)


def test_running_statistics_come_near_to_whole_epochs():
    x = three_blobs(960)
    _, whole = fitted(gaussian(), x, epochs=10, batch_size=960)
    model, _ = fitted(gaussian(memory=960), x, epochs=10, batch_size=96)
    now = model.evaluate(x, verbose=0)
    assert abs(now - whole[-1]) < 0.1 and whole[0] - whole[-1] > 0.5
    np.testing.assert_allclose(
        np.sum(model.components.statistics[0]), 960, rtol=1e-6
    )


def test_the_sums_of_two_replicas_are_those_of_one(two_replicas, monkeypatch):
    gather = tf.distribute.ReplicaContext.all_gather

    def without_shape(context, value, axis):
        """As the strategy's own communication gathers it."""
        value = gather(context, value, axis=axis)
        return tf.raw_ops.PlaceholderWithDefault(
            input=value, shape=tf.TensorShape(None)
        )

    monkeypatch.setattr(
        tf.distribute.ReplicaContext, "all_gather", without_shape
    )
    x = three_blobs()
    with two_replicas.scope():
        two = gaussian()
        two.compile()
    two.fit(x, batch_size=80, epochs=2, verbose=0)
    one, _ = fitted(gaussian(), x, epochs=2)
    for a, b in zip(one.trainable_weights, two.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


class Watch(keras.callbacks.Callback):
    """Remembers the parameters of each epoch, and stops after a batch."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at, self.seen = stop_at, []

    def direction(self, name):  # as callbacks that measure have it
        return None

    def on_train_batch_end(self, batch, logs=None):
        if (self.model.epoch, batch) == self.stop_at:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.get_weights())


def watched(stop_at=None, known_length=True, **arguments):
    """Fitted for two epochs of three batches, which are unlike each other."""
    x = np.sort(three_blobs(), axis=0)
    data = tf.data.Dataset.from_tensor_slices(x).batch(80)
    data = data if known_length else data.filter(lambda x: True)
    model, watch = gaussian("diagonal", **arguments), Watch(stop_at)
    model.compile(run_eagerly=True)
    model.fit(data, epochs=2, callbacks=[watch], verbose=0)
    return model, watch.seen


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_stop_within_an_epoch_keeps_what_the_last_whole_one_has_found():
    model, whole = watched()
    assert_same(whole[1], model.get_weights())
    for known_length in (True, False):
        model, _ = watched((1, 0), known_length)
        assert_same(model.get_weights(), whole[0])
        model, _ = watched((1, 2), known_length)  # after the last batch
        assert_same(model.get_weights(), whole[1])
    model, _ = watched((0, 1))  # there is none
    assert np.std(model.components.variances) > 1e-4
    assert np.sum(model.components.statistics[0]) == 0
    means = np.array(model.components.means)
    x = three_blobs()
    stop = Watch((0, 0))  # now there is, and validation comes in between
    model.fit(x, validation_data=x[:9], callbacks=[stop], verbose=0)
    np.testing.assert_array_equal(model.components.means, means)
    model, _ = watched((1, 0), memory=240)
    assert np.sum(model.components.statistics[0]) == pytest.approx(240)


def test_callbacks_that_measure_see_the_parameters_of_their_epoch():
    model, watch = gaussian("diagonal"), Watch()
    model.compile(run_eagerly=True)
    model.fit(three_blobs(), callbacks=[watch], verbose=0)
    assert_same(watch.seen[0], model.get_weights())


def test_a_run_that_was_killed_resumes_bit_for_bit(tmp_path):
    x = three_blobs()

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if (self.model.epoch, batch) == (1, 1):
                raise InterruptedError

    def run(folder, *callbacks):
        model = gaussian("diagonal")
        model.compile(run_eagerly=True)
        history = model.fit(
            x,
            batch_size=80,
            epochs=3,
            validation_data=x[:80],
            callbacks=[Checkpoint(tmp_path / folder, save_freq=1), *callbacks],
            verbose=0,
        )
        return model.get_weights(), history.history

    weights, history = run("whole")
    with pytest.raises(InterruptedError):
        run("killed", Kill())
    resumed, history_of_resumed = run("killed")
    assert_same(weights, resumed)
    assert history == history_of_resumed


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_makes_no_difference(policy):
    whole, losses = fitted(gaussian(), three_blobs(), 2, run_eagerly=True)
    keras.config.set_dtype_policy(policy)
    half, losses_of_half = fitted(
        gaussian(), three_blobs(), 2, run_eagerly=True
    )
    np.testing.assert_array_equal(losses, losses_of_half)
    assert_same(whole.get_weights(), half.get_weights())
    assert half.sample(3, seed=0).dtype == "float32"


# The start, and components without images


def test_k_means_plus_plus_starts_from_far_images():
    centers = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], "float32")
    x = np.repeat(centers, 20, axis=0).reshape(-1, *SHAPE)
    model, _ = fitted(gaussian(), x, batch_size=60)
    means = np.array(model.components.means)
    found = {tuple(np.round(mean).astype(int)) for mean in means}
    assert found == {tuple(center.astype(int)) for center in centers}
    np.testing.assert_allclose(model.proportions, 1 / 3, rtol=1e-5)


@pytest.mark.parametrize("make", [gaussian, BernoulliMixture])
def test_a_component_without_images_takes_half_of_the_largest(make):
    x = three_blobs()
    model = gaussian() if make is gaussian else make(SHAPE, 3, seed=1)
    points = np.array(model.components.points(x))
    model.components.means.assign(points[[0, 1, 2]])
    model.proportions.assign([0.0, 0.3, 0.7])  # so that nothing is left
    model.started.assign(1)
    fitted(model, x)
    shares = np.array(model.proportions)
    largest = np.argmax(shares[1:]) + 1
    assert shares[0] == shares[largest] > 0.2
    assert np.sum(shares) == pytest.approx(1)
    apart = np.array(model.components.means)[[0, largest]]
    assert np.any(apart[0] != apart[1])
    model.fit(x, epochs=5, verbose=0)
    assert np.all(np.isfinite(model.responsibilities(x)))
    assert np.all(np.array(model.proportions) > 0.01)


def test_a_first_batch_of_few_images_starts_all_components_in_time():
    x = three_blobs(60)
    model, losses = fitted(gaussian("diagonal", 8), x, 6, batch_size=3)
    assert np.all(np.array(model.proportions) > 0) and losses[-1] < losses[0]
    assert len(np.unique(np.array(model.components.means), axis=0)) == 8


def test_images_all_alike_leave_the_variance_of_the_noise():
    x = np.full((20, *SHAPE), 0.4, "float32")
    model, ridged = gaussian("full", 2), gaussian(num_components=1, ridge=0.01)
    with pytest.warns(UserWarning, match="zero variance"):
        _, losses = fitted(model, x, epochs=3, batch_size=20)
        fitted(ridged, x)
    noise = np.eye(4) / (12 * 256**2)
    np.testing.assert_allclose(
        np.array(model.covariances())[0], noise, rtol=1e-3, atol=1e-9
    )
    assert np.all(np.isfinite(losses))
    np.testing.assert_allclose(
        ridged.covariances()[0], noise + 0.01 * np.eye(4), rtol=1e-4, atol=1e-8
    )


def test_a_batch_with_a_nan_is_left_out_and_counted():
    x = three_blobs()
    bad = x.copy()
    bad[80] = np.nan
    model, clean = gaussian(), gaussian()
    for one, data in ((model, bad), (clean, np.delete(x, range(80, 160), 0))):
        one.compile()
        data = tf.data.Dataset.from_tensor_slices(data).batch(80)
        history = one.fit(data, verbose=0).history
        assert history["skipped_updates"] == [one is model]
    for a, b in zip(
        model.trainable_weights, clean.trainable_weights, strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model_goes_on_within_its_epoch(tmp_path):
    x = three_blobs()
    model, _ = fitted(gaussian("factor"), x)
    model.components.statistics[0].assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "mixture.keras")
    loaded = keras.saving.load_model(tmp_path / "mixture.keras")
    assert loaded.covariance == "factor" and loaded.num_factors == 2
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    for one in (model, loaded):
        one.fit(x, verbose=0)
    np.testing.assert_array_equal(model.covariances(), loaded.covariances())


# Densities


def test_log_prob_is_that_of_scipy_at_the_dequantized_points(
    trained, monkeypatch
):
    x = three_blobs(9, seed=1)
    drawn = []
    original = tf.random.stateless_uniform

    def record(shape, *arguments, **keywords):
        drawn.append(original(shape, *arguments, **keywords))
        return drawn[-1]

    monkeypatch.setattr(tf.random, "stateless_uniform", record)
    tf.config.run_functions_eagerly(True)
    try:
        ours = trained.log_prob(x, num_samples=3, seed=5)
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(drawn) == 3
    densities = [
        special.logsumexp(
            log_joint(trained, (np.round(255 * flat(x)) + flat(noise)) / 256),
            axis=1,
        )
        for noise in drawn
    ]
    theirs = special.logsumexp(densities, axis=0) - math.log(3)
    np.testing.assert_allclose(ours, theirs - 4 * math.log(256), atol=2e-3)
    monkeypatch.undo()
    np.testing.assert_allclose(
        trained.log_prob(x, num_samples=3, seed=5), ours, rtol=1e-5
    )


def test_log_prob_needs_no_noise_where_the_density_is_flat():
    """Its mean over the noise, and the bound that EM raises, are one number."""
    x = three_blobs(40)
    model, _ = fitted(gaussian(), x, 2, batch_size=40)
    loss = model.evaluate(x, verbose=0)
    many = np.mean(model.log_prob(x, num_samples=200, seed=0))
    assert many == pytest.approx(-loss, abs=0.02) and many > -loss
    assert model.log_prob_kind == "exact"


def test_probabilities_of_all_images_of_one_pixel_sum_to_one():
    model = GaussianMixture((1, 1, 1), 2, seed=0)
    model.components.means.assign([[0.4], [0.6]])
    model.components.roots.assign([[[20.0]], [[30.0]]])
    x = np.arange(256, dtype="uint8").reshape(-1, 1, 1, 1)
    total = np.sum(np.exp(model.log_prob(x, num_samples=100, seed=0)))
    assert total == pytest.approx(1, abs=1e-3)


def test_factor_analysers_have_the_covariance_of_their_loadings(trained):
    if trained.covariance != "factor":
        pytest.skip("has no loadings")
    loadings = np.array(trained.components.loadings, "float64")
    variances = np.array(trained.components.variances, "float64")
    x = three_blobs(7)
    ours = trained.components.log_prob(middles(x))
    for k in range(3):
        covariance = loadings[k] @ loadings[k].T + np.diag(variances[k])
        np.testing.assert_allclose(trained.covariances()[k], covariance)
        mean = np.array(trained.components.means)[k]
        theirs = stats.multivariate_normal(mean, covariance).logpdf(middles(x))
        np.testing.assert_allclose(ours[:, k], theirs, rtol=1e-8)


def test_what_em_raises_is_the_mean_over_the_noise(trained):
    points = middles(three_blobs(5))
    precisions = np.linalg.inv(trained.covariances())
    traces = np.trace(precisions, axis1=1, axis2=2)
    wanted = log_joint(trained, points) - np.log(trained.proportions)
    wanted -= traces / (24 * 256**2) + 4 * math.log(256)
    ours = trained.components.expected_log_prob(points.astype("float32"))
    np.testing.assert_allclose(ours, wanted, atol=5e-3)


def test_responsibilities_are_bayes_rule(trained):
    x = three_blobs(9)
    joint = log_joint(trained, middles(x))
    np.testing.assert_allclose(
        trained.responsibilities(x), special.softmax(joint, axis=1), atol=2e-3
    )
    assert trained(x).shape == x.shape


# Samples and missing pixels


def test_samples_have_the_moments_of_the_mixture(trained):
    draws = flat(trained.sample(20_000, seed=3))
    shares, means = map(
        np.array, (trained.proportions, trained.components.means)
    )
    mean = shares @ means
    covariance = np.einsum("k,kde->de", shares, trained.covariances())
    covariance += (means - mean).T * shares @ (means - mean)
    draws = (255 * draws + 0.5) / 256
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5e-3)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=6e-4)
    levels = 255 * flat(trained.sample(9, seed=3))
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


def conditional(model, point, observed):
    """Mean and covariance of the missing numbers, by blocks of the wholes."""
    missing = ~observed
    logs, means, seconds = [], [], []
    for share, mean, covariance in zip(
        np.array(model.proportions),
        np.array(model.components.means, "float64"),
        np.array(model.covariances()),
        strict=True,
    ):
        block = covariance[np.ix_(observed, observed)]
        gain = covariance[np.ix_(missing, observed)] @ np.linalg.inv(block)
        center = mean[missing] + gain @ (point - mean)[observed]
        rest = covariance[np.ix_(missing, missing)]
        rest = rest - gain @ covariance[np.ix_(observed, missing)]
        density = 0.0
        if observed.any():
            density = stats.multivariate_normal(mean[observed], block).logpdf(
                point[observed]
            )
        logs.append(np.log(share) + density)
        means.append(center)
        seconds.append(rest + np.outer(center, center))
    shares = special.softmax(logs)
    mean = shares @ means
    second = np.einsum("k,kde->de", shares, seconds)
    return mean, second - np.outer(mean, mean)


def test_missing_pixels_are_drawn_from_their_conditional(trained):
    x = three_blobs(4, seed=2)
    masks = np.array(
        [[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]], bool
    )
    num_samples = 10_000
    draws = trained.impute(
        x, masks.reshape(x.shape), num_samples=num_samples, seed=0
    )
    draws = (255 * np.array(draws).reshape(num_samples, 4, 4) + 0.5) / 256
    for i, observed in enumerate(masks):
        mean, covariance = conditional(trained, middles(x)[i], observed)
        missing = draws[:, i, ~observed]
        error = np.sqrt(np.diag(covariance) / num_samples)
        assert np.all(np.abs(missing.mean(axis=0) - mean) < 5 * error + 1e-4)
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        np.testing.assert_allclose(
            np.cov(missing.T) / scale, covariance / scale, atol=0.06
        )


def test_observed_pixels_come_back_bit_equal_and_the_others_do_not_count(
    trained,
):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, *SHAPE)).astype("uint8")
    mask = rng.random((5, *SHAPE)) < 0.5
    filled = np.array(trained.impute(x, mask, num_samples=3, seed=0))
    assert filled.shape == (3, *x.shape) and filled.dtype == "float32"
    observed = x.astype("float32") / np.float32(255)
    for one in filled:
        np.testing.assert_array_equal(one[mask], observed[mask])
    assert np.min(filled) >= 0 and np.max(filled) <= 1
    other = np.where(mask, x, 255 - x)
    np.testing.assert_array_equal(
        trained.impute(other, mask, num_samples=3, seed=0), filled
    )
    assert np.any(filled != trained.impute(x, mask, num_samples=3, seed=1))
    everything = trained.impute(x, np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(everything[0], observed)


def test_intervals_of_imputation_cover_what_was_hidden():
    rng = np.random.default_rng(0)
    mix = 0.1 * rng.normal(size=(4, 4))
    x = 0.5 + rng.normal(size=(1200, 4)) @ mix
    x = np.clip(x, 0, 1).reshape(-1, *SHAPE).astype("float32")
    model, _ = fitted(gaussian(num_components=1), x[:1000], 2, 500)
    hidden, mask = x[1000:], rng.random((8, *SHAPE)) < 0.5
    mask = np.tile(mask, (25, 1, 1, 1))
    draws = model.impute(hidden, mask, num_samples=200, seed=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    covered = (low <= hidden) & (hidden <= high)
    assert 0.85 <= np.mean(covered[~mask]) <= 0.95


# Bernoulli pixels


def binary_images():
    """All 2**8 images of eight binary pixels."""
    rows = np.array(list(itertools.product([0, 1], repeat=8)), "float32")
    return rows.reshape(-1, 2, 4, 1)


@pytest.fixture(scope="module")
def bernoulli():
    return fitted(BernoulliMixture((2, 4, 1), 3, seed=0), some_binary(), 3)[0]


def some_binary():
    rng = np.random.default_rng(0)
    rates = rng.random((3, 8))[rng.integers(0, 3, 200)]
    return (rng.random((200, 8)) < rates).astype("float32").reshape(-1, 2, 4, 1)


def test_probabilities_of_all_binary_images_sum_to_one(bernoulli):
    log_prob = bernoulli.log_prob(binary_images())
    assert np.sum(np.exp(log_prob)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_em_of_bernoullis_is_that_of_numpy(smoothing):
    x, epochs = some_binary(), 20
    model = BernoulliMixture((2, 4, 1), 3, smoothing=smoothing)
    means = 0.25 + 0.5 * flat(x)[:3]
    model.components.means.assign(means)
    model.started.assign(1)
    _, losses = fitted(model, x, epochs)
    shares, v, wanted = np.full(3, 1 / 3), flat(x), []
    for _ in range(epochs):
        joint = np.log(shares) + v @ np.log(means).T
        joint += (1 - v) @ np.log(1 - means).T
        wanted.append(-np.mean(special.logsumexp(joint, axis=1)))
        r = special.softmax(joint, axis=1)
        shares, counts = r.mean(axis=0), r.sum(axis=0)[:, None]
        means = (r.T @ v + smoothing) / (counts + 2 * smoothing)
        means = np.clip(means, 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(model.components.means, means, atol=1e-4)
    np.testing.assert_allclose(model.proportions, shares, atol=1e-4)
    if not smoothing:
        assert np.all(np.diff(losses) <= 1e-6)


def test_missing_binary_pixels_are_drawn_by_bayes_rule(bernoulli):
    everything = binary_images()
    p = np.exp(np.array(bernoulli.log_prob(everything), "float64"))
    x, observed = everything[77], np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    same = np.all(flat(everything)[:, observed] == x.ravel()[observed], axis=1)
    wanted = p[same] / p[same].sum()  # of the four fillings, in order
    draws = bernoulli.impute(
        x[None], observed.reshape(x.shape), num_samples=20_000, seed=0
    )
    pairs = np.array(draws).reshape(-1, 8)[:, ~observed] @ [2, 1]
    found = np.bincount(pairs.astype(int), minlength=4) / 20_000
    np.testing.assert_allclose(found, wanted, atol=0.015)


def test_binary_samples_have_the_rates_of_the_mixture(bernoulli):
    x = np.array(bernoulli.sample(20_000, seed=0))
    assert set(np.unique(x)) == {0, 1}
    rates = np.array(bernoulli.proportions) @ np.array(
        bernoulli.components.means
    )
    np.testing.assert_allclose(flat(x).mean(axis=0), rates, atol=0.02)


# Errors


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"num_components": 0}, "num_components"),
        ({"covariance": "tied"}, "covariance"),
        ({"covariance": None}, "covariance"),
        ({"num_factors": 2}, "num_factors"),
        ({"covariance": "factor", "num_factors": 5}, "num_factors.*at most"),
        ({"covariance": "factor", "num_factors": 0}, "num_factors"),
        ({"ridge": -1.0}, "ridge"),
        ({"memory": 0}, "memory"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    arguments = {"num_components": 2, **arguments}
    with pytest.raises(ValueError, match=f"`{word}"):
        GaussianMixture(SHAPE, **arguments)


def test_a_condition_is_refused_unless_it_is_none(bernoulli):
    x = some_binary()[:2]
    np.testing.assert_array_equal(
        bernoulli.log_prob(x, condition=None, num_samples=3, seed=0),
        bernoulli.log_prob(x),
    )
    assert bernoulli.sample(2, condition=None, seed=0).shape == x.shape
    for call in (bernoulli.sample, lambda *a, **k: bernoulli.log_prob(x, **k)):
        with pytest.raises(ValueError, match="BernoulliMixture is not cond"):
            call(2, condition=[0, 1])


def test_bad_smoothing_is_refused():
    with pytest.raises(ValueError, match="`smoothing`"):
        BernoulliMixture(SHAPE, 2, smoothing=-0.1)


@pytest.mark.parametrize(
    "verb, arguments, word",
    [
        ("log_prob", {"num_samples": 0}, "num_samples"),
        ("log_prob", {"condition": [0] * 4}, "condition` must be `None`: Gau"),
        ("impute", {"mask": np.ones(SHAPE, bool), "num_samples": 0}, "num_s"),
        ("impute", {"mask": np.full(SHAPE, 0.5)}, "mask"),
        ("impute", {"mask": np.ones((3, 1), bool)}, "mask"),
    ],
)
def test_bad_arguments_of_verbs_are_refused(verb, arguments, word):
    with pytest.raises(ValueError, match=f"`{word}"):
        getattr(gaussian(), verb)(three_blobs(4), **arguments)


def test_callbacks_may_be_given_by_their_position():
    epochs = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epochs.append(epoch)
    )
    model = gaussian("diagonal")
    model.compile()
    model.fit(three_blobs(), None, 80, 2, 0, [callback])
    assert epochs == [0, 1]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_each_batch_that_is_trained_on_alone_is_a_step_of_em(covariance):
    x, one, other = three_blobs(), gaussian(covariance), gaussian(covariance)
    for model in (one, other):
        model.compile(steps_per_execution=1)
    data = tf.data.Dataset.from_tensors(x)  # in this order
    wanted = one.fit(data, epochs=4, verbose=0).history["loss"]
    found = [other.train_on_batch(x)[0] for _ in range(4)]
    np.testing.assert_allclose(found, wanted, 1e-5)
    np.testing.assert_allclose(other.components.means, one.components.means)
    assert found[-1] < found[1]
