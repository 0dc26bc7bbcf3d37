"""Trains a RealNVP, draws from it, and measures its bits per dimension.

python examples/real_nvp.py --dataset=fashion_mnist --epochs=12
python examples/real_nvp.py --dataset=two_moons --epochs=60 --batch_size=512
"""

import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import RealNVP, callbacks, datasets
from keras_gen.datasets import toys
from keras_gen.distributions import bits_per_dim

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/real_nvp", "For all results.")
flags.DEFINE_integer("num_couplings", None, "Of each kind, at each scale.")
flags.DEFINE_integer("num_scales", None, "How many scales.")
flags.DEFINE_integer("hidden_dim", 64, "Maps of the hidden layers.")
flags.DEFINE_integer("num_blocks", 2, "Residual blocks of each network.")
flags.DEFINE_bool("convolutional", None, "Dense networks if it is false.")
flags.DEFINE_string("dequantization", "uniform", "Or 'variational'.")
flags.DEFINE_integer("epochs", 12, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 64, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Adam's; decays to a hundredth.")
flags.DEFINE_string("dtype", "float32", "Or 'mixed_bfloat16', which is faster.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")
OPTIONS = ("num_couplings", "num_scales", "hidden_dim", "num_blocks")
OPTIONS += ("convolutional",)


def plot(flow, path):
    """The density in the plane, and points drawn from it."""
    import matplotlib.pyplot as plt

    ticks = (np.arange(200) + 0.5) / 200
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 1, 1, 2)
    density = np.exp(flow.log_prob(grid.astype("float32")))
    points = np.array(flow.sample(2000, seed=FLAGS.seed)).reshape(-1, 2)
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 5))
    left.imshow(density.reshape(200, 200), origin="lower", extent=(0, 1, 0, 1))
    right.plot(*points.T, ".", markersize=1)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    plt.savefig(path)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype)
    files = {"batch_size": FLAGS.batch_size, "data_dir": FLAGS.data_dir}
    train = datasets.load(FLAGS.dataset, "train", **files)
    test = datasets.load(FLAGS.dataset, "test", **files)
    shape, planar = datasets.image_shape(train), FLAGS.dataset in toys.TOYS
    options = {name: FLAGS[name].value for name in OPTIONS}
    options["dequantization"] = None if planar else FLAGS.dequantization
    flow = RealNVP(shape, seed=FLAGS.seed, **options)
    rate, steps = FLAGS.learning_rate, max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay(rate, steps, 0.01)
    flow.compile(keras.optimizers.Adam(decay))
    watch = [callbacks.Checkpoint(f"{FLAGS.output_dir}/checkpoints")]
    watch += [] if planar else [callbacks.SampleGrid(FLAGS.output_dir)]
    began = time.time()
    flow.fit(train, validation_data=test, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    nats = np.mean(np.concatenate([flow.log_prob(x, seed=0) for x in test]))
    bits = (
        "" if planar else f", {bits_per_dim(nats, shape):.3f} bits a dimension"
    )
    print(f"test log_prob ({flow.log_prob_kind}): {nats:.2f} nats{bits}")
    flow.save(f"{FLAGS.output_dir}/real_nvp.keras")
    flow.export(f"{FLAGS.output_dir}/serving")
    if planar:
        plot(flow, f"{FLAGS.output_dir}/samples.png")
    print(f"samples: {FLAGS.output_dir}/samples.png")


if __name__ == "__main__":
    app.run(main)
