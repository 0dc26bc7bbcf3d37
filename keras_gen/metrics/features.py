"""What the metrics have in common: images come in, features are kept."""

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs

# Images that an extractor is given at a time.
_BATCH_SIZE = 256


class FeatureMetric(keras.metrics.Metric):
    """Compares two sets of images by their features: the base of the metrics.

    A subclass says with an accumulator what is kept of the features, and
    computes `result()` from `self.real` and `self.generated`, one accumulator
    each. It has `add(features)`, the number of images in it, `count`, and
    `full`, whether it takes no more.

    Metrics run eagerly, on NumPy in float64: call `update_state` outside of
    `tf.function` and of compiled models.

    Args:
        feature_extractor: `keras.Model` from float32 images
            `(batch, height, width, channels)` in [0, 1] to `(batch, dim)`, or
            `None` for the pixels themselves, flattened.
        accumulator: Function without arguments that makes an empty
            accumulator.
        name: String, name of the score.

    Raises:
        ValueError: If `feature_extractor` is no `keras.Model`.
    """

    def __init__(self, feature_extractor, accumulator, name):
        super().__init__(dtype="float64", name=name)
        if feature_extractor is not None and not isinstance(
            feature_extractor, keras.Model
        ):
            raise ValueError(
                "`feature_extractor` must be a `keras.Model` from images in "
                "[0, 1] to (batch, dim), or `None` for the pixels, got a "
                f"{type(feature_extractor).__name__}. For example, pass "
                "`metrics.classifier_features(dataset)`."
            )
        takes = getattr(feature_extractor, "input_shape", None)
        if takes is not None and len(takes) != 4:
            raise ValueError(
                "`feature_extractor` must take images (batch, height, width, "
                f"channels), got a model of input shape {takes}. Begin it with "
                "`keras.Input(image_shape)`, then e.g. `Flatten`."
            )
        self.feature_extractor = feature_extractor
        self._network = feature_extractor  # what images go through
        self._takes = (takes or (None,) * 4)[1:]
        self._compiled = None  # (signature, function)
        self._accumulator = accumulator
        self.reset_state()

    @property
    def feature_extractor_name(self):
        """The extractor's name, or `"pixels"`."""
        if self.feature_extractor is None:
            return "pixels"
        return self.feature_extractor.name

    @property
    def score_name(self):
        """What a report calls the score: its own name and the extractor's.

        Values of different extractors have nothing to do with each other.
        """
        return f"{self.name}[{self.feature_extractor_name}]"

    def update_state(self, real=None, generated=None):
        """Adds a batch of either side, or of both.

        Args:
            real: Images `(batch, height, width, channels)`, uint8 or float in
                [0, 1], or `None` to leave the real side as it is.
            generated: The same; the two batches may differ in size.

        Raises:
            ValueError: If both are `None`, if one is no such images or of
                another shape than those before, or if the extractor cannot
                take them.
        """
        if real is None and generated is None:
            raise ValueError(
                "`real` and `generated` must not both be `None`. Pass a batch "
                "of images as one of them at least."
            )
        added = [
            (side, self.features(images, name))
            for side, images, name in (
                (self.real, real, "real"),
                (self.generated, generated, "generated"),
            )
            if images is not None and not side.full
        ]
        for side, features in added:  # all or, if one is refused, none
            side.add(features)

    def reset_state(self):
        """Forgets all images."""
        self.image_shape = None
        self.real = self._accumulator()
        self.generated = self._accumulator()

    def features(self, images, argument="images"):
        """The features of a batch of images.

        Args:
            images: Images `(batch, height, width, channels)`, uint8 or float
                in [0, 1], all batches of one shape.
            argument: String, what error messages call them.

        Returns:
            float64 array `(batch, dim)`.

        Raises:
            ValueError: As `update_state`.
        """
        images = self._check_images(images, argument)
        x = tf.cast(images, "float32")
        if images.dtype == "uint8":
            x = x / 255.0
        if self.feature_extractor is None:
            features = np.reshape(x, (len(x), -1))
        else:
            parts = range(0, len(x), _BATCH_SIZE)
            features = np.concatenate(
                [self._extract(x[i : i + _BATCH_SIZE]) for i in parts]
            )
        features = features.astype("float64")
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(
                "`feature_extractor` must give finite numbers of shape "
                f"(batch, dim), got shape {features.shape} with "
                f"{np.isnan(features).sum()} NaN for the images `{argument}`. "
                "End it with a pooling or `Flatten` layer, and look for the "
                "layer that makes the NaN."
            )
        return features

    def details(self):
        """The score with what it was measured on.

        Returns:
            Dict: `result()`, under the metric's name where it is one number;
            `"num_real"` and `"num_generated"`, the images that it is of; and
            `"feature_extractor"`, its name.

        Raises:
            ValueError: As `result`.
        """
        score = self.result()
        score = score if isinstance(score, dict) else {self.name: score}
        return {**score, **self.measured_on()}

    def measured_on(self):
        """The part of `details` that is no score."""
        return {
            "num_real": self.real.count,
            "num_generated": self.generated.count,
            "feature_extractor": self.feature_extractor_name,
        }

    def require(self, minimum, sides=("real", "generated")):
        """Raises a ValueError unless each side has `minimum` images."""
        for name in sides:
            count = getattr(self, name).count
            if count < minimum:
                raise ValueError(
                    f"`{self.name}` needs at least {minimum} {name} images, "
                    f"got {count}. Call `update_state(real, generated)` on "
                    "more batches before `result()`."
                )

    def get_config(self):
        if self.feature_extractor is not None:
            raise ValueError(
                f"`{self.name}` has no config, since one does not hold the "
                "weights of its `feature_extractor`, "
                f"{self.feature_extractor_name!r}. Save the extractor with "
                "`feature_extractor.save(path)` and make the metric anew."
            )
        return {"name": self.name}

    def _check_images(self, images, argument):
        shape = tuple(getattr(images, "shape", ()))
        if len(shape) != 4 or shape[-1] not in (1, 2, 3, 4):
            raise ValueError(
                f"`{argument}` must be images (batch, height, width, "
                "channels), an array or a tensor with 1 to 4 channels, got a "
                f"{type(images).__name__} of shape {shape}. Stack images with "
                "`np.stack`; give grey ones a channel axis, `x[..., None]`."
            )
        if tf.is_symbolic_tensor(images):
            raise ValueError(
                f"`{argument}` must be images with values, got a symbolic "
                f"tensor: `{self.name}` runs on NumPy. Call it outside of "
                "`tf.function`, and not as a metric of `compile`."
            )
        wanted = self.image_shape
        if wanted is None:
            # An extractor may leave sizes open, or not say what it takes.
            pairs = zip(self._takes, shape[1:], strict=True)
            wanted = tuple(takes or given for takes, given in pairs)
        images = inputs.check_images(images, wanted, argument)
        self.image_shape = wanted
        return images

    def _extract(self, x):
        """Calls the extractor, compiled once for each size of images."""
        signature = (tf.TensorSpec((None, *x.shape[1:]), x.dtype),)
        if self._compiled is None or self._compiled[0] != signature:
            call = tf.function(
                lambda x: self._network(x, training=False),
                input_signature=signature,
                autograph=False,
            )
            self._compiled = (signature, call)
        return self._compiled[1](x)


class Samples:
    """Accumulator of the features themselves, of the first images.

    Args:
        max_samples: Integer, images whose features are kept.
    """

    def __init__(self, max_samples):
        self._max_samples = max_samples
        self._batches = []
        self.count = 0

    @property
    def full(self):
        return self.count == self._max_samples

    def add(self, features):
        """Keeps the rows of `(batch, dim)` for which there is room."""
        features = features[: self._max_samples - self.count]
        self._batches.append(features)
        self.count += len(features)

    def features(self):
        """float64 `(count, dim)`."""
        self._batches = [np.concatenate(self._batches)]
        return self._batches[0]

    def shuffled(self, seed=0):
        """`features()` in an order that depends on their number alone.

        Blocks of consecutive rows are then random ones, even of images that
        came sorted by class.
        """
        order = np.random.default_rng(seed).permutation(self.count)
        return self.features()[order]
