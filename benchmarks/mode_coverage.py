"""How many modes GANs find of a ring and a grid of Gaussians.

    python benchmarks/mode_coverage.py --setting=unrolled_0 --setting=unrolled_10

Each setting is a list of flags of examples/toy_modes.py, trained once for each
seed. A mode is found if 20 of 2,500 samples lie within three deviations of its
center; the quality is the share of samples that lie so near to any center.
Prints a row of Markdown for each setting, and writes a picture with a row of
the samples of each, a column a seed. A run that is finished is not made again:
its result is read from `--output_dir`.

`ring` and `grid` are the best of what was tried: the relativistic average loss
with R1, two latents and networks as strong as each other. `unrolled_0` and
`unrolled_10` are the networks and rates of Unrolled GANs
(https://arxiv.org/abs/1611.02163): 256 latents and a weak discriminator.
`short` is the grid with the non-saturating loss and a tenth of the points,
`minibatch` the same with minibatch discrimination.
"""

import ast
import pathlib
import subprocess
import sys

import keras
import numpy as np
from absl import app, flags

from keras_gen import images

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "toy_modes.py"
BEST = "--latent_dim=2 --loss=relativistic --r1=0.02"
BEST += " --g_dims=256" * 3 + " --d_dims=256" * 3
BEST += " --rates=1e-3 --rates=1e-3 --decay --batch_size=256 --epochs=48"
SHORT = "--dataset=grid --latent_dim=2 --r1=0.02"
SHORT += " --g_dims=256" * 3 + " --d_dims=256" * 3
SHORT += " --rates=1e-3 --rates=1e-3 --decay --batch_size=128 --epochs=8"
SETTINGS = {
    "ring": f"--dataset=ring {BEST}",
    "grid": f"--dataset=grid {BEST} --epochs=80",
    "unrolled_0": "--dataset=ring",
    "unrolled_10": "--dataset=ring --unrolled_steps=10",
    "short": SHORT,
    "minibatch": f"{SHORT} --minibatch",
}

FLAGS = flags.FLAGS
flags.DEFINE_multi_enum(
    "setting", list(SETTINGS), list(SETTINGS), "Which are trained."
)
flags.DEFINE_multi_integer("seed", [0, 1, 2, 3, 4], "Of all that is random.")
flags.DEFINE_string("output_dir", "run/mode_coverage", "For all results.")


def result_of(setting, seed):
    """`{"modes": ..., "high_quality": ...}` and the folder of a run."""
    folder = pathlib.Path(FLAGS.output_dir, f"{setting}-{seed}")
    file = folder / "result.txt"
    if not file.exists():
        command = [sys.executable, str(EXAMPLE), *SETTINGS[setting].split()]
        command += [f"--seed={seed}", f"--output_dir={folder}"]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        lines = run.stdout.decode().splitlines()
        found = [line for line in lines if line.startswith("{")]
        file.write_text(found[-1])
    return ast.literal_eval(file.read_text()), folder


def main(_):
    print(
        "| setting | modes | mean | quality, % | least |\n|---|---|---|---|---|"
    )
    rows = []
    for setting in FLAGS.setting:
        runs = [result_of(setting, seed) for seed in FLAGS.seed]
        modes = [int(result["modes"]) for result, _ in runs]
        quality = [100 * result["high_quality"] for result, _ in runs]
        print(
            f"| {setting} | {', '.join(map(str, modes))} | "
            f"{np.mean(modes):.1f} | {np.mean(quality):.1f} | "
            f"{min(quality):.1f} |",
            flush=True,
        )
        for _, folder in runs:
            picture = keras.utils.load_img(
                folder / "samples.png", color_mode="grayscale"
            )
            rows.append(keras.utils.img_to_array(picture) / 255.0)
    path = pathlib.Path(FLAGS.output_dir, "samples.png")
    images.save_grid(np.stack(rows), path, num_columns=len(FLAGS.seed))
    print(f"samples: {path}")


if __name__ == "__main__":
    app.run(main)
