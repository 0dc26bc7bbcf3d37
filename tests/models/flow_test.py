"""What the flows share, asked of each of them where they may differ."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import saving

from keras_gen.datasets import toys
from keras_gen.layers.dequantization import (
    UniformDequantization,
    VariationalDequantization,
)
from keras_gen.models.glow import Glow
from keras_gen.models.nice import NICE
from keras_gen.models.real_nvp import RealNVP
from keras_gen.networks.coupling import coupling_mlp, coupling_resnet

SHAPE = (2, 2, 3)
FLOWS = {
    "NICE": lambda **more: NICE(
        SHAPE, 2, None, 6, num_layers=1, seed=1, **more
    ),
    "RealNVP": lambda **more: RealNVP(
        SHAPE, 1, hidden_dim=4, num_blocks=1, seed=1, **more
    ),
    "Glow": lambda **more: Glow(SHAPE, 2, hidden_dim=4, seed=1, **more),
}


@saving.register_keras_serializable(package="keras_gen_tests")
def narrow_network(input_shape, output_dim):
    return coupling_mlp(input_shape, output_dim, hidden_dim=3, num_layers=1)


def images(num_images=16, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random((num_images, *shape), "float32")


def randomized(model, scale=0.3):
    """The model with weights that are not those of the start."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + scale * rng.normal(size=weight.shape))
    return model


def planar(**arguments):
    options = {"num_couplings": 2, "hidden_dim": 8, "dequantization": None}
    return RealNVP((1, 1, 2), seed=1, **{**options, **arguments})


def imputed(mask=True, **arguments):
    return planar().impute(images(2, (1, 1, 2)), mask, **arguments)


def adapt(model):
    """Lets the normalizations of a model see data as in training."""
    y, _ = model._to_reals(tf.constant(0.1 + 0.8 * images(64)))
    model.transform.forward(y, training=True)


@pytest.fixture(params=FLOWS)
def make(request):
    return FLOWS[request.param]


# Densities


def test_log_prob_is_the_change_of_variables_by_the_autodiff_jacobian(make):
    model = randomized(make(dequantization=None))
    adapt(model)
    x = tf.constant(0.1 + 0.8 * images(4))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = model._encode(x)
        columns = tf.unstack(z, axis=1)
    rows = [tape.gradient(y, x).numpy().reshape(4, 12) for y in columns]
    jacobian = np.stack(rows, axis=1).astype("float64")
    z = z.numpy().astype("float64")
    if isinstance(model, NICE):
        log_prior = -np.logaddexp(0, z) - np.logaddexp(0, -z)
    else:
        log_prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    wanted = log_prior.sum(axis=1) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(model.log_prob(x), wanted, rtol=1e-4)
    np.testing.assert_allclose(z, model.encode(x), rtol=1e-4, atol=1e-5)


def test_a_density_in_the_plane_integrates_to_one():
    model = randomized(planar(), 0.4)
    ticks = (np.arange(500) + 0.5) / 500
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 1, 1, 2)
    log_density = model.log_prob(grid.astype("float32"))
    assert np.std(log_density) > 1  # it is not flat
    np.testing.assert_allclose(np.exp(log_density).mean(), 1.0, atol=2e-3)


def test_the_probabilities_of_all_images_sum_to_the_mass_inside_the_range():
    # One draw of log_prob is unbiased for a probability, and a new RealNVP
    # is the identity between the logit and a standard normal.
    model = planar(dequantization="uniform")
    levels = np.indices((256, 256)).reshape(2, -1).T.reshape(-1, 1, 1, 2)
    total = np.exp(model.log_prob(levels.astype("uint8"), seed=0)).sum()
    edge = math.log(0.95 / 0.05)
    inside = math.erf(edge / math.sqrt(2)) ** 2
    np.testing.assert_allclose(total, inside, rtol=2e-3)


def test_the_kind_of_log_prob_and_its_draws_are_told_honestly():
    exact, bound = planar(), planar(dequantization="uniform")
    assert exact.log_prob_kind == "exact"
    assert bound.log_prob_kind == "lower_bound"
    x = images(8, (1, 1, 2))
    np.testing.assert_array_equal(
        exact.log_prob(x, seed=0), exact.log_prob(x, seed=1)
    )
    randomized(bound, 0.4)
    seeds = np.array([bound.log_prob(x, seed=i) for i in range(3)])
    assert np.all(seeds.std(axis=0) > 0)
    # Rows of a batch are draws of their own.
    rows = bound.log_prob(np.tile(x, (3000, 1, 1, 1)), seed=0)
    one = np.reshape(rows, (3000, 8))
    many = bound.log_prob(x, num_samples=300, seed=1)
    wanted = np.log(np.mean(np.exp(one.astype("float64")), axis=0))
    np.testing.assert_allclose(many, wanted, atol=0.05)


# Inverses


def test_decoding_an_encoded_image_gives_it_back(make):
    model = randomized(make(), 0.1)
    adapt(model)
    x = images()
    z = model.encode(x)
    assert z.shape == (16, 12) and np.std(z) > 0.1
    np.testing.assert_allclose(model.decode(z), x, atol=1e-5)
    np.testing.assert_allclose(model(x), x, atol=1e-5)
    levels = 255 * model.sample(5, seed=0).numpy()
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


def test_the_image_of_odd_sides_and_of_bytes_is_given_back():
    model = randomized(RealNVP((5, 3, 1), 2, hidden_dim=4, num_blocks=1))
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 3, 1), "uint8")
    np.testing.assert_allclose(
        model.decode(model.encode(x)), x / 255, atol=1e-5
    )


def test_latents_of_samples_are_draws_of_the_prior_times_the_temperature():
    model = randomized(planar(), 0.2)
    z = model.encode(model.sample(4000, seed=3)).numpy()
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.04)
    cold = model.encode(model.sample(4000, temperature=0.5, seed=3))
    np.testing.assert_allclose(cold, 0.5 * z, atol=1e-2)
    frozen = model.sample(3, temperature=0)
    np.testing.assert_allclose(
        frozen, model.decode(np.zeros((3, 2))), atol=1e-6
    )


def test_nice_has_logistic_latents():
    z = NICE((4, 4, 1), 2, 1, 6, num_layers=1).prior.sample(2000, seed=(0, 1))
    assert z.shape == (2000, 16)
    np.testing.assert_allclose(np.var(z), math.pi**2 / 3, rtol=0.05)


# Training


def test_training_on_two_moons_at_a_high_rate_finds_their_density():
    x, _ = toys.generate("two_moons", 4096)
    keras.utils.set_random_seed(0)
    model = RealNVP((1, 1, 2), 4, hidden_dim=32, dequantization=None, seed=1)
    model.compile(keras.optimizers.Adam(3e-3))  # three times the default
    history = model.fit(x, batch_size=128, epochs=63, verbose=0).history
    assert int(model.optimizer.iterations) == 2016
    assert np.all(np.isfinite(history["loss"]))
    assert "bits_per_dim" not in history and not sum(history["skipped_updates"])
    held_out, _ = toys.generate("two_moons", 1000, seed=9)
    # Their own log-density is about log(16) - log(2 pi) - log(0.05)
    # - log(2 pi e) / 2 = 2.51 on average, that of one Gaussian 0.89.
    assert np.mean(model.log_prob(held_out)) > 2.1
    z = model.encode(held_out)
    np.testing.assert_allclose(model.decode(z), held_out, atol=1e-5)


@pytest.mark.parametrize(
    "name, dequantization",
    [
        ("NICE", "uniform"),
        ("RealNVP", "uniform"),
        ("Glow", "uniform"),
        ("NICE", "variational"),
    ],
)
def test_flows_of_images_learn_and_log_bits(name, dequantization):
    model = FLOWS[name](dequantization=dequantization)
    model.compile(
        keras.optimizers.Adam(1e-2), jit_compile=False, steps_per_execution=1
    )
    x = images(64) ** 4
    history = model.fit(x, batch_size=16, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(
        np.array(history["bits_per_dim"]) * 12 * math.log(2),
        history["loss"],
        rtol=1e-5,
    )
    if dequantization == "variational":
        assert np.any(model.dequantization.network.trainable_weights[-1])
    else:
        logs = model.evaluate(x, verbose=0, return_dict=True)
        assert list(logs) == ["loss", "bits_per_dim"]


def test_variational_dequantization_starts_as_the_uniform_one():
    options = {"num_couplings": 2, "hidden_dim": 4, "num_blocks": 1}
    x, plain = images(4), RealNVP(SHAPE, **options)
    keras.utils.set_random_seed(0)
    learned = RealNVP(SHAPE, dequantization="variational", **options)
    np.testing.assert_allclose(
        plain.log_prob(x, seed=0), learned.log_prob(x, seed=0), rtol=1e-4
    )


def test_recomputing_trains_the_same_model():
    weights = []
    for recompute in (False, True):
        keras.utils.set_random_seed(0)
        model = randomized(planar(recompute=recompute))
        model.compile(
            keras.optimizers.SGD(1e-3), jit_compile=False, steps_per_execution=1
        )
        model.fit(images(shape=(1, 1, 2)), batch_size=8, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


# Structure


def test_real_nvp_has_the_couplings_of_its_scales():
    model = RealNVP((8, 8, 1), 1, hidden_dim=4, num_blocks=1)
    names, layers = [], model.transform
    shapes = []
    while layers:
        parts, layers = layers.parts, None
        for part in parts:
            names.append(type(part).__name__)
            if names[-1] == "AffineCoupling":
                shapes.append((part.split, part.event_shape))
            if names[-1] == "FactorOut":
                layers = part.rest
    assert shapes == [
        ("checkerboard", (8, 8, 1)),
        ("channels", (4, 4, 4)),
        ("checkerboard", (4, 4, 2)),
        ("channels", (2, 2, 8)),
        ("checkerboard", (2, 2, 4)),
        ("checkerboard", (2, 2, 4)),
    ]
    assert model.num_scales == 3 and model.transform.output_event_shape == (64,)
    assert names.count("InvertibleBatchNormalization") == 7


def test_nice_takes_the_number_of_scales_of_other_flows():
    for num_scales in (None, 1):
        model = NICE(SHAPE, 1, num_scales, 4, num_layers=1)
        assert NICE.from_config(model.get_config()).num_scales == num_scales


@pytest.mark.parametrize(
    "make",
    [
        lambda: NICE(SHAPE, 3, 1, 5, num_layers=2, logit=True, recompute=True),
        lambda: RealNVP(
            SHAPE,
            num_couplings=1,
            num_scales=1,
            hidden_dim=4,
            num_blocks=1,
            batch_normalization=False,
            max_log_scale=0.5,
            dequantization="variational",
        ),
        lambda: RealNVP(
            SHAPE,
            convolutional=False,
            num_couplings=2,
            dequantization=None,
            network=narrow_network,
        ),
        lambda: Glow((1, 1, 3), 2, network=narrow_network),
        lambda: Glow(
            SHAPE,
            1,
            hidden_dim=3,
            dequantization=VariationalDequantization(
                coupling_resnet(SHAPE, 6, 3, 1)
            ),
        ),
    ],
)
def test_models_survive_their_files(make, tmp_path):
    model = randomized(make())
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    x = images(3, model.image_shape)
    np.testing.assert_array_equal(
        model.log_prob(x, seed=0), loaded.log_prob(x, seed=0)
    )
    assert model.get_config().keys() == loaded.get_config().keys()


def test_imputed_points_have_their_conditional_density():
    model, known = randomized(planar(), scale=0.5), 0.3
    grid = (np.arange(400, dtype="float32") + 0.5) / 400
    line = np.stack([np.full(400, known, "float32"), grid], axis=1)
    log_prob = np.array(model.log_prob(line.reshape(-1, 1, 1, 2)))
    weights = np.exp(log_prob - log_prob.max())
    cumulative = np.cumsum(weights) / weights.sum()

    x = np.array([known, 0.9], "float32").reshape(1, 1, 1, 2)
    mask = np.array([True, False])
    drawn = np.array(model.impute(x, mask, num_samples=3000, seed=0))
    assert drawn.shape == (3000, 1, 1, 1, 2)
    assert np.all(drawn[..., 0] == x[..., 0])
    # The greatest distance of the distribution functions (Kolmogorov-Smirnov).
    seen = np.sort(drawn[..., 1].ravel())
    expected = np.interp(seen, grid + 0.5 / 400, cumulative)
    assert np.abs(expected - (np.arange(3000) + 0.5) / 3000).max() < 0.035


def test_imputed_levels_have_their_conditional_probabilities():
    model = randomized(planar(dequantization="uniform", logit=True), scale=0.5)
    level, levels = 200, np.arange(256)
    line = np.stack([np.full(256, level), levels], axis=1).astype("uint8")
    line = line.reshape(-1, 1, 1, 2)
    log_prob = np.array(model.log_prob(line, num_samples=200, seed=0))
    probabilities = np.exp(log_prob - log_prob.max())
    cumulative = np.cumsum(probabilities) / probabilities.sum()

    x = np.array([level, 3], "uint8").reshape(1, 1, 1, 2)
    mask = np.array([True, False])
    drawn = np.array(model.impute(x, mask, num_samples=3000, seed=0))
    assert np.all(drawn[..., 0] == np.float32(level) / np.float32(255))
    seen = np.rint(255 * drawn[..., 1].ravel()).astype(int)
    np.testing.assert_allclose(255 * drawn[..., 1].ravel(), seen, atol=1e-3)
    counts = np.bincount(seen, minlength=256).cumsum() / 3000
    assert np.abs(counts - cumulative).max() < 0.035


def test_imputation_keeps_what_is_seen_bit_for_bit(make):
    model, x = randomized(make()), images(3)
    mask = np.random.default_rng(0).random((3, *SHAPE)) < 0.5
    first = np.array(model.impute(x, mask, num_samples=2, num_steps=5, seed=1))
    assert first.shape == (2, 3, *SHAPE) and first.dtype == np.float32
    assert np.all((first == x) | ~mask) and np.any(first != x)
    assert first.min() >= 0 and first.max() <= 1
    # Levels are what is modelled: floats between them stand for the nearest.
    level = np.round(255 * x) / np.float32(255)
    same = model.impute(level, mask, num_samples=2, num_steps=5, seed=1)
    np.testing.assert_array_equal(np.array(same)[:, ~mask], first[:, ~mask])
    hidden = np.where(mask, x, 0.5).astype("float32")
    again = model.impute(hidden, mask, num_samples=2, num_steps=5, seed=1)
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: RealNVP((8, 6, 1), num_scales=3), "num_scales=3.*most 2"),
        (lambda: RealNVP((1, 1, 2), num_scales=2), "num_scales=2"),
        (lambda: RealNVP((1, 1, 1)), "`image_shape` of a flow.*two numbers"),
        (lambda: NICE(SHAPE, network=3), "`network` must be a function"),
        (
            lambda: Glow(SHAPE, network=keras.Sequential([keras.Input((8,))])),
            "`network` must be a function",
        ),
        (lambda: NICE(SHAPE, 1, 1, 2, logit="no"), "`logit` must be `True`"),
        (lambda: NICE(SHAPE, 1, 1, 2, recompute=7), "`recompute` must be"),
        (lambda: RealNVP(SHAPE, convolutional="no"), "`convolutional` must"),
        (lambda: RealNVP((4, 4, 1), num_couplings=0), "num_couplings"),
        (lambda: RealNVP((4, 4, 1), num_blocks=0), "num_blocks"),
        (lambda: Glow((7, 7, 1)), "even sides"),
        (lambda: Glow((1, 1, 2), num_scales=2), "num_scales"),
        (lambda: Glow((4, 4, 1), hidden_dim=0), "hidden_dim"),
        (lambda: NICE((4, 4, 1), num_layers=0), "num_layers"),
        (lambda: NICE((4, 4, 1), num_scales=2), "num_scales.*flat.*'2'"),
        (
            lambda: planar().sample(2, condition=[0, 1]),
            r"`condition` must be `None`: RealNVP is not .*got \[0, 1\]",
        ),
        (
            lambda: planar().log_prob(images(1, (1, 1, 2)), condition=[0]),
            "`condition` must be `None`: RealNVP",
        ),
        (lambda: NICE(SHAPE, 1, 1, 2, dequantization="no"), "dequantization"),
        (
            lambda: NICE(SHAPE, 1, 1, 2, dequantization=UniformDequantization),
            "`dequantization` must be.*UniformDequantization",
        ),
        (lambda: planar().sample(2, temperature=-1.0), "temperature"),
        (lambda: planar().decode(np.zeros((2, 3))), r"`z`.*\(batch, 2\)"),
        (lambda: planar().log_prob(images(1, (1, 1, 2)), num_samples=0), "num"),
        (lambda: imputed(num_samples=0), "num_samples"),
        (lambda: imputed(num_steps=0.5), "num_steps"),
        (lambda: imputed(mask=np.ones(3, bool)), "mask"),
    ],
)
def test_what_cannot_be_is_refused(make, word):
    with pytest.raises(ValueError, match=word) as error:
        make()
    assert len(str(error.value)) <= 600
