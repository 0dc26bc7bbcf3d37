"""Draws images of a class from a model and a classifier that do not know it.

python examples/bayes_rule.py --dataset=fashion_mnist --epochs=20  # of a VAE
python examples/bayes_rule.py --dataset=fashion_mnist --model=FLOW.keras
"""

import time

import keras
import numpy as np
from absl import app, flags
from keras import layers

from keras_gen import VAE, BayesConditional, datasets, images

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/bayes_rule", "For all results.")
flags.DEFINE_string("model", None, "Of images; else a VAE is trained.")
flags.DEFINE_integer("latent_dim", 16, "Latents of the VAE.")
flags.DEFINE_integer("units", 500, "Of each classifier.")
flags.DEFINE_bool("decay", False, "Lower their rate to 0, along a cosine.")
flags.DEFINE_string("method", None, "Of drawing, see BayesConditional.")
flags.DEFINE_integer("num_samples", 64, "Images that are drawn and judged.")
flags.DEFINE_integer("num_steps", 100, "Steps of each chain.")
flags.DEFINE_integer("epochs", 20, "Of the VAE, and of each classifier.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and chains.")


def load(split):
    files = {"data_dir": FLAGS.data_dir, "batch_size": FLAGS.batch_size}
    return datasets.load(FLAGS.dataset, split, labels=True, **files)


def classifier(shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),  # convolutions would take blur for texture
            layers.Dense(FLAGS.units, activation="relu"),
            layers.Dense(num_classes, dtype="float32"),
        ]
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    shape = datasets.image_shape(train)
    num_classes = 1 + max(int(np.max(y)) for _, y in train)
    began = time.time()
    if FLAGS.model:
        model = keras.saving.load_model(FLAGS.model)
    else:
        model = VAE(shape, FLAGS.latent_dim, seed=FLAGS.seed)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(train, validation_data=test, epochs=FLAGS.epochs)
    networks = [classifier(shape, num_classes) for _ in range(2)]
    options = {"from_logits": True, "method": FLAGS.method, "seed": FLAGS.seed}
    bayes, judge = (BayesConditional(model, n, **options) for n in networks)
    decay = keras.optimizers.schedules.CosineDecay(
        1e-3, max(1, FLAGS.epochs * len(train))
    )
    for one in (bayes, judge):
        one.compile(keras.optimizers.Adam(decay if FLAGS.decay else 1e-3))
        one.fit(train, validation_data=test, epochs=FLAGS.epochs)
    print(f"trained for {time.time() - began:.0f} s")
    y = np.arange(FLAGS.num_samples) % num_classes
    x = bayes.sample(len(y), condition=y, num_steps=FLAGS.num_steps, seed=0)
    images.save_grid(x[:64], f"{folder}/samples.png")
    agreed = np.mean(np.argmax(judge.classify(x), axis=1) == y)
    print(f"another classifier agrees on {agreed:.1%}")
    print("chains of class 0:", bayes.diagnose(0, num_results=100))
    print("share of each class:", np.round(bayes.adapt(2000), 3))
    bayes.save(f"{folder}/bayes_rule.keras")
    bayes.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
