import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import feeding
from keras_gen.models.gan import GAN
from keras_gen.models.pixel_cnn import PixelCNN


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


# Shares of replicas


def labelled_batches(sizes):
    """A dataset of numbered images and their numbers, in these batches."""
    ends = np.cumsum(sizes)

    def batches():
        for end, size in zip(ends, sizes, strict=True):
            images = numbered(end)[end - size :]
            yield images, np.ravel(images).astype("int32")

    signature = (
        tf.TensorSpec((None, None, 1, 1)),
        tf.TensorSpec((None,), "int32"),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def test_even_batches_hold_all_but_what_no_replica_can_share():
    x = labelled_batches([5, 1, 1, 7, 2, 3])
    data = feeding.even_batches(x, 3)
    assert sizes_of(data.map(lambda x, y: x)) == [3, 3, 6, 3, 3]
    assert data.element_spec == x.element_spec
    order = []
    for images, labels in data:
        np.testing.assert_array_equal(np.ravel(images), labels)
        order.extend(labels.numpy())
    assert order == list(range(18))  # of 19


def test_batches_that_are_even_are_passed_on_as_they_are():
    x = tf.data.Dataset.from_tensor_slices(numbered(9))
    assert feeding.even_batches(x.batch(2), 1).cardinality() == 5
    whole = x.batch(4, drop_remainder=True)
    assert feeding.even_batches(whole, 2) is whole


def test_even_batches_may_be_of_images_of_any_rank():
    signature = tf.TensorSpec(None)
    x = tf.data.Dataset.from_generator(
        lambda: (numbered(3), numbered(2)), output_signature=signature
    )
    assert order_of(feeding.even_batches(x, 2)) == [0, 1, 2, 0]


def test_arrays_are_cut_to_what_replicas_can_share():
    x = numbered(11)
    with pytest.warns(UserWarning, match="2 of 11 images are left out"):
        data = feed(x, batch_size=6, shuffle=False, num_replicas=3)
    assert sizes_of(data) == [6, 3] and data.cardinality() == 2
    data = feed(x, batch_size=30, drop_remainder=True, num_replicas=3)
    assert sizes_of(data) == [9]
    with pytest.raises(ValueError, match="each of the 12 replicas, got 11"):
        feed(x, batch_size=12, num_replicas=12)


class Uneven(Batches):
    """Batches of two images, but for one batch of one."""

    def __init__(self, num_batches, short=-1):
        super().__init__(num_batches)
        self.short = short % num_batches

    def __getitem__(self, index):
        images = super().__getitem__(index)
        return images[: 1 if index == self.short else 2]


def test_the_batch_of_a_py_dataset_that_replicas_cannot_share_is_dropped():
    for epoch in range(3):
        given = {"epoch": epoch, "drop_remainder": True, "num_replicas": 2}
        data = feed(Uneven(5), **given)
        assert sorted(order_of(data)) == list(range(8))
        assert data.cardinality() == 4
    with pytest.raises(ValueError, match="multiple of the 2 replicas"):
        feed(Uneven(1), **given)
    with pytest.raises(tf.errors.OpError, match="multiple of the 2 replicas"):
        order_of(feed(Uneven(5, short=2), **given))
    kept = feed(Uneven(5), drop_remainder=True)
    assert len(order_of(kept)) == 9 and kept.cardinality() == 5


class Pictures(keras.utils.PyDataset):
    """Batches of 5 images."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return -(-len(self.images) // 5)

    def __getitem__(self, index):
        return self.images[5 * index :][:5]


def pictures(size):
    return (np.random.default_rng(0).random((size, 2, 3, 1)) > 0.5).astype(
        "float32"
    )


@pytest.fixture(scope="module")
def pixel_cnn(two_replicas):
    with two_replicas.scope():
        model = PixelCNN((2, 3, 1), 2, 1, likelihood="bernoulli", seed=1)
        model.compile("sgd")
    return model


# Keras says so of all data that do not know their length.
KNOWN = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@KNOWN
@pytest.mark.filterwarnings("ignore:1 of 33 images are left out")
@pytest.mark.parametrize("kind", ["array", "dataset", "PyDataset"])
def test_two_replicas_evaluate_all_images_they_can_share(kind, pixel_cnn):
    x = pictures(33)
    expected = -np.mean(pixel_cnn.log_prob(x[:32]))
    data = {
        "array": x,
        "dataset": tf.data.Dataset.from_tensor_slices(x).batch(5),
        "PyDataset": Pictures(x),
    }[kind]
    given = {"batch_size": 5} if kind == "array" else {}
    logs = pixel_cnn.evaluate(data, **given, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


@KNOWN
def test_a_short_batch_leaves_no_replica_nothing_to_average(two_replicas):
    def network(inputs, outputs):
        return keras.Sequential(
            [
                keras.Input(inputs),
                keras.layers.Flatten(),
                keras.layers.Dense(int(np.prod(outputs))),
                keras.layers.Reshape(outputs),
            ]
        )

    shape = (2, 3, 1)
    with two_replicas.scope():
        gan = GAN(
            shape,
            2,
            generator=network((2,), shape),
            discriminator=network(shape, (1,)),
            seed=1,
        )
        gan.compile()
    x = pictures(33)
    with pytest.warns(UserWarning, match="1 of 33 images"):
        logs = gan.evaluate(x, batch_size=32, verbose=0, return_dict=True)
    assert np.all(np.isfinite(list(logs.values()))), logs
    data = tf.data.Dataset.from_tensor_slices(x).batch(32)
    history = gan.fit(
        x[:32], validation_data=data, batch_size=16, verbose=0
    ).history
    assert np.all(np.isfinite(list(history.values()))), history


def test_training_takes_batches_that_two_replicas_can_share(pixel_cnn):
    x = pictures(33)
    with pytest.raises(ValueError, match="`batch_size` must be a multiple"):
        pixel_cnn.fit(x, batch_size=5, verbose=0)
    data = tf.data.Dataset.from_tensor_slices(x).batch(5, drop_remainder=True)
    with pytest.raises(ValueError, match="Batches of `x` must be a multiple"):
        pixel_cnn.fit(data, verbose=0)
    with pytest.raises(ValueError, match="Batches must be a multiple"):
        pixel_cnn.fit(Pictures(x), verbose=0)


def test_two_replicas_train_without_the_short_batch_of_a_py_dataset(pixel_cnn):
    class Even(Pictures):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return self.images[4 * index :][:4]

    before = int(np.asarray(pixel_cnn.optimizer.iterations))
    history = pixel_cnn.fit(Even(pictures(9)), epochs=2, verbose=0).history
    after = int(np.asarray(pixel_cnn.optimizer.iterations))
    assert after - before == 2 * 2
    assert np.all(np.isfinite(history["loss"]))
