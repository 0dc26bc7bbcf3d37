"""Checkpoints that resume training bit for bit."""

import hashlib
import json
import os
import re
import shutil
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_gen.callbacks.chief import is_chief

_STEP = re.compile(r"step_(\d{10})")
_STATE = "state.json"


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole state of training, and resumes from it.

    The same script started again goes on exactly where it was killed: weights,
    all optimizers, loss scales, moving averages, seeds, means of the epoch,
    histories, and the position in the data. On a CPU the rest of the run is
    equal, bit for bit, to that of a run that was never interrupted, if the
    data has a seeded order (arrays, `PyDataset`, `datasets.load` and seeded
    `tf.data` shuffles do).

    A checkpoint is a folder `directory/step_0000001200`. It is written beside
    its place and renamed when it is whole; each file's SHA-256 is checked
    before it is used, and a damaged checkpoint is passed over, with a warning,
    for the one before. Weights that are not finite are never saved. Under
    several workers each saves into a folder of its own.

    Args:
        directory: Folder for the checkpoints, made if absent.
        save_freq: `"epoch"`, or an integer: also after so many training steps
            (at the end of the execution in which they fall).
        keep: Integer, how many of the newest checkpoints stay.

    Raises:
        ValueError: If an argument is not as above; when training starts, if
            checkpoints are there and all are damaged, or the newest is of
            another model.

    Example:

    >>> model.fit(train, epochs=20, callbacks=[Checkpoint("run/checkpoints")])
    """

    def __init__(self, directory, *, save_freq="epoch", keep=3):
        super().__init__()
        self.directory = os.path.abspath(os.fspath(directory))
        whole = isinstance(save_freq, int) and not isinstance(save_freq, bool)
        if save_freq != "epoch" and not (whole and save_freq > 0):
            raise ValueError(
                "`save_freq` must be 'epoch' or a positive integer, got "
                f"{save_freq!r}."
            )
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"`keep` must be at least 1, got {keep!r}.")
        if os.path.exists(self.directory) and not os.path.isdir(self.directory):
            raise ValueError(f"`directory` {directory!r} is a file.")
        self.save_freq = save_freq
        self.keep = keep

    # Keras's events

    def on_train_begin(self, logs=None):
        self._folder = self.directory
        if not is_chief(self.model):
            worker = self.model.distribute_strategy.cluster_resolver.task_id
            self._folder = os.path.join(self.directory, f"worker_{worker}")
        os.makedirs(self._folder, exist_ok=True)
        self._steps = 0  # of the whole run
        self._steps_saved = 0
        self._resumed = None
        self._told = False
        state = self._newest_state()
        if state is None:
            return
        self._restore(state)
        self._steps = self._steps_saved = state["step"]
        self._resumed = state
        self.model.resume_at(state["epoch"], state["batch"])

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, 0
        if self._resumed is None:
            return
        # Keras has just reset the means of the epoch, and begun a history.
        state, self._resumed = self._resumed, None
        history = self.model.history
        history.history = {k: list(v) for k, v in state["history"].items()}
        history.epoch = list(state["history_epochs"])
        self._read(state, metrics=True)
        self._batch = state["batch"]

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 <= self._batch or self.model.resuming:
            return  # passed over: trained on before
        self._steps += batch + 1 - self._batch
        self._batch = batch + 1
        if self.save_freq == "epoch":
            return
        if self._steps - self._steps_saved >= self.save_freq:
            self._save(self._epoch, self._batch)

    def on_epoch_end(self, epoch, logs=None):
        # Another callback fills the history after this one.
        row = {k: [float(np.asarray(v))] for k, v in (logs or {}).items()}
        past = self.model.history
        history = {k: past.history.get(k, []) + v for k, v in row.items()}
        for name in past.history:
            history.setdefault(name, past.history[name])
        self._save(epoch + 1, 0, history, [*past.epoch, epoch])

    # Writing

    def _save(self, epoch, batch, history=None, history_epochs=None):
        self._steps_saved = self._steps
        if not self._is_finite():
            return self._warn("not saved: the state is not finite")
        past = self.model.history
        state = {
            "format": 1,
            "step": self._steps,
            "epoch": epoch,
            "batch": batch,
            "history": past.history if history is None else history,
            "history_epochs": history_epochs or past.epoch,
            "variables": [[p, list(v.shape)] for p, v in self._variables()],
            "optimizers": [o.name for o in self.model.optimizers],
            "versions": {"keras": keras.__version__, "tf": tf.__version__},
        }
        name = f"step_{self._steps:010d}"
        part = os.path.join(self._folder, f".part_{os.getpid()}")
        try:
            shutil.rmtree(part, ignore_errors=True)
            os.makedirs(part)
            self._tensors(metrics=False).write(os.path.join(part, "state"))
            self._tensors(metrics=True).write(os.path.join(part, "metrics"))
            state["sha256"] = {
                file: _sha256(os.path.join(part, file))
                for file in sorted(os.listdir(part))
            }
            with open(os.path.join(part, _STATE), "w") as file:
                text = json.dumps(state, default=float)
                json.dump({"state": text, "sha256": _sha256_of(text)}, file)
            for file in os.listdir(part):
                _flush(os.path.join(part, file))
            final = os.path.join(self._folder, name)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(part, final)
            _flush(self._folder)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(part, ignore_errors=True)
            return self._warn(f"not saved, training goes on: {error}")
        for old in self._checkpoints()[self.keep :]:
            shutil.rmtree(os.path.join(self._folder, old), ignore_errors=True)

    def _is_finite(self):
        if np.any(np.asarray(self.model.skipped_in_a_row)):
            floats = [
                v for _, v in self._variables() if v.dtype.startswith("float")
            ]
            return all(np.all(np.isfinite(np.asarray(v))) for v in floats)
        return True

    def _warn(self, text):
        if not self._told:
            warnings.warn(
                f"Checkpoint of step {self._steps} {text}"[:600], stacklevel=2
            )
        self._told = True

    # Reading

    def _newest_state(self):
        """State of the newest whole checkpoint; `None` if there is none."""
        names = self._checkpoints()
        for name in names:
            folder = os.path.join(self._folder, name)
            try:
                with open(os.path.join(folder, _STATE)) as file:
                    outer = json.load(file)
                if outer["sha256"] != _sha256_of(outer["state"]):
                    raise ValueError(f"the hash of {_STATE} differs")
                state = json.loads(outer["state"])
                for file, sha256 in state["sha256"].items():
                    if _sha256(os.path.join(folder, file)) != sha256:
                        raise ValueError(f"the hash of {file} differs")
            except (OSError, ValueError, KeyError, TypeError) as error:
                warnings.warn(
                    f"Checkpoint {folder} is damaged ({error}); trying the "
                    "one before.",
                    stacklevel=2,
                )
                continue
            state["folder"] = folder
            return state
        if names:
            raise ValueError(
                f"`directory` {self._folder} holds {len(names)} checkpoints, "
                "and all are damaged. Remove them to start afresh."
            )

    def _restore(self, state):
        if state["format"] != 1:
            raise ValueError(
                f"Checkpoint {state['folder']} has format {state['format']}, "
                "written by a newer keras_gen; this one reads format 1."
            )
        here = [[path, list(v.shape)] for path, v in self._variables()]
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
        self._read(state, metrics=False)

    def _read(self, state, metrics):
        name = "metrics" if metrics else "state"
        path = os.path.join(state["folder"], name)
        self._tensors(metrics).read(path).assert_consumed()

    # What there is

    def _checkpoints(self):
        names = filter(_STEP.fullmatch, os.listdir(self._folder))
        return sorted(names, reverse=True)

    def _variables(self):
        """Pairs of a path and a variable: all that training changes."""
        means = {id(v) for m in self.model.metrics for v in m.variables}
        found = [v for v in self.model.variables if id(v) not in means]
        for optimizer in self.model.optimizers:
            found.extend(optimizer.variables)
        return [(_numbered(v.path), v) for v in found]

    def _tensors(self, metrics):
        if metrics:
            found = [v for m in self.model.metrics for v in m.variables]
        else:
            found = [v for _, v in self._variables()]
        return tf.train.Checkpoint(
            **{f"v{i:05d}": v.value for i, v in enumerate(found)}
        )


def _numbered(path):
    # Keras numbers names by what else the process made before.
    return re.sub(r"_\d+(?=[_/]|$)", "", path)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
