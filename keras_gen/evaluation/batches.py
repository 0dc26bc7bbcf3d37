"""The images that are compared: real ones, a model's, and a Gaussian's."""

import inspect
import math

import keras
import numpy as np

from keras_gen import feeding, inputs

_BATCH_SIZE = 500
_MAX_VALUES = 2**22  # in a batch of samples


class RealImages:
    """Batches of real images as float32, from what `fit` takes.

    Args:
        dataset: An array, or a `tf.data.Dataset` or `keras.utils.PyDataset` of
            batches of `x` or `(x, y)`.
        model: The model that they are for.
        argument: String, what error messages call `dataset`.

    Raises:
        ValueError: If `dataset` is not as above, or its images are not for
            the model.
    """

    def __init__(self, dataset, model, argument):
        inputs.check_data(
            dataset, image_shape=model.image_shape, argument=argument
        )
        self.dataset = feeding.epochs_of(
            dataset, position=lambda: (0, 0), shuffle=False, batch_size=128
        )
        # What `datasets.load` says of it.
        self.origin = getattr(dataset, "origin", None)
        self.image_shape = model.image_shape
        self.uses_labels = is_conditional(model)
        self.argument = argument
        self.is_endless = feeding.is_endless(dataset)

    def batches(self, limit=math.inf):
        """Yields float32 images in [0, 1] with what they are conditional on.

        That is their labels or vectors, or `None` if there are none or the
        model is not conditional.

        Args:
            limit: Integer, how many images at most.
        """
        for element in self.dataset:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(element)
            x = inputs.check_images(x, self.image_shape, self.argument).numpy()
            if x.dtype == "uint8":
                x = x.astype("float32") / np.float32(255)
            y = np.asarray(y) if self.uses_labels and y is not None else None
            if y is not None and y.dtype.kind == "i" and np.any(y < 0):
                raise ValueError(
                    f"`{self.argument}` must have the class of each image, got "
                    f"{y.min()}, which stands for none. Leave out the images "
                    "without one, or all classes."
                )
            if len(x) > limit:
                x, y = x[:limit], None if y is None else y[:limit]
            yield x, y
            limit -= len(x)
            if not limit:
                return


class First:
    """The first rows of arrays that come in batches.

    Args:
        size: Integer, how many rows are kept.
    """

    def __init__(self, size):
        self.size = size
        self.parts = []

    @property
    def is_full(self):
        return sum(map(len, self.parts)) >= self.size

    def add(self, rows):
        if not self.is_full:
            self.parts.append(rows)

    def rows(self):
        """One array."""
        return np.concatenate(self.parts)[: self.size]


def sample_batches(model, num_samples, seed, conditions=None):
    """Yields samples in batches of bounded size, the same ones for a seed.

    Args:
        model: A model with `sample`.
        num_samples: Integer, how many in all.
        seed: Integer.
        conditions: Labels or vectors that a conditional model is given in
            turn, or `None`.

    Yields:
        float32 arrays `(batch, *image_shape)` in [0, 1].
    """
    size = min(_BATCH_SIZE, _MAX_VALUES // math.prod(model.image_shape))
    starts = range(0, num_samples, max(1, size))
    seeds = np.random.SeedSequence(seed).generate_state(len(starts))
    for start, batch_seed in zip(starts, seeds, strict=True):
        rows = range(start, min(start + starts.step, num_samples))
        arguments = {}
        draws_classes = getattr(model, "draws_classes", True)
        draws_classes = draws_classes and takes(model.sample, "condition")
        if conditions is not None and draws_classes:
            arguments["condition"] = np.take(conditions, rows, 0, mode="wrap")
        x = model.sample(len(rows), seed=int(batch_seed), **arguments)
        yield np.asarray(x)


def gaussian_batches(x, num_samples, seed):
    """Yields samples of the Gaussian of images' mean and covariance.

    `mean + noise @ (x - mean) / sqrt(n)`, with `n` standard normal numbers for
    each sample, has just that covariance, and needs no matrix of all pairs of
    pixels. Clipped to [0, 1].

    Args:
        x: float32 `(n, height, width, channels)`.
        num_samples: Integer, how many in all.
        seed: Integer.

    Yields:
        float32 arrays `(batch, height, width, channels)`.
    """
    flat = x.reshape(len(x), -1)
    mean = flat.mean(axis=0, dtype="float64").astype("float32")
    centred = (flat - mean) / np.float32(math.sqrt(len(x)))
    random = np.random.default_rng([seed, 2])
    for start in range(0, num_samples, _BATCH_SIZE):
        count = min(_BATCH_SIZE, num_samples - start)
        noise = random.standard_normal((count, len(x)), "float32")
        samples = np.clip(mean + noise @ centred, 0, 1)
        yield samples.reshape(count, *x.shape[1:])


def every_other(batches, start):
    """Yields what is at positions `start`, `start + 2`, ... of batches."""
    position = 0
    for x, y in batches:
        first = (start - position) % 2
        position += len(x)
        if len(x) > first:
            yield x[first::2], None if y is None else y[first::2]


def rebatched(batches, size):
    """Yields images as larger batches, of at least `size` but for the last."""
    parts, count = [], 0
    for x, _ in batches:
        parts.append(x)
        count += len(x)
        if count >= size:
            yield np.concatenate(parts)
            parts, count = [], 0
    if parts:
        yield np.concatenate(parts)


def takes(function, argument):
    """Whether a function has an argument of that name."""
    return argument in inspect.signature(function).parameters


def is_conditional(model):
    """Whether a model has classes or vectors to be conditional on."""
    names = ("num_classes", "condition_dim")
    return any(getattr(model, name, None) for name in names)
