"""Measures programs side by side, one repeat at a time.

Each side of a comparison is a *worker*: a process of its own, in its own
virtual environment, that stays alive and warm. The harness asks one worker
after another for a single repeat, in an order shuffled anew each round, so
that whatever else the machine does meets every side alike. A round gives one
ratio per side; their median is what counts.

The two halves talk in lines. The harness writes the name of a case, the
worker answers with one JSON object. Only the standard library is needed here,
so that any environment can hold a worker.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time


def serve(build, cases, versions):
    """Runs a worker until its standard input closes.

    Args:
        build: Function of a case's name that returns `run()`, a function that
            does the whole work of one repeat and returns how many images it
            processed, once they really are.
        cases: Names of the cases.
        versions: Dict of names and versions, for the record.
    """
    # The real standard output carries the protocol; whatever a library prints
    # goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    runs = {}
    for case in cases:
        try:
            runs[case] = build(case)
            runs[case]()  # compiles and fills caches
            runs[case]()  # allocators and optimizers reach their steady state
        except Exception as error:  # one that fails is a result, not a crash
            runs.pop(case, None)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            answer(failed=case, reason=reason[:200])
    answer(ready=list(runs), versions=versions)
    for line in sys.stdin:
        answer(**measure(runs[line.strip()]))


def measure(run):
    """One timed repeat: images a second, and how busy the others were."""
    machine, own = machine_cpu_seconds(), own_cpu_seconds()
    start = time.perf_counter()
    num_images = run()
    seconds = time.perf_counter() - start
    own = own_cpu_seconds() - own
    others = None
    if machine is not None:
        others = max(0.0, machine_cpu_seconds() - machine - own) / seconds
    return {
        "images_per_second": num_images / seconds,
        "images_per_cpu_second": num_images / own,
        "seconds": seconds,
        "others_cpu": others,
    }


def machine_cpu_seconds():
    """CPU seconds that all processes have used so far, `None` if unknown."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return None
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def own_cpu_seconds():
    return sum(os.times()[:4])  # of this process and its children


class Worker:
    """One side of the comparison, as the harness sees it.

    Args:
        side: Name of the side.
        command: List of strings, how to start the worker.
        show_stderr: Boolean, whether its messages reach the terminal.
    """

    def __init__(self, side, command, show_stderr=False):
        self.side = side
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if show_stderr else subprocess.DEVNULL,
            text=True,
        )

    def wait_until_ready(self):
        """Returns the cases that work, the reasons why others do not, versions."""
        failed = {}
        while True:
            message = self.read()
            if "failed" in message:
                failed[message["failed"]] = message["reason"]
            else:
                return message["ready"], failed, message["versions"]

    def measure(self, case):
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The worker of {self.side!r} ended with exit code "
                f"{self.process.wait()}. Run with `--show_stderr` to see why."
            )
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_workers(commands, stack, show_stderr=False):
    """Starts all sides, one after another, and prints which cannot run.

    Args:
        commands: Dictionary from sides to how their workers are started.
        stack: `contextlib.ExitStack`, at whose end the workers are closed.
        show_stderr: Boolean, whether their messages reach the terminal.

    Returns:
        The workers, the cases of each side, and the versions that they tell.
    """
    workers, cases, versions = [], {}, {}
    for side, command in commands.items():
        try:
            worker = Worker(side, command, show_stderr)
            stack.callback(worker.close)
            cases[side], failed, found = worker.wait_until_ready()
        except (OSError, RuntimeError) as error:
            print(f"Without {side}: {error}\n")
            continue
        for reason in dict.fromkeys(failed.values()):
            names = ", ".join(c for c in failed if failed[c] == reason)
            print(f"Without {side} in {names}: {reason}\n")
        workers.append(worker)
        versions.update(found)
    return workers, cases, versions


def interleave(workers, cases, repeats, seed=0):
    """Measures every case on every side `repeats` times.

    Args:
        workers: List of `Worker`, ready.
        cases: Dict from side to the list of its cases.
        repeats: Integer, rounds.
        seed: Integer, of the order within each round.

    Returns:
        List of dicts, one a repeat: `round`, `side`, `case` and what `measure`
        gives.
    """
    order = random.Random(seed)
    turns = [
        (worker, case) for worker in workers for case in cases[worker.side]
    ]
    rows = []
    for i in range(repeats):
        order.shuffle(turns)
        for worker, case in turns:
            row = worker.measure(case)
            rows.append({"round": i, "side": worker.side, "case": case, **row})
    return rows


def markdown_table(rows, case, base):
    """Medians of one case, and ratios of `base` to each side.

    The ratio is the median over rounds of `base / side` within a round, with
    the lowest and highest in brackets: above 1, `base` is faster. It comes
    first, the others by speed.
    """
    sides = {}
    for row in rows:
        if row["case"] == case:
            sides.setdefault(row["side"], []).append(row)
    speeds = {
        side: [row["images_per_second"] for row in found]
        for side, found in sides.items()
    }
    fastest_first = sorted(
        sides, key=lambda side: (side != base, -statistics.median(speeds[side]))
    )
    lines = [
        f"| {case}: side | images/s, median | best | {base} / side "
        "| per CPU second | others' cores |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for side in fastest_first:
        speed, found = speeds[side], sides[side]
        median, best = shown(statistics.median(speed)), shown(max(speed))
        others = [row["others_cpu"] for row in found]
        lines.append(
            f"| {side} | {median} | {best} "
            f"| {ratio(sides.get(base), found, 'images_per_second')} "
            f"| {ratio(sides.get(base), found, 'images_per_cpu_second')} "
            f"| {'?' if None in others else f'{statistics.median(others):.2f}'}"
            " |"
        )
    return "\n".join(lines)


def ratio(base, other, key):
    """Median, lowest and highest paired ratio, as text."""
    if not base:
        return "?"
    ratios = [a[key] / b[key] for a, b in zip(base, other, strict=True)]
    return (
        f"{statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def shown(speed):
    """Images a second as text: whole ones, or two digits of a few."""
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
