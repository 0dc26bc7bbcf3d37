"""Trains every family for the same time, and sets them side by side.

python examples/compare.py --dataset=fashion_mnist --seconds=120
"""

import pathlib
import time

import keras
from absl import app, flags
from matplotlib import pyplot

import keras_gen
from keras_gen import datasets, images, metrics

GREY = {"VAE": {"latent_dim": 32, "likelihood": "discretized_logistic"}}
GREY |= {"PixelCNN": {"num_filters": 24}, "NICE": {}}
GREY |= {"RealNVP": {"num_couplings": 3, "num_scales": 2, "hidden_dim": 32}}
GREY |= {"Glow": {"num_couplings": 4, "num_scales": 2}}
GREY |= {"GaussianMixture": {"num_components": 10}}
GREY |= {"RBM": {"hidden_dim": 500, "likelihood": "gaussian"}}
GREY |= {"GSN": {"hidden_dim": 1000}, "GAN": {"latent_dim": 64}}
GREY |= {"LaplacianGAN": {"latent_dim": 64, "num_levels": 2}}
BINARY = {"FVBN": {}, "NADE": {"hidden_dim": 500}, "MADE": {}}
BINARY |= {"PixelCNN": {"num_filters": 24, "likelihood": "bernoulli"}}
BINARY |= {"VAE": {"latent_dim": 32}, "GAN": {"latent_dim": 64}}
BINARY |= {"RBM": {"hidden_dim": 500}, "DBM": {"hidden_dims": (500, 1000)}}
BINARY |= {"GSN": GREY["GSN"], "BernoulliMixture": {"num_components": 50}}
FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/compare", "Finished families stay.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_multi_string("model", [], "All that suit, if none is given.")
flags.DEFINE_float("seconds", 60, "Of training, once it is compiled.")
flags.DEFINE_integer("batch_size", 32, "Images per step.")
flags.DEFINE_integer("num_samples", 2000, "And real images to compare with.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and samples.")


class Deadline(keras.callbacks.Callback):
    end = None

    def on_train_batch_end(self, batch, logs=None):
        self.end = self.end or time.perf_counter() + FLAGS.seconds
        self.model.stop_training |= time.perf_counter() > self.end


def main(_):
    families, reports = BINARY if FLAGS.binarize else GREY, {}
    if not {*FLAGS.model} <= {*families}:
        raise app.UsageError(f"--model must be one of {[*families]}")
    keras.utils.set_random_seed(FLAGS.seed)
    files = {"binarize": FLAGS.binarize, "data_dir": FLAGS.data_dir}
    batches = files | {"batch_size": FLAGS.batch_size}
    train = datasets.load(FLAGS.dataset, "train", **batches)
    test = datasets.load(FLAGS.dataset, "test", batch_size=100, **files)
    labelled = datasets.load(FLAGS.dataset, "train", labels=True, **files)
    features = metrics.classifier_features(labelled)
    options = {"reference": train, "num_samples": FLAGS.num_samples}
    options |= {"feature_extractor": features, "verbose": 0}
    shape, page = datasets.image_shape(train), pyplot.figure(figsize=(16, 7))
    folder = pathlib.Path(FLAGS.output_dir)
    for name in FLAGS.model or families:
        file, picture = folder / f"{name}.json", folder / f"{name}.png"
        if not file.exists():
            make, sizes = getattr(keras_gen, name), families[name]
            model = make(shape, **sizes, seed=FLAGS.seed)
            model.compile()
            model.fit(train, epochs=9999, verbose=0, callbacks=[Deadline()])
            report = keras_gen.evaluate(model, test, **options)
            x, began = model.sample(100, seed=0), time.perf_counter()
            x = model.sample(100, seed=1)  # again, now that it is compiled
            seconds = 10 * (time.perf_counter() - began)
            report["seconds_per_1000_samples"] = seconds
            report["parameters"] = report["model"]["num_parameters"]
            images.save_grid(x[:64], picture)
            report.save(file)
        reports[name] = keras_gen.Report.load(file)
        panel = page.add_subplot(2, 5, len(reports), title=name)
        panel.imshow(pyplot.imread(picture), "gray")
        panel.axis("off")
    keras_gen.compare(reports)
    page.savefig(folder / "samples.png", bbox_inches="tight")
    print(f"samples: {folder / 'samples.png'}")


if __name__ == "__main__":
    app.run(main)
