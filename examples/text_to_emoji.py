"""Draws emoji for a phrase, by a GAN conditional on the names of emoji.

python examples/text_to_emoji.py --phrase="cat with a red heart"
"""

import os
import re
import time
import unicodedata
import zlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from keras_gen import GAN, callbacks, images, losses

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "emoji_images/fluent_64", "Prepared for tfds.")
flags.DEFINE_string("data_dir", os.environ.get("TFDS_DATA_DIR"), "Of tfds.")
flags.DEFINE_string("output_dir", "run/text_to_emoji", "For all results.")
flags.DEFINE_string("phrase", "smiling cat face", "What to draw in the end.")
flags.DEFINE_integer("image_size", 32, "Pixels; 64 takes four times as long.")
flags.DEFINE_integer("epochs", 300, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 64, "Images per step.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def name(points):
    """What code points show: "woman rocket" for "1f469-200d-1f680"."""
    points = re.findall("[0-9a-f]+", re.sub("200d|fe0f", "", points))
    names = (unicodedata.name(chr(int(point, 16)), "") for point in points)
    return " ".join(filter(None, names)).lower()


def encode(text):
    """Counts of words and of their letters in threes, hashed, of length 1."""
    counts = np.zeros(256, "float32")
    for word in re.findall(r"\w+", text.lower()):
        threes = [f"<{word}>"[i : i + 3] for i in range(len(word))]
        for piece in (word, *threes):
            place, sign = divmod(zlib.crc32(piece.encode()), 2)
            counts[place % len(counts)] += 2 * sign - 1
    return counts / max(1.0, np.linalg.norm(counts))


def load():
    """Pictures in [0, 1], and the names of what they show."""
    options = {"data_dir": FLAGS.data_dir, "batch_size": -1}
    data = tfds.load(FLAGS.dataset, split="train", **options)
    names = np.array([name(points.decode()) for points in data["id"].numpy()])
    # Skin tones would make half of the pictures copies, but for the colour.
    kept = np.array([bool(n) and "modifier" not in n for n in names])
    x, size = data["image"].numpy()[kept], [FLAGS.image_size] * 2
    return np.array(tf.image.resize(x, size, "area")) / 255, names[kept]


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    (x, names), folder = load(), FLAGS.output_dir
    y = np.stack([*map(encode, names)])
    gan = GAN(x.shape[1:], 64, condition_dim=y.shape[1], seed=FLAGS.seed)
    gan.compile(gradient_penalty=losses.R1(1.0))
    grid = callbacks.SampleGrid(folder, condition=np.repeat(y[:8], 8, axis=0))
    resume = callbacks.Checkpoint(f"{folder}/checkpoints")
    began = time.time()
    gan.fit(x, y, FLAGS.batch_size, FLAGS.epochs, callbacks=[grid, resume])
    print(f"trained for {time.time() - began:.0f} s; rows of samples.png:")
    print(", ".join(names[:8]))
    phrase = [encode(FLAGS.phrase)] * 16
    images.save_grid(gan.sample(16, condition=phrase), f"{folder}/phrase.png")
    gan.save(f"{folder}/text_to_emoji.keras")
    gan.export(f"{folder}/serving")
    print(f"phrase: {folder}/phrase.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
