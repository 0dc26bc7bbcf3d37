"""Networks that turn images into features: trained here, or on ImageNet."""

import hashlib
import json
import os
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import layers, saving

from keras_gen import datasets, feeding, files, inputs


@saving.register_keras_serializable(package="keras_gen")
class ClassifierFeatures(keras.Model):
    """The features that a classifier has learned to see: a feature extractor.

    `classifier_features` trains and returns one.

    Args:
        classifier: `keras.Sequential` of a network, whose outputs are the
            features, and a dense layer with a softmax.
        accuracy: Float in [0, 1], on images that it was not trained on.
        seed: Integer that it was trained with.
        name: Optional name. Defaults to `"classifier_features_"` and the
            first 8 digits of the `fingerprint`.

    Attributes:
        classifier: As above, images to class probabilities.
        accuracy: As above.
        seed: As above.
        num_classes: Integer.
        fingerprint: 64 hexadecimal digits, SHA-256 of network and weights.

    Call arguments:
        x: Images `(batch, *image_shape)`, float32 in [0, 1].

    Returns:
        float32 `(batch, dim)`.
    """

    def __init__(self, classifier, *, accuracy, seed, name=None):
        fingerprint = _fingerprint_of_network(classifier)
        name = name or f"classifier_features_{fingerprint[:8]}"
        super().__init__(name=name, dtype="float32")
        self.classifier = classifier
        self.accuracy = float(accuracy)
        self.seed = int(seed)
        self.built = True

    @property
    def num_classes(self):
        return self.classifier.output_shape[-1]

    @property
    def input_shape(self):
        return self.classifier.input_shape

    @property
    def fingerprint(self):
        return _fingerprint_of_network(self.classifier)

    def call(self, x, training=False):
        return self.classifier.layers[0](x, training=training)

    def get_config(self):
        return {
            "name": self.name,
            "classifier": saving.serialize_keras_object(self.classifier),
            "accuracy": self.accuracy,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        classifier = saving.deserialize_keras_object(config["classifier"])
        return cls(**{**config, "classifier": classifier})


def classifier_features(
    dataset, *, seed=0, epochs=None, test=None, cache_dir=None, verbose=0
):
    """Trains a feature extractor on labelled images: no download needed.

    A small convolutional network learns the classes; its last but one layer,
    64 numbers, are the features. They see what tells the classes apart and are
    blind to what does not, and their scale is their own: scores by different
    extractors cannot be compared, hence the name that says which one it is.

    The extractor is kept in a file, and a call with the same images, labels
    (in any order) and arguments gives it back without training. Without the
    file, training on a CPU gives the same weights again, bit by bit.

    Args:
        dataset: `tf.data.Dataset` of pairs of images, uint8 or float in
            [0, 1], and integer labels from 0, in batches or one by one. All
            images are held in memory, as uint8. Load training data
            without `batch_size`: with it, other images are left out each time,
            whenever the last batch is not full, and the data is not the same.
        seed: Integer, of the initial weights and the order of the images.
        epochs: Integer. Defaults to as many as show about 250,000 images, but
            60 at most.
        test: Optional dataset like `dataset`, to measure the accuracy on. By
            default a tenth of `dataset` is kept for that, drawn at random but
            always the same.
        cache_dir: Folder of the extractors. Defaults to `keras_gen` in the
            folder of Keras, `~/.keras`.
        verbose: 1 to see Keras's progress bar, 0 not to.

    Returns:
        A `ClassifierFeatures`, which is a `keras.Model`.

    Raises:
        ValueError: If a dataset is none of those above, or has fewer than two
            classes or 20 images.

    Warns:
        UserWarning: If the file of the extractor is damaged, and another one
            is trained; or if it cannot be written.

    Example:

    >>> train = datasets.load("fashion_mnist", labels=True)
    >>> extractor = classifier_features(train)
    >>> extractor.name, extractor.accuracy  # after a minute on two cores
    ("classifier_features_5f0c2a9e", 0.923)
    """
    seed = inputs.check_seed(seed)
    if epochs is not None:
        epochs = inputs.check_positive_integer(epochs, "epochs")
    x, y, fingerprint = _read(dataset, "dataset")
    num_classes = int(y.max()) + 1
    if num_classes < 2 or len(x) < 20:
        raise ValueError(
            "`dataset` must have two classes and 20 images at least, got "
            f"{len(x)} images and the largest label {y.max()}. Pass more "
            "labelled images, with labels from 0."
        )
    if test is None:
        num_train = len(x) - len(x) // 10
        x, x_test = x[:num_train], x[num_train:]
        y, y_test = y[:num_train], y[num_train:]
        test_fingerprint = None
    else:
        x_test, y_test, test_fingerprint = _read(test, "test")
    if x_test.shape[1:] != x.shape[1:] or y_test.max() >= num_classes:
        raise ValueError(
            f"`test` must have images {x.shape[1:]} and labels below "
            f"{num_classes} as `dataset` has, got {x_test.shape[1:]} and the "
            f"label {y_test.max()}. Load both from the same set."
        )
    epochs = epochs or min(60, max(1, round(250_000 / len(x))))

    conditions = {
        "dataset": fingerprint,
        "test": test_fingerprint,
        "seed": seed,
        "epochs": epochs,
        "architecture": _ARCHITECTURE,
    }
    key = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()
    if cache_dir is None:
        home = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
        cache_dir = os.path.join(home, "keras_gen")
    folder = os.path.join(
        os.path.expanduser(os.fspath(cache_dir)),
        f"classifier_features-{key[:16]}",
    )
    extractor = _cached(folder)
    if extractor is None:
        classifier = _build_classifier(x.shape[1:], num_classes, seed)
        accuracy = _train(
            classifier, (x, y), (x_test, y_test), seed, epochs, verbose
        )
        extractor = ClassifierFeatures(classifier, accuracy=accuracy, seed=seed)
        _keep(extractor, conditions, folder)
    return extractor


def inception_features():
    """Keras's InceptionV3, trained on ImageNet: a feature extractor.

    Images are resized to 299x299 (bicubic, antialiased), grey ones repeated to
    three channels, and mapped to [-1, 1]. Keras downloads the weights, 88 MB,
    the first time. They are other ones than those of the published FID, and
    so is the resizing: values are comparable among users of this function.

    Returns:
        A `keras.Model` named `"inception_v3_imagenet"`, float32 images
        `(batch, height, width, 1 or 3)` in [0, 1], of any size, to
        `(batch, 2048)`.

    Raises:
        ConnectionError: If the weights cannot be downloaded.

    Example:

    >>> FrechetDistance(inception_features())

    Reference:
        - [Rethinking the Inception Architecture for Computer Vision](
          https://arxiv.org/abs/1512.00567)
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # scores are those of float32
    try:
        network = keras.applications.InceptionV3(
            include_top=False, input_shape=(299, 299, 3), pooling="avg"
        )
    except Exception as error:  # `get_file` raises a plain one
        raise ConnectionError(
            "The ImageNet weights of InceptionV3 could not be downloaded: "
            f"{str(error)[:200]}. Without a network, train an extractor on "
            "your own labelled images: `metrics.classifier_features(dataset)`."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    images = keras.Input((None, None, None))
    return keras.Model(
        images,
        network(InceptionInput(dtype="float32")(images)),
        name="inception_v3_imagenet",
    )


@saving.register_keras_serializable(package="keras_gen")
class InceptionInput(layers.Layer):
    """Images of any size in [0, 1] as InceptionV3 takes them.

    Call arguments:
        x: `(batch, height, width, channels)`, 1 or 3 channels.

    Returns:
        `(batch, 299, 299, 3)` in [-1, 1].
    """

    def call(self, x):
        if x.shape[-1] == 1:
            x = tf.repeat(x, 3, axis=-1)
        if x.shape[-1] != 3:
            raise ValueError(
                "`inception_features` take images of 1 or 3 channels, got "
                f"{x.shape[-1]}. Leave out opacity: `x[..., :3]`."
            )
        x = tf.image.resize(x, (299, 299), method="bicubic", antialias=True)
        return 2.0 * tf.clip_by_value(x, 0.0, 1.0) - 1.0

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 299, 299, 3)


# The classifier: its data, network, training and file.

# Changes with the network or its training: files of another one are not it.
_ARCHITECTURE = "cnn-1"


def _read(dataset, argument):
    """All images and labels of a dataset, in an order of their own.

    Returns:
        Images, uint8; labels, int64; both sorted by their digests; and
        a digest of all. None of them depends on the order in the dataset.
    """
    image_shape = datasets.image_shape(dataset)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            f"`{argument}` must give pairs of images and labels, got elements "
            f"{str(spec)[:200]}. Load it with `datasets.load(name, "
            "labels=True)`."
        )
    if feeding.is_endless(dataset):
        raise ValueError(
            f"`{argument}` must end, since all of it is read, got a dataset "
            "that repeats forever. Leave out `repeat()`, or add `take(n)`."
        )
    if spec[0].shape.rank == 3:
        dataset = dataset.batch(1000)
    images, labels = [], []
    for x, y in dataset:
        x = inputs.check_images(x, image_shape, argument)
        if x.dtype != "uint8":
            x = tf.cast(tf.round(255.0 * x), "uint8")
        if y.shape != x.shape[:1] or not y.dtype.is_integer:
            raise ValueError(
                f"The labels of `{argument}` must be integers (batch,), got "
                f"{y.dtype.name} {tuple(y.shape)} for {len(x)} images. Turn "
                "one-hot labels into class ids with `tf.argmax(y, -1)`."
            )
        images.append(x.numpy())
        labels.append(y.numpy().astype("int64"))
    if not images:
        raise ValueError(f"`{argument}` has no images. Pass some.")
    images, labels = np.concatenate(images), np.concatenate(labels)
    if labels.min() < 0:
        raise ValueError(
            f"The labels of `{argument}` must count from 0, got "
            f"{labels.min()}. Leave out images without a label: "
            "`.unbatch().filter(lambda x, y: y >= 0)`."
        )
    digests = [
        hashlib.sha256(x.tobytes() + y.tobytes()).digest()
        for x, y in zip(images, labels, strict=True)
    ]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    everything = str(image_shape).encode() + b"".join(sorted(digests))
    return images[order], labels[order], hashlib.sha256(everything).hexdigest()


def _build_classifier(image_shape, num_classes, seed):
    """A convolutional network of 64 features, and a softmax on them."""
    # Names and seeds are given, so that nothing depends on what ran before.
    seeds = iter(np.random.SeedSequence(seed).generate_state(32))

    def weights(layer, units, *args, name, **kwargs):
        return layer(
            units,
            *args,
            kernel_initializer=keras.initializers.HeNormal(int(next(seeds))),
            dtype="float32",
            name=name,
            **kwargs,
        )

    network = [keras.Input(image_shape, name="image")]
    side, stage = min(image_shape[:2]), 0
    while side > 7:
        network += [
            weights(
                layers.Conv2D,
                min(32 * 2**stage, 128),
                3,
                padding="same",
                use_bias=False,
                name=f"conv_{stage}",
            ),
            layers.MaxPooling2D(dtype="float32", name=f"pool_{stage}"),
            layers.BatchNormalization(dtype="float32", name=f"norm_{stage}"),
            layers.ReLU(dtype="float32", name=f"relu_{stage}"),
        ]
        side, stage = side // 2, stage + 1
    network += [
        layers.Flatten(dtype="float32", name="flatten"),
        weights(layers.Dense, 64, activation="relu", name="dense"),
    ]
    return keras.Sequential(
        [
            keras.Input(image_shape, name="image"),
            keras.Sequential(network, name="features"),
            weights(
                layers.Dense, num_classes, activation="softmax", name="classes"
            ),
        ],
        name="classifier",
    )


def _train(classifier, train, test, seed, epochs, verbose):
    """Trains in place, and gives the accuracy on the test images."""
    batch_size = min(128, len(train[0]))
    num_steps = epochs * (len(train[0]) // batch_size)
    trainer = keras.Sequential(
        [
            keras.Input(classifier.input_shape[1:], dtype="uint8"),
            layers.Rescaling(1 / 255, dtype="float32"),
            classifier,
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_steps, warmup_target=2e-3, warmup_steps=num_steps // 10
    )
    trainer.compile(
        keras.optimizers.Adam(schedule),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    epoch = iter(range(epochs))
    trainer.fit(
        feeding.epochs_of(
            *train,
            # Independent of the global seed, unlike an order by Keras.
            position=lambda: (next(epoch), seed % 2**31),
            batch_size=batch_size,
            drop_remainder=True,
        ),
        epochs=epochs,
        shuffle=False,  # that is done
        verbose=verbose,
    )
    scores = trainer.evaluate(*test, verbose=0, return_dict=True)
    return scores["accuracy"]


def _fingerprint_of_network(network):
    """SHA-256 of the kinds of layers, the weights' shapes and values."""
    digest = hashlib.sha256()
    for layer in network._flatten_layers():
        digest.update(f"{type(layer).__name__} {layer.name}\n".encode())
    for weight in network.weights:
        digest.update(f"{weight.name} {tuple(weight.shape)}\n".encode())
        digest.update(np.asarray(weight, "float32").tobytes())
    return digest.hexdigest()


def _cached(folder):
    """The extractor in a folder that `_keep` wrote, `None` if there is none."""
    if not os.path.isdir(folder):
        return None
    try:
        with open(os.path.join(folder, "info.json")) as file:
            fingerprint = json.load(file)["fingerprint"]
        extractor = keras.saving.load_model(
            os.path.join(folder, "extractor.keras")
        )
        if extractor.fingerprint == fingerprint:
            return extractor
        reason = "its weights are not those that were written"
    except Exception as error:  # whatever a damaged file leads to
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    warnings.warn(
        f"The feature extractor in {folder} cannot be used ({reason}). "
        "Another one is trained and takes its place.",
        stacklevel=3,
    )
    return None


def _keep(extractor, conditions, folder):
    """Writes the extractor and what it is, all or nothing."""
    info = {
        "name": extractor.name,
        "fingerprint": extractor.fingerprint,
        "accuracy": extractor.accuracy,
        "num_classes": extractor.num_classes,
        **conditions,
    }
    try:
        with files.replacing(folder) as part:
            os.mkdir(part)
            extractor.save(os.path.join(part, "extractor.keras"))
            with open(os.path.join(part, "info.json"), "w") as file:
                json.dump(info, file, indent=2)
    except OSError as error:
        warnings.warn(
            f"The feature extractor cannot be kept in {folder} "
            f"({error}), and will be trained again. Pass a `cache_dir` that "
            "can be written to.",
            stacklevel=3,
        )
