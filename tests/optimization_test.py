import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import optimization

BAD = [np.nan, np.inf, -np.inf]


def variables():
    return [keras.Variable([1.0, 2.0]), keras.Variable([[3.0], [4.0]])]


def gradients(bad=None, position=(0, 0)):
    """Gradients of the two variables, `bad` at one place."""
    arrays = [np.array([0.5, -1.0], "float32"), np.ones((2, 1), "float32")]
    if bad is not None:
        arrays[position[0]].flat[position[1]] = bad
    return [tf.constant(array) for array in arrays]


def state_of(optimizer, weights):
    return [np.array(v) for v in [*weights, *optimizer.variables]]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


# Whether gradients are finite


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("position", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_one_bad_number_anywhere_is_seen(bad, position):
    assert optimization.all_finite(gradients())
    assert not optimization.all_finite(gradients(bad, position))


def test_infinities_of_both_signs_do_not_cancel():
    assert not optimization.all_finite([tf.constant([np.inf, -np.inf])])
    opposite = [tf.constant([np.inf]), tf.constant([-np.inf])]
    assert not optimization.all_finite(opposite)


def test_half_precision_gradients_do_not_overflow_in_their_sum():
    largest = tf.fill((100,), tf.float16.max)
    assert optimization.all_finite([largest])
    assert not optimization.all_finite([2 * largest])


def test_sparse_and_missing_gradients_are_taken():
    for last, finite in ((2.0, True), (np.nan, False)):
        rows = tf.IndexedSlices(
            tf.constant([[1.0], [last]]),
            tf.constant([0, 3]),
            dense_shape=(4, 1),
        )
        assert bool(optimization.all_finite([None, rows])) == finite


# Applying them


def test_finite_gradients_are_applied_as_the_optimizer_does():
    weights, expected = variables(), variables()
    optimizer, plain = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1)
    optimizer.build(weights)
    for _ in range(3):
        assert optimization.apply_if_finite(optimizer, gradients(), weights)
        plain.apply(gradients(), expected)
    assert_same(state_of(optimizer, weights), state_of(plain, expected))


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("bad", BAD)
def test_others_leave_weights_slots_and_iterations(bad, in_graph):
    weights, optimizer = variables(), keras.optimizers.Adam(0.1)
    optimizer.build(weights)

    def apply(*gradients):
        return optimization.apply_if_finite(optimizer, gradients, weights)

    apply = tf.function(apply) if in_graph else apply
    assert apply(*gradients())
    before = state_of(optimizer, weights)
    assert not apply(*gradients(bad, (1, 1)))
    assert_same(before, state_of(optimizer, weights))
    assert int(optimizer.iterations) == 1
    assert apply(*gradients())
    assert int(optimizer.iterations) == 2


def test_loss_scale_halves_and_nothing_else_changes():
    weights = variables()
    optimizer = optimization.SyncedLossScaleOptimizer(
        keras.optimizers.Adam(0.1), initial_scale=64.0
    )
    optimizer.build(weights)
    inner = optimizer.inner_optimizer
    before = state_of(inner, weights)
    assert not optimization.apply_if_finite(
        optimizer, gradients(np.inf), weights
    )
    assert_same(before, state_of(inner, weights))
    assert float(optimizer.dynamic_scale) == 32
    assert float(optimizer.scale_loss(1.0)) == 32


def test_scaled_gradients_are_applied_unscaled():
    weights, expected = variables(), variables()
    optimizer = optimization.SyncedLossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=64.0
    )
    optimizer.build(weights)
    scaled = [64 * gradient for gradient in gradients()]
    assert optimization.apply_if_finite(optimizer, scaled, weights)
    keras.optimizers.SGD(0.1).apply(gradients(), expected)
    assert_same(map(np.array, weights), map(np.array, expected))


# Replicas

OPTIMIZERS = {
    "plain": lambda: keras.optimizers.Adam(0.1),
    "synced": lambda: optimization.SyncedLossScaleOptimizer(
        keras.optimizers.Adam(0.1), initial_scale=64.0
    ),
    # What users may bring: Keras's own asks the first replica alone.
    "keras": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.1), initial_scale=64.0
    ),
}


class Replicas:
    """Two replicas with an optimizer, each with its own gradients."""

    def __init__(self, strategy, optimizer):
        self.strategy = strategy
        with strategy.scope():
            self.weights = variables()
            self.optimizer = optimization.prepare(
                OPTIMIZERS[optimizer](), self.weights, half=False
            )

        @tf.function
        def apply(gradients):
            return strategy.run(
                lambda *own: optimization.apply_if_finite(
                    self.optimizer, own, self.weights
                ),
                gradients,
            )

        self._apply = apply

    def apply(self, *each):
        """Applies a list of gradients on each; what each replica answers."""
        values = [
            self.strategy.experimental_distribute_values_from_function(
                lambda c, pair=pair: pair[c.replica_id_in_sync_group]
            )
            for pair in zip(*each, strict=True)
        ]
        return [bool(a) for a in self.copies(self._apply(values))]

    def copies(self, value):
        return [
            np.array(copy)
            for copy in self.strategy.experimental_local_results(value)
        ]

    def state(self):
        """All copies of all weights and slots."""
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        variables = [*self.weights, *inner.variables]
        return [copy for v in variables for copy in self.copies(v.value)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("replica", [0, 1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_number_on_one_replica_skips_on_both(
    optimizer, replica, bad, two_replicas
):
    replicas = Replicas(two_replicas, optimizer)
    assert replicas.apply(gradients(), gradients()) == [True, True]
    before = replicas.state()
    each = [gradients(), gradients()]
    each[replica] = gradients(bad, (1, 0))
    assert replicas.apply(*each) == [False, False]
    assert_same(before, replicas.state())
    if optimizer != "plain":
        scales = replicas.copies(replicas.optimizer.dynamic_scale.value)
        np.testing.assert_array_equal(scales, np.full(len(scales), 32))
    assert replicas.apply(gradients(), gradients()) == [True, True]
    iterations = replicas.copies(replicas.optimizer.iterations.value)
    np.testing.assert_array_equal(iterations, [2, 2])


@pytest.mark.parametrize("scale", [None, 64.0])
def test_gradients_are_summed_over_replicas(scale, two_replicas):
    with two_replicas.scope():
        replicas = Replicas(two_replicas, "plain")
        replicas.optimizer = keras.optimizers.SGD(1.0)
        if scale:
            replicas.optimizer = optimization.SyncedLossScaleOptimizer(
                replicas.optimizer, initial_scale=scale
            )
        replicas.optimizer.build(replicas.weights)
    one, other = gradients(), [3 * gradient for gradient in gradients()]
    start = [np.array(weight) for weight in variables()]
    replicas.apply(
        *([(scale or 1) * gradient for gradient in g] for g in (one, other))
    )
    for weight, old, gradient in zip(replicas.weights, start, one, strict=True):
        for copy in replicas.copies(weight.value):
            np.testing.assert_allclose(copy, old - 4 * gradient)


# Preparing an optimizer


def test_prepare_builds_and_scales_where_float16_needs_it():
    weights = variables()
    plain = optimization.prepare("sgd", weights, half=False)
    assert type(plain) is keras.optimizers.SGD and plain.built
    scaled = optimization.prepare("sgd", weights, half=True)
    assert type(scaled) is optimization.SyncedLossScaleOptimizer
    assert type(scaled.inner_optimizer) is keras.optimizers.SGD
    assert scaled.built and scaled.inner_optimizer.built
    assert optimization.prepare(scaled, weights, half=True) is scaled


def test_a_network_that_does_not_train_is_refused():
    with pytest.raises(ValueError, match="`d_optimizer` has nothing to"):
        optimization.prepare("sgd", [], False, "d_optimizer")


def test_prepare_keeps_the_state_of_a_loss_scale_optimizer():
    weights = variables()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.1), initial_scale=64.0
    )
    optimizer.apply(gradients(np.inf), weights)
    prepared = optimization.prepare(optimizer, weights, half=True)
    assert isinstance(prepared, optimization.SyncedLossScaleOptimizer)
    assert prepared is optimizer and float(prepared.dynamic_scale) == 32


def test_a_synced_optimizer_survives_its_config():
    optimizer = optimization.SyncedLossScaleOptimizer(
        keras.optimizers.Adam(0.25), initial_scale=64.0, dynamic_growth_steps=5
    )
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is optimization.SyncedLossScaleOptimizer
    assert copy.get_config() == optimizer.get_config()


def test_moving_averages_of_an_optimizer_are_refused():
    optimizer = keras.optimizers.Adam(use_ema=True)
    with pytest.raises(ValueError, match=r"`optimizer`.*use_ema"):
        optimization.prepare(optimizer, variables(), half=False)
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match=r"`optimizer`.*use_ema"):
        optimization.prepare(scaled, variables(), half=True)


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_is_refused_on_several_replicas_only(clip, two_replicas):
    optimizer = keras.optimizers.SGD(**{clip: 1.0})
    optimization.prepare(optimizer, variables(), half=False)
    with two_replicas.scope():
        optimizer = keras.optimizers.SGD(**{clip: 1.0})
        with pytest.raises(ValueError, match=r"`optimizer`.*clip"):
            optimization.prepare(optimizer, variables(), half=False)


def test_an_optimizer_from_outside_the_scope_is_refused(two_replicas):
    optimizer = keras.optimizers.SGD()
    with two_replicas.scope():
        with pytest.raises(ValueError, match=r"`strategy.scope\(\)`"):
            optimization.prepare(optimizer, variables(), half=False)
