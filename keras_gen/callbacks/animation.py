"""A film of training, made of the pictures that a callback draws."""

import os
import re

import keras
import numpy as np

from keras_gen import files, inputs
from keras_gen.callbacks.chief import is_chief
from keras_gen.callbacks.pictures import (
    PictureGrid,
    SampleGrid,
    going_on_without,
)

MAX_SIDE = 1024  # pixels of a frame
LAST_FRAME_SECONDS = 2.0


class TrainingAnimation(keras.callbacks.Callback):
    """Turns the grids of a run into a GIF that loops.

    It runs the callback that draws, so that this one is not to be given to
    `fit` as well. When training ends, the PNG files of that callback are read
    back, one at a time, and become the frames of `directory/TAG.gif`, for
    example `directory/samples.gif`: those of all epochs, or, of a `SampleGrid`
    with `every_steps`, those of these steps and of the last epoch. Since the
    frames come from the files, a run that was killed and started again is in
    the film as a whole.

    However long the run and large the grids, it keeps `max_frames` frames in
    memory at most, of one byte a pixel, and these within 1024 x 1024 pixels:
    more are thinned out evenly, larger pictures are made smaller. A film that
    cannot be written, on a full disk for one, is left out with a warning.

    Args:
        grid: A callback that draws, as `SampleGrid`, `ReconstructionGrid` or
            `LatentTraversal`, or a directory, which stands for
            `SampleGrid(directory)`.
        frame_seconds: Number, how long a frame is shown; the last one stays
            for 2 seconds.
        max_frames: Integer, how many frames the film has at most.

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If an argument is not as above; before training starts,
            what `grid` raises.

    Example:

    >>> film = TrainingAnimation(SampleGrid("run/samples", num_samples=100))
    >>> model.fit(train, epochs=50, callbacks=[film])  # run/samples/samples.gif
    """

    def __init__(self, grid, *, frame_seconds=0.2, max_frames=100):
        super().__init__()
        require_pillow()
        if not isinstance(grid, PictureGrid | str | os.PathLike):
            raise ValueError(
                "`grid` must be a callback that draws, such as `SampleGrid`, "
                f"or a directory, got {type(grid).__name__}."
            )
        self.grid = grid if isinstance(grid, PictureGrid) else SampleGrid(grid)
        self.frame_seconds = inputs.check_number(
            frame_seconds, "frame_seconds", minimum=0, exclusive=True
        )
        self.max_frames = inputs.check_positive_integer(
            max_frames, "max_frames"
        )
        self.async_safe = getattr(self.grid, "async_safe", True)

    def set_model(self, model):
        super().set_model(model)
        self.grid.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.grid.set_params(params)

    def on_train_begin(self, logs=None):
        self.grid.on_train_begin(logs)
        self.num_epochs = 0
        self.told = False

    def on_epoch_begin(self, epoch, logs=None):
        self.grid.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.grid.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.grid.on_epoch_end(epoch, logs)
        self.num_epochs = epoch + 1

    def on_train_end(self, logs=None):
        self.grid.on_train_end(logs)
        if not is_chief(self.model):
            return
        if not self.num_epochs:  # all were there when this run began
            self.num_epochs = self.params["epochs"]
            if getattr(self.grid, "every_steps", None):
                steps = self.params["steps"] or 0
                self.grid.steps = self.num_epochs * steps
        path = os.path.join(self.grid.directory, f"{self.grid.tag}.gif")
        with going_on_without(path, self):
            paths = self.frames_of(self.grid.directory)
            if paths:
                write_gif(paths, path, self.frame_seconds)

    def frames_of(self, directory):
        """Paths of the PNG files that become frames, first to last."""
        names = _numbered(directory, self.grid.prefix, self.num_epochs)
        if getattr(self.grid, "every_steps", None):
            names = _numbered(directory, "step", self.grid.steps) + names[-1:]
        if len(names) > self.max_frames:
            kept = np.linspace(len(names) - 1, 0, self.max_frames)[::-1]
            names = [names[i] for i in np.rint(kept).astype(int)]
        return [os.path.join(directory, name) for name in names]


def _numbered(directory, prefix, last):
    """Names of pictures up to a number, in its order.

    Later ones are of another, longer run into this folder.
    """
    pattern = re.compile(rf"{prefix}_(\d{{4,}})\.png")
    found = [pattern.fullmatch(name) for name in os.listdir(directory)]
    names = {int(match[1]): match[0] for match in found if match}
    return [names[number] for number in sorted(names) if number <= last]


def write_gif(paths, path, frame_seconds):
    """Writes pictures as a GIF that loops.

    Args:
        paths: Paths of PNG files. Those of another size than the last one
            are made to fit it.
        path: Where to write; an existing file is replaced when the new one
            is whole.
        frame_seconds: Number, how long each but the last is shown.
    """
    size = _frame(paths[-1]).size
    frames = (_frame(frame).resize(size) for frame in paths)
    milliseconds = [round(1000 * frame_seconds)] * len(paths)
    milliseconds[-1] = round(1000 * LAST_FRAME_SECONDS)
    with files.replacing(path) as part:
        next(frames).save(
            part,
            format="gif",
            save_all=True,
            append_images=frames,
            duration=milliseconds,
            loop=0,
        )


def _frame(path):
    """A picture of at most 1024 x 1024, grey or RGB, transparency as white."""
    from PIL import Image

    with Image.open(path) as file:
        picture = file.copy()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    return picture


def require_pillow():
    """Raises if Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`TrainingAnimation` writes its GIF with Pillow, which is not "
            'installed. Run `pip install "keras_gen[animation]"`.'
        ) from error
