"""Checkpoints that resume training bit for bit."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs
from keras_gen.callbacks.chief import is_chief
from keras_gen.callbacks.pictures import require_writable
from keras_gen.files import replacing

_NAME = re.compile(r"step_\d{10}_epoch_\d{6}")
_STATE = "state.json"


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole state of training, and resumes from it.

    The same script started again goes on exactly where it was killed: weights,
    all optimizers, loss scales, moving averages, seeds, means of the epoch,
    histories, and the position in the data. On a CPU the rest of the run is
    equal, bit for bit, to that of a run that was never interrupted, if the
    data has a seeded order (arrays, `PyDataset`, `datasets.load` and seeded
    `tf.data` shuffles do). Other callbacks, such as `EarlyStopping`, start
    with a state of their own.

    A checkpoint is a folder, `directory/step_0000001200_epoch_000003` for the
    state after 1,200 steps, which goes on in epoch 3 (counted from 0). It is
    written beside its place and renamed when it is whole; each file's SHA-256
    is checked before it is used, and a damaged checkpoint is passed over, with
    a warning, for the one before. One that cannot be written, or whose weights
    are not finite, is left out with a warning, and training goes on. Under
    several workers each saves into a folder of its own, and a checkpoint
    counts if all of them have it.

    Args:
        directory: Folder for the checkpoints alone, made if absent.
        save_freq: `"epoch"`, or an integer: also after so many training steps
            (at the end of the execution in which they fall; the last one of
            an epoch counts in full if the data do not know their length).
        keep: Integer, how many of the newest checkpoints stay.

    Raises:
        ValueError: If an argument is not as above; when training starts, if
            `directory` cannot be written to, if the model is none of
            keras_gen, if checkpoints are there and all are damaged, or if the
            newest is of another model.

    Example:

    >>> model.fit(train, epochs=20, callbacks=[Checkpoint("run/checkpoints")])
    """

    def __init__(self, directory, *, save_freq="epoch", keep=3):
        super().__init__()
        directory = inputs.check_folder(directory)
        if os.path.exists(directory) and not os.path.isdir(directory):
            raise ValueError(
                f"`directory` must be a folder, got the file {directory!r}."
            )
        if save_freq != "epoch":
            try:
                inputs.check_positive_integer(save_freq, "save_freq")
            except ValueError as error:
                raise ValueError(f"{error} Or pass 'epoch'.") from None
        self.directory = os.path.abspath(directory)
        self.save_freq = save_freq
        self.keep = inputs.check_positive_integer(keep, "keep")

    # Keras's events

    def on_train_begin(self, logs=None):
        if not hasattr(self.model, "resuming"):
            raise ValueError(
                "`Checkpoint` needs a model of keras_gen, got a "
                f"{type(self.model).__name__}. Take "
                "`keras.callbacks.BackupAndRestore` for it."
            )
        self._folder = self.directory
        if not is_chief(self.model):
            worker = self.model.distribute_strategy.cluster_resolver.task_id
            self._folder = os.path.join(self.directory, f"worker_{worker}")
        require_writable(self._folder)
        for name in os.listdir(self._folder):
            if name.startswith(".part-"):  # of a process that was killed
                shutil.rmtree(os.path.join(self._folder, name), True)
        self._steps = 0  # of the whole run
        self._steps_saved = 0
        self._told = False
        self._resumed = self._newest_state()
        if self._resumed is not None:
            self._restore(self._resumed)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, 0
        if self._resumed is None:
            return
        # Keras has just reset the means of the epoch, and begun a history.
        state = self._resumed
        self._restore_history()
        self._batch = state["batch"]
        if self._batch and state["num_means"] == len(self._means()):
            self._read(state, "means", self._means())

    def on_train_batch_end(self, batch, logs=None):
        # The last execution of an epoch may claim more batches than there are.
        batch = min(batch + 1, self.params["steps"] or batch + 1)
        if batch <= self._batch or self.model.resuming:
            return  # passed over: trained on before
        self._steps += batch - self._batch
        self._batch = batch
        if self.save_freq == "epoch":
            return
        if self._steps - self._steps_saved >= self.save_freq:
            past = self.model.history
            self._save(self._epoch, batch, past.history, past.epoch)

    def on_epoch_end(self, epoch, logs=None):
        past = self.model.history  # to which Keras adds `logs` after this
        history = {name: list(row) for name, row in past.history.items()}
        for name, value in (logs or {}).items():
            history.setdefault(name, []).append(float(np.asarray(value)))
        self._save(epoch + 1, 0, history, [*past.epoch, epoch])

    def on_train_end(self, logs=None):
        if self._resumed is not None:  # there was no epoch left to train
            self._restore_history()

    # Writing

    def _save(self, epoch, batch, history, history_epochs):
        self._steps_saved = self._steps
        variables = self._variables()
        state = {
            "format": 1,
            "step": self._steps,
            "epoch": epoch,
            "batch": batch,
            "history": history,
            "history_epochs": history_epochs,
            "variables": [[path, list(v.shape)] for path, v in variables],
            "num_means": len(self._means()),
            "versions": {"keras": keras.__version__, "tf": tf.__version__},
        }
        # Unlike the step alone, this differs for each save: no checkpoint has
        # to make way for the next one.
        name = f"step_{self._steps:010d}_epoch_{epoch:06d}"
        problem = self._write(name, state)
        if not np.all(self._gather([[problem is None]])):
            self._remove(name)
            return self._warn(problem or "another worker could not save it")
        # What is newer is damaged, or not on all workers: the run went past
        # it when it resumed.
        names = self._checkpoints()
        kept = [other for other in names if other <= name][: self.keep]
        for old in set(names).difference(kept):
            self._remove(old)

    def _write(self, name, state):
        """Writes a checkpoint; returns what hindered it, or `None`."""
        variables = [v for _, v in self._variables()]
        if not all(map(_is_finite, variables)):
            return "the state is not finite"
        try:
            with replacing(os.path.join(self._folder, name)) as part:
                os.makedirs(part)
                for kind, found in (
                    ("state", [v.value for v in variables]),
                    ("means", self._means()),
                ):
                    _tensors(found).write(os.path.join(part, kind))
                state["sha256"] = {
                    file: _sha256(os.path.join(part, file))
                    for file in sorted(os.listdir(part))
                }
                with open(os.path.join(part, _STATE), "w") as file:
                    text = json.dumps(state, default=_number)
                    json.dump({"state": text, "sha256": _sha256_of(text)}, file)
                for file in os.listdir(part):
                    _flush(os.path.join(part, file))
                _flush(part)
            _flush(self._folder)
        except (OSError, tf.errors.OpError) as error:
            return str(error)

    def _remove(self, name):
        path = os.path.join(self._folder, name)
        part = os.path.join(self._folder, f".part-{name}")
        with contextlib.suppress(OSError):
            os.rename(path, part)  # so that half of it is no checkpoint
            shutil.rmtree(part)

    def _warn(self, problem):
        if not self._told:
            warnings.warn(
                f"The checkpoint of step {self._steps} was not saved, and "
                f"training goes on: {problem}"[:600],
                stacklevel=2,
            )
        self._told = True

    # Reading

    def _newest_state(self):
        """State of the newest whole checkpoint; `None` if there is none."""
        names = self._checkpoints()
        whole = {}
        for name in names:
            try:
                state = self._state_of(name)
            except (OSError, ValueError, KeyError, TypeError) as error:
                warnings.warn(
                    f"Checkpoint {os.path.join(self._folder, name)} is "
                    f"damaged ({error}); trying the one before."[:600],
                    stacklevel=2,
                )
                continue
            whole[state["step"], state["epoch"]] = state
            if not self._has_workers():
                break
        # One alone may be that of the worker that was the first to save.
        is_fresh = len(whole) == len(names) <= 1
        rows = self._gather([[-1, is_fresh], *whole]).tolist()
        workers = [is_fresh for step, is_fresh in rows if step == -1]
        shared = [
            row
            for row in rows
            if row[0] >= 0 and rows.count(row) == len(workers)
        ]
        if shared:
            return whole[tuple(max(shared))]
        if not all(workers):
            # Who ended at once would leave another without these rows.
            with contextlib.suppress(tf.errors.OpError):
                self._gather([[-1, is_fresh]])
            are_damaged = names and not whole
            what = (
                "all are damaged" if are_damaged else "none is on all workers"
            )
            raise ValueError(
                f"`directory` {self._folder} holds {len(names)} checkpoints, "
                f"and {what}. Remove them to start afresh."
            )

    def _state_of(self, name):
        folder = os.path.join(self._folder, name)
        with open(os.path.join(folder, _STATE)) as file:
            outer = json.load(file)
        if outer["sha256"] != _sha256_of(outer["state"]):
            raise ValueError(f"the hash of {_STATE} differs")
        state = json.loads(outer["state"])
        for file, sha256 in state["sha256"].items():
            if _sha256(os.path.join(folder, file)) != sha256:
                raise ValueError(f"the hash of {file} differs")
        return {**state, "folder": folder}

    def _restore(self, state):
        """Checks that a checkpoint is of this model, and reads it."""
        if state["format"] != 1:
            raise ValueError(
                f"Checkpoint {state['folder']} has format {state['format']}, "
                "written by a newer keras_gen; this one reads format 1."
            )
        variables = self._variables()
        here = [[path, list(v.shape)] for path, v in variables]
        if here != state["variables"]:
            pairs = zip(here, state["variables"], strict=False)
            first = next(
                (f"{b} there, {a} here" for a, b in pairs if a != b),
                f"{len(state['variables'])} variables there, {len(here)} here",
            )
            raise ValueError(
                f"Checkpoint {state['folder']} is of another model: {first}. "
                "Use another `directory`, or the same model and optimizers."
            )
        batch, together = state["batch"], self.model.steps_per_execution
        if batch % together and batch != self.params["steps"]:
            raise ValueError(
                f"`steps_per_execution={together}` must divide the {batch} "
                f"batches of its epoch after which {state['folder']} was "
                "saved. Use the value that the run had before."
            )
        self._read(state, "state", [v.value for _, v in variables])
        self._steps = self._steps_saved = state["step"]
        self.model.resume_at(state["epoch"], batch)

    def _restore_history(self):
        state, self._resumed = self._resumed, None
        history = self.model.history
        history.history = {k: list(v) for k, v in state["history"].items()}
        history.epoch = list(state["history_epochs"])

    def _read(self, state, kind, variables):
        path = os.path.join(state["folder"], kind)
        _tensors(variables).read(path).assert_consumed()

    # What there is

    def _checkpoints(self):
        """Names of the checkpoints here, whole or not, the newest first."""
        names = filter(_NAME.fullmatch, os.listdir(self._folder))
        return sorted(names, reverse=True)

    def _variables(self):
        """Pairs of a path and a variable: all that training changes."""
        means = {id(v) for m in self.model.metrics for v in m.variables}
        found = [v for v in self.model.variables if id(v) not in means]
        for optimizer in self.model.optimizers:
            found.extend(optimizer.variables)
        return [(_unnumbered(v.path), v) for v in found]

    def _means(self):
        """Variables of the metrics, of which each replica here has its own."""
        found = [v.value for m in self.model.metrics for v in m.variables]
        return [own for v in found for own in getattr(v, "values", [v])]

    def _has_workers(self):
        return isinstance(
            self.model.distribute_strategy,
            tf.distribute.MultiWorkerMirroredStrategy,
        )

    def _gather(self, rows):
        """The rows of all workers: an int64 array; alone, these rows."""
        rows = np.asarray(rows, "int64")
        if self._has_workers():
            strategy = self.model.distribute_strategy
            rows = strategy.gather(tf.constant(rows), axis=0).numpy()
        return rows


def _tensors(variables):
    return tf.train.Checkpoint(
        **{f"v{i:05d}": v for i, v in enumerate(variables)}
    )


def _is_finite(variable):
    is_float = keras.backend.is_float_dtype(variable.dtype)
    return not is_float or np.all(np.isfinite(np.asarray(variable)))


def _unnumbered(path):
    # Keras numbers names by what else the process made before.
    return re.sub(r"_\d+(?=[_/]|$)", "", path)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(value):
    """What JSON takes, of a number of NumPy or TensorFlow."""
    return np.asarray(value).item()


def _sha256_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
