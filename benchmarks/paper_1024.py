"""The 1024-pixel networks of the paper on a CPU: do they fit, and how long?

    python benchmarks/paper_1024.py

Trains the progressive GAN of the paper from 4 to 1024 pixels in bfloat16, one
step of one image in each fade and one after it, on noise in place of pictures;
then exports it, and draws an image of 1024 pixels from the SavedModel. Prints
the wall time of each step, which includes tracing its graph, and the most
memory that the process had until then.
"""

import resource
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen.growth import GrowthSchedule
from keras_gen.models.progressive_gan import ProgressiveGAN

FLAGS = flags.FLAGS
flags.DEFINE_integer("image_size", 1024, "Of the last resolution.")
flags.DEFINE_integer("batch_size", 1, "Images of a step.")
flags.DEFINE_string("dtype", "mixed_bfloat16", "Keras dtype policy.")


def gigabytes():
    """The most memory that this process had, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Table(keras.callbacks.Callback):
    began = None

    def on_train_begin(self, logs=None):
        self.began = time.perf_counter()
        print("| resolution | alpha | seconds | memory, GiB |")
        print("| --- | --- | --- | --- |")

    def on_train_batch_end(self, batch, logs=None):
        now, gan = time.perf_counter(), self.model
        print(
            f"| {gan.resolution} | {gan.alpha:g} | {now - self.began:.1f} | "
            f"{gigabytes():.1f} |",
            flush=True,
        )
        assert all(np.isfinite(value) for value in logs.values()), logs
        self.began = now


def main(_):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(FLAGS.dtype)
    size, count = FLAGS.image_size, FLAGS.batch_size
    gan = ProgressiveGAN((size, size, 3), latent_dim=512, seed=0)
    for network in (gan.generator, gan.discriminator):
        print(f"{network.name}: {network.count_params():,} parameters")
    gan.compile(
        schedule=GrowthSchedule(count, count, batch_size=count),
        steps_per_execution=1,
    )
    noise = tf.random.stateless_uniform((count, size, size, 3), (0, 0))
    steps = 2 * len(gan.resolutions) - 1
    data = tf.data.Dataset.from_tensors(noise).repeat(steps)
    gan.fit(data, verbose=0, callbacks=[Table()])
    assert gan.resolution == size and gan.alpha == 1.0
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        gan.export(folder + "/serving")
        loaded = tf.saved_model.load(folder + "/serving")
        x = loaded.sample(tf.constant(1), tf.constant(0, "int64"))
    assert x.shape == (1, size, size, 3) and np.all(np.isfinite(x))
    print(
        f"\nexported, loaded and sampled {tuple(x.shape)} in "
        f"{time.perf_counter() - began:.0f} s; memory {gigabytes():.1f} GiB"
    )


if __name__ == "__main__":
    app.run(main)
