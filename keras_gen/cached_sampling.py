"""Images drawn pixel by pixel, from cached features or by full passes.

A full pass of the network for each pixel does `height * width` times the work
that there is to do. A network that has a method `cached(num_images, condition)`
gives an object that computes each feature once, a row and a pixel at a time:

- `rows`: what is above the first row, nested tensors;
- `enter_row(i, rows)`: `(context, rows, state)`, what row i knows of the rows
  above, nested tensors whose first axis is the columns; what is left of them
  to the next row; and what is to the left of the first column;
- `enter_pixel(j, context, state)`: `(h, state)`, the features of the pixel in
  column j, given its own part of `context`;
- `maps(h, x, group)`: the numbers of a group (see `pixel_draws`), given the
  channels before it of the pixel x, `(batch, channels)`;
- `leave_pixel(state, x)`: the state, once the pixel x is known;
- `leave_row(rows, state, x)`: the rows, once all of row x is known, `(width,
  batch, channels)`.

Its tensors are float32, and their batch axis is the last but one.
"""

import functools
import os

import tensorflow as tf

# A part of the batch that is smaller gains nothing from a thread of its own.
_LEAST_IMAGES_A_PART = 8


def draw_cached(network, pixels, noise, x, known, condition=None):
    """Draws images by the cached form of a network, in an XLA program.

    The images are shared out among the cores, since the products of a single
    pixel are too small to be. The program is compiled once for each number of
    images.

    Args:
        network: A network with the method `cached`.
        pixels: A likelihood of `pixel_draws`.
        noise: Uniform in [0, 1), `(batch, height, width, noise_dim)` float32.
        x: Images with the known pixels, `(batch, height, width, channels)`
            float32.
        known: Booleans of the shape of `x`, what is not drawn.
        condition: Vectors `(batch, width)` of a conditional network.

    Returns:
        The images, float32 of the shape of `x`.
    """

    def draw(arguments):
        noise, x, known = (tf.transpose(v, (1, 2, 0, 3)) for v in arguments[:3])
        steps = network.cached(tf.shape(x)[2], *arguments[3:])
        return tf.transpose(_draw(steps, pixels, noise, x, known), (2, 0, 1, 3))

    num_images = tf.shape(x)[0]
    draw = tf.function(draw, jit_compile=True, autograph=False)
    arguments = [v for v in (noise, x, known, condition) if v is not None]

    def draw_parts(num_parts):
        # Not by `tf.map_fn`: a loop around what reads variables waits for each
        # iteration before the next one.
        parts = zip(*(_in_parts(v, num_parts) for v in arguments), strict=True)
        drawn = tf.concat([draw(part) for part in parts], axis=0)
        return tf.ensure_shape(drawn[:num_images], x.shape)

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    num_cores = 1 if on_gpu else os.cpu_count() or 1
    counts = [2**i for i in range(num_cores.bit_length())]
    least = [0] + [count * _LEAST_IMAGES_A_PART for count in counts[1:]]
    return tf.switch_case(
        tf.reduce_sum(tf.cast(num_images >= tf.constant(least), "int32")) - 1,
        [functools.partial(draw_parts, count) for count in counts],
    )


def _in_parts(x, num_parts):
    """Equal parts of a batch, which is filled up with zeros."""
    missing = -tf.shape(x)[0] % num_parts
    x = tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
    return tf.split(x, num_parts)


def _draw(steps, pixels, noise, x, known):
    height, width, _, channels = x.shape

    def draw_row(i, rows, images):
        context, rows, state = steps.enter_row(i, rows)

        def draw_pixel(j, state, row):
            own = tf.nest.map_structure(lambda columns: columns[j], context)
            h, state = steps.enter_pixel(j, own, state)

            def maps(pixel, group):
                return steps.maps(h, pixel, group)

            pixel = (x[i, j], known[i, j], noise[i, j])
            pixel = _draw_channels(pixels, maps, *pixel)
            return j + 1, steps.leave_pixel(state, pixel), row.write(j, pixel)

        row = tf.TensorArray("float32", width, element_shape=(None, channels))
        _, state, row = tf.while_loop(
            lambda j, *_: j < width,
            draw_pixel,
            (0, state, row),
            maximum_iterations=width,
        )
        row = row.stack()
        return i + 1, steps.leave_row(rows, state, row), images.write(i, row)

    shape = (width, None, channels)
    images = tf.TensorArray("float32", height, element_shape=shape)
    _, _, images = tf.while_loop(
        lambda i, *_: i < height,
        draw_row,
        (0, steps.rows, images),
        maximum_iterations=height,
    )
    return images.stack()


def draw_plainly(network, pixels, noise, x, known):
    """Draws images by a full pass for each pixel, of any network.

    Args:
        network: Function of images `(batch, height, width, channels)` that
            gives `(batch, height, width, maps)`.
        pixels: A likelihood of `pixel_draws`.
        noise: Uniform in [0, 1), `(batch, height, width, noise_dim)` float32.
        x: Images with the known pixels, float32.
        known: Booleans of the shape of `x`, what is not drawn.

    Returns:
        The images, float32 of the shape of `x`.
    """
    height, width, channels = x.shape[1:]
    num_groups = pixels.num_groups(channels)

    def draw_pixel(place, x):
        i, j = place // width, place % width
        here = tf.one_hot(place, height * width, on_value=True, off_value=False)
        here = tf.reshape(here, (height, width, 1))

        def with_pixel(pixel):
            return tf.where(here, pixel[:, tf.newaxis, tf.newaxis], x)

        def maps(pixel, group):
            h = tf.cast(network(with_pixel(pixel))[:, i, j], "float32")
            return tf.split(h, num_groups, axis=-1)[group]

        pixel = (x[:, i, j], known[:, i, j], noise[:, i, j])
        return place + 1, with_pixel(_draw_channels(pixels, maps, *pixel))

    _, x = tf.while_loop(
        lambda place, _: place < height * width,
        draw_pixel,
        (0, x),
        maximum_iterations=height * width,
    )
    return x


def _draw_channels(pixels, maps, x, known, noise):
    """The channels of a pixel, each given those before it, unless known."""
    channels = x.shape[-1]
    for c in range(channels):
        if c < pixels.num_groups(channels):
            h = maps(x, c)
        drawn = tf.where(known[:, c], x[:, c], pixels.draw(h, noise, x, c))
        x = tf.concat([x[:, :c], drawn[:, None], x[:, c + 1 :]], axis=1)
    return x
