"""Gaussians whose parameters the EM of `GaussianMixture` computes."""

import math

import keras
import tensorflow as tf

from keras_gen.models.mixture import normal

# Of noise uniform within one of 256 levels.
NOISE_VARIANCE = 1 / (12 * 256**2)


class _Gaussians(keras.layers.Layer):
    """What the two kinds of components share; see `Mixture`."""

    def __init__(self, num_components, num_dims, ridge):
        super().__init__()
        self.num_components, self.num_dims = num_components, num_dims
        self.ridge = ridge
        self.means = self.parameter("means", (num_dims,), 0.5)
        self.built = True

    def parameter(self, name, shape, value):
        return self.add_weight(
            name=name,
            shape=(self.num_components, *shape),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            autocast=False,
        )

    def statistic(self, name, *shape):
        return self.add_weight(
            name=name,
            shape=(self.num_components, *shape),
            initializer="zeros",
            dtype="float64",
            trainable=False,
            autocast=False,
        )

    def points(self, x, noise=0.5):
        x = (tf.round(255 * x) + noise) / 256
        return tf.reshape(x, (-1, self.num_dims))

    def images(self, points):
        return tf.clip_by_value(tf.floor(256 * points), 0, 255) / 255

    def expected_log_prob(self, x):
        """The mean of `log_prob` over the noise, of the middles of levels."""
        lost = 0.5 * NOISE_VARIANCE * self.total_precision()
        return self.log_prob(x) - lost - self.num_dims * math.log(256)


class FullGaussians(_Gaussians):
    """Gaussians of any covariance, by the triangular root of its inverse."""

    def __init__(self, num_components, num_dims, ridge):
        super().__init__(num_components, num_dims, ridge)
        self.roots = self.parameter("roots", (num_dims, num_dims), 0.0)
        eye = tf.eye(num_dims, batch_shape=[num_components])
        self.roots.assign(math.sqrt(12) * eye)  # pixels uniform in [0, 1]
        self.statistics = [
            self.statistic("counts"),
            self.statistic("first_moments", num_dims),
            self.statistic("second_moments", num_dims, num_dims),
        ]

    def total_precision(self):
        """Trace of the inverse covariances, `(num_components,)`."""
        return tf.reduce_sum(tf.square(self.roots), axis=(1, 2))

    def covariances(self):
        inverse = self._inverse_roots(tf.cast(self.roots, "float64"))
        return tf.matmul(inverse, inverse, transpose_b=True)

    def _inverse_roots(self, roots):
        eye = tf.eye(self.num_dims, dtype=roots.dtype)
        eye = tf.broadcast_to(eye, tf.shape(roots))
        return tf.linalg.triangular_solve(roots, eye)

    def log_prob(self, x):
        def of_component(parameters):
            mean, root = parameters
            whitened = tf.matmul(x - mean, root, transpose_b=True)
            return _normal_log_prob(whitened) + _log_det(root)

        log_prob = tf.map_fn(
            of_component,
            (
                tf.convert_to_tensor(self.means),
                tf.convert_to_tensor(self.roots),
            ),
            fn_output_signature=x.dtype,
        )
        return tf.transpose(log_prob)

    def start(self, means, variance, seed):
        self.means.assign(means)
        eye = tf.eye(self.num_dims, batch_shape=[self.num_components])
        self.roots.assign(eye * tf.math.rsqrt(variance + NOISE_VARIANCE))

    def sums(self, x, responsibilities):
        r = tf.cast(tf.transpose(responsibilities), "float64")
        x = tf.cast(x, "float64")

        def second_moments(r):
            # Of many dimensions, nearly every image has one component alone.
            rows = tf.where(r > 0)[:, 0]
            of_component = tf.gather(x, rows)
            weighted = tf.gather(r, rows)[:, tf.newaxis] * of_component
            return tf.matmul(weighted, of_component, transpose_a=True)

        return [
            tf.reduce_sum(r, axis=1),
            tf.matmul(r, x),
            tf.map_fn(second_moments, r),
        ]

    def maximize(self, statistics):
        counts, first, second = statistics
        means = first / counts[:, tf.newaxis]
        covariances = (
            second / counts[:, tf.newaxis, tf.newaxis]
            - means[:, :, tf.newaxis] * means[:, tf.newaxis, :]
        )
        noise = NOISE_VARIANCE + self.ridge
        covariances += noise * tf.eye(self.num_dims, dtype="float64")
        roots = self._inverse_roots(tf.linalg.cholesky(covariances))
        self.means.assign(tf.cast(means, "float32"))
        self.roots.assign(tf.cast(roots, "float32"))

    def implied(self, counts):
        means = tf.cast(self.means, "float64")
        noise = NOISE_VARIANCE + self.ridge
        second = (
            self.covariances()
            + means[:, :, tf.newaxis] * means[:, tf.newaxis, :]
            - noise * tf.eye(self.num_dims, dtype="float64")
        )
        return [
            counts,
            counts[:, tf.newaxis] * means,
            counts[:, tf.newaxis, tf.newaxis] * second,
        ]

    def draw(self, k, num_samples, seed):
        noise = normal([self.num_dims, num_samples], seed, "float32")
        deviation = tf.linalg.triangular_solve(tf.gather(self.roots, k), noise)
        return tf.gather(self.means, k) + tf.transpose(deviation)

    def given(self, k, x, observed):
        mean = tf.cast(self.means[k], "float64")
        root = tf.cast(self.roots[k], "float64")
        missing = tf.cast(tf.where(~observed), "int32")  # (num_missing, 1)
        columns = tf.gather(root, missing[:, 0], axis=1)
        # Of the precision of the missing given the observed numbers.
        inner = tf.linalg.cholesky(
            tf.matmul(columns, columns, transpose_a=True)
        )
        deviation = tf.where(observed, x - mean, 0.0)
        whitened = tf.matmul(root, deviation, transpose_b=True)
        pull = tf.linalg.triangular_solve(
            inner, tf.matmul(columns, whitened, transpose_a=True)
        )  # (num_missing, batch)
        squares = tf.reduce_sum(tf.square(whitened), axis=0)
        squares -= tf.reduce_sum(tf.square(pull), axis=0)
        num_observed = tf.reduce_sum(tf.cast(observed, "float64"))
        log_prob = (
            _log_det(root)
            - _log_det(inner)
            - 0.5 * (squares + num_observed * math.log(2 * math.pi))
        )

        def draw(num_samples, seed):
            num_images, num_missing = tf.shape(x)[0], tf.shape(missing)[0]
            shape = [num_missing, num_samples, num_images]
            noise = normal(shape, seed, "float64") - pull[:, tf.newaxis]
            drawn = tf.linalg.triangular_solve(
                inner,
                tf.reshape(noise, [num_missing, num_samples * num_images]),
                adjoint=True,
            )
            drawn = tf.scatter_nd(
                missing,
                drawn,
                tf.stack([self.num_dims, num_samples * num_images]),
            )
            shape = [self.num_dims, num_samples, num_images]
            return mean + tf.transpose(tf.reshape(drawn, shape), (1, 2, 0))

        return log_prob, draw


class DiagonalGaussians(_Gaussians):
    """Gaussians of independent pixels."""

    def __init__(self, num_components, num_dims, ridge):
        super().__init__(num_components, num_dims, ridge)
        self.variances = self.parameter("variances", (num_dims,), 1 / 12)
        self.statistics = [
            self.statistic("counts"),
            self.statistic("first_moments", num_dims),
            self.statistic("second_moments", num_dims),
        ]

    def total_precision(self):
        """Trace of the inverse covariances, `(num_components,)`."""
        return tf.reduce_sum(1 / self.variances, axis=1)

    def covariances(self):
        return tf.linalg.diag(tf.cast(self.variances, "float64"))

    def log_prob(self, x):
        def of_component(parameters):
            return tf.reduce_sum(_log_density(x, *parameters), axis=1)

        log_prob = tf.map_fn(
            of_component,
            tuple(map(tf.convert_to_tensor, (self.means, self.variances))),
            fn_output_signature=x.dtype,
        )
        return tf.transpose(log_prob)

    def start(self, means, variance, seed):
        self.means.assign(means)
        variance = tf.fill(self.variances.shape, variance + NOISE_VARIANCE)
        self.variances.assign(variance)

    def sums(self, x, responsibilities):
        r = tf.cast(responsibilities, "float64")
        x = tf.cast(x, "float64")
        return [
            tf.reduce_sum(r, axis=0),
            tf.matmul(r, x, transpose_a=True),
            tf.matmul(r, tf.square(x), transpose_a=True),
        ]

    def maximize(self, statistics):
        counts, first, second = statistics
        means = first / counts[:, tf.newaxis]
        variances = second / counts[:, tf.newaxis] - tf.square(means)
        variances = tf.maximum(variances, 0.0) + NOISE_VARIANCE + self.ridge
        self.means.assign(tf.cast(means, "float32"))
        self.variances.assign(tf.cast(variances, "float32"))

    def implied(self, counts):
        means = tf.cast(self.means, "float64")
        variances = tf.cast(self.variances, "float64")
        second = tf.square(means) + variances - NOISE_VARIANCE - self.ridge
        counts_of_pixels = counts[:, tf.newaxis]
        return [counts, counts_of_pixels * means, counts_of_pixels * second]

    def draw(self, k, num_samples, seed):
        noise = normal([num_samples, self.num_dims], seed, "float32")
        return self.means[k] + tf.sqrt(self.variances[k]) * noise

    def given(self, k, x, observed):
        mean = tf.cast(self.means[k], "float64")
        variance = tf.cast(self.variances[k], "float64")
        log_prob = _log_density(x, mean, variance)
        log_prob = tf.reduce_sum(tf.where(observed, log_prob, 0.0), axis=1)

        def draw(num_samples, seed):
            shape = [num_samples, tf.shape(x)[0], self.num_dims]
            return mean + tf.sqrt(variance) * normal(shape, seed, "float64")

        return log_prob, draw


class FactorAnalysers(_Gaussians):
    """Gaussians `mean + W @ z + noise`, of z and noise with variances 1, psi.

    `z` below is the posterior mean given x, `(batch, num_factors)`.
    """

    def __init__(self, num_components, num_dims, ridge, num_factors):
        super().__init__(num_components, num_dims, ridge)
        self.num_factors = num_factors
        self.loadings = self.parameter("loadings", (num_dims, num_factors), 0.0)
        self.variances = self.parameter("variances", (num_dims,), 1 / 12)
        # Of images and (z, 1), the latter called `factors`.
        self.statistics = [
            self.statistic("counts"),
            self.statistic("squares", num_dims),
            self.statistic("products", num_dims, num_factors + 1),
            self.statistic("factors", num_factors + 1, num_factors + 1),
        ]

    def _parameters(self, dtype):
        weights = self.means, self.loadings, self.variances
        return [tf.cast(weight, dtype) for weight in weights]

    def total_precision(self):
        """Trace of the inverse covariances, `(num_components,)`."""
        _, loadings, variances = self._parameters("float64")
        scaled = loadings / variances[:, :, tf.newaxis]
        root = tf.linalg.cholesky(_posterior_precision(loadings, scaled))
        removed = tf.linalg.triangular_solve(
            root, tf.linalg.matrix_transpose(scaled)
        )
        trace = tf.reduce_sum(1 / variances, axis=1)
        trace -= tf.reduce_sum(tf.square(removed), axis=(1, 2))
        return tf.cast(trace, "float32")

    def covariances(self):
        _, loadings, variances = self._parameters("float64")
        shared = tf.matmul(loadings, loadings, transpose_b=True)
        return shared + tf.linalg.diag(variances)

    def log_prob(self, x):
        def of_component(parameters):
            return _infer(x, *parameters)[0]

        log_prob = tf.map_fn(
            of_component,
            tuple(self._parameters(x.dtype)),
            fn_output_signature=x.dtype,
        )
        return tf.transpose(log_prob)

    def start(self, means, variance, seed):
        self.means.assign(means)
        variance += NOISE_VARIANCE
        # Any directions: from none at all, EM would never find one.
        noise = normal(self.loadings.shape, seed, "float32")
        self.loadings.assign(tf.sqrt(variance / (2 * self.num_factors)) * noise)
        self.variances.assign(tf.fill(self.variances.shape, variance / 2))

    def sums(self, x, responsibilities):
        x = tf.cast(x, "float64")
        r = tf.cast(tf.transpose(responsibilities), "float64")

        def of_component(arguments):
            r, *parameters = arguments
            _, z, scaled, root = _infer(x, *parameters)
            count = tf.reduce_sum(r)
            # How z follows the noise: `weights @ noise`.
            weights = tf.linalg.cholesky_solve(root, tf.transpose(scaled))
            variance = tf.linalg.cholesky_solve(
                root, tf.eye(self.num_factors, dtype="float64")
            )
            variance += NOISE_VARIANCE * tf.matmul(
                weights, weights, transpose_b=True
            )
            factors = tf.pad(z, [[0, 0], [0, 1]], constant_values=1.0)
            weighted = r[:, tf.newaxis] * factors
            one_more = [[0, 0], [0, 1]]
            return (
                count,
                tf.linalg.matvec(tf.square(x), r, transpose_a=True)
                + count * NOISE_VARIANCE,
                tf.matmul(x, weighted, transpose_a=True)
                + count
                * NOISE_VARIANCE
                * tf.pad(tf.transpose(weights), one_more),
                tf.matmul(factors, weighted, transpose_a=True)
                + count * tf.pad(variance, [[0, 1], [0, 1]]),
            )

        return tf.map_fn(
            of_component,
            (r, *self._parameters("float64")),
            fn_output_signature=("float64",) * 4,
        )

    def maximize(self, statistics):
        counts, squares, products, factors = statistics
        # (W, mean) by least squares, and what they leave.
        root = tf.linalg.cholesky(factors)
        joint = tf.linalg.matrix_transpose(
            tf.linalg.cholesky_solve(root, tf.linalg.matrix_transpose(products))
        )
        rest = squares - tf.reduce_sum(joint * products, axis=2)
        variances = tf.maximum(rest / counts[:, tf.newaxis], NOISE_VARIANCE)
        joint, variances = (
            tf.cast(v, "float32") for v in (joint, variances + self.ridge)
        )
        self.loadings.assign(joint[:, :, :-1])
        self.means.assign(joint[:, :, -1])
        self.variances.assign(variances)

    def implied(self, counts):
        means, loadings, variances = self._parameters("float64")
        joint = tf.concat([loadings, means[:, :, tf.newaxis]], axis=2)
        squares = tf.reduce_sum(tf.square(joint), axis=2)
        squares += variances - self.ridge
        eye = tf.eye(
            self.num_factors + 1,
            batch_shape=[self.num_components],
            dtype="float64",
        )
        return [
            counts,
            counts[:, tf.newaxis] * squares,
            counts[:, tf.newaxis, tf.newaxis] * joint,
            counts[:, tf.newaxis, tf.newaxis] * eye,
        ]

    def draw(self, k, num_samples, seed):
        mean, loadings, variance = (
            parameter[k] for parameter in self._parameters("float32")
        )
        seeds = tf.random.split(seed)
        z = normal([num_samples, self.num_factors], seeds[0], "float32")
        noise = normal([num_samples, self.num_dims], seeds[1], "float32")
        shared = tf.matmul(z, loadings, transpose_b=True)
        return mean + shared + tf.sqrt(variance) * noise

    def given(self, k, x, observed):
        mean, loadings, variance = (
            parameter[k] for parameter in self._parameters("float64")
        )
        log_prob, z, _, root = _infer(x, mean, loadings, variance, observed)

        def draw(num_samples, seed):
            seeds = tf.random.split(seed)
            num_images = tf.shape(x)[0]
            shape = [self.num_factors, num_samples * num_images]
            noise = tf.linalg.triangular_solve(
                root, normal(shape, seeds[0], "float64"), adjoint=True
            )
            drawn = tf.matmul(
                noise, loadings, transpose_a=True, transpose_b=True
            )
            shape = tf.stack([num_samples, num_images, self.num_dims])
            center = mean + tf.matmul(z, loadings, transpose_b=True)
            own = normal(shape, seeds[1], "float64") * tf.sqrt(variance)
            return center + tf.reshape(drawn, shape) + own

        return log_prob, draw


def _infer(x, mean, loadings, variance, observed=None):
    """The log-density of a factor analyser, and what x tells of its factors.

    Args:
        x: `(batch, D)`.
        mean: `(D,)`.
        loadings: W, `(D, num_factors)`.
        variance: psi, `(D,)`.
        observed: Which of the numbers count, bool `(D,)`. Defaults to all.

    Returns:
        `(log_prob, z, scaled, root)`: `(batch,)`; the posterior means
        `(batch, num_factors)`; `W / psi`; and the triangular root of the
        posterior precision `I + transpose(W) @ (W / psi)`.
    """
    counts = tf.ones_like(mean)
    if observed is not None:
        counts = tf.cast(observed, mean.dtype)
    scaled = (counts / variance)[:, tf.newaxis] * loadings
    root = tf.linalg.cholesky(_posterior_precision(loadings, scaled))
    deviation = x - mean
    z = tf.transpose(
        tf.linalg.cholesky_solve(
            root,
            tf.matmul(scaled, deviation, transpose_a=True, transpose_b=True),
        )
    )
    # As the joint density of x and z, no digits cancel out.
    rest = deviation - tf.matmul(z, loadings, transpose_b=True)
    log_prob = -0.5 * (
        tf.linalg.matvec(tf.square(rest), counts / variance)
        + tf.reduce_sum(tf.square(z), axis=1)
        + tf.reduce_sum(counts * tf.math.log(2 * math.pi * variance))
    )
    return log_prob - _log_det(root), z, scaled, root


def _posterior_precision(loadings, scaled):
    product = tf.matmul(loadings, scaled, transpose_a=True)
    return product + tf.eye(tf.shape(product)[-1], dtype=product.dtype)


def _log_density(x, mean, variance):
    """Of each number of `x` on its own."""
    squares = tf.square(x - mean) / variance
    return -0.5 * (squares + tf.math.log(2 * math.pi * variance))


def _normal_log_prob(x):
    """Of rows under the standard normal distribution, `(batch,)`."""
    squares = tf.reduce_sum(tf.square(x), axis=1)
    return -0.5 * (squares + x.shape[1] * math.log(2 * math.pi))


def _log_det(root):
    """`log(det(root))` of a triangular matrix."""
    return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))
