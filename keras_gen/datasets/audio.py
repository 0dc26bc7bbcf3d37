"""`load_audio`: clips of sound, cut to waveforms of one length."""

import os
import pathlib
import wave

import numpy as np
import tensorflow as tf

from keras_gen.datasets.source import order


def load_audio(
    name,
    split="train",
    *,
    num_samples,
    batch_size=None,
    shuffle_seed=0,
    data_dir=None,
):
    """Loads clips of sound as a `tf.data.Dataset` that `WaveNet.fit` takes.

    Each clip is cut into waveforms from its beginning, and what remains at its
    end is left out, as are clips that are shorter. They are kept in memory, at
    2 bytes a sample. Splits whose name starts with `train` are shuffled anew
    at each iteration, and their batches are all full (unless the split is
    smaller than one batch); others come in a fixed order and whole.

    Args:
        name: A folder of WAV files of 16 bits and one sample rate, as a path,
            or the name of a TFDS set (or a `tfds.core.DatasetBuilder`) that is
            prepared and has a feature `audio`, samples of 16 bits in one
            channel.
        split: String, a split of a TFDS set, or a subfolder. All of a folder
            that has no subfolder `train` is `"train"`.
        num_samples: Integer, length of a waveform.
        batch_size: Integer. Defaults to no batches: single waveforms.
        shuffle_seed: Integer, seed of the order of training data.
        data_dir: Folder of the prepared TFDS sets. Defaults to the
            environment's `TFDS_DATA_DIR`, then to TFDS's own default.

    Returns:
        Dataset of float32 waveforms in [-1, 1], `(num_samples,)` or
        `(batch_size, num_samples)`.

    Raises:
        ValueError: If an argument is none of those above, there is no such
            set, split or WAV file, sample rates differ, or no clip is as long
            as `num_samples`.

    Example:

    >>> train = load_audio("recordings", num_samples=4096, batch_size=8)
    """
    for argument, value, least in (
        ("num_samples", num_samples, 1),
        ("batch_size", 1 if batch_size is None else batch_size, 1),
        ("shuffle_seed", shuffle_seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            value = str(value)[:100]
        if isinstance(value, str) or value < least:
            raise ValueError(
                f"`{argument}` must be an integer of at least {least}, got "
                f"{value!r}. Pass for example `{argument}=64`."
            )
    if not isinstance(split, str) or not split:
        raise ValueError(
            f"`split` must be a string such as 'train', got {split!r}."
        )
    if not isinstance(name, str | os.PathLike) and not hasattr(name, "info"):
        raise ValueError(
            "`name` must be a folder, the name of a TFDS set or its builder, "
            f"got {str(name)[:100]!r}."
        )
    is_path = isinstance(name, os.PathLike) or os.path.isdir(
        os.path.expanduser(str(name))
    )
    clips = _wav_clips if is_path else _tfds_clips
    pieces = [np.zeros((0, num_samples), "int16")]
    for clip in clips(name, split, data_dir):
        whole = len(clip) // num_samples
        pieces.append(clip[: whole * num_samples].reshape(-1, num_samples))
    waveforms = np.concatenate(pieces)
    if not len(waveforms):
        raise ValueError(
            f"`num_samples` must not be above the length of all clips, got "
            f"{num_samples} for the {len(pieces) - 1} clips in {split!r} of "
            f"{str(name)[-100:]!r}. Choose a shorter one."
        )

    is_training = split.startswith("train")
    dataset = order(len(waveforms), shuffle_seed if is_training else None)
    if batch_size is not None:
        is_full = is_training and len(waveforms) >= batch_size
        dataset = dataset.batch(batch_size, drop_remainder=is_full)
    # A tensor: graphs capture it, and would copy an array into each node.
    waveforms = tf.constant(waveforms)
    dataset = dataset.map(
        lambda index: tf.cast(tf.gather(waveforms, index), "float32") / 32768.0
    )
    options = tf.data.Options()
    # The autotuner would only make the end of an epoch wait for it.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def _wav_clips(folder, split, data_dir):
    """Yields the int16 samples of each WAV file."""
    folder = pathlib.Path(folder).expanduser()
    if (folder / split).is_dir():
        folder = folder / split
    elif split != "train":
        raise ValueError(
            f"`split` must be a subfolder of {str(folder)[-100:]!r}, got "
            f"{split!r}, which is none. Put its files there."
        )
    rates = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".wav":
            continue
        x, rate = _read_wav(path)
        rates[rate] = path
        if len(rates) > 1:
            raise ValueError(
                "`name` must be a folder of WAV files of one sample rate, got "
                f"{list(rates)} per second, in {[p.name for p in rates.values()]}"
                ". Resample the others."
            )
        yield x
    if not rates:
        raise ValueError(
            f"`name` must be a folder of WAV files, got "
            f"{str(folder)[-100:]!r}, which has none. Convert the recordings "
            "to WAV with 16 bits."
        )


def _read_wav(path):
    """The int16 samples of a WAV file, and how many a second has."""
    problem = None
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            pcm = file.readframes(count)
        if (channels, width) != (1, 2):
            problem = f"{channels} channels of {8 * width} bits"
        elif len(pcm) < 2 * count:
            problem = "an early end"
    except (wave.Error, EOFError) as error:
        problem = str(error)[:100] or "an early end"
    if problem:
        raise ValueError(
            "`name` must be a folder of WAV files of one channel and 16 bits, "
            f"got {problem} in {str(path)[-100:]!r}. Convert or remove it."
        )
    return np.frombuffer(pcm, "<i2").astype("int16"), rate


def _tfds_clips(name, split, data_dir):
    """Yields the int16 samples of each example of a TFDS set."""
    import tensorflow_datasets as tfds

    builder = name
    if not isinstance(name, tfds.core.DatasetBuilder):
        try:
            builder = tfds.builder(
                name, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR")
            )
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            raise ValueError(
                "`name` must be a folder of WAV files or the name of a TFDS "
                f"set, got {str(name)[:100]!r}, which is none: "
                f"{str(error)[:200]}"
            ) from error
    features = builder.info.features
    feature = features["audio"] if "audio" in features else None
    if (
        feature is None
        or len(feature.shape) != 1
        or not (np.issubdtype(feature.np_dtype, np.integer))
    ):
        raise ValueError(
            "`name` must be a set with a feature 'audio', integers "
            f"(num_samples,), got {builder.info.full_name} with "
            f"{str(features)[:200]}."
        )
    if not builder.is_prepared() or split.split("[")[0] not in (
        builder.info.splits
    ):
        raise ValueError(
            f"`split` must be one of {list(builder.info.splits)} of "
            f"{builder.info.full_name}, prepared in {builder.data_dir}, got "
            f"{split!r}. Prepare a set with `download_and_prepare()`."
        )
    for example in tfds.as_numpy(builder.as_dataset(split=split)):
        yield example["audio"].astype("int16")
