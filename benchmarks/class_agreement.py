"""On how many samples a classifier sees the class that was asked for.

    python benchmarks/class_agreement.py --model=run/vae/vae.keras

Works for every model that is conditional on classes. Two classifiers judge,
trained on the labelled data set, their own accuracy on the test images beside
the shares: a dense one, of one hidden layer of 500, and the convolutional one
of `metrics.classifier_features`. The second reads texture, and takes blurred
images for other classes, real ones as well.
"""

import keras
import numpy as np
from absl import app, flags

from keras_gen import datasets, metrics, networks
from keras_gen.evaluation import batches

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file.", required=True)
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_integer("num_samples", 10_000, "Images, evenly over the classes.")
flags.DEFINE_integer("epochs", 6, "Of the dense classifier's training.")
flags.DEFINE_integer("seed", 0, "Of the classifiers and the samples.")


def load(split, **options):
    options |= {"labels": True, "data_dir": FLAGS.data_dir}
    return datasets.load(FLAGS.dataset, split, **options)


def dense_classifier(num_classes):
    train = load("train", batch_size=128)
    shape = datasets.image_shape(train)
    network = networks.mlp_encoder(shape, num_classes, (500,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    network.fit(train, epochs=FLAGS.epochs, verbose=0)
    return network


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    model = keras.saving.load_model(FLAGS.model)
    if not model.num_classes:
        raise app.UsageError(f"{FLAGS.model} is not conditional on classes.")
    features = metrics.classifier_features(load("train"), seed=FLAGS.seed)
    if model.num_classes != features.num_classes:
        raise app.UsageError(
            f"The model has {model.num_classes} classes, {FLAGS.dataset} has "
            f"{features.num_classes}."
        )
    classes = np.arange(model.num_classes)
    classifiers = {
        "dense": dense_classifier(len(classes)),
        "convolutional": features.classifier,
    }

    images, labels = zip(*load("test", batch_size=500), strict=True)
    samples = list(
        batches.sample_batches(model, FLAGS.num_samples, FLAGS.seed, classes)
    )
    rows = {
        "real test images": (np.concatenate(labels), images),
        "samples": (np.resize(classes, FLAGS.num_samples), samples),
    }
    print(f"| classifier | of | all | {' | '.join(map(str, classes))} |")
    print(f"|---|---|{'---:|' * (1 + len(classes))}")
    for name, classifier in classifiers.items():
        for kind, (asked, x) in rows.items():
            seen = [classifier.predict_on_batch(b).argmax(-1) for b in x]
            right = np.concatenate(seen) == asked
            each = " | ".join(
                f"{right[asked == i].mean():.3f}" for i in classes
            )
            print(f"| {name} | {kind} | {right.mean():.4f} | {each} |")


if __name__ == "__main__":
    app.run(main)
