import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import jensenshannon
from scipy.special import expit
from scipy.stats import norm

from keras_gen import losses

NAMES = {
    "non_saturating": losses.NonSaturating,
    "minimax": losses.Minimax,
    "least_squares": losses.LeastSquares,
    "wasserstein": losses.Wasserstein,
    "hinge": losses.Hinge,
    "relativistic": losses.RelativisticAverage,
    "feature_matching": losses.FeatureMatching,
}
PENALTIES = [
    losses.GradientPenalty(5.0, target=750.0),
    losses.R1(0.5),
    losses.R2(0.5),
    losses.WeightClipping(0.02),
]


def softplus(x):
    return np.logaddexp(0, x)


def logits(seed, batch=6):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=(batch, 1)).astype("float32")


def gradient(function, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return np.asarray(tape.gradient(y, x))


def round_trip(x):
    config = keras.saving.serialize_keras_object(x)
    return keras.saving.deserialize_keras_object(config)


# -- losses ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, d_loss, g_loss",
    [
        (
            "minimax",
            lambda r, f: np.mean(softplus(-r)) + np.mean(softplus(f)),
            lambda r, f: -np.mean(softplus(f)),
        ),
        (
            "non_saturating",
            lambda r, f: np.mean(softplus(-r)) + np.mean(softplus(f)),
            lambda r, f: np.mean(softplus(-f)),
        ),
        (
            "least_squares",
            lambda r, f: np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2,
            lambda r, f: np.mean((f - 1) ** 2) / 2,
        ),
        (
            "wasserstein",
            lambda r, f: np.mean(f) - np.mean(r),
            lambda r, f: -np.mean(f),
        ),
        (
            "hinge",
            lambda r, f: (
                np.mean(np.maximum(1 - r, 0)) + np.mean(np.maximum(1 + f, 0))
            ),
            lambda r, f: -np.mean(f),
        ),
        (
            "relativistic",
            lambda r, f: (
                np.mean(softplus(-(r - f.mean())))
                + np.mean(softplus(f - r.mean()))
            ),
            lambda r, f: (
                np.mean(softplus(-(f - r.mean())))
                + np.mean(softplus(r - f.mean()))
            ),
        ),
    ],
)
def test_losses_are_their_formulas(name, d_loss, g_loss):
    real, fake = logits(0), logits(1)
    loss = losses.get(name)
    np.testing.assert_allclose(
        loss.discriminator(real, fake), d_loss(real, fake), rtol=1e-5
    )
    np.testing.assert_allclose(
        loss.generator(real, fake), g_loss(real, fake), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_scalars_for_half_precision_logits(name, dtype):
    # 300**2 is beyond float16.
    half = keras.ops.cast(keras.ops.full((4, 1), 300.0), dtype)
    loss = losses.get(name)
    for value in (loss.discriminator(half, half), loss.generator(half, half)):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert value.shape == () and np.isfinite(value)


def test_minimax_value_is_minus_two_ln_two_where_densities_are_equal():
    d_loss = losses.Minimax().discriminator(np.zeros((5, 1)), np.zeros((5, 1)))
    assert -float(d_loss) == pytest.approx(-2 * math.log(2))


def test_best_minimax_discriminator_measures_jensen_shannon():
    # Two states, seen in proportion to p (real) and q (generated).
    p, q = np.array([1, 3]), np.array([3, 1])
    best = np.log(p / q)
    real, fake = np.repeat(best, p)[:, None], np.repeat(best, q)[:, None]
    value = -float(losses.Minimax().discriminator(real, fake))
    divergence = jensenshannon(p, q) ** 2
    assert value == pytest.approx(2 * divergence - 2 * math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    "name, best",
    [
        ("minimax", lambda p, q: np.log(p / q)),
        ("non_saturating", lambda p, q: np.log(p / q)),
        ("least_squares", lambda p, q: p / (p + q)),
    ],
)
def test_loss_is_stationary_at_the_best_discriminator(name, best):
    p, q = np.array([1, 3]), np.array([3, 1])
    loss = losses.get(name)

    def d_loss(d):
        real, fake = tf.repeat(d, p)[:, None], tf.repeat(d, q)[:, None]
        return loss.discriminator(real, fake)

    assert np.abs(gradient(d_loss, best(p, q))).max() < 1e-6
    assert np.abs(gradient(d_loss, best(p, q) + 0.1)).max() > 1e-3


def test_critic_of_slope_one_measures_the_distance_of_two_points():
    d_loss = losses.Wasserstein().discriminator(
        np.full((4, 1), 2.5), np.full((4, 1), -1.0)
    )
    assert float(d_loss) == pytest.approx(-3.5)


def test_minimax_gradient_vanishes_on_rejected_images_but_no_other():
    def size(loss):
        return float(
            np.abs(gradient(lambda f: loss.generator(None, f), [[-30.0]]))[0, 0]
        )

    assert size(losses.Minimax()) < 1e-12
    assert size(losses.NonSaturating()) == pytest.approx(1)
    assert size(losses.Hinge()) == pytest.approx(1)


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"relativistic", "feature_matching"})
)
def test_generator_loss_needs_no_real_logits(name):
    fake = logits(1)
    loss = losses.get(name)
    assert loss.generator(None, fake) == loss.generator(logits(0), fake)


def test_only_some_generators_look_at_real_images():
    class Mine(losses.NonSaturating):
        def generator(self, real_logits, fake_logits):
            return super().generator(real_logits, fake_logits - real_logits)

    seeing = [losses.get("relativistic"), losses.get("feature_matching")]
    for loss in [*seeing, Mine()]:
        assert losses.generator_sees_real(loss)
    blind = "non_saturating minimax least_squares wasserstein hinge".split()
    for name in blind:
        assert not losses.generator_sees_real(losses.get(name))


def test_gradients_of_a_generator_whose_image_looks_real_once_in_ten_thousand():
    fake = [[math.log(1e-4 / (1 - 1e-4))]]  # D(G(z)) = 1e-4
    for loss, slope in (
        (losses.Minimax(), -1e-4),
        (losses.NonSaturating(), -(1 - 1e-4)),
    ):
        got = gradient(lambda f, loss=loss: loss.generator(None, f), fake)
        assert got[0, 0] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("name", ["minimax", "least_squares"])
def test_best_discriminator_of_two_gaussians_is_that_of_the_formula(name):
    # Real N(1, 1), generated N(-1, 1): log p / q is 2 x.
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    best = {"minimax": lambda x: 2 * x, "least_squares": lambda x: expit(2 * x)}
    loss = losses.get(name)

    def slope(bend, shift):
        """Of the loss, as the best logits are scaled and shifted."""

        def d_loss(change):
            real, fake = (
                (1 + change[0]) * best[name](quantiles + mean) + change[1]
                for mean in (1, -1)
            )
            return loss.discriminator(real[:, None], fake[:, None])

        return gradient(d_loss, [bend, shift])

    np.testing.assert_allclose(slope(0, 0), 0, atol=1e-3)
    np.testing.assert_array_less(0.01, slope(0.1, 0.1))
    np.testing.assert_array_less(slope(-0.1, -0.1), -0.01)


def test_feature_matching_is_the_squared_distance_of_mean_features():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 6, 3, 4)).astype("float32")
    loss = losses.FeatureMatching()
    expected = ((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(loss.generator(real, fake), expected, rtol=1e-5)
    np.testing.assert_allclose(
        loss.discriminator(logits(0), logits(1)),
        losses.NonSaturating().discriminator(logits(0), logits(1)),
    )
    # Only means count, which a batch of other images may have as well.
    assert loss.generator(real, real[::-1].copy()) < 1e-10


def test_relativistic_loss_ignores_a_shift_of_all_logits():
    real, fake = logits(0), logits(1)
    loss = losses.RelativisticAverage()
    np.testing.assert_allclose(
        loss.discriminator(real + 7, fake + 7),
        loss.discriminator(real, fake),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_smoothed_labels_are_cross_entropy_at_one_minus_s(name):
    real, fake = logits(0), logits(1)
    expected = np.mean(0.9 * softplus(-real) + 0.1 * softplus(real)) + np.mean(
        softplus(fake)
    )
    loss = losses.get(name, label_smoothing=0.1)
    assert type(loss) is NAMES[name]
    np.testing.assert_allclose(
        loss.discriminator(real, fake), expected, rtol=1e-5
    )
    # The best logit on real images alone is that of the smoothed label.
    best = np.full((1, 1), math.log(0.9 / 0.1))
    slope = gradient(lambda r: loss.discriminator(r, fake), best)
    assert abs(slope.item()) < 1e-6


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_label_smoothing_must_leave_a_label(value):
    with pytest.raises(ValueError, match="`label_smoothing`"):
        losses.NonSaturating(value)
    with pytest.raises(ValueError, match="`label_smoothing`"):
        losses.get("minimax", label_smoothing=value)


@pytest.mark.parametrize("loss", ["hinge", losses.NonSaturating()])
def test_label_smoothing_needs_a_name_of_a_loss_with_labels(loss):
    with pytest.raises(ValueError, match="`label_smoothing=0"):
        losses.get(loss, label_smoothing=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_found_by_name_and_survive_their_configs(name):
    loss = losses.get(name)
    assert type(loss) is NAMES[name]
    assert type(round_trip(loss)) is NAMES[name]
    config = keras.saving.serialize_keras_object(loss)
    assert type(losses.get(config)) is NAMES[name]
    assert losses.get(loss) is loss


def test_label_smoothing_survives_the_config():
    assert round_trip(losses.NonSaturating(0.1)).label_smoothing == 0.1


def test_any_object_with_the_two_methods_is_a_loss():
    class Mine:
        def discriminator(self, real_logits, fake_logits):
            return 0.0

        generator = discriminator

    loss = Mine()
    assert losses.get(loss) is loss


@pytest.mark.parametrize(
    "loss", ["wgan" * 999, None, 3, losses.Hinge, object()]
)
def test_unknown_losses_are_refused_with_the_names_of_the_known(loss):
    with pytest.raises(ValueError, match="`loss`") as error:
        losses.get(loss)
    assert all(name in str(error.value) for name in NAMES)
    assert len(str(error.value)) < 600


# -- what the logs tell ------------------------------------------------------


@pytest.mark.parametrize(
    "name, shift",
    [
        ("minimax", 0),
        ("hinge", 0),
        ("feature_matching", 0),
        ("least_squares", 0.5),
        ("wasserstein", 100),
        ("relativistic", -100),
    ],
)
def test_accuracies_count_the_logits_on_the_right_side(name, shift):
    real = np.array([3.0, 1.0, -2.0, 2.0])[:, None] + shift
    fake = np.array([-3.0, 1.0, -2.0, -5.0, -1.0, -4.0])[:, None] + shift
    if name in ("wasserstein", "relativistic"):
        fake -= 1e-3  # their mean is -7/3, that of real ones 1
        boundary = shift + (1 - 7 / 3) / 2
    else:
        boundary = shift
    accuracies = losses.accuracies(losses.get(name), real, fake)
    np.testing.assert_allclose(
        accuracies, [np.mean(real > boundary), np.mean(fake <= boundary)]
    )


def test_boundary_of_other_losses_is_zero():
    real, fake = np.array([[1.0], [-1.0]]), np.array([[-1.0], [-1.0]])
    np.testing.assert_allclose(
        losses.accuracies(object(), real, fake), [0.5, 1.0]
    )


def test_diversity_is_the_ratio_of_root_mean_square_distances():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(7, 2, 3, 1)).astype("float32")
    fake = rng.normal(4, 0.3, size=(9, 2, 3, 1)).astype("float32")

    def distance(x):
        apart = (x[:, None] - x[None]) ** 2
        return np.sqrt(apart.sum(axis=(2, 3, 4)).mean())

    np.testing.assert_allclose(
        losses.diversity(real, fake), distance(fake) / distance(real), rtol=1e-5
    )


def test_diversity_of_a_collapsed_generator_is_zero():
    real = np.random.default_rng(0).random((5, 2, 3, 1), "float32")
    assert losses.diversity(real, np.repeat(real[:1], 5, axis=0)) < 1e-6
    assert float(losses.diversity(real, real)) == pytest.approx(1)


def test_diversity_of_a_batch_of_one_is_that_of_the_data():
    real, fake = np.random.default_rng(0).random((2, 1, 2, 3, 1), "float32")
    assert losses.diversity(real, fake) == 1
    assert losses.diversity(np.ones((5, 2, 3, 1)), np.repeat(fake, 5, 0)) == 1
    assert np.isnan(losses.diversity(np.nan * real, fake))


# -- penalties ---------------------------------------------------------------


def images(seed, batch=3):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (batch, 2, 2, 1)).astype("float32")


def quadratic(x):
    """A critic whose gradient at x is 3 x."""
    return 1.5 * keras.ops.sum(keras.ops.square(x), axis=(1, 2, 3))[:, None]


@pytest.mark.parametrize("target", [1.0, 4.0])
def test_gradient_penalty_of_a_linear_critic_is_that_of_its_norm(target):
    w = 3 * images(0)[:1]
    penalty = losses.GradientPenalty(10.0, target)
    value = penalty(
        lambda x: keras.ops.sum(w * x, axis=(1, 2, 3))[:, None] + 5,
        images(1),
        images(2),
        np.full((3, 1, 1, 1), 0.3, "float32"),
    )
    expected = 10 * (np.linalg.norm(w) - target) ** 2 / target**2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gradient_penalty_looks_between_real_and_fake():
    real, fake = images(0), images(1)
    u = np.array([0.0, 0.25, 1.0], "float32").reshape(3, 1, 1, 1)
    x = real + u * (fake - real)
    norm = 3 * np.sqrt(np.sum(x**2, axis=(1, 2, 3)))
    np.testing.assert_allclose(
        losses.GradientPenalty(2.0)(quadratic, real, fake, u),
        2 * np.mean((norm - 1) ** 2),
        rtol=1e-5,
    )


def test_r1_and_r2_are_half_the_squared_slope_at_real_and_at_fake():
    real, fake = images(0), images(1)

    def expected(x):
        return 0.7 / 2 * np.mean(9 * np.sum(x**2, axis=(1, 2, 3)))

    for penalty, x in ((losses.R1(0.7), real), (losses.R2(0.7), fake)):
        np.testing.assert_allclose(
            penalty(quadratic, real, fake, None), expected(x), rtol=1e-5
        )


def test_penalties_teach_the_critic_its_slope():
    # d/dw of 10 (norm(w) - 1)**2 is 20 (norm(w) - 1) w / norm(w).
    w = np.array([[3.0], [0.0], [4.0], [0.0]], "float32")
    u = np.zeros((3, 1, 1, 1), "float32")

    def slope_of(penalty):
        return gradient(
            lambda w: penalty(
                lambda x: keras.ops.reshape(x, (3, 4)) @ w,
                images(0),
                images(1),
                u,
            ),
            w,
        )

    np.testing.assert_allclose(
        slope_of(losses.GradientPenalty()), 20 * (5 - 1) * w / 5, rtol=1e-5
    )
    np.testing.assert_allclose(slope_of(losses.R1(2.0)), 2 * w, rtol=1e-5)
    np.testing.assert_allclose(slope_of(losses.R2(2.0)), 2 * w, rtol=1e-5)


def test_penalties_train_the_variables_of_a_network():
    critic = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Conv2D(4, 2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    u = np.full((3, 1, 1, 1), 0.5, "float32")
    for penalty in PENALTIES[:3]:
        with tf.GradientTape() as tape:
            value = penalty(critic, images(0), images(1), u)
        kernels = [w for w in critic.trainable_weights if w.ndim > 1]
        for step in tape.gradient(value, kernels):
            assert np.all(np.isfinite(step)) and np.any(step)


def test_penalty_of_a_constant_critic_is_finite_with_its_gradient():
    # The gradient of a norm at zero is 0/0 without care.
    def value(w):
        return losses.GradientPenalty()(
            lambda x: keras.ops.reshape(x, (3, 4)) @ w,
            images(0),
            images(1),
            np.zeros((3, 1, 1, 1), "float32"),
        )

    w = np.zeros((4, 1), "float32")
    np.testing.assert_allclose(value(w), 10, rtol=1e-4)
    assert np.all(np.isfinite(gradient(value, w)))


def test_penalty_of_a_critic_blind_to_its_input_is_that_of_slope_zero():
    assert losses.R1()(lambda x: keras.ops.ones((3, 1)), images(0)) == 0


def test_slopes_below_the_range_of_float16_are_seen():
    # A slope of 9e-8 per pixel, of which float16 keeps no digit.
    policy = keras.DTypePolicy("mixed_float16")
    small = keras.initializers.Constant(3e-4)
    critic = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(dtype=policy),
            keras.layers.Dense(1, kernel_initializer=small, dtype=policy),
            keras.layers.Dense(1, kernel_initializer=small, dtype=policy),
        ]
    )
    value = losses.R1(2e12)(
        lambda x: keras.ops.cast(critic(x), "float32"), images(0)
    )
    np.testing.assert_allclose(value, 1e12 * 4 * 9e-8**2, rtol=5e-3)


def test_scaling_for_float16_changes_no_bit_of_float32():
    critic = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Conv2D(8, 2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    x = images(0)
    slope = gradient(critic, x)
    plain = tf.reduce_mean(tf.reduce_sum(tf.square(slope), axis=(1, 2, 3)))
    assert float(losses.R1(2.0)(critic, x)) == float(plain)


def test_weight_clipping_acts_on_weights_and_not_on_the_loss():
    clipping = losses.WeightClipping(0.1)
    weights = [
        keras.Variable(np.array([-3.0, -0.05, 0.2])),
        keras.Variable(np.array([[0.1, 1.0]])),
    ]
    clipping.clip(weights)
    np.testing.assert_allclose(weights[0], [-0.1, -0.05, 0.1])
    np.testing.assert_allclose(weights[1], [[0.1, 0.1]])
    assert clipping(quadratic, images(0), images(1), None) == 0


def test_weight_clipping_works_inside_a_compiled_step():
    weight = keras.Variable(np.array([-3.0, 0.5]))

    @tf.function
    def step():
        weight.assign(2 * weight)
        losses.WeightClipping(1.5).clip([weight])

    step()
    np.testing.assert_allclose(weight, [-1.5, 1.0])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_survive_their_configs(penalty):
    copy = round_trip(penalty)
    assert type(copy) is type(penalty)
    assert copy.get_config() == penalty.get_config() != {}
    config = keras.saving.serialize_keras_object(penalty)
    assert type(losses.get_penalty(config)) is type(penalty)


def test_a_number_is_the_weight_of_a_gradient_penalty():
    penalty = losses.get_penalty(7)
    assert type(penalty) is losses.GradientPenalty
    assert penalty.get_config() == {"weight": 7.0, "target": 1.0}


def test_none_and_objects_are_penalties_as_they_are():
    penalty = losses.R1()
    assert losses.get_penalty(None) is None
    assert losses.get_penalty(penalty) is penalty


@pytest.mark.parametrize("penalty", ["r1" * 999, True, losses.R1, [10.0]])
def test_unknown_penalties_are_refused(penalty):
    with pytest.raises(ValueError, match="`gradient_penalty`") as error:
        losses.get_penalty(penalty)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "10"])
def test_weights_targets_and_bounds_must_be_positive(value):
    for make, name in (
        (lambda: losses.GradientPenalty(value), "weight"),
        (lambda: losses.GradientPenalty(target=value), "target"),
        (lambda: losses.R1(value), "weight"),
        (lambda: losses.R2(value), "weight"),
        (lambda: losses.WeightClipping(value), "value"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            make()


def test_gradient_penalties_warn_of_batch_normalization():
    dense, normalization = (
        keras.layers.Dense(1),
        keras.layers.BatchNormalization(),
    )
    plain = keras.Sequential([keras.Input((2,)), dense])
    normalized = keras.Sequential([keras.Input((2,)), normalization, dense])
    for penalty in PENALTIES[:3]:
        losses.check_penalty(penalty, plain)
        with pytest.warns(UserWarning, match="`discriminator` has batch norm"):
            losses.check_penalty(penalty, normalized)
    for penalty in (None, losses.WeightClipping()):
        losses.check_penalty(penalty, normalized)


# -- replicas ----------------------------------------------------------------


def on_each_replica(strategy, function, *arrays):
    """Sums of what `function` gives for each replica's part of the arrays."""
    parts = [
        strategy.experimental_distribute_values_from_function(
            lambda replica, array=array: tf.constant(
                np.split(array, 2)[replica.replica_id_in_sync_group]
            )
        )
        for array in arrays
    ]
    results = tf.function(strategy.run)(function, parts)
    return [strategy.reduce("SUM", part, axis=None) for part in results]


def test_two_replicas_learn_what_one_device_would(two_replicas):
    loss = losses.RelativisticAverage()
    with two_replicas.scope():
        w = keras.Variable([[0.3], [-2.0]])
    real = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    fake = np.random.default_rng(1).normal(size=(8, 2)).astype("float32") + 0.5

    def losses_and_gradients(real, fake, num_replicas=2):
        with tf.GradientTape(persistent=True) as tape:
            pair = real @ w.value, fake @ w.value
            d_loss = loss.discriminator(*pair) / num_replicas
            g_loss = loss.generator(*pair) / num_replicas
        d_step = tape.gradient(d_loss, w.value)
        return d_loss, g_loss, d_step, tape.gradient(g_loss, w.value)

    one = losses_and_gradients(real, fake, num_replicas=1)
    two = on_each_replica(two_replicas, losses_and_gradients, real, fake)
    for a, b in zip(one, two, strict=True):
        assert np.all(a)
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_two_replicas_log_what_one_device_would(two_replicas):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 8, 2, 3, 1)).astype("float32")

    def logs(real, fake, num_replicas=2):
        values = [losses.diversity(real, fake)]
        values += losses.accuracies(
            losses.Wasserstein(), real[:, 0, 0] + 0.5, fake[:, 0, 0]
        )
        return [value / num_replicas for value in values]

    two = on_each_replica(two_replicas, logs, real, fake)
    np.testing.assert_allclose(two, logs(real, fake, 1), rtol=1e-5)


def test_weight_clipping_keeps_the_copies_of_a_weight_equal(two_replicas):
    with two_replicas.scope():
        w = keras.Variable([3.0, -2.0])

    @tf.function
    def step():
        two_replicas.run(lambda: losses.WeightClipping(0.5).clip([w]))

    def copies():
        return two_replicas.experimental_local_results(w.value)

    step()
    np.testing.assert_allclose(copies(), 2 * [[0.5, -0.5]])
    with two_replicas.scope():
        losses.WeightClipping(0.2).clip([w])
    np.testing.assert_allclose(copies(), 2 * [[0.2, -0.2]])
