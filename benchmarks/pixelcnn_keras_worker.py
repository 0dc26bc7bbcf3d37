"""The side of keras_gen in pixelcnn_step.py, which starts it: plain `fit`."""

import json
import sys

import interleave
import keras
import numpy as np
import tensorflow as tf

import keras_gen
from keras_gen.models.pixel_cnn import PixelCNN


def main():
    job = json.loads(sys.argv[1])
    keras.utils.set_random_seed(0)
    x = np.load(job["pixels"])

    def build(case):
        model = PixelCNN((28, 28, 1), 64, 7, likelihood=case, seed=0)
        model.compile(optimizer=keras.optimizers.Adam(1e-3))
        pixels = np.float32(x > 127) if case == "bernoulli" else x

        def run():
            model.fit(pixels, batch_size=job["batch_size"], verbose=0)
            return len(x)

        return run

    versions = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_gen": keras_gen.__version__,
    }
    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
