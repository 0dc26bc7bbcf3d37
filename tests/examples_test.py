"""Every example runs as its users run it, for two steps on `digits`."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_gen import images

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What makes two steps of one epoch of the 1,500 training images.
FLAGS = ["--dataset=digits", "--epochs=1", "--batch_size=750"]
MORE_FLAGS = {
    "boltzmann": ["--hidden_dims=16", "--temperatures=50"],
    "gan": ["--weight_clipping=0.1", "--instance_noise=0.1", "--packing=2"],
    "gsn": ["--hidden_dims=16", "--walkback_steps=2"],
    "impute": ["--num_samples=2", "--num_steps=5"],
    "laplacian_gan": ["--num_levels=2"],
    "pixel_cnn": ["--num_filters=8", "--num_layers=2"],
    "real_nvp": [
        "--num_couplings=1",
        "--num_scales=2",
        "--hidden_dim=8",
        "--num_blocks=1",
    ],
    "vae": ["--num_samples=2", "--hidden_dims=16"],
}
# evaluate.py trains nothing: tests/evaluation_test.py runs it. Others have data
# of their own: tests/models/wavenet_test.py, tests/text_to_emoji_test.py.
# compare.py, which saves no model, is run below.
ELSEWHERE = {"compare", "evaluate", "text_to_emoji", "toy_modes", "wavenet"}
# What differs little from another one is left to the slow tests.
SLOW = {
    "bayes_rule",
    "conditional_gan",
    "gsn",
    "impute",
    "laplacian_gan",
    "pixel_rnn",
    "progressive_gan",
    "semi_supervised",
    "semi_supervised_gan",
    "super_resolution",
}
TRAINING = [
    pytest.param(path, marks=[pytest.mark.slow] * (path.stem in SLOW))
    for path in EXAMPLES
    if path.stem not in ELSEWHERE
]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_example_trains_samples_saves_and_exports(path, tmp_path, run_example):
    pytest.importorskip("sklearn")  # where the digits come from
    pytest.importorskip("PIL")
    name, more = path.stem, MORE_FLAGS.get(path.stem, [])
    printed = run_example(name, f"--output_dir={tmp_path}", *FLAGS, *more)
    assert "2/2" in printed and "trained for" in printed
    assert "nan" not in printed
    for made in (f"{name}.keras", "serving/saved_model.pb"):
        assert (tmp_path / made).stat().st_size > 1000
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    tag = "samples" if hasattr(loaded, "sample") else "reconstructions"
    assert f"{tmp_path}/{tag}.png" in printed
    picture = (tmp_path / f"{tag}.png").read_bytes()
    pixels = tf.io.decode_png(picture).numpy()
    assert pixels.dtype == np.uint8 and np.ptp(pixels) > 0
    if tag == "reconstructions":
        return
    assert images.grid(np.zeros((64, 8, 8, 1))).shape == pixels.shape
    arguments = {
        "num_samples": tf.constant(3),
        "seed": tf.constant(0, tf.int64),
    }
    taken = loaded.signatures["sample"].structured_input_signature[1]
    if "condition" in taken:
        arguments["condition"] = tf.zeros((3, *taken["condition"].shape[1:]))
    samples = loaded.sample(**arguments)
    assert samples.shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    "binarize", [None, pytest.param("static", marks=pytest.mark.slow)]
)
def test_families_are_compared(binarize, tmp_path, run_example):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    names = ["VAE", "GAN"] if binarize else ["PixelCNN", "GaussianMixture"]
    printed = run_example(
        "compare",
        f"--output_dir={tmp_path}",
        "--dataset=digits",
        "--seconds=0",
        "--num_samples=100",
        *([f"--binarize={binarize}"] if binarize else []),
        *(f"--model={name}" for name in names),
    )
    table = printed.splitlines()
    assert f"|  | {names[0]} | {names[1]} | real | gaussian |" in table
    numbers = {line.split(" | ")[0][2:]: line for line in table}
    assert {"log_prob_kind", "bits_per_dim", "frechet_distance"} < {*numbers}
    assert {"seconds_per_1000_samples", "parameters"} < {*numbers}
    pixels = tf.io.decode_png((tmp_path / "samples.png").read_bytes()).numpy()
    assert np.ptp(pixels) > 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(path):
    assert len(path.read_text().splitlines()) < 90
