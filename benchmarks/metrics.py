"""Speed and memory of two metrics: keras_gen against the common programs.

    python benchmarks/metrics.py --zoo=CHECKOUT --torch_python=OTHER/bin/python

- `swd`: sliced Wasserstein distance of 2 x 2,048 images of 64x64x3, from
  images to the distances of three levels. The peer is `LaplacianSWDMetric` of
  facebookresearch/pytorch_GAN_zoo, which sorts with NumPy. NumPy's AVX-512 sort
  is slow on some processors (AMD Zen 4), so it runs a second time without.
  Its values are larger, as it takes the patches of a batch from the first
  image of it.
- `frechet`: Frechet distance of Gaussians in 2,048 dimensions, from means and
  covariances of 10,000 features a side. The peer is the usual recipe with
  `scipy.linalg.sqrtm`.

`CHECKOUT` is a clone of https://github.com/facebookresearch/pytorch_GAN_zoo,
`OTHER` an environment with torch and numpy. README.md, beside this file, says
how to read such tables. Memory is that of one call in a fresh process, on top
of what libraries and data take.
"""

import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import interleave
import numpy as np
from absl import app, flags

WORKER = pathlib.Path(__file__).resolve().parent / "metrics_worker.py"
ZOO = "pytorch_GAN_zoo"
ZOO_WITHOUT_AVX512 = "pytorch_GAN_zoo, sorting without AVX-512"
OURS, SCIPY = "keras_gen", "scipy sqrtm"

flags.DEFINE_multi_enum(
    "metrics", ["swd", "frechet"], ["swd", "frechet"], "What to measure."
)
flags.DEFINE_integer("repeats", 5, "Repeats of every side.", lower_bound=1)
flags.DEFINE_integer("images", 2048, "Images a side of `swd`.", lower_bound=1)
flags.DEFINE_integer("dim", 2048, "Dimensions of `frechet`.", lower_bound=2)
flags.DEFINE_string("zoo", None, f"Folder of a checkout of {ZOO}.")
flags.DEFINE_string(
    "torch_python", None, f"Python of an environment with torch, for {ZOO}."
)
flags.DEFINE_string("output", None, "JSON file for every repeat, optional.")
flags.DEFINE_bool("show_stderr", False, "Show what the workers write to it.")
FLAGS = flags.FLAGS


def make_images(rng, noise):
    """uint8 `(images, 64, 64, 3)`: an 8x8 image enlarged, and noise."""
    x = rng.random((FLAGS.images, 8, 8, 3), dtype="float32")
    x = x.repeat(8, axis=1).repeat(8, axis=2)
    x += noise * rng.standard_normal(x.shape, dtype="float32")
    return np.rint(255 * x.clip(0, 1)).astype("uint8")


def make_moments(rng):
    """Mean and covariance of 10,000 rectified, correlated features."""
    weights = rng.standard_normal((FLAGS.dim, FLAGS.dim), dtype="float32")
    features = rng.standard_normal((10_000, FLAGS.dim), dtype="float32")
    features = np.maximum(features @ (weights / np.sqrt(FLAGS.dim)), 0)
    features = features.astype("float64")
    return features.mean(axis=0), np.cov(features, rowvar=False)


def write_data(folder):
    """Writes what all sides are given, a .npz file for each metric."""
    rng = np.random.default_rng(0)
    if "swd" in FLAGS.metrics:
        np.savez(
            os.path.join(folder, "swd.npz"),
            real=make_images(rng, 0.05),
            generated=make_images(rng, 0.06),
        )
    if "frechet" in FLAGS.metrics:
        (m1, c1), (m2, c2) = make_moments(rng), make_moments(rng)
        np.savez(
            os.path.join(folder, "frechet.npz"), m1=m1, c1=c1, m2=m2, c2=c2
        )


def sides_of(metric):
    """Commands that start a worker, and why peers are left out."""
    command = [sys.executable, str(WORKER)]
    if metric == "frechet":
        return {OURS: command, SCIPY: command}
    if not FLAGS.zoo or not FLAGS.torch_python:
        print(f"Without {ZOO}, which needs --zoo and --torch_python.\n")
        return {OURS: command}
    if not os.path.isdir(os.path.join(FLAGS.zoo, "models", "metrics")):
        print(f"Without {ZOO}: {FLAGS.zoo!r} is no checkout of it.\n")
        return {OURS: command}
    zoo = [FLAGS.torch_python, str(WORKER)]
    without = "NPY_DISABLE_CPU_FEATURES=X86_V4 AVX512_ICL AVX512_SPR"
    return {OURS: command, ZOO: zoo, ZOO_WITHOUT_AVX512: ["env", without, *zoo]}


def measure(metric, folder):
    """Rows of all repeats, dicts of values and memory by side, versions."""
    sides, found, cases, versions = sides_of(metric), {}, {}, {}
    with contextlib.ExitStack() as stack:
        workers = []
        for side, command in sides.items():
            job = {
                "metric": metric,
                "side": "zoo" if side.startswith(ZOO) else side,
                "zoo": FLAGS.zoo,
                "data": os.path.join(folder, f"{metric}.npz"),
            }
            once = [*command, json.dumps({**job, "once": True})]
            stderr = None if FLAGS.show_stderr else subprocess.DEVNULL
            answer = subprocess.run(
                once, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
            if answer.returncode and side == OURS:
                sys.exit(f"{OURS} does not run: see --show_stderr.")
            if answer.returncode:
                print(f"Without {side}: see --show_stderr.\n")
                continue
            found[side] = json.loads(answer.stdout)
            worker = interleave.Worker(
                side, [*command, json.dumps(job)], FLAGS.show_stderr
            )
            stack.callback(worker.close)
            cases[side], _, new_versions = worker.wait_until_ready()
            versions.update(new_versions)
            workers.append(worker)
        return (
            interleave.interleave(workers, cases, FLAGS.repeats),
            found,
            versions,
        )


def table(metric, rows, found):
    """Markdown: time, ratios of keras_gen to each side, and memory."""
    lines = [
        f"| {metric}: side | seconds, median | best | times as fast as the "
        "side, median (range) | per CPU second | others' cores | memory, MB | "
        "value |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = [row for row in rows if row["side"] == OURS]
    for side, once in found.items():
        own = [row for row in rows if row["side"] == side]
        seconds = [row["seconds"] for row in own]
        others = [row["others_cpu"] for row in own]
        others = "?" if None in others else f"{statistics.median(others):.2f}"
        values = ", ".join(f"{value:.10g}" for value in once["values"])
        lines.append(
            f"| {side} | {statistics.median(seconds):.2f} "
            f"| {min(seconds):.2f} "
            f"| {interleave.ratio(ours, own, 'images_per_second')} "
            f"| {interleave.ratio(ours, own, 'images_per_cpu_second')} "
            f"| {others} | {once['megabytes']:.0f} | {values} |"
        )
    return "\n".join(lines)


def main(_):
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_data(folder)
        for metric in FLAGS.metrics:
            rows, found, versions = measure(metric, folder)
            results[metric] = {"rows": rows, "once": found}
            print(
                f"{FLAGS.repeats} repeats; {len(os.sched_getaffinity(0))} "
                f"cores, {platform.machine()}, "
                + ", ".join(f"{k} {v}" for k, v in versions.items())
                + f".\n\n{table(metric, rows, found)}\n"
            )
    if FLAGS.output:
        with open(FLAGS.output, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    app.run(main)
