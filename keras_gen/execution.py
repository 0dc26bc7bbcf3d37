"""Many training steps as one XLA program.

A compiled step copies all weights and optimizer slots in and out of every
call. With the loop over the steps inside the program they stay there, which
makes small dense networks a quarter faster on a CPU. Convolutions inside an
XLA loop are pathologically slow there, so theirs stay outside.
"""

import itertools

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
            batches, last, last_differs = take(iterator, max_steps)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        if not last_differs:
            return run(batches)
        num_alike = len(tf.nest.flatten(batches)[0])
        others = itertools.islice(iterator, max_steps - num_alike - 1)
        follower = next(others, None)
        if follower is None:
            run(batches)
            return run(last)
        # Short batches within an epoch, as of data that repeat: to compile a
        # program for each number of steps between them would take long.
        for i in range(num_alike):
            run(_rows(batches, slice(i, i + 1)))
        run(last)
        for batch in itertools.chain([follower], others):
            logs = run(_rows(batch, tf.newaxis))
        return logs

    return function


def _rows(batches, index):
    return tf.nest.map_structure(lambda rows: rows[index], batches)


def _take(iterator, max_count):
    """Stacks up to `max_count` batches, up to the first of another size.

    Returns:
        `(batches, last, last_differs)`: the batches along a new first axis,
        without the last one if that has another number of images; the last
        one alone, with the same axis; and a bool.
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

    def size(batch):
        return tf.shape(tf.nest.flatten(batch)[0])[0]

    def next_after(i, is_alike):
        # The batch after the last one is not to be taken.
        return tf.cond(
            tf.logical_and(i < max_count, is_alike),
            iterator.get_next_as_optional,
            lambda: tf.experimental.Optional.empty(iterator.element_spec),
        )

    first = iterator.get_next()

    def body(i, batch, _, arrays):
        batch = batch.get_value()
        is_alike = tf.equal(size(batch), size(first))
        return (
            i + 1,
            next_after(i + 1, is_alike),
            is_alike,
            write(i, batch, arrays),
        )

    one, yes = tf.constant(1), tf.constant(True)
    count, _, last_is_alike, arrays = tf.while_loop(
        lambda i, batch, *_: batch.has_value(),
        body,
        [one, next_after(one, yes), yes, write(0, first, arrays)],
    )

    def stacked(start, stop):
        rows = []
        for array, spec in zip(arrays, specs, strict=True):
            rows.append(array.gather(tf.range(start, stop)))
            if spec.shape.rank is not None:
                rows[-1].set_shape((None, *spec.shape))
        return tf.nest.pack_sequence_as(iterator.element_spec, rows)

    num_alike = count - tf.cast(tf.logical_not(last_is_alike), "int32")
    batches, last = stacked(0, num_alike), stacked(count - 1, count)
    return batches, last, tf.logical_not(last_is_alike)
