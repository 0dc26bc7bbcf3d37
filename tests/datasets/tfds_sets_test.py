import http.server
import os
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_gen.datasets import image_shape, load, tfds_sets


def stack(dataset):
    return np.stack(list(dataset.as_numpy_iterator()))


def levels(x):
    return np.rint(255 * x).astype("uint8")


def in_any_order(x):  # TFDS stores examples by a hash of their keys
    return sorted(image.tobytes() for image in x)


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), "uint8")


def store(data_dir, name, image, **others):
    """Writes a set that TFDS finds by name: 40 train and 8 test examples."""
    features = {"image": image, **{k: f for k, (f, _) in others.items()}}
    dtype = image.np_dtype
    scale = 257 if dtype == np.uint16 else 1
    examples = [
        {
            "image": IMAGES[i].astype(dtype) * scale,
            **{k: values[i] for k, (_, values) in others.items()},
        }
        for i in range(40)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=data_dir,
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            "train": list(enumerate(examples)),
            "test": list(enumerate(examples[:8])),
        },
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    labels = (tfds.features.ClassLabel(num_classes=40), list(range(40)))
    image = tfds.features.Image(shape=(6, 5, 3))
    store(data_dir, "small_pictures", image, label=labels)
    store(data_dir, "unlabelled_pictures", image)
    mixed = tfds.features.Image(shape=(None, None, 3))
    store(data_dir, "mixed_pictures", mixed, label=labels)
    deep = tfds.features.Image(
        shape=(6, 5, 3), dtype=np.uint16, encoding_format="png"
    )
    store(data_dir, "deep_pictures", deep)
    return data_dir


@pytest.fixture
def no_network(monkeypatch):
    def fail(*_, **__):
        raise OSError("Network is unreachable")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, fail)


# -- Reading ------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_prepared_set_is_read_by_name_without_network(
    data_dir, cache, no_network
):
    dataset = load(
        "small_pictures", cache=cache, labels=True, data_dir=data_dir
    )
    assert dataset.cardinality() == 40
    x = stack(dataset.map(lambda x, y: x))
    y = stack(dataset.map(lambda x, y: y))  # another iteration: other order
    assert sorted(y) == list(range(40)) and y.dtype == "int32"
    assert not np.array_equal(y, np.arange(40))
    assert x.dtype == "float32" and 0 <= x.min() and x.max() <= 1
    for image, label in dataset:
        np.testing.assert_array_equal(levels(image), IMAGES[label])


@pytest.mark.parametrize("cache", [True, False])
def test_test_split_keeps_its_order_and_slices_are_tfds_ones(data_dir, cache):
    builder = tfds.builder("small_pictures", data_dir=data_dir)
    for split in ("test", "test[25%:]", "test+test[:2]", "all"):
        expected = [
            example["image"] for example in builder.as_dataset(split=split)
        ]
        actual = load(builder, split, cache=cache)
        np.testing.assert_array_equal(levels(stack(actual)), expected)


@pytest.mark.parametrize("cache", [True, False])
def test_iterations_repeat_with_the_same_seed(data_dir, cache):
    def epochs(**arguments):
        train = load(
            "small_pictures",
            batch_size=8,
            binarize="dynamic",
            cache=cache,
            data_dir=data_dir,
            **arguments,
        )
        return [stack(train).tobytes() for _ in range(3)]

    assert epochs() == epochs() and len(set(epochs())) == 3
    assert epochs(shuffle_seed=1) != epochs()


def test_data_dir_defaults_to_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load("unlabelled_pictures", "test").cardinality() == 8


def test_images_of_16_bits_become_8_bits(data_dir):
    test = load("deep_pictures", "test", data_dir=data_dir)
    assert in_any_order(levels(stack(test))) == in_any_order(IMAGES[:8])


def test_images_of_no_fixed_shape_need_a_size(data_dir):
    with pytest.raises(ValueError, match="`image_size` must be given for"):
        load("mixed_pictures", data_dir=data_dir)
    dataset = load("mixed_pictures", image_size=(3, 5), data_dir=data_dir)
    assert image_shape(dataset) == (3, 5, 3)
    test = load("mixed_pictures", "test", image_size=(6, 5), data_dir=data_dir)
    assert in_any_order(levels(stack(test))) == in_any_order(IMAGES[:8])


def test_larger_sets_are_shuffled_in_a_buffer_of_256_mib(data_dir):
    builder = tfds.builder("small_pictures", data_dir=data_dir)

    class Info:
        splits = {"train": builder.info.splits["train"]}
        dataset_size = 40 * 2**19  # half a MiB an example

    class Builder:
        info = Info

    assert tfds_sets._buffer_size(Builder, 10**6) == 512
    assert tfds_sets._buffer_size(Builder, 100) == 100
    Info.dataset_size *= 100
    assert tfds_sets._buffer_size(Builder, 10**6) == 256


@pytest.mark.parametrize(
    "name, arguments, shape",
    [
        ("cifar10", {}, (32, 32, 3)),
        ("celeb_a", {"image_size": 64}, (64, 64, 3)),
        ("celeb_a", {}, (218, 178, 3)),
        ("oxford_flowers102", {"image_size": (16, 24)}, (16, 24, 3)),
        ("emnist/letters", {}, (28, 28, 1)),
    ],
)
def test_any_image_set_of_tfds_is_read(name, arguments, shape, no_network):
    with tfds.testing.mock_data(num_examples=5):
        dataset = load(name, "test", batch_size=2, **arguments)
        assert image_shape(dataset) == shape
        assert [len(x) for x in dataset] == [2, 2, 1]
        train = load(name, batch_size=2, cache=False, **arguments)
        assert [len(x) for x in train] == [2, 2]


def test_real_fashion_mnist():
    name = "fashion_mnist"
    if not tfds.builder(
        name, data_dir=os.environ.get("TFDS_DATA_DIR")
    ).is_prepared():
        pytest.skip("fashion_mnist is not prepared in TFDS_DATA_DIR")
    test = load(name, "test", batch_size=1000, labels=True)
    counts = sum(np.bincount(y, minlength=10) for _, y in test)
    assert counts.tolist() == [1000] * 10
    mean = np.mean([x.numpy().mean() for x, _ in test])
    assert abs(mean - 0.2868) < 5e-4  # 73.1 of 255
    train = load(name, "train[:1000]", batch_size=128, binarize="dynamic")
    assert image_shape(train) == (28, 28, 1)
    batches = list(train)
    assert len(batches) == 7
    assert set(np.unique(batches[0])) == {0.0, 1.0}


# -- Preparing ----------------------------------------------------------------


def test_unprepared_set_without_network_is_refused_at_once(
    tmp_path, no_network
):
    start = time.monotonic()
    with pytest.raises(
        ConnectionError,
        match=r"mnist/.* is not prepared in .*cannot be reached",
    ) as error:
        load("mnist", data_dir=tmp_path)
    assert time.monotonic() - start < 3
    assert len(str(error.value)) <= 600


def test_server_that_keeps_silent_is_waited_for_no_longer_than_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:  # never accepts
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        start = time.monotonic()
        assert not tfds_sets._any_answers([url], timeout=0.3)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "status, answers", [(200, True), (403, True), (503, False)]
)
def test_server_answers_unless_a_gateway_speaks_for_it(
    status, answers, monkeypatch
):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.gz"
        assert tfds_sets._any_answers([url], timeout=5) is answers


@pytest.mark.parametrize("answers", [True, False])
def test_set_is_prepared_only_if_a_server_answers(
    answers, monkeypatch, tmp_path
):
    asked, prepared = [], []
    monkeypatch.setattr(
        tfds_sets,
        "_any_answers",
        lambda urls, timeout: asked.append((urls, timeout)) or answers,
    )
    with (
        tfds.testing.mock_data(num_examples=2, data_dir=tmp_path),
        monkeypatch.context() as patch,
    ):
        patch.setattr(
            tfds.core.DatasetBuilder,
            "download_and_prepare",
            lambda self: prepared.append(self.name),
        )
        load("fashion_mnist")
    assert prepared == ["fashion_mnist"] * answers
    ((urls, timeout),) = asked
    assert len(urls) == 1 and "fashion-mnist" in urls[0] and timeout <= 3


def test_builder_that_needs_no_download_is_prepared(tmp_path, no_network):
    class TwoPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(6, 5, 3))
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"x": image})
            )

        def _split_generators(self, dl_manager):
            return {"train": ((i, {"x": IMAGES[i]}) for i in range(2))}

        def _generate_examples(self):
            pass

    builder = TwoPictures(data_dir=tmp_path)
    x = levels(stack(load(builder)))  # the only image, though not named so
    assert in_any_order(x) == in_any_order(IMAGES[:2])


# -- Errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "fashion_mnis"}, "`name`.*'fashion_mnis'.*'fashion_mnist'"),
        ({"name": "emnist/greek"}, "`name` 'emnist/greek' cannot be opened"),
        ({"name": "emnist:9.9.9"}, "`name` 'emnist:9.9.9' cannot be opened"),
        (
            {"name": "imdb_reviews"},
            "`name` must be a set of images.*'text'|Text",
        ),
        ({"name": "groove"}, "`name` must be a set of images"),
        ({"name": "celeb_a", "labels": True}, "`labels=True`, but celeb_a"),
        ({"name": "small_pictures", "split": "dev"}, "`split` 'dev'.*'train'"),
        ({"name": "small_pictures", "split": "train[:"}, "`split` 'train"),
        (
            {"name": "small_pictures", "split": "train[5:2]"},
            "`split`.*holds no image",
        ),
        (
            {"name": "unlabelled_pictures", "labels": True},
            "`labels=True`, but unlabelled_pictures",
        ),
    ],
)
def test_sets_and_splits_that_are_none_are_refused(
    arguments, message, data_dir, no_network
):
    before = os.listdir(data_dir)
    with pytest.raises(ValueError, match=message) as error:
        load(data_dir=data_dir, **arguments)
    assert len(str(error.value)) <= 600
    assert os.listdir(data_dir) == before  # nothing was downloaded


def test_dataset_is_no_name():
    with pytest.raises(ValueError, match="`name` must be a string, a path"):
        load(tf.data.Dataset.range(3))
