"""What a sample of a WaveNet costs, with queues and by full passes.

Networks of equally many blocks whose dilations, and so the receptive field,
grow. With one queue for each block the cost should not grow with them; a full
pass for each sample costs `num_samples` times more, and is timed on a shorter
waveform. Processor seconds count where other programs are running.

python benchmarks/wavenet_sampling.py --batch_size=1
"""

import statistics
import time

from absl import app, flags

from keras_gen.models.wavenet import WaveNet

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 1, "Waveforms at once.")
flags.DEFINE_integer("num_filters", 32, "Width of the residual path.")
flags.DEFINE_integer("num_blocks", 10, "Blocks of each network.")
flags.DEFINE_integer("num_samples", 4000, "Length of a waveform.")
flags.DEFINE_integer("plain_samples", 250, "Length for full passes.")
flags.DEFINE_multi_integer("shift", [0, 1, 4, 7], "Log2 of the first dilation.")
flags.DEFINE_integer("repeats", 7, "Rounds, in each of which all are timed.")


def timed(model, cached):
    """Microseconds of wall and of processor a step of the waveform."""
    wall, cpu = time.perf_counter(), time.process_time()
    model.sample(FLAGS.batch_size, seed=0, cached=cached).numpy()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [1e6 * seconds / model.num_samples for seconds in (wall, cpu)]


def main(_):
    sides = {}
    for shift in FLAGS.shift:
        # With a first dilation of 1, all are 1: the smallest queues there are.
        grow = [
            2 ** (shift + i if shift else 0) for i in range(FLAGS.num_blocks)
        ]
        sides[f"queues, {1 + sum(grow)}"] = (
            WaveNet(FLAGS.num_samples, FLAGS.num_filters, grow),
            True,
        )
    doubling = [2**i for i in range(FLAGS.num_blocks)]
    sides[f"full passes, {1 + sum(doubling)}"] = (
        WaveNet(FLAGS.plain_samples, FLAGS.num_filters, doubling),
        False,
    )
    for side in sides.values():
        timed(*side)  # compiles
    rounds = [
        {name: timed(*side) for name, side in sides.items()}
        for _ in range(FLAGS.repeats)
    ]
    print(f"{FLAGS.num_blocks} blocks, {FLAGS.num_filters} filters, batch of")
    print(f"{FLAGS.batch_size}; us a step, medians of {FLAGS.repeats} rounds\n")
    print("| sampler, receptive field | us | us of processor |")
    print("| --- | --- | --- |")
    for name in sides:
        wall, cpu = (
            statistics.median(times[name][i] for times in rounds)
            for i in (0, 1)
        )
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")


if __name__ == "__main__":
    app.run(main)
