import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import feeding


def feed(x, y=None, *, epoch=0, seed=0, **arguments):
    """The dataset of one epoch, or of all that follow it."""
    return feeding.epochs_of(x, y, position=lambda: (epoch, seed), **arguments)


def numbered(size):
    """Images of one pixel, each of which is its own number."""
    return np.arange(size, dtype="float32").reshape(size, 1, 1, 1)


def order_of(dataset):
    """The numbers of the images of an iteration, in their order."""
    return [
        int(number)
        for batch in dataset.as_numpy_iterator()
        for number in np.ravel(batch)
    ]


def sizes_of(dataset):
    return [len(batch) for batch in dataset.as_numpy_iterator()]


class Batches(keras.utils.PyDataset):
    """`num_batches` batches of two numbered images each."""

    def __init__(self, num_batches=5, **kwargs):
        super().__init__(**kwargs)
        self.size = num_batches
        self.events = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return numbered(2 * self.size)[2 * index :][:2]

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


# Arrays


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_an_epoch_holds_every_image_once(size):
    for epoch in range(5):
        order = order_of(feed(numbered(size), epoch=epoch, batch_size=3))
        assert sorted(order) == list(range(size))


def test_epochs_and_seeds_differ_and_each_is_repeated():
    def order(epoch, seed):
        data = feed(numbered(50), epoch=epoch, seed=seed, batch_size=8)
        return tuple(order_of(data))

    seeds = (0, 1, 2**31 - 2)
    positions = [(epoch, seed) for epoch in range(4) for seed in seeds]
    orders = [order(*position) for position in positions]
    assert len(set(orders)) == len(positions)
    assert orders == [order(*position) for position in positions]
    assert tuple(range(50)) not in orders


def test_an_order_is_that_of_no_batch_size():
    orders = [
        order_of(feed(numbered(30), batch_size=size)) for size in (1, 7, 30)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_every_image_comes_first_about_as_often():
    """A chi-squared test of which of eight images starts an epoch."""
    data = feed(numbered(8), batch_size=8, steps_per_epoch=1)
    orders = np.reshape(order_of(data.take(400)), (400, 8))
    counts = np.bincount(orders[:, 0], minlength=8)
    # The 0.999 quantile for 7 degrees of freedom is 24.3.
    assert np.sum((counts - 50) ** 2 / 50) < 24.3


def test_the_position_is_asked_when_an_iteration_starts():
    positions = iter([(3, 1), (0, 0)])
    data = feeding.epochs_of(
        numbered(20), position=lambda: next(positions), batch_size=4
    )
    assert order_of(data) == order_of(feed(numbered(20), epoch=3, seed=1))
    assert order_of(data) == order_of(feed(numbered(20), epoch=0, seed=0))


def test_without_shuffling_the_order_is_that_of_the_array():
    assert order_of(feed(numbered(10), shuffle=False)) == list(range(10))


def test_the_short_batch_is_kept_or_dropped():
    x = numbered(10)
    for drop, sizes in ((False, [4, 4, 2]), (True, [4, 4])):
        data = feed(x, batch_size=4, drop_remainder=drop)
        assert sizes_of(data) == sizes
        assert data.cardinality() == len(sizes)
    spec = feed(x, batch_size=4, drop_remainder=True).element_spec
    assert spec.shape == (4, 1, 1, 1)


def test_an_array_of_less_than_a_batch_is_one_batch():
    for drop in (False, True):
        data = feed(numbered(3), batch_size=8, drop_remainder=drop)
        assert sizes_of(data) == [3] and data.cardinality() == 1


def test_labels_stay_with_their_images():
    y = np.arange(20) + 100
    seen = []
    for images, labels in feed(numbered(20), y, batch_size=6):
        np.testing.assert_array_equal(np.ravel(images) + 100, labels)
        seen.extend(labels.numpy())
    assert sorted(seen) == list(y) and seen != list(y)


def test_dtypes_are_kept():
    images, labels = next(
        iter(feed(numbered(4).astype("uint8"), np.arange(4, dtype="int32")))
    )
    assert images.dtype == "uint8" and labels.dtype == "int32"


# Going on over the ends of epochs


@pytest.mark.parametrize("kind", ["array", "dataset", "PyDataset"])
def test_steps_go_on_where_those_of_the_epoch_before_ended(kind):
    """Ten images in batches of two are five steps; an iteration takes three."""
    images = numbered(10)
    make = {
        "array": lambda: images,
        # It counts the iterations over it, so each run has its own.
        "dataset": lambda: (
            tf.data.Dataset.from_tensor_slices(images)
            .shuffle(10, seed=2)
            .batch(2)
        ),
        "PyDataset": lambda: Batches(5),
    }[kind]
    start = feed(make(), batch_size=2, steps_per_epoch=3)
    later = feed(make(), epoch=2, batch_size=2, steps_per_epoch=3)
    whole = order_of(start.take(15))
    assert order_of(later.take(9)) == whole[12:]
    x, epochs = make(), []
    for epoch in range(3):
        epochs.append(order_of(feed(x, epoch=epoch, batch_size=2)))
        assert sorted(epochs[-1]) == list(range(10))
    np.testing.assert_array_equal(whole, np.concatenate(epochs))


def test_an_endless_dataset_is_cut_by_steps_alone():
    x = tf.data.Dataset.from_tensor_slices(numbered(4)).batch(2).repeat()
    data = feed(x, epoch=1, steps_per_epoch=3)
    assert order_of(data.take(2)) == [2, 3, 0, 1]


def test_steps_leave_the_cardinality_open():
    data = feed(numbered(10), batch_size=2, steps_per_epoch=3)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY


# tf.data


def test_a_dataset_is_passed_on_as_it_is():
    x = tf.data.Dataset.from_tensor_slices((numbered(7), np.arange(7)))
    x = x.batch(3)
    data = feed(x)
    assert data.element_spec == x.element_spec
    assert data.cardinality() == 3
    for one, other in zip(data, x, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_seeded_shuffle_takes_its_course_from_epoch_to_epoch():
    def shuffled():
        x = tf.data.Dataset.from_tensor_slices(numbered(20))
        return x.shuffle(20, seed=4, reshuffle_each_iteration=True).batch(4)

    ours, plain = feed(shuffled()), shuffled()
    orders = [order_of(ours) for _ in range(3)]
    assert orders == [order_of(plain) for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]


def test_a_dataset_of_unknown_length_stays_one():
    x = tf.data.Dataset.from_tensor_slices(numbered(6)).filter(
        lambda image: image[0, 0, 0] > 1
    )
    data = feed(x.batch(2))
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    assert order_of(data) == [2, 3, 4, 5]


def test_options_of_a_dataset_are_kept():
    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = 3
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    x = tf.data.Dataset.from_tensor_slices(numbered(6)).batch(2)
    for steps in (None, 2):
        kept = feed(x.with_options(options), steps_per_epoch=steps).options()
        assert kept.deterministic is False
        assert kept.threading.private_threadpool_size == 3
        assert (
            kept.experimental_distribute.auto_shard_policy
            == tf.data.experimental.AutoShardPolicy.DATA
        )


# PyDataset


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_of_a_py_dataset_come_in_an_order_of_their_epoch(workers):
    def order(epoch, seed=0, **arguments):
        data = feed(
            Batches(8, workers=workers), epoch=epoch, seed=seed, **arguments
        )
        assert data.cardinality() == 8
        return order_of(data)

    assert order(0, shuffle=False) == list(range(16))
    orders = [order(epoch) for epoch in range(3)]
    assert orders == [order(epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2] and orders[0] != order(0, seed=1)
    for images in orders:
        assert sorted(images) == list(range(16))
        pairs = np.reshape(images, (8, 2))  # whole batches moved
        np.testing.assert_array_equal(pairs[:, 1], pairs[:, 0] + 1)


def test_order_of_a_py_dataset_does_not_depend_on_its_workers():
    orders = [
        order_of(feed(Batches(8, workers=workers))) for workers in (0, 1, 4)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_workers_make_batches_at_the_same_time():
    class Meeting(Batches):
        barrier = None

        def __getitem__(self, index):
            if self.barrier:
                self.barrier.wait(timeout=30)  # for the next batch's worker
            return super().__getitem__(index)

    x = Meeting(4, workers=2)
    data = feed(x, shuffle=False)
    x.barrier = threading.Barrier(2)
    assert order_of(data) == list(range(8))


def test_a_py_dataset_is_told_of_its_epochs():
    x = Batches(2)
    data = feed(x)
    for _ in range(2):
        order_of(data)
    assert x.events == ["begin", "end"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_py_dataset_reach_the_caller(workers):
    class Broken(Batches):
        def __getitem__(self, index):
            if index == 3:
                raise RuntimeError("cannot read batch 3")
            return super().__getitem__(index)

    data = feed(Broken(5, workers=workers), shuffle=False)
    with pytest.raises(tf.errors.OpError, match="cannot read batch 3"):
        order_of(data)


def test_a_py_dataset_may_yield_labels_lists_and_short_batches():
    class Labelled(Batches):
        def __getitem__(self, index):
            images = super().__getitem__(index)[: 2 - index // 2]
            return [images, np.ravel(images).astype("int32"), None][
                : 3 if index else 2
            ]

    data = feed(Labelled(3), shuffle=False)
    assert [len(labels) for _, labels in data] == [2, 2, 1]
    for images, labels in data:
        np.testing.assert_array_equal(np.ravel(images), labels)


def test_a_py_dataset_without_an_end_is_read_in_its_order():
    class Endless(Batches):
        num_batches = None

        def __getitem__(self, index):
            return numbered(2) + 2 * index

    data = feed(Endless(workers=2), epoch=2, steps_per_epoch=3)
    assert order_of(data.take(2)) == [12, 13, 14, 15]
    assert feed(Endless()).cardinality() == tf.data.UNKNOWN_CARDINALITY


def test_a_dataset_whose_labels_are_none_is_one_of_images():
    x = np.zeros((4, 2, 2, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    data = data.map(lambda x: (x, None))
    made = feeding.epochs_of(data, position=lambda: (0, 0))
    assert [batch.shape for batch in made] == [(2, 2, 2, 1)] * 2
