import json

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.layers import posteriors
from keras_gen.layers.priors import (
    DiagonalMixture,
    FixedPrior,
    MixturePrior,
    StandardNormalPrior,
    TwoLayerPrior,
    UniformCategoricalPrior,
    VampPrior,
    mixture_log_prob,
)

tfd = tfp.distributions
tfb = tfp.bijectors

SHAPE = (2, 3, 1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def softplus(x):
    return np.logaddexp(0, np.asarray(x, "float64"))


def with_weights(layer, seed=0):
    """The layer, with weights that are not small."""
    layer.set_weights(
        [normal(*w.shape, seed=seed + i) for i, w in enumerate(layer.weights)]
    )
    return layer


def log_normal(z, loc, scale):
    """Of diagonal normals, in float64."""
    return scipy.stats.norm.logpdf(np.asarray(z, "float64"), loc, scale).sum(-1)


def encoder(posterior):
    """A posterior of images by one fixed matrix."""
    matrix = normal(6, posterior.num_parameters, seed=5)
    return lambda x: posterior.distribution(tf.reshape(x, (-1, 6)) @ matrix)


@keras.saving.register_keras_serializable(package="priors_test")
class Holder(keras.Model):
    """A model that owns a prior, as a VAE does."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior
        self.built = True

    def call(self, z):
        return self.prior.distribution(None).log_prob(tf.cast(z, "float32"))

    def get_config(self):
        return {"prior": keras.saving.serialize_keras_object(self.prior)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["prior"]))


PRIORS = {
    "normal": lambda: StandardNormalPrior(3),
    "categorical": lambda: UniformCategoricalPrior(2, 3),
    "mixture": lambda: MixturePrior(3, num_components=4),
    "two layers": lambda: TwoLayerPrior((2, 1), hidden_dim=4),
    "fixed": lambda: FixedPrior(tfd.MultivariateNormalDiag(normal(3))),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_a_prior_and_its_weights_survive_a_file(kind, tmp_path):
    prior = with_weights(PRIORS[kind]())
    z = normal(5, prior.z_dim)
    Holder(prior).save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras").prior
    assert copy.get_config() == prior.get_config()
    for a, b in zip(copy.weights, prior.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        copy.distribution(None).log_prob(z),
        prior.distribution(None).log_prob(z),
    )


@pytest.mark.parametrize("kind", PRIORS)
def test_samples_compile_and_have_the_event_shape(kind):
    prior = with_weights(PRIORS[kind]())
    distribution = prior.distribution(None)
    assert distribution.batch_shape == ()
    assert distribution.event_shape == (prior.z_dim,)

    @tf.function(jit_compile=True)
    def sample(seed):
        z = prior.distribution(None).sample(7, seed=seed)
        return z, prior.distribution(None).log_prob(z[:, tf.newaxis])

    z, log_prob = sample(tf.constant([1, 2]))
    assert z.shape == (7, prior.z_dim) and log_prob.shape == (7, 1)
    np.testing.assert_allclose(
        log_prob[:, 0], distribution.log_prob(z), rtol=1e-5, atol=1e-5
    )
    assert np.any(z != sample(tf.constant([1, 3]))[0])


@pytest.mark.parametrize("kind", PRIORS)
def test_mixed_precision_computes_priors_in_float32(kind):
    keras.config.set_dtype_policy("mixed_float16")
    prior = with_weights(PRIORS[kind]())
    # Numbers that half precision keeps, as a model casts what it is called on.
    z = normal(5, prior.z_dim).astype("float16").astype("float32")
    log_prob = Holder(prior)(z)
    assert log_prob.dtype == tf.float32
    np.testing.assert_array_equal(
        log_prob, prior.distribution(None).log_prob(z)
    )


def test_standard_normal_is_that_of_scipy():
    z = normal(4, 3)
    np.testing.assert_allclose(
        StandardNormalPrior(3).distribution(None).log_prob(z),
        log_normal(z, 0, 1),
        rtol=1e-5,
    )


def test_uniform_categories_are_equally_likely_one_hot_vectors():
    distribution = UniformCategoricalPrior(2, 3).distribution(None)
    z = distribution.sample(3000, seed=(1, 2)).numpy()
    assert set(np.unique(z)) == {0, 1}
    np.testing.assert_array_equal(z.reshape(-1, 2, 3).sum(axis=-1), 1)
    np.testing.assert_allclose(z.mean(axis=0), 1 / 3, atol=0.04)
    np.testing.assert_allclose(distribution.mean(), np.full(6, 1 / 3))
    np.testing.assert_allclose(
        distribution.log_prob(z[:5]), np.full(5, -2 * np.log(3)), rtol=1e-6
    )


def test_mixture_prior_is_the_mixture():
    prior = with_weights(MixturePrior(3, num_components=4))
    logits, loc, scale = (w.numpy() for w in prior.weights)
    z = normal(5, 2, 3, seed=9)
    components = log_normal(z[..., np.newaxis, :], loc, softplus(scale) + 1e-5)
    expected = scipy.special.logsumexp(
        components + scipy.special.log_softmax(logits), axis=-1
    )
    log_prob = prior.distribution(None).log_prob(z)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_mixture_prior_starts_with_equal_components_of_scale_one():
    prior = MixturePrior(50, num_components=40)
    distribution = prior.distribution(None)
    components = distribution.components_distribution
    np.testing.assert_allclose(
        components.stddev(), np.ones((40, 50)), rtol=1e-3
    )
    assert np.std(components.mean()) == pytest.approx(1, abs=0.05)
    assert not np.any(distribution.mixture_distribution.logits)


def test_all_weights_of_a_mixture_prior_train():
    prior = MixturePrior(3, num_components=4)
    with tf.GradientTape() as tape:
        y = prior.distribution(None).log_prob(normal(5, 3))
    for gradient in tape.gradient(y, prior.trainable_weights):
        assert np.any(gradient)


def mixture_parameters(scale, num_components=500, dim=40):
    """A mixture, and points drawn from it; all float32."""
    rng = np.random.default_rng(0)
    loc = rng.normal(size=(num_components, dim))
    scale = scale * rng.uniform(0.5, 2, (num_components, dim))
    chosen = rng.integers(0, num_components, 64)
    z = rng.normal(loc[chosen], scale[chosen])
    log_weights = scipy.special.log_softmax(rng.normal(size=num_components))
    return [value.astype("float32") for value in (z, log_weights, loc, scale)]


@pytest.mark.parametrize("scale", [0.003, 0.05, 1.0])
def test_the_matrix_product_is_as_exact_as_float32(scale):
    z, log_weights, loc, scale = mixture_parameters(scale)
    components = log_normal(z[:, np.newaxis], loc, scale)
    expected = scipy.special.logsumexp(components + log_weights, axis=-1)
    log_prob = mixture_log_prob(z, log_weights, loc, scale)
    assert log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)


def test_gradients_through_the_matrix_product_are_those_of_the_density():
    values = [tf.constant(v) for v in mixture_parameters(0.5, 20, 4)]

    def gradients(log_prob):
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = log_prob(*values)
        return tape.gradient(y, values)

    def by_tfp(z, log_weights, loc, scale):
        components = tfd.Independent(tfd.Normal(loc, scale), 1)
        weights = tfd.Categorical(logits=log_weights)
        return tfd.MixtureSameFamily(weights, components).log_prob(z)

    # `tfd.Categorical` normalizes the weights, which takes out a constant.
    for ours, theirs in zip(
        gradients(
            lambda z, w, *rest: mixture_log_prob(z, tf.nn.log_softmax(w), *rest)
        ),
        gradients(by_tfp),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_density_of_many_components_makes_no_tensor_of_three_axes():
    z, log_weights, loc, scale = mixture_parameters(0.5, 500, 40)

    @tf.function
    def log_prob(z, log_weights, loc, scale):
        return DiagonalMixture(
            tfd.Categorical(logits=log_weights),
            tfd.Independent(tfd.Normal(loc, scale), 1),
        ).log_prob(z)

    graph = log_prob.get_concrete_function(z, log_weights, loc, scale).graph
    shapes = [y.shape for op in graph.get_operations() for y in op.outputs]
    assert (64, 500) in [tuple(shape) for shape in shapes]
    # The broadcast would hold 64 * 500 * 40 numbers.
    assert max(shape.num_elements() for shape in shapes) <= 2 * 500 * 40


def test_diagonal_mixture_samples_its_components_by_their_weights():
    loc, scale = np.array([[-4.0, 0.0], [4.0, 9.0]]), np.array([0.1, 0.5])
    mixture = DiagonalMixture(
        tfd.Categorical(logits=np.log([0.3, 0.7]).astype("float32")),
        tfd.Independent(
            tfd.Normal(
                loc.astype("float32"), scale[:, np.newaxis].astype("float32")
            ),
            1,
        ),
    )
    z = mixture.sample((100, 50), seed=(1, 2)).numpy()
    assert z.shape == (100, 50, 2)
    second = z[..., 0] > 0
    assert second.mean() == pytest.approx(0.7, abs=0.03)
    for is_chosen, center, width in zip(
        [~second, second], loc, scale, strict=True
    ):
        np.testing.assert_allclose(z[is_chosen].mean(0), center, atol=0.05)
        np.testing.assert_allclose(z[is_chosen].std(0), width, rtol=0.05)
    np.testing.assert_allclose(mixture.mean(), [0.3, 0.7] @ loc, rtol=1e-5)


@pytest.mark.parametrize(
    "posterior",
    [
        posteriors.DiagonalPosterior,
        posteriors.FullCovariancePosterior,
        posteriors.MixturePosterior,
        posteriors.FlowPosterior,
    ],
)
def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_images(
    posterior,
):
    prior = VampPrior(SHAPE, num_components=7)
    posterior = encoder(posterior(2))
    z = normal(4, 3, 2)
    distribution = prior.distribution(posterior)
    assert distribution.batch_shape == () and distribution.event_shape == (2,)
    components = posterior(prior.pseudo_images.value)
    each = [
        components.log_prob(np.tile(row, (7, 1))) for row in z.reshape(-1, 2)
    ]
    expected = scipy.special.logsumexp(each, axis=-1) - np.log(7)
    np.testing.assert_allclose(
        distribution.log_prob(z), expected.reshape(4, 3), rtol=1e-4
    )
    assert distribution.sample(5, seed=(1, 2)).shape == (5, 2)


def test_pseudo_images_start_grey_and_train_within_the_unit_interval():
    prior = VampPrior(SHAPE, num_components=400)
    start = prior.pseudo_images.numpy()
    assert start.mean() == pytest.approx(0.5, abs=0.001)
    assert start.std() == pytest.approx(0.01, abs=0.001)
    start[:, 0] += 2.0
    start[:, 1, 0] -= 2.0
    prior.pseudo_images.assign(start)
    seen = []
    posterior = encoder(posteriors.DiagonalPosterior(2))
    with tf.GradientTape() as tape:
        y = prior.distribution(
            lambda x: seen.append(x) or posterior(x)
        ).log_prob(normal(5, 2))
    np.testing.assert_array_equal(seen[0], np.clip(start, 0, 1))
    gradient = tape.gradient(y, prior.pseudo_images.value).numpy()
    inside = (start > 0) & (start < 1)
    assert np.all(gradient[~inside] == 0) and np.all(gradient[inside] != 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_adapt_starts_pseudo_images_at_different_training_images(dtype):
    x = np.random.default_rng(0).integers(0, 256, (9, *SHAPE))
    x = x.astype("uint8")
    data = x if dtype == "uint8" else (x / 255).astype("float32")
    prior = VampPrior(SHAPE, num_components=6)
    prior.adapt(data, seed=1)
    taken = np.round(255 * prior.pseudo_images.numpy()).astype("uint8")
    rows = {image.tobytes() for image in taken}
    assert len(rows) == 6 and rows <= {image.tobytes() for image in x}
    first = prior.pseudo_images.numpy()
    prior.adapt(data, seed=1)
    np.testing.assert_array_equal(prior.pseudo_images, first)
    prior.adapt(data, seed=2)
    assert np.any(prior.pseudo_images.numpy() != first)


def test_vamp_prior_compiles_and_survives_its_config():
    prior = VampPrior(SHAPE, num_components=7)
    posterior = encoder(posteriors.DiagonalPosterior(2))
    z = normal(4, 3, 2)

    @tf.function(jit_compile=True)
    def log_prob_and_gradient(z):
        with tf.GradientTape() as tape:
            y = prior.distribution(posterior).log_prob(z)
        return y, tape.gradient(y, prior.pseudo_images.value)

    log_prob, gradient = log_prob_and_gradient(z)
    assert np.any(gradient)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(prior)
    )
    assert copy.get_config() == prior.get_config()
    copy.set_weights(prior.get_weights())
    np.testing.assert_allclose(
        copy.distribution(posterior).log_prob(z), log_prob, rtol=1e-4
    )


def test_two_layer_prior_is_the_product_of_its_two_gaussians():
    prior = with_weights(TwoLayerPrior((2, 3), hidden_dim=4))
    z = normal(6, 5)
    h = z[:, 2:]
    for i, (kernel, bias) in enumerate(
        zip(*[iter(w.numpy() for w in prior.weights)] * 2, strict=True)
    ):
        h = h @ kernel + bias
        h = np.tanh(h) if i < 2 else h
    np.testing.assert_allclose(
        prior.distribution(None).log_prob(z),
        log_normal(z[:, 2:], 0, 1)
        + log_normal(z[:, :2], h[:, :2], softplus(h[:, 2:]) + 1e-5),
        rtol=1e-4,
    )


def test_samples_of_a_two_layer_prior_have_its_entropy():
    prior = with_weights(TwoLayerPrior((2, 1), hidden_dim=4))
    distribution = prior.distribution(None)
    z = distribution.sample(4000, seed=(1, 2)).numpy()
    # By the chain rule: of z2, and of z1 in the mean over z2.
    scale = distribution.second(z[:, 2:]).stddev().numpy()
    entropy = 1.5 * np.log(2 * np.pi * np.e) + np.log(scale).sum(-1).mean()
    log_prob = distribution.log_prob(z).numpy()
    error = 4 * (log_prob + np.log(scale).sum(-1)).std() / np.sqrt(4000)
    assert -log_prob.mean() == pytest.approx(entropy, abs=error)


FIXED = {
    "laplace": lambda: tfd.Independent(tfd.Laplace(tf.zeros(2), 0.5), 1),
    "diagonal": lambda: tfd.MultivariateNormalDiag(normal(2), [0.5, 2.0]),
    "full": lambda: tfd.MultivariateNormalTriL(
        normal(2), np.float32([[1, 0], [0.5, 2]])
    ),
    "mixture": lambda: tfd.MixtureSameFamily(
        tfd.Categorical(probs=np.float32([0.2, 0.8])),
        tfd.MultivariateNormalDiag(normal(2, 2)),
    ),
    "transformed": lambda: tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), 2),
        tfb.Chain([tfb.Softplus(), tfb.Scale(np.float32([2, 3]))]),
    ),
    "student": lambda: tfd.Sample(tfd.StudentT(3.0, 0.0, 1.0), [2]),
}


@pytest.mark.parametrize("kind", FIXED)
def test_a_fixed_prior_is_rebuilt_from_json(kind):
    distribution = FIXED[kind]()
    z = np.abs(normal(5, 2))
    config = json.dumps(
        keras.saving.serialize_keras_object(FixedPrior(distribution))
    )
    prior = keras.saving.deserialize_keras_object(json.loads(config))
    copy = prior.distribution(None)
    assert type(copy) is type(distribution) and prior.z_dim == 2
    np.testing.assert_array_equal(copy.log_prob(z), distribution.log_prob(z))


def test_a_fixed_prior_does_not_follow_its_variables():
    loc = tf.Variable([0.0, 0.0])
    prior = FixedPrior(tfd.MultivariateNormalDiag(loc, [1.0, 1.0]))
    loc.assign([5.0, 5.0])
    np.testing.assert_array_equal(prior.distribution(None).mean(), [0, 0])
    assert prior.distribution(None) is not prior.distribution(None)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: "normal", "got 'normal'"),
        (lambda: tfd.Normal(0.0, 1.0), "tfd.Independent"),
        (lambda: tfd.Normal(tf.zeros(2), 1.0), "tfd.Independent"),
        (lambda: tfd.MultivariateNormalDiag(tf.zeros((3, 2))), "batch shape"),
        (lambda: tfd.MultivariateNormalDiag(np.zeros(2)), "float32"),
        (lambda: StandardNormalPrior(2), "tfd.Distribution"),
        (
            lambda: UniformCategoricalPrior(2, 3).distribution(None),
            "to be saved",
        ),
        (
            lambda: tfd.TransformedDistribution(
                tfd.Sample(tfd.Normal(0.0, 1.0), 2),
                tfb.Inline(forward_fn=tf.exp, forward_min_event_ndims=0),
            ),
            "to be saved",
        ),
    ],
)
def test_fixed_priors_of_other_kinds_are_refused(wrong, words):
    with pytest.raises(ValueError, match="`distribution`") as error:
        FixedPrior(wrong())
    assert words in str(error.value) and len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "prior, arguments, argument",
    [
        (StandardNormalPrior, (0,), "latent_dim"),
        (UniformCategoricalPrior, (2.5, 3), "latent_dim"),
        (UniformCategoricalPrior, (2, 0), "num_categories"),
        (MixturePrior, ("2",), "latent_dim"),
        (MixturePrior, (2, -1), "num_components"),
        (VampPrior, ((28, 28),), "image_shape"),
        (VampPrior, (SHAPE, None), "num_components"),
        (TwoLayerPrior, (3,), "latent_dims"),
        (TwoLayerPrior, ((3, 2, 1),), "latent_dims"),
        (TwoLayerPrior, ((3, 0),), "latent_dims"),
        (TwoLayerPrior, ((3, 2), 0), "hidden_dim"),
    ],
)
def test_other_arguments_are_refused(prior, arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        prior(*arguments)


def test_adapt_refuses_too_few_images_and_images_of_another_shape():
    prior = VampPrior(SHAPE, num_components=4)
    with pytest.raises(ValueError, match=r"`x` holds 3 images"):
        prior.adapt(np.zeros((3, *SHAPE), "uint8"))
    with pytest.raises(ValueError, match="`x`"):
        prior.adapt(np.zeros((9, 3, 2, 1), "uint8"))
