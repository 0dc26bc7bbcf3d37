import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.callbacks.evaluation import EvaluateSamples
from keras_gen.metrics.frechet import FrechetDistance
from keras_gen.metrics.kernel import KernelDistance
from keras_gen.metrics.manifold import DensityCoverage
from keras_gen.models import VAE

SHAPE = (2, 2, 1)


class Painter(keras.Model):
    """Samples noise around a brightness that follows a list, epoch by epoch."""

    def __init__(self, brightness):
        super().__init__()
        self.image_shape = SHAPE
        self.levels = brightness
        self.brightness = self.add_weight(initializer="zeros")
        self.built = True
        self.calls = []
        self.compile(optimizer=None)

    def train_step(self, data):
        return {"loss": self.brightness + 1.0}

    def sample(self, num_samples, *, seed=None):
        self.calls.append((num_samples, seed))
        noise = keras.random.uniform((num_samples, *SHAPE), seed=seed)
        return 0.1 * noise + self.brightness


class SetBrightness(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.brightness.assign(self.model.levels[epoch])


class MeanDistance(keras.metrics.Metric):
    """`abs(mean(generated) - mean(real))`."""

    def __init__(self, name="mean_distance"):
        super().__init__(name=name)
        self.reset_state()

    def reset_state(self):
        self.real, self.generated = [], []

    def update_state(self, real, generated):
        for side, images in ((self.real, real), (self.generated, generated)):
            side += [] if images is None else [images]

    def result(self):
        real, generated = map(np.concatenate, (self.real, self.generated))
        return abs(generated.mean() - real.mean())


def real_images(num_images=30):
    rng = np.random.default_rng(0)
    return rng.uniform(0.4, 0.6, (num_images, *SHAPE)).astype("float32")


def fit(model, callbacks, **kwargs):
    x = np.zeros((4, *SHAPE), "float32")
    return model.fit(
        x,
        batch_size=4,
        epochs=len(model.levels),
        verbose=0,
        callbacks=[SetBrightness(), *callbacks],
        **kwargs,
    )


def test_values_of_each_epoch_are_in_the_history():
    model = Painter([0.0, 0.3, 0.45])
    metrics = [MeanDistance(), KernelDistance()]
    history = fit(model, [EvaluateSamples(real_images(), metrics)]).history
    expected = [0.45, 0.15, 0.0]
    np.testing.assert_allclose(history["mean_distance"], expected, atol=0.02)
    assert set(history) == {
        "loss",
        "mean_distance",
        "kernel_distance",
        "kernel_distance_standard_error",
    }
    assert all(type(value) is float for value in history["mean_distance"])


def test_values_are_those_of_the_metric_by_hand():
    model = Painter([0.2])
    watch = EvaluateSamples(
        real_images(30), [FrechetDistance()], num_samples=20, seed=7
    )
    history = fit(model, [watch]).history
    (call,) = model.calls
    metric = FrechetDistance()
    metric.update_state(real_images(30)[:20], model.sample(20, seed=call[1]))
    assert history["frechet_distance"] == [pytest.approx(metric.result())]


def test_best_model_is_kept_by_its_samples(tmp_path):
    model = Painter([0.0, 0.5, 0.1, 0.3])
    path = tmp_path / "best.weights.h5"
    watch = EvaluateSamples(real_images(), MeanDistance(), num_samples=50)
    best = keras.callbacks.ModelCheckpoint(
        path,
        monitor="mean_distance",
        mode="min",
        save_best_only=True,
        save_weights_only=True,
    )
    fit(model, [watch, best])
    model.load_weights(path)
    assert float(model.brightness) == 0.5


def test_epochs_between_repeat_the_last_values():
    model = Painter([0.0, 0.1, 0.2, 0.3, 0.4])
    watch = EvaluateSamples(real_images(), [MeanDistance()], every=2)
    values = fit(model, [watch]).history["mean_distance"]
    # Measured after epoch 1, the first, and after 2 and 4.
    assert len(model.calls) == 2 * 3  # in two batches of samples
    np.testing.assert_allclose(
        values, [0.45, 0.35, 0.35, 0.15, 0.15], atol=0.02
    )
    assert values[1] == values[2] and values[3] == values[4]


def test_csv_logger_has_a_value_in_every_row(tmp_path):
    path = tmp_path / "log.csv"
    watch = EvaluateSamples(real_images(), [MeanDistance()], every=3)
    logger = keras.callbacks.CSVLogger(path)
    fit(Painter([0.0, 0.1, 0.2, 0.3]), [watch, logger])
    with open(path) as file:
        rows = [float(row["mean_distance"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, [0.45, 0.45, 0.25, 0.25], atol=0.02)


def test_early_stopping_sees_no_improvement_between():
    watch = EvaluateSamples(real_images(), [MeanDistance()], every=2)
    stop = keras.callbacks.EarlyStopping(
        "mean_distance", mode="min", patience=3
    )
    # Better in epoch 2, then never: waits through 3, 4 and 5.
    model = Painter([0.0, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2])
    history = fit(model, [watch, stop])
    assert len(history.history["loss"]) == 5


def test_latents_are_the_same_in_every_epoch_and_others_for_another_seed():
    def calls(seed):
        model = Painter([0.1, 0.1])
        watch = EvaluateSamples(
            real_images(), [MeanDistance()], num_samples=600, seed=seed
        )
        fit(model, [watch])
        return model.calls

    first = calls(0)
    assert [count for count, _ in first] == [500, 100] * 2
    assert first[:2] == first[2:] == calls(0)[:2]
    seeds = {seed for _, seed in first}
    assert len(seeds) == 2 and not seeds & {seed for _, seed in calls(1)}


def test_training_is_the_same_with_and_without_it():
    x = np.random.default_rng(0).uniform(size=(40, *SHAPE)).astype("float32")

    def weights(callbacks):
        keras.utils.set_random_seed(0)
        data = tf.data.Dataset.from_tensor_slices(x).shuffle(40, seed=1)
        model = VAE(SHAPE, latent_dim=2, seed=0)
        model.compile(run_eagerly=True)
        model.fit(data.batch(20), epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()

    watch = EvaluateSamples(real_images(), [FrechetDistance()], num_samples=30)
    for one, other in zip(weights([]), weights([watch]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_real_images_are_read_once_and_metrics_left_empty():
    reads = []

    def read():
        reads.append(1)
        yield real_images()

    data = tf.data.Dataset.from_generator(
        read, output_signature=tf.TensorSpec((None, *SHAPE))
    )
    metric = MeanDistance()
    watch = EvaluateSamples(data, [metric], num_samples=20)
    model = Painter([0.0, 0.1])
    fit(model, [watch])
    num_reads = len(reads)
    fit(model, [watch])  # a second `fit`
    assert len(reads) == num_reads
    assert metric.real == metric.generated == []


def test_conditional_model_is_given_the_labels():
    class Conditional(Painter):
        num_classes = 2

        def sample(self, num_samples, *, condition, seed=None):
            return np.reshape(condition, (-1, 1, 1, 1)) * np.ones(
                (num_samples, *SHAPE), "float32"
            )

    y = np.array([0, 1, 1, 1])
    data = tf.data.Dataset.from_tensor_slices((real_images(4), y)).batch(3)
    model = Conditional([0.0])
    watch = EvaluateSamples(data, [MeanDistance()], num_samples=8)
    x = np.zeros((4, *SHAPE), "float32")
    history = model.fit(x, y, verbose=0, callbacks=[watch]).history
    expected = abs(0.75 - real_images(4).mean())
    assert history["mean_distance"] == [pytest.approx(expected, abs=1e-6)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"every": 0}, "`every`"),
        ({"num_samples": 1.5}, "`num_samples`"),
        ({"seed": None}, "`seed`"),
        ({"metrics": ["fid"]}, "`metrics`"),
        ({"metrics": [MeanDistance(), MeanDistance()]}, "different names"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    arguments = {"metrics": [MeanDistance()], **arguments}
    with pytest.raises(ValueError, match=message) as error:
        EvaluateSamples(real_images(), **arguments)
    assert len(str(error.value)) <= 600


def test_a_model_that_cannot_sample_is_refused_before_training():
    class Classifier(keras.Model):
        def train_step(self, data):
            pytest.fail("training started")

    model = Classifier()
    model.compile()
    watch = EvaluateSamples(real_images(), [MeanDistance()])
    with pytest.raises(ValueError, match=r"`EvaluateSamples` needs a model"):
        model.fit(np.zeros((4, *SHAPE)), verbose=0, callbacks=[watch])


def test_images_that_are_not_for_the_model_are_refused_before_training():
    watch = EvaluateSamples(np.zeros((4, 5, 5, 1)), [MeanDistance()])
    model = Painter([0.0])
    with pytest.raises(ValueError, match="`dataset`"):
        fit(model, [watch])
    assert model.calls == []


def test_callbacks_of_keras_learn_which_way_is_better(tmp_path):
    # In an order in which the values would come too late.
    best = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.keras"), "frechet_distance", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping("coverage", patience=3)
    metrics = [FrechetDistance(), DensityCoverage(k=2)]
    watch = EvaluateSamples(real_images(), metrics, num_samples=30)
    model = VAE(SHAPE, 2, seed=0)
    model.compile(jit_compile=False)
    history = model.fit(
        real_images(), epochs=2, verbose=0, callbacks=[best, stop, watch]
    ).history
    assert best.mode == "min" and stop.mode == "max"
    assert best.best == min(history["frechet_distance"])
    assert (tmp_path / "best.keras").exists()
    assert watch.direction("kernel_distance_standard_error") is None
    assert watch.direction("loss") is None
    metrics = [
        DensityCoverage(k=2, name="pixels"),
        FrechetDistance(name="pixels_frechet"),
    ]
    watch = EvaluateSamples(real_images(), metrics)
    assert watch.direction("pixels_frechet") == "min"
    assert watch.direction("pixels_coverage") == "max"
