"""Many training steps as one XLA program.

A compiled step copies all weights and optimizer slots in and out of every
call. With the loop over the steps inside the program they stay there, which
makes small dense networks a quarter faster on a CPU. Convolutions inside an
XLA loop are pathologically slow there, so theirs stay outside.
"""

import tensorflow as tf

from keras_gen import optimization


def steps_in_one_program(steps, variables, result, max_steps):
    """A training function for Keras that runs up to `max_steps` steps a call.

    To look at all gradients before each update costs a tenth of the time. So a
    call first runs steps that do not look; if a variable is not finite then,
    it puts everything back, and runs those that do.

    Args:
        steps: `(hasty, careful)`, functions of one batch that update
            variables. If a gradient is not finite, the first leaves a variable
            that is not, the second changes no weight. The first may be `None`.
        variables: All that the steps change: list of variables.
        result: Function without arguments that gives the logs afterwards.
        max_steps: Integer, how many batches a call takes from the iterator.

    Returns:
        Function of a `tf.data.Iterator` that gives the logs, and raises
        `StopIteration` at its end.
    """
    hasty, careful = steps

    def loop(step, batches):
        def body(i):
            step(tf.nest.map_structure(lambda rows: rows[i], batches))
            return i + 1

        num_steps = tf.shape(tf.nest.flatten(batches)[0])[0]
        tf.while_loop(lambda i: i < num_steps, body, [0])

    # Each is compiled once for each number of steps: that of most calls, and
    # that of the last one in an epoch.
    @tf.function(jit_compile=True, autograph=False)
    def run_carefully(batches):
        loop(careful, batches)
        return result()

    @tf.function(jit_compile=True, autograph=False)
    def run_hastily(batches):
        before = [tf.identity(variable) for variable in variables]
        loop(hasty, batches)
        good = optimization.all_finite(
            [v for v in variables if v.dtype.is_floating]
        )
        values = tf.cond(
            good, lambda: [tf.identity(v) for v in variables], lambda: before
        )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return good, result()

    def run(batches):
        if hasty is not None:
            good, logs = run_hastily(batches)
            if good:
                return logs
        return run_carefully(batches)

    take = tf.function(_take, reduce_retracing=True, autograph=False)

    def function(iterator):
        try:
            batches, last, last_is_short = take(iterator, max_steps)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        if not last_is_short:
            return run(batches)
        if len(tf.nest.flatten(batches)[0]):
            run(batches)
        return run(last)

    return function


def _take(iterator, max_count):
    """Stacks up to `max_count` batches.

    Returns:
        `(batches, last, last_is_short)`: the batches along a new first axis,
        without the last one if that has fewer images; the last one alone,
        with the same axis; and a bool.
    """
    specs = tf.nest.flatten(iterator.element_spec)
    arrays = [
        tf.TensorArray(
            spec.dtype,
            size=1,
            dynamic_size=True,
            clear_after_read=False,
            infer_shape=False,
        )
        for spec in specs
    ]

    def write(i, batch, arrays):
        batch = tf.nest.flatten(batch)
        return [a.write(i, v) for a, v in zip(arrays, batch, strict=True)]

    def next_unless_full(i):
        # The batch after the last one belongs to the next call.
        return tf.cond(
            i < max_count,
            iterator.get_next_as_optional,
            lambda: tf.experimental.Optional.empty(iterator.element_spec),
        )

    first, one = iterator.get_next(), tf.constant(1)
    count, _, arrays = tf.while_loop(
        lambda i, batch, arrays: batch.has_value(),
        lambda i, batch, arrays: (
            i + 1,
            next_unless_full(i + 1),
            write(i, batch.get_value(), arrays),
        ),
        [one, next_unless_full(one), write(0, first, arrays)],
    )

    def stacked(start, stop):
        rows = []
        for array, spec in zip(arrays, specs, strict=True):
            rows.append(array.gather(tf.range(start, stop)))
            rows[-1].set_shape((None, *spec.shape))
        return tf.nest.pack_sequence_as(iterator.element_spec, rows)

    sizes = [tf.shape(arrays[0].read(i))[0] for i in (0, count - 1)]
    last_is_short = tf.not_equal(*sizes)
    num_whole = count - tf.cast(last_is_short, "int32")
    return stacked(0, num_whole), stacked(count - 1, count), last_is_short
