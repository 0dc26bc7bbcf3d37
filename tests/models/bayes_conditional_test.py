"""Bayes' rule where everything is known, in two dimensions."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.generative_model import GenerativeModel
from keras_gen.models import bayes_conditional
from keras_gen.models.bayes_conditional import BayesConditional
from keras_gen.models.gaussian_mixture import GaussianMixture
from keras_gen.models.gsn import GSN
from keras_gen.models.semi_supervised_gan import SemiSupervisedGAN
from keras_gen.models.vae import VAE

spatial = pytest.importorskip("scipy.spatial")
stats = pytest.importorskip("scipy.stats")
tfd = tfp.distributions

SHAPE = (1, 1, 2)
MEANS = np.array([[0.4, 0.42], [0.58, 0.5], [0.45, 0.6]])
SCALE = 0.08
SHARES = np.array([0.5, 0.3, 0.2])
COUNT = 500


def images(points):
    return np.reshape(points, (-1, *SHAPE)).astype("float32")


def exact_samples(y, count=COUNT, seed=0):
    rng = np.random.default_rng([seed, y])
    return MEANS[y] + SCALE * rng.normal(size=(count, 2))


def log_components(points):
    """log p(x given y), `(n, 3)`."""
    return np.stack(
        [
            stats.multivariate_normal(mean, SCALE**2 * np.eye(2)).logpdf(points)
            for mean in MEANS
        ],
        axis=1,
    )


def exact_classifier(from_logits=False):
    """p(y given x) of the mixture: its logits are linear in x."""
    classifier = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(3, None if from_logits else "softmax"),
        ]
    )
    bias = np.log(SHARES) - (MEANS**2).sum(axis=1) / (2 * SCALE**2)
    classifier.set_weights([MEANS.T / SCALE**2, bias])
    return classifier


def mixture():
    """The model that knows p(x), with no gradient of it."""
    model = GaussianMixture(SHAPE, 3, seed=1)
    model.components.means.assign(MEANS)
    model.components.roots.assign(np.tile(np.eye(2) / SCALE, (3, 1, 1)))
    model.proportions.assign(SHARES)
    model.started.assign(1)
    return model


@keras.saving.register_keras_serializable(package="bayes_conditional_test")
class Density(GenerativeModel):
    """The same mixture, as a density that has a gradient."""

    def __init__(self, image_shape=SHAPE, **kwargs):
        super().__init__(image_shape, **kwargs)
        self.built = True

    def distribution(self):
        components = tfd.MultivariateNormalDiag(
            tf.constant(MEANS, "float32"), SCALE * tf.ones(2)
        )
        weights = tfd.Categorical(probs=tf.constant(SHARES, "float32"))
        return tfd.MixtureSameFamily(weights, components)

    def sample(self, num_samples, *, seed=None):
        points = self.distribution().sample(
            num_samples, seed=self.verb_seed(seed)
        )
        return tf.reshape(tf.clip_by_value(points, 0, 1), (-1, *SHAPE))

    def log_prob(self, x):
        return self.distribution().log_prob(tf.reshape(x, (-1, 2)))


@keras.saving.register_keras_serializable(package="bayes_conditional_test")
class Latents(GenerativeModel):
    """`x = 0.5 + 0.12 z` of standard normal z."""

    latent_dim = 2

    def __init__(self, image_shape=SHAPE, **kwargs):
        super().__init__(image_shape, **kwargs)
        self.built = True

    @property
    def prior(self):
        return tfd.MultivariateNormalDiag(tf.zeros(2))

    def decode(self, z):
        return tf.reshape(0.5 + 0.12 * z, (-1, *SHAPE))

    def sample(self, num_samples, *, seed=None):
        return self.decode(self.prior.sample(num_samples, self.verb_seed(seed)))


def exact_latent_samples(y, classifier, seed=0):
    """By rejection."""
    rng = np.random.default_rng([seed, y])
    points = 0.5 + 0.12 * rng.normal(size=(40_000, 2))
    p = np.array(classifier(images(points)))[:, y]
    return points[rng.random(len(p)) < p][:COUNT]


def energy_distance(a, b):
    """`2 E|a - b| - E|a - a'| - E|b - b'|` of points `(n, 2)`."""
    between, first, second = (
        spatial.distance.cdist(u, v).mean() for u, v in ((a, b), (a, a), (b, b))
    )
    return 2 * between - first - second


@pytest.fixture(scope="module")
def bayes():
    return BayesConditional(mixture(), exact_classifier(), seed=1)


# Samples


@pytest.mark.parametrize("method", ["latent", "data", "resampling"])
def test_samples_are_as_exact_ones(method):
    """Nearer than twice the distance between two sets of exact samples."""
    classifier = exact_classifier()
    if method == "latent":
        model, exact = Latents(), exact_latent_samples
        exact = lambda y, seed: exact_latent_samples(y, classifier, seed)  # noqa: E731
    else:
        model = Density() if method == "data" else mixture()
        exact = lambda y, seed: exact_samples(y, seed=seed)  # noqa: E731
    bayes = BayesConditional(
        model, classifier, method=method if method == "data" else None, seed=1
    )
    assert bayes.method == method
    y = np.repeat([0, 2], COUNT)
    x = bayes.sample(2 * COUNT, condition=y, num_steps=60, seed=0)
    assert x.shape == (2 * COUNT, *SHAPE) and x.dtype == "float32"
    for points, y in zip(
        np.split(np.reshape(x, (-1, 2)), 2), (0, 2), strict=True
    ):
        sets = [exact(y, seed) for seed in range(5)]
        floor = np.mean(
            [energy_distance(*pair) for pair in itertools.combinations(sets, 2)]
        )
        found = np.mean([energy_distance(points, other) for other in sets])
        assert found < 2 * floor


def test_samples_without_a_class_are_those_of_the_joint(bayes):
    x = bayes.sample(COUNT, seed=3)
    np.testing.assert_array_equal(x, bayes.sample(COUNT, seed=3))
    np.testing.assert_allclose(
        np.mean(x, axis=(0, 1, 2)), SHARES @ MEANS, atol=0.02
    )
    prior = [0.05, 0.05, 0.9]
    skewed = BayesConditional(mixture(), exact_classifier(), prior, seed=1)
    x = skewed.sample(COUNT, seed=3)
    np.testing.assert_allclose(
        np.mean(x, axis=(0, 1, 2)), prior @ MEANS, atol=0.02
    )


def test_chains_are_diagnosed():
    density = Density()
    bayes = BayesConditional(density, exact_classifier(), method="data", seed=1)
    found = bayes.diagnose(1, num_results=100, burn_in=60)
    assert 0.95 < found["r_hat"] < 1.1
    assert found["effective_sample_size"] > 100
    assert 0.4 < found["acceptance_rate"] <= 1
    # Of 1,000 samples with weights p(1 given x).
    p = np.array(exact_classifier()(density.sample(20_000, seed=0)))[:, 1]
    expected = 1000 * p.mean() ** 2 / (p**2).mean()
    assert found["proposals"] == pytest.approx(expected, rel=0.15)


def test_resampling_is_diagnosed_by_its_weights(bayes):
    found = bayes.diagnose(1, num_proposals=2000)
    p = np.array(bayes.classify(bayes.model.sample(20_000, seed=0)))[:, 1]
    expected = 2000 * p.mean() ** 2 / (p**2).mean()
    assert found == {"proposals": pytest.approx(expected, rel=0.1)}


@keras.saving.register_keras_serializable(package="bayes_conditional_test")
class NoisyDensity(Density):
    """A density that is estimated, with noise as large as the differences."""

    def log_prob(self, x, *, seed=None):
        noise = tf.random.stateless_normal(tf.shape(x), self.verb_seed(seed))
        return super().log_prob(x + 0.05 * noise)


def test_chains_repeat_where_the_density_draws_noise(tmp_path):
    bayes = BayesConditional(
        NoisyDensity(seed=3), exact_classifier(), method="data", seed=1
    )
    bayes.evidence.assign(SHARES)
    arguments = {"condition": [0, 1, 2, 0], "seed": 5}
    x = bayes.sample(4, num_steps=30, **arguments)
    np.testing.assert_array_equal(x, bayes.sample(4, num_steps=30, **arguments))
    assert np.any(x != bayes.sample(4, num_steps=30, **arguments | {"seed": 6}))
    small = {"num_chains": 2, "num_results": 20, "burn_in": 20}
    assert bayes.diagnose(1, **small) == bayes.diagnose(1, **small)
    bayes.export(tmp_path / "serving")
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    served = [
        loaded.conditional_sample(
            num_samples=tf.constant(4),
            condition=tf.constant([0, 1, 2, 0], tf.int64),
            seed=tf.constant(5, tf.int64),
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*served)


def test_a_chain_compares_densities_under_the_same_noise():
    """At every step the model is asked with the one seed of the chain."""
    seen = []

    class Watched(NoisyDensity):
        def log_prob(self, x, *, seed=None):
            def see(seed):
                seen.append(int(seed))
                return seed

            if seed is not None:
                seed = tf.ensure_shape(
                    tf.numpy_function(see, [seed], "int64"), ()
                )
            return super().log_prob(x, seed=seed)

    bayes = BayesConditional(Watched(), exact_classifier(), method="data")
    bayes.sample(2, condition=[0, 1], num_steps=10, seed=0)
    assert len(seen) >= 10 and len(set(seen)) == 1
    bayes.sample(2, condition=[0, 1], num_steps=10, seed=1)
    assert len(set(seen)) == 2


# Probabilities


def test_joint_prior_and_evidence_are_those_of_the_mixture(bayes):
    np.testing.assert_allclose(bayes.adapt(5000), SHARES, atol=0.02)
    points = exact_samples(0, 20)
    x = images(np.round(255 * points) / 255)
    levels = (np.round(255 * points) + 0.5) / 256
    log_p = log_components(levels) - 2 * np.log(256)
    y = np.arange(20) % 3
    settings = {"num_samples": 200, "seed": 0}
    found = bayes.log_prob(x, condition=y, **settings)
    np.testing.assert_allclose(found, log_p[np.arange(20), y], atol=0.12)
    evidence = np.logaddexp.reduce(log_p + np.log(SHARES), axis=1)
    np.testing.assert_allclose(
        bayes.log_prob(x, **settings), evidence, atol=0.05
    )
    posterior = np.exp(log_p + np.log(SHARES) - evidence[:, None])
    np.testing.assert_allclose(bayes.classify(x), posterior, atol=0.03)
    np.testing.assert_allclose(bayes(x), bayes.classify(x), atol=1e-6)
    assert bayes.log_prob_kind == "estimate"


def test_another_class_prior_weighs_the_same_class_densities():
    prior = np.array([0.1, 0.1, 0.8])
    bayes = BayesConditional(
        mixture(), exact_classifier(True), prior, from_logits=True, seed=1
    )
    bayes.evidence.assign(SHARES)
    points = exact_samples(2, 20)
    log_p = log_components(points)
    total = np.logaddexp.reduce(log_p + np.log(prior), axis=1)
    posterior = np.exp(log_p + np.log(prior) - total[:, None])
    np.testing.assert_allclose(
        bayes.classify(images(points)), posterior, atol=1e-3
    )
    # The sum over classes is the evidence of the new joint.
    x, settings = images(points), {"num_samples": 50, "seed": 0}
    by_class = [
        np.array(bayes.log_prob(x, condition=[k] * 20, **settings))
        for k in range(3)
    ]
    np.testing.assert_allclose(
        bayes.log_prob(x, **settings),
        np.logaddexp.reduce(np.transpose(by_class) + np.log(prior), axis=1),
        rtol=1e-4,
    )


def test_many_images_are_resampled_in_parts(monkeypatch):
    model = BayesConditional(mixture(), exact_classifier())
    whole = model.sample(30, condition=[2] * 30, seed=0)
    monkeypatch.setattr(bayes_conditional, "_PART", 12)
    parts = model.sample(30, condition=[2] * 30, seed=0)
    assert parts.shape == whole.shape and np.any(parts != whole)
    np.testing.assert_array_equal(
        parts, model.sample(30, condition=[2] * 30, seed=0)
    )
    assert len(np.unique(np.reshape(parts, (30, 2)), axis=0)) > 20
    np.testing.assert_allclose(
        np.mean(parts, axis=(0, 1, 2)), MEANS[2], atol=5 * SCALE / 30**0.5
    )


def test_prediction_divides_by_the_evidence_as_classify_does():
    x = images(exact_samples(1, 20))
    prior = [0.2, 0.2, 0.6]
    model = BayesConditional(mixture(), exact_classifier(), prior)
    model.compile()
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, model.classify(x), rtol=1e-4)
    assert np.all(np.array(model.evidence) > 0)


def test_a_graph_has_the_evidence_measured_or_gives_none():
    x = images(exact_samples(1, 5))
    model = BayesConditional(mixture(), exact_classifier(), [0.2, 0.2, 0.6])
    model.compile(jit_compile=False)
    graph = tf.function(model.classify)
    classified = graph(x)
    np.testing.assert_allclose(classified, model.classify(x), rtol=1e-4)
    model.train_on_batch(x, np.ones(5, int))
    assert np.isnan(graph(x)).all()  # traced before, it measures no more
    assert np.isfinite(model.classify(x)).all()
    assert np.isfinite(graph(x)).all()


def test_a_classifier_may_be_a_subclassed_model():
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = exact_classifier()

        def call(self, x):
            return self.network(x)

    classifier, x = Classifier(), images(exact_samples(0, 20))
    classifier(x)
    model = BayesConditional(mixture(), classifier)
    assert model.num_classes == 3
    np.testing.assert_allclose(model.classify(x), exact_classifier()(x), 1e-5)


def test_classes_that_a_model_tells_apart_but_does_not_draw_are_no_condition():
    gan = SemiSupervisedGAN(SHAPE, 2, 3)
    model = BayesConditional(gan, exact_classifier(), method="resampling")
    assert model.sample(2, condition=[0, 2], seed=0).shape == (2, *SHAPE)


def test_models_without_log_prob_give_none():
    bayes = BayesConditional(GSN(SHAPE, 2), exact_classifier())
    assert not hasattr(bayes, "log_prob") and bayes.log_prob_kind is None
    assert bayes.method == "resampling"


def test_chains_do_not_walk_among_one_hot_latents():
    classifier = exact_classifier()
    one_hot = VAE(SHAPE, 2, latent="categorical", num_categories=3, seed=1)
    bayes = BayesConditional(one_hot, classifier, seed=1)
    assert bayes.method == "resampling"
    x = bayes.sample(50, condition=[1] * 50, seed=0)
    possible = one_hot.decode(
        np.eye(3)[np.indices((3, 3)).reshape(2, 9).T].reshape(9, 6)
    )
    apart = np.abs(np.array(x)[:, np.newaxis] - possible).max(axis=(2, 3, 4))
    assert apart.min(axis=1).max() < 1e-5
    with pytest.raises(ValueError, match="`prior` of continuous latents"):
        BayesConditional(one_hot, classifier, method="latent")
    # No gradient passes through draws of this one, but it has a density.
    mixed = VAE(SHAPE, 2, prior="mixture", seed=1)
    assert BayesConditional(mixed, classifier).method == "latent"


def test_models_without_impute_give_none():
    assert not hasattr(
        BayesConditional(Density(), exact_classifier()), "impute"
    )


# Missing pixels: the second coordinate, given that the first one is 0.47


def second_coordinates(bayes, **arguments):
    x = images([[0.47, 0.0], [0.47, 1.0]])
    filled = bayes.impute(
        x, [True, False], num_samples=COUNT, seed=0, **arguments
    ).numpy()
    assert filled.shape == (COUNT, 2, *SHAPE)
    np.testing.assert_array_equal(filled[..., 0], x[0, 0, 0, 0])
    return filled[:, :, 0, 0, 1]


def p_value(points, weights):
    """Of points being from the components' second coordinates."""

    def cumulative(value):
        parts = stats.norm(MEANS[:, 1], SCALE).cdf(value[:, np.newaxis])
        return parts @ weights

    return stats.kstest(points, cumulative).pvalue


def test_missing_pixels_follow_their_conditional_in_the_class(bayes):
    drawn = second_coordinates(bayes, condition=[2, 1], num_proposals=4000)
    for points, y in zip(drawn.T, (2, 1), strict=True):
        assert p_value(points, np.eye(3)[y]) > 0.01
        assert p_value(points, np.eye(3)[0]) < 1e-6


def test_missing_pixels_without_a_class_are_those_of_the_joint():
    of_first = stats.norm(MEANS[:, 0], SCALE).pdf(0.47)
    for prior in (None, [0.05, 0.05, 0.9]):
        bayes = BayesConditional(
            mixture(), exact_classifier(), class_prior=prior
        )
        weights = np.array(prior or SHARES) * of_first
        drawn = second_coordinates(
            bayes, **({"num_proposals": 4000} if prior else {})
        )
        for points in drawn.T:
            assert p_value(points, weights / weights.sum()) > 0.01


# Training, saving, export


def test_fit_trains_the_classifier_and_leaves_the_model():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 512)
    x = images(
        np.where(y[:, None], 0.7, 0.3) + 0.05 * rng.normal(size=(512, 2))
    )
    classifier = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    bayes = BayesConditional(
        mixture(), classifier, [0.5, 0.5], from_logits=True, seed=1
    )
    before = [np.array(weight) for weight in bayes.model.weights]
    bayes.evidence.assign([0.5, 0.5])
    bayes.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: bayes.classify(x[:1])
    )
    history = bayes.fit(
        x, y, batch_size=32, epochs=5, verbose=0, callbacks=[look]
    ).history
    assert np.all(np.array(bayes.evidence) < 0)  # it is to be measured anew
    assert set(history) == {"loss", "accuracy", "skipped_updates"}
    assert history["accuracy"][-1] > 0.95
    assert history["loss"][-1] < history["loss"][0]
    logs = bayes.evaluate(x, y, verbose=0, return_dict=True)
    right = np.argmax(bayes.classify(x), axis=1) == y
    assert logs["accuracy"] == pytest.approx(np.mean(right))
    for old, new in zip(before, bayes.model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_saved_one_gives_the_same(bayes, tmp_path):
    bayes.evidence.assign(SHARES)
    bayes.save(tmp_path / "bayes.keras")
    loaded = keras.saving.load_model(tmp_path / "bayes.keras")
    x = images(exact_samples(0, 4))
    arguments = {"condition": [0, 1, 2, 0], "seed": 0}
    for verb, first in (("sample", 4), ("log_prob", x)):
        np.testing.assert_array_equal(
            getattr(bayes, verb)(first, **arguments),
            getattr(loaded, verb)(first, **arguments),
        )
    np.testing.assert_array_equal(bayes.evidence, loaded.evidence)


def test_an_exported_one_serves_its_verbs(tmp_path):
    bayes = BayesConditional(Latents(), exact_classifier(), seed=1)
    bayes.evidence.assign(SHARES)
    bayes.export(tmp_path / "serving")
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    y = np.array([0, 1, 2, 0])
    served = loaded.conditional_sample(
        num_samples=tf.constant(4),
        condition=tf.constant(y),
        seed=tf.constant(5, tf.int64),
    )
    np.testing.assert_allclose(
        served, bayes.sample(4, condition=y, seed=5), atol=1e-4
    )
    np.testing.assert_allclose(
        loaded.sample(
            num_samples=tf.constant(3), seed=tf.constant(5, tf.int64)
        ),
        bayes.sample(3, seed=5),
        atol=1e-6,
    )


# Errors


def conditional():
    model = Latents()
    model.num_classes = 3
    return model


def of_one_output():
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(1)]
    )


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: BayesConditional(exact_classifier(), None), "model"),
        (lambda: BayesConditional(conditional(), exact_classifier()), "model"),
        (lambda: BayesConditional(Latents(), of_one_output()), "classifier"),
        (
            lambda: BayesConditional(Latents(), exact_classifier(True)),
            "classifier",
        ),
        (
            lambda: BayesConditional(Latents(), exact_classifier(), [0.5, 0.5]),
            "class_prior",
        ),
        (
            lambda: BayesConditional(
                Latents(), exact_classifier(), [0.5, 0.5, 0.5]
            ),
            "class_prior",
        ),
        (
            lambda: BayesConditional(Latents(), exact_classifier(), "uniform"),
            "class_prior",
        ),
        (
            lambda: BayesConditional(
                Latents(), exact_classifier(), from_logits="no"
            ),
            "from_logits",
        ),
        (
            lambda: BayesConditional(
                Latents(), exact_classifier(), method="gibbs"
            ),
            "method",
        ),
        (
            lambda: BayesConditional(
                mixture(), exact_classifier(), method="latent"
            ),
            "method='latent'",
        ),
        (
            lambda: BayesConditional(
                mixture(), exact_classifier(), method="data"
            ),
            "method='data'",
        ),
    ],
)
def test_bad_arguments_are_refused(make, word):
    with pytest.raises(ValueError, match=f"`{word}`") as error:
        make()
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 2, "num_steps": 0}, "num_steps"),
        ({"num_samples": 2, "num_proposals": 0}, "num_proposals"),
        ({"num_samples": 2, "condition": [0, 3]}, "condition"),
        ({"num_samples": 2, "condition": [0]}, "condition"),
    ],
)
def test_bad_arguments_of_sample_are_refused(bayes, arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        bayes.sample(**arguments)


def test_bad_arguments_of_the_other_verbs_are_refused(bayes):
    for call, word in (
        (lambda: bayes.diagnose(3), "condition"),
        (lambda: bayes.diagnose(0, num_chains=1), "num_chains"),
        (lambda: bayes.adapt(0), "num_samples"),
        (lambda: second_coordinates(bayes, condition=[0, 3]), "condition"),
        (lambda: second_coordinates(bayes, num_proposals=0), "num_proposals"),
    ):
        with pytest.raises(ValueError, match=f"`{word}`"):
            call()
