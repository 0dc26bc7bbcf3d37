"""Batches of images as one picture, in memory or as a PNG file."""

import math
import numbers
import os
import uuid

import numpy as np


def grid(images, num_columns=None, padding=2, pad_value=1.0):
    """Arranges a batch of images in rows, left to right and top to bottom.

    Image `i` fills the cell in row `i // num_columns` and column
    `i % num_columns`; `padding` pixels lie around every cell. Floats become
    `round(255 * x)`.

    Args:
        images: `(batch, height, width, channels)`, integers in [0, 255] or
            floats in [0, 1], with 1 to 4 channels.
        num_columns: Integer. Defaults to `ceil(sqrt(batch))`, which makes the
            grid as good as square.
        padding: Integer, pixels between the images and around them.
        pad_value: Float in [0, 1], intensity of the padding and of the cells
            that stay empty. A fourth channel, opacity, is 1 there.

    Returns:
        uint8 array `(grid_height, grid_width, channels)`.

    Raises:
        ValueError: If the images are not such a batch, hold NaN or leave
            their range, or if another argument is out of range.

    Example:

    >>> grid(np.zeros((10, 28, 28, 1))).shape  # 3 rows of 4
    (92, 122, 1)
    """
    images = _as_uint8(images)
    batch, height, width, channels = images.shape
    if num_columns is None:
        num_columns = math.ceil(math.sqrt(batch))
    if not _is_integer(num_columns) or num_columns < 1:
        raise ValueError(
            "`num_columns` must be a positive integer or `None`, got "
            f"{num_columns!r}."
        )
    if not _is_integer(padding) or padding < 0:
        raise ValueError(
            "`padding` must be a number of pixels, an integer of at least 0, "
            f"got {padding!r}."
        )
    if not isinstance(pad_value, numbers.Real) or not 0 <= pad_value <= 1:
        raise ValueError(
            f"`pad_value` must be a number in [0, 1], got {pad_value!r}."
        )

    num_rows = math.ceil(batch / num_columns)
    cell_height, cell_width = height + padding, width + padding
    picture = np.full(
        (
            num_rows * cell_height + padding,
            num_columns * cell_width + padding,
            channels,
        ),
        round(255 * pad_value),
        dtype="uint8",
    )
    if channels == 4:
        picture[..., 3] = 255
    for i, image in enumerate(images):
        top = padding + i // num_columns * cell_height
        left = padding + i % num_columns * cell_width
        picture[top : top + height, left : left + width] = image
    return picture


def save_grid(images, path, num_columns=None, padding=2, pad_value=1.0):
    """Writes `grid(images)` as a PNG file.

    One channel is grey, three are RGB, four are RGBA. PNG has no picture of
    two equal channels (its second one would be opacity, which hides the
    first), so two channels are shown as red and green, with no blue.

    The file appears complete or not at all: it is written beside `path` and
    renamed. Missing folders are made.

    Args:
        images: As for `grid`.
        path: Where to write; ends in `.png`.
        num_columns: As for `grid`.
        padding: As for `grid`.
        pad_value: As for `grid`.

    Raises:
        ValueError: As `grid`, or if `path` does not end in `.png`.

    Example:

    >>> save_grid(model.sample(64, seed=0), "run/samples.png")
    """
    import tensorflow as tf

    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if not path.lower().endswith(".png"):
        raise ValueError(
            "`path` must end in `.png`, the only format that is written, got "
            f"{path!r}."
        )
    picture = grid(images, num_columns, padding, pad_value)
    if picture.shape[-1] == 2:
        picture = np.pad(picture, ((0, 0), (0, 0), (0, 1)))
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    unfinished = os.path.join(folder, f".{uuid.uuid4().hex}.png.tmp")
    try:
        with open(unfinished, "wb") as file:
            file.write(tf.io.encode_png(picture).numpy())
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.remove(unfinished)
        raise


def _as_uint8(images):
    """`images` as a checked uint8 array of rank 4."""
    try:
        images = np.asarray(images)
        integers = images.dtype.kind in "iu"
        if not integers:
            images = images.astype("float32")  # from bool and bfloat16 too
    except (TypeError, ValueError):
        raise ValueError(
            "`images` must hold integers in [0, 255] or floats in [0, 1], all "
            f"images of one size, got {type(images).__name__} that is no such "
            "array. Resize them to one size, then `np.stack` them."
        ) from None
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] > 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channels), none "
            f"of them 0, with 1 to 4 channels, got {images.shape}. For one "
            "image, pass `image[None]`; for images without channels, "
            "`images[..., None]`."
        )
    if np.isnan(images).any():
        raise ValueError(
            f"`images` must be numbers, got NaN in {np.isnan(images).sum()} "
            f"of {images.size} values. Look for the step that made them."
        )
    low, high = images.min(), images.max()
    if low < 0 or high > (255 if integers else 1):
        raise ValueError(
            "`images` must hold integers in [0, 255] or floats in [0, 1], got "
            f"{'integers' if integers else 'floats'} in [{low:g}, {high:g}]. "
            "Divide floats in [0, 255] by 255, turn [-1, 1] into "
            "`(x + 1) / 2`, or clip."
        )
    return (images if integers else np.rint(255 * images)).astype("uint8")


def _is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
