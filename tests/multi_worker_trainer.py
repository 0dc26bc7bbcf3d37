"""One of the two workers that `multi_worker_test.py` starts.

    python multi_worker_trainer.py INDEX PORT PORT FOLDER [die] [poison]

trains a VAE under `MultiWorkerMirroredStrategy`, and writes what training
changed to FOLDER/INDEX.npz. With `die`, worker 1 ends by SIGKILL just before
its fifth checkpoint would be whole, once that of worker 0 is. With `poison`,
the share of worker 1 of the second batch holds a NaN.
"""

import json
import os
import signal
import sys
import time

import keras
import numpy as np
import tensorflow as tf

SHAPE = (8, 8, 1)
BATCH = 16  # over both workers
FIFTH = "step_0000000005_epoch_000001"


def images(num_images=3 * BATCH, seed=0):
    return np.random.default_rng(seed).random((num_images, *SHAPE), "float32")


def poisoned():
    x = images()
    x[2 * BATCH - 1, 0, 0, 0] = np.nan
    # Of a dataset, the first batch alone is looked at before training.
    return tf.data.Dataset.from_tensor_slices(x).batch(BATCH, True)


def compiled_vae():
    """To be called in the scope of a strategy of two replicas."""
    from keras_gen import VAE, networks  # after the strategy: it needs TF idle

    keras.utils.set_random_seed(0)
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
    model = VAE(SHAPE, 3, encoder=encoder, decoder=decoder, seed=1)
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def fit(model, x, callbacks=()):
    """Three epochs of three batches."""
    return model.fit(
        x,
        batch_size=BATCH if isinstance(x, np.ndarray) else None,
        epochs=3,
        validation_data=images(BATCH, seed=1),
        callbacks=list(callbacks),
        verbose=0,
    )


def result_of(model, history):
    """All that training changed, by name."""
    variables = [*model.variables, *model.optimizer.variables]
    state = {f"{i}:{v.path}": np.asarray(v) for i, v in enumerate(variables)}
    for key, values in history.history.items():
        state[f"history:{key}"] = np.asarray(values)
    return state


def die_before_the_fifth(folder):
    replace = os.replace

    def replace_or_die(source, target):
        if os.path.basename(target) == FIFTH:
            while not os.path.exists(os.path.join(folder, FIFTH)):
                time.sleep(0.01)  # for worker 0
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die


def main(index, *ports_and_more):
    ports, (folder, *how) = ports_and_more[:2], ports_and_more[2:]
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": int(index)},
        }
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from keras_gen.callbacks import Checkpoint, SampleGrid

    with strategy.scope():
        model = compiled_vae()
    checkpoints = os.path.join(folder, "checkpoints")
    if "die" in how and index == "1":
        die_before_the_fifth(checkpoints)
    callbacks = [
        Checkpoint(checkpoints, save_freq=1),
        SampleGrid(os.path.join(folder, f"samples_{index}"), 4),
    ]
    x = poisoned() if "poison" in how else images()
    history = fit(model, x, callbacks)
    result = result_of(model, history)
    np.savez(os.path.join(folder, f"{index}.npz"), **result)


if __name__ == "__main__":
    status = 1
    try:
        main(*sys.argv[1:])
        status = 0
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)  # a collective that waits would hold it back
