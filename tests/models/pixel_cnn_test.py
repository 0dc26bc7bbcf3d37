"""PixelCNN, and what it shares with PixelRNN."""

import itertools
import json
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_gen import layers
from keras_gen.models.pixel_cnn import PixelCNN
from keras_gen.networks.pixel_cnn import GatedPixelCNN, plain_pixel_cnn

SHAPE = (3, 4, 1)
IMAGES = np.array(list(itertools.product((0, 1), repeat=12)), "float32")
IMAGES = IMAGES.reshape(-1, *SHAPE)


def randomize(model, scale=0.5):
    """Weights that are not small."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return model


@pytest.fixture(scope="module")
def binary():
    return randomize(PixelCNN(SHAPE, 6, 3, likelihood="bernoulli", seed=1))


@pytest.fixture(scope="module")
def of_classes():
    model = PixelCNN((3, 3, 3), 4, 2, num_classes=3, seed=1)
    return randomize(model)


@pytest.fixture(scope="module")
def logistic():
    model = PixelCNN(
        *((3, 3, 3), 4, 2),
        likelihood="discretized_logistic",
        num_components=3,
        condition_dim=2,
        seed=1,
    )
    return randomize(model)


def probabilities(model):
    return np.exp(np.asarray(model.log_prob(IMAGES), "float64"))


def numbers(images):
    """The place of binary images in `IMAGES`."""
    flat = np.asarray(images).reshape(-1, 12).astype(int)
    return flat @ 2 ** np.arange(11, -1, -1)


def assert_drawn_from(probabilities, drawn, num_bins=32):
    """A chi-squared test of states, those of like probability together."""
    ranked = np.argsort(probabilities)
    bins = np.zeros(len(ranked), int)
    cumulative = np.cumsum(probabilities[ranked])
    bins[ranked] = np.minimum(num_bins * cumulative, num_bins - 1)
    expected = np.bincount(bins, probabilities, minlength=num_bins)
    found = np.bincount(bins[drawn], minlength=num_bins)
    assert not np.any(probabilities[drawn] == 0)
    used = expected > 0
    expected = expected[used] / expected.sum() * len(drawn)
    test = scipy.stats.chisquare(found[used], expected)
    assert test.pvalue > 1e-4


def levels(num_images, shape=(3, 3, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)) / np.float32(255)


# Probabilities


@pytest.mark.parametrize("network", ["gated", "plain"])
def test_probabilities_of_all_images_sum_to_one(binary, network):
    model = binary
    if network == "plain":
        network = plain_pixel_cnn(SHAPE, 1, 6, 3)
        model = PixelCNN(SHAPE, likelihood="bernoulli", network=network)
        randomize(model)
    assert probabilities(model).sum() == pytest.approx(1, abs=1e-5)


def test_a_pixel_sees_exactly_those_before_it(binary):
    x = np.random.default_rng(0).random((1, *SHAPE), "float32")
    x = tf.constant(np.tile(x, (12, 1, 1, 1)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = binary.conditionals(x).distribution.logits
        # Of image i only pixel i: its gradient is row i of the Jacobian.
        logits = tf.linalg.trace(tf.reshape(logits, (12, 12)))
    slopes = np.reshape(tape.gradient(logits, x), (12, 12))
    np.testing.assert_array_equal(slopes != 0, np.tri(12, k=-1, dtype=bool))


def test_the_mean_of_a_channel_is_that_of_its_levels(logistic, of_classes):
    """Of the last channel of all, whose levels have all else before them."""
    x, grid = np.tile(levels(1), (256, 1, 1, 1)), np.arange(256) / 255
    x[:, -1, -1, -1] = grid
    for model, condition in (
        (logistic, np.tile([[0.5, -1.0]], (256, 1))),
        (of_classes, np.ones(256, int)),
    ):
        log_prob = np.asarray(model.log_prob(x, condition=condition), "float64")
        of_levels = scipy.special.softmax(log_prob)
        mean = model(x[:1], condition=condition[:1])[0, -1, -1, -1]
        assert float(mean) == pytest.approx(of_levels @ grid, abs=1 / 400)


def test_log_prob_of_colours_is_the_product_over_channels_in_turn(of_classes):
    x, y = levels(4), np.array([0, 2, 1, 1])
    h = np.asarray(of_classes.network([x, np.eye(3, dtype="float32")[y]]))
    logits = h.reshape(4, 3, 3, 3, 256).astype("float64")
    log_p = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    of_levels = np.take_along_axis(
        log_p, np.rint(255 * x).astype(int)[..., np.newaxis], axis=-1
    )
    wanted = of_levels.sum(axis=(1, 2, 3, 4))
    log_prob = of_classes.log_prob(x, condition=y)
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-5)
    np.testing.assert_allclose(
        of_classes.conditionals(x, condition=y).log_prob(x), wanted, rtol=1e-5
    )
    of_bytes = np.rint(255 * x).astype("uint8")
    np.testing.assert_array_equal(
        of_classes.log_prob(of_bytes, condition=y), log_prob
    )
    between = x + 0.3 / 255 * np.where(x < 0.5, 1, -1)
    np.testing.assert_allclose(
        of_classes.log_prob(between, condition=y), log_prob, rtol=1e-5
    )


def test_classes_follow_bayes_rule(of_classes):
    x = levels(4)
    joint = np.stack(
        [of_classes.log_prob(x, condition=np.full(4, y)) for y in range(3)],
        axis=1,
    )
    np.testing.assert_allclose(
        of_classes.log_prob(x),
        scipy.special.logsumexp(joint, axis=1) - math.log(3),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        of_classes.classify(x), scipy.special.softmax(joint, axis=1), atol=1e-4
    )


def test_grey_values_count_as_probabilities_of_white(binary):
    x = np.random.default_rng(0).random((5, *SHAPE), "float32")
    white = np.asarray(binary(x), "float64")
    cross_entropy = x * np.log(white) + (1 - x) * np.log(1 - white)
    np.testing.assert_allclose(
        binary.log_prob(x), cross_entropy.sum(axis=(1, 2, 3)), rtol=1e-4
    )


# Samples


@pytest.fixture(scope="module")
def drawn(binary):
    """Images drawn from caches, in three parts that are not of equal size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 3)
        return binary.sample(4001, seed=0)


def test_samples_follow_the_probabilities(binary, drawn):
    p, drawn = probabilities(binary), numbers(drawn)
    assert_drawn_from(p, drawn)
    pairs = np.einsum("ni,nj->nij", *2 * [IMAGES.reshape(-1, 12)])
    exact = np.tensordot(p, pairs, axes=1)
    error = np.sqrt(exact * (1 - exact) / 4001)
    assert np.all(np.abs(pairs[drawn].mean(axis=0) - exact) < 4.5 * error)


def test_neither_the_cache_nor_threads_change_a_sample(binary, drawn):
    plain = binary.sample(4001, seed=0, cached=False)
    np.testing.assert_array_equal(drawn, plain)


def test_the_cache_changes_no_sample_of_colours(of_classes, logistic):
    condition = np.random.default_rng(0).normal(size=(21, 2))
    for model, options in (
        (of_classes, {}),
        (logistic, {"condition": condition}),
    ):
        images = model.sample(21, seed=5, **options)
        np.testing.assert_array_equal(
            images, model.sample(21, seed=5, cached=False, **options)
        )
        assert len(np.unique(images)) > 50
        assert images.shape == (21, *model.image_shape)


def test_the_cache_of_wide_kernels_and_of_maps_changes_no_sample():
    condition_network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Reshape((2, 2, 1))]
        + [keras.layers.UpSampling2D(2)]
    )
    network = GatedPixelCNN(
        *((4, 4, 1), 1, 4, 3),
        kernel_size=5,
        first_kernel_size=3,
        condition_dim=4,
        condition_network=condition_network,
    )
    model = PixelCNN(
        (4, 4, 1), likelihood="bernoulli", condition_dim=4, network=network
    )
    randomize(model)
    options = {"condition": np.random.default_rng(0).normal(size=(9, 4))}
    np.testing.assert_array_equal(
        model.sample(9, seed=5, **options),
        model.sample(9, seed=5, cached=False, **options),
    )


def test_a_pixel_sees_as_far_as_the_kernels_reach():
    options = {"likelihood": "bernoulli", "kernel_size": 3}
    model = PixelCNN((9, 9, 1), 2, 2, first_kernel_size=5, **options)
    randomize(model)
    x = tf.fill((1, 9, 9, 1), 0.5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        pixel = model.network(x)[0, 6, 4, 0]
    seen = tape.gradient(pixel, x).numpy()[0, ..., 0] != 0
    reach = 5 // 2 + 3 // 2
    expected = np.zeros((9, 9), bool)
    expected[6 - reach : 6, 4 - reach : 4 + reach + 1] = True
    expected[6, 4 - reach : 4] = True
    np.testing.assert_array_equal(seen, expected)
    copy = PixelCNN.from_config(model.get_config())
    assert copy.get_config()["first_kernel_size"] == 5
    assert copy.count_params() == model.count_params()


def test_missing_pixels_after_the_observed_follow_their_conditional(binary):
    x = IMAGES[1234][np.newaxis]
    mask = np.arange(12).reshape(SHAPE) < 6
    p = probabilities(binary)
    agrees = np.all((IMAGES == x) | ~mask, axis=(1, 2, 3))
    conditional = np.where(agrees, p, 0) / p[agrees].sum()
    draws = binary.impute(x, mask, num_samples=4001, seed=0)
    assert_drawn_from(conditional, numbers(draws), num_bins=12)


def test_observed_channels_come_back_bit_equal_and_the_others_do_not_count(
    of_classes,
):
    rng = np.random.default_rng(0)
    x = rng.random((3, 3, 3, 3), "float32")
    mask, options = rng.random(x.shape) < 0.5, {"condition": [2, 0, 1]}
    filled = np.asarray(
        of_classes.impute(x, mask, num_samples=7, seed=0, **options)
    )
    assert filled.shape == (7, *x.shape) and filled.dtype == "float32"
    for one in filled:
        np.testing.assert_array_equal(one[mask], x[mask])
    missing = 255 * filled[:, ~mask]
    np.testing.assert_allclose(missing, np.rint(missing), atol=1e-4)
    other = np.where(mask, x, 1 - x)
    np.testing.assert_array_equal(
        of_classes.impute(other, mask, num_samples=7, seed=0, **options), filled
    )
    assert np.any(filled[0] != filled[1])
    # Between levels, an observed channel counts as the nearest one.
    nearest = np.rint(255 * x) / np.float32(255)
    from_nearest = np.asarray(
        of_classes.impute(nearest, mask, num_samples=7, seed=0, **options)
    )
    np.testing.assert_array_equal(from_nearest[:, ~mask], filled[:, ~mask])


# Training


def test_evaluation_gives_nats_and_bits(binary):
    binary.compile(jit_compile=False)
    logs = binary.evaluate(IMAGES[:100], return_dict=True, verbose=0)
    exact = -np.mean(binary.log_prob(IMAGES[:100]))
    bits = exact / (12 * math.log(2))
    assert logs == {
        "loss": pytest.approx(exact, rel=1e-5),
        "bits_per_dim": pytest.approx(bits, rel=1e-5),
    }


def test_convolutions_stay_out_of_xla_loops(binary):
    binary.compile()
    if not tf.config.list_physical_devices("GPU"):
        assert not binary.jit_compile and binary.steps_per_execution == 10


def test_it_learns_the_channels_and_pixels_of_two_classes():
    """Class 1 is black; in class 0 green is red, and white pixels alternate."""
    x = np.zeros((8, 2, 2, 2), "float32")
    x[:2, 0] = x[:2, 1, ::-1] = [[0, 0], [1, 1]]
    x[2:4] = 1 - x[:2]
    x, y = np.tile(x, (4, 1, 1, 1)), np.tile(np.arange(8) // 4, 4)
    model = PixelCNN(
        (2, 2, 2), 8, 2, likelihood="bernoulli", num_classes=2, seed=0
    )
    model.compile(keras.optimizers.Adam(0.03))
    data = tf.data.Dataset.from_tensors((x, y)).repeat(300)
    model.fit(data, verbose=0)
    losses = -np.asarray(model.log_prob(x[:8], condition=y[:8]))
    np.testing.assert_allclose(losses[:4], math.log(2), atol=0.1)
    np.testing.assert_allclose(losses[4:], 0, atol=0.1)
    assert np.all(np.argmax(model.classify(x[:8]), axis=1) == y[:8])
    # Without a class, it draws images of both.
    known = {image.tobytes() for image in x[:4]}
    images = np.asarray(model.sample(40, seed=0))
    num_patterns = sum(image.tobytes() in known for image in images)
    num_blank = np.sum(np.all(images == 0, axis=(1, 2, 3)))
    assert min(num_patterns, num_blank) >= 8
    assert num_patterns + num_blank >= 34


# Saving, errors


def test_a_model_survives_its_config(logistic):
    config = json.loads(
        json.dumps(keras.saving.serialize_keras_object(logistic))
    )
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights([np.array(weight) for weight in logistic.weights])
    assert copy.get_config() == logistic.get_config()
    x, condition = levels(2), np.zeros((2, 2))
    np.testing.assert_array_equal(
        copy.log_prob(x, condition=condition),
        logistic.log_prob(x, condition=condition),
    )


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"likelihood": "gaussian"}, "`likelihood`.*'gaussian'"),
        ({"num_filters": 0}, "`num_filters`"),
        ({"num_layers": 1.5}, "`num_layers`"),
        ({"num_components": 0, "likelihood": "discretized_logistic"}, "`num_c"),
        ({"num_classes": 3, "condition_dim": 2}, "`num_classes`"),
        (
            {"network": GatedPixelCNN(SHAPE, 1, 2, 1)},
            "`network` must have outputs.*256",
        ),
        (
            {"network": 1, "condition_network": 2},
            "`condition_network` is a part",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word) as error:
        PixelCNN(SHAPE, **arguments)
    assert len(str(error.value)) <= 600


def test_a_network_whose_channels_see_others_than_asked_for_is_refused():
    shape = (3, 4, 3)
    for likelihood, maps, groups in (
        ("categorical", 768, 1),
        ("discretized_logistic", 30, 3),
    ):
        network = GatedPixelCNN(shape, maps, 3, 1, num_groups=groups)
        with pytest.raises(ValueError, match=f"num_groups.*got {groups}"):
            PixelCNN(
                shape, network=network, likelihood=likelihood, num_components=3
            )


@pytest.mark.parametrize("condition_dim", [None, 2])
def test_a_network_that_sees_later_pixels_is_refused(condition_dim):
    x, condition = keras.Input((4, 4, 1)), keras.Input((2,))
    for kernel_size in (3, 1):  # those around a pixel, and the pixel itself
        maps = keras.layers.Conv2D(1, kernel_size, padding="same")(x)
        network = keras.Model(x, maps)
        if condition_dim:
            h = keras.layers.Dense(1)(condition)
            maps += keras.layers.Reshape((1, 1, 1))(h)
            network = keras.Model([x, condition], maps)
        with pytest.raises(ValueError, match=r"`network`.*before its own"):
            PixelCNN(
                (4, 4, 1),
                likelihood="bernoulli",
                condition_dim=condition_dim,
                network=network,
            )


def test_normalization_over_all_pixels_is_refused():
    x = keras.Input((4, 4, 2))
    h = layers.MaskedConv2D(8, 3, "A", num_groups=2)(x)
    h = keras.layers.GroupNormalization(2)(h)
    maps = layers.MaskedConv2D(2, 1, "B", num_groups=2)(h)
    with pytest.raises(ValueError, match=r"`network`.*before its own"):
        PixelCNN(
            (4, 4, 2), likelihood="bernoulli", network=keras.Model(x, maps)
        )


def test_bad_arguments_of_verbs_are_refused(binary, of_classes):
    with pytest.raises(ValueError, match="`num_samples`"):
        binary.sample(0)
    with pytest.raises(ValueError, match="`num_samples`"):
        binary.impute(IMAGES[:2], np.ones(SHAPE, bool), num_samples=0)
    with pytest.raises(ValueError, match="`mask`"):
        binary.impute(IMAGES[:2], np.ones((5, 5)))
    with pytest.raises(ValueError, match="`x`"):
        binary.log_prob(255 * IMAGES[:2])
    with pytest.raises(ValueError, match="`condition`"):
        binary.sample(2, condition=[0, 1])
    with pytest.raises(ValueError, match="`condition`"):
        of_classes.impute(levels(2), np.ones((3, 3, 3), bool))
    with pytest.raises(ValueError, match="`condition`"):
        of_classes.sample(2, condition=[0, 3])
    with pytest.raises(AttributeError, match="num_classes"):
        binary.classify  # noqa: B018


def test_regularization_of_a_network_is_minimized_and_not_logged():
    logs, steps = [], []
    for regularizer in (None, keras.regularizers.L2(0.3)):
        model = PixelCNN(SHAPE, 4, 2, likelihood="bernoulli", seed=1)
        model = randomize(model)
        kernel = max(model.trainable_weights, key=lambda w: len(w.shape))
        kernel.regularizer = regularizer
        start = np.array(kernel)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        history = model.fit(IMAGES[:8], shuffle=False, verbose=0).history
        logs.append(history)
        steps.append(start - np.array(kernel))
    assert logs[0] == logs[1]
    np.testing.assert_allclose(
        steps[1] - steps[0], 0.1 * 2 * 0.3 * start, rtol=1e-3, atol=1e-6
    )


def test_losses_that_a_network_adds_are_minimized():
    class Pull(keras.layers.Layer):
        """Adds the distance of its weight from 1."""

        def build(self, _):
            self.w = self.add_weight(name="pull", initializer="zeros")

        def call(self, x):
            self.add_loss(tf.square(self.w - 1.0))
            return x

    inner = plain_pixel_cnn(SHAPE, 1, 2, 1)
    inputs = keras.Input(SHAPE)
    pull = Pull()
    network = keras.Model(inputs, pull(inner(inputs)))
    model = PixelCNN(SHAPE, likelihood="bernoulli", network=network, seed=1)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.fit(IMAGES[:8], batch_size=8, verbose=0)
    assert float(pull.w) == pytest.approx(0.1 * 2)


def test_masked_layers_of_a_network_without_head_have_the_groups():
    shape = (2, 2, 2)

    def model(likelihood, maps, num_groups):
        network = plain_pixel_cnn(shape, maps, 8, 2, num_groups=num_groups)
        return PixelCNN(shape, likelihood=likelihood, network=network)

    for arguments in (
        ("discretized_logistic", 60, 1),
        ("categorical", 512, 2),
        ("categorical", 512, 1),  # channels that do not see each other
    ):
        assert model(*arguments).built
    with pytest.raises(ValueError, match=r"`network`.*num_groups=1.*got 2"):
        model("discretized_logistic", 60, 2)


@pytest.mark.parametrize("likelihood", ["categorical", "discretized_logistic"])
def test_nan_in_any_pixel_skips_the_update(likelihood):
    model = PixelCNN(SHAPE, 4, 2, likelihood=likelihood, num_components=2)
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(jit_compile=False)
    x = np.zeros((4, *SHAPE), "float32")
    x[3, -1, -1, -1] = np.nan  # of which no later pixel takes notice
    logs = model.train_step(tf.constant(x))
    assert int(logs["skipped_updates"]) == 1
    assert np.isnan(logs["loss"])
    for one, other in zip(before, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(one, other)
