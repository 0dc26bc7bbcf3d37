"""Shows that the metrics tell four sets of images apart, in the right order.

python benchmarks/metric_ladder.py --dataset=fashion_mnist

Each set is compared with the test images, on the features of a classifier that
is trained on the data set: training images, those without one class, blurred
ones, and samples of a Gaussian fitted to their pixels. Prints the table as
Markdown. Fails unless the Fréchet distance rises from each set to the next, the
other two distances tell the last two from training images, and the dropped
class costs recall and coverage.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen import datasets, metrics
from keras_gen.evaluation import batches, scores

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_integer("num_images", 10_000, "Images of each set.")
flags.DEFINE_integer("dropped_class", 0, "The class that is left out.")
flags.DEFINE_integer("seed", 0, "Of the classifier and the Gaussian.")


def load(split):
    return datasets.load(
        FLAGS.dataset, split, labels=True, data_dir=FLAGS.data_dir
    )


def arrays(dataset):
    x, y = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(x), np.stack(y)


def blurred(x):
    """Images smoothed by the binomial filter of 3 x 3 pixels."""
    row = np.array([1, 2, 1], "float32") / 4
    channels = x.shape[-1]
    kernel = np.tile(np.outer(row, row)[..., None, None], (1, 1, channels, 1))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return tf.nn.depthwise_conv2d(x, kernel, [1] * 4, "VALID").numpy()


def ladder(x, y):
    """The sets of images, from the best to the worst."""
    count = min(FLAGS.num_images, len(x))
    kept = x[y != FLAGS.dropped_class]
    gaussian = batches.gaussian_batches(x[:count], count, FLAGS.seed)
    return {
        "real train": x[:count],
        "a class dropped": kept[:count],
        "blurred": blurred(x[:count]),
        "one Gaussian": np.concatenate(list(gaussian)),
    }


def measure(measures, real, generated):
    for metric in measures:
        metric.reset_state()
    for start in range(0, max(len(real), len(generated)), 500):
        part = slice(start, start + 500)
        for side, x in (("real", real[part]), ("generated", generated[part])):
            if len(x):
                scores.update(measures, **{side: x})
    return scores.results(measures, details=True)


def check(rows):
    real, dropped = rows["real train"], rows["a class dropped"]
    distances = [row["frechet_distance"] for row in rows.values()]
    assert all(a < b for a, b in itertools.pairwise(distances)), distances
    for name in ("kernel_distance", "sliced_wasserstein_distance_mean"):
        values = [row[name] for row in rows.values() if name in row]
        assert all(value > values[0] for value in values[2:]), (name, values)
    for name in ("recall", "coverage"):
        assert dropped[name] < real[name], (name, dropped[name], real[name])


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    extractor = metrics.classifier_features(load("train"), seed=FLAGS.seed)
    real = arrays(load("test"))[0][: FLAGS.num_images]
    measures = [
        metrics.FrechetDistance(extractor),
        metrics.KernelDistance(extractor),
        metrics.InceptionScore(extractor),
        metrics.PrecisionRecall(extractor),
        metrics.DensityCoverage(extractor),
    ]
    if min(real.shape[1:3]) >= 16:
        measures.append(metrics.SlicedWassersteinDistance())
        measures.append(metrics.MultiScaleSSIM())
    rows = {
        name: measure(measures, real, x)
        for name, x in ladder(*arrays(load("train"))).items()
    }
    print(
        f"{FLAGS.dataset}: {len(real)} test images, {extractor.name}, seed "
        f"{extractor.seed}, accuracy {extractor.accuracy:.4f}\n"
    )
    names = list(rows["real train"])
    print(f"| | {' | '.join(rows)} |\n|---|{'---:|' * len(rows)}")
    for name in names:
        values = [f"{row[name]:.4g}" for row in rows.values()]
        print(f"| {name} | {' | '.join(values)} |")
    check(rows)


if __name__ == "__main__":
    app.run(main)
