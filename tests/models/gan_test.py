"""The mathematics of the GAN; what every model must do is in contract_test."""

import json
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_gen import GAN, latents, losses, networks
from keras_gen.layers.minibatch import MinibatchDiscrimination, pack
from keras_gen.networks.conditional import conditional_discriminator

SHAPE = (3, 3, 1)
BATCH = 8


def normalized_generator():
    """A generator with batch statistics, which training changes too."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.ReLU(),
            keras.layers.Dense(9, activation="tanh"),
            keras.layers.Reshape(SHAPE),
        ],
        name="generator",
    )


def small_gan(**arguments):
    defaults = {
        "generator": normalized_generator(),
        "discriminator": networks.mlp_discriminator(SHAPE, (6,)),
        "ema": 0.9,
        "seed": 1,
    }
    return GAN(SHAPE, 2, **{**defaults, **arguments})


def compiled(gan, optimizer=keras.optimizers.SGD, rate=0.1, **arguments):
    gan.compile(
        d_optimizer=optimizer(rate),
        g_optimizer=optimizer(rate),
        jit_compile=False,
        steps_per_execution=1,
        **arguments,
    )
    return gan


def images(num_images=BATCH):
    return np.random.default_rng(0).random((num_images, *SHAPE), "float32")


def one_step(gan, x, y=None):
    """Logs of one step on the whole of `x`, without building a graph."""
    x = tf.constant(x)
    gan.reset_metrics()
    logs = gan.train_step(x if y is None else (x, tf.constant(y)))
    return {name: float(value) for name, value in logs.items()}


def copy_of(network):
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def assert_close(weights, expected):
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# A step


def softplus(x):
    return tf.math.log(1 + tf.exp(x))


# `(d_loss, g_loss)` of logits, written out once more.
FORMULAS = {
    "non_saturating": (
        lambda r, f: softplus(-r) + softplus(f),
        lambda f: softplus(-f),
    ),
    "minimax": (
        lambda r, f: softplus(-r) + softplus(f),
        lambda f: -softplus(f),
    ),
    "wasserstein": (lambda r, f: f - r, lambda f: -f),
    "least_squares": (
        lambda r, f: (r - 1) ** 2 / 2 + f**2 / 2,
        lambda f: (f - 1) ** 2 / 2,
    ),
}


class Reference:
    """Two networks and the plain training of them, on the same noise."""

    def __init__(self, gan, loss, penalty_weight=0.0, smoothing=0.0, rate=0.1):
        self.generator = copy_of(gan.generator)
        self.discriminator = copy_of(gan.discriminator)
        self.d_formula, self.g_formula = FORMULAS[loss]
        self.penalty_weight, self.smoothing = penalty_weight, smoothing
        self.rate = rate
        self.draws = 0  # of the training stream, whose seed is 1

    def next_seed(self):
        self.draws += 1
        return (1, self.draws - 1)

    def fake(self):
        z = tf.random.stateless_normal((BATCH, 2), self.next_seed())
        return self.generator(z, training=True)

    def descend(self, tape, loss, weights):
        for weight, slope in zip(
            weights, tape.gradient(loss, weights), strict=True
        ):
            weight.assign(weight - self.rate * slope)
        return float(loss)

    def d_step(self, real):
        fake = self.fake()
        mix = tf.random.stateless_uniform((BATCH, 1, 1, 1), self.next_seed())
        between = mix * fake + (1 - mix) * real
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(real, training=True)
            fake_logits = self.discriminator(fake, training=True)
            loss = tf.reduce_mean(self.d_formula(real_logits, fake_logits))
            # Of the label 1 - s: softplus(-r) becomes softplus(-r) + s * r.
            loss += self.smoothing * tf.reduce_mean(real_logits)
            with tf.GradientTape() as inner:
                inner.watch(between)
                logits = self.discriminator(between, training=True)
            slope = tf.reshape(inner.gradient(logits, between), (BATCH, -1))
            excess = tf.norm(slope, axis=1) - 1
            loss += self.penalty_weight * tf.reduce_mean(excess**2)
        return self.descend(tape, loss, self.discriminator.trainable_weights)

    def g_step(self):
        with tf.GradientTape() as tape:
            logits = self.discriminator(self.fake(), training=True)
            loss = tf.reduce_mean(self.g_formula(logits))
        return self.descend(tape, loss, self.generator.trainable_weights)


@pytest.mark.parametrize(
    "arguments, reference",
    [
        ({}, {"loss": "non_saturating"}),
        ({"loss": "minimax"}, {"loss": "minimax"}),
        ({"loss": "least_squares"}, {"loss": "least_squares"}),
        (
            {"label_smoothing": 0.2},
            {"loss": "non_saturating", "smoothing": 0.2},
        ),
        (
            {"loss": "wasserstein", "gradient_penalty": 10.0, "d_steps": 3},
            {"loss": "wasserstein", "penalty_weight": 10.0},
        ),
    ],
    ids=["default", "minimax", "least_squares", "smoothed", "WGAN-GP"],
)
def test_a_step_is_that_of_the_plain_algorithm(arguments, reference):
    gan = compiled(small_gan(), **arguments)
    plain, x = Reference(gan, **reference), images()
    for _ in range(arguments.get("d_steps", 1)):
        d_loss = plain.d_step(2 * x - 1)
    g_loss = plain.g_step()
    logs = one_step(gan, x)
    assert_close(gan.discriminator.get_weights(), plain.discriminator.weights)
    assert_close(gan.generator.get_weights(), plain.generator.weights)
    assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    assert logs["g_loss"] == pytest.approx(g_loss, rel=1e-4)
    assert logs["loss"] == logs["g_loss"]
    assert np.array(gan.train_seeds.state)[1] == plain.draws


def test_relativistic_generator_sees_the_real_batch_too():
    gan = compiled(small_gan(), loss="relativistic")
    plain, x = Reference(gan, "wasserstein"), images()
    real = 2 * x - 1
    logs = one_step(gan, x)
    fake = plain.fake()
    r, f = (plain.discriminator(i, training=True) for i in (real, fake))
    d_loss = np.mean(softplus(np.mean(f) - r)) + np.mean(
        softplus(f - np.mean(r))
    )
    assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    # The generator meets the discriminator after its step.
    plain.next_seed()
    fake = plain.fake()
    r, f = (gan.discriminator(i, training=True) for i in (real, fake))
    g_loss = np.mean(softplus(np.mean(r) - f)) + np.mean(
        softplus(r - np.mean(f))
    )
    assert logs["g_loss"] == pytest.approx(g_loss, rel=1e-4)


def test_evaluation_is_of_the_losses_without_penalty_and_without_training():
    gan = compiled(small_gan(), loss="wasserstein", gradient_penalty=10.0)
    x = images()
    z = tf.random.stateless_normal((BATCH, 2), (2, 0))  # the other stream
    fake = gan.generator(z, training=False)
    real_logits = np.mean(gan.discriminator(2 * x - 1))
    fake_logits = np.mean(gan.discriminator(fake))
    before = gan.get_weights()
    logs = gan.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert logs["d_loss"] == pytest.approx(fake_logits - real_logits, rel=1e-4)
    assert logs["g_loss"] == pytest.approx(-fake_logits, rel=1e-4)
    for one, other in zip(before, gan.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_regularization_of_each_network_is_minimized_by_its_own_optimizer():
    steps = {}
    for regularizer in (None, keras.regularizers.L2(0.3)):
        keras.utils.set_random_seed(0)
        gan = small_gan()
        kernels = [
            gan.discriminator.layers[1].kernel,
            gan.generator.layers[0].kernel,
        ]
        start = [np.array(kernel) for kernel in kernels]
        for kernel in kernels:
            kernel.regularizer = regularizer
        one_step(compiled(gan, rate=1e-3), images())
        steps[regularizer is None] = [
            old - np.array(new) for old, new in zip(start, kernels, strict=True)
        ]
    for plain, regularized, old in zip(
        steps[True], steps[False], start, strict=True
    ):
        # A step of the discriminator bends the generator's a little.
        np.testing.assert_allclose(
            regularized - plain, 1e-3 * 2 * 0.3 * old, rtol=0.05, atol=1e-5
        )


def test_discriminator_is_updated_d_steps_times_a_step():
    gan = compiled(small_gan(), d_steps=3)
    for _ in range(2):
        one_step(gan, images())
    assert int(gan.optimizer.iterations) == 2
    assert int(gan.d_optimizer.iterations) == 2 * 3


def test_weight_clipping_bounds_the_critic_and_nothing_else():
    gan = compiled(
        small_gan(),
        loss="wasserstein",
        gradient_penalty=losses.WeightClipping(0.02),
    )
    one_step(gan, images())
    largest = [np.abs(w).max() for w in gan.discriminator.get_weights()]
    assert max(largest) == pytest.approx(0.02)
    assert max(np.abs(w).max() for w in gan.generator.get_weights()) > 0.1


# Options of a step


def still(gan, **arguments):
    """Compiled so that a step logs everything and moves nothing."""
    return compiled(gan, rate=0.0, **arguments)


def noise(shape, draw, seed=1):
    return tf.random.stateless_normal(shape, (seed, draw))


def cross_entropy(logits, labels):
    log_shares = tf.nn.log_softmax(logits)
    return -np.mean([row[y] for row, y in zip(log_shares, labels, strict=True)])


class Game:
    """The game of one number: x = g z + c against d = w x + b."""

    def __init__(self, make_optimizer, unrolled_steps, **arguments):
        self.gan = GAN(
            (1, 1, 1),
            1,
            generator=keras.Sequential(
                [
                    keras.Input((1,)),
                    keras.layers.Dense(1),
                    keras.layers.Reshape((1, 1, 1)),
                ]
            ),
            discriminator=networks.mlp_discriminator((1, 1, 1), ()),
            ema=None,
            seed=1,
        )
        self.gan.generator.set_weights([np.array([[0.7]]), np.array([0.2])])
        self.gan.discriminator.set_weights(
            [np.array([[-0.4]]), np.array([0.3])]
        )
        self.gan.compile(
            d_optimizer=make_optimizer(),
            g_optimizer=keras.optimizers.SGD(1.0),
            unrolled_steps=unrolled_steps,
            jit_compile=False,
            **arguments,
        )
        self.real = np.linspace(-0.9, 0.8, 6).astype("float32")

    def generator_step(self):
        """One, which gives the gradient in `(g, c)`."""
        before = np.concatenate([w.ravel() for w in self.generator_weights()])
        self.gan.generator_step(self.real.reshape(-1, 1, 1, 1))
        after = np.concatenate([w.ravel() for w in self.generator_weights()])
        return before - after

    def generator_weights(self):
        return self.gan.generator.get_weights()

    def discriminator_state(self):
        variables = (
            *self.gan.discriminator.variables,
            *self.gan.d_optimizer.variables,
        )
        return [np.array(variable) for variable in variables]


def unrolled_loss(game, num_steps, update, r1=0.0):
    """The generator's loss as a function of `(g, c)`, in float64.

    The least squares game, whose slopes are written out by hand.
    """
    weights = np.concatenate(
        [w.ravel() for w in game.gan.discriminator.get_weights()]
    ).astype("float64")
    real = game.real.astype("float64")
    draw = int(np.array(game.gan.train_seeds.state)[1])
    z = np.array(noise((6, 1), draw)).ravel().astype("float64")

    def loss(generator):
        fake = generator[0] * z + generator[1]
        (w, b), step = weights, update()
        for _ in range(num_steps):
            real_error, fake_error = w * real + b - 1, w * fake + b
            slope = np.array(
                [
                    np.mean(real_error * real) + np.mean(fake_error * fake),
                    np.mean(real_error) + np.mean(fake_error),
                ]
            )
            slope[0] += r1 * w  # of r1 / 2 * w**2
            w, b = step(np.array([w, b]), slope)
        return np.mean((w * fake + b - 1) ** 2) / 2

    return loss


def numeric_slope(function, at):
    steps = 1e-5 * np.eye(2)
    return [(function(at + s) - function(at - s)) / 2e-5 for s in steps]


def sgd(game):
    return lambda: lambda weights, slope: weights - 0.2 * slope


def adam(game):
    """Adam as it stands in its paper, from the state that the game's has."""
    slots = {
        variable.path.split("/")[-1]: np.array(variable, "float64")
        for variable in game.gan.d_optimizer.variables
    }
    start = {}
    for moment in ("momentum", "velocity"):
        values = [v.ravel() for k, v in slots.items() if k.endswith(moment)]
        assert len(values) == 2 and np.all(values[0])
        start[moment] = np.concatenate(values)

    def begin():
        m, v, t = start["momentum"], start["velocity"], slots["iteration"]

        def step(weights, slope):
            nonlocal m, v, t
            m, v, t = 0.5 * m + 0.5 * slope, 0.9 * v + 0.1 * slope**2, t + 1
            rate = 0.2 * np.sqrt(1 - 0.9**t) / (1 - 0.5**t)
            return weights - rate * m / (np.sqrt(v) + 1e-7)

        return step

    return begin


@pytest.mark.parametrize(
    "num_steps, make_optimizer, update, penalty",
    [
        (1, lambda: keras.optimizers.SGD(0.2), sgd, 0.0),
        (3, lambda: keras.optimizers.Adam(0.2, 0.5, 0.9), adam, 0.0),
        (2, lambda: keras.optimizers.Adam(0.2, 0.5, 0.9), adam, 0.6),
    ],
    ids=["SGD", "Adam", "Adam-R1"],
)
def test_generator_learns_through_the_discriminators_own_steps(
    num_steps, make_optimizer, update, penalty
):
    game = Game(
        make_optimizer,
        num_steps,
        loss="least_squares",
        gradient_penalty=losses.R1(penalty) if penalty else None,
    )
    for _ in range(2):  # for moments that are not 0
        game.gan.discriminator_step(game.real.reshape(-1, 1, 1, 1))
    before = game.discriminator_state()
    loss = unrolled_loss(game, num_steps, update(game), penalty)
    plain = unrolled_loss(game, 0, update(game))
    at = np.array([0.7, 0.2])
    slope = game.generator_step()
    np.testing.assert_allclose(slope, numeric_slope(loss, at), rtol=1e-3)
    assert np.all(np.abs(slope / numeric_slope(plain, at) - 1) > 0.05)
    for old, new in zip(before, game.discriminator_state(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bilinear_game_looks_ahead_by_its_closed_form():
    # d_loss = w (mean f - mean r), so w grows by 0.2 (mean r - mean f) a step.
    game = Game(lambda: keras.optimizers.SGD(0.2), 4, loss="wasserstein")
    z = float(np.mean(noise((6, 1), 0)))
    r, f = game.real.mean(), 0.7 * z + 0.2
    w = -0.4 + 4 * 0.2 * (r - f)
    # g_loss = -(w(f) f + b)
    slope = -(w - 4 * 0.2 * f)
    np.testing.assert_allclose(
        game.generator_step(), [slope * z, slope], rtol=1e-4
    )


@pytest.mark.parametrize("num_made, r1", [(1, 0.0), (2, 2 * 0.6)])
def test_a_step_ahead_has_the_lazy_penalty_when_it_is_due(num_made, r1):
    game = Game(
        lambda: keras.optimizers.SGD(0.2),
        1,
        loss="least_squares",
        gradient_penalty=losses.R1(0.6),
        penalty_interval=2,
    )
    for _ in range(num_made):
        game.gan.discriminator_step(game.real.reshape(-1, 1, 1, 1))
    slope = numeric_slope(
        unrolled_loss(game, 1, sgd(game), r1), np.array([0.7, 0.2])
    )
    np.testing.assert_allclose(game.generator_step(), slope, rtol=1e-3)


def layered_discriminator(*layers):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            *layers,
            keras.layers.Dense(1),
        ]
    )


def test_layers_with_state_look_ahead_under_lazy_penalties():
    gan = compiled(
        dense_gan(
            discriminator=layered_discriminator(keras.layers.Dropout(0.5))
        ),
        unrolled_steps=1,
        gradient_penalty=losses.R1(0.1),
        penalty_interval=2,
    )
    logs = tf.function(gan.generator_step)(images())
    assert all(np.isfinite(value) for value in logs.values())


def test_batches_of_one_look_ahead_through_minibatch_discrimination():
    gan = compiled(
        dense_gan(
            discriminator=layered_discriminator(MinibatchDiscrimination(2))
        ),
        unrolled_steps=1,
    )
    for size in (4, 1):
        logs = one_step(gan, images(size))
        assert np.isfinite(logs["g_loss"]) and logs["skipped_updates"] == 0


def dense_gan(**arguments):
    """Without batch statistics, which a loss scale would disturb."""
    return small_gan(
        generator=networks.mlp_generator(2, SHAPE, (5,)), **arguments
    )


@pytest.mark.parametrize(
    "options",
    [
        {"unrolled_steps": 2, "gradient_norms": True},
        {"gradient_penalty": losses.R1(2.0), "penalty_interval": 2},
    ],
    ids=["unrolled", "lazy_penalty"],
)
def test_options_on_two_replicas_are_those_on_one(options, two_replicas):
    one = compiled(dense_gan(), **options)
    with two_replicas.scope():
        two = compiled(dense_gan(), **options)
    two.set_weights(one.get_weights())
    x = tf.data.Dataset.from_tensor_slices(images())
    x = x.batch(BATCH, drop_remainder=True)
    history = two.fit(x, verbose=0).history
    for name, value in one_step(one, images()).items():
        assert history[name] == [pytest.approx(value, rel=1e-4)]
    assert_close(two.get_weights(), one.get_weights())


def test_options_train_together_under_xla():
    gan = dense_gan()
    gan.compile(
        loss="feature_matching",
        unrolled_steps=1,
        instance_noise=0.1,
        drift=0.1,
        gradient_norms=True,
        steps_per_execution=1,
        jit_compile=True,
    )
    history = gan.fit(images(4 * BATCH), batch_size=BATCH, verbose=0).history
    assert history["skipped_updates"] == [0]
    assert all(np.isfinite(value[0]) for value in history.values())


def test_drift_is_the_mean_square_of_the_logits_of_real_images():
    gan, x = small_gan(), images()
    gan.generator.set_weights(
        [np.zeros(w.shape) for w in gan.generator.get_weights()]
    )
    logits = np.array(gan.discriminator(2 * x - 1))
    plain, drifting = (
        one_step(still(gan, drift=drift), x)["d_loss"] for drift in (0, 0.5)
    )
    assert drifting - plain == pytest.approx(0.5 * np.mean(logits**2), rel=1e-3)


def test_penalties_come_once_in_an_interval_and_that_much_larger():
    x, penalty = images(), losses.R1(2.0)

    def d_losses(**arguments):
        keras.utils.set_random_seed(0)
        gan = still(small_gan(), **arguments)
        return np.array([one_step(gan, x)["d_loss"] for _ in range(6)])

    plain = d_losses()
    penalties = d_losses(gradient_penalty=penalty) - plain
    assert np.all(penalties > 1e-4)
    lazy = d_losses(gradient_penalty=penalty, penalty_interval=3) - plain
    expected = 3 * penalties * [1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(lazy, expected, atol=1e-5)


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_lazy_penalties_train_the_discriminator(jit_compile):
    slopes = []
    for weight in (1e-6, 10.0):
        gan = small_gan()
        gan.compile(
            keras.optimizers.Adam(1e-2),
            gradient_penalty=losses.R1(weight),
            penalty_interval=2,
            steps_per_execution=1,
            jit_compile=jit_compile,
        )
        gan.fit(images(64 * BATCH), batch_size=BATCH, verbose=0)
        x = 2 * images() - 1
        slopes.append(float(losses.R1(2.0)(gan.discriminator, x)))
    assert slopes[1] < 0.5 * slopes[0]


def test_lazy_penalties_go_with_accumulated_gradients():
    gan = small_gan()
    gan.compile(
        keras.optimizers.Adam(gradient_accumulation_steps=2),
        gradient_penalty=losses.R1(1.0),
        penalty_interval=2,
    )
    assert all(np.isfinite(value) for value in one_step(gan, images()).values())


def test_feature_matching_compares_the_input_of_the_last_layer():
    gan, x = still(small_gan(), loss="feature_matching"), images()
    fake = gan.generator(noise((BATCH, 2), 2), training=True)  # before, 2 draws
    hidden = keras.Model(
        gan.discriminator.inputs[0], gan.discriminator.layers[-2].output
    )
    means = [np.mean(hidden(i), axis=0) for i in (2 * x - 1, fake)]
    logs = one_step(gan, x)
    expected = np.sum((means[0] - means[1]) ** 2)
    assert logs["g_loss"] == pytest.approx(expected, rel=1e-4)


def test_logs_tell_accuracies_and_diversity():
    gan, x = still(small_gan()), images()
    fakes = [gan.generator(noise((BATCH, 2), i), training=True) for i in (0, 2)]
    logs = one_step(gan, x)
    for i, name, sign in (
        (2 * x - 1, "d_real_accuracy", 1),
        (fakes[0], "d_fake_accuracy", -1),
    ):
        right = np.mean(sign * np.array(gan.discriminator(i)) > 0)
        assert logs[name] == right
    spread = [np.var(i, axis=0).sum() for i in (fakes[1], 2 * x - 1)]
    assert logs["diversity"] == pytest.approx(
        np.sqrt(spread[0] / spread[1]), rel=1e-4
    )
    evaluated = gan.evaluate(x, verbose=0, return_dict=True)
    names = ["loss", "d_loss", "g_loss"]
    names += ["d_real_accuracy", "d_fake_accuracy", "diversity"]
    assert list(evaluated) == names


def test_gradient_norms_are_those_of_the_steps_that_were_made():
    gan = compiled(small_gan(), rate=0.1, gradient_norms=True)
    networks_ = (gan.discriminator, gan.generator)

    def weights():
        return [
            np.concatenate([np.ravel(w) for w in network.trainable_weights])
            for network in networks_
        ]

    before = weights()
    logs = one_step(gan, images())
    for name, old, new in zip("dg", before, weights(), strict=True):
        norm = np.linalg.norm(new - old) / 0.1
        assert logs[f"{name}_gradient_norm"] == pytest.approx(norm, rel=1e-4)
    evaluated = gan.evaluate(images(), verbose=0, return_dict=True)
    assert "d_gradient_norm" not in evaluated
    assert "d_gradient_norm" not in one_step(compiled(gan), images())


def test_gradient_norms_are_free_of_the_loss_scale():
    def doubling(rate):  # the scale, in each step
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(rate), dynamic_growth_steps=1
        )

    norms = []
    for policy, optimizer in (
        ("float32", keras.optimizers.SGD),
        ("mixed_float16", doubling),
    ):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        gan = compiled(dense_gan(), optimizer, gradient_norms=True)
        logs = one_step(gan, images())
        norms.append([logs[f"{name}_gradient_norm"] for name in "dg"])
    assert float(gan.optimizer.dynamic_scale) == 2 * 2**15
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


# Instance noise and packs


def test_instance_noise_has_the_deviation_asked_for():
    gan = still(small_gan(), instance_noise=0.3)
    zeros = tf.zeros((2000, *SHAPE))
    noisy = np.array(gan._shown(zeros))
    assert np.std(noisy) == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(noisy)) < 0.01
    assert np.any(noisy != gan._shown(zeros))


def test_instance_noise_follows_its_schedule_over_the_generators_steps():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.4, 100, 0.0)
    for noise_of in (
        schedule,
        lambda step: 0.4 * (1 - step / 100),
        lambda step: 0.4 * 0.25 ** (step / 75) * tf.minimum(100.0 - step, 1.0),
    ):
        gan = still(small_gan(), instance_noise=noise_of)
        for step, deviation in ((0, 0.4), (75, 0.1), (100, 0.0)):
            gan.optimizer.iterations.assign(step)
            noisy = np.array(gan._shown(tf.zeros((2000, *SHAPE))))
            assert np.std(noisy) == pytest.approx(deviation, rel=0.02)


def test_real_and_generated_images_are_noisy_in_training_alone():
    gan, x = still(small_gan(), instance_noise=0.5), images()
    fake = gan.generator(noise((BATCH, 2), 0), training=True)
    pair = [
        gan.discriminator(i + 0.5 * noise((BATCH, *SHAPE), draw))
        for i, draw in ((2 * x - 1, 1), (fake, 2))
    ]
    assert one_step(gan, x)["d_loss"] == pytest.approx(
        np.mean(softplus(-pair[0]) + softplus(pair[1])), rel=1e-4
    )
    fake = gan.generator(noise((BATCH, 2), 0, seed=2))
    pair = [gan.discriminator(i) for i in (2 * x - 1, fake)]
    evaluated = gan.evaluate(x, verbose=0, return_dict=True)
    assert evaluated["d_loss"] == pytest.approx(
        np.mean(softplus(-pair[0]) + softplus(pair[1])), rel=1e-4
    )


def test_packed_discriminator_judges_several_images_at_once():
    gan = still(
        small_gan(
            discriminator=networks.mlp_discriminator((3, 3, 2), (6,)),
            packing=2,
        )
    )
    x = images()
    fake = gan.generator(noise((BATCH, 2), 0), training=True)
    real_logits, fake_logits = (
        gan.discriminator(pack(i, 2)) for i in (2 * x - 1, fake)
    )
    assert real_logits.shape == (BATCH // 2, 1)
    assert one_step(gan, x)["d_loss"] == pytest.approx(
        np.mean(softplus(-real_logits) + softplus(fake_logits)), rel=1e-4
    )


def test_packs_work_with_penalties_and_last_batches_of_any_size():
    gan = compiled(
        GAN(SHAPE, 2, packing=3, seed=1),
        loss="wasserstein",
        gradient_penalty=10.0,
    )
    for size in (BATCH, 1):
        logs = one_step(gan, images(size))
        assert np.isfinite(logs["d_loss"]) and logs["skipped_updates"] == 0


def test_spectral_normalization_is_the_same_on_all_replicas(two_replicas):
    def make():
        normalization = keras.layers.SpectralNormalization
        discriminator = keras.Sequential(
            [
                keras.Input(SHAPE),
                keras.layers.Flatten(),
                normalization(keras.layers.Dense(5)),
                keras.layers.LeakyReLU(),
                normalization(keras.layers.Dense(1)),
            ]
        )
        return compiled(
            small_gan(
                generator=networks.mlp_generator(2, SHAPE, (5,)),
                discriminator=discriminator,
            ),
            loss="hinge",
        )

    one = make()
    with two_replicas.scope():
        two = make()
    two.set_weights(one.get_weights())
    x = tf.data.Dataset.from_tensor_slices(images())
    two.fit(x.batch(BATCH, drop_remainder=True), epochs=3, verbose=0)
    for _ in range(3):
        one_step(one, images())
    assert_close(two.get_weights(), one.get_weights())
    for variable in two.discriminator.variables:
        copies = [np.array(copy) for copy in variable.value.values]
        np.testing.assert_array_equal(*copies)


# Conditions


def painter(num_classes=3):
    """A generator that paints the first pixels by the condition."""
    z, condition = keras.Input((2,)), keras.Input((num_classes,))
    x = keras.layers.Concatenate()([condition, z])
    x = keras.layers.Dense(9 - num_classes - 2, kernel_initializer="zeros")(x)
    x = keras.layers.Concatenate()([2 * condition - 1, 0.1 * z, x])
    return keras.Model([z, condition], keras.layers.Reshape(SHAPE)(x))


def conditional_gan(conditioning="projection", **arguments):
    features = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="leaky_relu"),
        ]
    )
    return small_gan(
        generator=painter(),
        discriminator=conditional_discriminator(features, 3, conditioning),
        conditioning=conditioning,
        **(arguments or {"num_classes": 3}),
    )


LABELS = np.arange(BATCH) % 3


@pytest.mark.parametrize("conditioning", ["projection", "concat"])
def test_both_networks_are_given_the_classes_of_the_batch(conditioning):
    gan = still(conditional_gan(conditioning))
    x, classes = tf.constant(images()), tf.one_hot(LABELS, 3)
    fake, later = (
        gan.generator([noise((BATCH, 2), i), classes]) for i in (0, 2)
    )
    r, f, g = (
        gan.discriminator([i, classes]) for i in (2 * x - 1, fake, later)
    )
    logs = one_step(gan, x, LABELS)
    assert logs["d_loss"] == pytest.approx(
        np.mean(softplus(-r) + softplus(f)), rel=1e-4
    )
    assert logs["g_loss"] == pytest.approx(np.mean(softplus(-g)), rel=1e-4)


def test_auxiliary_classifier_lowers_its_cross_entropy_in_both_networks():
    gan = still(conditional_gan("auxiliary"))
    x, classes = tf.constant(images()), tf.one_hot(LABELS, 3)
    fake, later = (
        gan.generator([noise((BATCH, 2), i), classes]) for i in (0, 2)
    )
    r, f, g = (np.array(gan.discriminator(i)) for i in (2 * x - 1, fake, later))
    logs = one_step(gan, x, LABELS)
    assert logs["d_loss"] == pytest.approx(
        np.mean(softplus(-r[:, 0]) + softplus(f[:, 0]))
        + cross_entropy(r[:, 1:], LABELS)
        + cross_entropy(f[:, 1:], LABELS),
        rel=1e-4,
    )
    assert logs["g_loss"] == pytest.approx(
        np.mean(softplus(-g[:, 0])) + cross_entropy(g[:, 1:], LABELS),
        rel=1e-4,
    )


def test_real_images_with_the_vectors_of_others_are_to_be_rejected():
    gan = still(conditional_gan(condition_dim=3))
    rng = np.random.default_rng(1)
    x = tf.constant(images(7))
    c = tf.constant(rng.normal(size=(7, 3)).astype("float32"))
    others = tf.gather(c, [1, 0, 3, 2, 5, 4, 0])
    fake = gan.generator([noise((7, 2), 0), c])
    r, f, w = (
        gan.discriminator([i, vectors])
        for i, vectors in ((2 * x - 1, c), (fake, c), (2 * x - 1, others))
    )
    logs = one_step(gan, x, c)
    expected = np.mean(softplus(-r)) + np.mean(softplus(f) + softplus(w)) / 2
    assert logs["d_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["d_fake_accuracy"] == pytest.approx(np.mean(f <= 0))


def test_right_vectors_of_others_are_not_to_be_rejected():
    gan = still(conditional_gan(condition_dim=3))
    rng = np.random.default_rng(1)
    c = rng.normal(size=(4, 3)).astype("float32")
    c[1] = c[0]
    others, c = tf.constant(c[[1, 0, 3, 2]]), tf.constant(c)
    fake = gan.generator([noise((4, 2), 0), c])
    x = tf.constant(2 * images(4) - 1)
    r, f, w = (
        np.array(gan.discriminator([i, vectors]))
        for i, vectors in ((x, c), (fake, c), (x, others))
    )
    rejected = np.concatenate([f, f[:2], w[2:]])
    assert one_step(gan, images(4), c)["d_loss"] == pytest.approx(
        np.mean(softplus(-r)) + np.mean(softplus(rejected)), rel=1e-4
    )
    # One image is its own neighbour.
    f = gan.generator([noise((1, 2), 3), c[:1]])
    f = gan.discriminator([f, c[:1]])
    assert one_step(gan, images(1), c[:1])["d_loss"] == pytest.approx(
        np.mean(softplus(-r[:1]) + softplus(f)), rel=1e-4
    )


def painted(samples):
    return np.argmax(np.array(samples).reshape(len(samples), 9)[:, :3], axis=1)


def test_samples_are_of_the_classes_asked_for():
    gan = conditional_gan()
    asked = range(3)
    np.testing.assert_array_equal(
        painted(gan.sample(3, condition=asked)), asked
    )
    z = np.zeros((4, 2))
    np.testing.assert_array_equal(
        painted(gan(z, condition=[2, 0, 0, 1])), [2, 0, 0, 1]
    )


def test_classes_are_drawn_uniformly_beside_the_same_latents():
    gan = conditional_gan()
    samples = gan.sample(3000, seed=0)
    counts = np.bincount(painted(samples), minlength=3)
    assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(3000 * 2 / 9))
    given = gan.sample(3000, condition=painted(samples), seed=0)
    np.testing.assert_allclose(samples, given)


def test_samples_of_vectors_need_vectors():
    gan = conditional_gan(condition_dim=3)
    with pytest.raises(ValueError, match="`condition` must be given"):
        gan.sample(2)
    vectors = np.eye(3, dtype="float32")[[1, 1]]
    assert gan.sample(2, condition=vectors).shape == (2, *SHAPE)


def test_default_conditional_networks_train_and_save(tmp_path):
    shape = (16, 16, 1)
    gan = compiled(GAN(shape, 2, num_classes=3, seed=0), gradient_penalty=1.0)
    x = np.random.default_rng(0).random((BATCH, *shape), "float32")
    logs = one_step(gan, x, LABELS)
    assert all(np.isfinite(value) for value in logs.values())
    gan.save(tmp_path / "gan.keras")
    loaded = keras.saving.load_model(tmp_path / "gan.keras")
    np.testing.assert_array_equal(
        gan.sample(4, seed=1), loaded.sample(4, seed=1)
    )


def test_exported_samples_take_their_classes_or_draw_them(tmp_path):
    gan = conditional_gan()
    gan.export(tmp_path / "serving")
    serving = tf.saved_model.load(str(tmp_path / "serving"))
    count, classes = tf.constant(2), tf.constant([2, 0], "int64")
    seed = tf.constant(1, "int64")
    np.testing.assert_allclose(
        serving.conditional_sample(count, classes, seed),
        gan.sample(2, condition=[2, 0], seed=1),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        serving.sample(count, seed), gan.sample(2, seed=1), atol=1e-6
    )


# Latents


def linear_gan(scale=0.2):
    """Images that are linear in the latents, of full rank."""
    generator = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(9, use_bias=False),
            keras.layers.Reshape(SHAPE),
        ]
    )
    matrix = np.random.default_rng(0).normal(0, scale, (2, 9))
    generator.set_weights([matrix])
    return small_gan(generator=generator), matrix.astype("float32")


def test_prior_is_the_distribution_that_samples_come_from():
    gan, matrix = linear_gan(0.02)
    z = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    np.testing.assert_allclose(
        gan.prior.log_prob(z), scipy.stats.norm.logpdf(z).sum(1), rtol=1e-5
    )
    images = np.array(gan.sample(4000, seed=0)).reshape(-1, 9)
    z = (2 * images - 1) @ np.linalg.pinv(matrix)
    for values in z.T:
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-3


@pytest.mark.parametrize("truncation", [0.3, 2])
def test_truncated_samples_come_from_latents_cut_at_the_bound(truncation):
    gan, matrix = linear_gan(0.02)
    images = gan.sample(4000, truncation=truncation, seed=0)
    z = (2 * np.array(images).reshape(-1, 9) - 1) @ np.linalg.pinv(matrix)
    assert np.abs(z).max() <= truncation + 1e-4
    cut = scipy.stats.truncnorm(-truncation, truncation)
    for values in z.T:
        assert scipy.stats.kstest(values, cut.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(
        images, gan.sample(4000, truncation=truncation, seed=0)
    )


def test_project_finds_the_latents_of_a_linear_generator():
    gan, matrix = linear_gan()
    z = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
    x = np.clip(0.5 * (z @ matrix) + 0.5, 0, 1).reshape(-1, *SHAPE)
    a = 0.5 * matrix
    expected = (
        (x.reshape(5, 9) - 0.5)
        @ a.T
        @ np.linalg.inv(a @ a.T + 0.01 * np.eye(2))
    )
    found = gan.project(x, seed=0)
    assert found.shape == (5, 2) and found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found, gan.project(x, seed=0))
    np.testing.assert_allclose(gan(found), x, atol=0.05)


@pytest.mark.parametrize("method", ["spherical", "linear"])
def test_interpolated_images_are_those_of_the_path(method):
    gan, _ = linear_gan()
    a, b = np.random.default_rng(1).normal(size=(2, 5, 2)).astype("float32")
    frames = gan.interpolate(a, b, 4, method=method)
    assert frames.shape == (4, 5, *SHAPE) and frames.dtype == "float32"
    path = latents.interpolate(a, b, 4, method)
    for images_, z in zip(frames, path, strict=True):
        np.testing.assert_allclose(images_, gan(z), atol=1e-6)
    for bad in ((a[0], b[0]), (a[:, :1], b[:, :1]), (a, b[:2])):
        with pytest.raises(ValueError, match="`a` and `b`"):
            gan.interpolate(*bad)


def test_impute_keeps_what_is_observed_and_follows_it_elsewhere():
    gan, matrix = linear_gan()
    z = np.random.default_rng(1).normal(size=(4, 2)).astype("float32")
    x = np.clip(0.5 * (z @ matrix) + 0.5, 0, 1).reshape(-1, *SHAPE)
    mask = np.random.default_rng(2).random(x.shape) < 0.7
    damaged = np.where(mask, x, 0.9).astype("float32")
    filled = np.array(gan.impute(damaged, mask, num_samples=3, seed=0))
    assert filled.shape == (3, 4, *SHAPE) and filled.dtype == "float32"
    for sample in filled:
        np.testing.assert_array_equal(sample[mask], damaged[mask])
        np.testing.assert_allclose(sample, x, atol=0.08)
    np.testing.assert_array_equal(
        filled, gan.impute(damaged, mask, num_samples=3, seed=0)
    )


def test_conditional_models_search_under_their_condition():
    gan, x = conditional_gan(), images(2)
    z = gan.project(x, condition=[0, 2], num_steps=3, seed=0)
    assert z.shape == (2, 2)
    filled = gan.impute(
        x, np.zeros(SHAPE, bool), condition=[0, 2], num_samples=2, num_steps=3
    )
    for sample in filled:
        np.testing.assert_array_equal(painted(sample), [0, 2])
    with pytest.raises(ValueError, match="`condition` must be given"):
        gan.project(x)


def test_arguments_of_verbs_are_checked():
    gan, _ = linear_gan()
    x = images(2)
    for call, name in (
        (lambda: gan.sample(2, truncation=0), "truncation"),
        (lambda: gan.sample(2, truncation="1"), "truncation"),
        (lambda: gan.sample(2, condition=[0, 1]), "condition"),
        (lambda: gan.project(255 * x), "x"),
        (lambda: gan.project(x, num_steps=0), "num_steps"),
        (lambda: gan.project(x, num_starts=1.5), "num_starts"),
        (lambda: gan.impute(x, np.ones((4, 4))), "mask"),
        (lambda: gan.impute(x, x > 0.5, num_samples=0), "num_samples"),
        (lambda: gan.impute(x, x > 0.5, num_steps=-1), "num_steps"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`") as error:
            call()
        assert len(str(error.value)) <= 600


# The moving average


def test_average_is_that_of_the_weights_and_statistics_after_each_step():
    gan = compiled(small_gan(ema=0.8))
    start = gan.generator.get_weights()
    average = [w.astype("float64") for w in start]
    for _ in range(3):
        one_step(gan, images())
        for old, new in zip(average, gan.generator.get_weights(), strict=True):
            old *= 0.8
            old += 0.2 * new
    assert_close(gan.sampler.get_weights(), average)
    assert all(
        np.any(a != b) for a, b in zip(average, start, strict=True)
    )  # the two batch statistics too
    assert gan.sampler.trainable_weights == []


def test_samples_come_from_the_average():
    gan = small_gan()
    gan.generator.set_weights([w + 1 for w in gan.generator.get_weights()])
    z = tf.random.stateless_normal((4, 2), (5, 0))
    expected = gan.sampler(z, training=False) / 2 + 0.5
    np.testing.assert_allclose(gan.sample(4, seed=5), expected, atol=1e-6)
    np.testing.assert_allclose(gan(z), expected, atol=1e-6)
    assert np.any(np.abs(gan.generator(z) / 2 + 0.5 - expected) > 0.1)


def test_without_an_average_samples_come_from_the_generator():
    gan = compiled(small_gan(ema=None))
    one_step(gan, images())
    z = tf.random.stateless_normal((4, 2), (5, 0))
    expected = gan.generator(z, training=False) / 2 + 0.5
    np.testing.assert_allclose(gan.sample(4, seed=5), expected, atol=1e-6)
    assert gan.sampler is gan.generator


# `compile`


def test_default_optimizers_are_those_of_dcgan():
    gan = small_gan()
    gan.compile()
    assert gan.optimizers == [gan.optimizer, gan.d_optimizer]
    assert gan.optimizer is not gan.d_optimizer
    for optimizer in gan.optimizers:
        assert isinstance(optimizer, keras.optimizers.Adam)
        assert float(optimizer.learning_rate) == pytest.approx(2e-4)
        assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)


def test_callbacks_of_keras_act_on_the_generators_optimizer():
    gan = compiled(small_gan())
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)
    generator = gan.generator.trainable_weights
    before = [np.array(w) for w in generator]
    gan.fit(images(), verbose=0, callbacks=[schedule])
    assert float(gan.optimizer.learning_rate) == 0
    assert float(gan.d_optimizer.learning_rate) == pytest.approx(0.1)
    for one, other in zip(before, generator, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_optimizer_for_both_networks_is_refused():
    optimizer = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="`d_optimizer` and `g_optimizer`"):
        small_gan().compile(d_optimizer=optimizer, g_optimizer=optimizer)


def test_a_compile_that_fails_leaves_nothing_to_train_with():
    gan = compiled(small_gan(), loss="hinge")
    with pytest.raises(ValueError, match="`drift`"):
        gan.compile(loss="minimax", drift=-1)
    with pytest.raises(ValueError, match="compile"):
        gan.fit(images(), verbose=0)


def test_prediction_takes_latents_and_conditions_as_a_pair():
    gan, z, y = conditional_gan(), np.ones((3, 2), "float32"), np.arange(3)
    drawn = gan.predict([z, y], verbose=0)
    np.testing.assert_allclose(drawn, gan(z, y), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`condition`"):
        gan.predict([z, y + 7], verbose=0)


def test_one_name_for_both_optimizers_makes_two():
    gan = small_gan()
    gan.compile(d_optimizer="adam", g_optimizer="adam")
    assert gan.optimizer is not gan.d_optimizer
    assert len(gan.optimizer.variables) and len(gan.d_optimizer.variables)


def test_arguments_of_compile_are_checked():
    gan, clipping = small_gan(), losses.WeightClipping()
    for arguments, name in (
        ({"loss": "no_such_loss"}, "loss"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"gradient_penalty": 0}, "gradient_penalty"),
        ({"gradient_penalty": "r1"}, "gradient_penalty"),
        ({"d_steps": 0}, "d_steps"),
        ({"d_steps": 1.5}, "d_steps"),
        ({"unrolled_steps": -1}, "unrolled_steps"),
        ({"unrolled_steps": 2.0}, "unrolled_steps"),
        ({"instance_noise": -0.1}, "instance_noise"),
        ({"instance_noise": "0.1"}, "instance_noise"),
        ({"drift": -1.0}, "drift"),
        ({"penalty_interval": 0}, "penalty_interval"),
        ({"gradient_penalty": clipping, "unrolled_steps": 1}, "unrolled_steps"),
        ({"d_optimizer": "nadam", "unrolled_steps": 1}, "unrolled_steps"),
    ):
        with pytest.raises(ValueError, match=f"`{name}") as error:
            gan.compile(**arguments)
        assert len(str(error.value)) <= 600


def test_gradient_penalties_warn_of_batch_normalization():
    discriminator = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    gan = small_gan(discriminator=discriminator)
    with pytest.warns(UserWarning, match="`discriminator` has batch norm"):
        gan.compile(gradient_penalty=10.0)


def test_compile_arguments_survive_their_config():
    gan = small_gan()
    gan.compile(
        d_optimizer=keras.optimizers.SGD(0.3),
        g_optimizer=keras.optimizers.Adam(0.2),
        loss="minimax",
        gradient_penalty=losses.R1(2.5),
        d_steps=4,
        label_smoothing=0.25,
        jit_compile=False,
        steps_per_execution=2,
    )
    config = json.loads(json.dumps(gan.get_compile_config()))
    again = small_gan()
    assert again.get_compile_config() is None
    again.compile_from_config(config)
    assert type(again.adversarial_loss) is losses.Minimax
    assert again.adversarial_loss.label_smoothing == 0.25
    assert type(again.penalty) is losses.R1 and again.penalty.weight == 2.5
    assert again.d_steps == 4
    assert isinstance(again.optimizer, keras.optimizers.Adam)
    assert isinstance(again.d_optimizer, keras.optimizers.SGD)
    rates = [float(o.learning_rate) for o in again.optimizers]
    np.testing.assert_allclose(rates, [0.2, 0.3])
    assert again.steps_per_execution == 2 and again.jit_compile is False
    assert again.get_compile_config() == gan.get_compile_config()


def test_options_survive_their_config():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.4, 100, 0.0)
    gan, again = small_gan(), small_gan()
    for instance_noise in (None, 0.1, schedule):
        gan.compile(
            unrolled_steps=2,
            instance_noise=instance_noise,
            drift=0.3,
            gradient_norms=True,
            penalty_interval=4,
        )
        config = json.loads(json.dumps(gan.get_compile_config()))
        again.compile_from_config(config)
        assert again.get_compile_config() == gan.get_compile_config()
        assert again.unrolled_steps == 2 and again.drift == 0.3
        assert again.penalty_interval == 4
        assert type(again.instance_noise) is type(instance_noise)
        assert set(again.gradient_norms) == {"d", "g"}


def test_feature_matching_needs_a_network_that_keras_sees_through():
    class Judge(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            self.flatten = keras.layers.Flatten()
            self.input_shape, self.output_shape = (None, *SHAPE), (None, 1)
            self(np.zeros((1, *SHAPE)))

        def call(self, x):
            return self.dense(self.flatten(x))

    with pytest.raises(ValueError, match=r"`discriminator`.*Judge"):
        small_gan(discriminator=Judge()).compile(loss="feature_matching")


# The constructor


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"generator": networks.mlp_generator(2, (4, 4, 1), (5,))},
            r"`generator` must have outputs of shape \(batch, 3, 3, 1\)",
        ),
        (
            {"generator": networks.mlp_generator(5, SHAPE, (5,))},
            r"`generator` must have inputs of shape \(batch, 2\)",
        ),
        (
            {"discriminator": networks.mlp_discriminator((4, 4, 1), (5,))},
            r"`discriminator` must have inputs of shape \(batch, 3, 3, 1\)",
        ),
        (
            {"discriminator": networks.mlp_encoder(SHAPE, 2, (5,))},
            r"`discriminator` must have outputs of shape \(batch, 1\)",
        ),
        (
            {"discriminator": keras.Sequential([keras.layers.Dense(1)])},
            "`discriminator` must be a built `keras.Model`",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        small_gan(**arguments)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 3, "condition_dim": 2}, "`num_classes` and"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"num_classes": 3, "conditioning": "add"}, "`conditioning`"),
        (
            {"condition_dim": 3, "conditioning": "auxiliary"},
            "`conditioning='auxiliary'`",
        ),
        ({"packing": 0}, "`packing`"),
        ({"packing": 2, "num_classes": 3}, "`packing`"),
        ({"packing": 2}, r"`discriminator`.*\(batch, 3, 3, 2\)"),
        ({"num_classes": 3}, "`generator`.*two inputs"),
    ],
    ids=str,
)
def test_conditions_and_packs_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        small_gan(**arguments)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize("latent_dim", [0, -3, 2.5, "64", None])
def test_latent_dim_must_be_a_positive_integer(latent_dim):
    with pytest.raises(ValueError, match="`latent_dim`"):
        GAN(SHAPE, latent_dim)


@pytest.mark.parametrize("ema", [1.0, 0, -0.1, 2, math.nan, "0.9", True])
def test_ema_must_lie_between_zero_and_one(ema):
    with pytest.raises(ValueError, match="`ema`"):
        small_gan(ema=ema)


def test_the_default_networks_are_dense_below_16_pixels_and_dcgan_above():
    def convolves(network):
        return any(
            isinstance(
                layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose
            )
            for layer in network.layers
        )

    for shape, convolutional in (((8, 24, 3), False), ((16, 24, 3), True)):
        gan = GAN(shape, 2, seed=0)
        assert convolves(gan.generator) == convolutional
        assert convolves(gan.discriminator) == convolutional
        assert gan.sample(2, seed=0).shape == (2, *shape)
        # Any penalty may be used with them.
        assert not any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in gan.discriminator.layers
        )


# Networks of the user's own, which Keras knows no name of


class Shift(keras.layers.Layer):
    """A layer that is not registered."""

    def build(self, input_shape):
        self.shift = self.add_weight(shape=(input_shape[-1],), name="shift")

    def call(self, x):
        return x + self.shift


class Painter(keras.Model):
    """A subclassed generator, of which Keras knows no shapes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(9, activation="tanh")
        self.reshape = keras.layers.Reshape(SHAPE)

    def call(self, inputs, training=False):
        h = keras.ops.concatenate(keras.tree.flatten(inputs), axis=-1)
        return self.reshape(self.dense(h))


def times(factor):
    def scaled(x):
        return factor * x

    return scaled


def generator_of(*layers):
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(9),
            *layers,
            keras.layers.Reshape(SHAPE),
        ]
    )


def built_painter(*widths):
    generator = Painter()
    arrays = [np.zeros((1, width), "float32") for width in widths]
    generator(arrays if len(arrays) > 1 else arrays[0])
    return generator


def assert_average_follows(gan):
    old = gan.generator.get_weights()
    assert_close(gan.sampler.get_weights(), old)
    compiled(gan).train_on_batch(images())
    new = gan.generator.get_weights()
    assert any(np.any(a != b) for a, b in zip(old, new, strict=True))
    average = [0.9 * a + 0.1 * b for a, b in zip(old, new, strict=True)]
    assert_close(gan.sampler.get_weights(), average)
    # It computes what the generator does.
    gan.sampler.set_weights(new)
    z = tf.random.stateless_normal((4, 2), (5, 0))
    assert_close([gan.sampler(z)], [gan.generator(z)])
    assert gan.sample(2).shape == (2, *SHAPE)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [keras.layers.Lambda(lambda x: keras.ops.tanh(x))],
        lambda: [keras.layers.Dense(9, lambda x: keras.ops.tanh(x)), Shift()],
        # Two functions of one name.
        lambda: [
            keras.layers.Lambda(times(0.1)),
            keras.layers.Activation(times(3.0)),
        ],
        lambda: [keras.Sequential([Shift(), keras.layers.Lambda(times(0.1))])],
    ],
    ids=["lambda", "custom layer", "closures", "nested"],
)
def test_the_average_of_a_generator_that_is_not_registered_follows(layers):
    layers = layers()
    names = [getattr(layer, "function", times).__name__ for layer in layers]
    gan = small_gan(generator=generator_of(*layers))
    assert names == [
        getattr(layer, "function", times).__name__ for layer in layers
    ]
    assert_average_follows(gan)


def test_a_file_with_a_lambda_is_refused_in_safe_mode(tmp_path):
    path = tmp_path / "gan.keras"
    layer = keras.layers.Lambda(lambda x: 2 * x)
    gan = small_gan(generator=generator_of(layer))
    gan.save(path)
    with pytest.raises(ValueError, match="deserialization of a `Lambda`"):
        keras.models.load_model(path)
    with pytest.raises(ValueError, match="deserialization of a `Lambda`"):
        GAN.from_config(gan.get_config())
    again = keras.models.load_model(path, safe_mode=False)
    assert_close([again.sample(2, seed=0)], [gan.sample(2, seed=0)])


def test_the_average_of_a_subclassed_generator_follows():
    assert_average_follows(small_gan(generator=built_painter(2)))


def test_a_subclassed_generator_with_classes_is_saved(tmp_path):
    gan = small_gan(
        generator=built_painter(2, 3), discriminator=None, num_classes=3
    )
    gan.save(tmp_path / "gan.keras")
    again = keras.models.load_model(
        tmp_path / "gan.keras", custom_objects={"Painter": Painter}
    )
    assert_close([again.sample(3, seed=0)], [gan.sample(3, seed=0)])


# `evaluate`


def test_evaluate_takes_its_arguments_in_the_order_of_keras(capsys):
    gan = compiled(small_gan(), run_eagerly=True)
    calls = []
    watch = keras.callbacks.LambdaCallback(
        on_test_batch_end=lambda batch, logs: calls.append(batch)
    )
    logs = gan.evaluate(images(), None, 4, 0, None, 1, [watch], True)
    assert set(logs) == set(gan.logged) and calls == [0]
    assert isinstance(gan.evaluate(images(), None, BATCH, 0), list)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="`sample_weight` is not used"):
        gan.evaluate(images(), sample_weight=np.ones(BATCH))


@pytest.mark.parametrize(
    "loss, num_passes", [("non_saturating", 3), ("relativistic", 4)]
)
def test_the_discriminator_judges_no_more_than_the_losses_see(loss, num_passes):
    class Counting(keras.layers.Layer):
        calls = 0

        def call(self, x):
            Counting.calls += 1
            return x

    critic = keras.Sequential(
        [keras.Input((2, 2, 1)), Counting(), keras.layers.Flatten()]
    )
    critic.add(keras.layers.Dense(1))
    generator = networks.mlp_generator(2, (2, 2, 1), (3,))
    model = GAN((2, 2, 1), 2, generator=generator, discriminator=critic)
    model.compile(loss=loss, run_eagerly=True)
    x = np.random.default_rng(0).random((4, 2, 2, 1), "float32")
    model.fit(x, verbose=0)
    before, Counting.calls = Counting.calls, 0
    model.fit(x, verbose=0)
    assert before and Counting.calls == num_passes
