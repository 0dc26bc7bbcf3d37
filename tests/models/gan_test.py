"""The mathematics of the GAN; what every model must do is in contract_test."""

import json
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import GAN, losses, networks

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


def one_step(gan, x):
    """Logs of one step on the whole of `x`, in its order."""
    history = gan.fit(x, batch_size=len(x), shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


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


@pytest.mark.parametrize("d_steps", [1, 3])
def test_discriminator_is_updated_d_steps_times_a_step(d_steps):
    gan = compiled(small_gan(), d_steps=d_steps)
    gan.fit(images(4 * BATCH), batch_size=BATCH, verbose=0)
    assert int(gan.optimizer.iterations) == 4
    assert int(gan.d_optimizer.iterations) == 4 * d_steps


def test_weight_clipping_bounds_the_critic_and_nothing_else():
    gan = compiled(
        small_gan(),
        loss="wasserstein",
        gradient_penalty=losses.WeightClipping(0.02),
    )
    gan.fit(images(4 * BATCH), batch_size=BATCH, verbose=0)
    largest = [np.abs(w).max() for w in gan.discriminator.get_weights()]
    assert max(largest) == pytest.approx(0.02)
    assert max(np.abs(w).max() for w in gan.generator.get_weights()) > 0.1


# The moving average


def test_average_is_that_of_the_weights_and_statistics_after_each_step():
    gan = compiled(small_gan(ema=0.8))
    average = [w.astype("float64") for w in gan.generator.get_weights()]
    start = [w.copy() for w in average]

    class Average(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for old, new in zip(
                average, self.model.generator.get_weights(), strict=True
            ):
                old *= 0.8
                old += 0.2 * new

    gan.fit(
        images(5 * BATCH), batch_size=BATCH, verbose=0, callbacks=[Average()]
    )
    assert int(gan.optimizer.iterations) == 5
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


def test_one_name_for_both_optimizers_makes_two():
    gan = small_gan()
    gan.compile(d_optimizer="adam", g_optimizer="adam")
    assert gan.optimizer is not gan.d_optimizer
    assert len(gan.optimizer.variables) and len(gan.d_optimizer.variables)


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": "no_such_loss"},
        {"loss": "hinge", "label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"gradient_penalty": 0},
        {"gradient_penalty": "r1"},
        {"d_steps": 0},
        {"d_steps": 1.5},
    ],
    ids=str,
)
def test_arguments_of_compile_are_checked(arguments):
    name = list(arguments)[-1]
    name = "weight" if arguments == {"gradient_penalty": 0} else name
    with pytest.raises(ValueError, match=f"`{name}") as error:
        small_gan().compile(**arguments)
    assert len(str(error.value)) <= 600


def normalized_discriminator():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


@pytest.mark.parametrize("penalty", [10.0, losses.R1(1.0), losses.R2(1.0)])
def test_gradient_penalties_warn_of_batch_normalization(penalty):
    gan = small_gan(discriminator=normalized_discriminator())
    with pytest.warns(UserWarning, match="`discriminator` has batch norm"):
        gan.compile(gradient_penalty=penalty)


@pytest.mark.parametrize(
    "discriminator, penalty",
    [
        (normalized_discriminator, None),
        (normalized_discriminator, losses.WeightClipping(0.1)),
        (lambda: networks.mlp_discriminator(SHAPE, (6,)), 10.0),
    ],
)
def test_batch_normalization_is_fine_elsewhere(discriminator, penalty):
    gan = small_gan(discriminator=discriminator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gan.compile(gradient_penalty=penalty)


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
