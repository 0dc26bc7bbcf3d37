"""Codes of which few entries differ from zero."""

import keras
import tensorflow as tf

from keras_gen import inputs


@keras.saving.register_keras_serializable(package="keras_gen")
class KSparse(keras.layers.Layer):
    """Keeps the `k` largest entries of each code, and sets the others to 0.

    With `anneal_steps`, training begins with all entries and lowers their
    number by the same amount each step down to `k`: with few from the start,
    many units would never be chosen, and so never learn. Outside of training
    the `round(alpha * k)` largest are kept, which makes better features.

    Args:
        k: Positive integer, how many entries are kept.
        alpha: Number of at least 1.
        anneal_steps: Integer, training steps until `k` is reached.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `(batch, units)`, before any activation: its largest
            entries are kept, not those largest in size.
        training: Boolean, whether to keep `k` and to count a step.

    Returns:
        Tensor `(batch, units)`. Among equal entries the first are kept, so
        that there are never more.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> KSparse(1)(np.array([[3.0, -5.0, 4.0]]))  # [[0.0, 0.0, 4.0]]

    Reference:
        - [k-Sparse Autoencoders](https://arxiv.org/abs/1312.5663)
    """

    def __init__(self, k, alpha=1.0, anneal_steps=0, **kwargs):
        super().__init__(**kwargs)
        self.k = inputs.check_positive_integer(k, "k")
        self.alpha = inputs.check_number(alpha, "alpha", minimum=1)
        self.anneal_steps = int(
            inputs.check_number(anneal_steps, "anneal_steps", minimum=0)
        )

    def build(self, input_shape):
        if self.k > input_shape[-1]:
            raise ValueError(
                f"`k` must be at most the {input_shape[-1]} entries of a "
                f"code, got {self.k}. Lower it or widen the code."
            )
        self.steps = self.add_weight(
            name="steps",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )

    def call(self, x, training=False):
        k = round(self.alpha * self.k)
        if training:
            k = self._annealed(x.shape[-1])
            self.steps.assign_add(1)
        order = tf.argsort(x, direction="DESCENDING", stable=True)
        rank = tf.argsort(order)
        return tf.where(rank < k, x, tf.zeros_like(x))

    def _annealed(self, units):
        if not self.anneal_steps:
            return self.k
        left = tf.maximum(self.anneal_steps - self.steps, 0)
        share = tf.cast(left, "float32") / self.anneal_steps
        extra = tf.round(share * (units - self.k))
        return self.k + tf.cast(extra, "int32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "k": self.k,
            "alpha": self.alpha,
            "anneal_steps": self.anneal_steps,
        }
