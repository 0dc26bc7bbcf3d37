"""Counts the modes that GANs find where all are known, over several seeds.

    python benchmarks/mode_coverage.py

Runs `examples/toy_modes.py` for each setting and seed. For each setting it
prints a row of Markdown: in each seed the modes that were found, at least 20 of
2,500 samples within three deviations of their centre, and the share of samples
that are that near to any centre. All samples are drawn side by side in
`figure.png`, a row of it for each setting.

A run that is finished is not made again: its result is read from
`--output_dir`.
"""

import json
import pathlib
import subprocess
import sys

from absl import app, flags
from matplotlib import pyplot

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "toy_modes.py"
STRONG = ["--d_dims=128", "--d_dims=128", "--latent_dim=2"]
# The published setting of unrolling: 256 latents, a weak discriminator.
SETTINGS = {
    "ring, Wasserstein": ["--loss=wasserstein", *STRONG],
    "grid, Wasserstein": ["--loss=wasserstein", "--dataset=grid", *STRONG],
    "ring, published": [],
    "ring, 10 unrolled steps": ["--unrolled_steps=10"],
    "ring, minibatch discrimination": ["--minibatch"],
}
NAMES = list(SETTINGS)

FLAGS = flags.FLAGS
flags.DEFINE_multi_enum("setting", NAMES, NAMES, "Which ones to run.")
flags.DEFINE_integer("seeds", 5, "Runs of each, of seeds 0, 1, ...")
flags.DEFINE_string("output_dir", "run/mode_coverage", "For all results.")


def result_of(name, seed):
    """What a run found, and its picture."""
    place = name.replace(",", "").replace(" ", "-")
    folder = pathlib.Path(FLAGS.output_dir, f"{place}-{seed}")
    file = folder / "found.json"
    if not file.exists():
        places = [f"--seed={seed}", f"--output_dir={folder}"]
        command = [sys.executable, str(EXAMPLE), *SETTINGS[name], *places]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True
        )
        (line,) = (x for x in done.stdout.splitlines() if x.startswith("{"))
        file.write_text(line.replace("'", '"'))
    found = json.loads(file.read_text())
    return found, pyplot.imread(folder / "samples.png")


def main(_):
    page, panels = pyplot.subplots(
        len(FLAGS.setting),
        FLAGS.seeds,
        figsize=(2 * FLAGS.seeds, 2.2 * len(FLAGS.setting)),
        squeeze=False,
    )
    print("| setting | modes | mean | near a mode, % |\n|---|---|---|---|")
    for name, row in zip(FLAGS.setting, panels, strict=True):
        runs = [result_of(name, seed) for seed in range(FLAGS.seeds)]
        for panel, (_, picture) in zip(row, runs, strict=True):
            panel.imshow(picture, "gray_r")
            panel.axis("off")
        row[0].set_title(name, loc="left", fontsize=8)
        modes = [int(found["modes"]) for found, _ in runs]
        near = [f"{100 * found['high_quality']:.0f}" for found, _ in runs]
        mean = sum(modes) / len(modes)
        cells = [name, " ".join(map(str, modes)), f"{mean:.1f}"]
        print(f"| {' | '.join(cells)} | {' '.join(near)} |", flush=True)
    page.savefig(f"{FLAGS.output_dir}/figure.png", bbox_inches="tight")
    print(f"figure: {FLAGS.output_dir}/figure.png")


if __name__ == "__main__":
    app.run(main)
