"""Trains a Boltzmann machine, measures its likelihood, and watches a chain.

python examples/boltzmann.py --dataset=fashion_mnist --num_chains=0  # CD-1
python examples/boltzmann.py --hidden_dims=500 --hidden_dims=1000  # deep
"""

import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import DBM, RBM, callbacks, datasets, images, likelihood

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/boltzmann", "For all results.")
flags.DEFINE_enum("binarize", "static", ["static", "dynamic"], "How.")
flags.DEFINE_multi_integer("hidden_dims", [500], "Given twice, a DBM.")
flags.DEFINE_integer("num_chains", 100, "Persistent chains; 0 for CD.")
flags.DEFINE_integer("gibbs_steps", 1, "Sweeps of a training step.")
flags.DEFINE_integer("pretrain_epochs", 0, "Of each layer of a DBM.")
flags.DEFINE_integer("epochs", 100, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 100, "Images per step.")
flags.DEFINE_float("learning_rate", 0.05, "Of SGD; falls to 0.")
flags.DEFINE_integer("ais_chains", 100, "Chains that measure log Z.")
flags.DEFINE_integer("temperatures", 14_500, "That each of them passes.")
flags.DEFINE_integer("measure_every", 0, "Epochs; 0 for at the end alone.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and chains.")


def load(split):
    options = ("batch_size", "binarize", "data_dir")
    options = {name: FLAGS[name].value for name in options}
    return datasets.load(FLAGS.dataset, split, **options)


def measure(model, test):
    """The log-likelihood of the test images (DBM: its bound), by annealing."""
    betas = likelihood.sigmoid_schedule(FLAGS.temperatures)
    log_z = model.log_partition(num_chains=FLAGS.ais_chains, betas=betas)
    low, high = log_z.interval()
    size = float(log_z.effective_sample_size)
    print(f"\nlog Z in [{low:.2f}, {high:.2f}], {size:.0f} effective chains")
    unnormalized = np.concatenate([model.log_unnormalized(x) for x in test])
    nats = likelihood.normalized_log_prob(unnormalized, log_z).value
    print(f"test log_prob: {nats.mean():.2f} +- {high - log_z.value:.2f} nats")


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    shape, dims = datasets.image_shape(train), FLAGS.hidden_dims
    options = ("num_chains", "gibbs_steps", "seed")
    options = {name: FLAGS[name].value for name in options}
    if len(dims) == 1:
        model = RBM(shape, dims[0], **options)
    else:
        pretrain_steps = FLAGS.pretrain_epochs * len(train)
        model = DBM(shape, dims, pretrain_steps=pretrain_steps, **options)
    steps, decay = max(1, FLAGS.epochs * len(train)), keras.optimizers.schedules
    decay = decay.PolynomialDecay(FLAGS.learning_rate, steps, 0.0)
    model.compile(keras.optimizers.SGD(decay))

    def sometimes(epoch, logs):
        if FLAGS.measure_every and epoch % FLAGS.measure_every == 0:
            measure(model, test)

    watch = [
        callbacks.SampleGrid(folder),
        callbacks.Checkpoint(f"{folder}/checkpoints"),
        keras.callbacks.LambdaCallback(on_epoch_end=sometimes),
    ]
    began = time.time()
    model.fit(train, validation_data=test, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    measure(model, test)
    path = model.sample(100, chain_length=1100, burn_in=1000, seed=FLAGS.seed)
    images.save_grid(path, f"{folder}/chain.png")
    model.save(f"{folder}/boltzmann.keras")
    model.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
