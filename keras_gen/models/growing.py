"""What growth asks of optimizers, of a step and of the logs of training."""

import time

import keras
import numpy as np
import tensorflow as tf

from keras_gen.models.growth_plan import operations_per_image


def published_adam():
    """The paper's optimizer."""
    return keras.optimizers.Adam(1e-3, beta_1=0.0, beta_2=0.99, epsilon=1e-8)


def prepare(optimizer, schedule):
    """Makes an optimizer ready to start afresh whenever networks grow.

    Args:
        optimizer: A built Keras optimizer.
        schedule: The `GrowthSchedule` that it follows.

    Raises:
        ValueError: If its state does not begin at 0, or if both it and the
            schedule say how its learning rate changes.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    name = type(inner).__name__
    fresh = type(inner).from_config(inner.get_config())
    fresh.build([keras.Variable(0.0)])
    if any(np.any(np.asarray(variable)) for variable in _state_of(fresh)):
        raise ValueError(
            f"{name} has a state that does not begin at 0, to which it would "
            "be set when the networks grow. Use for example `Adam`."
        )
    is_fixed = isinstance(inner._learning_rate, keras.Variable)
    if schedule.learning_rate and not is_fixed:
        raise ValueError(
            f"`schedule` has a `learning_rate`, but that of {name} is a "
            "schedule of its own. Leave one of the two out."
        )
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        # There is nothing to reduce. TensorFlow's reduction has a gradient of
        # its own, whose registration would hold a graph for ever.
        inner._all_reduce_sum_gradients = lambda pairs: pairs


def forget(optimizer):
    """Sets moments and steps to 0; learning rate and loss scale stay."""
    for variable in _state_of(optimizer):
        variable.assign(tf.zeros(variable.shape, variable.dtype))


def _state_of(optimizer):
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = inner._learning_rate
    return [variable for variable in inner.variables if variable is not rate]


def num_parts(num_images, most, group_size):
    """In how many parts a batch is computed.

    Args:
        num_images: Integer, images of the batch.
        most: Integer, the most images of a part.
        group_size: Integer, of `MinibatchStdDev`.

    Returns:
        Integer: the smallest number of parts that are of whole groups, or if
        that is more than twice as many as are needed, as many as are needed.
    """
    needed = -(-num_images // most)
    if needed <= 1:
        return 1
    sizes = range(1, group_size + 1)
    num_groups = num_images // max(s for s in sizes if num_images % s == 0)
    for count in range(needed, 2 * needed + 1):
        if num_groups % count == 0:
            return count
    return needed


def in_parts(num_parts, compute, rows):
    """Means of what a function gives over parts of a batch, one at a time.

    Args:
        num_parts: Integer k; part i are the rows i, i + k, i + 2k, ...
        compute: Function of rows that gives a structure of tensors.
        rows: Tensors of the whole batch, `(batch, ...)`, or `None`.

    Returns:
        The structure, weighted by the sizes of the parts.
    """
    if num_parts == 1:
        return compute(*rows)
    num_images = tf.cast(tf.shape(rows[0])[0], "float32")
    total = None
    for i in range(num_parts):
        # One after another, for the memory of one part alone.
        with tf.control_dependencies(tf.nest.flatten(total or [])):
            part = [
                None if row is None else tf.identity(row[i::num_parts])
                for row in rows
            ]
        share = tf.cast(tf.shape(part[0])[0], "float32") / num_images
        values = tf.nest.map_structure(share.__mul__, compute(*part))
        if total is not None:
            values = tf.nest.map_structure(tf.add, total, values)
        total = values
    return total


class Progress(keras.callbacks.Callback):
    """Puts into the logs where training is, for the bar and the history."""

    def on_train_begin(self, logs=None):
        self._mark = None
        self._operations = operations_per_image(self.model)

    def on_train_batch_end(self, batch, logs=None):
        model, now = self.model, time.perf_counter()
        if logs is None or model.resuming:
            return
        images, resolution = model.images_seen, model.resolution
        alpha = model.alpha
        logs.update(resolution=resolution, alpha=alpha)
        stage = resolution, alpha < 1
        if self._mark is None or self._mark[0] != stage:
            self._mark = stage, now, images  # without the time to compile
            return
        _, start, first = self._mark
        rate = (images - first) / (now - start)
        left = sum(
            model.schedule.images_left_at(r, images) * self._operations[r]
            for r in model.schedule.resolutions()
        )
        logs["images_per_second"] = rate
        # If the others took as long for each operation.
        logs["hours_left"] = left / self._operations[resolution] / rate / 3600

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(resolution=self.model.resolution)
            logs.update(alpha=self.model.alpha)
