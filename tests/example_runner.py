"""Runs examples, each in a process of its own that has imported all it needs.

A line of input is a JSON list: a folder for `stdout.txt` and `stderr.txt`, the
path of an example, and its flags. The answer is a line, the exit status.
Processes are forked, which TensorFlow allows until its first operation: to
import it takes longer than most examples take in the tests.
"""

import json
import os
import runpy
import sys

import tensorflow_datasets  # noqa: F401

import keras_gen  # noqa: F401

for line in sys.stdin:
    folder, *command = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream in (sys.stdout, sys.stderr):
            path = os.path.join(folder, f"{stream.name.strip('<>')}.txt")
            with open(path, "w") as file:
                os.dup2(file.fileno(), stream.fileno())
        sys.argv = command
        sys.path[0] = os.path.dirname(command[0])
        runpy.run_path(command[0], run_name="__main__")
        break
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
