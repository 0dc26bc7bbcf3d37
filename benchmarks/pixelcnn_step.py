"""Training speed of a gated PixelCNN: keras_gen against PyTorch.

    python benchmarks/pixelcnn_step.py --torch_python=OTHER/bin/python

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
KERAS_SIDE = "keras_gen fit"
TORCH_SIDES = (
    "torch",
    "torch, channels last",
    "torch.compile",
    "torch.compile, channels last",
)

flags.DEFINE_integer("images", 960, "Images of one repeat.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Repeats of every side.", lower_bound=1)
flags.DEFINE_multi_enum(
    "likelihoods",
    ["categorical", "bernoulli"],
    ["categorical", "bernoulli"],
    "256 levels or black and white.",
)
flags.DEFINE_string(
    "torch_python",
    None,
    "Python of an environment with torch. Without it those sides are left out.",
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
FLAGS = flags.FLAGS


def start_workers(job, stack):
    """Starts all sides, one after another, and prints which cannot run."""
    sides = [(KERAS_SIDE, sys.executable, "pixelcnn_keras_worker.py")]
    if FLAGS.torch_python:
        sides += [
            (side, FLAGS.torch_python, "pixelcnn_torch_worker.py")
            for side in TORCH_SIDES
        ]
    else:
        print(f"No --torch_python, so without {', '.join(TORCH_SIDES)}.\n")
    commands = {}
    for side, python, script in sides:
        job_of_side = json.dumps({**job, "side": side})
        command = [python, str(FOLDER / script), job_of_side]
        commands[side] = command
    return interleave.start_workers(commands, stack, FLAGS.show_stderr)


def main(_):
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        path = os.path.join(folder, "pixels.npy")
        shape = (FLAGS.images, 28, 28, 1)
        np.save(path, np.random.default_rng(0).integers(0, 256, shape, "uint8"))
        job = {
            "batch_size": FLAGS.batch_size,
            "cases": FLAGS.likelihoods,
            "pixels": path,
        }
        workers, cases, versions = start_workers(job, stack)
        rows = interleave.interleave(workers, cases, FLAGS.repeats)
    print(
        "Gated PixelCNN, 28x28 random pixels, 7 layers of 64 filters, batch "
        f"{FLAGS.batch_size}, Adam, float32, {FLAGS.images} images a repeat, "
        f"{FLAGS.repeats} repeats; {len(os.sched_getaffinity(0))} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )
    for case in FLAGS.likelihoods:
        print(interleave.markdown_table(rows, case, base=KERAS_SIDE), "\n")
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump({"versions": versions, "rows": rows}, file)


if __name__ == "__main__":
    app.run(main)
