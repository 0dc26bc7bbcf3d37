import base64
import io
import json
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_gen import datasets, files
from keras_gen.evaluation import Report, batches, compare, evaluate, scores
from keras_gen.metrics.extractors import ClassifierFeatures
from keras_gen.metrics.features import FeatureMetric, Samples
from keras_gen.metrics.frechet import FrechetDistance
from keras_gen.metrics.kernel import KernelDistance
from keras_gen.metrics.manifold import DensityCoverage
from keras_gen.metrics.modes import ModeCoverage
from keras_gen.models import DBM, FVBN, VAE, BernoulliMixture, WaveNet

SHAPE = (4, 3, 1)


class Noise(keras.Model):
    """Uniform noise below `white`; log p(x) is `-sum(x)`, plus noise."""

    log_prob_kind = "exact"

    def __init__(self, image_shape=SHAPE, white=1.0, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = image_shape
        self.white = white
        self.built = True
        self.seeds = []

    def sample(self, num_samples, *, seed=None):
        shape = (num_samples, *self.image_shape)
        return self.white * keras.random.uniform(shape, seed=seed)

    def log_prob(self, x, *, num_samples=10, seed=None):
        self.seeds.append(seed)
        return -np.sum(x, axis=(1, 2, 3))


class Conditional(Noise):
    num_classes = 3
    log_prob = None

    def sample(self, num_samples, *, condition, seed=None):
        shape = (num_samples, *self.image_shape)
        condition = np.reshape(condition, (-1, 1, 1, 1))
        return np.broadcast_to(condition / 2, shape).astype("float32")


class Copier(Noise):
    """Gives back images that it was given."""

    def sample(self, num_samples, *, seed=None):
        rng = np.random.default_rng(seed)
        return self.images[rng.integers(len(self.images), size=num_samples)]


def copier_of(images):
    copier = Copier()
    copier.images = images
    return copier


class MeanDifference(keras.metrics.Metric):
    """`mean(generated) - mean(real)` with any number of updates."""

    def __init__(self, name="mean_difference"):
        super().__init__(name=name)
        self.reset_state()

    def reset_state(self):
        self.real, self.generated = [], []

    def update_state(self, real, generated):
        for side, images in ((self.real, real), (self.generated, generated)):
            side += [] if images is None else [images]

    def result(self):
        return np.mean(np.concatenate(self.generated)) - np.mean(
            np.concatenate(self.real)
        )


class Spread(MeanDifference):
    """A result of several numbers."""

    def result(self):
        values = np.concatenate(self.generated)
        return {"low": values.min(), "high": values.max()}


def images_of(num_images, seed=0, shape=SHAPE):
    """8-bit images as floats."""
    levels = np.random.default_rng(seed).integers(
        256, size=(num_images, *shape)
    )
    return (levels / np.float32(255)).astype("float32")


def measured(model=None, dataset=None, **arguments):
    """A report of everything small."""
    arguments = {
        "metrics": [MeanDifference()],
        "num_samples": 60,
        "verbose": 0,
        **arguments,
    }
    model = model or Noise(name="noise")
    dataset = images_of(50) if dataset is None else dataset
    return evaluate(model, dataset, **arguments)


def classifier():
    """Features: the mean of an image. Classes: below and above one half."""
    x = keras.Input(SHAPE)
    network = keras.Sequential(
        [
            x,
            keras.Sequential([x, keras.layers.GlobalAveragePooling2D()]),
            keras.layers.Dense(2, activation="softmax", name="classes"),
        ]
    )
    network.layers[-1].set_weights(
        [np.array([[-100.0, 100.0]]), np.array([50.0, -50.0])]
    )
    return ClassifierFeatures(network, accuracy=0.9, seed=7)


# -- The numbers --------------------------------------------------------------


def test_numbers_are_those_of_the_metrics_on_samples_and_images():
    model, real = Noise(), images_of(200)
    report = measured(
        model,
        tf.data.Dataset.from_tensor_slices(real).batch(64),
        metrics=[FrechetDistance(), KernelDistance(), DensityCoverage()],
        num_samples=120,
        seed=5,
    )
    samples = np.concatenate(list(batches.sample_batches(model, 120, 5)))
    for metric in (FrechetDistance(), DensityCoverage()):
        metric.update_state(real[:120], samples)
        expected = metric.result()
        if not isinstance(expected, dict):
            expected = {metric.name: expected}
        for name, value in expected.items():
            assert report[name] == pytest.approx(value, rel=1e-9)
    assert report["num_real"] == report["num_generated"] == 120
    assert {
        f"{name}_standard_error"
        for name in ("frechet_distance", "kernel_distance", "coverage")
    } <= set(report)
    assert report["frechet_distance_relative_to_real_variance"] > 0


def test_likelihood_is_the_mean_over_images_with_its_standard_error():
    model, real = Noise(), images_of(50)
    report = measured(model, tf.data.Dataset.from_tensor_slices(real).batch(20))
    values = -real.sum(axis=(1, 2, 3), dtype="float64")
    error = values.std(ddof=1) / math.sqrt(50)
    assert report["log_prob"] == pytest.approx(values.mean(), rel=1e-6)
    assert report["log_prob_standard_error"] == pytest.approx(error, rel=1e-5)
    bits = values / (12 * math.log(2))
    assert report["bits_per_dim"] == pytest.approx(-bits.mean(), rel=1e-6)
    assert report["bits_per_dim_standard_error"] == pytest.approx(
        bits.std(ddof=1) / math.sqrt(50), rel=1e-5
    )
    assert report["log_prob_kind"] == "exact"
    assert report["log_prob_images"] == 50
    assert len(set(model.seeds)) == 3  # each batch has noise of its own


def test_a_density_has_a_log_prob_and_no_bits():
    model = Noise()
    model.dequantization = None  # as in flows of continuous data
    report = measured(model)
    assert "log_prob" in report
    assert not any("bits" in name for name in report)


def test_grey_images_have_no_likelihood_under_one_of_binary_images():
    grey = np.random.default_rng(0).uniform(size=(20, 4, 3, 1))
    grey = grey.astype("float32")
    for model in (FVBN(SHAPE, seed=0), Noise()):
        report = measured(model, np.round(grey), metrics=[])
        assert not report["log_prob_is_cross_entropy"]
        assert "bits_per_dim" in report and "| exact |" in str(report)
        if isinstance(model, Noise):
            model.is_binary = True  # as mixtures and Boltzmann machines say
        report = measured(model, grey, metrics=[])
        assert report["log_prob_is_cross_entropy"] and "log_prob" in report
        assert not any("bits" in name for name in report)
        assert "| cross-entropy |" in str(report)
    assert not measured(Noise(), grey, metrics=[])["log_prob_is_cross_entropy"]
    assert BernoulliMixture.is_binary and DBM.is_binary


def test_a_log_partition_is_estimated_once_for_all_batches():
    model = Noise()
    model.log_partition = lambda: 0.0
    images = tf.data.Dataset.from_tensor_slices(images_of(50))
    measured(model, images.batch(20))
    assert len(model.seeds) == 3 and len(set(model.seeds)) == 1


def test_a_model_without_log_prob_has_no_likelihood():
    model = Noise()
    model.log_prob = None
    assert "log_prob" not in measured(model)
    assert "bits_per_dim" not in measured(model)


def test_real_row_compares_the_dataset_with_the_reference():
    test, train = images_of(50), images_of(90, seed=1)
    real = measured(dataset=test, reference=train)["references"]["real"]
    assert real["num_real"] == 50 and real["num_generated"] == 60
    assert real["mean_difference"] == pytest.approx(
        train[:60].mean() - test.mean(), abs=1e-6
    )


def test_without_a_reference_every_other_image_is_one():
    x = np.zeros((51, *SHAPE), "float32")
    x[::2] = 0.25  # even positions, across the borders of odd batches
    report = measured(dataset=tf.data.Dataset.from_tensor_slices(x).batch(7))
    real = report["references"]["real"]
    assert (real["num_real"], real["num_generated"]) == (26, 25)
    assert real["mean_difference"] == pytest.approx(-0.25)
    assert real["nearest_distance"] == pytest.approx(0.25 * math.sqrt(12))
    assert report["conditions"]["reference"] is None


def test_gaussian_has_the_mean_and_the_covariance_of_the_images():
    rng = np.random.default_rng(0)
    mixing = 0.02 * rng.standard_normal((12, 12)).astype("float32")
    x = 0.5 + rng.standard_normal((300, 12)).astype("float32") @ mixing
    x = np.clip(x, 0.0, 1.0).reshape(300, *SHAPE)
    samples = np.concatenate(list(batches.gaussian_batches(x, 40_000, seed=1)))
    assert samples.shape == (40_000, *SHAPE) and samples.dtype == "float32"
    a, b = (y.reshape(len(y), -1).astype("float64") for y in (x, samples))
    scale = a.std(axis=0)
    np.testing.assert_allclose(b.mean(0), a.mean(0), atol=0.02 * scale.max())
    np.testing.assert_allclose(
        np.cov(b.T, bias=True),
        np.cov(a.T, bias=True),
        atol=0.03 * scale.max() ** 2,
    )


def test_gaussian_row_is_of_the_reference_images():
    train = np.clip(images_of(90, seed=1), 0.45, 0.55)
    report = measured(reference=train, metrics=[Spread("spread")])
    gaussian = report["references"]["gaussian"]
    assert 0.2 < gaussian["spread_low"] < 0.5 < gaussian["spread_high"] < 0.8
    assert gaussian["num_generated"] == 60


def test_copies_of_training_images_are_seen():
    rng = np.random.default_rng(0)
    train, test, fresh = (
        rng.uniform(size=(n, *SHAPE)).astype("float32")
        for n in (400, 400, 1000)
    )
    arguments = {"reference": train, "num_samples": 1000}
    copied = measured(copier_of(train), test, **arguments)
    assert copied["copies"] == 1.0 and copied["nearest_distance"] == 0.0
    honest = measured(copier_of(fresh), test, **arguments)
    assert honest["copies"] < 0.05
    real = honest["references"]["real"]
    assert real["copies"] == pytest.approx(0.01)
    assert honest["nearest_distance"] == pytest.approx(
        real["nearest_distance"], rel=0.1
    )


def test_nearest_distance_is_that_of_brute_force():
    train, test = images_of(70, seed=1), images_of(40)
    model = Noise()
    report = measured(model, test, reference=train, num_samples=30)
    samples = np.concatenate(list(batches.sample_batches(model, 30, 0)))
    for row, x in ((report, samples), (report["references"]["real"], test)):
        x = x[: len(test)].astype("float64")[:, None]
        distances = np.sqrt(((x - train) ** 2).sum(axis=(2, 3, 4)))
        assert row["nearest_distance"] == pytest.approx(
            np.median(distances.min(axis=1)[: 30 if row is report else 40])
        )


def test_classes_are_counted_when_the_extractor_has_a_classifier():
    dark, light = np.zeros((30, *SHAPE)), np.ones((10, *SHAPE))
    model = copier_of(dark.astype("float32"))
    model.sample = lambda n, seed: np.concatenate([dark, light])[:n]
    report = measured(model, num_samples=40, feature_extractor=classifier())
    assert report["class_counts"] == [30, 10]
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert report["class_kl_to_uniform"] == pytest.approx(kl)
    counts = report["references"]["real"]["class_counts"]
    halves = images_of(50)[:40][1::2].mean(axis=(1, 2, 3)) > 0.5
    assert counts == [20 - halves.sum(), halves.sum()]


def test_seed_gives_the_same_report_and_others_another():
    first, again, other = (
        measured(model=Noise(name="noise"), seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first["mean_difference"] != other["mean_difference"]


def test_batches_of_samples_differ_and_have_the_number_asked_for():
    parts = list(batches.sample_batches(Noise(), 1100, seed=0))
    assert [len(part) for part in parts] == [500, 500, 100]
    assert len(np.unique(np.concatenate(parts), axis=0)) == 1100
    big = Noise((1024, 1024, 1))
    assert len(next(batches.sample_batches(big, 10, seed=0))) == 4


def test_conditional_model_is_given_the_labels_in_turn():
    y = np.array([0, 1, 2, 2, 1] * 4)
    data = tf.data.Dataset.from_tensor_slices((images_of(20), y)).batch(8)
    model = Conditional()
    report = measured(model, data, metrics=[Spread("spread")], num_samples=30)
    samples = np.concatenate(list(batches.sample_batches(model, 30, 0, y)))
    np.testing.assert_allclose(samples[:, 0, 0, 0], np.tile(y, 2)[:30] / 2)
    assert report["spread_high"] == 1.0 and report["spread_low"] == 0.0


def test_likelihood_of_a_conditional_model_is_given_the_labels():
    class Labelled(Conditional):
        def sample(self, num_samples, *, condition=None, seed=None):
            condition = (
                np.zeros(num_samples) if condition is None else condition
            )
            return super().sample(num_samples, condition=condition)

        def log_prob(self, x, *, condition=None):
            return np.zeros(len(x)) if condition is None else -condition

    y = np.array([0, 1, 2, 2] * 5)
    data = tf.data.Dataset.from_tensor_slices((images_of(20), y)).batch(8)
    report = measured(Labelled(), data)
    assert report["log_prob"] == -1.25 and report["log_prob_is_conditional"]
    report = measured(Labelled(), data.map(lambda x, y: x))
    assert report["log_prob"] == 0 and not report["log_prob_is_conditional"]


def test_labels_are_ignored_by_a_model_that_is_not_conditional():
    x = images_of(20)
    labels = {"name": np.array(["a"] * 20)}
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(8)
    assert measured(dataset=data) == measured(dataset=x)


def test_a_vae_on_digits_gets_all_default_metrics():
    test = datasets.load("digits", "test", batch_size=100)
    train = datasets.load("digits", batch_size=100)
    model = VAE((8, 8, 1), latent_dim=2, seed=0)
    report = evaluate(model, test, reference=train, num_samples=300, verbose=0)
    names = "log_prob frechet_distance kernel_distance precision recall"
    for name in [*names.split(), "density", "coverage", "nearest_distance"]:
        assert math.isfinite(report[name])
    real = report["references"]["real"]
    assert real["frechet_distance"] < 0.2 * report["frechet_distance"]
    assert real["coverage"] > 0.8 > report["coverage"]
    assert report["log_prob_kind"] == "lower_bound"
    conditions = report["conditions"]
    assert conditions["data"]["num_images"] == 297
    assert conditions["data"]["origin"]["split"] == "test"
    assert conditions["reference"]["num_images"] == 1500
    assert conditions["feature_extractor"] == {"name": "pixels"}


def test_two_dimensional_toys_are_measured_and_drawn_as_points():
    name = "ring"
    test = datasets.load(name, "test[:500]", batch_size=100)
    toys = datasets.toys
    model = copier_of(toys.generate(name, 2500)[0])
    model.image_shape = (1, 1, 2)
    report = measured(
        model,
        test,
        metrics=[ModeCoverage(toys.centers(name), toys.std(name))],
        num_samples=500,
    )
    assert report["mode_coverage_modes"] == 8
    assert report["references"]["gaussian"]["mode_coverage_high_quality"] < 0.1
    picture = report.pictures["points"]
    half = picture.shape[1] // 2
    left, right = picture[:, :half], picture[:, half:]
    for side in (left, right):  # the modes are at the right and the top
        assert side[side.shape[0] // 2 - 4 : side.shape[0] // 2 + 4, 110:].any()
    assert list(report.pictures) == ["points"]


# -- Their conditions ---------------------------------------------------------


def test_fingerprint_is_of_the_set_of_images():
    x = images_of(50)

    def fingerprint(dataset, **arguments):
        report = measured(dataset=dataset, **arguments)
        return report["conditions"]["data"]["fingerprint"]

    first = fingerprint(x)
    assert fingerprint(x[::-1]) == first
    assert fingerprint(np.rint(255 * x).astype("uint8")) == first
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(50))).batch(9)
    assert fingerprint(labelled) == first
    assert fingerprint(x[:49]) != first
    assert fingerprint(x, num_samples=49) != first  # which uses as many
    x[3, 1, 1, 0] = 0.5
    assert fingerprint(x) != first


def test_conditions_name_the_extractor_and_the_metrics_arguments():
    extractor = classifier()
    metrics = [DensityCoverage(extractor, k=4), MeanDifference()]
    report = measured(metrics=metrics, feature_extractor=extractor)
    described = {
        "name": extractor.name,
        "fingerprint": extractor.fingerprint,
        "accuracy": 0.9,
        "seed": 7,
    }
    conditions = report["conditions"]
    assert conditions["feature_extractor"] == described
    coverage = conditions["metrics"]["density_coverage"]
    assert coverage["class"] == "DensityCoverage" and coverage["k"] == 4
    assert coverage["feature_extractor"] == described
    assert set(conditions["versions"]) > {"keras_gen", "keras", "tensorflow"}
    assert conditions["seed"] == 0 and conditions["num_samples"] == 60


def test_fingerprint_of_any_network_is_of_its_weights():
    def network(seed):
        initializer = keras.initializers.RandomNormal(seed=seed)
        layers = [
            keras.Input((3,)),
            keras.layers.Dense(2, "relu", True, initializer),
        ]
        return keras.Sequential(layers, name="network")

    same, equal, other = map(scores.describe, map(network, (0, 0, 1)))
    assert same == equal != other and same["name"] == "network"


def test_pixels_of_large_images_are_averaged():
    assert scores.pixels((32, 32, 3)) is None
    x = images_of(2, shape=(64, 96, 3))
    network = scores.pixels(x.shape[1:])
    features = np.asarray(network(x)).reshape(2, 21, 32, 3)
    expected = x[:, :63].reshape(2, 21, 3, 32, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    assert network.name == "pixels_21x32"
    thin = scores.pixels((100, 2, 1))
    assert thin.output_shape == (None, 25)


# -- Metrics as a group -------------------------------------------------------


def test_metrics_of_one_extractor_share_its_features():
    calls = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda: calls.append(1), [], [])
            return tf.reshape(x, (-1, 12))

    extractor = keras.Sequential([keras.Input(SHAPE), Counting()])
    shared = [FrechetDistance(extractor), DensityCoverage(extractor)]
    calls.clear()
    for start in (0, 20):
        scores.update(shared, real=images_of(40)[start : start + 20])
    scores.update(shared, generated=images_of(30, seed=1))
    assert len(calls) == 3
    alone = [FrechetDistance(extractor), DensityCoverage(extractor)]
    for metric in alone:
        metric.update_state(images_of(40), images_of(30, seed=1))
    got, expected = scores.results(shared), scores.results(alone)
    assert list(got) == list(expected)
    np.testing.assert_allclose(
        list(got.values()), list(expected.values()), rtol=1e-9
    )


def test_a_metric_with_features_of_its_own_is_updated_by_itself():
    class Dark(FeatureMetric):
        def features(self, images, argument="images"):
            return 0 * super().features(images, argument)

        def result(self):
            return self.real.features().sum()

    metric = Dark(None, lambda: Samples(10), "dark")
    scores.update([FrechetDistance(), metric], real=images_of(20))
    assert metric.real.count == 10 and metric.result() == 0


def test_results_of_several_numbers_are_told_apart():
    class Several(MeanDifference):
        def result(self):
            return {"distance": 1, "error": 2.0, "6": 3.0, "distance_6_x": 4.0}

    assert scores.results([Several("distance_16"), Several("distance_6")]) == {
        "distance_16_distance": 1.0,
        "distance_16_error": 2.0,
        "distance_16_6": 3.0,
        "distance_16_distance_6_x": 4.0,
        "distance_6_distance": 1.0,
        "distance_6_error": 2.0,
        "6": 3.0,
        "distance_6_x": 4.0,
    }


# -- Files --------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    return measured(
        Noise(name="<noise> & |co"),
        reference=images_of(90, seed=1),
        metrics=[FrechetDistance(), KernelDistance()],
        feature_extractor=classifier(),
    )


def test_json_gives_the_report_back(report, tmp_path):
    report.save(tmp_path / "new" / "report.json")
    loaded = Report.load(tmp_path / "new" / "report.json")
    assert loaded == report and isinstance(loaded, Report)
    assert loaded.numbers() == report.numbers()
    assert loaded.pictures == {} and report.pictures
    text = (tmp_path / "new" / "report.json").read_text()
    assert json.loads(text) == dict(report)


def test_numbers_are_those_of_the_model_alone(report):
    numbers = report.numbers()
    assert "frechet_distance" in numbers and "log_prob" in numbers
    assert all(isinstance(v, int | float) for v in numbers.values())


def test_page_needs_nothing_else_and_takes_no_value_for_html(report, tmp_path):
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;noise&gt; &amp; |co" in page and "<noise>" not in page
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)", page)
    assert not re.search(r"https?:|<script|url\(", page)
    assert "default-src 'none'" in page
    assert f"{report['frechet_distance']:.4g}" in page
    assert report["conditions"]["data"]["fingerprint"] in page
    assert "class" in page and f"{report['copies']:.1%}" in page


def test_page_shows_samples_real_images_and_nearest_pairs(report, tmp_path):
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    found = re.findall(r'base64,([^"]+)"', page)
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in found
    ]
    height, width = 4 + 2, 3 + 2  # with the padding of the grid
    assert [picture.shape for picture in pictures] == [
        (8 * height + 2, 8 * width + 2),
        (7 * height + 2, 8 * width + 2),  # 50 images
        (2 * height + 2, 16 * width + 2),
    ]
    samples, _, pairs = pictures
    np.testing.assert_array_equal(
        pairs[2:6, 2:5],
        samples[2:6, 2:5],  # the first sample
    )
    first = next(batches.sample_batches(Noise(), 60, 0))[0]
    train = images_of(90, seed=1)
    features = (train - first).mean(axis=(1, 2, 3))  # what `classifier` sees
    nearest = train[np.abs(features).argmin(), ..., 0]
    np.testing.assert_array_equal(
        pairs[2 + height : 2 + height + 4, 2:5], np.rint(255 * nearest)
    )


def test_page_of_a_loaded_report_says_that_pictures_are_missing(
    report, tmp_path
):
    report.save(tmp_path / "report.json")
    Report.load(tmp_path / "report.json").save(tmp_path / "again.html")
    page = (tmp_path / "again.html").read_text()
    assert "pictures are not kept" in page and "<img" not in page


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    report, tmp_path, monkeypatch
):
    path = tmp_path / "report.json"
    report.save(path)
    before = path.read_text()
    broken = Report({**report, "model": object()})
    with pytest.raises(TypeError):
        broken.save(path)
    monkeypatch.setattr(files.os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.save(path)
    monkeypatch.undo()
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"model": {}}'])
def test_a_file_of_something_else_is_no_report(text, tmp_path):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match="`path` must be"):
        Report.load(tmp_path / "other.json")


def test_only_json_and_html_are_written(report, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in '\.json'"):
        report.save(tmp_path / "report.pdf")


# -- Tables -------------------------------------------------------------------


def cells(table):
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def test_table_has_a_column_a_model_and_the_two_references(capsys):
    dark, light = measured(Noise(white=0.5)), measured(Noise())
    table = compare({"dark": dark, "light": light})
    assert capsys.readouterr().out == table + "\n"
    assert table.splitlines()[0] == "|  | dark | light | real | gaussian |"
    rows = cells(table)
    real = dark["references"]["real"]["mean_difference"]
    assert rows["mean_difference"][:3] == [
        f"{dark['mean_difference']:.4g}",
        f"{light['mean_difference']:.4g}",
        f"{real:.4g}",
    ]
    error = dark["log_prob_standard_error"]
    assert rows["log_prob"][0] == f"{dark['log_prob']:.4g} ± {error:.2g}"
    assert rows["log_prob"][2:] == ["-", "-"]
    assert rows["log_prob_kind"][0] == "exact"
    assert not any(name.endswith("_standard_error") for name in rows)


def test_a_printed_report_is_its_table(report, capsys):
    print(report)
    table = capsys.readouterr().out
    assert "frechet_distance" in table and r"\|co" in table


def test_models_of_one_name_are_numbered_and_reference_names_are_free():
    one = measured(Noise(name="real"))
    table = compare([one, one], print_fn=None)
    assert table.splitlines()[0] == "|  | real | real (2) | real | gaussian |"
    assert cells(table)["mean_difference"][0] == f"{one['mean_difference']:.4g}"


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"num_samples": 49}, "num_samples"),
        ({"seed": 1}, "seed"),
        ({"dataset": images_of(50, seed=9)}, "data.fingerprint"),
        ({"dataset": images_of(40)}, "data.num_images"),
        ({"reference": images_of(30)}, "reference.num_images"),
        ({"metrics": [MeanDifference("other")]}, "metrics.other.class"),
        ({"feature_extractor": classifier()}, "feature_extractor.name"),
    ],
)
def test_reports_of_other_conditions_are_not_put_together(arguments, name):
    one, other = measured(), measured(**arguments)
    with pytest.raises(ValueError, match=re.escape(name)) as error:
        compare([one, other])
    assert len(str(error.value)) <= 600
    top = name.split(".")[0]
    compare([one, other], ignore=[top, "data"], print_fn=None)


def test_versions_count_unless_they_are_ignored():
    one = measured()
    other = Report(json.loads(json.dumps(one)))
    other["conditions"]["versions"]["keras"] = "2.0"
    with pytest.raises(ValueError, match=r"versions\.keras is .* and 2\.0"):
        compare([one, other])
    compare([one, other], ignore="versions.keras", print_fn=None)
    compare([one, other], ignore="versions", print_fn=None)


@pytest.mark.parametrize("reports", [[], {}, {"model": 3}])
def test_what_is_no_report_has_no_table(reports):
    with pytest.raises(ValueError, match="`reports` must be reports"):
        compare(reports)


# -- Arguments ----------------------------------------------------------------


def test_progress_is_shown_unless_it_is_not_wanted(capsys):
    measured()
    assert capsys.readouterr().out == ""
    measured(verbose=1)
    shown = capsys.readouterr().out
    for step in range(1, 6):
        assert f"Step {step}/5" in shown
    assert "60/60" in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": keras.Sequential(name="plain")}, "method `sample`"),
        ({"model": WaveNet(8, 2, (1,))}, "model of images, got a WaveNet"),
        ({"num_samples": 0}, "`num_samples`"),
        ({"seed": 0.5}, "`seed`"),
        ({"metrics": ["fid"]}, "`metrics` must be a list"),
        (
            {"metrics": [MeanDifference(), MeanDifference()]},
            "`metrics` must have different names",
        ),
        ({"dataset": 255 * images_of(9)}, "`dataset`"),
        ({"dataset": images_of(9, shape=(5, 5, 1))}, "`dataset`"),
        ({"reference": images_of(9, shape=(5, 5, 1))}, "`reference`"),
        (
            {
                "reference": tf.data.Dataset.from_tensor_slices(images_of(9))
                .batch(3)
                .repeat()
            },
            "`reference` must end",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        measured(**arguments)
    assert len(str(error.value)) <= 600


def test_an_endless_dataset_is_read_up_to_the_number_of_samples():
    endless = tf.data.Dataset.from_tensor_slices(images_of(9)).batch(4).repeat()
    assert measured(dataset=endless)["num_real"] == 60


def test_a_py_dataset_is_read_as_well():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return images_of(50)[10 * index : 10 * index + 10]

    one, other = measured(dataset=Batches()), measured()
    assert one["conditions"]["data"] == other["conditions"]["data"]


# -- The example --------------------------------------------------------------


def test_example_writes_the_report_of_a_saved_model(tmp_path, run_example):
    model = VAE((8, 8, 1), latent_dim=2, seed=0)
    model.save(tmp_path / "vae.keras")
    printed = run_example(
        "evaluate",
        f"--model={tmp_path / 'vae.keras'}",
        f"--output_dir={tmp_path}",
        "--dataset=digits",
        "--features=pixels",
        "--num_samples=100",
    )
    report = Report.load(tmp_path / "report.json")
    assert str(report) in printed
    assert report["references"]["real"]["num_generated"] == 100
    assert (tmp_path / "report.html").stat().st_size > 5000
