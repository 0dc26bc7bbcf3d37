import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import losses, optimization, unrolling

schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, 0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.1, beta_1=0.5),
    "amsgrad": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, 0.1, global_clipnorm=0.3),
    "RMSprop": lambda: keras.optimizers.RMSprop(schedule, momentum=0.5),
}
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


class Problem:
    """A small network with batch statistics, one step into its training."""

    def __init__(self, make_optimizer, half=False):
        keras.utils.set_random_seed(1)
        self.network = keras.Sequential(
            [
                keras.Input((3,)),
                # A bias would be normalized away.
                keras.layers.Dense(4, use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.LeakyReLU(),
                keras.layers.Dense(1, dtype="float32"),
            ]
        )
        weights = self.network.trainable_weights
        self.optimizer = optimization.prepare(make_optimizer(), weights, half)
        self.x = tf.constant(X)
        self.step()

    def loss(self):
        y = self.network(self.x, training=True)
        return tf.reduce_mean(tf.square(y - 1))

    def step(self):
        weights = self.network.trainable_weights
        with tf.GradientTape() as tape:
            loss = self.optimizer.scale_loss(self.loss())
        self.optimizer.apply(tape.gradient(loss, weights), weights)

    def unrolled(self, num_steps=3):
        return unrolling.unroll(
            self.loss, self.network, self.optimizer, num_steps
        )

    def state(self):
        variables = self.network.variables + self.optimizer.variables
        return [np.array(variable) for variable in variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_unrolling_foresees_the_optimizers_own_steps(name):
    problem = Problem(OPTIMIZERS[name])
    before = problem.state()
    foreseen = problem.unrolled()
    for old, new in zip(before, problem.state(), strict=True):
        np.testing.assert_array_equal(old, new)
    for _ in range(3):
        problem.step()
    assert len(foreseen) == len(problem.network.variables)
    for variable, value in foreseen:
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)


def test_unrolling_foresees_steps_with_a_loss_scale():
    keras.config.set_dtype_policy("mixed_float16")
    problem = Problem(OPTIMIZERS["Adam"], half=True)
    foreseen = problem.unrolled(2)
    for _ in range(2):
        problem.step()
    for variable, value in foreseen:
        np.testing.assert_allclose(variable, value, rtol=1e-2, atol=1e-3)


def test_gradient_goes_through_all_steps():
    problem = Problem(OPTIMIZERS["Adam"])

    def later_loss(change):
        problem.x = X * (1 + change)
        with keras.StatelessScope(problem.unrolled()):
            return problem.loss()

    change = tf.constant([[0.1, 0.0, -0.2]])
    with tf.GradientTape() as tape:
        tape.watch(change)
        value = later_loss(change)
    slope = np.array(tape.gradient(value, change))[0]
    for i in range(3):
        step = 5e-3 * tf.one_hot([i], 3)
        rise = later_loss(change + step) - later_loss(change - step)
        assert float(rise) / 1e-2 == pytest.approx(slope[i], rel=0.1)


def test_weights_that_never_had_a_gradient_give_no_nan():
    problem = Problem(OPTIMIZERS["Adam"])
    problem.x = tf.constant(X * [1, 0, 1])  # nothing of the second input
    problem.optimizer = keras.optimizers.Adam(0.1)
    problem.optimizer.build(problem.network.trainable_weights)
    with tf.GradientTape() as tape:
        tape.watch(problem.x)
        with keras.StatelessScope(problem.unrolled()):
            value = problem.loss()
    assert np.all(np.isfinite(tape.gradient(value, problem.x)))


def test_unrolling_works_compiled():
    problem = Problem(OPTIMIZERS["Adam"])
    foreseen = [value for _, value in problem.unrolled(2)]

    @tf.function(jit_compile=True, autograph=False)
    def compiled():
        return [value for _, value in problem.unrolled(2)]

    for one, other in zip(compiled(), foreseen, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Nadam(0.1),
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    ],
    ids=["Nadam", "accumulation"],
)
def test_optimizers_that_cannot_be_unrolled_are_refused(optimizer):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"`unrolled_steps`.*Use `SGD`"):
        unrolling.check(optimizer, network)


def test_weights_that_are_changed_otherwise_are_refused():
    dense = keras.layers.Dense(1)
    plain = keras.Sequential([keras.Input((3,)), dense])
    normalized = keras.Sequential(
        [keras.Input((3,)), keras.layers.SpectralNormalization(dense)]
    )
    sgd, clipping = keras.optimizers.SGD(0.1), losses.WeightClipping()
    unrolling.check(sgd, plain, losses.R1())
    for network, penalty in ((normalized, None), (plain, clipping)):
        with pytest.raises(ValueError, match=r"`unrolled_steps`.*spectral"):
            unrolling.check(sgd, network, penalty)
