"""Trains a VAE, watches its samples, measures its likelihood, and exports it.

python examples/vae.py --dataset=fashion_mnist --binarize=dynamic --epochs=60
"""

import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import VAE, callbacks, datasets, networks

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/vae", "Where everything is written.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_multi_integer("latent_dim", [40], "Given twice, two layers.")
flags.DEFINE_multi_integer("hidden_dims", [300, 300], "Gated hidden layers.")
flags.DEFINE_integer("num_classes", None, "If conditional on the labels.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Adam's; decays to a tenth.")
flags.DEFINE_integer("num_samples", 100, "Importance samples of log_prob.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")
OPTIONS = VAE.__init__.__kwdefaults__  # words and numbers become flags
KINDS = {bool: "bool", int: "integer", float: "float", str: "string"}
for name, default in OPTIONS.items():
    if kind := KINDS.get(type(default)):
        getattr(flags, f"DEFINE_{kind}")(name, default, "See VAE.")


def load(split):
    files = {"data_dir": FLAGS.data_dir, "batch_size": FLAGS.batch_size}
    files["labels"] = bool(FLAGS.num_classes)
    return datasets.load(FLAGS.dataset, split, binarize=FLAGS.binarize, **files)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    shape, images = datasets.image_shape(train), test.map(lambda x, *y: x)
    options = {name: FLAGS[name].value for name in OPTIONS if name in FLAGS}
    dims = FLAGS.latent_dim
    options["latent_dim"] = dims if len(dims) > 1 else dims[0]
    sizes = VAE(shape, **options)  # what its networks must take and give
    keras.utils.set_random_seed(FLAGS.seed)
    more = {"gated": True, "condition_dim": FLAGS.num_classes}
    units, maps = (n.output_shape[-1] for n in (sizes.encoder, sizes.decoder))
    dims = FLAGS.hidden_dims
    options["encoder"] = networks.mlp_encoder(shape, units, dims, **more)
    options["decoder"] = networks.mlp_decoder(
        sizes.decoder_dim, shape, dims, output_channels=maps, **more
    )
    vae = VAE(shape, **options)
    if FLAGS.prior == "vamp":  # whose pseudo-images start at real ones
        count = max(8, -(-500 // FLAGS.batch_size))  # batches
        real = np.concatenate(list(train.map(lambda x, *y: x).take(count)))
        vae.prior_layer.adapt(real, seed=FLAGS.seed)
    steps, decay = FLAGS.epochs * len(train), keras.optimizers.schedules
    decay = decay.CosineDecay(FLAGS.learning_rate, max(1, steps), 0.1)
    vae.compile(keras.optimizers.Adam(decay))
    classes = next(iter(test))[1][:16] if FLAGS.num_classes else None
    pictures = callbacks.ReconstructionGrid(folder, images, condition=classes)
    resume = callbacks.Checkpoint(f"{folder}/checkpoints")
    watch = [callbacks.SampleGrid(folder), pictures, resume]
    began = time.time()
    vae.fit(train, epochs=FLAGS.epochs, validation_data=test, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    print("test", vae.evaluate(test, verbose=0, return_dict=True))
    k = FLAGS.num_samples
    nats = [vae.log_prob(x, num_samples=k, seed=FLAGS.seed) for x in images]
    print(f"test log_prob, {k} samples: {np.mean(np.concatenate(nats)):.2f}")
    vae.save(f"{folder}/vae.keras")
    vae.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
