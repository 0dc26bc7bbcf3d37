"""What an image of a NADE costs, by its running activation and by full passes.

With the activation of the hidden layer kept, an image of D pixels and H hidden
units costs O(D H), as `log_prob` does; a full pass for each pixel O(D**2 H).
The last column is to stay as it is where D and H grow.

python benchmarks/nade_sampling.py
"""

import statistics
import time

from absl import app, flags

from keras_gen import NADE

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 100, "Images at once.")
flags.DEFINE_multi_integer("side", [14, 28, 56], "Height and width of images.")
flags.DEFINE_multi_integer("hidden_dim", [500, 1000], "Hidden units.")
flags.DEFINE_integer("plain_side", 14, "Of the largest image by full passes.")
flags.DEFINE_integer("repeats", 5, "Rounds, in each of which all are timed.")


def timed(work):
    """Microseconds of processor time an image."""
    began = time.process_time()
    work()
    return 1e6 * (time.process_time() - began) / FLAGS.batch_size


def main(_):
    sides, size = {}, FLAGS.batch_size
    for side in FLAGS.side:
        for hidden_dim in FLAGS.hidden_dim:
            model = NADE((side, side, 1), hidden_dim)
            x = model.sample(size, seed=0)
            case = (side, hidden_dim)
            works = {
                "sample": lambda m=model: m.sample(size, seed=0).numpy(),
                "log_prob": lambda m=model, x=x: m.log_prob(x).numpy(),
            }
            if side <= FLAGS.plain_side:
                works["sample, full passes"] = lambda m=model: m.sample(
                    size, seed=0, cached=False
                ).numpy()
            sides |= {(name, *case): work for name, work in works.items()}
    for work in sides.values():
        work()  # compiles
    rounds = [
        {key: timed(work) for key, work in sides.items()}
        for _ in range(FLAGS.repeats)
    ]
    print("| verb | D | H | µs an image | ns / (D H) |")
    print("| --- | --- | --- | --- | --- |")
    for key in sorted(sides, key=lambda key: (key[0], key[2], key[1])):
        name, side, hidden_dim = key
        cost = statistics.median(times[key] for times in rounds)
        each = 1000 * cost / (side**2 * hidden_dim)
        cells = (name, side**2, hidden_dim, f"{cost:,.0f}", f"{each:.2f}")
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    app.run(main)
