"""Trains a progressive GAN from 4 pixels to full size, and films its growth.

python examples/progressive_gan.py --dataset=photos/ --preset=paper_1024
"""

import collections
import time

import keras
import tensorflow as tf
from absl import app, flags

import keras_gen
from keras_gen import callbacks, datasets, losses, networks

# A rest has as many images as a fade; `slope` is what the penalty holds.
Preset = collections.namedtuple(
    "Preset",
    "latent_dim fmap_base fmap_max fade_images total_images slope group batch",
)
BATCH = {4: 16, 256: 14, 512: 6, 1024: 3}  # for one GPU of 16 GB
PRESETS = {  # the paper's for CelebA-HQ and CIFAR-10; 32 pixels on two cores
    "paper_1024": Preset(512, 8192, 512, 800_000, 19_000_000, 1.0, 16, BATCH),
    "cifar10": Preset(128, 4096, 128, 400_000, 20_000_000, 750.0, 16, {4: 16}),
    "small": Preset(64, 1024, 64, 60_000, 480_000, 1.0, 4, {4: 32, 16: 16}),
}
FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "A tfds name or a folder.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/progressive_gan", "For all files.")
flags.DEFINE_enum("preset", "small", list(PRESETS), "Sizes and schedule.")
flags.DEFINE_integer("image_size", None, "Resize images to this.")
flags.DEFINE_integer("batch_size", None, "Images per step, not the preset's.")
flags.DEFINE_integer("epochs", None, "Passes, not as many as the preset asks.")
flags.DEFINE_integer("fade_images", None, "Of a fade, not the preset's.")
flags.DEFINE_bool("keep_all", False, "Save the model after every epoch.")
flags.DEFINE_string("dtype", "float32", "Or mixed_bfloat16, mixed_float16.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def load(image_size, batch_size):
    options = {"image_size": image_size, "batch_size": batch_size}
    options |= {"data_dir": FLAGS.data_dir, "shuffle_seed": FLAGS.seed}
    data = datasets.load(FLAGS.dataset, **options)
    if datasets.image_shape(data)[:2] == (28, 28):  # no doubling of 4
        data = data.map(lambda x: tf.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)]))
    if FLAGS.preset == "paper_1024":  # half are mirrored, others each time
        flip = tf.image.stateless_random_flip_left_right
        data = data.enumerate().map(lambda i, x: flip(x, [FLAGS.seed, i]))
    return data


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype)
    preset, folder = PRESETS[FLAGS.preset], FLAGS.output_dir
    batch = {4: FLAGS.batch_size} if FLAGS.batch_size else preset.batch
    train = load(FLAGS.image_size, max(batch.values()))
    shape = datasets.image_shape(train)
    maps = {"fmap_base": preset.fmap_base, "fmap_max": preset.fmap_max}
    judge = networks.progressive_discriminator(
        shape, group_size=preset.group, **maps
    )
    sizes = {"latent_dim": preset.latent_dim, "discriminator": judge, **maps}
    gan = keras_gen.ProgressiveGAN(shape, seed=FLAGS.seed, **sizes)
    penalty = losses.GradientPenalty(10.0, target=preset.slope)
    fade = FLAGS.fade_images or preset.fade_images
    schedule = keras_gen.GrowthSchedule(fade, fade, batch)
    gan.compile(schedule=schedule, gradient_penalty=penalty)
    gan.plan()
    often = preset.total_images // 1000  # steps, about 50 pictures in all
    grid = callbacks.SampleGrid(folder, every_steps=often)
    film = callbacks.TrainingAnimation(grid)
    file = f"{folder}/epochs/{{epoch:03d}}.keras"
    keep = FLAGS.keep_all * [keras.callbacks.ModelCheckpoint(file)]
    watch = [film, callbacks.Checkpoint(f"{folder}/checkpoints"), *keep]
    images_per_epoch = len(train) * max(batch.values())
    epochs = FLAGS.epochs or -(-preset.total_images // images_per_epoch)
    began = time.time()
    data = load if preset.batch is BATCH else train  # 14 is no part of 16
    gan.fit(data, epochs=epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    gan.save(f"{folder}/progressive_gan.keras")
    gan.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
