"""Trains a GAN on every level of a Laplacian pyramid, and samples the chain.

python examples/laplacian_gan.py --dataset=fashion_mnist --epochs=6
"""

import os
import time

import keras
from absl import app, flags

from keras_gen import LaplacianGAN, callbacks, datasets, losses, networks

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/laplacian_gan", "For all results.")
flags.DEFINE_integer("image_size", None, "Resize images to this.")
flags.DEFINE_integer("num_levels", 3, "28, 14 and 7 pixels, for example.")
flags.DEFINE_integer("num_classes", None, "If conditional on the labels.")
flags.DEFINE_integer("latent_dim", 64, "Width of the coarsest level's z.")
flags.DEFINE_string("loss", "non_saturating", "See LaplacianGAN.compile.")
flags.DEFINE_float("r1", 1.5, "Weight of the R1 penalty.")
flags.DEFINE_float("chained", 1.0, "Share of bands on samples; paper: 0.")
flags.DEFINE_bool("together", True, "Or one level after the other.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 16, "Images per step.")
flags.DEFINE_float("learning_rate", 2e-3, "Of both Adams; falls to a tenth.")
flags.DEFINE_string("dtype", "float32", "Or 'mixed_bfloat16', which is faster.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype)
    train = datasets.load(
        FLAGS.dataset,
        "train",
        image_size=FLAGS.image_size,
        labels=bool(FLAGS.num_classes),
        batch_size=FLAGS.batch_size,
        shuffle_seed=FLAGS.seed,
        data_dir=FLAGS.data_dir,
    )
    height, width, channels = datasets.image_shape(train)
    every = list(range(FLAGS.num_levels))
    shapes = [(height >> k, width >> k, channels) for k in every]
    classes = FLAGS.num_classes
    options = {"filters": 32, "condition_dim": classes, "minibatch_std": True}
    discriminators = [
        *(networks.laplacian_discriminator(s, **options) for s in shapes[:-1]),
        networks.default_discriminator(shapes[-1], classes),
    ]
    gan = LaplacianGAN(
        shapes[0],
        FLAGS.latent_dim,
        FLAGS.num_levels,
        num_classes=classes,
        discriminators=discriminators,
        seed=FLAGS.seed,
    )
    folder, began = FLAGS.output_dir, time.time()
    rate, steps = FLAGS.learning_rate, max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.1)
    for levels in [every] if FLAGS.together else [[k] for k in every[::-1]]:
        gan.compile(
            *(
                keras.optimizers.Adam(decay, beta_1=0.0, beta_2=0.99)
                for _ in range(2)
            ),
            loss=FLAGS.loss,
            gradient_penalty=losses.R1(FLAGS.r1) if FLAGS.r1 else None,
            levels=levels,
            chained=FLAGS.chained,
        )
        name = "_".join(["checkpoints", *map(str, levels)])
        watch = [
            callbacks.SampleGrid(folder),
            callbacks.Checkpoint(os.path.join(folder, name)),
        ]
        gan.fit(train, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    gan.save(os.path.join(folder, "laplacian_gan.keras"))
    gan.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
