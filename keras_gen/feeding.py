"""Turns what `fit` takes into one dataset whose epochs can be resumed.

Epoch `e` of the dataset is the same however training got there: arrays and
`PyDataset`s are shuffled by a pure function of (seed, epoch); a
`tf.data.Dataset` is started once an epoch, so its own seeded
`reshuffle_each_iteration` gives each epoch its order.
"""

import collections
import concurrent.futures
import itertools
import warnings

import keras
import numpy as np
import tensorflow as tf


def epochs_of(
    x,
    y=None,
    *,
    position,
    batch_size=32,
    shuffle=True,
    drop_remainder=False,
    steps_per_epoch=None,
    num_replicas=1,
):
    """One `tf.data.Dataset`; each iteration over it is one epoch.

    Args:
        x: Images as an array, a `tf.data.Dataset` or a `PyDataset` of batches.
        y: Labels beside an array, or `None`.
        position: Function without arguments that gives `(epoch, seed)`, two
            integers; it is asked when an iteration starts.
        batch_size: Integer, for arrays; a multiple of `num_replicas`.
        shuffle: Whether arrays and `PyDataset`s are shuffled, anew each epoch.
        drop_remainder: Whether the last, short batch of an array is dropped.
        steps_per_epoch: Integer if an iteration does not end with an epoch but
            goes on: it then starts where epoch number `position()[0]` starts.
        num_replicas: Integer, the replicas that share a batch of an array
            evenly. Of arrays whose last, short batch is kept, the fewer than
            `num_replicas` images that are left over are warned of and left
            out. With `drop_remainder`, the last batch of a `PyDataset` is
            dropped if it is no multiple, and each other one has to be. See
            `even_batches` for the rest.

    Returns:
        A dataset of `x` or `(x, y)` batches, of known cardinality where that
        of `x` is known.

    Raises:
        ValueError: If `x` is an array of fewer images than replicas, or a
            `PyDataset` whose first batch they cannot share.
    """
    options = tf.data.Options()
    if isinstance(x, tf.data.Dataset):
        if isinstance(x.element_spec, tuple):
            specs = [tf.nest.flatten(spec)[0] for spec in x.element_spec]
            if not all(hasattr(spec, "dtype") for spec in specs):
                x = x.map(lambda *batch: _elements(batch))
        options = x.options()
        num_batches = int(x.cardinality())

        def one_epoch(epoch, seed):
            return x

    elif isinstance(x, keras.utils.PyDataset):
        num_batches = x.num_batches
        num_batches = -1 if num_batches is None else num_batches
        first = _elements(x[0])
        signature = tf.nest.map_structure(_batch_spec, first)
        shares = num_replicas if drop_remainder else 1
        if shares > 1:
            check_shares(_length(first), shares)
        # Its length has to be known, or Keras warns that data ran out.
        if shares > 1 and num_batches > 1:
            num_batches -= _length(_elements(x[num_batches - 1])) % shares > 0
        batches = _py_dataset_epoch(x, shuffle, num_batches, shares)

        def one_epoch(epoch, seed):
            return tf.data.Dataset.from_generator(
                batches, args=(epoch, seed), output_signature=signature
            )

    else:
        # The autotuner makes the end of an epoch wait for its next wake-up,
        # up to as long as the epoch itself, and has nothing to tune here.
        options.autotune.enabled = False
        arrays = tuple(tf.convert_to_tensor(a) for a in (x, y) if a is not None)
        size = len(x)
        num_even = size - size % num_replicas
        if num_replicas > 1 and not num_even:
            raise ValueError(
                f"Data must have an image for each of the {num_replicas} "
                f"replicas, got {size}."
            )
        num_indices = size
        if drop_remainder:
            batch_size = min(batch_size, num_even)
            num_batches = size // batch_size
        else:
            if num_even < size:
                warnings.warn(
                    f"{size % num_replicas} of {size} images are left out: "
                    f"{num_replicas} replicas cannot share them evenly.",
                    stacklevel=4,
                )
            num_indices = num_even
            num_batches = -(-num_even // batch_size)

        def one_epoch(epoch, seed):
            def gather(index):
                if shuffle:
                    index = tf.random.experimental.index_shuffle(
                        index, tf.stack([seed, epoch]), size - 1
                    )
                rows = tuple(tf.gather(a, index) for a in arrays)
                return rows if len(rows) > 1 else rows[0]

            index = tf.data.Dataset.range(num_indices)
            index = index.batch(batch_size, drop_remainder=drop_remainder)
            return index.map(gather, num_parallel_calls=1).prefetch(2)

    # AutoGraph has nothing to convert, and would take most of the time.
    @tf.autograph.experimental.do_not_convert
    def from_position(_):
        now = tf.numpy_function(
            lambda: np.array(position(), "int64"), [], "int64"
        )
        epoch, seed = tf.unstack(tf.ensure_shape(now, (2,)))
        if not steps_per_epoch:
            return one_epoch(epoch, seed)
        if isinstance(x, tf.data.Dataset):
            return x.repeat().skip(epoch * steps_per_epoch)
        endless = tf.data.Dataset.counter()
        endless = endless.flat_map(lambda epoch: one_epoch(epoch, seed))
        return endless.skip(epoch * steps_per_epoch)

    dataset = tf.data.Dataset.range(1).flat_map(from_position)
    if num_batches >= 0 and not steps_per_epoch:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(num_batches)
        )
    return dataset.with_options(options)


def is_endless(x):
    """Whether data are a dataset, of either sort, that never ends."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches is None
    return (
        isinstance(x, tf.data.Dataset)
        and x.cardinality() == tf.data.INFINITE_CARDINALITY
    )


def even_batches(dataset, num_replicas):
    """Batches that replicas share evenly, of a dataset of any batches.

    A replica without images would make means NaN, and one with fewer would
    count in them as much as the others. What is left over of a batch goes
    into the next one, so that of all images at most the last `num_replicas -
    1` are left out.

    Args:
        dataset: A `tf.data.Dataset` of batches.
        num_replicas: Integer.

    Returns:
        A dataset of the same structure, in the same order: `dataset` itself
        if all its batches are known to be even. Its cardinality is unknown
        if batches may be too short to leave anything.
    """
    specs = tf.nest.flatten(dataset.element_spec)
    shape = specs[0].shape
    size = shape[0] if shape.rank else None
    if num_replicas == 1 or (size and size % num_replicas == 0):
        return dataset
    # An axis of unknown length is 0 here, as no rows are ever read of it.
    nothing = [
        tf.zeros([0, *(n or 0 for n in spec.shape[1:])], spec.dtype)
        if spec.shape.rank
        else tf.zeros([0], spec.dtype)
        for spec in specs
    ]

    def step(left, *batch):
        new = tf.nest.flatten(batch)
        parts = tf.cond(
            tf.shape(left[0])[0] == 0,
            lambda: new,
            lambda: [
                tf.concat(pair, 0) for pair in zip(left, new, strict=True)
            ],
        )
        for part, spec in zip(parts, specs, strict=True):
            if spec.shape.rank:
                part.set_shape([None, *spec.shape[1:]])
        num_images = tf.shape(parts[0])[0]
        cut = num_images - num_images % num_replicas
        even = tf.nest.pack_sequence_as(
            dataset.element_spec, [part[:cut] for part in parts]
        )
        return tuple(part[cut:] for part in parts), even

    even = dataset.scan(tuple(nothing), step)
    if size and size >= num_replicas:
        return even  # none is empty, and the cardinality stays known
    return even.filter(
        lambda *batch: tf.shape(tf.nest.flatten(batch)[0])[0] > 0
    )


def without_labels(dataset):
    """A dataset of `x` alone, of `x` or `(x, y)`."""
    if not isinstance(dataset.element_spec, tuple):
        return dataset
    return dataset.map(lambda x, *_: x)


def _py_dataset_epoch(x, shuffle, num_batches, shares):
    def checked(future):
        batch = _elements(future.result())
        if shares > 1:
            check_shares(_length(batch), shares)
        return batch

    def batches(epoch, seed):
        x.on_epoch_begin()
        if x.num_batches is None:  # it never ends, so there is no order
            order = itertools.count()
        else:
            # With replicas, without the short batch that they cannot share.
            count = num_batches if shares > 1 else x.num_batches
            order = np.arange(count)
            if shuffle:
                np.random.default_rng((seed, epoch)).shuffle(order)
        with concurrent.futures.ThreadPoolExecutor(max(1, x.workers)) as pool:
            waiting = collections.deque()
            for index in order:
                waiting.append(pool.submit(x.__getitem__, int(index)))
                if len(waiting) > max(1, min(x.workers, x.max_queue_size)):
                    yield checked(waiting.popleft())
            while waiting:
                yield checked(waiting.popleft())
        x.on_epoch_end()

    return batches


def _elements(batch):
    """`(x, y)` or `x` of a batch whose absent labels are `None`."""
    if not isinstance(batch, tuple | list):
        return batch
    batch = tuple(part for part in batch if part is not None)
    return batch if len(batch) > 1 else batch[0]


def _length(batch):
    return len(tf.nest.flatten(batch)[0])


def check_shares(num_images, num_replicas, what="Batches"):
    """Refuses batches that replicas cannot share evenly."""
    if num_images % num_replicas:
        raise ValueError(
            f"{what} must be a multiple of the {num_replicas} replicas that "
            f"share a batch, got {num_images}."
        )


def _batch_spec(array):
    array = tf.convert_to_tensor(array)
    return tf.TensorSpec((None, *array.shape[1:]), array.dtype)
