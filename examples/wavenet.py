"""Trains a WaveNet on speech, compares it with linear prediction, and speaks.

python examples/wavenet.py --dataset=asterisk_speech --epochs=20
python examples/wavenet.py --dataset=FOLDER  # of WAV files, in train/ and test/
"""

import math
import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import WaveNet, audio, callbacks
from keras_gen.datasets import load_audio
from keras_gen.linear_prediction import LinearPredictor

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "asterisk_speech", "See datasets.load_audio.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/wavenet", "Where all is written.")
flags.DEFINE_integer("sample_rate", 8000, "Samples per second of the clips.")
flags.DEFINE_integer("num_samples", 4096, "Length of a waveform.")
flags.DEFINE_integer("num_filters", 32, "Width of the residual path.")
flags.DEFINE_integer("num_dilations", 10, "They double from 1 on.")
flags.DEFINE_integer("num_stacks", 1, "How often they are repeated.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 4, "Waveforms per step.")
flags.DEFINE_float("learning_rate", 2e-3, "Adam's; decays to a tenth.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and draws.")


def load(split):
    return load_audio(
        FLAGS.dataset,
        split,
        num_samples=FLAGS.num_samples,
        batch_size=FLAGS.batch_size,
        data_dir=FLAGS.data_dir,
    )


def bits(nats):
    return -np.mean(nats) / (FLAGS.num_samples * math.log(2))


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    dilations = [2**i for i in range(FLAGS.num_dilations)] * FLAGS.num_stacks
    model = WaveNet(
        FLAGS.num_samples, FLAGS.num_filters, dilations, seed=FLAGS.seed
    )
    steps = max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay
    model.compile(keras.optimizers.Adam(decay(FLAGS.learning_rate, steps, 0.1)))
    resume = callbacks.Checkpoint(os.path.join(folder, "checkpoints"))
    began = time.time()
    model.fit(
        train, validation_data=test, epochs=FLAGS.epochs, callbacks=[resume]
    )
    print(f"trained for {time.time() - began:.0f} s")
    nats = np.concatenate([model.log_prob(x) for x in test])
    predictor = LinearPredictor(16).fit(np.concatenate(list(train.take(200))))
    linear = np.concatenate([predictor.log_prob(x) for x in test])
    print(f"test: {bits(nats):.3f} bits a sample, {bits(linear):.3f} by linear")
    print("prediction from 16 samples, of the same levels")
    model.save(os.path.join(folder, "wavenet.keras"))
    model.export(os.path.join(folder, "serving"))
    speech = np.concatenate(model.sample(4, seed=FLAGS.seed))
    path = os.path.join(folder, "samples.wav")
    audio.write_wav(path, speech, FLAGS.sample_rate)
    print(f"samples: {path}, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
