"""Bits a sample of a WaveNet on a source whose entropy is known.

The source is `x[t] = 1.5 x[t-1] - 0.8 x[t-2] + 0.06 e[t]`, e standard normal,
rounded to 256 levels by the mu-law. For the exact past, the code length of the
level is that of a normal distribution between the edges of the level; its mean
is the entropy, but for what the past loses by rounding. Windows start in the
midst of the source, and the model, which does not see what came before, pays
for that at the first samples: they are left out of both means.

python benchmarks/wavenet_ar2.py --steps=3000
"""

import math
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen import audio
from keras_gen.models.wavenet import WaveNet

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 3000, "Updates, of 16 new waveforms each.")
flags.DEFINE_float("learning_rate", 5e-3, "Adam's; decays to a hundredth.")
flags.DEFINE_integer("seed", 0, "Of weights and waveforms.")

COEFFICIENTS, SCALE = (1.5, -0.8), 0.06
LENGTH, SKIPPED, BATCH_SIZE, LEVELS = 256, 20, 16, 256


def source(count, seed):
    """Waveforms `(count, LENGTH + 2)`: two samples of past, then a window."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, SCALE, (count, LENGTH + 202))
    for t in range(2, x.shape[1]):  # forgets its start in 200 samples
        x[:, t] += COEFFICIENTS[0] * x[:, t - 1] + COEFFICIENTS[1] * x[:, t - 2]
    return x[:, 200:].astype("float32")


def known_bits(x, rounded_past):
    """Of each sample of a window by the true conditional distribution."""
    level = audio.mu_law_encode(x).numpy()
    edges = audio.mu_law_decode(np.arange(LEVELS + 1) - 0.5).numpy()
    edges = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
    past = audio.mu_law_decode(level).numpy() if rounded_past else x
    mean = COEFFICIENTS[0] * past[:, 1:-1] + COEFFICIENTS[1] * past[:, :-2]
    below, above = (
        np.array(
            tf.math.erfc((mean - edges[level[:, 2:] + i]) / SCALE / 2**0.5)
        )
        for i in (0, 1)
    )
    return -np.log2((above - below) / 2)[:, SKIPPED:]


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    model = WaveNet(LENGTH, 32, (1, 2, 4, 8), seed=FLAGS.seed)
    rate = keras.optimizers.schedules.CosineDecay(
        FLAGS.learning_rate, FLAGS.steps, 0.01
    )
    model.compile(keras.optimizers.Adam(rate))
    steps = min(FLAGS.steps, 250)
    began = time.time()
    for epoch in range(FLAGS.steps // steps):
        x = source(steps * BATCH_SIZE, (FLAGS.seed, epoch))[:, 2:]
        logs = model.fit(x, batch_size=BATCH_SIZE, verbose=0).history
        print(f"{(epoch + 1) * steps} steps: {logs['bits_per_sample'][0]:.4f}")
    x = source(2000, (FLAGS.seed, 10**6))
    entropy, rounded = (np.mean(known_bits(x, r)) for r in (False, True))
    nats = [
        model.conditionals(part[:, 2:]).distribution.log_prob(
            audio.mu_law_encode(part[:, 2:])
        )
        for part in np.split(x, 20)
    ]
    bits = -np.mean(np.concatenate(nats)[:, SKIPPED:]) / math.log(2)
    print(f"{time.time() - began:.0f} s of training and evaluation")
    print(f"entropy {entropy:.4f} ({rounded:.4f} given the rounded past)")
    print(f"WaveNet {bits:.4f}, {bits - entropy:.4f} bits above the entropy")


if __name__ == "__main__":
    app.run(main)
