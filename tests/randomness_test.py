import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import GAN, VAE, networks, randomness

SHAPE = (2, 2, 1)
DRAWS = {
    "normal": tf.random.stateless_normal,
    "uniform": tf.random.stateless_uniform,
}


def on_both(strategy, function):
    """What a function without arguments gives on each of two replicas."""
    results = tf.function(lambda: strategy.run(function))()
    return [np.array(r) for r in strategy.experimental_local_results(results)]


def small_vae(rate=None):
    """A VAE, with dropout of stock Keras in its encoder if `rate` is given."""
    dropout = [] if rate is None else [keras.layers.Dropout(rate, seed=5)]
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            *dropout,
            keras.layers.Dense(4),
        ]
    )
    return VAE(
        SHAPE,
        2,
        encoder=encoder,
        decoder=networks.mlp_decoder(2, SHAPE, ()),
        seed=1,
    )


# One device


def test_seeds_count_up_from_the_seed():
    generator = randomness.ReplicaSeedGenerator(7)
    seeds = [generator.next(), generator.next_shared(), generator.next()]
    np.testing.assert_array_equal(seeds, [[7, 0], [7, 1], [7, 2]])
    assert all(seed.dtype == "int32" for seed in seeds)


def test_seeds_beyond_32_bits_stay_valid():
    generator = randomness.ReplicaSeedGenerator(2**40 + 12345)
    seed = generator.next()
    assert seed.dtype == "int32" and np.all(np.array(seed) >= 0)
    tf.random.stateless_normal((2,), seed)


def test_keras_takes_it_for_a_seed_generator():
    first, second = (randomness.ReplicaSeedGenerator(3) for _ in range(2))
    draw = keras.random.normal((4,), seed=first)
    np.testing.assert_array_equal(draw, keras.random.normal((4,), seed=second))
    assert np.all(draw != keras.random.normal((4,), seed=first))


@pytest.mark.parametrize("draw", DRAWS)
def test_a_draw_on_one_device_is_the_plain_stateless_one(draw):
    model = small_vae()
    rows = getattr(model, draw)((3, 5), training=True)
    np.testing.assert_array_equal(rows, DRAWS[draw]((3, 5), (1, 0)))
    assert randomness.replica_position() == (0, 1)


def test_training_and_evaluation_draw_from_two_streams():
    model = small_vae()
    training = [model.normal((4,), training=True) for _ in range(3)]
    again = small_vae()
    for draw in training:
        again.normal((4,))  # which must not move the other
        np.testing.assert_array_equal(draw, again.normal((4,), training=True))
    assert not np.any(np.isin(training[0], [again.normal((4,))]))


# Two replicas


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_of_replicas_are_the_rows_of_one_draw(draw, two_replicas):
    with two_replicas.scope():
        model = small_vae()
    parts = on_both(two_replicas, lambda: getattr(model, draw)((3, 5), True))
    np.testing.assert_array_equal(
        np.concatenate(parts), DRAWS[draw]((6, 5), (1, 0))
    )
    parts = on_both(two_replicas, lambda: getattr(model, draw)((2,), True))
    np.testing.assert_array_equal(
        np.concatenate(parts), DRAWS[draw]((4,), (1, 1))
    )


def test_next_differs_between_replicas_and_next_shared_does_not(two_replicas):
    with two_replicas.scope():
        generator = randomness.ReplicaSeedGenerator(7)
    one, other = on_both(two_replicas, generator.next)
    assert np.any(one != other)
    shared = on_both(two_replicas, generator.next_shared)
    np.testing.assert_array_equal(shared, [[7, 1], [7, 1]])


def test_replicas_know_their_positions(two_replicas):
    def position():
        return tf.stack(randomness.replica_position())

    np.testing.assert_array_equal(
        on_both(two_replicas, position), [[0, 2], [1, 2]]
    )


def test_stock_dropout_differs_between_replicas_once_compiled(two_replicas):
    x = tf.ones((4, *SHAPE))
    with two_replicas.scope():
        model = small_vae(rate=0.5)
        dropout = model.encoder.layers[1]
        before = on_both(two_replicas, lambda: dropout(x, training=True))
        model.compile(jit_compile=False)
        after = on_both(two_replicas, lambda: dropout(x, training=True))
    np.testing.assert_array_equal(*before)  # the fault that is mended
    assert np.any(after[0] != after[1])


def test_separation_changes_no_draw_on_one_device():
    x = np.ones((4, *SHAPE), "float32")
    plain, separated = small_vae(rate=0.5), small_vae(rate=0.5)
    randomness.separate_replicas(separated)
    for _ in range(3):
        np.testing.assert_array_equal(
            *(m.encoder(x, training=True) != 0 for m in (plain, separated))
        )
    dropout = separated.encoder.layers[1]
    assert type(dropout.seed_generator) is randomness.ReplicaSeedGenerator
    assert type(separated.train_seeds) is randomness.ReplicaSeedGenerator


# Seeds of verbs


def test_seed_pairs_are_distinct():
    edges = [0, 1, 2**16, 2**31, 2**32, 2**33, 3 * 2**31, 2**53, 2**62]
    seeds = sorted({s + d for s in edges for d in (-2, -1, 0, 1) if s + d >= 0})
    seeds.append(2**63 - 1)
    pairs = {tuple(np.array(randomness.seed_pair(seed))) for seed in seeds}
    assert len(pairs) == len(seeds)


def test_the_pair_of_a_small_seed_is_itself_and_zero():
    np.testing.assert_array_equal(randomness.seed_pair(42), [42, 0])


def test_a_seed_is_the_same_pair_in_python_and_in_a_graph():
    in_graph = tf.function(randomness.seed_pair)
    for seed in (0, 7, 2**31 - 1, 2**31, 2**40 + 3):
        pair = randomness.seed_pair(seed)
        assert pair.dtype == "int32"
        tensor = tf.constant(seed, "int64")
        np.testing.assert_array_equal(pair, in_graph(tensor))


# States


def test_generators_of_all_layers_are_found_in_a_fixed_order():
    model = small_vae(rate=0.5)
    found = randomness.seed_generators(model)
    dropout = model.encoder.layers[1].seed_generator
    assert {id(g) for g in found} == {
        id(g) for g in (model.train_seeds, model.eval_seeds, dropout)
    }
    assert found == randomness.seed_generators(model)


def test_states_are_saved_and_loaded(tmp_path):
    model = small_vae(rate=0.5)
    generators = randomness.seed_generators(model)
    for count, generator in enumerate(generators, start=1):
        for _ in range(count):
            generator.next()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for old, new in zip(
        generators, randomness.seed_generators(loaded), strict=True
    ):
        np.testing.assert_array_equal(old.state, new.state)
        np.testing.assert_array_equal(old.next(), new.next())


def test_states_are_in_weights_files_too(tmp_path):
    model = GAN(SHAPE, 2, seed=3)
    model.normal((1,), training=True)
    model.save_weights(tmp_path / "model.weights.h5")
    other = GAN(SHAPE, 2, seed=4)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.train_seeds.state, [3, 1])
    np.testing.assert_array_equal(other.eval_seeds.state, [4, 0])
