"""Two processes that train together, over 127.0.0.1."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_gen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRAINER = pathlib.Path(__file__).with_name("multi_worker_trainer.py")
SECONDS = 400  # after which a pair of workers is ended


def free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder, *how):
    folder.mkdir(exist_ok=True)
    root = pathlib.Path(keras_gen.__file__).parents[1]
    environment = {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    ports = free_ports()
    workers = []
    for index in ("0", "1"):
        with open(folder / f"stderr_{index}.txt", "w") as stderr:
            worker = subprocess.Popen(
                [sys.executable, TRAINER, index, *ports, folder, *how],
                env={**os.environ, **environment},
                stderr=stderr,
            )
        workers.append(worker)
    return workers


def end(workers):
    for worker in workers:  # one that waits for the other ignores SIGTERM
        worker.kill()
        worker.wait()


def train(folder, *how):
    """Trains to the end; what the two workers ended with, and complained of."""
    workers = start(folder, *how)
    deadline = time.monotonic() + SECONDS
    try:
        statuses = [
            worker.wait(max(0, deadline - time.monotonic()))
            for worker in workers
        ]
    finally:
        end(workers)
    complaints = [(folder / f"stderr_{i}.txt").read_text() for i in (0, 1)]
    if statuses != [0, 0]:
        return statuses, complaints
    results = []
    for index in (0, 1):
        with np.load(folder / f"{index}.npz") as file:
            results.append(dict(file))
    return results, complaints


def assert_same(first, second):
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], name)


@pytest.fixture(scope="module")
def trainer():
    """The module of the script, for its model and data."""
    sys.path.insert(0, str(TRAINER.parent))
    try:
        import multi_worker_trainer
    finally:
        sys.path.pop(0)
    return multi_worker_trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was left alone: its folder and the workers' results."""
    folder = tmp_path_factory.mktemp("whole")
    results, complaints = train(folder)
    assert isinstance(results[0], dict), complaints
    return folder, results


def on_two_replicas(trainer, strategy, x):
    with strategy.scope():
        model = trainer.compiled_vae()
    return trainer.result_of(model, trainer.fit(model, x))


def test_two_workers_train_as_two_replicas(whole, trainer, two_replicas):
    _, (first, second) = whole
    assert_same(first, second)
    wanted = on_two_replicas(trainer, two_replicas, trainer.images())
    assert set(wanted) == set(first)
    for name, array in wanted.items():
        tolerance = {"rtol": 1e-5} if "history" in name else {"atol": 1e-5}
        np.testing.assert_allclose(
            first[name], array, err_msg=name, **tolerance
        )
    assert max(np.ptp(v) for k, v in first.items() if "bias" in k) > 1e-3


def test_only_the_chief_draws(whole):
    folder, _ = whole
    assert len(os.listdir(folder / "samples_0")) == 4  # epochs and the newest
    assert not (folder / "samples_1").exists()


def test_each_worker_has_its_own_checkpoints(whole):
    folder = whole[0] / "checkpoints"
    chief, other = os.listdir(folder), os.listdir(folder / "worker_1")
    assert sorted(chief) == [*sorted(other), "worker_1"] and len(other) == 3


def test_a_nan_on_one_worker_skips_the_step_on_both(
    tmp_path, trainer, two_replicas
):
    results, complaints = train(tmp_path, "poison")
    assert isinstance(results[0], dict), complaints
    first, second = results
    assert_same(first, second)
    np.testing.assert_array_equal(first["history:skipped_updates"], [1, 1, 1])
    (iterations,) = (v for k, v in first.items() if k.endswith("/iteration"))
    assert iterations == 3 * 2
    wanted = on_two_replicas(trainer, two_replicas, trainer.poisoned())
    for name, array in first.items():
        if "history" not in name:
            assert np.all(np.isfinite(array)), name
            np.testing.assert_allclose(array, wanted[name], atol=1e-5)


def test_workers_killed_at_different_checkpoints_go_on_together(
    whole, trainer, tmp_path
):
    workers = start(tmp_path, "die")
    try:
        assert workers[1].wait(SECONDS) == -signal.SIGKILL
    finally:
        end(workers)
    folder = tmp_path / "checkpoints"
    newest = [max(folder.glob("step_*")), max(folder.glob("worker_1/step_*"))]
    assert newest[0].name == trainer.FIFTH
    assert newest[1].name.startswith("step_0000000004")
    results, complaints = train(tmp_path)
    assert isinstance(results[0], dict), complaints
    for wanted, result in zip(whole[1], results, strict=True):
        assert_same(wanted, result)


def test_a_worker_without_checkpoints_starts_nothing_afresh(whole, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole[0] / "checkpoints", folder)
    shutil.rmtree(folder / "worker_1")
    statuses, complaints = train(tmp_path)
    assert statuses == [1, 1]
    for complaint in complaints:
        assert "ValueError" in complaint
        assert "none is on all workers" in complaint
    assert len(list(folder.glob("step_*"))) == 3
