"""Counts the classes among a model's samples with a classifier of its own.

python benchmarks/class_histogram.py --model=run/gan/gan.keras

The classifier is trained on the labelled data set, and its accuracy on the
test split stands beside the counts, as do the counts of real test images.
"""

import keras
import numpy as np
from absl import app, flags
from keras import layers

import keras_gen

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file.", required=True)
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_integer("num_classes", 10, "Of the data set.")
flags.DEFINE_integer("num_samples", 10_000, "Images drawn from the model.")
flags.DEFINE_integer("epochs", 3, "Of the classifier's training.")
flags.DEFINE_integer("seed", 0, "Of the classifier and the samples.")


def load(split):
    return keras_gen.datasets.load(
        FLAGS.dataset,
        split,
        batch_size=128,
        labels=True,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test = load("train"), load("test")
    classifier = keras.Sequential(
        [
            keras.Input(keras_gen.datasets.image_shape(train)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(FLAGS.num_classes),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile("adam", loss, metrics=["accuracy"])
    classifier.fit(train, epochs=FLAGS.epochs, verbose=2)
    accuracy = classifier.evaluate(test, verbose=0, return_dict=True)
    model = keras.saving.load_model(FLAGS.model)
    samples = np.concatenate(
        [
            model.sample(500, seed=FLAGS.seed + i)
            for i in range(-(-FLAGS.num_samples // 500))
        ]
    )[: FLAGS.num_samples]
    print(f"test accuracy of the classifier: {accuracy['accuracy']:.4f}")
    for name, images in {
        "real test images": test.map(lambda x, y: x),
        "samples": samples,
    }.items():
        classes = classifier.predict(images, verbose=0).argmax(-1)
        print(name, np.bincount(classes, minlength=FLAGS.num_classes))


if __name__ == "__main__":
    app.run(main)
