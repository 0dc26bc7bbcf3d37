"""Checks of what users hand to constructors, `fit`, `evaluate` and verbs.

Everything here runs eagerly, before the first training step, and knows no
model. A check that fails raises a `ValueError` of at most 600 characters that
names the argument, says what was expected and what came, and gives a remedy.
"""

import math
import numbers
import os
import reprlib
import warnings
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

# The values of larger arrays are read up to here only: a fraction of a second.
_MAX_BYTES_READ = 2**30


def check_positive_integer(value, argument, minimum=1):
    """Checks a count or a size that a constructor is given.

    Args:
        value: The value to check.
        argument: String, the name of the argument in error messages.
        minimum: Integer, the smallest allowed value.

    Returns:
        `value` as a Python integer.

    Raises:
        ValueError: If `value` is not an integer of at least `minimum`.
            Booleans, floats (even whole ones) and strings are refused.

    Example:

    >>> check_positive_integer(np.int64(32), "latent_dim")  # 32
    """
    if not _is_number(value, numbers.Integral) or value < minimum:
        raise ValueError(
            f"`{argument}` must be a positive integer, got {_show(value)}. "
            f"Pass a whole number of at least {minimum}, for example "
            f"`{argument}={max(64, minimum)}`."
        )
    return int(value)


def check_count(value, argument):
    """Checks a count that may be 0, otherwise as `check_positive_integer`.

    Raises:
        ValueError: If `value` is not an integer of at least 0.

    Example:

    >>> check_count(0, "num_chains")  # 0
    """
    if not _is_number(value, numbers.Integral) or value < 0:
        raise ValueError(
            f"`{argument}` must be an integer of at least 0, got "
            f"{_show(value)}. Pass a whole number, for example `{argument}=0`."
        )
    return int(value)


def check_boolean(value, argument):
    """Checks a switch, which a string such as "no" would turn on.

    Returns:
        `value` as a Python bool.

    Raises:
        ValueError: If `value` is neither `True` nor `False`.

    Example:

    >>> check_boolean(np.True_, "recompute")  # True
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(
            f"`{argument}` must be `True` or `False`, got {_show(value)}."
        )
    return bool(value)


def check_activation(activation):
    """Checks an activation of layers in which units must not see each other.

    Args:
        activation: Function, its Keras name, or `None` for none.

    Returns:
        The function.

    Raises:
        ValueError: If `activation` is neither, has weights, or mixes units,
            as softmax does.

    Example:

    >>> check_activation("relu")
    """
    expected = (
        "`activation` must be a function of each unit alone, such as 'relu'"
    )
    rows = np.array([[-1.0, 0.3, 2.0], [0.5, -2.0, 1.0]], "float32")
    try:
        function = keras.activations.get(activation)
        values = np.asarray(function(tf.constant(rows)))
        # Of each unit, where the others have another input.
        others = [np.where(np.arange(3) == i, rows, rows + 1) for i in range(3)]
        others = [np.asarray(function(tf.constant(x))) for x in others]
    except Exception as error:
        raise ValueError(
            f"{expected}, got {_show(activation)}, which fails: "
            f"{_clip(str(error), 200)}"
        ) from error
    if values.shape != rows.shape or not all(
        np.allclose(values[:, i], others[i][:, i]) for i in range(3)
    ):
        raise ValueError(
            f"{expected}, got {_show(activation)}, which mixes units. Later "
            "pixels would be seen through it."
        )
    if getattr(function, "weights", ()):
        raise ValueError(
            f"{expected}, got {_show(activation)}, which has weights. Take one "
            "without."
        )
    return function


def check_dtype_policy(policy):
    """Checks that the `dtype` of a model is also that of the layers in it.

    Raises:
        ValueError: If it is not the global policy, which layers take.

    Example:

    >>> check_dtype_policy(keras.config.dtype_policy())
    """
    taken = keras.config.dtype_policy()
    if policy != taken:
        raise ValueError(
            f"`dtype` must be the global policy, {_show(taken.name)}, which "
            f"the layers of the model take, got {_show(policy.name)}. Call "
            f"`keras.config.set_dtype_policy({policy.name!r})` before you make "
            "the model."
        )


def check_progress(progress):
    """Checks who is told how far an estimate has come.

    Raises:
        ValueError: If it is neither a function nor `None`.

    Example:

    >>> check_progress(lambda done, total: print(done, "of", total))
    """
    if progress is not None and not callable(progress):
        raise ValueError(
            "`progress` must be a function of (done, total), got "
            f"{_show(progress)}. Pass for example `print`."
        )


def check_number(value, argument, minimum=None, maximum=None, exclusive=False):
    """Checks a rate, weight or scale that a constructor is given.

    Args:
        value: The value to check.
        argument: String, the name of the argument in error messages.
        minimum: Number or `None`, the smallest allowed value.
        maximum: Number or `None`, the largest allowed value.
        exclusive: Boolean, whether the two limits themselves are refused.

    Returns:
        `value` as a Python float.

    Raises:
        ValueError: If `value` is not a finite real number within the limits.
            Booleans and strings are refused.

    Example:

    >>> check_number(1, "beta", minimum=0.0)  # 1.0
    """
    at_least, at_most = (">", "<") if exclusive else (">=", "<=")
    limits = []
    if minimum is not None:
        limits.append(f" {at_least} {minimum}")
    if maximum is not None:
        limits.append(f" {at_most} {maximum}")
    message = (
        f"`{argument}` must be a finite number{' and'.join(limits)}, got "
        f"{_show(value)}. "
    )

    if not _is_number(value, numbers.Real):
        raise ValueError(f"{message}Pass a Python int or float.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    too_low = minimum is not None and number < minimum
    too_high = maximum is not None and number > maximum
    at_limit = exclusive and number in (minimum, maximum)
    if not math.isfinite(number) or too_low or too_high or at_limit:
        raise ValueError(f"{message}Choose a value within these limits.")
    return number


def check_seed(seed):
    """Checks the integer seed of a constructor or a verb.

    Args:
        seed: The value to check.

    Returns:
        `seed` as a Python integer.

    Raises:
        ValueError: If `seed` is not an integer in `[0, 2**63)`.

    Example:

    >>> check_seed(np.int64(7))  # 7
    """
    if not _is_number(seed, numbers.Integral) or not 0 <= seed < 2**63:
        raise ValueError(
            f"`seed` must be an integer in [0, 2**63), got {_show(seed)}. Pass "
            "for example `seed=0`."
        )
    return int(seed)


def check_image_shape(image_shape):
    """Checks the `image_shape` of a model.

    Args:
        image_shape: The value to check: `(height, width, channels)`, three
            positive integers, 1 to 4 channels.

    Returns:
        `image_shape` as a tuple of three Python integers.

    Raises:
        ValueError: If it is anything else; a channels-first shape and a
            missing channel axis are recognized.

    Example:

    >>> check_image_shape([28, 28, 1])  # (28, 28, 1)
    """
    is_sequence = isinstance(image_shape, (tuple, list, tf.TensorShape))
    sizes = tuple(image_shape) if is_sequence else ()
    integers = all(
        _is_number(size, numbers.Integral) and size >= 1 for size in sizes
    )
    if len(sizes) == 3 and integers and sizes[2] <= 4:
        return tuple(int(size) for size in sizes)

    remedy = "For example, pass `image_shape=(28, 28, 1)`."
    if len(sizes) == 2 and integers:
        remedy = f"Add the channels: `{_show_shape((*sizes, 1))}`."
    elif len(sizes) == 3 and integers and sizes[0] <= 4:
        channels_last = _show_shape((*sizes[1:], sizes[0]))
        remedy = f"It looks channels-first: pass `{channels_last}`."
    elif len(sizes) == 3 and integers:
        remedy = "Images have 1 to 4 channels, which come last."
    elif len(sizes) == 4:
        remedy = "Leave out the batch axis."
    raise ValueError(
        "`image_shape` must be `(height, width, channels)`, three positive "
        f"integers with 1 to 4 channels, got {_show(image_shape)}. {remedy}"
    )


def check_network(network, input_shape, output_shape, argument):
    """Checks the shapes of a network that a constructor is given.

    Args:
        network: A built `keras.Model` of one input and one output.
        input_shape: Expected shape of the input, without the batch.
        output_shape: Expected shape of the output, without the batch.
        argument: String, the name of the argument in error messages.

    Raises:
        ValueError: If it is not a built model, or has other shapes.

    Example:

    >>> check_network(encoder, (28, 28, 1), (64,), "encoder")
    """
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(
            f"`{argument}` must be a built `keras.Model`, got "
            f"{_show(network)}. Begin a `keras.Sequential` with `keras.Input`, "
            "or call `build(input_shape)`."
        )
    if hasattr(network, "input_shape"):
        taken = network.input_shape
        given = getattr(network, "output_shape", None)
    else:
        taken = (None, *input_shape)
        given = traced_output_shape(network, taken, argument)
    wanted = [
        ("inputs", input_shape, taken),
        ("outputs", output_shape, given),
    ]
    for name, shape, got in wanted:
        if tuple(got or ())[1:] == tuple(shape):
            continue
        shape, got = (
            ", ".join(map(str, s)) for s in (shape, tuple(got or ())[1:])
        )
        raise ValueError(
            f"`{argument}` must have {name} of shape (batch, {shape}), got "
            f"(batch, {_clip(got)}). Change its first or last layer, or leave "
            "the argument out for the default network."
        )


def traced_output_shape(network, shapes, argument):
    """Shape of what a subclassed model gives, which has no `output_shape`.

    Args:
        network: A built `keras.Model`.
        shapes: Shape of its input with the batch, or a list of several.
        argument: String, the name of the argument in error messages.

    Returns:
        The shape with the batch, or shapes in the structure of the outputs.

    Raises:
        ValueError: If it does not take inputs of these shapes.

    Example:

    >>> traced_output_shape(encoder, (None, 28, 28, 1), "encoder")  # (None, 64)
    """

    def tensor(shape):  # as Keras casts inputs
        return keras.KerasTensor(shape, network.compute_dtype)

    several = isinstance(shapes, list)
    x = [tensor(shape) for shape in shapes] if several else tensor(shapes)
    try:
        output = network.compute_output_spec(x)
    except Exception as error:  # whatever users raise in their `call`
        shapes = " and ".join(map(str, shapes if several else [shapes]))
        raise ValueError(
            f"`{argument}` must take inputs of shape {shapes}, got a "
            f"{_clip(type(network).__name__)} whose shapes cannot be told: "
            f"{_clip(type(error).__name__)}: {_clip(str(error))}. If it does, "
            "wrap it: `x = keras.Input(shape)`, "
            "`keras.Model(x, network(x))`."
        ) from error
    return keras.tree.map_structure(lambda y: tuple(y.shape), output)


def check_two_optimizers(d_optimizer, g_optimizer, others=()):
    """Checks that a discriminator and a generator do not share an optimizer.

    Args:
        d_optimizer: The discriminator's, an object, a name or `None`.
        g_optimizer: The generator's.
        others: Names of further arguments of `compile`.

    Raises:
        ValueError: If both are one object, whose state would mix both, or an
            `optimizer` is among the others.

    Example:

    >>> check_two_optimizers("adam", "adam")  # two will be made
    """
    if "optimizer" in others:
        raise ValueError(
            "`optimizer` is not an argument here, as there are two networks "
            "to train. Pass `d_optimizer` and `g_optimizer`."
        )
    if d_optimizer is g_optimizer and isinstance(
        d_optimizer, keras.optimizers.Optimizer
    ):
        raise ValueError(
            "`d_optimizer` and `g_optimizer` must be two optimizers, got one "
            "object for both. Make one for each."
        )


def check_images(x, image_shape, argument="x"):
    """Checks one batch of images and brings it to one of two dtypes.

    Of a symbolic tensor only the shape and the dtype are checked.

    Args:
        x: Images `(batch, *image_shape)`, a NumPy array, a `tf.Tensor` or
            what NumPy can read; uint8, integers in [0, 255], or floats in
            [0, 1].
        image_shape: `(height, width, channels)`.
        argument: String, the name of the argument in error messages.

    Returns:
        A `tf.Tensor` of the shape of `x`: uint8 if `x` holds integers,
        float32 in [0, 1] if it holds floats.

    Raises:
        ValueError: If the kind, shape, dtype or range of `x` is another, if
            it is empty, or if it holds a NaN or an infinite value.

    Example:

    >>> check_images(np.zeros((8, 28, 28, 1)), (28, 28, 1)).dtype  # float32
    """
    name = f"`{argument}`"
    x = _to_image_array(x, name)
    _check_image_spec(x.shape, x.dtype, image_shape, name)
    if not tf.is_symbolic_tensor(x):
        _check_image_values(np.asarray(x), name)
    return _to_tensor(x, "uint8" if _is_integer(x.dtype) else "float32")


def check_labels(
    y,
    num_labels_expected_batch,
    *,
    num_classes=None,
    condition_dim=None,
    allow_unlabelled=False,
    argument="y",
):
    """Checks the labels or condition vectors of one batch.

    Of a symbolic tensor only the shape and the dtype are checked.

    Args:
        y: Integer class ids `(batch,)` in [0, num_classes - 1], or finite
            vectors `(batch, condition_dim)`: an array, a tensor or a list.
        num_labels_expected_batch: Integer or `None` (any), the batch size.
        num_classes: Integer, if the model is conditional on classes.
        condition_dim: Integer, if the model is conditional on vectors.
        allow_unlabelled: Boolean, whether -1 may stand for "no label".
        argument: String, the name of the argument in error messages.

    Returns:
        A `tf.Tensor`: int32 `(batch,)` or float32 `(batch, condition_dim)`.
        `None` if the model has neither classes nor vectors and `y` is `None`.

    Raises:
        ValueError: If `y` is missing, if its shape, dtype, length or range is
            another, or if the model has neither classes nor vectors and `y`
            is given.

    Example:

    >>> check_labels([0, 9], 2, num_classes=10)  # int32 [0, 9]
    """
    return _check_labels(
        y,
        num_labels_expected_batch,
        f"`{argument}`",
        num_classes,
        condition_dim,
        allow_unlabelled,
    )


def check_data(
    x,
    y=None,
    *,
    image_shape,
    num_classes=None,
    condition_dim=None,
    allow_unlabelled=False,
    argument="x",
):
    """Checks what `fit` and `evaluate` are given, before the first step.

    Of an array the first GiB is read. Of a dataset the element spec is read,
    then one batch is pulled. A model that is not conditional ignores labels.

    Args:
        x: Images as in `check_images`, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` whose batches are `x` or `(x, y)`.
        y: Labels beside an array `x`, as in `check_labels` but no list.
        image_shape: `(height, width, channels)`.
        num_classes: Integer, if the model is conditional on classes.
        condition_dim: Integer, if the model is conditional on vectors.
        allow_unlabelled: Boolean, whether -1 may stand for "no label".
        argument: String, the name of `x` in error messages.

    Raises:
        ValueError: If the model cannot be trained on `x` and `y`.

    Warns:
        UserWarning: If an array holds only one image, if all images are the
            same, or if they look as if they had been scaled once too often.

    Example:

    >>> dataset = tf.data.Dataset.from_tensor_slices(images).batch(32)
    >>> check_data(dataset, image_shape=(28, 28, 1))
    """
    condition = (num_classes, condition_dim, allow_unlabelled)
    conditional = num_classes is not None or condition_dim is not None
    is_dataset = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset))
    if is_dataset:
        if y is not None:
            raise ValueError(
                f"`y` must be `None` beside a dataset, got {_show(y)}. "
                f"`{argument}` must yield `(x, y)` itself: "
                "`tf.data.Dataset.zip((images, labels)).batch(n)`."
            )
        if isinstance(x, tf.data.Dataset):
            _check_element_spec(x, image_shape, condition, argument)
        name = f"The first batch of `{argument}`"
        labels_name = f"The labels in the first batch of `{argument}`"
        images, labels = _split_element(_first_batch(x, argument), argument)
    else:
        name = f"`{argument}`"
        labels_name = "`y`" if argument == "x" else f"The labels of {name}"
        images, labels = x, y
        if conditional and y is not None and not hasattr(y, "__array__"):
            raise ValueError(
                f"{labels_name} must be an array, got {_show(y)}. Convert it "
                "with `np.asarray(y)`, or pass one dataset of `(x, y)`."
            )

    images = _to_image_array(images, name, verb=False)
    _check_image_spec(images.shape, images.dtype, image_shape, name)
    num_images = images.shape[0]
    if conditional:
        _check_labels(labels, num_images, labels_name, *condition)
    elif not is_dataset:
        num_labels = tuple(getattr(labels, "shape", ()))[:1]
        if num_labels not in ((), (num_images,)):
            raise ValueError(
                f"{labels_name} must hold one label per image, got "
                f"{num_labels[0]} for {num_images} images. Pass as many "
                "labels as images, or leave them out."
            )
    image_bytes = math.prod(image_shape) * tf.as_dtype(images.dtype).size
    num_read = max(1, _MAX_BYTES_READ // image_bytes)
    values = np.asarray(images[:num_read])
    _check_image_values(values, name)
    for warning in _doubts(values, name, is_dataset):
        # Up to the user: `fit`, the base class's own check, this function.
        warnings.warn(warning, stacklevel=4)


# Images: kind, then shape and dtype, then values.


def check_latents(z, latent_dim, one_batch=True):
    """Checks the latents or codes that a verb is given.

    Of a symbolic tensor only the shape is checked.

    Args:
        z: The value to check: finite numbers `(batch, latent_dim)`.
        latent_dim: Integer, the width of the last axis.
        one_batch: Whether `z` is one batch; otherwise any axes may come before
            the last one.

    Returns:
        `z` as a float32 tensor.

    Raises:
        ValueError: If it is anything else.

    Example:

    >>> check_latents(np.zeros((8, 64)), 64)  # float32 (8, 64)
    """
    shape = f"({'batch' if one_batch else '...'}, {latent_dim})"
    message = f"`z` must be latents, finite numbers of shape {shape}, got "
    try:
        z = tf.cast(tf.convert_to_tensor(z), "float32")
    except (TypeError, ValueError, tf.errors.OpError):
        raise ValueError(
            f"{message}{_show(z)}. Pass what `encode` gives, or a float array."
        ) from None
    if z.shape.rank is not None and (
        (z.shape.rank != 2 if one_batch else z.shape.rank < 1)
        or z.shape[-1] not in (None, latent_dim)
    ):
        raise ValueError(
            f"{message}shape {_show_shape(z.shape)}. Pass latents of this model."
        )
    if not tf.is_symbolic_tensor(z):
        values = z.numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"{message}{_count_not_finite(values)}. Look for the step that "
                "made them."
            )
    return z


def mask_from(mask, x):
    """The checked `mask` of `impute`, a bool tensor of the shape of `x`."""
    if not tf.is_symbolic_tensor(mask):
        mask = np.asarray(mask)
        if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "`mask` must be boolean, True where a pixel is observed, got "
                f"other values of dtype {mask.dtype}. Pass for example "
                "`mask > 0.5`."
            )
        try:
            np.broadcast_to(mask, x.shape)
        except ValueError:
            raise ValueError(
                f"`mask` must have the shape of `x`, {tuple(x.shape)}, or one "
                f"that broadcasts to it, got {mask.shape}."
            ) from None
    return tf.broadcast_to(tf.cast(mask, "bool"), tf.shape(x))


def observed(x, mask):
    """`x` with 0 where `mask` is not True, for there it may hold NaN.

    What has no such mask stays as it is, for the checks of `x` and of `mask`
    that follow to say why.
    """
    try:
        known = np.broadcast_to(np.asarray(mask, bool), np.shape(x))
    except (TypeError, ValueError):
        return x
    return np.where(known, x, np.zeros((), np.asarray(x).dtype))


def _to_image_array(x, name, verb=True):
    """Returns `x` as a NumPy array or tensor, or says what to pass instead."""
    expected = "a NumPy array or a `tf.Tensor`"
    if not verb:
        expected += ", or a `tf.data.Dataset` or `keras.utils.PyDataset`"
    prefix = f"{name} must be images: {expected}."
    if x is None:
        raise ValueError(f"{prefix} Got `None`. Pass the images.")
    if isinstance(x, (str, bytes, os.PathLike)):
        raise ValueError(
            f"{prefix} Got the path or name {_show(x)}. "
            "Load it: use `keras_gen.datasets.load(path)`."
        )
    if isinstance(x, Mapping):
        key = _short_repr(next(iter(x), "image"))
        raise ValueError(
            f"{prefix} Got a dictionary with the keys {_short_repr(list(x))}. "
            f"Take the images out of it: `x[{key}]`, or in a dataset "
            f"`.map(lambda x: x[{key}])`."
        )
    if isinstance(x, tuple):
        raise ValueError(
            f"{prefix} Got a tuple of {len(x)} items. Pass images and labels "
            "as two arguments: `x, y`, not `(x, y)`."
        )
    if isinstance(x, list):
        raise ValueError(f"{prefix} Got a list. {_about_items(x)}")
    if isinstance(x, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(
            f"{prefix} Got a {type(x).__name__}. Resize all images to one "
            "size, then stack them into a dense tensor."
        )
    if not isinstance(x, (np.ndarray, tf.Tensor, tf.Variable)):
        x = _read_foreign_array(x, prefix, verb)
    if x.dtype == object:
        items = _about_items(x.ravel())
        raise ValueError(f"{prefix} Got an array of dtype object. {items}")
    return x


def _read_foreign_array(x, prefix, verb):
    """Returns what NumPy makes of another library's array."""
    if isinstance(x, Iterable) and not hasattr(x, "__array__"):
        remedy = "Wrap it: `tf.data.Dataset.from_generator(...).batch(n)`."
        if verb:
            remedy = "Pass one batch: `next(iter(x))`."
        raise ValueError(f"{prefix} Got {_show(x)}. {remedy}")
    if not all(hasattr(x, name) for name in ("__array__", "shape", "dtype")):
        raise ValueError(
            f"{prefix} Got {_show(x)}. Convert it with `np.asarray(x)`."
        )
    try:
        return np.asarray(x)
    except Exception as error:  # whatever a foreign array may raise
        raise ValueError(
            f"{prefix} Got {_show(x)}, which NumPy cannot read: "
            f"{_clip(str(error))}. Pass a NumPy array."
        ) from error


def _about_items(items):
    """Says what a list or an object array holds, and the way to one array."""
    if not len(items):
        return "It holds no images. Pass at least one image."
    first = items[0]
    if isinstance(first, (str, bytes, os.PathLike)):
        return (
            f"It holds paths, the first {_short_repr(first)}. Put the files "
            "in one directory and use `keras_gen.datasets.load(directory)`."
        )
    shape = _shape_of(first)
    if shape is None:
        return (
            f"Its first item is {_show(first)}. Make one array of it: "
            '`np.asarray(x, dtype="float32")`.'
        )
    for index, item in enumerate(items):
        other = _shape_of(item)
        if other != shape:
            return (
                f"Items 0 and {index} differ in shape: {_show_shape(shape)} "
                f"and {_show_shape(other)}. Resize all images to one shape, "
                "then stack them: `np.stack(x)`."
            )
    stack = "np.concatenate" if len(shape) == 4 else "np.stack"
    return (
        f"It holds {len(items)} arrays of shape {_show_shape(shape)}. "
        f"Make one array of them: `{stack}(list(x))`."
    )


def _check_image_spec(shape, dtype, image_shape, name, unbatched_remedy=None):
    """Checks what is known without looking at values.

    Args:
        shape: Shape of the images; `None` stands for sizes not yet known.
        dtype: NumPy or TensorFlow dtype of the images.
        image_shape: `(height, width, channels)`.
        name: String, what the message begins with.
        unbatched_remedy: String, the remedy for images without a batch axis.
            Defaults to the one for arrays.
    """
    shape = tf.TensorShape(shape)
    if 0 in (shape if shape.rank is not None else ()):
        raise ValueError(
            f"{name} holds no images: its shape is {_show_shape(shape)}. "
            "Pass at least one image."
        )
    if not shape.is_compatible_with((None, *image_shape)):
        expected = ", ".join(str(size) for size in image_shape)
        remedy = _shape_remedy(
            shape, image_shape, unbatched_remedy or "`x[None]`"
        )
        raise ValueError(
            f"{name} must have the shape (batch, {expected}), got "
            f"{_show_shape(shape)}. {remedy}"
        )
    if not _is_integer(dtype) and not _is_float(dtype):
        raise ValueError(
            f"{name} must be uint8 in [0, 255] or float in [0, 1], got the "
            f"dtype {_dtype_name(dtype)}. {_dtype_remedy(dtype)}"
        )


def _shape_remedy(shape, image_shape, unbatched_remedy):
    height, width, channels = image_shape
    grey = channels == 1
    # Exact matches first: a shape may look like more than one mistake.
    if shape.is_compatible_with(image_shape):
        return f"The batch axis is missing: {unbatched_remedy}."
    if grey and shape.is_compatible_with((None, height, width)):
        return "The channel axis is missing: `x[..., None]`."
    if grey and shape.is_compatible_with((height, width)):
        return "Batch and channel axis are missing: `x[None, ..., None]`."
    if shape.is_compatible_with((None, height * width * channels)):
        sizes = f"{height}, {width}, {channels}"
        return f"The images are flattened: `x.reshape(-1, {sizes})`."
    if shape.is_compatible_with((None, None, *image_shape)):
        return (
            "There are two batch axes: batch a dataset once, or use "
            "`x.reshape(-1, *x.shape[2:])`."
        )
    if shape.rank == 3 and shape[2] in (1, 2, 3, 4):
        return (
            "If this is one image, the batch axis is missing: "
            f"{unbatched_remedy}."
        )
    if shape.rank != 4:
        return "Images have four axes: batch, height, width and channels."
    if shape.is_compatible_with((None, channels, height, width)) or (
        shape[1] in (1, 2, 3, 4) and shape[3] not in (1, 2, 3, 4)
    ):
        return "It looks channels-first: `np.moveaxis(x, 1, -1)`."
    if shape[3] not in (None, channels):
        convert = {
            (3, 1): "`tf.image.rgb_to_grayscale(x)`",
            (1, 3): "`tf.image.grayscale_to_rgb(x)`",
            (4, 3): "`x[..., :3]`",
        }.get((shape[3], channels), "Convert the images")
        return (
            f"It has {shape[3]} channels, not {channels}: {convert}, or build "
            f"the model with {shape[3]} channels."
        )
    return (
        f"Resize the images: `tf.image.resize(x, ({height}, {width}))`, or "
        f"build the model with `image_shape={_show_shape(shape[1:])}`."
    )


def _dtype_remedy(dtype):
    name = _dtype_name(dtype)
    if name == "bool":
        return 'Convert it: `x.astype("float32")`.'
    if name.startswith("complex"):
        return "Take its magnitude, `np.abs(x)`, scaled to [0, 1]."
    if name == "string":
        return "Decode files into pixels: `keras_gen.datasets.load(directory)`."
    return 'Convert it: `x.astype("float32")`, in [0, 1].'


def _check_image_values(values, name):
    """Checks that the pixels are finite and within the range of their dtype."""
    if values.dtype == np.uint8:
        return
    integer = _is_integer(values.dtype)
    if not integer and values.dtype.itemsize < 4:
        values = values.astype("float32")  # NumPy is slow on half precision
    # The extremes show NaN and infinities too, with no copy of the array.
    with np.errstate(invalid="ignore"):
        low, high = values.min().item(), values.max().item()
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(
            f"{name} must be finite, got {_count_not_finite(values)}. Drop "
            "the damaged images: "
            "`x[np.isfinite(x).all(axis=(1, 2, 3))]`."
        )
    white = 255 if integer else 1
    if low < 0 or high > white:
        remedy = _integer_remedy if integer else _float_remedy
        kind = "integers" if integer else "floats"
        raise ValueError(
            f"{name} must be uint8 in [0, 255] or float in [0, 1], got "
            f"{kind} in [{low:.8g}, {high:.8g}]. {remedy(low, high)}"
        )


def _float_remedy(low, high):
    if -0.1 <= low and high <= 1.1:
        return "Resizing overshoots a little: `np.clip(x, 0, 1)`."
    if -0.5 <= low and high <= 0.5:
        return "Shift [-0.5, 0.5] to [0, 1]: `x + 0.5`."
    if -1 <= low and high <= 1:
        return "Map [-1, 1] to [0, 1]: `(x + 1) / 2`."
    if 0 <= low and high <= 255:
        return "Divide by 255: `x / 255`."
    if 0 <= low:
        return _wide_remedy(high)
    return (
        "If it was standardized, undo that (`x * std + mean`); scale to [0, 1]."
    )


def _integer_remedy(low, high):
    if 0 <= low:
        return _wide_remedy(high)
    if -128 <= low and high <= 127:
        return 'Add 128 to signed bytes: `x.astype("int32") + 128`.'
    return 'Scale it to [0, 1] as floats: `x.astype("float32")`.'


def _wide_remedy(high):
    if high <= 65535:
        return (
            'Divide by the format\'s largest value: `x.astype("float32") / '
            "65535` if it has 16 bits, `/ 4095` if 12."
        )
    return "Divide by the largest value of the format: scale it to [0, 1]."


def _doubts(values, name, is_dataset):
    """Yields what is allowed but hardly meant."""
    if len(values) == 1:
        if not is_dataset:  # batches of one image are nothing unusual
            yield (
                f"{name} holds only one image: a model can only memorize it. "
                "Pass more images."
            )
    elif all(np.array_equal(values[0], image) for image in values[1:]):
        yield (
            f"{name} has zero variance: all its {len(values)} images are the "
            "same. Check how the images are read."
        )
    high = float(values.max())
    if _is_integer(values.dtype) and high == 1:
        yield (
            f"{name} holds integers in [0, 1], which are nearly black of "
            '[0, 255]. If 1 means white, use `x.astype("float32")`.'
        )
    elif not _is_integer(values.dtype) and 0 < high < 1.5 / 255:
        yield (
            f"{name} is nearly black: its largest value is {high:.4g} of 1. "
            "If it was divided by 255 twice, divide once."
        )


# Labels: shape and dtype, then values.


def _check_labels(
    y, num_images, name, num_classes, condition_dim, allow_unlabelled
):
    if num_classes is None and condition_dim is None:
        if y is None:
            return None
        raise ValueError(
            f"{name} must be `None` for a model without a condition, got "
            f"{_show(y)}. Leave it out, or build the model with "
            "`num_classes` or `condition_dim`."
        )
    if y is None:
        expected = _expected_labels(num_classes, condition_dim)
        unlabelled = " Use -1 for no label." if allow_unlabelled else ""
        raise ValueError(
            f"{name} must be given, as the model is conditional, got `None`. "
            f"Expected {expected}. Pass labels, or a dataset of "
            f"`(x, y)`.{unlabelled}"
        )
    if not isinstance(y, (tf.Tensor, tf.Variable)):
        try:
            y = np.asarray(y)
        except Exception as error:  # whatever a foreign array may raise
            raise ValueError(
                f"{name} must be an array, got {_show(y)}, which NumPy cannot "
                f"read: {_clip(str(error))}. Pass `np.asarray(y)`."
            ) from error
    _check_label_spec(
        y.shape, y.dtype, num_images, name, num_classes, condition_dim
    )
    dtype = "int32" if condition_dim is None else "float32"
    if tf.is_symbolic_tensor(y):
        return tf.cast(y, dtype)
    values = np.asarray(y)
    if condition_dim is None:
        _check_class_ids(values, name, num_classes, allow_unlabelled)
        return _to_tensor(y, dtype)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused
        values = values.astype("float32")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite, got {_count_not_finite(values)}. Replace "
            "or drop the damaged vectors."
        )
    return _to_tensor(values, dtype)


def _check_label_spec(
    shape, dtype, num_images, name, num_classes, condition_dim
):
    """Checks what is known of labels without looking at values."""
    shape = tf.TensorShape(shape)
    tail = () if condition_dim is None else (condition_dim,)
    expected = _expected_labels(num_classes, condition_dim)
    if not shape.is_compatible_with((None, *tail)):
        raise ValueError(
            f"{name} must be {expected}, got the shape {_show_shape(shape)}. "
            f"{_label_shape_remedy(shape, num_images, condition_dim)}"
        )
    if shape.rank is not None and None not in (num_images, shape[0]):
        if shape[0] != num_images:
            raise ValueError(
                f"{name} must be {expected}, one per image, got {shape[0]} "
                f"for {num_images} images. Pass as many labels as images."
            )
    if _is_integer(dtype) or (condition_dim is not None and _is_float(dtype)):
        return
    if condition_dim is not None or _is_float(dtype):
        remedy = "float32" if condition_dim is not None else "int32"
        remedy = f'Convert it: `y.astype("{remedy}")`.'
    elif _dtype_name(dtype) == "bool":
        remedy = 'Convert it: `y.astype("int32")`.'
    else:
        remedy = "Number the classes: `np.unique(y, return_inverse=True)[1]`."
    raise ValueError(
        f"{name} must be {expected}, got the dtype {_dtype_name(dtype)}. "
        f"{remedy}"
    )


def _expected_labels(num_classes, condition_dim):
    if condition_dim is not None:
        return f"float vectors (batch, {condition_dim})"
    return f"integer class ids (batch,) in [0, {num_classes - 1}]"


def _label_shape_remedy(shape, num_images, condition_dim):
    if shape.rank == 0:
        size = num_images or "batch_size"
        if condition_dim is None:
            return f"Repeat it for each image: `np.full({size}, y)`."
        return "Pass one vector for each image."
    if condition_dim is not None:
        if shape.is_compatible_with((condition_dim,)):
            return "Repeat it for each image: `np.tile(y, (num_images, 1))`."
        if shape.rank == 1 and condition_dim == 1:
            return "Add an axis: `y[:, None]`."
        if shape.rank == 1:
            return "If these are class ids: `keras.utils.to_categorical(y)`."
        return "Build the model with the `condition_dim` of these vectors."
    if shape.rank == 2 and shape[1] == 1:
        return "Squeeze the last axis: `np.squeeze(y, -1)`."
    if shape.rank == 2:
        return "If they are one-hot, take `np.argmax(y, axis=-1)`."
    return "Pass one integer per image."


def _check_class_ids(labels, name, num_classes, allow_unlabelled):
    if not len(labels):
        return
    low, high = labels.min().item(), labels.max().item()
    lowest = -1 if allow_unlabelled else 0
    if lowest <= low and high < num_classes:
        return
    if low == 1 and high == num_classes:
        remedy = "Count classes from 0: `y - 1`."
    elif high >= num_classes:
        remedy = (
            "Build the model with a larger `num_classes`, or drop these labels."
        )
    elif low == -1:
        remedy = (
            "Only semi-supervised models take -1 for no label: drop these "
            "images."
        )
    else:
        remedy = "Drop these images or mend their labels."
    raise ValueError(
        f"{name} must be integer class ids in [{lowest}, {num_classes - 1}] "
        f"(`num_classes` is {num_classes}), got labels from {low} to {high}. "
        f"{remedy}"
    )


# Datasets.


def _check_element_spec(dataset, image_shape, condition, argument):
    """Checks a `tf.data.Dataset` as far as possible with no batch pulled."""
    num_classes, condition_dim, _ = condition
    name = f"The batches of `{argument}`"
    images, labels = _split_element(dataset.element_spec, argument)
    if isinstance(images, Mapping):
        _to_image_array(images, name, verb=False)
    if not isinstance(images, tf.TensorSpec):
        raise ValueError(
            f"{name} must be dense tensors, got {_show(images)}. Resize the "
            "images to one size before `.batch(n)`, and yield `x` or `(x, y)`."
        )
    _check_image_spec(
        images.shape,
        images.dtype,
        image_shape,
        name,
        unbatched_remedy="call `.batch(n)` on the dataset",
    )
    if num_classes is None and condition_dim is None:
        return
    if isinstance(labels, tf.TensorSpec):
        _check_label_spec(
            labels.shape,
            labels.dtype,
            images.shape[0] if images.shape.rank else None,
            f"The labels in the batches of `{argument}`",
            num_classes,
            condition_dim,
        )
    elif labels is not None:
        raise ValueError(
            f"The labels in the batches of `{argument}` must be one dense "
            f"tensor, got {_show(labels)}. Yield `(x, y)`, for example "
            "`.map(lambda x, y: (x, y['label']))`."
        )


def _split_element(element, argument):
    """Returns the images and the labels (or `None`) of a dataset's element."""
    if isinstance(element, list):
        element = tuple(element)
    if not isinstance(element, tuple):
        return element, None
    parts = list(element)
    while parts and (
        parts[-1] is None or isinstance(parts[-1], tf.NoneTensorSpec)
    ):
        parts.pop()
    if len(parts) == 3:
        raise ValueError(
            f"`{argument}` must yield `x` or `(x, y)`, got "
            "`(x, y, sample_weight)`: sample weights are not used by "
            "generative models. Drop them: `.map(lambda x, y, w: (x, y))`."
        )
    if len(parts) not in (1, 2):
        raise ValueError(
            f"`{argument}` must yield `x` or `(x, y)`, got a tuple of "
            f"{len(element)} items. Yield the images, and the labels if the "
            "model is conditional."
        )
    return parts[0], parts[1] if len(parts) == 2 else None


def _first_batch(dataset, argument):
    empty = (
        f"`{argument}` must yield at least one batch, got an empty dataset. "
    )
    if isinstance(dataset, keras.utils.PyDataset):
        if dataset.num_batches == 0:
            raise ValueError(
                f"{empty}Its length is 0: check its files and its batch size."
            )
        return dataset[0]
    try:
        for batch in dataset.take(1):
            return batch
    except tf.errors.InvalidArgumentError as error:
        reason = _clip(error.message.split("}} ")[-1], 200)
        raise ValueError(
            f"The first batch of `{argument}` must be readable, got the error "
            f"{reason}. If the images differ in size, resize them before "
            "`.batch(n)`."
        ) from error
    raise ValueError(
        f"{empty}Check its files and filters; `drop_remainder=True` drops all "
        "if there are fewer images than one batch."
    )


# What messages are made of: all bounded, whatever comes.


def _show(value):
    """Returns the beginning of the `repr` of a value, and its type."""
    return f"{_short_repr(value)} of type {_clip(type(value).__name__, 40)}"


def _short_repr(value):
    try:
        return _clip(reprlib.repr(value))
    except Exception:  # a hostile or broken `__repr__`
        return "a value"


def _show_shape(shape):
    if shape is None:
        return "none"
    return _clip(
        str(tuple(size if size is None else int(size) for size in shape))
    )


def _shape_of(item):
    """Returns the shape of an array as a tuple, `None` for anything else."""
    shape = getattr(item, "shape", None)
    return tuple(shape) if isinstance(shape, (tuple, tf.TensorShape)) else None


def _clip(text, max_length=100):
    text = " ".join(text.split())
    if len(text) <= max_length:
        return text
    return text[: max_length - 3] + "..."


def _count_not_finite(values):
    finite = np.isfinite(values)
    num_nan = int(np.isnan(values).sum())
    num_infinite = int(finite.size - finite.sum()) - num_nan
    first = np.unravel_index(np.argmin(finite), finite.shape)
    index = tuple(int(i) for i in first)
    return (
        f"{num_nan} NaN and {num_infinite} infinite values, the first at "
        f"index {index}"
    )


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def _tf_dtype(dtype):
    """Returns the TensorFlow dtype, or `None` if there is none."""
    try:
        return tf.as_dtype(dtype)
    except TypeError:
        return None


def _is_integer(dtype):
    dtype = _tf_dtype(dtype)
    return dtype is not None and dtype.is_integer


def _is_float(dtype):
    dtype = _tf_dtype(dtype)
    return dtype is not None and dtype.is_floating


def _dtype_name(dtype):
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return "object"  # which TensorFlow takes for a string
    known = _tf_dtype(dtype)
    return _clip(str(dtype) if known is None else known.name, 60)


def _to_tensor(x, dtype):
    if isinstance(x, (tf.Tensor, tf.Variable)):
        return tf.cast(x, dtype)
    return tf.convert_to_tensor(np.asarray(x).astype(dtype, copy=False))


def check_folder(path):
    """Checks the path of a folder that is written to.

    Args:
        path: The `directory` to check, a string or a path.

    Returns:
        It as a string, with `~` as the home folder.

    Raises:
        ValueError: If it is a URL, which would become a folder of that name.
    """
    path = os.path.expanduser(os.fspath(path))
    if "://" in path:
        raise ValueError(
            "`directory` must be a folder of this machine, got the URL "
            f"{path[:200]!r}. Write to a folder, and copy that."
        )
    return path


def check_no_condition(condition, model):
    """Checks that a verb of a model without conditions is given none.

    Args:
        condition: The value to check.
        model: The model, which the message names.

    Raises:
        ValueError: If `condition` is not `None`.
    """
    if condition is not None:
        name = type(model).__name__
        raise ValueError(
            f"`condition` must be `None`: {name} is not conditional, got "
            f"{_show(condition)}. Leave it out."
        )
