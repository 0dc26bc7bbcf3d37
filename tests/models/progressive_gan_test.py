"""The progressive GAN grows in one `fit`; what else it must is in contract_test.

Most runs are eager: a graph for each phase would take longer than all steps.
"""

import gc
import os
import pathlib
import subprocess
import sys
import textwrap
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gen
from keras_gen import losses
from keras_gen.callbacks import Checkpoint
from keras_gen.growth import GrowthSchedule
from keras_gen.layers.fade_in import downscale, upscale
from keras_gen.models import growing, growth_plan
from keras_gen.models.progressive_gan import ProgressiveGAN
from keras_gen.networks.mlp import mlp_generator
from keras_gen.networks.progressive import progressive_discriminator

SHAPE = (8, 8, 1)
SMALL = {"fmap_base": 16, "fmap_max": 4}  # 4 maps at both resolutions
# Of steps of 8 images: one at 4 pixels, two in the fade to 8, then at rest.
SCHEDULE = GrowthSchedule(16, 8, batch_size=8)
TRACE = [(4, 1.0), (8, 0.0), (8, 0.5), (8, 1.0), (8, 1.0)]


def small_gan(shape=SHAPE, **arguments):
    keras.utils.set_random_seed(0)
    return ProgressiveGAN(
        shape, 3, **{**SMALL, "ema": 0.9, **arguments}, seed=1
    )


def compiled(gan=None, **arguments):
    gan = gan or small_gan()
    defaults = {"schedule": SCHEDULE, "run_eagerly": True}
    gan.compile(**{**defaults, **arguments})
    return gan


def sgd(rate=0.01):
    names = ("d_optimizer", "g_optimizer")
    return {name: keras.optimizers.SGD(rate) for name in names}


def at(gan, images_seen):
    """The model in the phase of so many images."""
    gan._images_seen.assign(images_seen)
    gan._follow_schedule()
    return gan


def images(num_images=8, shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.random((num_images, *shape)).astype("float32")


def batches(num_repeats=1, batch_size=8):
    """The same batch over and over."""
    data = tf.data.Dataset.from_tensor_slices(images(batch_size))
    return data.batch(batch_size, drop_remainder=True).repeat(num_repeats)


def stored(resolution, batch_size):
    """The same images as `batches` has, of any resolution."""
    small = downscale(tf.constant(images()), 8 // resolution)
    data = tf.data.Dataset.from_tensor_slices(small)
    return data.batch(batch_size, drop_remainder=True)


def one_step(gan, x, y=None):
    x = tf.constant(x)
    gan.reset_metrics()
    logs = gan.train_step(x if y is None else (x, tf.constant(y)))
    return {name: float(value) for name, value in logs.items()}


def state_of(gan):
    variables = [*gan.variables]
    for optimizer in gan.optimizers:
        variables += optimizer.variables
    return [np.array(variable) for variable in variables]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_close(first, second, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-5, **tolerance}
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


# One run through a whole schedule, whose every batch is watched


class Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.states, self.logs = [self.kernels()], []

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(self.kernels())
        iterations = [int(o.iterations) for o in self.model.optimizers]
        self.logs.append({**logs, "iterations": iterations})

    def kernels(self):
        return {
            name: {
                layer.name: np.array(layer.kernel)
                for layer in getattr(self.model, name).layers
                if hasattr(layer, "kernel")
            }
            for name in ("generator", "discriminator", "sampler")
        }


@pytest.fixture(scope="module")
def run():
    gan, watch = compiled(), Watch()
    history = gan.fit(batches(5), verbose=0, callbacks=[watch])
    return gan, watch, history.history


def test_one_fit_goes_through_the_whole_schedule(run):
    gan, watch, history = run
    assert [(log["resolution"], log["alpha"]) for log in watch.logs] == TRACE
    assert (history["resolution"], history["alpha"]) == ([8], [1.0])
    assert (gan.images_seen, gan.resolution, gan.alpha) == (40, 8, 1.0)
    for name in ("loss", "d_loss", "g_loss", "diversity"):
        assert np.all(np.isfinite(history[name]))


def test_the_bar_shows_speed_and_time_left_and_history_does_not(run):
    _, watch, history = run
    # The first batch of a phase is not timed.
    timed = ["images_per_second" in log for log in watch.logs]
    assert timed == [False, False, True, False, True]
    assert not {"images_per_second", "hours_left"} & set(history)
    log = watch.logs[2]  # when 24 of 32 images were seen
    hours = 8 / log["images_per_second"] / 3600
    assert log["hours_left"] == pytest.approx(hours)


def test_optimizers_start_afresh_when_a_fade_begins_and_ends(run):
    steps = [log["iterations"] for log in run[1].logs]
    assert steps == [[1, 1], [1, 1], [2, 2], [1, 1], [2, 2]]


def test_blocks_that_are_not_used_do_not_change(run):
    gan, watch, _ = run
    pairs = zip(watch.states, watch.states[1:], TRACE, strict=False)
    for before, after, (resolution, alpha) in pairs:
        for name in ("generator", "discriminator"):
            used = getattr(gan, name).layers_at(resolution, alpha < 1)
            used = {layer.name for layer in used}
            for layer, kernel in after[name].items():
                changed = np.any(kernel != before[name][layer])
                assert changed <= (layer in used)
                # While alpha is 0, what is new has no slope.
                assert changed or layer not in used or alpha == 0


def test_the_moving_average_is_the_one_worked_by_hand(run):
    gan, watch, _ = run
    average = dict(watch.states[0]["generator"])
    for state, (resolution, _) in zip(watch.states[1:], TRACE, strict=True):
        for layer in gan.generator.layers_up_to(resolution):
            new, old = state["generator"][layer.name], average[layer.name]
            average[layer.name] = 0.9 * old + 0.1 * new
        assert_close(
            average.values(), state["sampler"].values(), rtol=1e-5, atol=1e-6
        )


def test_a_resumed_run_ends_as_one_that_was_not_killed(run, tmp_path):
    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.images_seen == 16:  # in the middle of the fade
                raise Killed

    def train(*callbacks):
        gan = compiled()
        checkpoint = Checkpoint(tmp_path, save_freq=1)
        history = gan.fit(
            batches(5), verbose=0, callbacks=[checkpoint, *callbacks]
        )
        return gan, history.history

    with pytest.raises(Killed):
        train(Kill())
    gan, history = train()
    assert_same(state_of(gan), state_of(run[0]))
    assert history == run[2]


def test_any_split_and_stored_resolutions_give_the_same_result(run):
    asked = []

    def data(*where):
        asked.append(where)
        return stored(*where)

    gan = compiled()
    gan.fit(data, epochs=1, verbose=0)
    later = gan.fit(data, initial_epoch=1, epochs=5, verbose=0).history
    # Each `fit` looks at all of them first.
    assert asked == [(8, 8), (4, 8)] + [(8, 8), (4, 8), (8, 8)]
    assert later["alpha"] == [0.0, 0.5, 1.0, 1.0]
    assert_close(gan.get_weights(), run[0].get_weights())


# Graphs


def test_graphs_train_as_eager_steps_do_and_old_ones_are_freed():
    # The last batch has one image, which cannot be computed in two parts.
    data = tf.data.Dataset.from_tensor_slices(images(17)).batch(8)
    arguments = {"gradient_penalty": None, "max_batch_size": {4: 8, 8: 4}}
    eager = compiled(**arguments, **sgd())
    eager.fit(data, verbose=0)
    gan = compiled(
        **arguments, run_eagerly=False, steps_per_execution=2, **sgd()
    )
    graphs, step = [], gan.train_step

    def traced_step(data):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return step(data)

    gan.train_step = traced_step
    gan.fit(data, verbose=0)
    assert (gan.images_seen, gan.resolution, gan.alpha) == (17, 8, 0.5)
    gc.collect()
    # One for each phase and size.
    assert [graph() is None for graph in graphs] == [True, False, False]
    assert_close(gan.get_weights(), eager.get_weights())


def test_compiled_steps_cross_a_boundary_as_eager_ones_do():
    def noise(shape, training):  # XLA draws other numbers
        numbers = tf.range(tf.reduce_prod(shape))
        return tf.reshape(tf.cos(tf.cast(numbers, "float32")), shape)

    def trained(**arguments):
        gan = compiled(gradient_penalty=None, **arguments, **sgd())
        gan.normal = gan.uniform = noise
        gan.fit(batches(2), verbose=0)
        assert (gan.resolution, gan.alpha) == (8, 0.0)
        return gan.get_weights()

    compiled_steps = trained(run_eagerly=False, jit_compile=True)
    assert_close(compiled_steps, trained())


# A step


def plain_losses(gan, x, alpha, weights):
    """The losses of one step, written out once more; `weights` are D's."""
    real = alpha * x + (1 - alpha) * upscale(downscale(tf.constant(x)))
    real = 2 * real - 1
    where = {"resolution": 8, "alpha": alpha}
    noise = [tf.random.stateless_normal((8, 3), (1, i)) for i in (0, 2)]
    mix = tf.random.stateless_uniform((8, 1, 1, 1), (1, 1))
    fake = gan.generator(noise[0], **where)
    between = mix * fake + (1 - mix) * real
    with tf.GradientTape() as tape:
        logits = gan.discriminator(real, **where)
        d_loss = tf.reduce_mean(gan.discriminator(fake, **where) - logits)
        d_loss += 0.001 * tf.reduce_mean(logits**2)
        with tf.GradientTape() as inner:
            inner.watch(between)
            score = tf.reduce_sum(gan.discriminator(between, **where))
        slope = tf.reshape(inner.gradient(score, between), (8, -1))
        d_loss += 10 * tf.reduce_mean((tf.norm(slope, axis=1) - 1) ** 2)
    gradients = tape.gradient(d_loss, weights)
    updated = [
        np.array(weight) - 0.01 * gradient
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    return float(d_loss), updated, noise[1]


def test_a_step_in_a_fade_is_that_of_the_paper():
    gan = at(compiled(**sgd()), 12)
    assert gan.alpha == 0.25
    x = images()
    weights = [
        weight
        for layer in gan.discriminator.layers_at(8, True)
        for weight in layer.weights
    ]
    d_loss, updated, z = plain_losses(gan, x, 0.25, weights)
    generator = gan.generator.get_weights()
    logs = one_step(gan, x)
    assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    assert_close(weights, updated)
    assert gan.images_seen == 20
    # The generator meets the discriminator after its step.
    gan.generator.set_weights(generator)
    where = {"resolution": 8, "alpha": 0.25}
    g_loss = -tf.reduce_mean(
        gan.discriminator(gan.generator(z, **where), **where)
    )
    assert logs["g_loss"] == pytest.approx(float(g_loss), rel=1e-4)
    assert logs["loss"] == logs["g_loss"]


def test_real_images_fade_as_generated_ones_do():
    gan, x = small_gan((16, 16, 1)), images(2, (16, 16, 1))
    blocks = x.reshape(2, 8, 2, 8, 2, 1).mean((2, 4))
    np.testing.assert_allclose(
        gan._real_images(tf.constant(x), 8), 2 * blocks - 1, atol=1e-6
    )
    coarse = x.reshape(2, 4, 4, 4, 4, 1).mean((2, 4))
    old = coarse.repeat(2, 1).repeat(2, 2)
    faded = gan._real_images(tf.constant(x), 8, alpha=0.25)
    expected = 2 * (0.25 * blocks + 0.75 * old) - 1
    np.testing.assert_allclose(faded, expected, atol=1e-6)
    of_bytes = tf.constant(np.round(255 * x), "uint8")
    for resolution in (8, 16):
        real = gan._real_images(of_bytes, resolution)
        exact = gan._real_images(tf.constant(x), resolution)
        assert np.max(np.abs(real - exact)) < 0.01
    np.testing.assert_allclose(  # stored in this size
        gan._real_images(tf.constant(blocks), 8), 2 * blocks - 1, atol=1e-6
    )


def test_a_boundary_clears_moments_and_keeps_rates_and_samples():
    gan = compiled()
    for boundary in (8, 24):  # where the next image is the first of a phase
        one_step(gan, images())
        state = [
            v
            for o in gan.optimizers
            for v in o.variables
            if np.any(np.array(v))
        ]
        assert len(state) > 10
        gan._images_seen.assign(boundary)
        gan._alpha.assign(1.0)
        before = gan.sample(3, seed=0)
        gan._follow_schedule()
        np.testing.assert_allclose(before, gan.sample(3, seed=0), atol=1e-5)
        left = [v for v in state if np.any(np.array(v))]
        assert [v.name for v in left] == ["learning_rate"] * 2
        assert [float(v) for v in left] == pytest.approx([1e-3] * 2)
    assert (gan.resolution, gan.alpha) == (8, 1.0)


def test_the_schedule_sets_both_learning_rates():
    schedule = GrowthSchedule(
        16, 8, batch_size=8, learning_rate={4: 2e-3, 8: 5e-4}
    )
    gan = compiled(schedule=schedule)
    for images_seen, rate in ((0, 2e-3), (8, 5e-4), (24, 5e-4)):
        at(gan, images_seen)
        rates = [float(o.learning_rate) for o in gan.optimizers]
        assert rates == pytest.approx([rate, rate])


def test_the_paper_s_optimizers_are_the_default():
    for optimizer in compiled().optimizers:
        config = optimizer.get_config()
        assert type(optimizer) is keras.optimizers.Adam
        assert config["epsilon"] == 1e-8
        assert (config["beta_1"], config["beta_2"]) == (0.0, 0.99)
        assert config["learning_rate"] == pytest.approx(1e-3)


def test_a_batch_of_data_makes_steps_of_the_schedule_s_size():
    schedule = GrowthSchedule(32, 16, batch_size={4: 16, 8: 6})
    gan, seen = compiled(schedule=schedule), []

    def step(data):
        seen.append(np.array(data))
        gan._images_seen.assign(gan._images_seen + len(data))
        return {}

    gan.train_step = step
    x = images(16)
    data = tf.data.Dataset.from_tensors(x).repeat(2)
    gan.fit(data, verbose=0)
    # Every third row, as long as there are any.
    assert_same(seen, [x, x[::3], x[1::3], x[2::3]])


def watched(schedule, **arguments):
    """A model whose steps only note what they are given, and the notes."""
    gan, seen = compiled(schedule=schedule, **arguments), []

    def step(data):
        seen.append((*gan.phase[:2], np.array(data)))
        gan._images_seen.assign(gan._images_seen + len(data))
        gan._batches_here.assign(gan._batches_here + 1)
        return {}

    gan.train_step = step
    return gan, seen


def test_a_phase_may_begin_within_a_batch_of_data():
    schedule = GrowthSchedule(16, 16, batch_size={4: 4, 8: 8})
    gan, seen = watched(schedule)
    x = np.arange(64 * 64).reshape(64, *SHAPE) / 4096
    gan.fit(x, batch_size=64, shuffle=False, verbose=0)
    phases = [(4, False, 4)] * 4 + [(8, True, 8)] * 2 + [(8, False, 8)] * 4
    assert [(*phase, len(rows)) for *phase, rows in seen] == phases
    rows = np.concatenate([rows for *_, rows in seen])
    assert_same(np.sort(rows, axis=0), x.astype("float32"))  # each once
    # A batch of 8 is as many images as two of 4.
    gan, seen = watched(GrowthSchedule(8, 4, batch_size={4: 4, 8: 8}))
    gan.fit(stored, verbose=0)
    assert [rows.shape[:2] for *_, rows in seen] == [(4, 4), (8, 8)]

    def large(resolution, batch_size):
        return tf.data.Dataset.from_tensors(
            images(16, (resolution,) * 2 + (1,))
        )

    assert_refused(gan.fit, r"x\(8, 8\).*got 16", large)


@pytest.mark.parametrize("arguments", [{}, {"steps_per_epoch": 2}])
def test_arrays_come_in_the_same_order_however_fit_is_split(arguments):
    x, arguments = images(24), {"verbose": 0, "batch_size": 8, **arguments}
    whole, split = compiled(), compiled()
    whole.fit(x, epochs=2, **arguments)
    for _ in range(2):
        split.fit(x, epochs=1, **arguments)
    assert whole.images_seen == split.images_seen
    for one, other in zip(whole.weights, split.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stored_images_come_one_after_another_however_fit_is_split():
    def data(resolution, batch_size):
        x = np.arange(20) * np.ones((resolution, resolution, 1, 1)) / 20
        x = tf.data.Dataset.from_tensor_slices(x.transpose(3, 0, 1, 2))
        return x.shuffle(20, seed=1).batch(batch_size, resolution == 4)

    def numbers(seen):
        rows = [rows[:, 0, 0, 0] for *_, rows in seen]
        return [np.round(20 * row).astype(int).tolist() for row in rows]

    # Epochs of two batches of 8; at 8 pixels the third batch of three has 4.
    schedule = GrowthSchedule(0, 16, batch_size=8)
    whole, seen = watched(schedule)
    whole.fit(data, epochs=4, verbose=0)
    seen = numbers(seen)
    assert [len(batch) for batch in seen] == [8, 8, 8, 8, 4, 8, 8, 4]
    assert len({*seen[0], *seen[1]}) == 16
    for i in (2, 5):
        assert len({*seen[i], *seen[i + 1], *seen[i + 2]}) == 20
    split, again = watched(schedule)
    for epoch in (1, 2, 4):
        split.fit(data, initial_epoch=split.epoch, epochs=epoch, verbose=0)
        split.epoch = epoch
    assert numbers(again) == seen


def test_a_schedule_may_begin_above_4_pixels():
    schedule = GrowthSchedule(16, 8, batch_size=8, start_resolution=8)
    gan = compiled(schedule=schedule)
    assert (gan.resolution, gan.alpha) == (8, 1.0)
    assert gan.sample(1, resolution=8).shape == (1, *SHAPE)
    assert_refused(gan.sample, r"`resolution`.*\[8\], got 4", 1, resolution=4)


def test_parts_are_of_whole_groups_unless_these_are_too_many():
    # 4 groups of 4; 7 of 2; 13 of 1, which would be 13 parts; one of 6.
    cases = {(16, 6): 4, (16, 16): 1, (14, 3): 7, (13, 6): 3, (6, 4): 2}
    assert {case: growing.num_parts(*case, 4) for case in cases} == cases


def test_parts_of_a_batch_have_its_gradient():
    def gan(**arguments):
        judge = progressive_discriminator(SHAPE, group_size=2, **SMALL)
        return compiled(small_gan(discriminator=judge), **arguments, **sgd())

    # As many parts as there are groups of two images: three would mix them.
    whole, parted = gan(), gan(max_batch_size={4: 8, 8: 3})
    parted.set_weights(whole.get_weights())
    assert [parted.num_parts(r) for r in (4, 8)] == [1, 4]
    logs = [one_step(at(model, 12), images()) for model in (whole, parted)]
    assert_close(whole.get_weights(), parted.get_weights())
    for name in ("d_loss", "g_loss"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-4)


def test_two_replicas_train_on_the_parts_that_one_does(two_replicas):
    def gan():
        # Groups are of one replica's images: none here.
        judge = progressive_discriminator(SHAPE, group_size=1, **SMALL)
        gan = small_gan(discriminator=judge)
        return compiled(
            gan,
            schedule=GrowthSchedule(16, 24, batch_size={4: 8, 8: 1}),
            gradient_penalty=None,
            **sgd(),
        )

    one = gan()
    with two_replicas.scope():
        two = gan()
    two.set_weights(one.get_weights())
    for model in (one, two):  # in two steps of 8 images
        model.fit(batches(batch_size=16), verbose=0)
        assert (model.images_seen, model.resolution) == (16, 4)
    assert_close(one.get_weights(), two.get_weights())
    for model in (one, two):
        model.fit(stored, verbose=0)
        assert (model.images_seen, model.resolution) == (24, 4)
    assert_close(one.get_weights(), two.get_weights())
    assert [row["batch"] for row in one.plan()] == [8, 1]
    assert [row["batch"] for row in two.plan()] == [8, 2]  # one a replica
    assert_refused(
        two.fit,
        "drop_remainder",
        lambda *where: stored(*where).unbatch().batch(8),
    )


def test_other_losses_and_penalties_train_too():
    gan = compiled(
        loss="relativistic", gradient_penalty=losses.R1(1.0), d_steps=2
    )
    logs = one_step(gan, images())
    assert np.all(np.isfinite(list(logs.values())))
    assert [int(o.iterations) for o in gan.optimizers] == [1, 2]
    gan = compiled(gradient_penalty=losses.WeightClipping(0.01))
    one_step(gan, images())
    for layer in gan.discriminator.layers_at(4):
        assert np.max(np.abs(layer.kernel)) <= 0.01


# Precision


def test_the_penalty_s_slope_does_not_vanish_in_float16():
    shape, x = (64, 64, 3), images(4, (64, 64, 3))
    maps = {"fmap_base": 256, "fmap_max": 8}
    exact = progressive_discriminator(shape, **maps)
    keras.config.set_dtype_policy("mixed_float16")
    half = progressive_discriminator(shape, **maps)
    half.set_weights(exact.get_weights())
    x = tf.constant(2 * x - 1)

    def judge(network):  # as small a slope as that of much wider images
        return lambda x: network(x) / 8192

    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = judge(half)(x)
    assert np.mean(np.array(tape.gradient(logits, x)) == 0) > 0.5
    penalty = losses.R1(1e8)
    one, other = (float(penalty(judge(n), x)) for n in (exact, half))
    assert one == pytest.approx(other, rel=0.02)


def test_an_overflow_in_float16_skips_the_step_and_halves_the_scale():
    keras.config.set_dtype_policy("mixed_float16")
    gan = compiled()
    before = gan.discriminator.get_weights()
    scale = float(gan.d_optimizer.dynamic_scale)
    one_step(gan, np.full((8, *SHAPE), 1e6, "float32"))  # inf in float16
    assert_same(before, gan.discriminator.get_weights())
    assert float(gan.d_optimizer.dynamic_scale) == scale / 2
    assert float(gan.optimizer.dynamic_scale) == scale
    # Slopes of either network's loss that only float32 holds.
    kernel = gan.discriminator.logits.kernel
    kernel.assign(tf.fill(kernel.shape, 1e8))
    before = [n.get_weights() for n in (gan.generator, gan.discriminator)]
    one_step(gan, images())
    assert_same(before[0], gan.generator.get_weights())
    assert_same(before[1], gan.discriminator.get_weights())
    scales = [float(o.dynamic_scale) for o in gan.optimizers]
    assert scales == [scale / 2, scale / 4]
    assert all(np.all(np.isfinite(w)) for w in gan.get_weights())


@pytest.mark.slow
def test_bfloat16_stays_close_to_float32():
    def trained(policy):
        keras.config.set_dtype_policy(policy)
        gan = at(compiled(schedule=GrowthSchedule(640, 8, batch_size=8)), 100)
        start = gan.discriminator.get_weights()
        for _ in range(20):
            logs = one_step(gan, images())
        moved = [
            np.ravel(new - old)
            for new, old in zip(
                gan.discriminator.get_weights(), start, strict=True
            )
        ]
        return logs, np.concatenate(moved)

    exact, half = trained("float32"), trained("mixed_bfloat16")
    assert half[0]["d_loss"] == pytest.approx(exact[0]["d_loss"], rel=0.1)
    cosine = np.sum(exact[1] * half[1]) / np.prod(
        [np.linalg.norm(moved) for moved in (exact[1], half[1])]
    )
    assert cosine > 0.9


# Classes


@pytest.mark.parametrize("conditioning", ["auxiliary", "projection"])
def test_classes_reach_both_networks(conditioning):
    gan = compiled(small_gan(num_classes=3, conditioning=conditioning))
    y = np.arange(6) % 3
    gan.fit(images(6), y, verbose=0)
    before = gan.discriminator.get_weights()
    one_step(at(gan, 12), images(6), y)
    assert any(
        np.any(new != old)
        for new, old in zip(
            gan.discriminator.get_weights(), before, strict=True
        )
    )
    samples = gan.sample(6, condition=y, seed=0)
    assert samples.shape == (6, *SHAPE)
    others = gan.sample(6, condition=(y + 1) % 3, seed=0)
    assert np.any(samples != others)
    assert gan.sample(4, seed=0).shape == (4, *SHAPE)  # of random classes
    logits = 4 if conditioning == "auxiliary" else 1
    assert gan.discriminator.output_shape == (None, logits)
    again = ProgressiveGAN.from_config(gan.get_config())
    assert again.discriminator.get_config() == gan.discriminator.get_config()


def test_an_auxiliary_classifier_is_trained_by_its_cross_entropy():
    gan = compiled(small_gan(num_classes=3), gradient_penalty=None, drift=0.0)
    for layer in (gan.discriminator.dense, gan.discriminator.logits):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    # All classes are as likely, on real and on generated images.
    logs = one_step(gan, images(6), np.arange(6) % 3)
    assert logs["d_loss"] == pytest.approx(2 * np.log(3), rel=1e-4)


# Verbs


def test_samples_of_a_resolution_are_those_of_its_own_block(run):
    gan = run[0]
    for resolution in (4, 8):
        small = gan.sample(2, seed=0, resolution=resolution)
        assert small.shape == (2, resolution, resolution, 1)
        z = tf.random.stateless_normal((2, 3), (0, 0))
        direct = gan.sampler(z, resolution=resolution) / 2 + 0.5
        np.testing.assert_allclose(
            small, np.clip(direct, 0, 1), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(gan.sample(2, seed=0), small)
    np.testing.assert_allclose(gan(z), small, atol=1e-6)


def test_a_sample_of_now_is_faded_and_enlarged():
    gan = at(compiled(small_gan((16, 16, 1))), 12)
    z = tf.random.stateless_normal((2, 3), (0, 0))
    faded = gan.sampler(z, resolution=8, alpha=0.25) / 2 + 0.5
    np.testing.assert_allclose(
        gan.sample(2, seed=0), upscale(np.clip(faded, 0, 1)), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"`resolution`.*\[4, 8\], got 16"):
        gan.sample(1, resolution=16)


def test_truncated_latents_give_less_diverse_images(run):
    gan = run[0]
    plain, cut = (gan.sample(64, seed=0, truncation=t) for t in (None, 1e-3))
    # All z are close to the cut cube, which the generator scales to a sphere.
    assert cut.shape == plain.shape
    assert np.any(plain != cut)
    with pytest.raises(ValueError, match="`truncation`"):
        gan.sample(1, truncation=0.0)


def test_interpolation_begins_and_ends_at_the_images_of_both(run):
    gan = run[0]
    a, b = np.eye(3, dtype="float32")[:2], -np.ones((2, 3), "float32")
    frames = gan.interpolate(a, b, 5)
    assert frames.shape == (5, 2, *SHAPE)
    np.testing.assert_allclose(frames[0], gan(a), atol=1e-4)
    np.testing.assert_allclose(frames[-1], gan(b), atol=1e-4)
    with pytest.raises(ValueError, match="`a` and `b`"):
        gan.interpolate(np.ones(3), np.zeros(3))


def test_projection_finds_latents_that_reproduce_an_image(run):
    gan = run[0]
    x = gan.sample(2, seed=3)
    z = gan.project(x, num_steps=30, num_starts=8, seed=0)
    assert z.shape == (2, 3)
    error = np.mean((gan(z) - x) ** 2)
    assert error < 0.3 * np.mean((gan.sample(2, seed=9) - x) ** 2)


def test_missing_pixels_come_from_latents_of_the_observed_ones(run):
    gan = run[0]
    x = np.array(gan.sample(2, seed=3))
    mask = np.zeros_like(x, "bool")
    mask[:, :, :5] = True
    filled = gan.impute(x, mask, num_samples=3, num_steps=30, seed=0)
    assert filled.shape == (3, 2, *SHAPE)
    for images_ in np.array(filled):
        np.testing.assert_array_equal(images_[mask], x[mask])
        assert images_.min() >= 0 and images_.max() <= 1
    best = np.min(
        np.mean((filled - x)[..., 5:, :] ** 2, axis=(2, 3, 4)), axis=0
    )
    others = np.array(gan.sample(2, seed=9))
    assert np.mean(best) < np.mean((others - x)[:, :, 5:] ** 2)


@pytest.mark.parametrize("data", [np.zeros((8, 4, 4, 1), "float32"), None])
def test_a_function_of_what_is_no_dataset_is_refused(data):
    with pytest.raises(ValueError, match=r"`x\(.*tf.data.Dataset.*got a"):
        compiled().fit(lambda resolution, batch_size: data)


def test_batches_after_a_function_of_data_are_those_given():
    gan = compiled()
    gan.fit(stored, epochs=1, verbose=0)
    seen = gan.images_seen
    gan.train_on_batch(images(4))
    assert gan.images_seen == seen + 4


def test_evaluation_and_prediction_follow_the_resolution():
    shape = (8, 10, 1)  # from 4x5 pixels, which 2 does not divide
    gan = compiled(small_gan(shape), run_eagerly=False)
    z = np.eye(3, dtype="float32")
    for images_seen in (0, 12):
        at(gan, images_seen)
        logs = gan.evaluate(images(8, shape), verbose=0, return_dict=True)
        assert next(iter(logs)) == "loss" and np.isfinite(logs["d_loss"])
        assert gan._tested_resolution == gan.resolution
        np.testing.assert_allclose(
            gan.predict(z, verbose=0), gan(z), rtol=1e-5, atol=1e-6
        )
    assert_refused(gan, r"`z`.*3\), got shape \(2, 5\)", np.zeros((2, 5)))


def test_a_model_saved_in_a_fade_goes_on_there(tmp_path):
    gan = at(compiled(max_batch_size={8: 4}), 8)
    one_step(gan, images())
    gan.save(tmp_path / "gan.keras")
    again = keras.saving.load_model(tmp_path / "gan.keras")
    assert (again.images_seen, again.resolution, again.alpha) == (16, 8, 0.0)
    assert again.max_batch_size == {8: 4}
    assert vars(again.schedule) == vars(gan.schedule)
    assert_same(again.sample(2, seed=0), gan.sample(2, seed=0))
    for model in (gan, again):
        model.fit(batches(), verbose=0)
        assert model.alpha == 0.5
    assert_same(state_of(gan), state_of(again))


# The plan


def test_the_plan_counts_parameters_and_operations(capsys):
    gan = compiled(max_batch_size={8: 4})
    rows = gan.plan()
    assert [row["size"] for row in rows] == ["4x4", "8x8"]
    assert [row["parts"] for row in rows] == [1, 2]
    assert [row["images"] for row in rows] == [8, 24]
    # 4 maps: 3 * 64 + 4, 3x3 convolution, 1x1 to one channel.
    assert rows[0]["generator"] == 3 * 64 + 4 + 9 * 16 + 4 + 4 + 1
    passed = 3 * 64 + 16 * 9 * 16 + 16 * 4
    assert growth_plan.multiply_adds(gan.generator, 4) == passed
    # The first convolution at 8 has 4x4 kernels at 4x4 places.
    passed += 16 * 16 * 16 + 64 * 9 * 16 + 64 * 4 - 16 * 4
    assert growth_plan.multiply_adds(gan.generator, 8) == passed
    assert [row["GB"] for row in rows] == sorted(row["GB"] for row in rows)
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and "GFLOP/image" in table[0]
    assert len({len(line) for line in table}) == 1


def test_a_measured_plan_puts_everything_back():
    gan = compiled(schedule=SCHEDULE.ending_at(4))
    before = state_of(gan)
    (row,) = gan.plan(measured_steps=1)
    assert row["s/step"] > 0
    assert row["hours"] == pytest.approx(row["s/step"] / 3600)
    assert_same(before, state_of(gan))

    def failing_step(data):
        gan.generator.dense.bias.assign_add([1.0] * 4)
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    gan.train_step, phase = failing_step, gan.phase
    with pytest.raises(tf.errors.ResourceExhaustedError):
        gan.plan(measured_steps=1)
    assert gan.phase == phase
    assert_same(before, state_of(gan))


# Errors


def assert_refused(function, word, *args, **kwargs):
    with pytest.raises(ValueError, match=word) as error:
        function(*args, **kwargs)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"image_shape": (28, 28, 1)}, "16 and 32"),
        ({"latent_dim": 0}, "`latent_dim`"),
        ({"conditioning": "concat"}, "`conditioning`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"ema": 1.0}, "`ema`"),
    ],
)
def test_bad_arguments_of_the_model_are_refused(arguments, word):
    defaults = {"image_shape": (4, 4, 1), "latent_dim": 3, **SMALL}
    assert_refused(ProgressiveGAN, word, **{**defaults, **arguments})


def test_networks_that_do_not_grow_are_refused():
    fixed = mlp_generator(3, (4, 4, 1), (2,))
    word = "`generator`.*progressive_generator"
    assert_refused(small_gan, word, (4, 4, 1), generator=fixed)
    other = progressive_discriminator((4, 4, 3), **SMALL)
    assert_refused(small_gan, "`discriminator`", (4, 4, 1), discriminator=other)


@pytest.fixture(scope="module")
def tiny():
    return small_gan((4, 4, 1))


def decaying():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    return keras.optimizers.SGD(decay)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"loss": "feature_matching"}, "feature_matching"),
        ({"drift": -1.0}, "`drift`"),
        ({"d_steps": 0}, "`d_steps`"),
        ({"schedule": 5}, "`schedule`"),
        ({"schedule": {}}, "`schedule`"),
        ({"schedule": GrowthSchedule(end_resolution=8)}, "end_resolution=8"),
        ({"max_batch_size": {4: 0}}, "`max_batch_size"),
        ({"g_optimizer": "adagrad"}, "Adagrad"),
    ],
)
def test_bad_arguments_of_compile_are_refused(tiny, arguments, word):
    assert_refused(tiny.compile, word, **arguments)


def test_two_schedules_or_one_optimizer_for_both_are_refused(tiny):
    schedule = GrowthSchedule(learning_rate=1e-3)
    assert_refused(
        tiny.compile,
        "`learning_rate`",
        schedule=schedule,
        d_optimizer=decaying(),
    )
    same = keras.optimizers.Adam()
    assert_refused(
        tiny.compile, "two optimizers", d_optimizer=same, g_optimizer=same
    )


def test_bad_plans_and_data_are_refused():
    tiny = small_gan((4, 4, 1))
    assert_refused(tiny.plan, "compile")
    compiled(tiny)
    assert_refused(tiny.plan, "`measured_steps`", -1)
    x = images(8, (4, 4, 1))

    def endless(resolution, batch_size):
        data = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
        return data.repeat()

    assert_refused(tiny.fit, "know their length", endless)
    assert_refused(tiny.fit, "`y` must be `None`", endless, x)
    assert_refused(tiny.fit, "resolution, batch_size", lambda size: endless)
    assert_refused(tiny.fit, "`batch_size`", x, batch_size=0)
    assert_refused(tiny.fit, "`initial_epoch`", x, initial_epoch=-1)
    word = r"x\(4, batch_size\)"
    assert_refused(tiny.fit, word, lambda size, count: batches())
    history = tiny.fit(endless, steps_per_epoch=2, epochs=2, verbose=0)
    assert len(history.epoch) == 2 and tiny.images_seen == 32


def test_data_of_a_later_resolution_are_refused_before_the_first_step():
    gan = compiled()
    word = r"x\(8, batch_size\)"
    assert_refused(gan.fit, word, lambda size, count: stored(4, count))
    assert gan.images_seen == 0


# Real processes, killed


TRAINER = """
    import os, signal, sys

    import keras
    import numpy as np
    import tensorflow as tf

    from keras_gen.callbacks import Checkpoint
    from keras_gen.growth import GrowthSchedule
    from keras_gen.models.progressive_gan import ProgressiveGAN

    folder, kill_at = sys.argv[1], int(sys.argv[2])
    keras.utils.set_random_seed(0)
    gan = ProgressiveGAN((16, 16, 1), 3, fmap_base=32, fmap_max=4, seed=1)
    gan.compile(
        schedule=GrowthSchedule(24, 16, batch_size=8), steps_per_execution=1
    )

    class Trace(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.resuming:
                return
            with open(folder + "/trace.txt", "a") as file:
                print(gan.images_seen, gan.resolution, gan.alpha, file=file)
            if gan.images_seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    x = np.random.default_rng(0).random((24, 16, 16, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices(x)
    data = data.shuffle(24, seed=3, reshuffle_each_iteration=True).batch(8)
    checkpoint = Checkpoint(folder + "/checkpoints", save_freq=1)
    gan.fit(data, epochs=5, verbose=0, callbacks=[checkpoint, Trace()])
    state = [*gan.variables]
    for optimizer in gan.optimizers:
        state += optimizer.variables
    np.savez(folder + "/final.npz", *map(np.asarray, state))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_killed_at_any_step_end_bit_for_bit_as_one_left_alone(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(TRAINER))
    root = str(pathlib.Path(keras_gen.__file__).parents[1])

    def train(folder, kill_at=0):
        done = subprocess.run(
            [sys.executable, str(script), str(folder), str(kill_at)],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == (-9 if kill_at else 0), done.stderr[-2000:]

    def outcome(folder):
        lines = (folder / "trace.txt").read_text().splitlines()
        with np.load(folder / "final.npz") as file:
            return sorted(set(lines)), [file[name] for name in file.files]

    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    train(alone)
    rng = np.random.default_rng(0)
    for step in sorted(rng.choice(np.arange(1, 14), 10, replace=False)):
        train(killed, kill_at=8 * int(step))
    train(killed)
    trace, state = outcome(alone)
    assert outcome(killed)[0] == trace and len(trace) == 15
    assert_same(outcome(killed)[1], state)


def test_train_on_batch_splits_a_batch_larger_than_the_schedule_s():
    gan = compiled()
    assert gan.schedule.batch_size_at(4) == 8
    logs = gan.train_on_batch(images(20), return_dict=True)
    assert gan.images_seen == 20
    assert np.isfinite(logs["loss"])


def test_the_average_of_a_growing_generator_is_a_copy():
    gan = small_gan()
    assert type(gan.sampler) is type(gan.generator)
    assert gan.sampler is not gan.generator
    assert_same(gan.sampler.get_weights(), gan.generator.get_weights())
