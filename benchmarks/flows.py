"""RealNVP in keras_gen against normflows, zuko and plain PyTorch couplings.

    python benchmarks/flows.py --torch_python=OTHER_ENVIRONMENT/bin/python

Eight affine couplings between halves of a vector, each with a network of two
hidden layers: of 2 dimensions (64 units, batches of 512, for density and
samples of 4096) and of 784 (256 units, 128, 512). Training is through `fit`
with the defaults of the package, and elsewhere a plain loop over one resident
tensor with the fused Adam. README.md, beside this file, says how to read it.
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
CASES = [
    f"{work}-{dims}"
    for dims in (2, 784)
    for work in ("train", "density", "draw")
]
TORCH_SIDES = ("couplings", "couplings, compiled", "normflows", "zuko")

flags.DEFINE_integer("steps", 100, "Batches of a repeat.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_multi_enum("cases", CASES, CASES, "What to measure.")
flags.DEFINE_string(
    "torch_python",
    None,
    "Python of an environment with torch 2.13, normflows 1.7.3 and zuko 1.6.0. "
    "Sides whose package it lacks are left out.",
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
FLAGS = flags.FLAGS


def start_workers(stack):
    """Starts all sides, one after another, and prints which cannot run."""
    sides = [("keras_gen", sys.executable, "flows_keras_worker.py")]
    if FLAGS.torch_python:
        sides += [
            (side, FLAGS.torch_python, "flows_torch_worker.py")
            for side in TORCH_SIDES
        ]
    else:
        print(f"No --torch_python, so without {', '.join(TORCH_SIDES)}.\n")
    commands = {}
    for side, python, script in sides:
        job = {"side": side, "cases": FLAGS.cases, "steps": FLAGS.steps}
        command = [python, str(FOLDER / script), json.dumps(job)]
        commands[side] = command
    return interleave.start_workers(commands, stack, FLAGS.show_stderr)


def main(_):
    with contextlib.ExitStack() as stack:
        workers, cases, versions = start_workers(stack)
        rows = interleave.interleave(workers, cases, FLAGS.repeats)
    print(
        f"RealNVP, float32, {FLAGS.steps} batches a repeat, {FLAGS.repeats} "
        f"repeats; {len(os.sched_getaffinity(0))} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ". An image is a vector here.\n"
    )
    for case in FLAGS.cases:
        print(interleave.markdown_table(rows, case, base="keras_gen"), "\n")
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump({"versions": versions, "rows": rows}, file)


if __name__ == "__main__":
    app.run(main)
