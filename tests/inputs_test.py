import math
import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen import inputs

IMAGE_SHAPE = (4, 4, 1)
RGB_SHAPE = (4, 4, 3)
CHECKERBOARD = (np.indices((4, 4)).sum(axis=0) % 2)[..., None]


def floats(batch_size=3, image_shape=IMAGE_SHAPE):
    """Images whose range is exactly [0, 1] and which all differ."""
    x = np.linspace(0, 1, batch_size * math.prod(image_shape))
    return x.reshape(batch_size, *image_shape).astype("float32")


def integers(batch_size=3, dtype="uint8"):
    return np.round(255 * floats(batch_size)).astype(dtype)


def with_pixel(value, dtype="float32"):
    x = floats().astype(dtype)
    x[1, 2, 3, 0] = value
    return x


def ragged(*shapes):
    x = np.empty(len(shapes), dtype=object)
    x[:] = [np.zeros(shape) for shape in shapes]
    return x


class Batches(keras.utils.PyDataset):
    """The given batches, and which of them were asked for."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches
        self.asked = []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.batches[index]


class Hostile:
    """An object whose `repr` is longer than any message may be."""

    def __repr__(self):
        return "x" * 100_000


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


class Unreadable:
    """An array that NumPy cannot read, as a tensor on another device."""

    shape = (3, 4, 4, 1)
    dtype = "float32"

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("move it to the host first " + "!" * 10_000)


def sliced(x):
    return tf.data.Dataset.from_tensor_slices(x)


def from_generator(*elements, spec):
    return tf.data.Dataset.from_generator(
        lambda: iter(elements), output_signature=spec
    )


def message_of(function, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        function(*args, **kwargs)
    assert caught.type is ValueError
    message = str(caught.value)
    assert len(message) <= 600
    assert "\n" not in message
    return message


# Images that every check refuses: verbs and `fit` alike.
BAD_IMAGES = {
    "none": (None, "Pass the images"),
    "path string": ("faces/", "keras_gen.datasets.load(path)"),
    "path object": (pathlib.Path("faces"), "keras_gen.datasets.load(path)"),
    "long string": ("x" * 100_000, "keras_gen.datasets.load(path)"),
    "dictionary": ({"image": floats()}, "x['image']"),
    "tuple": ((floats(), np.arange(3)), "two arguments"),
    "empty list": ([], "at least one image"),
    "list of images": ([floats()[0], floats()[1]], "np.stack(list(x))"),
    "list of batches": ([floats(), floats()], "np.concatenate(list(x))"),
    "list of paths": (["a.png", "b.png"], "datasets.load(directory)"),
    "list of numbers": ([[0.0, 1.0]], "np.asarray(x, dtype="),
    "ragged list": (
        [np.zeros((4, 4, 1)), np.zeros((4, 4, 1)), np.zeros((5, 4, 1))],
        "Items 0 and 2 differ in shape: (4, 4, 1) and (5, 4, 1)",
    ),
    "ragged object array": (
        ragged((4, 4, 1), (6, 4, 1)),
        "Items 0 and 1 differ in shape: (4, 4, 1) and (6, 4, 1)",
    ),
    "object array of numbers": (floats().astype(object), "np.asarray(x, dtype"),
    "ragged tensor": (tf.ragged.constant([[0.0], [0.0, 1.0]]), "one size"),
    "sparse tensor": (tf.sparse.from_dense([[1.0]]), "dense tensor"),
    "dictionary of hostile keys": ({Broken(): 0}, "Take the images out"),
    "number": (3.0, "np.asarray(x)"),
    "hostile repr": (Hostile(), "np.asarray(x)"),
    "broken repr": (Broken(), "np.asarray(x)"),
    "unreadable array": (Unreadable(), "Pass a NumPy array"),
    "no images": (floats()[:0], "at least one image"),
    "empty array": (np.array([]), "at least one image"),
    "scalar": (np.float32(3), "four axes"),
    "64 axes": (np.zeros((1,) * 64), "four axes"),
    "no batch axis": (floats()[0], "`x[None]`"),
    "no batch axis, other size": (np.zeros((8, 8, 3)), "`x[None]`"),
    "no channel axis": (floats()[..., 0], "`x[..., None]`"),
    "neither axis": (floats()[0, ..., 0], "`x[None, ..., None]`"),
    "flattened": (floats().reshape(3, -1), "`x.reshape(-1, 4, 4, 1)`"),
    "two batch axes": (floats()[None], "two batch axes"),
    "channels first": (
        np.moveaxis(floats(), -1, 1),
        "np.moveaxis(x, 1, -1)",
    ),
    "channels first, other size": (
        np.zeros((3, 3, 32, 32)),
        "np.moveaxis(x, 1, -1)",
    ),
    "colour": (floats(image_shape=RGB_SHAPE), "rgb_to_grayscale"),
    "other size": (np.zeros((3, 6, 5, 1)), "tf.image.resize(x, (4, 4))"),
    "booleans": (floats() > 0.5, 'x.astype("float32")'),
    "complex": (floats().astype("complex64"), "np.abs(x)"),
    "strings": (np.full((3, 4, 4, 1), "a.png"), "datasets.load(directory)"),
    "dates": (np.zeros((3, 4, 4, 1), "datetime64[s]"), "x.astype"),
    "structured": (np.zeros((3, 4, 4, 1), [("r" * 999, "u1")]), "x.astype"),
    "floats in [0, 255]": (255 * floats(), "Divide by 255: `x / 255`"),
    "floats in [-1, 1]": (2 * floats() - 1, "`(x + 1) / 2`"),
    "floats in [-0.5, 0.5]": (floats() - 0.5, "`x + 0.5`"),
    "overshoot": (1.05 * floats() - 0.02, "np.clip(x, 0, 1)"),
    "16-bit floats": (65535 * floats(), "65535"),
    "wider floats": (1e6 * floats(), "largest value"),
    "standardized": ((floats() - 0.5) / 0.29, "x * std + mean"),
    "16-bit integers": (257 * integers(dtype="uint16"), "65535"),
    "integers up to 256": (np.full((3, 4, 4, 1), 256), "[256, 256]"),
    "signed bytes": (integers().astype("int16") - 128, "+ 128"),
    "wide integers": (10**6 * (integers(dtype="int64") - 9), "[0, 1]"),
    "NaN": (with_pixel(np.nan), "1 NaN and 0 infinite"),
    "infinity": (with_pixel(np.inf), "np.isfinite(x)"),
    "minus infinity": (with_pixel(-np.inf), "index (1, 2, 3, 0)"),
    "NaN in half precision": (
        tf.constant(with_pixel(np.nan), "bfloat16"),
        "index (1, 2, 3, 0)",
    ),
}


@pytest.mark.parametrize("x, remedy", BAD_IMAGES.values(), ids=BAD_IMAGES)
@pytest.mark.parametrize("check", ["images", "data"])
def test_bad_images_are_refused_with_a_remedy(check, x, remedy):
    if check == "images":
        message = message_of(inputs.check_images, x, IMAGE_SHAPE, "real")
    else:
        message = message_of(
            inputs.check_data, x, image_shape=IMAGE_SHAPE, argument="real"
        )
    assert message.startswith("`real` must") or "no images" in message
    assert remedy in message


@pytest.mark.parametrize(
    "channels, wanted, remedy",
    [(1, 3, "grayscale_to_rgb"), (4, 3, "`x[..., :3]`"), (2, 3, "2 channels")],
)
def test_wrong_channels_are_named_with_both_numbers(channels, wanted, remedy):
    x = np.zeros((2, 4, 4, channels))
    message = message_of(inputs.check_images, x, (4, 4, wanted))
    assert f"{channels} channels, not {wanted}" in message
    assert remedy in message


def test_range_and_first_bad_index_are_told():
    message = message_of(inputs.check_images, 255 * floats(), IMAGE_SHAPE)
    assert "floats in [0, 255]" in message
    x = with_pixel(np.nan)
    x[2, 0, 0, 0] = -np.inf
    message = message_of(inputs.check_images, x, IMAGE_SHAPE)
    assert "1 NaN and 1 infinite values, the first at index (1, 2, 3, 0)" in (
        message
    )


@pytest.mark.parametrize(
    "x",
    [sliced(floats()), Batches(floats()), (i for i in range(3)), range(3)],
    ids=["dataset", "PyDataset", "generator", "range"],
)
def test_a_dataset_given_to_a_verb_is_told_how_to_pass_one_batch(x):
    message = message_of(inputs.check_images, x, IMAGE_SHAPE)
    assert "next(iter(x))" in message


def test_a_generator_given_to_fit_is_told_how_to_become_a_dataset():
    x = (image for image in floats())
    message = message_of(inputs.check_data, x, image_shape=IMAGE_SHAPE)
    assert "tf.data.Dataset.from_generator" in message
    assert len(list(x)) == 3  # nothing was taken out of it


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32(dtype):
    x = floats().astype(dtype)
    checked = inputs.check_images(x, IMAGE_SHAPE)
    assert checked.dtype == tf.float32
    np.testing.assert_array_equal(checked, x.astype("float32"))


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int32", "int64", "uint64", ">i4"]
)
def test_integers_become_uint8(dtype):
    checked = inputs.check_images(integers(dtype=dtype), IMAGE_SHAPE)
    assert checked.dtype == tf.uint8
    np.testing.assert_array_equal(checked, integers())


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "bfloat16"])
def test_tensors_are_checked_like_arrays(dtype):
    x = tf.cast(tf.constant([[[[0.0]]], [[[1.0]]]]), dtype)
    checked = inputs.check_images(x, (1, 1, 1))
    assert checked.dtype == ("float32" if x.dtype.is_floating else "uint8")
    np.testing.assert_array_equal(np.ravel(checked), [0, 1])


def test_symbolic_tensors_are_checked_by_shape_and_dtype():
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), "float64")])
    def accepted(x):
        return inputs.check_images(x, IMAGE_SHAPE)

    assert accepted(floats().astype("float64")).dtype == tf.float32

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4), "float32")])
    def refused(x):
        return inputs.check_images(x, IMAGE_SHAPE)

    with pytest.raises(ValueError, match="channel axis is missing"):
        refused.get_concrete_function()


# Labels: the value, the keywords, the remedy.
BAD_LABELS = {
    "missing": (None, {"num_classes": 10}, "Pass labels"),
    "all unlabelled but not said": (
        None,
        {"num_classes": 10, "allow_unlabelled": True},
        "Use -1 for no label",
    ),
    "missing vectors": (None, {"condition_dim": 2}, "float vectors (batch, 2)"),
    "no condition": ([0, 1, 2], {}, "`num_classes` or `condition_dim`"),
    "scalar": (1, {"num_classes": 10}, "np.full(3, y)"),
    "column": ([[0], [1], [2]], {"num_classes": 10}, "np.squeeze(y, -1)"),
    "one-hot": (np.eye(3), {"num_classes": 3}, "np.argmax(y, axis=-1)"),
    "three axes": (np.zeros((3, 1, 1), int), {"num_classes": 3}, "per image"),
    "floats": ([0.0, 1.0, 2.0], {"num_classes": 3}, 'y.astype("int32")'),
    "booleans": ([True, False, True], {"num_classes": 2}, 'astype("int32")'),
    "strings": (["a", "b", "a"], {"num_classes": 2}, "return_inverse"),
    "objects": ([Hostile()] * 3, {"num_classes": 2}, "the dtype object"),
    "dates": (np.zeros(3, "datetime64[s]"), {"num_classes": 2}, "np.unique"),
    "ragged": ([[0], [1, 2], [3]], {"num_classes": 4}, "np.asarray(y)"),
    "unreadable": (Unreadable(), {"num_classes": 4}, "np.asarray(y)"),
    "too long": (np.arange(4), {"num_classes": 10}, "as many labels as images"),
    "label is num_classes": ([0, 5, 10], {"num_classes": 10}, "from 0 to 10"),
    "counted from one": ([1, 2, 3], {"num_classes": 3}, "`y - 1`"),
    "unlabelled": ([-1, 0, 1], {"num_classes": 2}, "semi-supervised"),
    "below -1": (
        [-2, 0, 1],
        {"num_classes": 2, "allow_unlabelled": True},
        "mend their labels",
    ),
    "beyond int32": ([0, 1, 2**40], {"num_classes": 2}, str(2**40)),
    "ids for vectors": ([0, 1, 2], {"condition_dim": 4}, "to_categorical(y)"),
    "ids for vectors of one": ([0, 1, 2], {"condition_dim": 1}, "y[:, None]"),
    "one vector": ([0.0, 1.0], {"condition_dim": 2}, "np.tile"),
    "scalar for vectors": (0.5, {"condition_dim": 2}, "one vector for each"),
    "other width": (np.zeros((3, 5)), {"condition_dim": 2}, "condition_dim"),
    "boolean vectors": (np.eye(3) > 0, {"condition_dim": 3}, "float32"),
    "string vectors": ([["a"]] * 3, {"condition_dim": 1}, "float32"),
    "NaN in vectors": (
        [[0.0], [np.nan], [1.0]],
        {"condition_dim": 1},
        "index (1, 0)",
    ),
    "vectors beyond float32": (
        [[0.0], [1e300], [1.0]],
        {"condition_dim": 1},
        "1 infinite",
    ),
}


@pytest.mark.parametrize(
    "y, condition, remedy", BAD_LABELS.values(), ids=BAD_LABELS
)
def test_bad_labels_are_refused_with_a_remedy(y, condition, remedy):
    message = message_of(
        inputs.check_labels, y, 3, argument="condition", **condition
    )
    assert message.startswith("`condition` must")
    assert remedy in message


def test_labels_become_int32():
    for y in ([0, 9], range(2), np.uint8([0, 9]), tf.constant([0, 9], "int64")):
        checked = inputs.check_labels(y, 2, num_classes=10)
        assert checked.dtype == tf.int32
        np.testing.assert_array_equal(checked, np.asarray(y))


def test_minus_one_is_a_label_where_it_is_allowed():
    checked = inputs.check_labels(
        [-1, 0, 1], 3, num_classes=2, allow_unlabelled=True
    )
    np.testing.assert_array_equal(checked, [-1, 0, 1])


def test_condition_vectors_become_float32():
    for dtype in ("float64", "float32", "int64"):
        y = np.eye(2).astype(dtype)
        checked = inputs.check_labels(y, 2, condition_dim=2)
        assert checked.dtype == tf.float32
        np.testing.assert_array_equal(checked, np.eye(2))


def test_no_labels_pass_for_a_model_without_a_condition():
    assert inputs.check_labels(None, 3) is None


def test_symbolic_labels_are_checked_by_shape_and_dtype():
    @tf.function(input_signature=[tf.TensorSpec((None,), "int64")])
    def accepted(y):
        return inputs.check_labels(y, None, num_classes=3)

    assert accepted([0, 1]).dtype == tf.int32

    @tf.function(input_signature=[tf.TensorSpec((None,), "float32")])
    def refused(y):
        return inputs.check_labels(y, None, num_classes=3)

    with pytest.raises(ValueError, match="astype"):
        refused.get_concrete_function()


BAD_DATA = {
    "unbatched": (lambda: sliced(floats()), {}, "call `.batch(n)`"),
    "unbatched, other size": (
        lambda: sliced(np.zeros((3, 8, 8, 3))),
        {},
        "call `.batch(n)`",
    ),
    "batched twice": (
        lambda: sliced(floats()).batch(3).batch(1),
        {},
        "batch a dataset once",
    ),
    "no channel axis": (
        lambda: sliced(floats()[..., 0]).batch(3),
        {},
        "`x[..., None]`",
    ),
    "other size": (
        lambda: sliced(np.zeros((3, 6, 5, 1))).batch(3),
        {},
        "tf.image.resize(x, (4, 4))",
    ),
    "booleans": (lambda: sliced(floats() > 0.5).batch(3), {}, "astype"),
    "file names": (
        lambda: sliced(np.full((3, 4, 4, 1), "a.png")).batch(3),
        {},
        "datasets.load(directory)",
    ),
    "dictionaries": (
        lambda: sliced({"image": floats(), "label": range(3)}).batch(3),
        {},
        ".map(lambda x: x['image'])",
    ),
    "ragged batches": (
        lambda: sliced(tf.ragged.constant([[[0.0]], [[0.0], [1.0]]])).batch(2),
        {},
        "to one size before `.batch(n)`",
    ),
    "sample weights": (
        lambda: sliced((floats(), range(3), range(3))).batch(3),
        {},
        "sample weights are not used",
    ),
    "four parts": (
        lambda: sliced((range(3),) * 4).batch(3),
        {},
        "Yield the images",
    ),
    "no batches": (lambda: sliced(floats()).batch(3).take(0), {}, "empty"),
    "fewer images than a batch": (
        lambda: sliced(floats()).batch(4, drop_remainder=True),
        {},
        "`drop_remainder=True` drops all",
    ),
    "sizes that differ": (
        lambda: from_generator(
            np.zeros((4, 4, 1)),
            np.zeros((5, 4, 1)),
            spec=tf.TensorSpec((None, None, 1)),
        ).batch(2),
        {},
        "Cannot batch tensors with different shapes",
    ),
    "shape not in the spec": (
        lambda: from_generator(
            np.zeros((2, 4, 4)), spec=tf.TensorSpec(None, "float32")
        ),
        {},
        "`x[..., None]`",
    ),
    "range": (lambda: sliced(255 * floats()).batch(3), {}, "Divide by 255"),
    "NaN": (lambda: sliced(with_pixel(np.nan)).batch(3), {}, "(1, 2, 3, 0)"),
    "no labels": (
        lambda: sliced(floats()).batch(3),
        {"num_classes": 3},
        "a dataset of `(x, y)`",
    ),
    "one-hot labels": (
        lambda: sliced((floats(), np.eye(3))).batch(3),
        {"num_classes": 3},
        "np.argmax(y, axis=-1)",
    ),
    "labels out of range": (
        lambda: sliced((floats(), range(3))).batch(3),
        {"num_classes": 2},
        "from 0 to 2",
    ),
    "labels in a dictionary": (
        lambda: sliced((floats(), {"label": range(3)})).batch(3),
        {"num_classes": 3},
        "y['label']",
    ),
    "empty PyDataset": (lambda: Batches(), {}, "Its length is 0"),
    "PyDataset of a bad range": (
        lambda: Batches(255 * floats()),
        {},
        "Divide by 255",
    ),
    "PyDataset of one image": (lambda: Batches(floats()[0]), {}, "`x[None]`"),
    "PyDataset with weights": (
        lambda: Batches((floats(), range(3), range(3))),
        {},
        "sample weights are not used",
    ),
    "PyDataset of too few labels": (
        lambda: Batches((floats(), np.arange(2))),
        {"num_classes": 3},
        "got 2 for 3 images",
    ),
    "PyDataset of a dictionary": (
        lambda: Batches({"image": floats()}),
        {},
        "x['image']",
    ),
}


@pytest.mark.parametrize(
    "make_dataset, condition, remedy", BAD_DATA.values(), ids=BAD_DATA
)
def test_bad_datasets_are_refused_with_a_remedy(
    make_dataset, condition, remedy
):
    message = message_of(
        inputs.check_data,
        make_dataset(),
        image_shape=IMAGE_SHAPE,
        argument="validation_data",
        **condition,
    )
    assert "`validation_data`" in message
    assert remedy in message


def test_the_spec_alone_refuses_a_dataset_that_cannot_be_read():
    def fail():
        raise AssertionError("no element may be asked for")
        yield

    dataset = tf.data.Dataset.from_generator(
        fail, output_signature=tf.TensorSpec((None, 4, 4, 3))
    )
    message = message_of(inputs.check_data, dataset, image_shape=IMAGE_SHAPE)
    assert "rgb_to_grayscale" in message


@pytest.mark.parametrize(
    "dataset", [sliced(floats()).batch(3), Batches(floats())]
)
def test_labels_beside_a_dataset_are_refused(dataset):
    message = message_of(
        inputs.check_data, dataset, np.arange(3), image_shape=IMAGE_SHAPE
    )
    assert "tf.data.Dataset.zip" in message


@pytest.mark.parametrize("num_classes", [None, 10])
def test_labels_and_images_must_be_as_many(num_classes):
    message = message_of(
        inputs.check_data,
        floats(3),
        np.arange(2),
        image_shape=IMAGE_SHAPE,
        num_classes=num_classes,
    )
    assert message.startswith("`y` must")
    assert "got 2 for 3 images" in message


@pytest.mark.parametrize("y", [[0, 1, 2], sliced([0, 1, 2]), {"y": 0}])
def test_labels_beside_an_array_must_be_an_array(y):
    message = message_of(
        inputs.check_data,
        floats(3),
        y,
        image_shape=IMAGE_SHAPE,
        num_classes=3,
    )
    assert message.startswith("`y` must be an array")
    assert "np.asarray(y)" in message


def test_labels_of_validation_data_are_named_after_it():
    message = message_of(
        inputs.check_data,
        floats(3),
        np.arange(3),
        image_shape=IMAGE_SHAPE,
        num_classes=2,
        argument="validation_data",
    )
    assert message.startswith("The labels of `validation_data` must")


labels = np.arange(3)
GOOD_DATA = {
    "float16": (floats().astype("float16"), None),
    "float32": (floats(), None),
    "float64": (floats().astype("float64"), None),
    "uint8": (integers(), None),
    "int64": (integers(dtype="int64"), None),
    "tensor": (tf.constant(floats()), None),
    "bfloat16": (tf.cast(floats(), "bfloat16"), None),
    "labels": (floats(), labels),
    "tensors with labels": (tf.constant(floats()), tf.constant(labels)),
    "dataset": (sliced(floats()).batch(3), None),
    "dataset of uint8": (sliced(integers()).batch(3), None),
    "dataset of tuples": (sliced((floats(),)).batch(3), None),
    "dataset with labels": (sliced((floats(), labels)).batch(3), None),
    "dataset with no labels": (
        tf.data.Dataset.from_tensors((floats(), None)),
        None,
    ),
    "dataset of unknown shape": (
        from_generator(floats(), spec=tf.TensorSpec(None, "float32")),
        None,
    ),
    "endless dataset of single images": (
        sliced(floats()).batch(1).repeat(),
        None,
    ),
    "PyDataset": (Batches(floats()), None),
    "PyDataset with labels": (Batches((integers(), labels)), None),
    "PyDataset of lists": (Batches([integers(), labels]), None),
    "PyDataset with nothing beside": (Batches((floats(), None, None)), None),
}


@pytest.mark.parametrize("x, y", GOOD_DATA.values(), ids=GOOD_DATA)
def test_good_data_pass_without_a_message(x, y, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = inputs.check_data(x, y, image_shape=IMAGE_SHAPE)
    assert result is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "x, y",
    [
        (floats(), labels),
        (tf.constant(floats()), tf.constant(labels)),
        (sliced((floats(), labels)).batch(3), None),
        (Batches((floats(), labels)), None),
    ],
)
def test_good_labels_pass_a_conditional_model_and_bad_ones_do_not(x, y):
    check = dict(image_shape=IMAGE_SHAPE)
    inputs.check_data(x, y, num_classes=3, **check)
    assert "from 0 to 2" in message_of(
        inputs.check_data, x, y, num_classes=2, **check
    )


def test_a_model_without_a_condition_ignores_what_the_labels_are():
    y = np.array(["a", "b", "c"])
    inputs.check_data(floats(), y, image_shape=IMAGE_SHAPE)
    dataset = sliced((floats(), {"name": y})).batch(3)
    inputs.check_data(dataset, image_shape=IMAGE_SHAPE)


def test_exactly_one_batch_is_pulled_from_a_dataset():
    pulled = []

    def generate():
        for image in floats(12):
            pulled.append(image)
            yield image

    dataset = tf.data.Dataset.from_generator(
        generate, output_signature=tf.TensorSpec(IMAGE_SHAPE)
    )
    inputs.check_data(dataset.batch(3), image_shape=IMAGE_SHAPE)
    assert len(pulled) == 3


def test_exactly_one_batch_is_asked_of_a_py_dataset():
    dataset = Batches(floats(), floats(), floats())
    inputs.check_data(dataset, image_shape=IMAGE_SHAPE)
    assert dataset.asked == [0]


def test_the_whole_of_an_array_is_read():
    x = np.full((5000, 1, 1, 1), 0.5, "float32")
    x[0], x[-1] = 0, np.nan
    message = message_of(inputs.check_data, x, image_shape=(1, 1, 1))
    assert "index (4999, 0, 0, 0)" in message


def test_of_a_larger_array_only_the_beginning_is_read(monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_BYTES_READ", 2 * 4 * 4 * 4)
    x = floats(4)
    x[2] = np.nan
    inputs.check_data(x, image_shape=IMAGE_SHAPE)
    x[1] = np.nan
    message_of(inputs.check_data, x, image_shape=IMAGE_SHAPE)


@pytest.mark.parametrize(
    "x, words",
    [
        (floats(1), "only one image"),
        (np.stack([CHECKERBOARD / 1.0] * 3), "zero variance"),
        (
            sliced(np.stack([CHECKERBOARD / 1.0] * 3)).batch(3),
            "zero variance",
        ),
        (floats() / 255, "divided by 255 twice"),
        (np.round(floats()).astype("uint8"), "nearly black"),
        (np.round(floats()).astype("int64"), 'x.astype("float32")'),
    ],
)
def test_what_is_hardly_meant_brings_one_warning_at_the_caller(x, words):
    def check(x):
        inputs.check_data(x, image_shape=IMAGE_SHAPE)

    def fit(x):
        check(x)

    with pytest.warns(UserWarning) as caught:
        fit(x)
    (warning,) = caught
    assert "`x`" in str(warning.message)
    assert words in str(warning.message)
    assert warning.filename == __file__
    assert warning.lineno > fit.__code__.co_firstlineno + 1  # not inside `fit`


@pytest.mark.parametrize(
    "value",
    [0, -3, 2.5, 64.0, "64", True, np.True_, None, math.nan, Hostile(), [64]],
)
def test_positive_integer_refuses(value):
    message = message_of(inputs.check_positive_integer, value, "latent_dim")
    assert message.startswith("`latent_dim` must be a positive integer, got")
    assert "`latent_dim=64`" in message


def test_positive_integer_becomes_a_python_integer():
    for value in (64, np.int64(64), np.uint8(64)):
        checked = inputs.check_positive_integer(value, "latent_dim")
        assert checked == 64 and type(checked) is int


@pytest.mark.parametrize(
    "value, limits",
    [
        (True, {}),
        ("0.5", {}),
        (None, {}),
        (1j, {}),
        (Broken(), {}),
        (math.nan, {}),
        (math.inf, {}),
        (10**400, {}),
        pytest.param(-(10**5000), {}, id="beyond repr"),
        (-1, {"minimum": 0}),
        (1.5, {"maximum": 1}),
        (0, {"minimum": 0, "exclusive": True}),
        (1.0, {"maximum": 1, "exclusive": True}),
    ],
)
def test_number_refuses(value, limits):
    message = message_of(inputs.check_number, value, "beta", **limits)
    assert message.startswith("`beta` must be a finite number")


@pytest.mark.parametrize("value", [-1, 1.0, "0", True, None])
def test_count_refuses(value):
    message = message_of(inputs.check_count, value, "num_chains")
    assert message.startswith("`num_chains` must be an integer of at least 0")
    assert inputs.check_count(np.int64(0), "num_chains") == 0


@pytest.mark.parametrize("value", ["no", 1, 0.0, None])
def test_boolean_refuses(value):
    message = message_of(inputs.check_boolean, value, "logit")
    assert message.startswith("`logit` must be `True` or `False`, got")
    assert inputs.check_boolean(np.True_, "logit") is True


def test_images_just_above_white_are_shown_as_they_are():
    message = message_of(
        inputs.check_images, with_pixel(1.0000001), IMAGE_SHAPE
    )
    assert "[0, 1.0000001]" in message


def test_number_names_its_limits():
    message = message_of(
        inputs.check_number, 2, "ema", minimum=0, maximum=1, exclusive=True
    )
    assert "a finite number > 0 and < 1, got 2" in message
    message = message_of(inputs.check_number, -2, "beta", minimum=0)
    assert "a finite number >= 0, got -2" in message


def test_number_becomes_a_python_float():
    for value in (1, 1.0, np.float32(1), np.int8(1)):
        checked = inputs.check_number(value, "beta", minimum=1, maximum=1)
        assert checked == 1.0 and type(checked) is float


@pytest.mark.parametrize(
    "image_shape, remedy",
    [
        ((28, 28), "`(28, 28, 1)`"),
        ((3, 64, 48), "pass `(64, 48, 3)`"),
        ((28, 28, 5), "1 to 4 channels"),
        ((None, 28, 28, 1), "Leave out the batch axis"),
        ((28, None, 1), "image_shape=(28, 28, 1)"),
        ((0, 28, 1), "image_shape=(28, 28, 1)"),
        ((28.0, 28, 1), "image_shape=(28, 28, 1)"),
        ((True, 28, 1), "image_shape=(28, 28, 1)"),
        (28, "image_shape=(28, 28, 1)"),
        ("28x28x1", "image_shape=(28, 28, 1)"),
        ("28!", "image_shape=(28, 28, 1)"),
        (None, "image_shape=(28, 28, 1)"),
        (list(range(10**6)), "image_shape=(28, 28, 1)"),
    ],
)
def test_bad_image_shapes_are_refused_with_a_remedy(image_shape, remedy):
    message = message_of(inputs.check_image_shape, image_shape)
    assert message.startswith(
        "`image_shape` must be `(height, width, channels)`"
    )
    assert remedy in message


def test_image_shape_becomes_a_tuple_of_python_integers():
    for image_shape in (
        [4, 5, 3],
        tf.TensorShape((4, 5, 3)),
        np.array([4, 5, 3]).tolist(),
        (np.int64(4), 5, 3),
    ):
        checked = inputs.check_image_shape(image_shape)
        assert checked == (4, 5, 3)
        assert all(type(size) is int for size in checked)


class Flat(keras.Model):
    """A subclassed model, which has no `input_shape` in Keras 3."""

    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(7)

    def call(self, x):
        return self.dense(self.flatten(x))


def test_shapes_of_a_subclassed_network_are_found_by_tracing_it():
    network = Flat()
    message = message_of(inputs.check_network, network, (4, 5), (7,), "net")
    assert message.startswith("`net` must be a built `keras.Model`")
    network(np.zeros((1, 4, 5)))
    inputs.check_network(network, (4, 5), (7,), "net")
    message = message_of(inputs.check_network, network, (4, 5), (8,), "net")
    assert "outputs of shape (batch, 8), got (batch, 7)" in message
    message = message_of(inputs.check_network, network, (4, 6), (7,), "net")
    assert "`net` must take inputs of shape (None, 4, 6), got a Flat" in message
    assert "`keras.Model(x, network(x))`" in message
    x = keras.Input((4, 5))
    wrapped = keras.Model(x, network(x))
    inputs.check_network(wrapped, (4, 5), (7,), "net")


def test_shapes_are_traced_in_half_precision_too():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = Flat()
        network(np.zeros((1, 4, 5)))
        inputs.check_network(network, (4, 5), (7,), "net")
    finally:
        keras.config.set_dtype_policy("float32")
