"""How much of the classes a linear classifier reads off a model's codes."""

import keras
import numpy as np
import tensorflow as tf

from keras_gen import feeding, inputs

_BATCH_SIZE = 256


def linear_probe(model, train, test, *, regularization=1.0, max_iter=1000):
    """Test accuracy of multinomial logistic regression on codes.

    The codes of `train`, standardized by their mean and standard deviation,
    are fitted by the minimum of

        sum(-log softmax(codes @ W + b)[y]) + regularization / 2 * sum(W**2)

    and the share of `test` whose most probable class is `y` is returned. The
    model itself is not trained.

    Args:
        model: A model with `encode`, or a function (a `keras.Model` is one)
            from float32 images in [0, 1] to `(batch, dim)`; outputs of more
            axes are flattened.
        train: `(x, y)`, or a `tf.data.Dataset` or `keras.utils.PyDataset`
            whose batches are `(x, y)`: images `(batch, height, width,
            channels)`, uint8 or float in [0, 1], and class ids `(batch,)`.
            Images of `y = -1`, which have no label, are left out.
        test: The same of other images.
        regularization: Positive number, weight of the penalty on W.
        max_iter: Integer, steps of the solver (L-BFGS) at most.

    Returns:
        Float in [0, 1].

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If an argument is not as above, `train` or `test` never
            ends, `train` has fewer than two classes, or the codes are not
            finite.

    Example:

    >>> train = datasets.load("digits", "train", batch_size=100, labels=True)
    >>> test = datasets.load("digits", "test", batch_size=100, labels=True)
    >>> linear_probe(vae, train, test)

    Reference:
        - [Understanding intermediate layers using linear classifier probes](
          https://arxiv.org/abs/1610.01644)
    """
    regularization = inputs.check_number(
        regularization, "regularization", minimum=0, exclusive=True
    )
    max_iter = inputs.check_positive_integer(max_iter, "max_iter")
    for argument, data in (("train", train), ("test", test)):
        if feeding.is_endless(data):
            raise ValueError(
                f"`{argument}` must end, since all of it is read, got a "
                "dataset that repeats forever. Leave out `repeat()`, or add "
                "`take(n)`."
            )
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "`linear_probe` fits its classifier with scikit-learn, which is "
            'not installed. Run `pip install "keras_gen[data]"`.'
        ) from error
    encode = getattr(model, "encode", model)
    train_codes, train_labels = _codes(encode, train, "train")
    test_codes, test_labels = _codes(encode, test, "test")
    if len(np.unique(train_labels)) < 2:
        raise ValueError(
            "`train` must hold at least two classes, got the labels "
            f"{np.unique(train_labels)}. Shuffle it, or pass more of it."
        )
    scaler = StandardScaler().fit(train_codes)
    classifier = LogisticRegression(C=1.0 / regularization, max_iter=max_iter)
    classifier.fit(scaler.transform(train_codes), train_labels)
    return classifier.score(scaler.transform(test_codes), test_labels)


def _codes(encode, data, argument):
    """Codes `(n, dim)`, float64, and labels `(n,)` of all labelled images."""
    codes, labels = [], []
    for x, y in _batches(data, argument):
        x = inputs.check_images(x, x.shape[1:], argument)
        y = np.asarray(y)
        if x.dtype.is_integer:
            x = tf.cast(x, "float32") / 255.0
        code = np.asarray(encode(x), "float64")
        labelled = y >= 0
        codes.append(code.reshape(len(code), -1)[labelled])
        labels.append(y[labelled])
    if not codes:
        raise ValueError(f"`{argument}` has no images. Pass some.")
    codes, labels = np.concatenate(codes), np.concatenate(labels)
    if not len(codes):
        raise ValueError(
            f"`{argument}` must hold labelled images, got -1 for every label."
        )
    if not np.isfinite(codes).all():
        raise ValueError(
            f"`model` must give finite codes, got {(~np.isfinite(codes)).sum()}"
            f" of {codes.size} that are not, for the images of `{argument}`. "
            "Look for the step that made its weights NaN."
        )
    return codes, labels


def _batches(data, argument):
    """Yields `(x, y)`, each in a batch."""
    if isinstance(data, tf.data.Dataset):
        items = iter(data)
    elif isinstance(data, keras.utils.PyDataset):
        items = (data[i] for i in range(len(data)))
    elif isinstance(data, tuple) and len(data) == 2:
        x, y = data
        _check_pair(x, y, argument)  # slices hide that one is longer
        starts = range(0, len(x), _BATCH_SIZE)
        items = ((x[i:][:_BATCH_SIZE], y[i:][:_BATCH_SIZE]) for i in starts)
    else:
        items = [data]
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(
                f"`{argument}` must be `(x, y)` or give batches of `(x, y)`, "
                f"got {type(item).__name__}. Load it with its labels: "
                "`datasets.load(..., batch_size=256, labels=True)`."
            )
        _check_pair(*item, argument)
        yield item


def _check_pair(x, y, argument):
    """Refuses images and labels whose shapes or dtypes do not fit."""
    shape = getattr(x, "shape", None)
    if shape is None:
        inputs.check_images(x, (), argument)  # which says what to pass instead
    shape = tuple(shape)
    if len(shape) != 4:
        raise ValueError(
            f"The images of `{argument}` must have the shape (batch, height, "
            f"width, channels), got {shape}. Call `.batch(n)` on a "
            "dataset of single images."
        )
    y = np.asarray(y)
    if y.shape == shape[:1] and np.issubdtype(y.dtype, np.integer):
        return
    remedy = "Pass a class id for each image, as `labels=True` loads them."
    if y.ndim == 2 and y.shape[1] > 1:
        remedy = "Turn one-hot labels into class ids: `tf.argmax(y, -1)`."
    elif y.ndim == 2:
        remedy = "Drop the last axis: `y[:, 0]`."
    elif y.shape == shape[:1]:
        remedy = 'If they are class ids, cast them: `y.astype("int64")`.'
    raise ValueError(
        f"The labels of `{argument}` must be integers of shape (batch,), got "
        f"{y.dtype} of shape {y.shape} for {shape[0]} images. {remedy}"
    )
