"""When XLA compiles training, and that steps in one program are the steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import GAN, VAE, networks, optimization

SHAPE = (4, 4, 1)


def vae(optimizer=None, **arguments):
    model = VAE(
        SHAPE,
        2,
        encoder=networks.mlp_encoder(SHAPE, 4, (8,)),
        decoder=networks.mlp_decoder(2, SHAPE, (8,)),
        seed=1,
    )
    optimizer = optimizer or keras.optimizers.Adam(1e-2)
    model.compile(optimizer, jit_compile=True, **arguments)
    return model


def gan(**arguments):
    model = GAN(
        SHAPE,
        2,
        generator=networks.mlp_generator(2, SHAPE, (8,)),
        discriminator=networks.mlp_discriminator(SHAPE, (8,)),
        seed=1,
    )
    optimizers = [keras.optimizers.Adam(1e-2) for _ in range(2)]
    model.compile(*optimizers, d_steps=2, jit_compile=True, **arguments)
    return model


def pair(make, **arguments):
    """The same model twice: four steps a program, and one."""
    models = []
    for steps in (4, 1):
        keras.utils.set_random_seed(0)
        models.append(make(steps_per_execution=steps, **arguments))
    return models


@pytest.fixture(scope="module")
def two_vaes():
    """To compile their programs takes longer than what is asked of them."""
    models = pair(vae)
    return models, [[np.array(v) for v in variables(m)] for m in models]


@pytest.fixture
def vaes(two_vaes):
    """`pair(vae)`, as if made anew."""
    for model, values in zip(*two_vaes, strict=True):
        for variable, value in zip(variables(model), values, strict=True):
            variable.assign(value)
        model.epoch = 0
    return two_vaes[0]


def variables(model):
    return [
        *model.variables,
        *model.optimizer.variables,
        model.train_seeds.state,
        model.eval_seeds.state,
    ]


def images(num_images):
    return np.random.default_rng(0).random((num_images, *SHAPE), "float32")


def assert_same_course(fused, single, data):
    histories = [
        model.fit(data, epochs=2, verbose=0).history
        for model in (fused, single)
    ]
    for name, values in histories[1].items():
        np.testing.assert_allclose(histories[0][name], values, rtol=1e-5)
    for one, other in zip(fused.weights, single.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(fused.optimizers, single.optimizers, strict=True):
        assert int(one.iterations) == int(other.iterations)


def test_many_steps_in_one_program_are_those_steps(vaes):
    # 4 + 2 batches of 8, and one of 6 images; labels travel with them.
    data = (images(54), np.arange(54))
    data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    assert_same_course(*vaes, data)


@pytest.mark.slow
def test_steps_of_two_networks_in_one_program_are_those_steps():
    data = (images(38), np.arange(38))
    data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    assert_same_course(*pair(gan), data)


def test_short_batches_within_an_epoch_are_trained_on_as_they_come(vaes):
    # Programs of 8, 8, 4, 8 images, of 8, 4, 8, 8 and of 4.
    data = tf.data.Dataset.from_tensor_slices(images(20)).batch(8).repeat(3)
    fused, single = vaes
    assert_same_course(fused, single, data)
    assert int(fused.optimizer.iterations) == 18


def test_steps_per_epoch_may_pass_over_the_end_of_the_data(vaes):
    fused, single = vaes
    for model in (fused, single):
        model.fit(images(20), batch_size=8, steps_per_epoch=4, verbose=0)
        assert int(model.optimizer.iterations) == 4
    for one, other in zip(fused.weights, single.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_batches_may_have_shapes_that_are_known_only_as_they_come():
    data = tf.data.Dataset.from_tensor_slices(images(12))
    unknown = data.map(
        lambda x: tf.numpy_function(lambda x: x, [x], "float32")
    ).batch(4)
    assert unknown.element_spec.shape.rank is None
    model = vae(steps_per_execution=4)
    model.fit(unknown, verbose=0)
    assert int(model.optimizer.iterations) == 3


def test_a_step_that_fails_is_undone_and_those_around_it_are_not(vaes):
    x = images(64)
    bad = tf.data.Dataset.from_tensor_slices(x).batch(8).enumerate()
    bad = bad.map(lambda i, x: tf.where(i == 2, np.nan, x))
    fused, single = vaes
    for model in (fused, single):
        # Moments that are not zero, by the program that is to come.
        model.fit(images(32), batch_size=8, epochs=1, verbose=0)
        history = model.fit(bad, epochs=1, verbose=0).history
        assert history["skipped_updates"] == [1.0]
        assert int(model.optimizer.iterations) == 4 + 8 - 1
    for one, other in zip(fused.weights, single.weights, strict=True):
        assert np.all(np.isfinite(one))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1),
        keras.optimizers.Adam(),
        keras.optimizers.Lion(),
        keras.optimizers.RMSprop(),
        keras.optimizers.Adam(clipnorm=1.0),
        keras.optimizers.Adam(clipvalue=1.0),
    ],
    ids=["sgd", "adam", "lion", "rmsprop", "clipnorm", "clipvalue"],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows_afterwards(optimizer, bad):
    optimizer = optimizer.from_config(optimizer.get_config())
    weight = keras.Variable(np.ones(3, "float32"))
    optimizer.build([weight])
    good, worse = tf.constant([1.0, 2.0, 3.0]), tf.constant([1.0, bad, 3.0])
    optimization.apply_at_once(optimizer, [good], [weight])
    optimization.apply_at_once(optimizer, [worse], [weight])
    for _ in range(5):
        optimization.apply_at_once(optimizer, [good], [weight])
    values = [weight.value, *(v.value for v in optimizer.variables)]
    floats = [tf.cast(v, "float32") for v in values if v.dtype.is_floating]
    shows = not optimization.all_finite(floats)
    assert shows or not optimization.keeps_failures(optimizer)


def test_only_plain_optimizers_with_slots_keep_failures():
    weight = keras.Variable(np.ones(3, "float32"))
    optimizers = [
        keras.optimizers.Adam(),
        keras.optimizers.SGD(),
        keras.optimizers.Adam(clipvalue=1.0),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ]
    for optimizer in optimizers:
        optimizer.build([weight])
    kept = [optimization.keeps_failures(o) for o in optimizers]
    assert kept == [True, False, False, False]


def test_an_optimizer_that_clips_by_value_skips_what_is_not_finite():
    x = images(64)
    bad = tf.data.Dataset.from_tensor_slices(x).batch(8).enumerate()
    bad = bad.map(lambda i, x: tf.where(i == 2, np.inf, x))
    fused = vae(keras.optimizers.Adam(clipvalue=1.0), steps_per_execution=4)
    history = fused.fit(bad, epochs=1, verbose=0).history
    assert history["skipped_updates"] == [1.0]
    assert all(np.all(np.isfinite(weight)) for weight in fused.weights)


def test_float16_scales_and_skips_as_step_by_step():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        fused, single = pair(vae)
        for model in (fused, single):
            model.fit(images(64), batch_size=8, epochs=1, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert float(fused.optimizer.dynamic_scale) == float(
        single.optimizer.dynamic_scale
    )
    for one, other in zip(fused.weights, single.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)


def test_an_error_of_the_data_is_not_taken_for_its_end(vaes):
    def broken():
        yield images(8)
        raise RuntimeError("disk on fire")

    spec = tf.TensorSpec((8, *SHAPE), "float32")
    data = tf.data.Dataset.from_generator(broken, output_signature=spec)
    fused, _ = vaes
    with pytest.raises(Exception, match="disk on fire"):
        fused.fit(data, verbose=0)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="On a CPU."
)
@pytest.mark.parametrize(
    "make_layers, compiled",
    [
        (lambda: [keras.layers.Dense(3, "relu")], True),
        (lambda: [keras.layers.Dense(3), keras.layers.Dropout(0.1)], False),
        (lambda: [keras.layers.GaussianNoise(0.1)], False),
        (lambda: [keras.layers.Conv2D(2, 1)], False),
    ],
)
def test_xla_compiles_what_it_makes_faster(make_layers, compiled):
    ends = keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(1)
    critic = keras.Sequential([ends[0], *make_layers(), *ends[1:]])
    model = GAN(
        (2, 2, 1),
        2,
        generator=networks.mlp_generator(2, (2, 2, 1), (3,)),
        discriminator=critic,
    )
    model.compile()
    assert model.jit_compile is compiled
    model.compile(jit_compile=True)
    assert model.jit_compile is True
