import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_gen.datasets import folder as folder_lib
from keras_gen.datasets import image_shape, load, loading


def stack(dataset):
    return np.stack(list(dataset.as_numpy_iterator()))


def levels(x):
    return np.rint(255 * x).astype("int32")


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype="uint8")


def write(path, pixels, **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels
    if not isinstance(pixels, Image.Image):
        image = Image.fromarray(np.asarray(pixels))
    image.save(path, **arguments)


def read_one(folder, **arguments):
    """The only image of a folder, in 0..255."""
    (image,) = levels(stack(load(folder, **arguments)))
    return image


def write_classes(root, names=("cat", "dog"), count=3):
    """Images whose grey level is 20 * class + number."""
    for label, name in enumerate(names):
        for i in range(count):
            pixels = np.full((4, 4), 20 * label + i, "uint8")
            write(root / name / f"{i}.png", pixels)


# -- Kinds of pictures --------------------------------------------------------


def test_grey_pictures_of_all_kinds_have_one_channel(tmp_path):
    ramp = np.arange(0, 256, 17, dtype="uint8").reshape(4, 4)
    opaque = np.full_like(ramp, 255)
    grey = Image.fromarray(ramp)
    palette = Image.fromarray(ramp, "L").convert("P")
    write(tmp_path / "l.png", grey)
    write(tmp_path / "la.png", np.stack([ramp, opaque], -1))
    write(tmp_path / "p.png", palette)
    write(tmp_path / "16.png", ramp.astype("uint16") * 257)
    write(tmp_path / "16.tif", ramp.astype("uint16") * 257)
    write(tmp_path / "32.tif", ramp.astype("int32") * 257)
    write(tmp_path / "x.bmp", grey)
    write(tmp_path / "x.pgm", grey)
    write(tmp_path / "x.gif", grey)
    dataset = load(tmp_path)
    assert image_shape(dataset) == (4, 4, 1)
    images = levels(stack(dataset))
    assert len(images) == 9
    for image in images:
        np.testing.assert_array_equal(image[..., 0], ramp)


def test_one_bit_is_black_and_white(tmp_path):
    write(tmp_path / "x.png", np.eye(4, dtype=bool))
    np.testing.assert_array_equal(
        read_one(tmp_path)[..., 0], 255 * np.eye(4, dtype=int)
    )


def test_one_colour_picture_makes_all_have_three_channels(tmp_path):
    write(tmp_path / "grey.png", np.full((4, 4), 7, "uint8"))
    write(tmp_path / "colour.png", np.full((4, 4, 3), (1, 2, 3), "uint8"))
    images = levels(stack(load(tmp_path)))
    assert sorted(images[:, 0, 0].tolist()) == [[1, 2, 3], [7, 7, 7]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "ppm"])
def test_exact_formats_give_exact_pixels(suffix, tmp_path):
    pixels = noise(6, 4, 3)
    write(tmp_path / f"x.{suffix.upper()}", pixels, lossless=True)
    np.testing.assert_array_equal(read_one(tmp_path), pixels)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jfif", "webp", "avif"])
def test_lossy_formats_give_the_colour(suffix, tmp_path):
    colour = (200, 100, 50)
    image = Image.new("RGB", (16, 16), colour)
    image.save(tmp_path / f"x.{suffix}")
    assert np.abs(read_one(tmp_path) - colour).max() <= 4


def test_transparent_parts_become_white(tmp_path):
    clear_red = np.zeros((4, 4, 4), "uint8")
    clear_red[..., 0] = 255
    clear_red[0, :, 3] = 255  # a red line
    clear_red[1, :, 3] = 102  # 40 % red
    write(tmp_path / "rgba" / "x.png", clear_red)
    image = read_one(tmp_path / "rgba")
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[1, 0].tolist() == [255, 153, 153]
    assert image[2, 0].tolist() == [255, 255, 255]

    indexed = Image.fromarray(np.eye(4, dtype="uint8")).convert("P")
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    for name in ("x.png", "x.gif"):  # colour 0, red, is the transparent one
        write(tmp_path / name[2:] / name, indexed, transparency=0)
        image = read_one(tmp_path / name[2:])
        assert image[0, 0].tolist() == [0, 0, 255]
        assert image[0, 1].tolist() == [255, 255, 255]

    write(tmp_path / "la" / "x.png", np.zeros((4, 4, 2), "uint8"))
    assert np.all(read_one(tmp_path / "la") == 255)


def test_pictures_for_print_come_out_in_colour(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / "x.jpg")
    assert np.abs(read_one(tmp_path) - (255, 0, 0)).max() <= 4


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    for suffix in ("gif", "webp"):
        frames[0].save(
            tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:]
        )
    images = levels(stack(load(tmp_path)))
    assert images.shape == (2, 4, 4, 3)
    assert np.abs(images - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_rotated_pictures_are_turned_upright(orientation, suffix, tmp_path):
    upright = np.zeros((16, 32), "uint8")
    upright[:8, :8] = 250  # one bright corner: top left
    # How a camera that was held this way stores it, undoing each rule of EXIF.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / f"x.{suffix}", stored, exif=exif)
    image = read_one(tmp_path)
    assert image.shape == (16, 32, 1)
    assert np.abs(image[..., 0] - upright.astype(int)).max() <= 8


def test_name_does_not_have_to_match_the_format(tmp_path):
    write(tmp_path / "x.jpg", noise(4, 4, 3), format="PNG")
    np.testing.assert_array_equal(read_one(tmp_path), noise(4, 4, 3))


def test_name_does_not_have_to_be_utf8(tmp_path):
    write(tmp_path / "x.png", noise(4, 4, 3))
    os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    np.testing.assert_array_equal(read_one(tmp_path), noise(4, 4, 3))


# -- Sizes --------------------------------------------------------------------


def test_mixed_sizes_need_a_size_and_are_cropped_to_it(tmp_path):
    wide = np.zeros((4, 12), "uint8")
    wide[:, 4:8] = 200  # all that is left
    write(tmp_path / "wide.png", wide)
    write(tmp_path / "large.png", np.full((8, 8), 200, "uint8"))
    with pytest.raises(ValueError, match="`image_size` must be given") as error:
        load(tmp_path)
    assert "wide.png (4, 12)" in str(error.value)
    assert "large.png (8, 8)" in str(error.value)
    images = levels(stack(load(tmp_path, image_size=4)))
    assert images.shape == (2, 4, 4, 1) and np.all(images == 200)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_large_pictures_shrink_by_averages(suffix, tmp_path):
    # Smooth at the scale of JPEG's blocks, so that both formats keep it.
    pixels = np.kron(noise(16, 16), np.ones((16, 16))).astype("uint8")
    write(tmp_path / f"x.{suffix}", pixels, quality=95)
    expected = pixels.reshape(8, 32, 8, 32).mean((1, 3))
    image = read_one(tmp_path, image_size=8)
    assert np.abs(image[..., 0] - expected).max() <= (suffix == "jpg") * 3 + 0.5


# -- Files that cannot be read ------------------------------------------------


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IEND"
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (chunk, b"IDAT" + zlib.compress(b""), end)
    )


def write_damaged(root):
    """Eight files that cannot be read, and what is said of them."""
    write(root / "whole.png", noise(32, 32, 3))
    whole = (root / "whole.png").read_bytes()
    write(root / "whole.jpg", noise(32, 32, 3))
    whole_jpeg = (root / "whole.jpg").read_bytes()
    damaged = {
        "a_half.png": (whole[: len(whole) // 2], "truncated"),
        "b_half.jpg": (whole_jpeg[: len(whole_jpeg) // 2], "truncated"),
        "c_empty.png": (b"", "not an image"),
        "d_page.jpg": (b"<html>404</html>", "not an image"),
        "e_bomb.png": (png_header(20_000, 20_000), "pixels"),
        "f_bomb.png": (png_header(10_000, 9_000), "pixels are too many"),
        "g_flip.png": (whole[:100] + b"\xff" + whole[101:], ""),
        "h_script.gif": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    }
    for name, (content, _) in damaged.items():
        (root / name).write_bytes(content)
    return {name: reason for name, (_, reason) in damaged.items()}


@pytest.mark.parametrize("cache", [True, False, "disk"])
def test_unreadable_files_are_named_and_skipped(cache, tmp_path):
    reasons = write_damaged(tmp_path / "images")
    cache = tmp_path / "kept" if cache == "disk" else cache
    with pytest.warns(UserWarning) as warned:
        train = load(tmp_path / "images", batch_size=1, cache=cache)
    (warning,) = [w for w in warned if issubclass(w.category, UserWarning)]
    message = str(warning.message)
    assert warning.filename == __file__
    assert message.startswith("8 image files in ")
    for name in sorted(reasons)[:5]:
        assert f"{name} (" in message and reasons[name] in message
    for name in sorted(reasons)[5:]:
        assert name not in message
    assert len(message) <= 800
    assert train.cardinality() == 2
    assert len(list(train)) == len(list(train)) == 2


def test_each_reason_is_given(tmp_path):
    reasons = write_damaged(tmp_path)
    for name in reasons:
        (tmp_path / name).rename(tmp_path / f"{name}.hidden")
    for name, reason in reasons.items():
        (tmp_path / f"{name}.hidden").rename(tmp_path / name)
        with pytest.warns(UserWarning, match=rf"1 image .*{name} \(.*{reason}"):
            load(tmp_path)
        (tmp_path / name).unlink()


def test_folder_without_a_readable_image_is_refused(tmp_path):
    write_damaged(tmp_path)
    (tmp_path / "whole.png").unlink()
    (tmp_path / "whole.jpg").unlink()
    with (
        pytest.warns(UserWarning, match="8 image files"),
        pytest.raises(ValueError, match="holds no readable image"),
    ):
        load(tmp_path)


def test_hidden_and_other_files_are_passed_over_in_silence(tmp_path):
    write(tmp_path / "x.png", noise(4, 4))
    (tmp_path / "._x.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "x.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("x.png,1")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_one(tmp_path).shape == (4, 4, 1)


# -- Classes and splits -------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_subfolders_are_classes_in_sorted_order(cache, tmp_path):
    write_classes(tmp_path, ("b", "C", "a"))  # sorted: C a b
    write(tmp_path / "a" / "deep" / "x.png", np.full((4, 4), 99, "uint8"))
    seen = {
        (int(levels(x)[0, 0, 0]), int(y))
        for x, y in load(tmp_path, labels=True, cache=cache).as_numpy_iterator()
    }
    assert seen == {
        *((i, 2) for i in range(3)),
        *((20 + i, 0) for i in range(3)),
        *((40 + i, 1) for i in range(3)),
        (99, 1),
    }


def test_subfolders_named_as_splits_are_splits_with_the_same_classes(tmp_path):
    write_classes(tmp_path / "train", ("cat", "dog", "emu"))
    write_classes(tmp_path / "test", ("emu",), count=1)
    train = load(tmp_path, "train", labels=True)
    assert train.cardinality() == 9
    ((_, label),) = load(tmp_path, "test", labels=True)
    assert label == 2  # emu, though the only class here
    with pytest.raises(ValueError, match=r"`split` 'val'.*\['test', 'train'\]"):
        load(tmp_path, "val")


def test_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, ("car", "plane", "train"))
    dataset = load(tmp_path, labels=True)
    assert sorted(int(y) for _, y in dataset) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_flat_folder_is_training_data_of_which_parts_can_be_cut(tmp_path):
    for i in range(20):
        write(tmp_path / f"{i:02}.png", np.full((2, 2), i, "uint8"))

    def values(split):
        return {int(x[0, 0, 0]) for x in levels(stack(load(tmp_path, split)))}

    rest, held_out = values("train[:75%]"), values("train[75%:]")
    assert len(rest) == 15 and len(held_out) == 5
    assert rest | held_out == set(range(20))
    assert rest != set(range(15))  # not by name: classes would be cut off
    (tmp_path / "00.png").unlink()  # other files hardly move
    assert len(values("train[75%:]") & held_out) >= 4
    with pytest.raises(ValueError, match=r"`split` 'test'.*all 'train'"):
        load(tmp_path, "test")


def test_order_does_not_depend_on_where_the_folder_lies(tmp_path):
    for root in (tmp_path / "a", tmp_path / "b"):
        write_classes(root / "test", count=9)
        write_classes(root / "train", count=1)
    one, other = (stack(load(tmp_path / x, "test")) for x in "ab")
    np.testing.assert_array_equal(one, other)


def test_images_outside_of_classes_have_no_label(tmp_path):
    write_classes(tmp_path)
    write(tmp_path / "stray.png", np.zeros((4, 4), "uint8"))
    assert load(tmp_path).cardinality() == 7
    with pytest.raises(ValueError, match=r"`labels=True`.*1 of 7.*stray\.png"):
        load(tmp_path, labels=True)


def test_links_to_folders_are_followed_but_not_around(tmp_path):
    write_classes(tmp_path / "elsewhere", ("x",))
    write_classes(tmp_path / "root", ("a",))
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    dataset = load(tmp_path / "root", labels=True)
    assert sorted(int(y) for _, y in dataset) == [0, 0, 0, 1, 1, 1]


def test_relative_name_is_a_folder_if_tfds_knows_no_such_set(
    tmp_path, monkeypatch
):
    write_classes(tmp_path / "my_pictures")
    write_classes(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load("my_pictures").cardinality() == 6
    assert load("./digits").cardinality() == 6
    assert load("digits").cardinality() == 1500


# -- Keeping ------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_iterations_repeat_with_the_same_seed(cache, tmp_path):
    write_classes(tmp_path, count=8)

    def epochs(seed):
        train = load(tmp_path, batch_size=4, shuffle_seed=seed, cache=cache)
        return [stack(train).tobytes() for _ in range(3)]

    assert epochs(0) == epochs(0) != epochs(1)
    assert len(set(epochs(0))) == 3


def test_folder_larger_than_memory_is_decoded_each_time(tmp_path, monkeypatch):
    write_classes(tmp_path)
    monkeypatch.setattr(loading, "_MEMORY_LIMIT", 6 * 16)
    dataset = load(tmp_path)
    assert len(list(dataset)) == 6
    decoded = []
    original = folder_lib._decode_file
    monkeypatch.setattr(
        folder_lib,
        "_decode_file",
        lambda *arguments: decoded.append(1) or original(*arguments),
    )
    assert len(list(dataset)) == len(list(dataset)) == 6
    assert len(decoded) == 12


def test_kept_pictures_are_decoded_again_only_if_a_file_changes(
    tmp_path, monkeypatch
):
    write_classes(tmp_path / "images")
    arguments = dict(split="train", cache=tmp_path / "kept", labels=True)
    before = load(tmp_path / "images", **arguments)
    decoded = []
    original = folder_lib._decode_file
    monkeypatch.setattr(
        folder_lib,
        "_decode_file",
        lambda file, *rest: decoded.append(file) or original(file, *rest),
    )
    again = load(tmp_path / "images", **arguments)
    assert not decoded
    for (x, y), (x2, y2) in zip(before, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        assert y == y2
    write(tmp_path / "images" / "cat" / "0.png", np.full((4, 4), 255, "uint8"))
    os.utime(tmp_path / "images" / "cat" / "0.png", (1, 1))
    changed = load(tmp_path / "images", **arguments)
    assert len(decoded) == 6
    assert stack(changed.map(lambda x, y: x)).max() == 1.0


# -- Errors -------------------------------------------------------------------


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ValueError, match=r"`name`: no image files .*\.jpg"):
        load(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`name`.*is not a folder"):
        load(tmp_path / "nowhere")


def test_missing_pillow_names_its_extra(tmp_path, monkeypatch):
    write_classes(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "keras_gen\[images\]"'):
        load(tmp_path)
