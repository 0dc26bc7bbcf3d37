"""Training speed of a VAE: keras_gen against PyTorch, pythae and itself.

    python benchmarks/train_step.py --torch_python=OTHER_ENVIRONMENT/bin/python

README.md, beside this file, says what is measured and how to read it.
"""

import contextlib
import json
import os
import pathlib
import platform
import sys
import tempfile

import numpy as np
from absl import app, flags

# The harness is idle while the workers work, and its TensorFlow says nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import interleave

FOLDER = pathlib.Path(__file__).resolve().parent
BATCH_SIZE = 128
KERAS_SIDES = (
    "keras_gen fit",
    "bare tf.function",
    "bare tf.function, XLA",
)
TORCH_SIDES = ("torch eager, fused Adam", "torch.compile", "pythae")

flags.DEFINE_integer(
    "images", 38400, "Images an epoch: the work of one repeat.", lower_bound=1
)
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_multi_enum(
    "networks", ["mlp", "conv"], ["mlp", "conv"], "Which networks to train."
)
flags.DEFINE_string(
    "torch_python",
    None,
    "Python of an environment with torch 2.13 and pythae 0.1.2. Without it "
    "those sides are left out.",
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
flags.register_validator(
    "images",
    lambda images: images % BATCH_SIZE == 0 and images <= 60000,
    f"must be a multiple of the batch size {BATCH_SIZE}, at most 60000",
)
FLAGS = flags.FLAGS


def choose_data(path):
    """Writes the pixels to `path`; returns what the Keras workers load."""
    import tensorflow_datasets as tfds

    split = f"train[:{FLAGS.images}]"
    if tfds.builder("fashion_mnist").is_prepared():
        from keras_gen import datasets

        batches = datasets.load("fashion_mnist", split, batch_size=BATCH_SIZE)
        np.save(path, np.concatenate([np.asarray(x) for x in batches]))
        return {"dataset": "fashion_mnist", "split": split}
    pixels = np.random.default_rng(0).random((FLAGS.images, 28, 28, 1))
    np.save(path, pixels.astype("float32"))
    return {"dataset": None}


def start_workers(job, stack):
    """Starts all sides, one after another, and prints which cannot run."""
    sides = [
        (side, sys.executable, "vae_keras_worker.py") for side in KERAS_SIDES
    ]
    if FLAGS.torch_python:
        sides += [
            (side, FLAGS.torch_python, "vae_torch_worker.py")
            for side in TORCH_SIDES
        ]
    else:
        print(f"No --torch_python, so without {', '.join(TORCH_SIDES)}.\n")
    commands = {}
    for side, python, script in sides:
        command = [
            python,
            str(FOLDER / script),
            json.dumps({**job, "side": side}),
        ]
        commands[side] = command
    return interleave.start_workers(commands, stack, FLAGS.show_stderr)


def main(_):
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        pixels = os.path.join(folder, "pixels.npy")
        data = choose_data(pixels)
        job = {
            "batch_size": BATCH_SIZE,
            "cases": FLAGS.networks,
            "num_images": FLAGS.images,
            "pixels": pixels,
            **data,
        }
        workers, cases, versions = start_workers(job, stack)
        rows = interleave.interleave(workers, cases, FLAGS.repeats)

    print(
        f"VAE, 28x28 {data['dataset'] or 'random'} pixels, batch {BATCH_SIZE}, "
        f"float32, {FLAGS.images} images a repeat, {FLAGS.repeats} repeats; "
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )
    for case in FLAGS.networks:
        print(interleave.markdown_table(rows, case, base=KERAS_SIDES[0]), "\n")
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump({"versions": versions, "data": data, "rows": rows}, file)


if __name__ == "__main__":
    app.run(main)
