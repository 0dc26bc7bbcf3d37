"""What the documents show runs, and what they name exists."""

import functools
import pathlib
import re
import shlex

import numpy as np
import pytest
import tensorflow as tf

import keras_gen
from keras_gen import models

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = [*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py")]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *SCRIPTS]


def commands(path):
    """The commands in a document that run an example or a benchmark."""
    text = path.read_text().replace("\\\n", " ")
    found = re.findall(
        r"^ *python ((?:examples|benchmarks)/.*)", text, re.MULTILINE
    )
    return [shlex.split(line, comments=True) for line in found]


def flags_of(script):
    """The flags that a script defines, by the names in its source."""
    text = script.read_text()
    names = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', text)
    if "VAE.__init__.__kwdefaults__" in text:
        names += keras_gen.VAE.__init__.__kwdefaults__
    return set(names)


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_name_scripts_and_flags_that_exist(path):
    for script, *arguments in commands(path):
        flags = flags_of(ROOT / script)
        for argument in arguments:
            name = re.fullmatch(r"--(?:no)?(\w+)(?:=.*)?", argument).group(1)
            known = name in flags or argument[2:].split("=")[0] in flags
            assert known, f"{script} has no flag {argument}"


def test_commands_are_found():
    assert len(commands(ROOT / "docs" / "results.md")) > 20
    (first, *_) = commands(ROOT / "examples" / "vae.py")
    assert first[0] == "examples/vae.py"


@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if path.suffix == ".md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_to_files_that_exist(path):
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text())
    for target in targets:
        assert (path.parent / target).exists(), target


def test_the_readme_has_all_models_and_all_examples():
    for name in models.__all__:
        assert f"| `{name}`" in README or f", `{name}`" in README, name
    for script in ROOT.glob("examples/*.py"):
        assert f"(examples/{script.name})" in README, script.name


def small_data(name, split="train", *, batch_size=None, labels=False, **_):
    """Images that are noise, less of them than a step takes."""
    rng = np.random.default_rng(len(split))
    images = rng.integers(256, size=(120, 28, 28, 1), dtype="uint8")
    data = (images, np.arange(120) % 10) if labels else images
    dataset = tf.data.Dataset.from_tensor_slices(data)
    return dataset.batch(min(batch_size, 60)) if batch_size else dataset


def test_the_python_of_the_readme_runs(monkeypatch, tmp_path):
    blocks = re.findall("```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    fit = keras_gen.GenerativeModel.fit

    def short_fit(model, *args, epochs, **options):
        return fit(model, *args, epochs=1, verbose=0, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras_gen.datasets, "load", small_data)
    monkeypatch.setattr(keras_gen.GenerativeModel, "fit", short_fit)
    monkeypatch.setattr(
        keras_gen,
        "evaluate",
        functools.partial(keras_gen.evaluate, num_samples=100, verbose=0),
    )
    scope = {"__name__": "readme"}
    for block in blocks:
        exec(block, scope)
    assert scope["images"].shape == (64, 28, 28, 1)
    assert scope["nats"].shape == (60,)
    for made in ("samples.png", "model.keras", "report.html", "serving"):
        assert (tmp_path / made).exists()
