"""Where the chains of models go, as a classifier sees it.

    python benchmarks/chains.py --model=run/gsn/gsn.keras --model=OTHER.keras

Works for all models that sample by a chain: `GSN`, `RBM` and `DBM`. A row a
model: how many classes one chain visits that starts from noise, after how many
steps it has seen all of them, and how often in 100 steps the class changes;
then the Fréchet distance to the test images, in the features of the classifier
and in percent of the trace of the real covariance, of the states of that chain
and of the ends of many short ones. The first row is of real images.
"""

import keras
import numpy as np
from absl import app, flags

from keras_gen import datasets, metrics

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("model", None, ".keras files.", required=True)
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_integer("chain_length", 10_000, "States of the long chain.")
flags.DEFINE_integer("num_chains", 2000, "Short ones.")
flags.DEFINE_integer("burn_in", 200, "Steps before the first state counts.")
flags.DEFINE_integer("seed", 0, "Of the classifier and the chains.")
COLUMNS = (
    "model",
    "classes visited",
    "steps to all",
    "changes in 100 steps",
    "Fréchet, long chain, %",
    "Fréchet, ends, %",
)


def load(split, **options):
    options |= {"binarize": FLAGS.binarize, "data_dir": FLAGS.data_dir}
    return datasets.load(FLAGS.dataset, split, **options)


def frechet(extractor, images):
    """In percent of the variance of the test images' features."""
    metric = metrics.FrechetDistance(extractor)
    for x in load("test", batch_size=500):
        metric.update_state(real=x)
    for i in range(0, len(images), 500):
        metric.update_state(generated=images[i : i + 500])
    return 100 * metric.details()["relative_to_real_variance"]


def sampled(model, count, **options):
    """Images; of binary models the most likely ones, not means."""
    x = np.array(model.sample(count, seed=FLAGS.seed, **options))
    return np.round(x) if FLAGS.binarize else x


def row_of(model, extractor):
    count, burn_in = FLAGS.chain_length, FLAGS.burn_in
    path = sampled(model, count, chain_length=count + burn_in, burn_in=burn_in)
    ends = sampled(model, FLAGS.num_chains, chain_length=burn_in + 1)
    seen = extractor.classifier.predict(path, verbose=0).argmax(-1)
    visited, first = np.unique(seen, return_index=True)
    complete = len(visited) == extractor.num_classes
    return (
        len(visited),
        first.max() + 1 if complete else "never",
        f"{100 * np.mean(np.diff(seen) != 0):.2f}",
        f"{frechet(extractor, path):.2f}",
        f"{frechet(extractor, ends):.2f}",
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    extractor = metrics.classifier_features(
        load("train", labels=True), seed=FLAGS.seed
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    real = np.concatenate(list(load("train", batch_size=500)))
    floor = f"{frechet(extractor, real[: FLAGS.chain_length]):.2f}"
    print(f"| real images | - | - | - | {floor} | - |", flush=True)
    for path in FLAGS.model:
        row = row_of(keras.saving.load_model(path), extractor)
        print(f"| {' | '.join(map(str, (path, *row)))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
