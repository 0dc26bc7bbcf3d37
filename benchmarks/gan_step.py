"""Training speed of a DCGAN: keras_gen against PyTorch.

    python benchmarks/gan_step.py --torch_python=OTHER/bin/python

The networks are those of DCGAN at 32x32 pixels, with batch normalization in
both; pixels are random. A step of a batch is one update of the discriminator
and one of the generator, non-saturating, each on fresh noise and with its own
Adam, and then the moving average of the generator's weights. Ours is what a
user calls, `GAN.fit` with all defaults, which logs accuracies and diversity as
well; PyTorch's is a plain loop over shuffled batches of one resident tensor,
with the fused Adam, that computes no gradient it does not need.

bfloat16 is `mixed_bfloat16` here and autocast there. README.md, beside this
file, says how it is measured and how to read the tables.
"""

import contextlib
import json
import os
import pathlib
import platform
import sys
import tempfile

import interleave
import numpy as np
from absl import app, flags

WORKER = pathlib.Path(__file__).resolve().parent / "gan_step_worker.py"
BATCH_SIZE = 64
OURS = "keras_gen fit"
TORCH_SIDES = (
    "torch eager",
    "torch eager, channels last",
    "torch.compile, channels last",
)
CASES = ["float32", "bfloat16"]

flags.DEFINE_integer(
    "images", 3200, "Images an epoch: the work of one repeat.", lower_bound=1
)
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_multi_enum("dtypes", CASES, CASES, "What is computed in.")
flags.DEFINE_string(
    "torch_python", None, "Python of an environment with torch and numpy."
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
flags.register_validator(
    "images",
    lambda images: images % BATCH_SIZE == 0,
    f"must be a multiple of the batch size {BATCH_SIZE}",
)
FLAGS = flags.FLAGS


def start_workers(job, stack):
    """Starts all sides, one after another, and prints which cannot run."""
    sides = {OURS: sys.executable}
    if FLAGS.torch_python:
        sides.update(dict.fromkeys(TORCH_SIDES, FLAGS.torch_python))
    else:
        print("Without PyTorch, which needs --torch_python.\n")
    commands = {}
    for side, python in sides.items():
        command = [python, str(WORKER), json.dumps({**job, "side": side})]
        commands[side] = command
    return interleave.start_workers(commands, stack, FLAGS.show_stderr)


def main(_):
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        pixels = os.path.join(folder, "pixels.npy")
        shape = (FLAGS.images, 32, 32, 3)
        random = np.random.default_rng(0)
        np.save(pixels, random.random(shape, dtype="float32"))
        job = {
            "batch_size": BATCH_SIZE,
            "cases": FLAGS.dtypes,
            "pixels": pixels,
        }
        workers, cases, versions = start_workers(job, stack)
        rows = interleave.interleave(workers, cases, FLAGS.repeats)

    print(
        f"DCGAN, 32x32x3 pixels, batch {BATCH_SIZE}, {FLAGS.images} images a "
        f"repeat, {FLAGS.repeats} repeats; {len(os.sched_getaffinity(0))} "
        f"cores, {platform.machine()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )
    for case in FLAGS.dtypes:
        print(interleave.markdown_table(rows, case, base=OURS), "\n")
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump({"versions": versions, "rows": rows}, file)


if __name__ == "__main__":
    app.run(main)
