"""Turns what `fit` takes into one dataset whose epochs can be resumed.

Epoch `e` of the dataset is the same however training got there: arrays and
`PyDataset`s are shuffled by a pure function of (seed, epoch); a
`tf.data.Dataset` is started once an epoch, so its own seeded
`reshuffle_each_iteration` gives each epoch its order.
"""

import collections
import concurrent.futures
import itertools

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
):
    """One `tf.data.Dataset`; each iteration over it is one epoch.

    Args:
        x: Images as an array, a `tf.data.Dataset` or a `PyDataset` of batches.
        y: Labels beside an array, or `None`.
        position: Function without arguments that gives `(epoch, seed)`, two
            integers; it is asked when an iteration starts.
        batch_size: Integer, for arrays.
        shuffle: Whether arrays and `PyDataset`s are shuffled, anew each epoch.
        drop_remainder: Whether the last, short batch of an array is dropped.
        steps_per_epoch: Integer if an iteration does not end with an epoch but
            goes on: it then starts where epoch number `position()[0]` starts.

    Returns:
        A dataset of `x` or `(x, y)` batches, of known cardinality where that
        of `x` is known.
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
        batches = _py_dataset_epoch(x, shuffle)
        signature = tf.nest.map_structure(_batch_spec, _elements(x[0]))

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
        batch_size = min(batch_size, size) if drop_remainder else batch_size
        num_batches = size // batch_size
        if not drop_remainder:
            num_batches = -(-size // batch_size)

        def one_epoch(epoch, seed):
            def gather(index):
                if shuffle:
                    index = tf.random.experimental.index_shuffle(
                        index, tf.stack([seed, epoch]), size - 1
                    )
                rows = tuple(tf.gather(a, index) for a in arrays)
                return rows if len(rows) > 1 else rows[0]

            index = tf.data.Dataset.range(size)
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


def without_labels(dataset):
    """A dataset of `x` alone, of `x` or `(x, y)`."""
    if not isinstance(dataset.element_spec, tuple):
        return dataset
    return dataset.map(lambda x, *_: x)


def _py_dataset_epoch(x, shuffle):
    def batches(epoch, seed):
        x.on_epoch_begin()
        if x.num_batches is None:  # it never ends, so there is no order
            order = itertools.count()
        else:
            order = np.arange(x.num_batches)
            if shuffle:
                np.random.default_rng((seed, epoch)).shuffle(order)
        with concurrent.futures.ThreadPoolExecutor(max(1, x.workers)) as pool:
            waiting = collections.deque()
            for index in order:
                waiting.append(pool.submit(x.__getitem__, int(index)))
                if len(waiting) > max(1, min(x.workers, x.max_queue_size)):
                    yield _elements(waiting.popleft().result())
            while waiting:
                yield _elements(waiting.popleft().result())
        x.on_epoch_end()

    return batches


def _elements(batch):
    """`(x, y)` or `x` of a batch whose absent labels are `None`."""
    if not isinstance(batch, tuple | list):
        return batch
    batch = tuple(part for part in batch if part is not None)
    return batch if len(batch) > 1 else batch[0]


def _batch_spec(array):
    array = tf.convert_to_tensor(array)
    return tf.TensorSpec((None, *array.shape[1:]), array.dtype)
