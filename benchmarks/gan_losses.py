"""Compares adversarial losses on equal networks, after as many images each.

    python benchmarks/gan_losses.py --loss=hinge --seed=0 --seed=1

The networks are those of DCGAN, the discriminator with half as many maps,
`MinibatchStdDev` and no batch normalization, so that a penalty may be used.
`--infogan` takes those of the large-scale study of GANs, which are larger.
A run may have several phases, with batches and optimizers of their own. Small
batches learn most from an image, but the noise of their normalization adds to what a
generator shows in training, and is missing when it is used.
Every run prints a row of Markdown: the Frechet distance in the features of a
classifier, divided by the trace of the real covariance, with its standard
error; coverage; and how the classifier counts the classes of the samples. As
many samples are scored as test images, 10,000 by default, all from the averaged
generator.

A run that was killed goes on where it was, but `seconds` are those of its last
start. One that is finished is not made again: its row is read from
`--output_dir`.
"""

import json
import os
import pathlib
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import GAN, callbacks, datasets, losses, metrics, networks
from keras_gen.evaluation import batches, scores

LATENT_DIM = 64
# The five objectives, each with the penalty that belongs to it.
PENALTIES = {
    "non_saturating": losses.R1(1.5),
    "least_squares": losses.R1(1.5),
    "wasserstein": losses.GradientPenalty(10.0),
    "hinge": losses.R1(1.5),
    "relativistic": losses.R1(1.5),
}
NAMES = list(PENALTIES)

FLAGS = flags.FLAGS
flags.DEFINE_multi_enum("loss", NAMES, NAMES, "Which losses to train.")
flags.DEFINE_multi_integer("seed", [0], "Of weights, data order and noise.")
flags.DEFINE_string("dataset", "fashion_mnist", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/gan_losses", "For all results.")
flags.DEFINE_multi_integer("epochs", [11], "Of each phase.")
flags.DEFINE_multi_integer("batch_size", [16], "Of each phase.")
flags.DEFINE_multi_float("rate", [2e-3], "Of both Adams, in each phase.")
flags.DEFINE_integer("d_steps", 1, "Discriminator updates per step.")
flags.DEFINE_integer("penalty_interval", 4, "Steps between two penalties.")
flags.DEFINE_bool("infogan", False, "Take the networks of the study.")
flags.DEFINE_string("dtype", "float32", "Policy of the training, of Keras.")
flags.DEFINE_integer("num_samples", 10_000, "Images of each side scored.")
COLUMNS = (
    "loss",
    "seed",
    "images",
    "seconds",
    "frechet, %",
    "error, %",
    "density",
    "coverage",
    "least class, %",
    "largest class, %",
    "classes",
)


def load(split, **arguments):
    return datasets.load(
        FLAGS.dataset, split, data_dir=FLAGS.data_dir, **arguments
    )


def networks_for(shape):
    if FLAGS.infogan:
        generator = networks.infogan_generator(LATENT_DIM, shape)
        discriminator = networks.infogan_discriminator(
            shape, batch_normalization=False
        )
    else:
        generator = networks.dcgan_generator(LATENT_DIM, shape)
        discriminator = networks.dcgan_discriminator(
            shape, filters=32, batch_normalization=False, minibatch_std=True
        )
    return {"generator": generator, "discriminator": discriminator}


def adam(rate, num_steps):
    """Adam, whose rate falls to a tenth along half a cosine."""
    decay = keras.optimizers.schedules.CosineDecay(rate, num_steps, alpha=0.1)
    return keras.optimizers.Adam(decay, beta_1=0.0, beta_2=0.99)


def train(loss, seed, folder):
    """The trained model, and how many images and seconds it took."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(FLAGS.dtype)
    shape = datasets.image_shape(load("train", batch_size=1))
    gan = GAN(shape, LATENT_DIM, **networks_for(shape), seed=seed)
    began, epoch, num_images = time.time(), 0, 0
    phases = FLAGS.epochs, FLAGS.batch_size, FLAGS.rate
    for epochs, batch_size, rate in [*zip(*phases, strict=True)]:
        images = load("train", batch_size=batch_size, shuffle_seed=seed)
        steps = epochs * int(images.cardinality())
        gan.compile(
            *(adam(rate, each * steps) for each in (FLAGS.d_steps, 1)),
            loss=loss,
            gradient_penalty=PENALTIES[loss],
            penalty_interval=FLAGS.penalty_interval,
            d_steps=FLAGS.d_steps,
        )
        gan.fit(
            images,
            initial_epoch=epoch,
            epochs=epoch + epochs,
            verbose=2,
            callbacks=[
                callbacks.SampleGrid(folder),
                callbacks.Checkpoint(folder / f"checkpoints_{batch_size}"),
            ],
        )
        epoch += epochs
        num_images += steps * batch_size
    return gan, num_images, time.time() - began


def score(gan, extractor, seed):
    """Distance, coverage and classes of samples, against test images."""
    frechet = metrics.FrechetDistance(extractor)
    coverage = metrics.DensityCoverage(extractor, max_samples=FLAGS.num_samples)
    for x in load("test").take(FLAGS.num_samples).batch(500):
        scores.update([frechet, coverage], real=x)
    classes = np.zeros(extractor.num_classes, int)
    for x in batches.sample_batches(gan, FLAGS.num_samples, seed):
        scores.update([frechet, coverage], generated=x)
        seen = extractor.classifier.predict_on_batch(x).argmax(-1)
        classes += np.bincount(seen, minlength=len(classes))
    distance = frechet.details()
    relative = 100 * distance["relative_to_real_variance"]
    per_unit = relative / distance["frechet_distance"]
    return {
        "frechet, %": relative,
        "error, %": per_unit * distance["standard_error"],
        **coverage.result(),
        "least class, %": 100 * classes.min() / classes.sum(),
        "largest class, %": 100 * classes.max() / classes.sum(),
        "classes": classes.tolist(),
    }


def row_of(loss, seed, extractor):
    """The results of one run, from its file if it was made before."""
    folder = pathlib.Path(FLAGS.output_dir, f"{loss}-{seed}")
    file = folder / "row.json"
    if file.exists():
        return json.loads(file.read_text())
    gan, num_images, seconds = train(loss, seed, folder)
    gan.save(folder / "gan.keras")
    run = {"loss": loss, "seed": seed, "images": num_images}
    row = {**run, "seconds": seconds, **score(gan, extractor, seed)}
    part = file.with_suffix(".part")
    part.write_text(json.dumps(row))
    os.replace(part, file)
    return row


def cell(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(_):
    extractor = metrics.classifier_features(load("train", labels=True))
    print(
        f"{FLAGS.dataset}, {FLAGS.num_samples} samples; {extractor.name}, "
        f"accuracy {extractor.accuracy:.4f}\n\n| {' | '.join(COLUMNS)} |\n"
        f"|{'---|' * len(COLUMNS)}",
        flush=True,
    )
    for seed in FLAGS.seed:
        for loss in FLAGS.loss:
            row = row_of(loss, seed, extractor)
            cells = [cell(row[name]) for name in COLUMNS]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
