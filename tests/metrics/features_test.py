import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.metrics.features import FeatureMetric, Samples


class KeepAll(FeatureMetric):
    """The least metric: how many images came."""

    def __init__(self, feature_extractor=None, max_samples=100, name="keep"):
        super().__init__(feature_extractor, lambda: Samples(max_samples), name)

    def result(self):
        self.require(1)
        return float(self.real.count + self.generated.count)


def images(batch, *shape, seed=0):
    shape = shape or (4, 4, 1)
    return np.random.default_rng(seed).integers(
        256, size=(batch, *shape), dtype="uint8"
    )


def mean_colour(name="mean_colour"):
    """An extractor that takes images of any size."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name=name,
    )


def test_pixels_are_features_of_either_dtype():
    x = images(5)
    features = KeepAll().features(x)
    assert features.shape == (5, 16) and features.dtype == "float64"
    np.testing.assert_allclose(features, x.reshape(5, 16) / 255, rtol=1e-7)
    np.testing.assert_array_equal(
        features, KeepAll().features(tf.cast(x, "float32") / 255)
    )


def test_the_extractor_is_given_floats_and_runs_in_inference_mode():
    extractor = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.9),
        ]
    )
    x = images(600)  # more than it is given at a time
    np.testing.assert_array_equal(
        KeepAll(extractor).features(x), KeepAll().features(x)
    )


def test_extractors_may_take_any_size_and_may_be_subclasses():
    class Mean(keras.Model):
        def call(self, x):
            return keras.ops.mean(x, axis=(1, 2))

    for size in (4, 7):
        x = images(3, size, size, 3)
        expected = x.mean(axis=(1, 2)) / 255
        for extractor in (mean_colour(), Mean()):
            features = KeepAll(extractor).features(x)
            np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_the_extractor_is_traced_once_whatever_the_batches():
    traces = []

    class Traced(keras.Model):
        def call(self, x):
            traces.append(x.shape)
            return keras.ops.mean(x, axis=(1, 2))

    metric = KeepAll(Traced())
    for batch in (3, 1, 300):
        metric.update_state(images(batch), images(2 * batch))
        metric.reset_state()
    assert len(traces) == 1


def test_the_score_carries_the_name_of_the_extractor():
    assert KeepAll().score_name == "keep[pixels]"
    assert KeepAll(mean_colour("colour_7f")).score_name == "keep[colour_7f]"
    metric = KeepAll(mean_colour("colour_7f"))
    metric.update_state(images(3, 4, 4, 3), images(5, 4, 4, 3))
    assert metric.details() == {
        "keep": 8.0,
        "num_real": 3,
        "num_generated": 5,
        "feature_extractor": "colour_7f",
    }


def test_sides_may_come_one_by_one_and_reset_forgets_them():
    metric = KeepAll()
    metric.update_state(images(3), None)
    metric.update_state(None, images(2))
    metric.update_state(images(4), images(1))
    assert (metric.real.count, metric.generated.count) == (7, 3)
    metric.reset_state()
    assert (metric.real.count, metric.generated.count) == (0, 0)
    metric.update_state(images(2, 6, 6, 3), images(2, 6, 6, 3))


def test_only_the_first_samples_are_kept():
    metric = KeepAll(max_samples=10)
    x = images(16)
    for start in range(0, 16, 4):
        metric.update_state(x[start : start + 4], x[:1])
    assert metric.real.full and not metric.generated.full
    np.testing.assert_array_equal(
        metric.real.features(), metric.features(x[:10])
    )


def test_the_order_of_shuffled_samples_depends_on_their_number_alone():
    samples = [Samples(100), Samples(100)]
    features = np.arange(60.0).reshape(60, 1)
    samples[0].add(features)
    for start in range(0, 60, 7):
        samples[1].add(features[start : start + 7])
    shuffled = samples[0].shuffled()
    np.testing.assert_array_equal(shuffled, samples[1].shuffled())
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), features)
    assert abs(np.corrcoef(shuffled.ravel(), np.arange(60))[0, 1]) < 0.3


def test_a_metric_of_pixels_has_a_config_and_one_with_weights_has_none():
    config = KeepAll(name="mine").get_config()
    assert KeepAll.from_config(config).name == "mine"
    with pytest.raises(ValueError, match=r"no config.*'mean_colour'"):
        KeepAll(mean_colour()).get_config()


@pytest.mark.parametrize(
    "real, generated, message",
    [
        (None, None, "`real` and `generated`.*None"),
        (images(4)[..., 0], None, r"`real`.*\(4, 4, 4\).*\[..., None\]"),
        (None, list(images(4)), "`generated`.*list.*np.stack"),
        (np.zeros((2, 3, 8, 8)), None, r"`real`.*1 to 4 channels.*3, 8, 8"),
        (None, np.full((2, 4, 4, 1), 1.5), r"`generated`.*\[0, 1\].*1.5"),
        (np.full((2, 4, 4, 1), np.nan), None, "`real` must be finite"),
        (images(2), images(2, 6, 6, 1), r"`generated`.*4, 4, 1.*6, 6, 1"),
        (np.zeros((0, 4, 4, 1)), None, "`real` holds no images"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(real, generated, message):
    with pytest.raises(ValueError, match=message) as error:
        KeepAll().update_state(real, generated)
    assert len(str(error.value)) <= 600


def test_what_is_refused_of_one_side_adds_nothing_to_the_other():
    metric = KeepAll()
    with pytest.raises(ValueError, match="`generated`"):
        metric.update_state(images(4), images(4, 6, 6, 1))
    metric.update_state(images(4), images(4))
    assert metric.real.count == metric.generated.count == 4


def test_images_the_extractor_cannot_take_are_refused():
    with pytest.raises(ValueError, match=r"`real`.*\(batch, 4, 4, 3\)"):
        KeepAll(mean_colour()).update_state(images(2, 4, 4, 1))


def test_symbolic_tensors_are_refused():
    metric = KeepAll()

    @tf.function
    def update(x):
        metric.update_state(x, x)

    with pytest.raises(ValueError, match=r"`real`.*`keep` runs on NumPy"):
        update(tf.zeros((2, 4, 4, 1)))


@pytest.mark.parametrize(
    "extractor, message",
    [
        ("inception", "`feature_extractor` must be a `keras.Model`.*str"),
        (
            keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)]),
            r"`feature_extractor` must take images.*\(None, 16\)",
        ),
    ],
)
def test_what_is_no_extractor_is_refused(extractor, message):
    with pytest.raises(ValueError, match=message):
        KeepAll(extractor)


@pytest.mark.parametrize(
    "layer, message",
    [
        (keras.layers.Identity(), r"finite.*\(2, 4, 4, 1\)"),
        (
            keras.layers.Lambda(
                lambda x: keras.ops.sqrt(x[:, 0, :, 0] - 2.0),
                output_shape=(4,),
            ),
            "8 NaN",
        ),
    ],
)
def test_features_that_are_no_finite_vectors_are_refused(layer, message):
    extractor = keras.Sequential([keras.Input((4, 4, 1)), layer])
    with pytest.raises(ValueError, match=f"`feature_extractor`.*{message}"):
        KeepAll(extractor).update_state(images(2))


def test_too_few_images_are_counted():
    metric = KeepAll()
    metric.update_state(images(2))
    with pytest.raises(
        ValueError, match="`keep` needs at least 1 generated images, got 0"
    ):
        metric.result()
