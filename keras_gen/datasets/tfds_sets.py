"""Any set of images that TFDS knows or has prepared."""

import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import tensorflow as tf

from keras_gen.datasets.source import NO_LABEL, Source, resize


def tfds_source(builder, split, size, labels):
    """The `Source` of a `tfds.core.DatasetBuilder`, prepared if need be."""
    import tensorflow_datasets as tfds

    if not isinstance(builder, tfds.core.DatasetBuilder):
        raise ValueError(
            "`name` must be a string, a path or a `tfds.core.DatasetBuilder`, "
            f"got {type(builder).__name__}."
        )
    name, features = builder.info.full_name, builder.info.features
    image_key, image = _image_feature(builder)
    label_key = _label_key(builder)
    if labels and label_key is None:
        raise ValueError(
            f"`labels=True`, but {name} has no integer feature 'label', only "
            f"{list(features)[:9]}. Use `labels=False`."
        )
    shape = (*(size or image.shape[:2]), image.shape[2])
    if None in shape:
        raise ValueError(
            f"`image_size` must be given for {name}, whose images have no "
            f"fixed shape, {image.shape}. Pass e.g. `image_size=64`."
        )
    _prepare(builder)

    def read(seed):
        return builder.as_dataset(
            split=split,
            shuffle_files=seed is not None,
            decoders=tfds.decode.PartialDecoding(
                {key: True for key in (image_key, label_key) if key},
                decoders={image_key: tfds.decode.SkipDecoding()},
            ),
            read_config=tfds.ReadConfig(
                try_autocache=False,  # it would keep decoded images
                shuffle_seed=seed,
                shuffle_reshuffle_each_iteration=True,
                skip_prefetch=True,
            ),
        )

    try:
        num_images = int(read(None).cardinality())
    except ValueError as error:
        raise ValueError(f"`split` {split!r}: {str(error)[:400]}") from error
    except AssertionError as error:
        if builder.is_prepared():
            raise
        raise ConnectionError(
            f"{name} is not prepared in {builder.data_dir} and its server "
            "cannot be reached. Set `data_dir` or TFDS_DATA_DIR to where it "
            f'is, or prepare it with `tfds.builder("{builder.name}")'
            ".download_and_prepare()` on a machine that can reach the "
            'server. "digits" and "mnist_5k" need no network.'
        ) from error

    if num_images < 1:  # less than 0 for the wrong way round
        raise ValueError(
            f"`split` {split!r} of {name} holds no image. Choose a larger part."
        )

    def decode(example):
        x = image.decode_example(example[image_key])
        if image.np_dtype == np.uint16:
            x = tf.cast(tf.round(x / 257), "uint8")
        x = resize(x, size) if size else x
        y = example[label_key] if label_key else NO_LABEL
        return tf.ensure_shape(x, shape), tf.cast(y, "int32")

    def elements(seed):
        dataset = read(seed)
        if seed is not None:  # while images are still encoded, hence small
            dataset = dataset.shuffle(
                _buffer_size(builder, num_images),
                seed=seed,
                reshuffle_each_iteration=True,
            )
        return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    return Source(
        name=name,
        identity=f"{builder.data_path} {split}",
        image_shape=shape,
        num_images=num_images,
        elements=elements,
    )


def _prepare(builder):
    """Downloads, unless there is no need to or the server does not answer.

    TFDS itself would try a dead server for minutes without a word.
    """
    if builder.is_prepared():
        return
    urls = {
        urllib.parse.urlparse(url).hostname: url
        for url in builder.url_infos or ()
    }
    if not urls or _any_answers(list(urls.values())[:4], timeout=3):
        builder.download_and_prepare()


def _any_answers(urls, timeout):
    """Whether a server says anything, be it an error, within `timeout` s."""
    answered = threading.Event()

    def ask(url):
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=timeout).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:  # by a gateway, say
                return
        except (OSError, ValueError):
            return
        answered.set()

    # Not a pool: looking up a name may hang, and a pool would wait for it.
    threads = [
        threading.Thread(target=ask, args=(url,), daemon=True) for url in urls
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return answered.is_set()


def _image_feature(builder):
    """Key and feature of the image of each example."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    images = {
        key: feature
        for key, feature in (features.items() if is_dict else ())
        if isinstance(feature, tfds.features.Image)
        and feature.np_dtype in (np.uint8, np.uint16)
    }
    if "image" in images:
        return "image", images["image"]
    if len(images) == 1:
        return next(iter(images.items()))
    raise ValueError(
        f"`name` must be a set of images. {builder.info.full_name} has "
        f"{len(images)} image features of 8 or 16 bits and none is called "
        f"'image': {str(features)[:300]}."
    )


def _label_key(builder):
    """Key of the integer label of each example, or `None`."""
    features = builder.info.features
    for key in ("label", *(builder.info.supervised_keys or ())[1:]):
        if isinstance(key, str) and key in features and not features[key].shape:
            if np.issubdtype(features[key].np_dtype, np.integer):
                return key
    return None


def _buffer_size(builder, num_images):
    """Examples whose encoded images take 256 MiB, but at least 256."""
    splits = builder.info.splits.values()
    total = sum(split.num_examples for split in splits)
    if not total:
        return num_images
    per_example = max(1, builder.info.dataset_size // total)
    return min(num_images, max(256, 2**28 // per_example))
