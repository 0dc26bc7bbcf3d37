"""The sides of progressive_step.py that are keras_gen: `fit`, and no more."""

import json
import sys

import interleave
import keras
import numpy as np
import tensorflow as tf

from keras_gen.growth import GrowthSchedule
from keras_gen.models.growth_plan import operations_per_image
from keras_gen.models.progressive_gan import ProgressiveGAN
from keras_gen.networks.progressive import progressive_discriminator

BATCH_SIZE, LATENT_DIM = 16, 128


def model(size, maps, fused):
    widths = {"fmap_base": 2**20, "fmap_max": maps}
    shape = (size, size, 3)
    gan = ProgressiveGAN(
        shape,
        LATENT_DIM,
        discriminator=progressive_discriminator(shape, fused=fused, **widths),
        seed=0,
        **widths,
    )
    # A fade to the full size that lasts longer than the benchmark.
    gan.compile(
        schedule=GrowthSchedule(
            fade_images=10**7,
            stable_images=0,
            batch_size=BATCH_SIZE,
            start_resolution=size // 2,
        )
    )
    return gan


def main():
    job = json.loads(sys.argv[1])
    keras.utils.set_random_seed(0)
    if "bfloat16" in job["side"]:
        keras.config.set_dtype_policy("mixed_bfloat16")
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    num_images = BATCH_SIZE * job["steps"]

    def build(case):
        size = int(case)
        gan = model(size, job["maps"], "fused" in job["side"])
        each = 2e-9 * operations_per_image(gan)[size]
        versions[f"GFLOP, {job['side']}, {case}"] = each
        x = np.random.default_rng(0).random((num_images, size, size, 3))
        data = tf.data.Dataset.from_tensor_slices(x.astype("float32"))
        data = data.batch(BATCH_SIZE, drop_remainder=True).cache()

        def run():
            gan.fit(data, epochs=1, verbose=0)
            return num_images

        return run

    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
