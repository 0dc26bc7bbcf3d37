"""Trains a generative stochastic network, and watches its chain.

python examples/gsn.py --dataset=fashion_mnist --walkback_steps=1  # without
python examples/gsn.py --hidden_dims=1500 --hidden_dims=1500  # deep
"""

import time

import keras
from absl import app, flags

from keras_gen import GSN, callbacks, datasets, images

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/gsn", "Where everything is written.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_multi_integer("hidden_dims", [1000], "Given twice, two layers.")
flags.DEFINE_integer("walkback_steps", 4, "Steps of the chain in training.")
flags.DEFINE_float("noise", 0.4, "Share of pixels that are corrupted.")
flags.DEFINE_integer("epochs", 50, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 100, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam; decays to a tenth.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and chains.")


def load(split):
    return datasets.load(
        FLAGS.dataset,
        split,
        batch_size=FLAGS.batch_size,
        binarize=FLAGS.binarize,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    gsn = GSN(
        datasets.image_shape(train),
        FLAGS.hidden_dims,
        walkback_steps=FLAGS.walkback_steps,
        noise=FLAGS.noise,
        seed=FLAGS.seed,
    )
    steps, decay = max(1, FLAGS.epochs * len(train)), keras.optimizers.schedules
    decay = decay.CosineDecay(FLAGS.learning_rate, steps, 0.1)
    gsn.compile(keras.optimizers.Adam(decay))
    watch = [
        callbacks.SampleGrid(folder),
        callbacks.Checkpoint(f"{folder}/checkpoints"),
    ]
    began = time.time()
    gsn.fit(train, validation_data=test, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    path = gsn.sample(400, chain_length=500, burn_in=100, seed=FLAGS.seed)
    images.save_grid(path, f"{folder}/chain.png")
    gsn.save(f"{folder}/gsn.keras")
    gsn.export(f"{folder}/serving")
    print(f"one chain: {folder}/chain.png")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
