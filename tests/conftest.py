"""What all tests share: two logical CPUs, one strategy, a fresh Keras."""

import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys

# Before TensorFlow reads it. Tests compile programs that run a few steps: to
# optimize their machine code takes longer than it saves. The operations, and
# the order they run in, are the same.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1",
)

import keras
import pytest
import tensorflow as tf

# Only possible before TensorFlow starts its devices, hence not in a fixture.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(scope="session")
def two_replicas():
    """The one `MirroredStrategy` of the session: a second one may dead-lock."""
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@pytest.fixture(scope="session")
def run_example(tmp_path_factory):
    """Function of an example's name and flags, that gives what it printed.

    See `example_runner.py`, of which there is one process for all examples.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    runner = root / "tests" / "example_runner.py"
    folder = tmp_path_factory.mktemp("example")
    with (
        open(folder / "runner.txt", "w") as stderr,
        subprocess.Popen(
            [sys.executable, str(runner)],
            env={
                **os.environ,
                "PYTHONPATH": str(root),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):

        def run(name, *flags):
            path = root / "examples" / f"{name}.py"
            line = json.dumps([str(folder), str(path), *map(str, flags)])
            print(line, file=process.stdin, flush=True)
            status = process.stdout.readline().strip()
            assert status, (folder / "runner.txt").read_text()[-3000:]
            error = (folder / "stderr.txt").read_text()
            assert status == "0", error[-3000:]
            return (folder / "stdout.txt").read_text()

        yield run
        process.kill()  # also if an example hangs


_TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Same seeds and layer names for each test; its dtype policy ends with it."""
    # Collecting garbage takes longer than most tests, and models are garbage
    # in cycles: without it a worker grows to several GB.
    keras.utils.clear_session(free_memory=False)
    if next(_TESTS) % 25 == 0:
        gc.collect()
        # What is left now stays: TensorFlow registers the gradient of each
        # graph's `all_reduce` for good. No collection need look at it again.
        gc.freeze()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
