"""Adversarial losses, in discriminator and generator pairs, and penalties.

Throughout, `d_r` and `d_f` are the discriminator's logits on real and on
generated images.
"""

import math
import numbers
import warnings

import keras
import tensorflow as tf
from keras import ops

from keras_gen import inputs


class _Serializable:
    """An object whose attributes are the arguments of its constructor."""

    def get_config(self):
        return dict(vars(self))

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _Adversarial(_Serializable):
    """A loss whose discriminator decides at the logit 0."""

    def boundary(self, real_logits, fake_logits):
        return 0.0


@keras.saving.register_keras_serializable(package="keras_gen")
class Minimax(_Adversarial):
    """Loss of the minimax game, whose value the generator lowers.

    `d_loss = mean(softplus(-d_r)) + mean(softplus(d_f))` and
    `g_loss = -mean(softplus(d_f))`. Where the discriminator is optimal,
    `-d_loss` is `2 * JS(real, generated) - 2 * log(2)`. The generator learns
    nothing from images that are surely rejected: its gradient vanishes as
    `d_f` falls; see `NonSaturating`.

    Args:
        label_smoothing: Float in [0, 1). Real images are labelled
            `1 - label_smoothing`, generated ones 0.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars, in nats.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1).

    Example:

    >>> Minimax().discriminator(ops.zeros((8, 1)), ops.zeros((8, 1)))  # 2 ln 2

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661)
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498), one-sided label smoothing
    """

    def __init__(self, label_smoothing=0.0):
        is_number = isinstance(label_smoothing, numbers.Real)
        if not is_number or not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` is what the label of real images lacks "
                f"from 1. Expected a number in [0, 1), got {label_smoothing!r}; "
                "0.1 is usual."
            )
        self.label_smoothing = label_smoothing

    def discriminator(self, real_logits, fake_logits):
        real_logits = _float32(real_logits)
        fake_logits = _float32(fake_logits)
        # Cross-entropy at the label 1 - s: (1 - s) softplus(-d) + s softplus(d)
        return (
            ops.mean(ops.softplus(-real_logits))
            + self.label_smoothing * ops.mean(real_logits)
            + ops.mean(ops.softplus(fake_logits))
        )

    def generator(self, real_logits, fake_logits):
        fake_logits = _float32(fake_logits)
        return -ops.mean(ops.softplus(fake_logits))


@keras.saving.register_keras_serializable(package="keras_gen")
class NonSaturating(Minimax):
    """The minimax discriminator against a generator that never saturates.

    `d_loss = mean(softplus(-d_r)) + mean(softplus(d_f))` and
    `g_loss = mean(softplus(-d_f))`, whose gradient is largest where images
    are surely rejected. The usual default.

    Args:
        label_smoothing: Float in [0, 1). Real images are labelled
            `1 - label_smoothing`, generated ones 0.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars, in nats.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1).

    Example:

    >>> NonSaturating(label_smoothing=0.1)

    Reference:
        - [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661)
    """

    def generator(self, real_logits, fake_logits):
        fake_logits = _float32(fake_logits)
        return ops.mean(ops.softplus(-fake_logits))


@keras.saving.register_keras_serializable(package="keras_gen")
class LeastSquares(_Adversarial):
    """Least squares on the raw outputs of the discriminator (LSGAN).

    `d_loss = mean((d_r - 1)**2) / 2 + mean(d_f**2) / 2` and
    `g_loss = mean((d_f - 1)**2) / 2`.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars.

    Example:

    >>> LeastSquares().generator(None, ops.zeros((8, 1)))  # 0.5

    Reference:
        - [Least Squares GANs](https://arxiv.org/abs/1611.04076)
    """

    def discriminator(self, real_logits, fake_logits):
        real_logits = _float32(real_logits)
        fake_logits = _float32(fake_logits)
        return (
            ops.mean(ops.square(real_logits - 1))
            + ops.mean(ops.square(fake_logits))
        ) / 2

    def generator(self, real_logits, fake_logits):
        fake_logits = _float32(fake_logits)
        return ops.mean(ops.square(fake_logits - 1)) / 2

    def boundary(self, real_logits, fake_logits):
        return 0.5


@keras.saving.register_keras_serializable(package="keras_gen")
class Wasserstein(_Adversarial):
    """Distance that a Lipschitz critic sees between the two distributions.

    `d_loss = mean(d_f) - mean(d_r)` and `g_loss = -mean(d_f)`. Over critics
    of slope at most 1, the least `d_loss` is minus the Wasserstein-1
    distance; `GradientPenalty` or `WeightClipping` keeps the slope.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars.

    Example:

    >>> Wasserstein().discriminator(ops.ones((8, 1)), ops.zeros((8, 1)))  # -1

    Reference:
        - [Wasserstein GAN](https://arxiv.org/abs/1701.07875)
    """

    def discriminator(self, real_logits, fake_logits):
        real_logits = _float32(real_logits)
        fake_logits = _float32(fake_logits)
        return ops.mean(fake_logits) - ops.mean(real_logits)

    def generator(self, real_logits, fake_logits):
        fake_logits = _float32(fake_logits)
        return -ops.mean(fake_logits)

    def boundary(self, real_logits, fake_logits):
        return _midpoint(real_logits, fake_logits)


@keras.saving.register_keras_serializable(package="keras_gen")
class Hinge(Wasserstein):
    """Hinge loss: the discriminator stops at a margin of 1.

    `d_loss = mean(relu(1 - d_r)) + mean(relu(1 + d_f))` and
    `g_loss = -mean(d_f)`. Usual with spectral normalization.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars.

    Example:

    >>> Hinge().discriminator(ops.ones((8, 1)), -ops.ones((8, 1)))  # 0

    Reference:
        - [Geometric GAN](https://arxiv.org/abs/1705.02894)
    """

    def discriminator(self, real_logits, fake_logits):
        real_logits = _float32(real_logits)
        fake_logits = _float32(fake_logits)
        return ops.mean(ops.relu(1 - real_logits)) + ops.mean(
            ops.relu(1 + fake_logits)
        )

    def boundary(self, real_logits, fake_logits):
        return 0.0


@keras.saving.register_keras_serializable(package="keras_gen")
class RelativisticAverage(_Adversarial):
    """Are real images more real than the average generated one?

    `d_loss = mean(softplus(-(d_r - mean(d_f)))) + mean(softplus(d_f -
    mean(d_r)))`; `g_loss` is the same with `d_r` and `d_f` swapped. The
    generator therefore needs a real batch too. The inner means are taken over
    the batches of all replicas, so two replicas learn what one would. The
    reference code halves both losses; this does not.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.

    Returns:
        `discriminator(real_logits, fake_logits)` and
        `generator(real_logits, fake_logits)`: float32 scalars, in nats.

    Example:

    >>> RelativisticAverage().generator(ops.ones((8, 1)), ops.zeros((8, 1)))

    Reference:
        - [The relativistic discriminator](https://arxiv.org/abs/1807.00734)
    """

    def discriminator(self, real_logits, fake_logits):
        real_logits = _float32(real_logits)
        fake_logits = _float32(fake_logits)
        return ops.mean(
            ops.softplus(_global_mean(fake_logits) - real_logits)
        ) + ops.mean(ops.softplus(fake_logits - _global_mean(real_logits)))

    def generator(self, real_logits, fake_logits):
        return self.discriminator(fake_logits, real_logits)

    def boundary(self, real_logits, fake_logits):
        return _midpoint(real_logits, fake_logits)


@keras.saving.register_keras_serializable(package="keras_gen")
class FeatureMatching(NonSaturating):
    """The minimax discriminator, whose features a generator is to match.

    `d_loss = mean(softplus(-d_r)) + mean(softplus(d_f))` and
    `g_loss = sum((mean(f_r) - mean(f_f))**2)`, where `f_r` and `f_f` are what
    the discriminator's last layer takes of real and of generated images, and
    their means are over the batches of all replicas. The generator aims at
    statistics of the data instead of at single logits.

    Args:
        label_smoothing: Float in [0, 1). Real images are labelled
            `1 - label_smoothing`, generated ones 0.

    Call arguments:
        real_logits: Float tensor `(batch, 1)`, `d_r`.
        fake_logits: Float tensor `(batch, 1)`, `d_f`.
        real_features: Float tensor `(batch, ...)`, `f_r`.
        fake_features: Float tensor `(batch, ...)`, `f_f`.

    Returns:
        `discriminator(real_logits, fake_logits)`, in nats, and
        `generator(real_features, fake_features)`: float32 scalars.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1).

    Example:

    >>> FeatureMatching().generator(ops.ones((8, 3)), ops.zeros((8, 3)))  # 3

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498)
    """

    def generator(self, real_features, fake_features):
        real_features = _global_mean(_float32(real_features), axis=0)
        fake_features = _global_mean(_float32(fake_features), axis=0)
        return ops.sum(ops.square(real_features - fake_features))


@keras.saving.register_keras_serializable(package="keras_gen")
class GradientPenalty(_Serializable):
    """Penalty on critics whose slope between the images is not `target`.

    `weight * mean((norm(x) - target)**2) / target**2`, where `norm(x)` is the
    Euclidean norm of the gradient of `discriminator` at
    `x = real + uniform * (fake - real)`. The discriminator must judge each
    image by itself: no batch normalization.

    Args:
        weight: Positive float.
        target: Positive float, slope to hold; 1 for WGAN-GP.

    Call arguments:
        discriminator: Callable, images `(batch, *image_shape)` to float32
            logits `(batch, 1)`.
        real: Images, in the discriminator's range.
        fake: Images, as many as `real`.
        uniform: Float tensor `(batch, 1, 1, 1)` in [0, 1), drawn by the
            caller so that all noise has one source.

    Returns:
        Float32 scalar, to add to the discriminator's loss.

    Raises:
        ValueError: If `weight` or `target` is not positive.

    Example:

    >>> uniform = keras.random.uniform((8, 1, 1, 1))
    >>> GradientPenalty(10.0)(discriminator, real, fake, uniform)

    Reference:
        - [Improved Training of Wasserstein GANs](
          https://arxiv.org/abs/1704.00028)
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196),
          where `target` is 750 on CIFAR-10
    """

    def __init__(self, weight=10.0, target=1.0):
        self.weight = _positive("weight", weight)
        self.target = _positive("target", target)

    def __call__(self, discriminator, real, fake, uniform):
        real, fake = _float32(real), _float32(fake)
        x = real + _float32(uniform) * (fake - real)
        # The root has no gradient at zero, which a first step may well hit.
        norm = ops.sqrt(_squared_slope(discriminator, x) + 1e-12)
        return self.weight * ops.mean(ops.square(norm / self.target - 1))


@keras.saving.register_keras_serializable(package="keras_gen")
class R1(_Serializable):
    """Penalty on the slope of the discriminator at real images.

    `weight / 2 * mean(norm(real)**2)`, where `norm` is the Euclidean norm of
    the discriminator's gradient with respect to its input.

    Args:
        weight: Positive float; 10 for large networks, 0.1 to 1 for small
            ones.

    Call arguments:
        discriminator: Callable, images `(batch, *image_shape)` to float32
            logits `(batch, 1)`.
        real: Images, in the discriminator's range.
        fake, uniform: Ignored; see `GradientPenalty`.

    Returns:
        Float32 scalar, to add to the discriminator's loss.

    Raises:
        ValueError: If `weight` is not positive.

    Example:

    >>> R1(1.0)(discriminator, real)

    Reference:
        - [Which Training Methods for GANs do actually Converge?](
          https://arxiv.org/abs/1801.04406)
    """

    def __init__(self, weight=10.0):
        self.weight = _positive("weight", weight)

    def __call__(self, discriminator, real, fake=None, uniform=None):
        squared_slope = _squared_slope(discriminator, _float32(real))
        return self.weight / 2 * ops.mean(squared_slope)


@keras.saving.register_keras_serializable(package="keras_gen")
class R2(R1):
    """Penalty on the slope of the discriminator at generated images.

    `weight / 2 * mean(norm(fake)**2)`, where `norm` is the Euclidean norm of
    the discriminator's gradient with respect to its input.

    Args:
        weight: Positive float; 10 for large networks, 0.1 to 1 for small
            ones.

    Call arguments:
        discriminator: Callable, images `(batch, *image_shape)` to float32
            logits `(batch, 1)`.
        real, uniform: Ignored; see `GradientPenalty`.
        fake: Images, in the discriminator's range.

    Returns:
        Float32 scalar, to add to the discriminator's loss.

    Raises:
        ValueError: If `weight` is not positive.

    Example:

    >>> R2(1.0)(discriminator, real, fake)

    Reference:
        - [Which Training Methods for GANs do actually Converge?](
          https://arxiv.org/abs/1801.04406)
    """

    def __call__(self, discriminator, real, fake, uniform=None):
        return super().__call__(discriminator, fake)


@keras.saving.register_keras_serializable(package="keras_gen")
class WeightClipping(_Serializable):
    """Keeps every weight of the critic in [-value, value].

    It adds 0 to the loss; the trainer calls `clip(weights)` after each update
    of the discriminator.

    Args:
        value: Positive float.

    Call arguments:
        discriminator, real, fake, uniform: Ignored; see `GradientPenalty`.

    Returns:
        0, a float32 scalar.

    Raises:
        ValueError: If `value` is not positive.

    Example:

    >>> WeightClipping(0.01).clip(discriminator.trainable_weights)

    Reference:
        - [Wasserstein GAN](https://arxiv.org/abs/1701.07875)
    """

    def __init__(self, value=0.01):
        self.value = _positive("value", value)

    def __call__(self, discriminator, real, fake=None, uniform=None):
        return ops.zeros((), "float32")

    def clip(self, weights):
        """Clips `weights`, a list of `keras.Variable`s, in place."""

        def clip_copies(strategy, variables):
            for variable in variables:
                strategy.extended.update(
                    variable,
                    lambda copy: copy.assign(
                        tf.clip_by_value(copy, -self.value, self.value)
                    ),
                )

        values = [weight.value for weight in weights]
        replica = tf.distribute.get_replica_context()
        if replica is None:
            clip_copies(tf.distribute.get_strategy(), values)
        else:  # all replicas meet, as the copies of a variable demand
            replica.merge_call(clip_copies, args=(values,))


_LOSSES = {
    "non_saturating": NonSaturating,
    "minimax": Minimax,
    "least_squares": LeastSquares,
    "wasserstein": Wasserstein,
    "hinge": Hinge,
    "relativistic": RelativisticAverage,
    "feature_matching": FeatureMatching,
}


def get(identifier, label_smoothing=0.0):
    """The adversarial loss that `identifier` stands for.

    Args:
        identifier: `"non_saturating"`, `"minimax"`, `"least_squares"`,
            `"wasserstein"`, `"hinge"`, `"relativistic"` or
            `"feature_matching"`; or an object with the methods
            `discriminator(real_logits, fake_logits)` and
            `generator(real_logits, fake_logits)`; or the configuration that
            `keras.saving.serialize_keras_object` makes of one.
        label_smoothing: Float in [0, 1), for `"non_saturating"`,
            `"minimax"` and `"feature_matching"` only.

    Returns:
        An object with these two methods. Of those here
        `RelativisticAverage.generator` looks at `real_logits`,
        `FeatureMatching.generator` takes features instead of logits, and the
        others take `None` for `real_logits`.

    Raises:
        ValueError: If `identifier` is none of these, or the loss it stands
            for has no labels to smooth.

    Example:

    >>> get("hinge").discriminator(real_logits, fake_logits)
    """
    loss = identifier
    if isinstance(identifier, str) and identifier in _LOSSES:
        loss = _LOSSES[identifier]()
    elif isinstance(identifier, dict):
        loss = keras.saving.deserialize_keras_object(identifier)
    if (
        isinstance(loss, type)
        or not callable(getattr(loss, "discriminator", None))
        or not callable(getattr(loss, "generator", None))
    ):
        raise ValueError(
            f"`loss` must be one of {', '.join(map(repr, _LOSSES))}, or an "
            "object with the methods `discriminator(real_logits, fake_logits)` "
            f"and `generator(real_logits, fake_logits)`. Got {str(identifier)[:100]!r}."
        )
    if inputs.check_number(label_smoothing, "label_smoothing", 0, 1) == 0:
        return loss
    if not isinstance(identifier, str) or not isinstance(loss, Minimax):
        raise ValueError(
            f"`label_smoothing={label_smoothing}` needs a loss with labels: "
            "'non_saturating', 'minimax' or 'feature_matching'. Got "
            f"{str(identifier)[:100]!r}; an object has its own argument "
            "`label_smoothing`, as in `losses.NonSaturating(0.1)`."
        )
    return type(loss)(label_smoothing)


# None of these looks at real images, whose logits may be missing.
_BLIND_TO_REAL = (
    Minimax.generator,
    NonSaturating.generator,
    LeastSquares.generator,
    Wasserstein.generator,
)


def generator_sees_real(loss):
    """Whether `loss.generator` looks at its first argument, of real images.

    Args:
        loss: What `get` gives.

    Returns:
        Boolean; of losses that are not of this file always `True`.
    """
    return getattr(loss.generator, "__func__", None) not in _BLIND_TO_REAL


def get_penalty(identifier):
    """The penalty that `identifier` stands for.

    Args:
        identifier: `None` for no penalty; a positive number, the weight of a
            `GradientPenalty`; a callable of `(discriminator, real, fake,
            uniform)`; or the configuration that
            `keras.saving.serialize_keras_object` makes of one.

    Returns:
        A callable, or `None`.

    Raises:
        ValueError: If `identifier` is none of these.

    Example:

    >>> get_penalty(10.0)  # GradientPenalty(10.0)
    """
    penalty = identifier
    if isinstance(identifier, numbers.Real) and not isinstance(
        identifier, bool
    ):
        penalty = GradientPenalty(_positive("gradient_penalty", identifier))
    elif isinstance(identifier, dict):
        penalty = keras.saving.deserialize_keras_object(identifier)
    if penalty is not None and (
        isinstance(penalty, type) or not callable(penalty)
    ):
        raise ValueError(
            "`gradient_penalty` must be `None`, a positive number (the weight "
            "of a WGAN-GP penalty) or an object such as `losses.R1(10.0)`. "
            f"Got {str(identifier)[:100]!r}."
        )
    return penalty


def check_penalty(penalty, discriminator):
    """Warns of a gradient penalty where logits depend on the whole batch.

    Args:
        penalty: What `get_penalty` gives.
        discriminator: The `keras.Model` that it is to act on.

    Warns:
        UserWarning: If `discriminator` has batch normalization and `penalty`
            is one of `GradientPenalty`, `R1` and `R2`.
    """
    if isinstance(penalty, GradientPenalty | R1) and any(
        isinstance(layer, keras.layers.BatchNormalization)
        for layer in discriminator._flatten_layers()
    ):
        warnings.warn(
            "`discriminator` has batch normalization, under which the gradient "
            "penalty of an image depends on the whole batch. Use "
            "`networks.dcgan_discriminator(..., batch_normalization=False)`.",
            stacklevel=3,
        )


def accuracies(loss, real_logits, fake_logits):
    """How often the discriminator is right, on real and on generated images.

    An image is taken for real if its logit is above `loss.boundary(
    real_logits, fake_logits)`: 0 for losses with labels and for `Hinge`, 0.5
    for `LeastSquares`, and where logits mean nothing but by comparison
    (`Wasserstein`, `RelativisticAverage`) half-way between the two means.

    Args:
        loss: One of the losses here, or another object, whose boundary is 0
            unless it has such a method.
        real_logits: Float tensor `(batch, 1)`.
        fake_logits: Float tensor `(batch, 1)`.

    Returns:
        Two float32 scalars in [0, 1].

    Example:

    >>> accuracies(Hinge(), ops.ones((8, 1)), ops.ones((8, 1)))  # 1 and 0
    """
    boundary = 0.0
    if hasattr(loss, "boundary"):
        boundary = loss.boundary(real_logits, fake_logits)
    return (
        ops.mean(_float32(real_logits > boundary)),
        ops.mean(_float32(fake_logits <= boundary)),
    )


def diversity(real, fake):
    """How much generated images differ, compared with real ones.

    `sqrt(variance(fake) / variance(real))`, the variance of a pixel over the
    batches of all replicas, summed over the pixels. It is the ratio of the
    root mean square distances between two images. Near 0 a generator has
    collapsed; one that is not trained yet may well be near 1.

    Args:
        real: Images `(batch, *image_shape)`.
        fake: Images `(batch, *image_shape)`, in the same range.

    Returns:
        Float32 scalar; 1 if all real images are the same, such as those of a
        batch of one, which tells nothing.
    """
    spread = []
    for images in (_float32(fake), _float32(real)):
        deviation = images - _global_mean(images, axis=0)
        spread.append(ops.sum(_global_mean(ops.square(deviation), axis=0)))
    ratio = ops.sqrt(tf.math.divide_no_nan(*spread))
    return tf.where(spread[1] == 0, 1.0, ratio)


def _float32(tensor):
    return ops.cast(tensor, "float32")


def _positive(name, value):
    if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise ValueError(
            f"`{name}` must be a positive number. Got {value!r}; to train "
            "without a penalty pass `gradient_penalty=None`."
        )
    return float(value)


def _global_mean(tensor, axis=None):
    """Mean over the batches of all replicas, whose sizes are equal."""
    mean = ops.mean(tensor, axis=axis)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        # Differentiable: each replica gets the mean of all gradients.
        mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, mean)
    return mean


def _midpoint(real_logits, fake_logits):
    real_mean = _global_mean(_float32(real_logits))
    return (real_mean + _global_mean(_float32(fake_logits))) / 2


def _squared_slope(discriminator, x):
    """`(batch,)` squared norms of the discriminator's gradients at `x`."""
    # Gradients of single pixels are too small for float16, which flushes them
    # to zero. Powers of two scale without rounding, so others lose nothing.
    scale = 1024.0
    # Weights are left to the caller's tape, which differentiates this again.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        scaled_logits = scale * discriminator(x)
    slope = tape.gradient(scaled_logits, x, unconnected_gradients="zero")
    return ops.sum(
        ops.square(slope / scale), axis=tuple(range(1, len(x.shape)))
    )
