"""Every way in which a checkpoint may be damaged, missing or not wanted."""

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import datasets, networks
from keras_gen.callbacks import Checkpoint
from keras_gen.models import GAN, VAE

SHAPE = (8, 8, 1)
FILES = [
    "means.data-00000-of-00001",
    "means.index",
    "state.data-00000-of-00001",
    "state.index",
    "state.json",
]
# A run of three epochs of four batches, saved at the end of each.
RUN = [f"step_{4 * e:010d}_epoch_{e:06d}" for e in (1, 2, 3)]


def images(num_images=32, seed=0):
    return np.random.default_rng(seed).random((num_images, *SHAPE), "float32")


def compiled_vae(latent_dim=2, optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2 * latent_dim),
        ]
    )
    decoder = networks.mlp_decoder(latent_dim, SHAPE, (8,))
    model = VAE(SHAPE, latent_dim, encoder=encoder, decoder=decoder, seed=1)
    if not tf.distribute.has_strategy():
        arguments = {"steps_per_execution": 1, **arguments}
    optimizer = optimizer or keras.optimizers.Adam(1e-2)
    model.compile(optimizer, jit_compile=False, **arguments)
    return model


def fit(model, checkpoint, data=None, *, epochs=3, callbacks=(), **arguments):
    data = images() if data is None else data
    if isinstance(data, np.ndarray):
        arguments["batch_size"] = 8
    return model.fit(
        data,
        epochs=epochs,
        callbacks=[*([checkpoint] if checkpoint else []), *callbacks],
        verbose=0,
        **arguments,
    )


def variables_of(model):
    variables = [*model.variables]
    for optimizer in model.optimizers:
        variables += optimizer.variables
    return variables


def state_of(model):
    return [np.array(variable) for variable in variables_of(model)]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Ends training as a crash would; stands behind the checkpoint."""

    def __init__(self, *, batch=None, epoch):
        super().__init__()
        self.batch, self.epoch = batch, epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (batch, self.now) == (self.batch, self.epoch):
            self.crash()

    def on_epoch_end(self, epoch, logs=None):
        if self.batch is None and epoch == self.epoch:
            self.crash()

    def crash(self):
        raise Killed


class Copy(Kill):
    """Copies what a crash would leave on the disk, and lets training go on."""

    def __init__(self, source, target, **when):
        super().__init__(**when)
        self.source, self.target = source, target

    def crash(self):
        shutil.copytree(self.source, self.target)


def killed(model, checkpoint, kill, data=None, **arguments):
    with pytest.raises(Killed):
        fit(model, checkpoint, data, callbacks=[kill], **arguments)


class Record(keras.callbacks.Callback):
    """Keeps the state after each epoch."""

    def __init__(self):
        super().__init__()
        self.states = []

    def on_epoch_end(self, epoch, logs=None):
        self.states.append(state_of(self.model))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that ended: its model, folder, and the state after each epoch."""
    model, record = compiled_vae(), Record()
    folder = tmp_path_factory.mktemp("run")
    fit(model, Checkpoint(folder), callbacks=[record])
    assert sorted(os.listdir(folder)) == RUN
    return model, folder, record.states


@pytest.fixture(scope="module")
def one_vae():
    """To trace its graph takes longer than what is asked of it."""
    model = compiled_vae()
    return model, state_of(model)


@pytest.fixture
def vae(one_vae):
    """`compiled_vae()`, as if made anew."""
    model, start = one_vae
    for variable, value in zip(variables_of(model), start, strict=True):
        variable.assign(value)
    return model


@pytest.fixture
def folder(run, tmp_path):
    """A copy of the checkpoints of `run`, to be damaged."""
    return shutil.copytree(run[1], tmp_path / "checkpoints")


def restored(run, folder):
    """The state that a fresh start would go on with, and the warnings."""
    model = run[0]
    for variable in model.trainable_weights:
        variable.assign(tf.zeros_like(variable))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, Checkpoint(folder), epochs=0)
    return state_of(model), [str(w.message) for w in caught]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Which checkpoints there are


def test_the_newest_checkpoints_stay(vae, tmp_path):
    names = {}

    class List(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            names[epoch] = sorted(os.listdir(tmp_path))

    checkpoint = Checkpoint(tmp_path, save_freq=3, keep=2)
    fit(vae, checkpoint, callbacks=[List()])
    # After batches 3, 4 (end), 7, 8 (end), 11 and 12 (end).
    assert names == {
        0: ["step_0000000003_epoch_000000", "step_0000000004_epoch_000001"],
        1: ["step_0000000007_epoch_000001", "step_0000000008_epoch_000002"],
        2: ["step_0000000011_epoch_000002", "step_0000000012_epoch_000003"],
    }


def test_a_whole_checkpoint_is_restored_without_warning(run, folder):
    state, messages = restored(run, folder)
    assert_same(state, run[2][2])
    assert messages == []


def test_the_remains_of_a_killed_write_are_ignored_and_removed(run, folder):
    shutil.copytree(
        folder / RUN[2], folder / ".part-1234" / "step_0000000099_epoch_000009"
    )
    (folder / "notes.txt").write_text("not ours")
    (folder / "step_12").mkdir()
    state, messages = restored(run, folder)
    assert_same(state, run[2][2])
    assert messages == []
    assert sorted(os.listdir(folder)) == sorted(["notes.txt", "step_12", *RUN])


# Damage


def flip(path, bit=None):
    data = bytearray(path.read_bytes())
    bit = 4 * len(data) if bit is None else bit  # in the middle
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def make_folder(path):
    path.unlink()
    path.mkdir()


def tear(path):  # the file of the step before, beside the others of this one
    shutil.copy(path.parents[1] / RUN[1] / path.name, path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage",
    [flip, truncate, empty, os.remove, make_folder, tear],
    ids=["flipped", "truncated", "empty", "missing", "folder", "torn"],
)
def test_a_damaged_checkpoint_is_passed_over(run, folder, damage, file):
    assert sorted(os.listdir(folder / RUN[2])) == FILES
    before = (folder / RUN[2] / file).read_bytes()
    damage(folder / RUN[2] / file)
    state, messages = restored(run, folder)
    path = folder / RUN[2] / file
    if path.is_file() and path.read_bytes() == before:
        # Both steps wrote the same: an index of tensors of the same sizes.
        assert damage is tear and file.endswith("index")
        return
    assert_same(state, run[2][1])
    (message,) = messages
    assert str(folder / RUN[2]) in message and "damaged" in message
    assert len(message) <= 600


def test_no_flipped_bit_is_silent(run, folder):
    rng = np.random.default_rng(0)
    for index in range(60):
        path = folder / RUN[2] / FILES[index % len(FILES)]
        bit = int(rng.integers(8 * path.stat().st_size))
        flip(path, bit)
        state, messages = restored(run, folder)
        assert len(messages) == 1 and "damaged" in messages[0], (path, bit)
        assert_same(state, run[2][1])
        flip(path, bit)
    assert_same(restored(run, folder)[0], run[2][2])


def test_two_damaged_checkpoints_are_passed_over(run, folder):
    empty(folder / RUN[2] / "state.json")
    flip(folder / RUN[1] / "state.data-00000-of-00001")
    state, messages = restored(run, folder)
    assert_same(state, run[2][0])
    assert [RUN[2] in messages[0], RUN[1] in messages[1]] == [True, True]


def test_training_does_not_start_afresh_if_all_are_damaged(run, folder):
    for name in RUN:
        truncate(folder / name / "means.index")
    before = contents(folder)
    with pytest.raises(ValueError, match="all are damaged") as error:
        restored(run, folder)
    assert str(folder) in str(error.value) and len(str(error.value)) <= 600
    assert contents(folder) == before


def test_a_run_goes_on_from_the_checkpoint_before_the_damaged_one(
    run, folder, vae
):
    flip(folder / RUN[2] / "state.data-00000-of-00001")
    with pytest.warns(UserWarning, match="damaged"):
        fit(vae, Checkpoint(folder, save_freq=3, keep=1))
    assert_same(state_of(vae), run[2][2])
    assert os.listdir(folder) == [RUN[2]]  # and it is whole again
    assert restored(run, folder)[1] == []


def test_a_damaged_checkpoint_does_not_count_as_one_to_keep(run, folder, vae):
    flip(folder / RUN[2] / "state.data-00000-of-00001")
    checkpoint = Checkpoint(folder, save_freq=1, keep=1)
    with pytest.warns(UserWarning, match="damaged"):
        killed(vae, checkpoint, Kill(batch=1, epoch=2))
    assert os.listdir(folder) == ["step_0000000010_epoch_000002"]
    assert restored(run, folder)[1] == []


# Checkpoints of something else


def test_a_checkpoint_of_another_model_is_refused(run, folder):
    before = contents(folder)
    model = compiled_vae(latent_dim=3)
    start = state_of(model)
    with pytest.raises(ValueError, match="another model") as error:
        fit(model, Checkpoint(folder))
    message = str(error.value)
    assert RUN[2] in message and len(message) <= 600
    assert "'sequential/dense/kernel', [8, 4]] there" in message
    assert "[8, 6]] here" in message
    assert_same(state_of(model), start)
    assert contents(folder) == before


def test_a_checkpoint_of_another_class_of_model_is_refused(folder):
    gan = GAN(
        SHAPE,
        3,
        generator=networks.mlp_generator(3, SHAPE, (8,)),
        discriminator=networks.mlp_discriminator(SHAPE, (8,)),
    )
    gan.compile(jit_compile=False)
    with pytest.raises(ValueError, match=r"vae/.* there, .*gan/.* here"):
        fit(gan, Checkpoint(folder))


@pytest.mark.parametrize("name", ["sgd", "adam_w"])
def test_a_checkpoint_of_another_optimizer_is_refused(folder, name):
    optimizer = keras.optimizers.get(name.replace("_", ""))
    with pytest.raises(ValueError, match=rf"adam/.* there, .*{name}/.* here"):
        fit(compiled_vae(optimizer=optimizer), Checkpoint(folder))


def test_a_checkpoint_from_the_future_is_refused(run, folder):
    path = folder / RUN[2] / "state.json"
    state = json.loads(json.loads(path.read_text())["state"])
    text = json.dumps({**state, "format": 2})
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({"state": text, "sha256": sha256}))
    with pytest.raises(ValueError, match="has format 2, written by a newer"):
        restored(run, folder)


# Writes that fail

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "owner, function, error",
    [
        (tf.train.Checkpoint, "write", NO_SPACE),
        (
            tf.train.Checkpoint,
            "write",
            tf.errors.ResourceExhaustedError(None, None, "No space left"),
        ),
        (json, "dump", NO_SPACE),
        (os, "fsync", NO_SPACE),
        (os, "replace", NO_SPACE),
    ],
    ids=["write", "write-tf", "dump", "fsync", "replace"],
)
def test_a_write_that_fails_costs_one_warning_and_nothing_else(
    run, vae, owner, function, error, tmp_path, monkeypatch
):
    working = getattr(owner, function)
    found = {}

    def fail(*args, **kwargs):
        raise error

    class Fail(keras.callbacks.Callback):  # in the second of three epochs
        def on_epoch_begin(self, epoch, logs=None):
            monkeypatch.setattr(owner, function, [working, fail][epoch == 1])
            found[epoch] = contents(tmp_path)

    with pytest.warns(UserWarning, match="(?i)no space left") as caught:
        fit(vae, Checkpoint(tmp_path, save_freq=2), callbacks=[Fail()])
    told = [w for w in caught if "not saved" in str(w.message)]
    assert len(told) == 1 and "training goes on" in str(told[0].message)
    assert_same(state_of(vae), run[2][2])
    assert found[2] == found[1] != found[0]  # nothing lost, nothing added
    state, messages = restored(run, tmp_path)  # the third epoch was saved
    assert_same(state, run[2][2])
    assert messages == []


def test_a_disk_that_fills_at_any_point_of_a_write_loses_nothing(
    run, vae, tmp_path
):
    """Files may not grow beyond a limit, which is a higher one each time."""
    shutil.copytree(run[1] / RUN[0], tmp_path / RUN[0])
    size = max(len(data) for data in contents(tmp_path).values())
    limits = [size * tenth // 10 for tenth in range(10)]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(keras.callbacks.Callback):  # stands before the checkpoint
        def on_train_batch_end(self, batch, logs=None):
            limit = (limits.pop(0), unlimited[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

        def on_epoch_end(self, epoch, logs=None):
            self.on_train_batch_end(None)

    class Free(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert os.listdir(tmp_path) == [RUN[0]]

        def on_epoch_end(self, epoch, logs=None):
            self.on_train_batch_end(None)

    checkpoint = Checkpoint(tmp_path, save_freq=1)
    try:
        with pytest.warns(UserWarning, match="not saved") as caught:
            vae.fit(
                images(),
                batch_size=8,
                epochs=3,
                callbacks=[Fill(), checkpoint, Free()],
                verbose=0,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert limits == [] and len(caught) == 1
    assert_same(state_of(vae), run[2][2])
    assert_same(restored(run, tmp_path)[0], run[2][0])


def test_weights_that_are_not_finite_are_never_saved(run, vae, tmp_path):
    class Poison(keras.callbacks.Callback):  # before the checkpoint
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                weight = self.model.trainable_weights[-1]
                weight.assign(tf.fill(weight.shape, np.inf))

    with pytest.warns(UserWarning, match="state is not finite"):
        vae.fit(
            images(),
            batch_size=8,
            epochs=3,
            callbacks=[Poison(), Checkpoint(tmp_path, save_freq=1)],
            verbose=0,
        )
    # The checkpoint of batch 8 was still good; none came after it.
    assert max(os.listdir(tmp_path)) == "step_0000000008_epoch_000001"
    state, messages = restored(run, tmp_path)
    assert all(np.all(np.isfinite(array)) for array in state)
    assert messages == []


# Resuming


def test_a_start_after_the_end_trains_nothing(tmp_path):
    validation = {"validation_data": images(16, seed=9)}
    first = compiled_vae()
    history = fit(first, Checkpoint(tmp_path), **validation)
    again = compiled_vae()
    told = fit(again, Checkpoint(tmp_path), **validation)
    assert_same(state_of(first), state_of(again))
    assert told.history == history.history and told.epoch == [0, 1, 2]
    assert "val_loss" in told.history
    longer = fit(again, Checkpoint(tmp_path), epochs=4, **validation)
    assert longer.epoch == [0, 1, 2, 3]
    assert longer.history["loss"][:3] == history.history["loss"]
    straight = compiled_vae()
    fit(straight, None, epochs=4, **validation)
    assert_same(state_of(straight), state_of(again))


def seeded():
    data = tf.data.Dataset.from_tensor_slices(images())
    return data.shuffle(32, seed=3).batch(8, drop_remainder=True)


def endless():
    data = tf.data.Dataset.from_tensor_slices(images())
    return data.shuffle(32, seed=3).batch(8).repeat()


def unknown_length():
    return seeded().filter(lambda x: True)


def run_killed_and_resumed(tmp_path, make_data, when, *, save_freq, **how):
    """A run straight through, one from its middle, and one never saved."""
    arguments = how.pop("arguments", {})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    wanted, model = compiled_vae(**how), compiled_vae(**how)
    start = state_of(model)
    straight = fit(
        wanted,
        Checkpoint(whole, save_freq=save_freq),
        make_data(),
        callbacks=[Copy(whole, killed, **when)],
        **arguments,
    )
    assert os.listdir(killed)
    for checkpoint in (Checkpoint(killed, save_freq=save_freq), None):
        found = fit(model, checkpoint, make_data(), **arguments)
        assert_same(state_of(wanted), state_of(model))
        assert straight.history == found.history
        assert straight.epoch == found.epoch
        for variable, value in zip(variables_of(model), start, strict=True):
            variable.assign(value)


@pytest.mark.parametrize(
    "when, save_freq",
    [
        ({"epoch": 0}, "epoch"),
        ({"epoch": 1}, 1),
        ({"batch": 2, "epoch": 1}, "epoch"),
        ({"batch": 3, "epoch": 1}, 4),
    ],
    ids=["end", "end-1", "within", "last"],
)
def test_it_goes_on_wherever_it_was_killed(tmp_path, when, save_freq):
    data = {"arguments": {"validation_data": images(16, seed=9)}}
    run_killed_and_resumed(tmp_path, images, when, save_freq=save_freq, **data)


# Each execution is of three of the four batches; the second of what is left.
@pytest.mark.parametrize(
    "make_data, batch", [(images, 5), (seeded, 2), (unknown_length, 5)]
)
def test_it_goes_on_between_executions_of_several_steps(
    tmp_path, make_data, batch
):
    with warnings.catch_warnings():  # Keras's, where the length is not known
        warnings.filterwarnings("ignore", "Your input ran out of data")
        run_killed_and_resumed(
            tmp_path,
            make_data,
            {"batch": batch, "epoch": 1},
            save_freq=2,
            steps_per_execution=3,
        )


def test_steps_per_execution_may_not_cut_what_was_one(vae, tmp_path):
    checkpoint = Checkpoint(tmp_path, save_freq=1)
    killed(vae, checkpoint, Kill(batch=1, epoch=1))
    with pytest.raises(ValueError, match="`steps_per_execution=3` must divide"):
        fit(compiled_vae(steps_per_execution=3), Checkpoint(tmp_path))
    fit(compiled_vae(steps_per_execution=2), Checkpoint(tmp_path))


@pytest.mark.parametrize("make_data", [images, endless])
def test_it_goes_on_within_steps_per_epoch(tmp_path, make_data):
    run_killed_and_resumed(
        tmp_path,
        make_data,
        {"batch": 1, "epoch": 1},
        save_freq=1,
        arguments={"steps_per_epoch": 3},
    )


def test_validation_data_of_another_order_each_time_goes_on_too(tmp_path):
    def validation_data():
        return datasets.load("digits", "train[-30:]", batch_size=8)

    whole = compiled_vae()
    wanted = fit(whole, None, validation_data=validation_data())
    assert len(set(wanted.history["val_loss"])) == 3
    killed(
        compiled_vae(),
        Checkpoint(tmp_path),
        Kill(epoch=0),
        validation_data=validation_data(),
    )
    model = compiled_vae()
    resumed = fit(
        model, Checkpoint(tmp_path), validation_data=validation_data()
    )
    assert resumed.history == wanted.history


def test_it_goes_on_on_two_replicas(tmp_path, two_replicas):
    with two_replicas.scope():
        run_killed_and_resumed(
            tmp_path,
            seeded,
            {"batch": 2, "epoch": 1},
            save_freq=1,
            arguments={"validation_data": images(16, seed=9)},
        )


def test_one_device_goes_on_with_what_two_replicas_saved(
    tmp_path, two_replicas
):
    checkpoint = Checkpoint(tmp_path, save_freq=1)
    with two_replicas.scope():
        model = compiled_vae()
        killed(model, checkpoint, Kill(batch=2, epoch=1))
    again = compiled_vae()
    fit(again, Checkpoint(tmp_path), epochs=0)
    assert_same(state_of(model), state_of(again))
    history = fit(again, Checkpoint(tmp_path))
    assert int(again.optimizer.iterations) == 12
    assert history.epoch == [0, 1, 2]


def test_the_scale_of_the_loss_is_restored(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    first = compiled_vae()
    killed(first, Checkpoint(tmp_path), Kill(epoch=1))
    first.optimizer.dynamic_scale.assign(32.0)
    fit(first, Checkpoint(tmp_path), epochs=0)
    assert float(first.optimizer.dynamic_scale) == 2.0**15
    assert int(first.optimizer.step_counter) == 8


def test_other_callbacks_work_beside_it(tmp_path):
    folder = tmp_path / "checkpoints"
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)
    # No loss is lower by a million: this stops after one epoch of patience.
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e6, mode="min")
    first = fit(compiled_vae(), Checkpoint(folder), callbacks=[log, stop])
    assert first.epoch == [0, 1]
    again = fit(compiled_vae(), Checkpoint(folder), callbacks=[log])
    assert again.epoch == [0, 1, 2]
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2"]


# Arguments


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"save_freq": 0}, "save_freq.*'epoch'"),
        ({"save_freq": "batch"}, "save_freq.*'epoch'"),
        ({"save_freq": 2.0}, "save_freq"),
        ({"save_freq": True}, "save_freq"),
        ({"keep": 0}, "keep"),
        ({"keep": None}, "keep"),
        ({"keep": True}, "keep"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, word):
    with pytest.raises(ValueError, match=word):
        Checkpoint(tmp_path, **arguments)


def test_models_of_other_packages_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="BackupAndRestore"):
        model.fit(x, x, verbose=0, callbacks=[Checkpoint(tmp_path)])


def test_a_directory_must_be_a_folder_that_can_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`directory` must be a folder"):
        Checkpoint(tmp_path / "file")
    model = compiled_vae()
    start = state_of(model)
    with pytest.raises(ValueError, match="`directory` must be a folder"):
        fit(model, Checkpoint(tmp_path / "file" / "run"))
    assert_same(state_of(model), start)


def test_a_home_folder_is_found(vae, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(vae, Checkpoint("~/run"), epochs=1)
    with contextlib.chdir(tmp_path):
        assert os.listdir("run") == [RUN[0]]
