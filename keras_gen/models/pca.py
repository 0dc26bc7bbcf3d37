"""Principal component analysis."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import inputs, optimization
from keras_gen.generative_model import GenerativeModel


@saving.register_keras_serializable(package="keras_gen")
class PCA(GenerativeModel):
    """Principal component analysis in closed form, of images of any number.

    Minimizes the squared error of `mean + z @ components` with
    `z = (x - mean) @ transpose(components)`. The components are the first
    eigenvectors of the covariance matrix, whose moments `fit` sums up batch
    by batch in float64. They restart with each epoch: one epoch is exact, more
    give the same, and so does another `fit`. `impute` takes the images to be
    Gaussian with covariance `W @ transpose(W) + noise_variance * I`, where
    `W = transpose(components) * sqrt(explained_variance - noise_variance)`:
    the probabilistic PCA of highest likelihood.

    Logs `loss`, the squared error of an image, and `mse`, that of a pixel;
    `reconstruct` clips to [0, 1], which only lowers them. While an epoch runs
    they are those of the epoch before, at its end those of all its images.

    The moments take `8 * D**2` bytes for the `D` numbers of an image, and the
    eigenvectors time in proportion to `D**3`: up to some thousands.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, how many components; at most `D`.
        seed: Integer or `None`, seed of `impute`.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        Their projections, float32 in [0, 1].

    Attributes:
        mean: The mean image, a weight `(D,)`.
        components: Orthonormal rows, a weight `(latent_dim, D)`, of falling
            variance. The largest entry of each is positive.
        explained_variance: Variances of the codes, a weight `(latent_dim,)`,
            with the divisor `num_images - 1`.
        noise_variance: Mean of the other `D - latent_dim` variances, a weight.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> pca = PCA((28, 28, 1), latent_dim=32)
    >>> pca.compile()
    >>> pca.fit(train)
    >>> pca.encode(images)  # (batch, 32)

    Reference:
        - [Mixtures of Probabilistic Principal Component Analysers](
          https://doi.org/10.1162/089976699300016728), appendix A
    """

    def __init__(self, image_shape, latent_dim, *, seed=None, **kwargs):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_dims = math.prod(self.image_shape)
        if self.latent_dim > self.num_dims:
            raise ValueError(
                f"`latent_dim` must be at most the {self.num_dims} numbers of "
                f"an image, got {latent_dim}. Choose a smaller one."
            )

        def weight(name, shape, initializer="zeros", dtype="float32"):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                dtype=dtype,
                trainable=False,
                autocast=False,
            )

        size, num_dims = self.latent_dim, self.num_dims
        # Until `fit`, the first pixels of unit variance.
        self.mean = weight("mean", (num_dims,))
        self.components = weight("components", (size, num_dims), "identity")
        self.explained_variance = weight("explained_variance", (size,), "ones")
        self.noise_variance = weight("noise_variance", (), "ones")
        # Of the epoch so far: how many images, their mean, and the sum of
        # (x - center)(x - center)^T, which loses no digits as that of
        # (x x^T) would.
        self.count = weight("count", (), dtype="float64")
        self.center = weight("center", (num_dims,), dtype="float64")
        self.scatter = weight("scatter", (num_dims, num_dims), dtype="float64")
        self.add_metrics("loss", "mse")
        self.built = True

    # Training

    optimizers = ()

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Not used; taken so that one model can stand for another.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        super().compile(None, **kwargs)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **kwargs,
    ):
        """Trains the model; arguments and result are those of `keras.Model`."""
        callbacks = [_Moments(), callbacks]
        return super().fit(
            x,
            y,
            batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            **kwargs,
        )

    def train_step(self, data):
        x, _ = self.unpack(data)
        x_flat = tf.cast(self._flat(x), "float64")
        added = _over_replicas(tf.cast(tf.shape(x)[0], "float64"))
        mean = _over_replicas(tf.reduce_sum(x_flat, axis=0)) / added
        shifted = x_flat - mean
        scatter = _over_replicas(tf.matmul(shifted, shifted, transpose_a=True))
        # The moments of two sets together, from those of each.
        count = self.count + added
        step = mean - self.center
        between = self.count * added / count * step[:, tf.newaxis] * step
        finite = optimization.all_finite([mean])
        for weight, value in (
            (self.scatter, self.scatter + scatter + between),
            (self.center, self.center + added / count * step),
            (self.count, count),
        ):
            weight.assign(tf.where(finite, value, weight))
        self.count_skipped(finite)
        return self.log(**self._errors(x))

    def restart(self):
        """Forgets the moments; `fit` does so before each epoch."""
        for moment in (self.count, self.center, self.scatter):
            moment.assign(tf.zeros(moment.shape, moment.dtype))

    def solve(self):
        """Computes the components from the moments; `fit` does so.

        Returns:
            Dictionary of `loss` and `mse` of the images that were summed up;
            empty, and the components as they were, if there were none.
        """
        count = float(np.asarray(self.count))
        if not count:
            return {}
        scatter = np.asarray(self.scatter)
        variances, vectors = np.linalg.eigh(scatter / max(count - 1, 1))
        variances = np.maximum(variances[::-1], 0)
        components = vectors[:, ::-1].T[: self.latent_dim]
        largest = np.argmax(np.abs(components), axis=1, keepdims=True)
        components *= np.sign(np.take_along_axis(components, largest, axis=1))
        explained, rest = np.split(variances, [self.latent_dim])
        self.mean.assign(np.asarray(self.center))
        self.components.assign(components)
        self.explained_variance.assign(explained)
        self.noise_variance.assign(np.mean(rest) if rest.size else 0.0)
        loss = float(np.sum(rest)) * (count - 1) / count
        return {"loss": loss, "mse": loss / self.num_dims}

    def test_step(self, data):
        x, _ = self.unpack(data)
        return self.log(**self._errors(x))

    def _errors(self, x):
        z = self._encode(x)
        error = tf.reduce_sum((self._flat(x) - self._project(z)) ** 2, axis=1)
        return {"loss": error, "mse": error / self.num_dims}

    def call(self, x, training=False):
        return self._decode(self._encode(self.to_float(x)))

    def _flat(self, x):
        return tf.reshape(x, (-1, self.num_dims))

    # Verbs

    def encode(self, x):
        """Coordinates along the components, `(batch, latent_dim)` float32."""
        return self.graph(self._encode, self.images_from(x))

    def _encode(self, x):
        return tf.matmul(
            self._flat(x) - self.mean, self.components, transpose_b=True
        )

    def decode(self, z):
        """`mean + z @ components`, clipped to images in [0, 1], float32.

        Args:
            z: Codes `(batch, latent_dim)`.

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(
            self._decode, inputs.check_latents(z, self.latent_dim)
        )

    def _project(self, z):
        return self.mean + tf.matmul(z, self.components)

    def _decode(self, z):
        x = tf.reshape(self._project(z), (-1, *self.image_shape))
        return tf.clip_by_value(x, 0.0, 1.0)

    def reconstruct(self, x):
        """`decode(encode(x))`, float32 images in [0, 1]."""
        return self.graph(self.call, self.images_from(x))

    def impute(self, x, mask, *, num_samples=1, seed=None):
        """Draws missing pixels from their distribution given the others.

        That is the conditional of the Gaussian of probabilistic PCA, clipped
        to [0, 1]; the mean of many draws is the best guess.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, draws per image.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`.

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x, mask = self.observed_from(x, mask)
        seed = self.verb_seed(seed)
        return self.graph(self._impute, x, mask, num_samples, seed)

    def _impute(self, x, mask, num_samples, seed):
        variance = tf.cast(self.explained_variance, "float64")
        noise = tf.cast(self.noise_variance, "float64")
        # Above zero, so that as few pixels as one tell the codes.
        noise = tf.maximum(noise, 1e-9 * tf.reduce_sum(variance) + 1e-15)
        scale = tf.sqrt(tf.maximum(variance - noise, 0.0))
        loadings = scale * tf.cast(tf.transpose(self.components), "float64")
        mean = tf.cast(self.mean, "float64")
        observed = tf.cast(self._flat(mask), "float64")
        deviation = observed * (tf.cast(self._flat(x), "float64") - mean)
        # p(z given observed pixels) has the covariance noise * inverse(M).
        eye = noise * tf.eye(self.latent_dim, dtype="float64")
        root = tf.map_fn(
            lambda pixels: tf.linalg.cholesky(
                eye
                + tf.matmul(
                    loadings, loadings * pixels[:, None], transpose_a=True
                )
            ),
            observed,
        )
        seeds = tf.random.split(seed)
        shape = tf.stack([tf.shape(root)[0], self.latent_dim, num_samples])
        draws = tf.linalg.triangular_solve(
            root, tf.sqrt(noise) * _normal(shape, seeds[0]), adjoint=True
        )
        z = draws + tf.linalg.cholesky_solve(
            root, tf.matmul(deviation, loadings)[:, :, None]
        )  # (batch, latent_dim, num_samples)
        z = tf.transpose(z, (2, 0, 1))
        drawn = mean + tf.einsum("nbz,dz->nbd", z, loadings)
        drawn += tf.sqrt(noise) * _normal(tf.shape(drawn), seeds[1])
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        drawn = tf.cast(tf.reshape(drawn, shape), "float32")
        return tf.where(mask, x, tf.clip_by_value(drawn, 0.0, 1.0))

    # Saving

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.latent_dim}


def _over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce("SUM", value)


class _Moments(keras.callbacks.Callback):
    """Restarts the moments with each epoch, and solves them at its end."""

    def on_epoch_begin(self, epoch, logs=None):
        self.errors = None
        if not self.model.resuming:
            self.model.restart()

    def on_test_begin(self, logs=None):
        # The validation of an epoch comes before its end.
        self.errors = self.model.solve()

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.errors or self.model.solve())


def _normal(shape, seed):
    draw = tf.random.stateless_normal(shape, seed, alg="philox")
    return tf.cast(draw, "float64")
