"""What the resolutions of a progressive GAN cost, counted and measured."""

import math
import time

import numpy as np
import tensorflow as tf

from keras_gen.growth import Phase

# Forward passes that a step costs: the discriminator judges real and generated
# images (6 with their gradients) and those of the penalty, whose gradient is
# differentiated once more (6), and the generated ones of the generator's
# update (2). The generator makes images twice and learns from one (1 + 3).
D_PASSES, G_PASSES = 14, 4
# Tensors that are held for each map of the discriminator while its gradients
# are computed, measured on small networks.
TENSORS_PER_MAP = 10


def multiply_adds(network, resolution):
    """Multiplications of one image's pass through a network.

    Args:
        network: A network of `networks.progressive`.
        resolution: Integer.

    Returns:
        Integer.
    """
    total = 0
    for layer in network.layers_at(resolution):
        shape = layer.get_build_config()["input_shape"]
        size, positions = math.prod(layer.kernel.shape), math.prod(shape[1:-1])
        resample = getattr(layer, "resample", None)
        if resample:  # whose kernel is one larger
            size *= (1 + 1 / layer.kernel_size) ** 2
        if resample == "down":
            positions /= 4
        total += round(size * positions)
    return total


def operations_per_image(gan):
    """Multiplications of a step for each image: `{resolution: number}`."""
    return {
        resolution: D_PASSES * multiply_adds(gan.discriminator, resolution)
        + G_PASSES * multiply_adds(gan.generator, resolution)
        for resolution in gan.resolutions
    }


def num_parameters(network, resolution):
    """Trained numbers of a network at a resolution, as the paper counts."""
    layers = network.layers_at(resolution)
    return sum(math.prod(w.shape) for layer in layers for w in layer.weights)


def step_bytes(gan, resolution, num_images):
    """Memory that a training step takes at its most, an estimate.

    Weights, moving averages and the moments of both optimizers of all
    resolutions, the gradients of one network, and the maps of the
    discriminator.

    Args:
        gan: A `ProgressiveGAN`.
        resolution: Integer.
        num_images: Integer, images that are computed at once.

    Returns:
        Integer, bytes.
    """
    g_size, d_size = (
        sum(math.prod(weight.shape) for weight in network.weights)
        for network in (gan.generator, gan.discriminator)
    )
    state = 4 * (4 * g_size + 3 * d_size + max(g_size, d_size))
    numbers = 0
    for layer in gan.discriminator.layers_at(resolution):
        shape = layer.get_build_config()["input_shape"]
        numbers += math.prod(layer.compute_output_shape(shape)[1:])
    bytes_each = 2 if "16" in gan.compute_dtype else 4
    return state + num_images * bytes_each * TENSORS_PER_MAP * numbers


def rows_of(gan, measured_steps=0):
    """The table of `ProgressiveGAN.plan`, a list of dictionaries."""
    operations = operations_per_image(gan)
    num_replicas = gan.distribute_strategy.num_replicas_in_sync
    rows = []
    for resolution in gan.schedule.resolutions():
        height, width, _ = gan.shape_at(resolution)
        batch_size = gan.batch_size_at(resolution)
        num_parts = gan.num_parts(resolution)
        at_once = -(-batch_size // (num_replicas * num_parts))
        row = {
            "size": f"{height}x{width}",
            "generator": num_parameters(gan.generator, resolution),
            "discriminator": num_parameters(gan.discriminator, resolution),
            "batch": batch_size,
            "parts": num_parts,
            "images": gan.schedule.images_at(resolution),
            "GFLOP/image": 2e-9 * operations[resolution],
            "GB": 1e-9 * step_bytes(gan, resolution, at_once),
        }
        if measured_steps:
            seconds = seconds_per_step(gan, resolution, measured_steps)
            row["s/step"] = seconds
            row["hours"] = seconds * row["images"] / batch_size / 3600
        rows.append(row)
    return rows


def seconds_per_step(gan, resolution, num_steps):
    """Median time of training steps on noise, after one that compiles.

    The model is put back as it was.

    Args:
        gan: A compiled `ProgressiveGAN`.
        resolution: Integer.
        num_steps: Integer, how many steps are timed.

    Returns:
        Float, seconds.
    """
    changed = [*gan.variables]
    for optimizer in gan.optimizers:
        changed += optimizer.variables
    before = [np.array(variable) for variable in changed]
    phase, strategy = gan.phase, gan.distribute_strategy
    fades = resolution > gan.schedule.start_resolution
    gan.phase = Phase(resolution, fades, gan.images_seen, math.inf)

    num_images = gan.batch_size_at(resolution) // strategy.num_replicas_in_sync
    shape = (num_images, *gan.shape_at(resolution))
    data = tf.constant(np.random.default_rng(0).random(shape, "float32"))
    if gan.num_classes:
        data = data, tf.zeros(num_images, "int32")

    def step():
        logs = strategy.run(gan.train_step, args=(data,))
        return strategy.experimental_local_results(logs["loss"])[0]

    if not gan.run_eagerly:
        step = tf.function(step, jit_compile=gan.jit_compile, autograph=False)
    seconds = []
    try:
        for _ in range(1 + num_steps):
            start = time.perf_counter()
            step().numpy()
            seconds.append(time.perf_counter() - start)
    finally:  # also where the memory is too small
        for variable, value in zip(changed, before, strict=True):
            variable.assign(value)
        gan.phase = phase
    return float(np.median(seconds[1:]))


def text_table(rows):
    """Rows as lines of aligned columns.

    Args:
        rows: List of dictionaries with the same keys, numbers or text.

    Returns:
        String.
    """
    cells = [[*rows[0]], *([_text(v) for v in row.values()] for row in rows)]
    widths = np.max([[len(cell) for cell in line] for line in cells], axis=0)
    return "\n".join(
        "  ".join(
            cell.rjust(width) for cell, width in zip(line, widths, strict=True)
        )
        for line in cells
    )


def _text(value):
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
