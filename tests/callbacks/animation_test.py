import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import images
from keras_gen.callbacks.animation import TrainingAnimation
from keras_gen.callbacks.pictures import ReconstructionGrid, SampleGrid

Image = pytest.importorskip("PIL.Image")


class Fading(keras.Model):
    """Samples are grey, of `1 - 0.1 * epochs`; training adds an epoch."""

    def __init__(self, image_shape=(4, 4, 1)):
        super().__init__()
        self.image_shape = image_shape
        self.epochs = self.add_weight(initializer="zeros", trainable=False)
        self.built = True
        self.compile(optimizer=None)

    def train_step(self, data):
        self.epochs.assign_add(1)
        return {"loss": self.epochs.value}

    def sample(self, num_samples, seed=None):
        shape = (num_samples, *self.image_shape)
        return tf.fill(shape, max(0.0, 1.0 - 0.1 * float(self.epochs)))

    def reconstruct(self, x):
        return self.sample(len(x))


def fit(callbacks, epochs, initial_epoch=0, model=None):
    model = model or Fading()
    model.epochs.assign(initial_epoch)
    model.fit(
        np.zeros((2, 4, 4, 1), "float32"),
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=callbacks,
    )


def frames(path):
    """`(seconds, picture)` of each frame of a GIF, and whether it loops."""
    found = []
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
        for i in range(gif.n_frames):
            gif.seek(i)
            picture = np.asarray(gif.convert("RGB"))
            found.append((gif.info["duration"] / 1000, picture))
    return found


def test_each_frame_is_the_grid_of_its_epoch(tmp_path):
    film = TrainingAnimation(
        SampleGrid(tmp_path, num_samples=4), frame_seconds=0.1
    )
    fit(film, epochs=3)
    shown = frames(tmp_path / "samples.gif")
    assert [seconds for seconds, _ in shown] == [0.1, 0.1, 2.0]
    for epoch, (_, picture) in enumerate(shown, start=1):
        grey = np.full((4, 4, 4, 1), 1 - 0.1 * epoch, "float32")
        expected = np.repeat(images.grid(grey), 3, axis=-1)
        np.testing.assert_array_equal(picture, expected)


def test_colours_survive_and_transparency_is_white(tmp_path):
    class Emoji(Fading):
        def sample(self, num_samples, seed=None):
            red = np.zeros((num_samples, 4, 4, 4), "float32")
            red[..., 0] = 1 - 0.1 * float(self.epochs)
            red[:, :, :2, 3] = 1.0
            return red

    fit(TrainingAnimation(SampleGrid(tmp_path, 1)), 2, model=Emoji())
    (_, first), (_, second) = frames(tmp_path / "samples.gif")
    np.testing.assert_allclose(first[3, 3], [230, 0, 0], atol=3)
    np.testing.assert_allclose(second[3, 3], [204, 0, 0], atol=3)
    np.testing.assert_allclose(second[3, 5], 255)


def test_a_directory_stands_for_samples_and_any_picture_has_a_film(tmp_path):
    x = np.zeros((2, 4, 4, 1), "float32")
    fit(
        [
            TrainingAnimation(tmp_path / "a"),
            TrainingAnimation(ReconstructionGrid(tmp_path / "b", x, every=2)),
        ],
        epochs=4,
    )
    assert len(frames(tmp_path / "a" / "samples.gif")) == 4
    assert len(frames(tmp_path / "b" / "reconstructions.gif")) == 2


def test_a_resumed_run_has_all_its_epochs_in_the_film(tmp_path):
    fit(TrainingAnimation(tmp_path / "whole"), epochs=5)
    fit(SampleGrid(tmp_path / "killed"), epochs=3)  # which wrote no film
    fit(TrainingAnimation(tmp_path / "killed"), epochs=5, initial_epoch=3)
    whole = (tmp_path / "whole" / "samples.gif").read_bytes()
    assert (tmp_path / "killed" / "samples.gif").read_bytes() == whole


def test_a_run_with_no_epoch_left_has_its_film(tmp_path):
    fit(SampleGrid(tmp_path), epochs=3)
    fit(TrainingAnimation(tmp_path), epochs=3, initial_epoch=3)
    assert len(frames(tmp_path / "samples.gif")) == 3


def test_later_epochs_of_an_older_run_are_not_in_the_film(tmp_path):
    fit(TrainingAnimation(tmp_path), epochs=5)
    fit(TrainingAnimation(tmp_path), epochs=2)
    assert len(frames(tmp_path / "samples.gif")) == 2


@pytest.mark.parametrize(
    "max_frames, epochs", [(1, [9]), (2, [1, 9]), (3, [1, 5, 9])]
)
def test_long_runs_are_thinned_out_evenly(tmp_path, max_frames, epochs):
    film = TrainingAnimation(SampleGrid(tmp_path, 1), max_frames=max_frames)
    fit(film, epochs=9)
    with Image.open(tmp_path / "samples.gif") as gif:
        assert gif.n_frames == max_frames
    names = [f"{tmp_path}/epoch_{epoch:04d}.png" for epoch in epochs]
    assert film.frames_of(tmp_path) == names


def test_large_grids_are_made_smaller(tmp_path):
    model = Fading((1200, 600, 1))
    fit(TrainingAnimation(SampleGrid(tmp_path, 1)), 1, model=model)
    with Image.open(tmp_path / "samples.gif") as gif:
        assert gif.size == (514, 1024)


def test_a_film_of_steps_has_them_and_the_last_epoch(tmp_path):
    grid = SampleGrid(tmp_path, 1, every_steps=1)
    film = TrainingAnimation(grid)
    assert not film.async_safe
    (tmp_path / "step_00000007.png").touch()  # of a longer run
    fit(film, epochs=2)
    names = [path.split("/")[-1] for path in film.frames_of(str(tmp_path))]
    steps = ["step_00000001.png", "step_00000002.png"]
    assert names == [*steps, "epoch_0002.png"]
    assert len(frames(tmp_path / "samples.gif")) > 1


def test_a_film_that_does_not_fit_the_disk_is_a_warning(tmp_path, monkeypatch):
    save = Image.Image.save

    def full(self, path, **kwargs):
        save(self, path, format="gif")  # half of it
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.warns(UserWarning, match="samples.gif.*left on device") as told:
        fit(TrainingAnimation(SampleGrid(tmp_path, 1)), epochs=2)
    assert len(told) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch_0001.png",
        "epoch_0002.png",
        "samples.png",
    ]


def test_what_does_not_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`grid`.*got History"):
        TrainingAnimation(keras.callbacks.History())
    with pytest.raises(ValueError, match="`frame_seconds`"):
        TrainingAnimation(tmp_path, frame_seconds=0)
    with pytest.raises(ValueError, match="`max_frames`"):
        TrainingAnimation(tmp_path, max_frames=0)


def test_missing_pillow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"keras_gen\[animation\]"):
        TrainingAnimation(tmp_path)
