"""Callbacks that draw paths and maps through the latent space of a model."""

import contextlib
import statistics

import numpy as np

from keras_gen import images, inputs, latents
from keras_gen.callbacks.pictures import (
    PictureGrid,
    condition_arguments,
    first_images,
)


class LatentTraversal(PictureGrid):
    """Draws what each latent does: a row moves one of them and no other.

    A row is `decode(latents.traverse(encode(x[0]), dim, values))`. The rows
    are the latents that say most about the images, highest first, by their
    mean over `x` of

        KL(N(loc, scale), N(0, 1)) = (loc**2 + scale**2 - 1) / 2 - log(scale)

    where `loc` and `scale` are the mean and the standard deviation of
    `model.posterior(x)`, or, where a posterior has no such moments (a flow),
    by the variance of `model.encode(x)`. The codes of a model without `posterior` have units
    of their own: its latents are ordered by the variance of `model.encode(x)`,
    and `values` count the standard deviations of these codes from their mean.

    The grid after epoch 1 is `directory/traversal_0001.png`, and
    `directory/traversals.png` is the newest one.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        x: Images `(batch, height, width, channels)`, uint8 or float in
            [0, 1], or a `tf.data.Dataset` of `x` or `(x, y)`, read once and
            only here. The paths go through the first.
        num_latents: Integer, rows of the grid; there are no more than latents.
        values: Numbers that the latents are set to, one a column.
        num_images: Integer, how many of the first images of `x` the order is
            measured on.
        condition: Optional classes or vectors, one for each of these images,
            handed to `model.encode` and, that of the first, to `model.decode`.
        every: Integer, epochs from one grid to the next.
        tensorboard: Log directory or `None`. If given, each grid is also one
            `tf.summary.image` named "traversals" at the step of its epoch,
            counting from 1 as the files do.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If an argument is not as above; before training starts, if
            the model has no `encode` or no `decode`, `condition` is missing or
            not what they take, or `directory` cannot be written to.

    Example:

    >>> model.fit(train, callbacks=[LatentTraversal("run/samples", test)])

    Reference:
        - [beta-VAE](https://openreview.net/forum?id=Sy2fzU9gl)
    """

    verbs = ("encode", "decode")
    prefix = "traversal"
    tag = "traversals"

    def __init__(
        self,
        directory,
        x,
        *,
        num_latents=10,
        values=(-3, -2, -1, 0, 1, 2, 3),
        num_images=256,
        condition=None,
        every=1,
        tensorboard=None,
    ):
        super().__init__(directory, every=every, tensorboard=tensorboard)
        inputs.check_positive_integer(num_latents, "num_latents")
        inputs.check_positive_integer(num_images, "num_images")
        self.num_latents = num_latents
        self.values = latents.traverse([0.0], 0, values)[:, 0]  # checks them
        self.x = first_images(x, num_images)
        self.condition = condition_arguments(
            condition, len(self.x), "image that is encoded"
        )

    def draw(self):
        z = np.asarray(self.model.encode(self.x, **self.condition))
        loc, scale = np.zeros(z.shape[1]), np.ones(z.shape[1])
        importance = z.var(axis=0)
        if not hasattr(self.model, "posterior"):
            loc, scale = z.mean(axis=0), z.std(axis=0)
        else:
            posterior = self.model.posterior(self.x, **self.condition)
            with contextlib.suppress(NotImplementedError):
                importance = kl_per_latent(posterior)
        rows = np.argsort(-importance, kind="stable")[: self.num_latents]
        path = np.concatenate(
            [
                latents.traverse(z[0], dim, loc[dim] + scale[dim] * self.values)
                for dim in rows
            ]
        )
        return images.grid(
            self.model.decode(path, **repeated(self.condition, [0], len(path))),
            num_columns=len(self.values),
        )


class InterpolationGrid(PictureGrid):
    """Draws paths from one latent to another, a path a row.

    A row is `decode(latents.interpolate(a, b, num_steps))`. With images `x`,
    `a` and `b` are the codes of two neighbours in `x`, `encode(x[2 * i])` and
    `encode(x[2 * i + 1])`. Without, they are standard normal, the same in all
    epochs, and a model without `decode`, as a GAN, is called itself.

    The grid after epoch 1 is `directory/interpolation_0001.png`, and
    `directory/interpolations.png` is the newest one.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        x: Optional images `(batch, height, width, channels)`, uint8 or float
            in [0, 1], or a `tf.data.Dataset` of `x` or `(x, y)`, read once
            and only here.
        num_pairs: Integer, rows of the grid.
        num_steps: Integer of at least 2, columns of the grid, both ends
            included.
        method: `"spherical"` or `"linear"`, see `latents.interpolate`.
        condition: Optional classes or vectors, one for each end: 2 a row.
            A path is drawn under that of its start.
        seed: Integer, which latents to draw if there is no `x`.
        every: Integer, epochs from one grid to the next.
        tensorboard: Log directory or `None`. If given, each grid is also one
            `tf.summary.image` named "interpolations" at the step of its
            epoch, counting from 1 as the files do.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If an argument is not as above, or `x` holds too few
            images; before training starts, if there is an `x` and the model
            has no `encode` or no `decode`, `condition` is missing or not what
            the model takes, or `directory` cannot be written to.

    Example:

    >>> vae.fit(train, callbacks=[InterpolationGrid("run/samples", test)])
    >>> gan.fit(train, callbacks=[InterpolationGrid("run/samples")])
    """

    prefix = "interpolation"
    tag = "interpolations"

    def __init__(
        self,
        directory,
        x=None,
        *,
        num_pairs=8,
        num_steps=10,
        method="spherical",
        condition=None,
        seed=0,
        every=1,
        tensorboard=None,
    ):
        super().__init__(directory, every=every, tensorboard=tensorboard)
        inputs.check_positive_integer(num_pairs, "num_pairs")
        latents.interpolate([0.0], [0.0], num_steps, method)  # checks both
        self.num_pairs, self.num_steps = num_pairs, num_steps
        self.method = method
        self.seed = inputs.check_seed(seed)
        self.x = x
        if x is not None:
            self.verbs = ("encode", "decode")
            self.x = first_images(x, 2 * num_pairs)
            if len(self.x) < 2 * num_pairs:
                raise ValueError(
                    f"`x` must hold two images for each of the {num_pairs} "
                    f"pairs, got {len(self.x)}. Pass more, or a smaller "
                    "`num_pairs`."
                )
        self.condition = condition_arguments(
            condition, 2 * num_pairs, "end of a path, two a row"
        )

    def check_model(self):
        super().check_model()
        known = hasattr(self.model, "latent_dim")
        if hasattr(self.model, "prior"):
            known &= not getattr(self.model.prior, "is_discrete", False)
        elif hasattr(self.model, "encode"):
            known = False  # codes, of any scale
        if self.x is None and not known:
            raise ValueError(
                "`InterpolationGrid` needs images `x` for a model without "
                f"normal latents, got `x=None` for a "
                f"{type(self.model).__name__}. Pass test images, if the model "
                "can `encode` them, or leave the callback out."
            )

    def draw(self):
        if self.x is None:
            width = getattr(self.model, "z_dim", self.model.latent_dim)
            ends = np.random.default_rng(self.seed).standard_normal(
                (2 * self.num_pairs, width)
            )
        else:
            ends = np.asarray(self.model.encode(self.x, **self.condition))
        path = latents.interpolate(
            ends[::2], ends[1::2], self.num_steps, self.method
        )
        rows = path.swapaxes(0, 1).reshape(-1, ends.shape[1])
        starts = range(0, len(ends), 2)
        decode = getattr(self.model, "decode", self.model)
        drawn = decode(rows, **repeated(self.condition, starts, self.num_steps))
        return images.grid(drawn, num_columns=self.num_steps)


class LatentManifold(PictureGrid):
    """Draws the map of a latent space of two dimensions.

    The cell in column i and row j, from the bottom, is `decode((q_i, q_j))`
    with the quantiles `q_i = ndtri((i + 0.5) / size)` of the standard normal
    distribution: each cell stands for a part of the prior of equal
    probability.

    The grid after epoch 1 is `directory/manifold_0001.png`, and
    `directory/manifold.png` is the newest one.

    Args:
        directory: Folder of the PNG files, made if it is missing.
        size: Integer, cells in a row and in a column.
        condition: Optional class or vector that all cells are drawn under.
        every: Integer, epochs from one grid to the next.
        tensorboard: Log directory or `None`. If given, each grid is also one
            `tf.summary.image` named "manifold" at the step of its epoch,
            counting from 1 as the files do.

    Raises:
        ImportError: If `tensorboard` is asked for and not installed.
        ValueError: If a count is not a positive integer; before training
            starts, if the model has no `decode`, a `latent_dim` other than 2,
            `condition` is missing or not what `decode` takes, or `directory`
            cannot be written to.

    Example:

    >>> vae = VAE((28, 28, 1), latent_dim=2)
    >>> vae.compile()
    >>> vae.fit(train, callbacks=[LatentManifold("run/samples")])

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
    """

    verbs = ("decode",)
    prefix = "manifold"
    tag = "manifold"

    def __init__(
        self, directory, size=20, *, condition=None, every=1, tensorboard=None
    ):
        super().__init__(directory, every=every, tensorboard=tensorboard)
        self.size = inputs.check_positive_integer(size, "size")
        if condition is not None:
            condition = [condition]
        self.condition = condition_arguments(condition, 1, "grid")

    def check_model(self):
        super().check_model()
        latent_dim = getattr(self.model, "latent_dim", None)
        if latent_dim != 2:
            raise ValueError(
                "`LatentManifold` needs a model whose `latent_dim` is 2, got "
                f"{latent_dim}. Build one, or use `LatentTraversal`."
            )

    def draw(self):
        normal = statistics.NormalDist()
        quantiles = [
            normal.inv_cdf((i + 0.5) / self.size) for i in range(self.size)
        ]
        z = [(right, up) for up in reversed(quantiles) for right in quantiles]
        drawn = self.model.decode(
            np.asarray(z, "float32"), **repeated(self.condition, [0], len(z))
        )
        return images.grid(drawn, num_columns=self.size)


def kl_per_latent(posterior):
    """Mean over the images of `KL(N(loc, scale), N(0, 1))` of each latent.

    Args:
        posterior: A `tfd.Distribution` over `(batch, latent_dim)`.

    Returns:
        float array `(latent_dim,)`, nats.
    """
    loc, scale = np.asarray(posterior.mean()), np.asarray(posterior.stddev())
    kl = (loc**2 + scale**2 - 1) / 2 - np.log(scale)
    return kl.mean(axis=0)


def repeated(condition, rows, count):
    """Condition arguments in which each of `rows` is repeated `count` times."""
    return {
        name: np.repeat(values[np.asarray(rows)], count, axis=0)
        for name, values in condition.items()
    }
