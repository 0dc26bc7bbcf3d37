"""What a source of images is, and what all of them need."""

import collections.abc
import dataclasses
import importlib
import re

import tensorflow as tf

NO_LABEL = -1


@dataclasses.dataclass
class Source:
    """One split, decoded and resized, but neither batched nor rescaled.

    Attributes:
        name: For messages.
        identity: String that changes if an image may have changed.
        image_shape: `(height, width, channels)`.
        num_images: Integer; an upper bound while files may be skipped.
        elements: Function of a seed that gives a dataset of (uint8 image, int32
            label): shuffled anew at each iteration, or in order for `None`.
        skipped: Dictionary, file to reason; `elements` adds to it.
    """

    name: str
    identity: str
    image_shape: tuple
    num_images: int
    elements: collections.abc.Callable
    skipped: dict | None = None


def order(num_images, seed):
    """Dataset of the int64 indices, in an order new at each iteration.

    A sort is three times as fast to start as a shuffle buffer of all indices.
    """
    if seed is None:
        return tf.data.Dataset.range(num_images)

    def permutation(seed):
        indices = tf.range(num_images, dtype="int64")
        return tf.data.Dataset.from_tensor_slices(
            tf.random.experimental.stateless_shuffle(
                indices, seed, alg="philox"
            )
        )

    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    order = seeds.batch(2, drop_remainder=True).take(1).flat_map(permutation)
    return order.apply(tf.data.experimental.assert_cardinality(num_images))


def resize(image, size):
    """Crops to the aspect of `size`, then scales; uint8 to uint8."""
    height, width = size
    shape = tf.shape(image)
    # The largest centred box of that aspect, at least one pixel wide.
    crop_height = (shape[1] * height + width // 2) // width
    crop_width = (shape[0] * width + height // 2) // height
    crop_height = tf.clip_by_value(crop_height, 1, shape[0])
    crop_width = tf.clip_by_value(crop_width, 1, shape[1])
    top, left = (shape[0] - crop_height) // 2, (shape[1] - crop_width) // 2
    image = image[top : top + crop_height, left : left + crop_width]

    is_whole = (crop_height % height == 0) & (crop_width % width == 0)
    scaled = tf.cond(
        is_whole,
        lambda: tf.image.resize(image, size, "area"),
        lambda: tf.image.resize(image, size, "bicubic", antialias=True),
    )
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), "uint8")


def parse_split(split):
    """`"train[10%:20%]"` as `"train"` and a function from length to slice."""
    bound = r"(-?\d+%?)?"
    match = re.fullmatch(rf"(\w+)(?:\[{bound}:{bound}\])?", split)
    if match is None:
        raise ValueError(
            "`split` must be the name of a split, or a part of one such as "
            f"'train[:90%]' or 'train[1000:2000]', got {split!r}."
        )

    shares = [b for b in match.groups()[1:] if b and b.endswith("%")]
    if any(abs(int(share[:-1])) > 100 for share in shares):
        raise ValueError(
            f"`split` must not take more than 100 %, got {split!r}."
        )

    def to_slice(length):
        def position(bound):
            if not bound:
                return None
            if bound.endswith("%"):
                return round(length * int(bound[:-1]) / 100)
            return int(bound)

        return slice(position(match[2]), position(match[3]))

    return match[1], to_slice


def import_extra(module, extra):
    """The module, or an `ImportError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`{module}` is missing, which comes with the extra {extra!r}: "
            f'pip install "keras_gen[{extra}]"'
        ) from error
