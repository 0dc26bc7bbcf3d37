import math
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_gen import images as images_lib
from keras_gen.images import grid, save_grid


def noise(*shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, shape, dtype="uint8")


def test_images_fill_rows_from_the_left_with_padding_around_each():
    x = np.array([10, 20, 30], "uint8").reshape(3, 1, 1, 1)
    p = 255
    expected = [
        [p, p, p, p, p],
        [p, 10, p, 20, p],
        [p, p, p, p, p],
        [p, 30, p, p, p],
        [p, p, p, p, p],
    ]
    picture = grid(x, num_columns=2, padding=1)
    assert picture.dtype == "uint8"
    np.testing.assert_array_equal(picture[..., 0], expected)


@pytest.mark.parametrize("batch", range(1, 12))
def test_default_grid_is_the_smallest_near_square_one(batch):
    height, width, _ = grid(noise(batch, 1, 1, 1), padding=0).shape
    assert width == math.ceil(math.sqrt(batch))
    assert width * (height - 1) < batch <= width * height


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_each_image_comes_back_from_its_cell(channels):
    x = noise(5, 4, 6, channels)
    picture = grid(x, num_columns=3, padding=2, pad_value=0.0)
    assert picture.shape == (2 * 6 + 2, 3 * 8 + 2, channels)
    for i in range(5):
        top, left = 2 + i // 3 * 6, 2 + i % 3 * 8
        np.testing.assert_array_equal(
            picture[top : top + 4, left : left + 6], x[i]
        )
    assert picture[..., :3].sum() == x[..., :3].sum()  # the rest is black


def test_floats_become_the_nearest_of_256_levels():
    x = noise(2, 8, 8, 3)
    np.testing.assert_array_equal(grid(x / 255), grid(x))
    np.testing.assert_array_equal(grid(tf.constant(x / 255)), grid(x))
    np.testing.assert_array_equal(grid(x.astype("int64")), grid(x))
    value = tf.constant(0.5, "bfloat16", shape=(1, 1, 1, 1))
    assert grid(value, padding=0).item() == 128


def test_padding_of_a_picture_with_opacity_is_opaque():
    picture = grid(np.zeros((3, 1, 1, 4), "uint8"), padding=1, pad_value=0.0)
    assert picture[0, 0].tolist() == [0, 0, 0, 255]
    assert picture[3, 3].tolist() == [0, 0, 0, 255]  # the empty cell
    assert picture[1, 1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_holds_the_pixels_of_the_grid(channels, tmp_path):
    x = noise(7, 5, 4, channels)
    path = tmp_path / "a" / "b" / "x.png"  # folders are made
    save_grid(x, path, num_columns=4, padding=3, pad_value=0.5)
    np.testing.assert_array_equal(
        tf.io.decode_png(path.read_bytes()).numpy(),
        grid(x, num_columns=4, padding=3, pad_value=0.5),
    )


def test_two_channels_are_shown_as_red_and_green(tmp_path):
    x = noise(4, 3, 3, 2)
    save_grid(x, str(tmp_path / "x.png"))
    picture = tf.io.decode_png((tmp_path / "x.png").read_bytes()).numpy()
    np.testing.assert_array_equal(picture[..., :2], grid(x))
    assert not picture[..., 2].any()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch
):
    path = tmp_path / "x.png"
    save_grid(noise(1, 2, 2, 1), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(images_lib.os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        save_grid(noise(9, 2, 2, 1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.png"]


def nan_in(shape):
    x = np.zeros(shape)
    x.flat[0] = np.nan
    return x


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((8, 8, 1)), r"got \(8, 8, 1\)"),
        (np.zeros((0, 8, 8, 1)), r"got \(0, 8, 8, 1\)"),
        (np.zeros((1, 8, 8, 5)), "1 to 4 channels"),
        (np.full((1, 8, 8, 1), 255.0), r"floats in \[0, 255\]"),
        (np.full((1, 8, 8, 1), -1.0), r"turn \[-1, 1\] into"),
        (np.full((1, 8, 8, 1), 256), r"integers in \[256, 256\]"),
        (np.full((1, 8, 8, 1), np.inf), "inf"),
        (nan_in((1, 8, 8, 1)), "got NaN in 1 of 64"),
        ([np.zeros((2, 2, 1)), np.zeros((3, 3, 1))], "of one size"),
        (np.full((1, 2, 2, 1), "x"), "no such array"),
    ],
)
def test_images_that_are_none_are_refused(x, message):
    with pytest.raises(ValueError, match=f"`images`.*{message}") as error:
        grid(x)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "argument, value",
    [
        ("num_columns", 0),
        ("num_columns", 2.5),
        ("num_columns", True),
        ("padding", -1),
        ("padding", "2"),
        ("pad_value", 255),
        ("pad_value", float("nan")),
        ("pad_value", "white"),
    ],
)
def test_layouts_that_are_none_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` .*, got "):
        grid(np.zeros((1, 8, 8, 1)), **{argument: value})


def test_other_formats_than_png_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in `.png`"):
        save_grid(noise(1, 2, 2, 1), tmp_path / "x.jpg")
    assert not os.listdir(tmp_path)
