"""The mathematics of a DBM; see also rbm_test and contract_test."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.likelihood import normalized_log_prob, sigmoid_schedule
from keras_gen.models.dbm import DBM

special = pytest.importorskip("scipy.special")
stats = pytest.importorskip("scipy.stats")

SHAPE = (2, 2, 1)
DIMS = (3, 4, 2)


def dbm(hidden_dims=DIMS, shape=SHAPE, scale=0.8, **arguments):
    """A machine whose weights are not small."""
    model = DBM(shape, hidden_dims, seed=1, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return model


def states(num_units):
    return np.array(list(itertools.product((0, 1), repeat=num_units)), float)


def parameters(model):
    kernels = [np.array(w, "float64") for w in model.kernels]
    biases = [model.units.bias, *model.hidden_biases]
    return kernels, [np.array(b, "float64") for b in biases]


def joint(model):
    """The layers of all states of all units, and their log-probabilities."""
    kernels, biases = parameters(model)
    everything = states(sum(len(b) for b in biases))
    layers = np.split(
        everything, np.cumsum([len(b) for b in biases])[:-1], axis=1
    )
    log_p = sum(h @ b for h, b in zip(layers, biases, strict=True))
    for below, above, w in zip(layers, layers[1:], kernels, strict=False):
        log_p += np.einsum("ni,ij,nj->n", below, w, above)
    return layers, log_p - special.logsumexp(log_p), special.logsumexp(log_p)


def images(v):
    return v.reshape(-1, *SHAPE).astype("float32")


def exact_log_prob(model):
    """log p(v) of all v."""
    _, log_p, _ = joint(model)
    return special.logsumexp(log_p.reshape(16, -1), axis=1)


@pytest.mark.parametrize("hidden_dims", [(3, 4), DIMS])
def test_a_state_sums_all_other_units_out(hidden_dims):
    model = dbm(hidden_dims)
    layers, log_p, log_z = joint(model)
    odd = np.concatenate(layers[1::2], axis=1)
    for state in states(model.state_dim)[::5]:
        same = np.all(odd == state, axis=1)
        found = model._log_sum(tf.constant(state[None], "float32"))[0]
        expected = special.logsumexp(log_p[same]) + log_z
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_sweep_leaves_the_distribution_as_it_is():
    model, count = dbm((3, 3)), 20_000
    layers, log_p, _ = joint(model)
    rows = np.random.default_rng(0).choice(len(log_p), count, p=np.exp(log_p))
    v, h = model._sweep(tf.constant(layers[1][rows], "float32"), (0, 1))
    which = np.concatenate([v, h], axis=1).astype(int) @ 2 ** np.arange(7)[::-1]
    p = np.exp(log_p).reshape(16, 8, 8).sum(axis=2).ravel()
    often = p * count >= 5
    found, expected = (
        np.append(n[often], n[~often].sum())
        for n in (np.bincount(which, minlength=128), p * count)
    )
    assert stats.chisquare(found, expected).pvalue > 1e-3


def test_annealing_is_within_a_twentieth_of_a_nat_of_enumeration():
    model = dbm(scale=1.0)
    log_z = model.log_partition(betas=sigmoid_schedule(600))
    exact = joint(model)[2]
    assert log_z.value == pytest.approx(exact, abs=0.05)
    low, high = log_z.interval()
    assert low <= exact <= high


def test_mean_field_never_lowers_the_bound_nor_passes_log_prob():
    bounds = []
    for num_rounds in (1, 2, 4, 30):
        model = dbm(mean_field_steps=num_rounds)
        bounds.append(model.log_unnormalized(images(states(4))))
    assert np.all(np.diff(bounds, axis=0) > -1e-5)
    exact = exact_log_prob(model) + joint(model)[2]
    assert np.all(bounds[-1] < exact)
    assert np.mean(exact - bounds[-1]) < 0.5
    # At its end the means are fixed points, with closed-form entropy.
    kernels, biases = parameters(model)
    means = np.split(np.array(model.encode(images(states(4)))), [3, 7], axis=1)
    r = means[0] @ kernels[1] + means[2] @ kernels[2].T + biases[2]
    np.testing.assert_allclose(means[1], special.expit(r), atol=1e-4)


def test_the_bound_is_exact_without_weights_between_hidden_layers():
    model = dbm()
    for kernel in model.kernels[1:]:
        kernel.assign(0 * kernel)
    log_z = joint(model)[2]
    np.testing.assert_allclose(
        model.log_unnormalized(images(states(4))) - log_z,
        exact_log_prob(model),
        rtol=1e-4,
    )


def test_elbo_is_the_bound_within_the_error_of_annealing(monkeypatch):
    betas = sigmoid_schedule(600)
    monkeypatch.setattr(
        "keras_gen.models.boltzmann_machine.piecewise_schedule", lambda: betas
    )
    model, x = dbm(), images(states(4))
    elbo = model.elbo(x, seed=2)
    log_z = model.log_partition(betas=betas, seed=2)
    estimate = normalized_log_prob(model.log_unnormalized(x), log_z)
    np.testing.assert_allclose(elbo, estimate.value, rtol=1e-5)
    np.testing.assert_allclose(
        elbo, model.log_unnormalized(x) - joint(model)[2], atol=0.05
    )
    np.testing.assert_array_equal(model.log_prob(x, seed=2), elbo)


def test_images_are_decoded_by_the_lowest_layer():
    model = dbm((3, 3))
    layers, log_p, _ = joint(model)
    z = np.concatenate(layers[1:], axis=1).reshape(16, 64, 6)[0]
    p = special.softmax(log_p.reshape(16, 64), axis=0)
    decoded = model.decode(z)
    np.testing.assert_allclose(decoded, images(p.T @ states(4)), rtol=1e-4)
    assert model.encode(images(states(4))).shape == (16, 6)


def test_the_joint_step_is_the_gradient_of_the_bound():
    """With chains that hold many exact samples, moved by one sweep."""
    count = 20_000
    model = dbm((3, 3), num_chains=count, gibbs_steps=1, centered=False)
    layers, log_p, _ = joint(model)
    rows = np.random.default_rng(0).choice(len(log_p), count, p=np.exp(log_p))
    model.chains.assign(layers[1][rows])
    model.started.assign(1)
    model.compile(
        keras.optimizers.SGD(1.0), jit_compile=False, run_eagerly=True
    )
    x = images(states(4))[[1, 7, 12]]
    before = [np.array(weight) for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        means = [
            tf.stop_gradient(m) for m in model._mean_field(model._values(x))
        ]
        bound = model._bound(model._values(x), means)
        log_z = tf.reduce_logsumexp(
            model._log_sum(tf.constant(states(3), "float32"))
        )
        loss = log_z - tf.reduce_mean(bound)
    gradients = tape.gradient(loss, model.trainable_weights)
    model.train_step(tf.constant(x))
    for weight, old, gradient in zip(
        model.trainable_weights, before, gradients, strict=True
    ):
        np.testing.assert_allclose(old - np.array(weight), gradient, atol=0.03)


def test_the_centred_step_is_that_of_units_counted_from_their_means():
    model = dbm((3, 3), num_chains=8, gibbs_steps=1)
    model.started.assign(1)
    model.compile(
        keras.optimizers.SGD(1.0), jit_compile=False, run_eagerly=True
    )
    v = states(4)[[1, 7, 12]]
    data = [
        v,
        *(m.numpy() for m in model._mean_field(tf.constant(v, "float32"))),
    ]
    kernels, biases = parameters(model)
    model.train_step(tf.constant(images(v)))
    middle = np.array(model.chains, "float64")  # as they are after the sweep
    of_model = [
        special.expit(middle @ kernels[0].T + biases[0]),
        middle,
        special.expit(middle @ kernels[1] + biases[2]),
    ]
    centers = [layer.mean(axis=0) for layer in data]

    def moments(layers):
        units = [x - m for x, m in zip(layers, centers, strict=True)]
        return [
            below.T @ above / len(below)
            for below, above in itertools.pairwise(units)
        ]

    steps = [
        of_data - of_chains
        for of_data, of_chains in zip(
            moments(data), moments(of_model), strict=True
        )
    ]
    bias_steps = [
        x.mean(axis=0) - y.mean(axis=0)
        for x, y in zip(data, of_model, strict=True)
    ]
    bias_steps[0] -= steps[0] @ centers[1]
    bias_steps[1] -= centers[0] @ steps[0] + steps[1] @ centers[2]
    bias_steps[2] -= centers[1] @ steps[1]
    for old, new, step in zip(
        [*kernels, *biases],
        itertools.chain(*parameters(model)),
        [*steps, *bias_steps],
        strict=True,
    ):
        np.testing.assert_allclose(new - old, step, atol=1e-5)


def test_pretraining_takes_one_layer_after_the_other():
    x = np.random.default_rng(0).integers(0, 2, (32, *SHAPE)).astype("float32")
    model = DBM(
        SHAPE,
        DIMS,
        num_chains=4,
        gibbs_steps=1,
        mean_field_steps=2,
        pretrain_steps=4,
        seed=1,
    )
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    changed = []
    for _ in range(4):  # epochs of four steps
        before = [np.array(kernel) for kernel in model.kernels]
        model.fit(x, batch_size=8, verbose=0)
        changed.append(
            [
                bool(np.any(old != np.array(new)))
                for old, new in zip(before, model.kernels, strict=True)
            ]
        )
    assert changed == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, True, True],
    ]


def test_pretraining_goes_on_after_a_file_and_another_compile(tmp_path):
    x, model = images(states(4)), DBM(SHAPE, DIMS, pretrain_steps=2, seed=1)
    for trained in range(2):
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        before = [np.array(kernel) for kernel in model.kernels]
        model.fit(x, batch_size=8, verbose=0)
        changed = [
            bool(np.any(old != np.array(new)))
            for old, new in zip(before, model.kernels, strict=True)
        ]
        assert changed == [i == trained for i in range(3)]
        model.save(tmp_path / "dbm.keras")
        model = keras.saving.load_model(tmp_path / "dbm.keras")
    assert int(model.steps_seen) == 4


def test_while_it_pretrains_middle_layers_count_double():
    model = dbm(gibbs_steps=1, pretrain_steps=10)
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    v = states(4)
    # The middle layer is certain: units 0 and 2 are white. From above, the
    # lowest layer is white if what they say counts double, else black.
    certain = np.array([1.0, 0.0, 1.0, 0.0])
    model.hidden_biases[1].assign(1000 * certain - 500)
    model.hidden_biases[0].assign([-150.0, -150.0, -150.0])
    model.kernels[1].assign(np.full((3, 4), 50.0))
    model.kernels[0].assign(np.eye(4)[:, :3] * 80)
    lowest = special.expit(160 * v[:, :3] - 150)
    _, found, _, *gradients = model._pretraining_gradients(
        tf.constant(v, "float32"), 2, (0, 1)
    )
    np.testing.assert_allclose(found, lowest, atol=1e-5)
    paths = [weight.path for weight in model.trainable_weights]
    gradient = gradients[paths.index(model.kernels[1].path)]
    expected = np.outer(1 - lowest.mean(axis=0), certain)
    np.testing.assert_allclose(gradient, expected, atol=1e-4)
    assert not np.any(gradients[paths.index(model.kernels[0].path)])


def bars(count=256, seed=0):
    """Binary images of 3 x 3 with one white row or column, all as likely."""
    which = np.random.default_rng(seed).integers(0, 6, count)
    rows = np.zeros((6, 3, 3, 1), "float32")
    for k in range(3):
        rows[k, k], rows[k + 3, :, k] = 1, 1
    return rows[which]


def test_training_raises_the_bound_and_samples_are_of_the_data():
    model = DBM(
        (3, 3, 1),
        (12, 6),
        num_chains=64,
        gibbs_steps=2,
        mean_field_steps=5,
        pretrain_steps=100,
        seed=1,
    )
    decay = keras.optimizers.schedules.PolynomialDecay(0.3, 800, 0.01)
    model.compile(
        keras.optimizers.SGD(decay), steps_per_execution=40, jit_compile=False
    )
    x = bars()

    def elbo():
        # log Z by enumeration of the lowest hidden layer.
        sums = model._log_sum(tf.constant(states(12), "float32"))
        log_z = float(tf.reduce_logsumexp(sums))
        return float(np.mean(model.log_unnormalized(x))) - log_z

    start = elbo()
    many = np.tile(x, (100, 1, 1, 1))
    history = model.fit(many, batch_size=64, epochs=2, verbose=0).history
    assert elbo() > -3.2 > start + 2  # of log(6) = 1.79, none is better
    assert np.all(np.isfinite(history["loss"]))
    white = np.round(model.sample(300, chain_length=50, seed=0))
    known = {v.tobytes() for v in np.unique(x, axis=0)}
    assert np.mean([v.tobytes() in known for v in white]) > 0.7
    mask = np.zeros((3, 3, 1), bool)
    mask[0] = mask[:, 0] = True
    filled = model.impute(x[:9], mask, num_samples=20, seed=0)
    np.testing.assert_array_equal(
        np.array(filled)[:, :, mask], np.tile(x[:9][:, mask], (20, 1, 1))
    )
    assert np.mean(np.abs(np.round(filled) - x[:9])) < 0.1


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"hidden_dims": 4}, "hidden_dims"),
        ({"hidden_dims": (4,)}, "hidden_dims"),
        ({"hidden_dims": (4, 0)}, "hidden_dims"),
        ({"hidden_dims": DIMS, "num_chains": 0}, "num_chains"),
        ({"hidden_dims": DIMS, "mean_field_steps": 0}, "mean_field_steps"),
        ({"hidden_dims": DIMS, "pretrain_steps": -1}, "pretrain_steps"),
        ({"hidden_dims": DIMS, "centered": "no"}, "centered"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        DBM(SHAPE, **arguments)


def test_log_prob_is_given_no_condition():
    with pytest.raises(ValueError, match="DBM is not conditional"):
        dbm().log_prob(images(states(4)), condition=[0] * 16)
