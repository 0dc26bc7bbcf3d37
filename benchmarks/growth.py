"""Scores a progressive GAN after every epoch of its growth.

    python examples/progressive_gan.py --dataset=fashion_mnist --keep_all
    python benchmarks/growth.py --folder=run/progressive_gan/epochs

For each file of the folder it prints a row of Markdown: the resolution that was reached, the
weight of its block in the fade, and how samples, enlarged to the full size,
compare with as many test images: sliced Wasserstein distances by level, of the
first 2,048 images of each side, and the Frechet distance in the features of a
classifier, divided by the trace of the real covariance. The first row is the
floor: training images in the place of samples.
"""

import pathlib

import keras
import tensorflow as tf
from absl import app, flags

from keras_gen import datasets, metrics
from keras_gen.evaluation import batches, scores

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", None, "Of .keras files.", required=True)
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_integer("num_samples", 10_000, "Images of each side scored.")
flags.DEFINE_integer("seed", 0, "Of the samples.")


def load(split, labels=False):
    """Images one by one, padded as `examples/progressive_gan.py` pads them."""
    images = datasets.load(
        FLAGS.dataset, split, labels=labels, data_dir=FLAGS.data_dir
    )

    def pad(x, *y):
        if x.shape[:2] == (28, 28):
            x = tf.image.pad_to_bounding_box(x, 2, 2, 32, 32)
        return (x, *y) if y else x

    return images.map(pad)


def score(samples, extractor):
    """`{column: value}` of batches of samples against the test images."""
    distance = metrics.FrechetDistance(extractor)
    sliced = metrics.SlicedWassersteinDistance()
    for x in load("test").take(FLAGS.num_samples).batch(500):
        scores.update([distance, sliced], real=x)
    for x in samples:
        scores.update([distance, sliced], generated=x)
    columns = {f"SWD, {name}": d for name, d in sliced.result().items()}
    relative = distance.details()["relative_to_real_variance"]
    return columns | {"Frechet, %": 100 * relative}


def main(_):
    extractor = metrics.classifier_features(load("train", labels=True))
    print(f"{extractor.name}, accuracy {extractor.accuracy:.4f}\n")
    floor = score(load("train").take(FLAGS.num_samples).batch(500), extractor)
    columns = ["epoch", "pixels", "alpha", *floor]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    values = [f"{value:.3g}" for value in floor.values()]
    print(f"| training images | | | {' | '.join(values)} |", flush=True)
    for file in sorted(pathlib.Path(FLAGS.folder).glob("*.keras")):
        gan = keras.saving.load_model(file)
        samples = batches.sample_batches(gan, FLAGS.num_samples, FLAGS.seed)
        scored = score(samples, extractor)
        values = [f"{gan.alpha:.2f}", *(f"{v:.3g}" for v in scored.values())]
        name = f"{file.stem} | {gan.resolution}"
        print(f"| {name} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
