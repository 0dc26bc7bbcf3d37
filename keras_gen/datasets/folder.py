"""Folders of image files as people have them, read by Pillow."""

import hashlib
import os
import pathlib
import warnings

import numpy as np
import tensorflow as tf

from keras_gen.datasets.source import (
    NO_LABEL,
    Source,
    import_extra,
    order,
    parse_split,
    resize,
)

# Larger pictures are refused unread: they are more often attacks than photos.
_MAX_PIXELS = 64_000_000
_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff "
    ".webp".split()
)
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_HELD_OUT = frozenset(("dev", "eval", "test", "val", "valid", "validation"))


def folder_source(folder, split, size, labels):
    """The `Source` of a folder of images, or of its subfolder `split`."""
    import_extra("PIL", "images")
    root = pathlib.Path(folder).expanduser()
    name = str(root)[-80:]
    files = _list_folder(root, split)
    unlabelled = [file for file, label in files if label == NO_LABEL]
    if labels and unlabelled:
        raise ValueError(
            "`labels=True` needs every image in a subfolder, which is its "
            f"class, got {len(unlabelled)} of {len(files)} outside of one, "
            f"e.g. {str(unlabelled[0])[-80:]!r}. Use `labels=False`, or move "
            "them."
        )

    skipped, shapes, is_grey = {}, {}, True
    for file, _ in files:
        try:
            shapes[file], file_is_grey = _read_header(file)
            is_grey = is_grey and file_is_grey
        except Exception as error:  # Pillow lets all kinds through
            skipped[str(file)] = _reason(error)
    files = [(file, label) for file, label in files if file in shapes]
    if size is None and len(set(shapes.values())) > 1:
        one = next(iter(shapes))
        other = next(file for file in shapes if shapes[file] != shapes[one])
        raise ValueError(
            f"`image_size` must be given for {name}, whose images differ in "
            "size (height, width): "
            f"{one.name[-60:]} {shapes[one]}, {other.name[-60:]} "
            f"{shapes[other]}. Pass e.g. `image_size=64`."
        )
    height, width = size or next(iter(shapes.values()), (1, 1))
    shape = (height, width, 1 if is_grey else 3)

    def read(index):
        file, label = files[index]
        try:
            pixels = _decode_file(file, shape[2], size)
            if not size and pixels.shape != shape:
                raise ValueError(f"shape is {pixels.shape}, not {shape}")
        except Exception as error:
            skipped[str(file)] = _reason(error)
            return np.zeros(shape, "uint8"), np.int32(label), False
        return pixels, np.int32(label), True

    def elements(seed):
        def decode(index):
            x, y, is_readable = tf.numpy_function(
                read, [index], ("uint8", "int32", "bool")
            )
            x.set_shape((None, None, shape[2]))
            x = resize(x, size) if size else x
            return (
                tf.ensure_shape(x, shape),
                tf.ensure_shape(y, ()),
                tf.ensure_shape(is_readable, ()),
            )

        dataset = order(len(files), seed)
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.filter(lambda x, y, is_readable: is_readable)
        return dataset.map(lambda x, y, is_readable: (x, y))

    stats = [(file, label, file.stat()) for file, label in files]
    return Source(
        name=name,
        identity=repr(
            [(str(f), label, s.st_size, s.st_mtime_ns) for f, label, s in stats]
        ),
        image_shape=shape,
        num_images=len(files),
        elements=elements,
        skipped=skipped,
    )


def _list_folder(root, split):
    """(path, label) of the image files of a split, by a hash of their names."""
    base, to_slice = parse_split(split)
    if not root.is_dir():
        raise ValueError(
            f"`name` {str(root)[-200:]!r} is not a folder. Pass the folder "
            "that holds the images, or its subfolders of one class each."
        )
    subfolders = set(_subfolders(root))
    # A class may be called "train" or "test", but hardly both.
    has_splits = bool(subfolders) and (
        subfolders <= _HELD_OUT | {"train"}
        or ("train" in subfolders and bool(subfolders & _HELD_OUT))
    )
    if base not in (subfolders if has_splits else ("train",)):
        raise ValueError(
            f"`split` {split!r} is not in {str(root)[-100:]!r}, "
            + (
                f"whose splits are its subfolders {sorted(subfolders)[:9]}."
                if has_splits
                else "whose images are all 'train', since it has no subfolder "
                "train/ beside one such as test/ or val/. Use e.g. "
                "'train[:90%]' and 'train[90%:]'."
            )
        )
    # All splits count the classes alike, even if one of them lacks a class.
    parents = [root / split for split in subfolders] if has_splits else [root]
    classes = sorted(
        {name for parent in parents for name in _subfolders(parent)}
    )

    top = root / base if has_splits else root
    files, seen = [], set()
    for folder, names, filenames in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if name[0] != ".")
        for filename in filenames:
            file = pathlib.Path(folder, filename)
            if filename[0] != "." and file.suffix.lower() in _SUFFIXES:
                parts = file.relative_to(top).parts
                label = classes.index(parts[0]) if parts[1:] else NO_LABEL
                files.append((file, label))
    if not files:
        raise ValueError(
            f"`name`: no image files in {str(top)[-200:]!r}. Their names end in "
            f"one of {' '.join(sorted(_SUFFIXES))}, and neither they nor their "
            "folders start with a dot."
        )
    # As good as random, but the same everywhere, and the same for the other
    # files if one is added: slices stay what they are.
    files.sort(
        key=lambda file: hashlib.sha256(
            os.fsencode(file[0].relative_to(top).as_posix())
        ).digest()
    )
    return files[to_slice(len(files))]


def _subfolders(folder):
    return [
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and entry.name[0] != "."
    ]


def _open_picture(file):
    """Pillow's image of an open file, its header read."""
    from PIL import Image

    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    return Image.open(file, formats=formats)


def _read_header(file):
    """`(height, width)` as seen, and whether the picture is grey."""
    with open(file, "rb") as opened:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about many pixels
            image = _open_picture(opened)
        width, height = image.size
        if width * height > _MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are too many")
        # Pillow turns a TIFF by itself, and has no EXIF data elsewhere but in
        # `info`, unless it decodes the whole file to look for it.
        if image.format != "TIFF" and "exif" in image.info:
            orientation = image.getexif().get(0x0112, 1)
            if orientation >= 5:  # it lies on its side
                width, height = height, width
        is_grey = image.mode in ("1", "L", "LA", "I") or "I;16" in image.mode
        if image.mode == "P":
            palette = np.reshape(image.getpalette("RGB"), (-1, 3))
            is_grey = bool(np.all(palette == palette[:, :1]))
    return (height, width), is_grey


def _decode_file(file, channels, size):
    """Upright uint8 pixels `(height, width, channels)`, on white."""
    from PIL import Image, ImageOps

    # Opened here, since Pillow maps a TIFF that it opens itself into memory,
    # and then mixes up the height and width of one that lies on its side.
    with open(file, "rb") as opened:
        image = _open_picture(opened)
        if size:  # JPEG: averages over 2, 4 or 8 pixels while it decodes
            image.draft(None, (2 * max(size), 2 * max(size)))
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("more than 16 bits a pixel")
        image = Image.fromarray(np.rint(pixels / 257).astype("uint8"))
    elif image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image).reshape(image.height, image.width, channels)


def _reason(error):
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image"
    return " ".join(str(error).split())[:50] or type(error).__name__
