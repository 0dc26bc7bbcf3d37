"""Trains a GAN with any loss, watches its samples, and exports its generator.

python examples/gan.py --dataset=fashion_mnist --epochs=6
"""

import time

import keras
from absl import app, flags

from keras_gen import GAN, callbacks, datasets, losses
from keras_gen.networks import infogan, resnet

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/gan", "Where everything is written.")
flags.DEFINE_integer("image_size", None, "Resize images to this; 16 to 64.")
flags.DEFINE_enum("networks", "dcgan", ["dcgan", "infogan", "resnet"], "Kind.")
flags.DEFINE_integer("latent_dim", 64, "Dimensions of z.")
flags.DEFINE_string("loss", "non_saturating", "See GAN.compile.")
flags.DEFINE_float("gradient_penalty", None, "Weight of WGAN-GP's penalty.")
flags.DEFINE_float("r1", None, "Weight of the R1 penalty.")
flags.DEFINE_float("weight_clipping", None, "Largest weight of the critic.")
flags.DEFINE_float("instance_noise", None, "Standard deviation, on [-1, 1].")
flags.DEFINE_float("label_smoothing", 0.0, "Of real images.")
flags.DEFINE_integer("packing", 1, "Images that are judged at once.")
flags.DEFINE_integer("d_steps", 1, "Discriminator updates per step.")
flags.DEFINE_integer("unrolled_steps", 0, "That the generator looks ahead.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 64, "Images per step.")
flags.DEFINE_float("learning_rate", 2e-4, "Of both Adams.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")
OPTIONS = "loss d_steps label_smoothing unrolled_steps instance_noise".split()


def networks(shape):
    if FLAGS.networks == "dcgan":
        return {}  # the default
    seen = (*shape[:2], FLAGS.packing * shape[2])
    if FLAGS.networks == "infogan":
        generator = infogan.infogan_generator(FLAGS.latent_dim, shape)
        judge = infogan.infogan_discriminator(seen, batch_normalization=False)
    else:
        generator = resnet.resnet_generator(FLAGS.latent_dim, shape)
        judge = resnet.resnet_discriminator(seen)
    return {"generator": generator, "discriminator": judge}


def penalty():
    if FLAGS.weight_clipping:
        return losses.WeightClipping(FLAGS.weight_clipping)
    return losses.R1(FLAGS.r1) if FLAGS.r1 else FLAGS.gradient_penalty


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train = datasets.load(
        FLAGS.dataset,
        "train",
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        shuffle_seed=FLAGS.seed,
        data_dir=FLAGS.data_dir,
    )
    shape, folder = datasets.image_shape(train), FLAGS.output_dir
    options = {"packing": FLAGS.packing, "seed": FLAGS.seed}
    gan = GAN(shape, FLAGS.latent_dim, **options, **networks(shape))
    gan.compile(
        d_optimizer=keras.optimizers.Adam(FLAGS.learning_rate, beta_1=0.5),
        g_optimizer=keras.optimizers.Adam(FLAGS.learning_rate, beta_1=0.5),
        gradient_penalty=penalty(),
        **{name: FLAGS[name].value for name in OPTIONS},
    )
    grid = callbacks.SampleGrid(folder, every_steps=500)
    watch = [grid, callbacks.Checkpoint(f"{folder}/checkpoints")]
    began = time.time()
    gan.fit(train, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    gan.save(f"{folder}/gan.keras")
    gan.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
