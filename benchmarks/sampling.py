"""Speed of drawing images from a PixelCNN: cached features and full passes.

    python benchmarks/sampling.py --torch_python=OTHER_ENVIRONMENT/bin/python

README.md, beside this file, says what is measured and how to read it.
"""

import contextlib
import json
import os
import pathlib
import platform
import sys

from absl import app, flags

# The harness is idle while the workers work, and its TensorFlow says nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import interleave

FOLDER = pathlib.Path(__file__).resolve().parent
# A full pass of each kind is timed for so many of the 784 pixels, and scaled.
KERAS_SIDES = (
    "cached",
    "cached, one thread",
    "full passes in one loop",
    "full passes in one XLA loop",
    "products alone",
)
TORCH_SIDES = (
    "torch, full passes",
    "torch, rows down to the pixel",
    "torch.compile, full passes",
)

flags.DEFINE_multi_integer("batch_size", [16, 64], "Images drawn at once.")
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_string(
    "torch_python",
    None,
    "Python of an environment with torch. Without it those sides are left out.",
)
flags.DEFINE_bool(
    "check", True, "First compare images with those of `cached=False`."
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
FLAGS = flags.FLAGS


def check():
    """Draws images from caches and by full passes with the same seed."""
    import keras
    import numpy as np
    from sampling_keras_worker import make_model

    keras.utils.set_random_seed(0)
    model = make_model()
    cached = np.asarray(model.sample(4, seed=0))
    plain = np.asarray(model.sample(4, seed=0, cached=False))
    differ = int(np.sum(cached != plain))
    print(f"{differ} of {plain.size} pixels differ from `cached=False`.\n")


def main(_):
    if FLAGS.check:
        check()
    cases = [f"batch {size}" for size in FLAGS.batch_size]
    sides = [
        (side, sys.executable, "sampling_keras_worker.py")
        for side in KERAS_SIDES
    ]
    if FLAGS.torch_python:
        sides += [
            (side, FLAGS.torch_python, "sampling_torch_worker.py")
            for side in TORCH_SIDES
        ]
    else:
        print(f"No --torch_python, so without {', '.join(TORCH_SIDES)}.\n")
    commands = {}
    for side, python, script in sides:
        job = json.dumps({"side": side, "cases": cases})
        commands[side] = [python, str(FOLDER / script), job]
    with contextlib.ExitStack() as stack:
        workers, ready, versions = interleave.start_workers(
            commands, stack, FLAGS.show_stderr
        )
        rows = interleave.interleave(workers, ready, FLAGS.repeats)
    print(
        "Gated PixelCNN, 28x28 binary, 7 layers of 64 filters, float32, "
        f"{FLAGS.repeats} repeats; {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )
    for case in cases:
        print(interleave.markdown_table(rows, case, base=KERAS_SIDES[0]), "\n")
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump({"versions": versions, "rows": rows}, file)


if __name__ == "__main__":
    app.run(main)
