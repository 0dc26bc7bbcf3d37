"""Speed of a progressive GAN's training step: keras_gen against PyTorch.

    python benchmarks/progressive_step.py --torch_python=OTHER/bin/python \
        --zoo=CHECKOUT

A step updates discriminator and generator once, with gradient penalty, drift
and moving average, in the middle of a fade: 16 images, 128 maps in every layer,
128 latents. "keras_gen" is the paper's architecture, as are the sides of
PyTorch; "fused" pools in the discriminator's convolutions too, which is another
function. `CHECKOUT` is a clone of
https://github.com/facebookresearch/pytorch_GAN_zoo, whose progressive GAN is a
side too. The second table says what share of the operations that this CPU does
in a large matrix product the step gets done.

Other processes flatter TensorFlow: read `others' cores`, see README.md.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags

# The harness is idle while the workers work, and its TensorFlow says nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import interleave

FOLDER = pathlib.Path(__file__).resolve().parent
KERAS_SIDES = (
    "keras_gen",
    "keras_gen, fused",
    "keras_gen, bfloat16",
    "keras_gen, fused, bfloat16",
)
TORCH_SIDES = (
    "torch",
    "torch, channels last",
    "torch, channels last, bfloat16",
)
ZOO = "pytorch_GAN_zoo"
# Pages that are kept; PyTorch gains most from it.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}

flags.DEFINE_multi_integer("sizes", [32, 64], "Pixels of the images.")
flags.DEFINE_integer("maps", 128, "Maps in every layer.", lower_bound=1)
flags.DEFINE_integer("steps", 2, "Steps a repeat.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_bool("malloc", False, "Whether all sides keep freed memory.")
flags.DEFINE_string(
    "torch_python",
    None,
    "Python of an environment with torch 2.13. Without it those sides are "
    "left out.",
)
flags.DEFINE_string("zoo", None, f"Folder of a checkout of {ZOO}.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
FLAGS = flags.FLAGS


def start_workers(stack):
    """Starts all sides, one after another, and prints which cannot run."""
    sides = [(s, sys.executable, "keras") for s in KERAS_SIDES]
    if FLAGS.torch_python:
        sides += [(s, FLAGS.torch_python, "torch") for s in TORCH_SIDES]
        if FLAGS.zoo:
            sides.append((ZOO, FLAGS.torch_python, "torch"))
    else:
        print(f"No --torch_python, so without {'; '.join(TORCH_SIDES)}.\n")
    commands = {}
    for side, python, framework in sides:
        job = {
            "side": side,
            "zoo": FLAGS.zoo if side == ZOO else None,
            "maps": FLAGS.maps,
            "steps": FLAGS.steps,
            "cases": [str(size) for size in FLAGS.sizes],
        }
        script = FOLDER / f"progressive_{framework}_worker.py"
        command = [python, str(script), json.dumps(job)]
        if FLAGS.malloc:
            settings = [f"{name}={value}" for name, value in MALLOC.items()]
            command = ["env", *settings, *command]
        commands[side] = command
    return interleave.start_workers(commands, stack, FLAGS.show_stderr)


def matrix_product_gflops():
    """GFLOP/s of a large float32 matrix product in TensorFlow."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "matmul.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split("median")[1].split()[0])


def print_operations(rows, versions):
    peak = matrix_product_gflops()
    print(f"A matrix product in float32 reaches {peak:.0f} GFLOP/s.\n")
    print("| side | size | GFLOP an image | GFLOP/s | of that product |")
    print("| --- | --- | --- | --- | --- |")
    for side in KERAS_SIDES:
        for size in map(str, FLAGS.sizes):
            speeds = [
                row["images_per_second"]
                for row in rows
                if (row["side"], row["case"]) == (side, size)
            ]
            if not speeds:
                continue
            each = versions[f"GFLOP, {side}, {size}"]
            rate = each * statistics.median(speeds)
            print(
                f"| {side} | {size} | {each:.2f} | {rate:.0f} "
                f"| {rate / peak:.0%} |"
            )


def main(_):
    with contextlib.ExitStack() as stack:
        workers, cases, versions = start_workers(stack)
        rows = interleave.interleave(workers, cases, FLAGS.repeats)
    names = [name for name in versions if not name.startswith("GFLOP")]
    print(
        f"16 images, {FLAGS.maps} maps, {FLAGS.steps} steps a repeat, "
        f"{FLAGS.repeats} repeats, {len(os.sched_getaffinity(0))} cores, "
        + ", ".join(f"{name} {versions[name]}" for name in names)
        + f"; malloc {'tuned' if FLAGS.malloc else 'as it is'}.\n"
    )
    for size in map(str, FLAGS.sizes):
        print(interleave.markdown_table(rows, size, base=KERAS_SIDES[0]), "\n")
    print_operations(rows, versions)


if __name__ == "__main__":
    app.run(main)
