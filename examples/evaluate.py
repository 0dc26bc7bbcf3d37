"""Measures a saved model on a data set and writes its report card.

python examples/evaluate.py --model=run/gan/gan.keras --dataset=fashion_mnist
"""

import os

import keras
from absl import app, flags

import keras_gen
from keras_gen import datasets, metrics

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file.", required=True)
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/report", "Where the report is written.")
flags.DEFINE_integer("image_size", None, "Resize images to this.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_enum(
    "features",
    "classifier",
    ["classifier", "inception", "pixels"],
    "Compared are features of a classifier that is trained on the data set, "
    "of one that is downloaded, or the pixels.",
)
flags.DEFINE_integer("num_samples", 10_000, "Images drawn from the model.")
flags.DEFINE_integer("seed", 0, "Of the samples and the classifier.")


def load(split, batch_size=100, labels=False):
    return datasets.load(
        FLAGS.dataset,
        split,
        image_size=FLAGS.image_size,
        batch_size=batch_size,
        labels=labels,
        binarize=FLAGS.binarize,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    model = keras.saving.load_model(FLAGS.model)
    features = None
    if FLAGS.features == "classifier":
        labelled = load("train", batch_size=None, labels=True)
        features = metrics.classifier_features(labelled, seed=FLAGS.seed)
    elif FLAGS.features == "inception":
        features = metrics.inception_features()
    report = keras_gen.evaluate(
        model,
        load("test", labels=bool(model.num_classes)),
        reference=load("train"),
        num_samples=FLAGS.num_samples,
        feature_extractor=features,
        seed=FLAGS.seed,
    )
    print(report)
    for name in ("report.json", "report.html"):
        report.save(os.path.join(FLAGS.output_dir, name))
    print(f"report: {FLAGS.output_dir}/report.html")


if __name__ == "__main__":
    app.run(main)
