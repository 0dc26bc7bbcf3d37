"""Callbacks that draw what a model has learned so far, as PNG files."""

import contextlib
import os
import tempfile
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_gen import images, inputs
from keras_gen.callbacks.chief import is_chief


class PictureGrid(keras.callbacks.Callback):
    """Writes a grid of images every few epochs: the base of the callbacks here.

    A subclass names the verbs that it asks of the model and has a `draw()`
    that returns the grid of now, uint8 `(height, width, channels)`. The grid
    of epoch 1 is `directory/PREFIX_0001.png`, and `directory/TAG.png` is
    always a copy of the newest grid. When several workers train together,
    only the chief draws and writes. A file that cannot be written, on a full
    disk for one, is left out with one warning, and training goes on.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        every: Integer, epochs from one grid to the next.
        tensorboard: Log directory or `None`. If given, each epoch's grid is
            also one `tf.summary.image` named TAG at the step of that epoch,
            counting from 1 as the files do.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If `every` is not a positive integer; before training
            starts, if the model lacks a verb, refuses what it is asked to
            draw, or `directory` cannot be written to.
    """

    verbs = ()  # the methods of the model that draw
    prefix = None  # of the files, one an epoch
    tag = None  # of the newest grid, and in TensorBoard
    x = None  # images of the user's that are drawn
    told = False  # of a file that could not be written

    def __init__(self, directory, *, every=1, tensorboard=None):
        super().__init__()
        self.directory = inputs.check_folder(directory)
        self.every = inputs.check_positive_integer(every, "every")
        self.tensorboard = tensorboard and os.fspath(tensorboard)
        if self.tensorboard:
            require_tensorboard()
        self.writer = None

    def on_train_begin(self, logs=None):
        self.check_model()
        if is_chief(self.model):
            require_writable(self.directory)
            self.told = False
            self.close()  # the writer of a `fit` that was interrupted
            self.rehearse()
            if self.tensorboard:
                self.writer = tf.summary.create_file_writer(self.tensorboard)

    def check_model(self):
        """Raises if this is no model to draw."""
        for verb in self.verbs:
            if not callable(getattr(self.model, verb, None)):
                raise ValueError(
                    f"`{type(self).__name__}` needs a model with the method "
                    f"`{verb}`. Got a {type(self.model).__name__}, which has "
                    "none. Leave the callback out, or train a model that has "
                    "one."
                )
        shape, x = getattr(self.model, "image_shape", ()), self.x
        if shape is None:
            raise ValueError(
                f"`{type(self).__name__}` needs a model of images, got a "
                f"{type(self.model).__name__}. Leave the callback out."
            )
        if shape and x is not None and x.shape[1:] != tuple(shape):
            raise ValueError(
                f"`x` of `{type(self).__name__}` must hold images of the "
                f"model's shape {tuple(shape)}, got {x.shape[1:]}."
            )

    def rehearse(self):
        """Draws once, so that a wrong `condition` is found before training."""
        # Only the verbs know what they take. A whole grid costs less than a
        # smaller one would: what it compiles is used again after the epochs,
        # and pixel-by-pixel samplers compile anew for each number of images,
        # for longer than they draw. It draws no seed of the training's.
        try:
            self.draw()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{type(self).__name__}` cannot draw this "
                f"{type(self.model).__name__}: {error}"[:600]
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        epoch += 1
        if epoch % self.every or not is_chief(self.model):
            return
        grid = self.write(f"{self.prefix}_{epoch:04d}.png")
        if self.writer:
            with going_on_without(self.tensorboard, self):
                with self.writer.as_default():
                    tf.summary.image(self.tag, grid[np.newaxis], step=epoch)
                self.writer.flush()

    def on_train_end(self, logs=None):
        self.close()

    def write(self, file_name):
        """Draws, writes `file_name` and the newest copy, returns the grid."""
        grid = self.draw()
        for name in (file_name, f"{self.tag}.png"):
            path = os.path.join(self.directory, name)
            with going_on_without(path, self):
                images.save_grid(
                    grid[np.newaxis], path, num_columns=1, padding=0
                )
        return grid

    def close(self):
        writer, self.writer = self.writer, None
        if writer:
            with going_on_without(self.tensorboard, self):
                writer.close()


class SampleGrid(PictureGrid):
    """Draws samples of the model from the same latents every time.

    The grid after epoch 1 is `directory/epoch_0001.png`, and
    `directory/samples.png` is the newest one. The latents are the same
    because `model.sample` is given the same integer seed: in every epoch, in
    a run that is resumed, and without a draw from the random streams that the
    training uses.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        num_samples: Integer, images in a grid.
        every: Integer, epochs from one grid to the next.
        every_steps: Optional integer. If given, a grid is also written each
            time that many more training steps are done, as
            `directory/step_00001000.png`, or once the execution in which that
            step falls is done (`steps_per_execution`). Steps count over the
            whole run, also over the part before a resume, unless the data set
            does not know its length: then they count within this `fit`, and
            the last execution of an epoch counts in full.
        condition: Optional classes or vectors, one a sample, handed to
            `model.sample`.
        seed: Integer, which latents to draw.
        tensorboard: Log directory or `None`. If given, each epoch's grid is
            also one `tf.summary.image` named "samples" at the step of that
            epoch, counting from 1 as the files do.
        num_columns: Integer or `None`, images in a row of the grid; as near
            to a square as `num_samples` allows by default.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If a count is not a positive integer, `seed` is not an
            integer, or `condition` is not one a sample; before training
            starts, if the model has no `sample`, `condition` is missing or
            not what `sample` takes, or `directory` cannot be written to.

    Example:

    >>> model.fit(train, epochs=20, callbacks=[SampleGrid("run/samples")])
    """

    verbs = ("sample",)
    prefix = "epoch"
    tag = "samples"

    def __init__(
        self,
        directory,
        num_samples=64,
        *,
        every=1,
        every_steps=None,
        condition=None,
        seed=0,
        tensorboard=None,
        num_columns=None,
    ):
        super().__init__(directory, every=every, tensorboard=tensorboard)
        self.num_samples = inputs.check_positive_integer(
            num_samples, "num_samples"
        )
        self.every_steps = every_steps
        if every_steps is not None:
            inputs.check_positive_integer(every_steps, "every_steps")
        self.condition = condition_arguments(
            condition, self.num_samples, "sample, as `num_samples` says"
        )
        self.seed = inputs.check_seed(seed)
        self.num_columns = num_columns
        if num_columns is not None:
            inputs.check_positive_integer(num_columns, "num_columns")
        # Keras waits for the device after each batch for the sake of a batch
        # callback, unless it says that it does not care: this one seldom does.
        self.async_safe = self.every_steps is None

    def draw(self):
        samples = self.model.sample(
            self.num_samples, seed=self.seed, **self.condition
        )
        return images.grid(samples, num_columns=self.num_columns)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        if self.params["steps"]:
            self.steps = epoch * self.params["steps"]
        self.steps_before = self.steps

    def on_train_batch_end(self, batch, logs=None):
        # Under `steps_per_execution`, `batch` moves on by several at once, and
        # for the last time maybe past the end of the epoch.
        batches = min(batch + 1, self.params["steps"] or batch + 1)
        before, self.steps = self.steps, self.steps_before + batches
        if (
            self.every_steps is None
            or before // self.every_steps == self.steps // self.every_steps
            # A resumed `fit` skips batches: the weights are of a later step.
            or getattr(self.model, "resuming", False)
            or not is_chief(self.model)
        ):
            return
        self.write(f"step_{self.steps:08d}.png")


class ReconstructionGrid(PictureGrid):
    """Draws images above their reconstructions and what went wrong in them.

    The three rows of a grid are `x`, `model.reconstruct(x)` and
    `abs(x - model.reconstruct(x))`, black where nothing was lost. The grid
    after epoch 1 is `directory/reconstruction_0001.png`, and
    `directory/reconstructions.png` is the newest one, so that the directory
    may be that of a `SampleGrid`.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        x: Images `(batch, height, width, channels)`, uint8 or float in
            [0, 1], or a `tf.data.Dataset` of `x` or `(x, y)`, read once and
            only here. Prefer test images.
        num_images: Integer, how many of the first images of `x` to draw.
        condition: Optional classes or vectors, one a drawn image, handed to
            `model.reconstruct`.
        every: Integer, epochs from one grid to the next.
        tensorboard: Log directory or `None`. If given, each grid is also one
            `tf.summary.image` named "reconstructions" at the step of its
            epoch, counting from 1 as the files do.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If a count is not a positive integer, `x` does not hold
            images, or `condition` is not one an image; before training
            starts, if the model has no `reconstruct`, `condition` is missing
            or not what `reconstruct` takes, or `directory` cannot be written
            to.

    Example:

    >>> model.fit(train, callbacks=[ReconstructionGrid("run/samples", test)])
    """

    verbs = ("reconstruct",)
    prefix = "reconstruction"
    tag = "reconstructions"

    def __init__(
        self,
        directory,
        x,
        *,
        num_images=16,
        condition=None,
        every=1,
        tensorboard=None,
    ):
        super().__init__(directory, every=every, tensorboard=tensorboard)
        inputs.check_positive_integer(num_images, "num_images")
        self.x = first_images(x, num_images)
        self.condition = condition_arguments(
            condition, len(self.x), "drawn image"
        )

    def draw(self):
        x = self.x
        if x.dtype == np.uint8:
            x = x.astype("float32") / 255.0
        reconstruction = np.asarray(
            self.model.reconstruct(self.x, **self.condition)
        )
        difference = np.abs(x - reconstruction)
        if x.shape[-1] == 4:
            difference[..., 3] = 1.0  # right opacity would hide the row
        return images.grid(
            np.concatenate([x, reconstruction, difference]), num_columns=len(x)
        )


def first_images(x, num_images):
    """The first images of an array or of a data set, checked."""
    if isinstance(x, tf.data.Dataset):
        x = x.map(lambda x, *_: x)  # labels are left behind
        if getattr(x.element_spec, "shape", None) is None:
            raise ValueError(
                "`x` must be a `tf.data.Dataset` of `x` or `(x, y)`. Got "
                f"elements of type {type(x.element_spec).__name__}. Map them "
                "to the images: `dataset.map(lambda element: element[...])`."
            )
        if x.element_spec.shape.rank == 4:
            x = x.unbatch()
        x = np.array(list(x.take(num_images).as_numpy_iterator()))
    if np.ndim(x) != 4:
        raise ValueError(
            "`x` must hold images of shape (batch, height, width, channels) "
            f"or be a `tf.data.Dataset` of them. Got shape {np.shape(x)}. Add "
            "the axis that is missing: `x[..., None]` for channels, `x[None]` "
            "for a batch of one."
        )
    return inputs.check_images(x[:num_images], np.shape(x)[1:]).numpy()


def condition_arguments(condition, count, item):
    """The keyword arguments of a verb: `{"condition": array}`, checked.

    Args:
        condition: Classes or vectors, or `None`, which gives `{}`.
        count: Integer, how many of them there must be.
        item: String, what each of them belongs to.
    """
    if condition is None:
        return {}
    condition = np.asarray(condition)
    if condition.shape[:1] != (count,):
        raise ValueError(
            f"`condition` must hold one class or vector for each {item}. "
            f"Expected {count}, got an array of shape {condition.shape}."
        )
    return {"condition": condition}


@contextlib.contextmanager
def going_on_without(path, callback):
    """Warns of a file that cannot be written, rather than end the training.

    Args:
        path: String, what is written within.
        callback: The one that writes. It warns once: its `told` says whether
            it has.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:  # the latter, of TensorBoard
        if not callback.told:
            warnings.warn(
                f"`{type(callback).__name__}` could not write {path[-200:]!r}, "
                f"and training goes on without it: {error}"[:600],
                stacklevel=3,
            )
        callback.told = True


def require_writable(directory):
    """Makes the folder if it is missing; raises if no file can be made in it."""
    try:
        os.makedirs(directory, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise ValueError(
            f"`directory` must be a folder that can be written to. Got "
            f"{directory[-200:]!r}: {error.strerror}. Choose another one."
        ) from error


def require_tensorboard():
    """Raises if TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`tensorboard=` needs TensorBoard, which TensorFlow no longer "
            'installs. Run `pip install "keras_gen[tensorboard]"`.'
        ) from error
