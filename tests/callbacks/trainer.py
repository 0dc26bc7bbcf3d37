"""The training process that the kill tests start, kill, and start again.

    python trainer.py MODEL FOLDER SAVE_FREQ [FAULT]

trains MODEL, "vae" or "gan", with a `Checkpoint` in FOLDER/checkpoints. Into
FOLDER/log.txt go a line `resumed STEP` for each start, `complete NAME` for
each checkpoint, and `killed WHERE`; into FOLDER/final.npz all that training
changes. FAULT, as JSON, is when the process sends itself SIGKILL:

- `{"step": 7, "delay": 0.01}`: 0.01 seconds after step 7 of the whole run;
- `{"call": 5, "when": "before", "delay": 0}`: before, after, or so many
  seconds after the start of ("within") the fifth call by which a file is
  written, moved or removed, counted from the start of training here.
"""

import json
import os
import signal
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

import keras_gen
from keras_gen import networks

SHAPE = (8, 8, 1)
BATCHES = 5  # an epoch
EPOCHS = 4
REAL_CALLS = [
    (tf.train.Checkpoint, "write"),
    (json, "dump"),
    (os, "mkdir"),
    (os, "fsync"),
    (os, "replace"),
    (os, "rename"),
    (os, "unlink"),
    (os, "rmdir"),
]


def vae():
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(6),
        ]
    )
    decoder = networks.mlp_decoder(3, SHAPE, (16,))
    model = keras_gen.VAE(SHAPE, 3, encoder=encoder, decoder=decoder, seed=1)
    # Five batches in executions of two: the last one is cut short.
    model.compile(
        keras.optimizers.Adam(1e-2), jit_compile=False, steps_per_execution=2
    )
    data = keras_gen.datasets.load("digits", "train[:80]", batch_size=16)
    return model, data, {}


def gan():
    discriminator = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="leaky_relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    model = keras_gen.GAN(
        SHAPE,
        3,
        generator=networks.mlp_generator(3, SHAPE, (16,)),
        discriminator=discriminator,
        ema=0.9,
        seed=1,
    )
    model.compile(
        keras.optimizers.Adam(1e-2, beta_1=0.5),
        keras.optimizers.Adam(1e-2, beta_1=0.5),
        jit_compile=False,
        steps_per_execution=1,
    )
    x = np.random.default_rng(0).random((40, *SHAPE), "float32")
    return model, x, {"batch_size": 8}


class Fault(keras.callbacks.Callback):
    """Kills the process when it is time; stands before the checkpoint."""

    def __init__(self, folder, fault):
        super().__init__()
        path = os.path.join(folder, "log.txt")
        self.log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.fault = fault
        self.calls = 0
        self.timer = None

    def write(self, line):
        os.write(self.log, f"{line}\n".encode())

    def kill(self, where):
        self.write(f"killed {where}")
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_later(self, where):
        delay = self.fault["delay"]
        self.timer = threading.Timer(delay, self.kill, (where,))
        self.timer.start()

    def on_train_begin(self, logs=None):
        for owner, name in REAL_CALLS:
            setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, call):
        def counted_call(*args, **kwargs):
            self.calls += 1
            is_last = self.calls == self.fault.get("call")
            where = f"{self.fault.get('when')} {call.__name__}"
            if is_last and self.fault["when"] == "before":
                self.kill(where)
            if is_last and self.fault["when"] == "within":
                self.kill_later(where)
            result = call(*args, **kwargs)
            if call.__name__ == "replace":
                self.write(f"complete {os.path.basename(args[1])}")
            if is_last and self.fault["when"] == "after":
                self.kill(where)
            return result

        return counted_call

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = BATCHES * self.epoch + min(batch + 1, BATCHES)
        is_late = step >= self.fault.get("step", 1000)
        if is_late and not self.timer and not self.model.resuming:
            self.kill_later(f"at step {step}")


def main(name, folder, save_freq, fault="{}"):
    keras.utils.set_random_seed(0)
    model, data, arguments = {"vae": vae, "gan": gan}[name]()
    checkpoint = keras_gen.callbacks.Checkpoint(
        os.path.join(folder, "checkpoints"), save_freq=int(save_freq), keep=2
    )
    fault = Fault(folder, json.loads(fault))
    resumed = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: fault.write(
            f"resumed {int(model.optimizer.iterations)}"
        )
    )
    history = model.fit(
        data,
        epochs=EPOCHS,
        callbacks=[fault, checkpoint, resumed],
        validation_data=np.random.default_rng(1).random(
            (16, *SHAPE), "float32"
        ),
        verbose=0,
        **arguments,
    )
    if fault.timer:
        fault.timer.join()
    variables = [*model.variables]
    for optimizer in model.optimizers:
        variables += optimizer.variables
    state = {f"{i}:{v.path}": np.asarray(v) for i, v in enumerate(variables)}
    for key, values in history.history.items():
        state[f"history:{key}"] = np.asarray(values)
    np.savez(os.path.join(folder, "final.npz"), **state, epoch=history.epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])
