"""Gibbs sweeps a second of an RBM: keras_gen, NumPy and scikit-learn.

    python benchmarks/gibbs.py --chains=100 --visible=784 --hidden=500

A sweep draws all hidden and then all visible units of all chains. The same
float32 weights are given to all sides, which take turns, so that what else
runs on the machine hits them alike; the table has medians.

- `keras_gen`: the chains that `RBM.sample` and `impute` walk, one TensorFlow
  graph.
- `NumPy`: the plain loop, in float32, by `Generator.random`.
- `scikit-learn`: `BernoulliRBM.gibbs`, which draws in float64.
"""

import os
import platform
import statistics
import time

import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn.neural_network import BernoulliRBM

from keras_gen.models import chains
from keras_gen.models.rbm import RBM

flags.DEFINE_integer("chains", 100, "Chains side by side.", lower_bound=1)
flags.DEFINE_integer("visible", 784, "Visible units.", lower_bound=1)
flags.DEFINE_integer("hidden", 500, "Hidden units.", lower_bound=1)
flags.DEFINE_integer("sweeps", 200, "Sweeps of a repeat.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
FLAGS = flags.FLAGS


def keras_gen_side(weights, visible_bias, hidden_bias, start):
    rbm = RBM((1, FLAGS.visible, 1), FLAGS.hidden, num_chains=0, seed=0)
    rbm.kernel.assign(weights)
    rbm.units.bias.assign(visible_bias)
    rbm.hidden_bias.assign(hidden_bias)

    @tf.function(autograph=False)
    def walk(state):
        return chains.walk(
            lambda state, seed: rbm._sweep(state, seed)[1],
            state,
            0,
            FLAGS.sweeps,
            (0, 1),
        )

    state = tf.constant(start)
    return lambda: walk(state).numpy()


def numpy_side(weights, visible_bias, hidden_bias, start):
    random = np.random.default_rng(0)

    def draw(logits):
        rates = 1 / (1 + np.exp(-logits))
        uniform = random.random(logits.shape, dtype="float32")
        return (uniform < rates).astype("float32")

    def walk():
        h = start
        for _ in range(FLAGS.sweeps):
            v = draw(h @ weights.T + visible_bias)
            h = draw(v @ weights + hidden_bias)
        return h

    return walk


def sklearn_side(weights, visible_bias, hidden_bias, start):
    rbm = BernoulliRBM(FLAGS.hidden, random_state=0)
    rbm.components_ = np.ascontiguousarray(weights.T)
    rbm.intercept_visible_ = visible_bias
    rbm.intercept_hidden_ = hidden_bias
    rbm.random_state_ = np.random.RandomState(0)
    rates = 1 / (1 + np.exp(-(start @ weights.T + visible_bias)))
    first = (np.random.default_rng(0).random(rates.shape) < rates).astype(
        "float32"
    )

    def walk():
        v = first
        for _ in range(FLAGS.sweeps):
            v = rbm.gibbs(v).astype("float32")
        return v

    return walk


def main(_):
    random = np.random.default_rng(0)
    shape = FLAGS.visible, FLAGS.hidden
    weights = random.normal(0, 0.05, shape).astype("float32")
    visible_bias = random.normal(-1, 1, shape[0]).astype("float32")
    hidden_bias = random.normal(-1, 1, shape[1]).astype("float32")
    start = random.integers(0, 2, (FLAGS.chains, shape[1])).astype("float32")
    parts = weights, visible_bias, hidden_bias, start
    sides = {
        "keras_gen": keras_gen_side(*parts),
        "NumPy": numpy_side(*parts),
        "scikit-learn": sklearn_side(*parts),
    }
    seconds = {name: [] for name in sides}
    for walk in sides.values():
        walk()  # traces, and fills caches
    for _ in range(FLAGS.repeats):
        for name, walk in sides.items():
            began = time.perf_counter()
            walk()
            seconds[name].append(time.perf_counter() - began)
    print(
        f"{FLAGS.chains} chains of {shape[0]} x {shape[1]} units, "
        f"{FLAGS.sweeps} sweeps, {FLAGS.repeats} repeats; "
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}.\n\n"
        "| side | sweeps a second, median | best | keras_gen is |\n"
        "| --- | --- | --- | --- |"
    )
    for name, times in seconds.items():
        ratios = [
            other / ours
            for other, ours in zip(times, seconds["keras_gen"], strict=True)
        ]
        print(
            f"| {name} | {FLAGS.sweeps / statistics.median(times):.0f} "
            f"| {FLAGS.sweeps / min(times):.0f} "
            f"| {statistics.median(ratios):.2f} times as fast |"
        )


if __name__ == "__main__":
    app.run(main)
