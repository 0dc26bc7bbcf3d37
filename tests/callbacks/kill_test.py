"""Real training processes, ended by SIGKILL and started again.

Each run is killed three or four times, and started again each time until it
comes to its end, which must be that of a run that was left alone.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_gen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("sklearn")  # whose digits the VAE learns

TRAINER = pathlib.Path(__file__).with_name("trainer.py")
NUM_STEPS = 20
NUM_KILLS = {1: 3, 2: 3, 3: 4}  # by `save_freq`: ten of each kind
SECONDS_PER_PROCESS = 600


@dataclasses.dataclass
class Run:
    """A run, its faults, and what came of it."""

    model: str
    kind: str
    save_freq: int
    faults: list
    folder: pathlib.Path
    kills: list = None
    starts: int = 0
    lost: int = 0
    late: int = 0
    final: dict = None


def random_faults(kind, count, rng):
    if kind == "step":
        steps = rng.choice(np.arange(1, NUM_STEPS), count, replace=False)
        return [
            {"step": int(step), "delay": rng.uniform(0, 0.05)}
            for step in sorted(steps)
        ]
    return [
        {
            "call": int(rng.integers(1, 45)),
            "when": str(rng.choice(["before", "within", "after"])),
            "delay": rng.uniform(0, 0.01),
        }
        for _ in range(count)
    ]


def train(run, fault):
    """Starts the process; returns its exit status and what it complained of."""
    root = pathlib.Path(keras_gen.__file__).parents[1]
    environment = {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [
            sys.executable,
            str(TRAINER),
            run.model,
            str(run.folder),
            str(run.save_freq),
            json.dumps(fault),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_PER_PROCESS,  # ends it with SIGKILL
    )
    return process.returncode, process.stderr[-2000:]


def is_whole(folder):
    """Judged without keras_gen: all files have the hashes of their list."""
    try:
        outer = json.loads((folder / "state.json").read_text())
        text = outer["state"].encode()
        hashes = json.loads(text)["sha256"]
        return outer["sha256"] == hashlib.sha256(text).hexdigest() and all(
            hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256
            for file, sha256 in hashes.items()
        )
    except (OSError, ValueError):
        return False


def step_of(name):
    return int(name.split("_")[1]) if name else 0


def log_of(run, word):
    lines = (run.folder / "log.txt").read_text().splitlines()
    return [line[len(word) + 1 :] for line in lines if line.startswith(word)]


def carry_out(run):
    """Trains to the end, through all faults."""
    run.folder.mkdir()
    newest = ""
    for fault in [*run.faults, {}]:
        status, complaints = train(run, fault)
        assert status == (-9 if fault else 0), (run, fault, complaints)
        resumed = log_of(run, "resumed")[run.starts :]
        run.starts += len(resumed)
        # Unless it was killed before it could read the newest checkpoint.
        run.late += bool(resumed) and int(resumed[0]) < step_of(newest)
        newest = max(log_of(run, "complete"), default="")
        found = sorted((run.folder / "checkpoints").glob("step_*"))
        # It is there, unless a newer one is already; and none is damaged.
        newest_found = found[-1].name if found else ""
        run.lost += newest_found < newest or not all(map(is_whole, found))
    run.kills = log_of(run, "killed")
    with np.load(run.folder / "final.npz") as file:
        run.final = dict(file)
    return run


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The two runs that were left alone, and all that were killed."""
    parent = tmp_path_factory.mktemp("kills")
    rng = np.random.default_rng(0)
    runs = [
        Run(model, "none", 5, [], parent / model) for model in ("vae", "gan")
    ]
    for model in ("vae", "gan"):
        for kind in ("step", "save"):
            for save_freq, count in NUM_KILLS.items():
                faults = random_faults(kind, count, rng)
                folder = parent / f"{model}_{kind}_{save_freq}"
                runs.append(Run(model, kind, save_freq, faults, folder))
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        vae, gan, *killed = pool.map(carry_out, runs)
    return {"vae": vae, "gan": gan}, killed, time.monotonic() - start


def differences(run, alone):
    """Names of all in which the final states differ."""
    names = {*run.final, *alone.final}
    return [
        name
        for name in sorted(names)
        if not np.array_equal(run.final.get(name), alone.final.get(name))
    ]


def test_every_killed_run_ends_as_the_one_left_alone(outcome):
    alone, killed, _ = outcome
    for run in killed:
        assert not differences(run, alone[run.model]), run.folder


def test_a_run_is_all_of_its_state(outcome):
    for name, run in outcome[0].items():
        keys = " ".join(run.final)
        for part in ("momentum", "velocity", "seed_generator", "history:val_"):
            assert part in keys
        iterations = [k for k in run.final if k.endswith("/iteration")]
        assert len(iterations) == {"vae": 1, "gan": 2}[name]
        assert all(run.final[k] == NUM_STEPS for k in iterations)
        np.testing.assert_array_equal(run.final["epoch"], range(4))


def test_no_kill_costs_a_checkpoint(outcome):
    assert [run for run in outcome[1] if run.lost or run.late] == []


def test_every_fault_took_place(outcome, capsys):
    alone, killed, seconds = outcome
    counts = collections.Counter()
    for run in killed:
        counts[run.model, run.kind] += len(run.kills)
    assert set(counts.values()) == {sum(NUM_KILLS.values())}
    places = collections.Counter(k for run in killed for k in run.kills)
    with capsys.disabled():
        print(f"\n{sum(counts.values())} kills in {seconds:.0f} s:")
        for (model, kind), count in counts.items():
            print(f"  {model}, at a random {kind}: {count}")
        print("  " + ", ".join(f"{n} x {k}" for k, n in sorted(places.items())))
        unequal = sum(bool(differences(r, alone[r.model])) for r in killed)
        print(f"  runs not bit-equal: {unequal} of {len(killed)}")
        print(f"  checkpoints lost: {sum(run.lost for run in killed)}")
