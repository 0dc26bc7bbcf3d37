import numpy as np
import pytest
import tensorflow as tf

from keras_gen import latent_search

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(0, 0.3, (2, 12)).astype("float32")


def generate(z):
    return tf.reshape(0.5 + z @ MATRIX, (-1, 3, 4, 1))


def best(x, observed):
    """The minimum in closed form: ridge regression."""
    z = []
    for image, seen in zip(
        x.reshape(-1, 12), observed.reshape(-1, 12), strict=True
    ):
        a = MATRIX[:, seen]
        z.append(
            np.linalg.solve(a @ a.T + 0.01 * np.eye(2), a @ (image[seen] - 0.5))
        )
    return np.array(z)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_search_ends_at_the_minimum_of_a_linear_generator(share):
    x = RNG.random((5, 3, 4, 1)).astype("float32")
    observed = RNG.random(x.shape) < share
    starts = tf.constant(RNG.normal(size=(3, 5, 2)).astype("float32"))
    search = tf.function(latent_search.search, autograph=False)
    z, loss = search(generate, x, observed, starts, 300)
    expected = best(x, observed)
    assert z.shape == (3, 5, 2) and loss.shape == (3, 5)
    for start in range(3):
        np.testing.assert_allclose(z[start], expected, atol=2e-3)
    error = np.where(observed, generate(expected.astype("float32")) - x, 0)
    np.testing.assert_allclose(
        loss[0],
        (error**2).sum((1, 2, 3)) + 0.01 * (expected**2).sum(1),
        rtol=1e-4,
    )


def test_images_are_searched_one_by_one():
    x = RNG.random((4, 3, 4, 1)).astype("float32")
    starts = RNG.normal(size=(2, 4, 2)).astype("float32")
    seen = np.ones(x.shape, bool)
    z, _ = latent_search.search(generate, tf.constant(x), seen, starts, 5)
    alone, _ = latent_search.search(
        generate, tf.constant(x[1:2]), seen[1:2], starts[:, 1:2], 5
    )
    np.testing.assert_allclose(z[:, 1:2], alone, rtol=1e-5)


def test_project_keeps_the_best_start_of_every_image():
    x = RNG.random((4, 3, 4, 1)).astype("float32")
    starts = tf.constant(RNG.normal(size=(6, 4, 2)).astype("float32"))
    seen = tf.ones(x.shape, "bool")
    z, loss = latent_search.search(generate, tf.constant(x), seen, starts, 3)
    best = np.argmin(loss, axis=0)
    assert len(set(best)) > 1
    np.testing.assert_allclose(
        latent_search.project(generate, tf.constant(x), starts, 3),
        np.array(z)[best, range(4)],
        rtol=1e-6,
    )


def test_impute_keeps_observed_pixels_and_clips_the_others():
    x = RNG.random((4, 3, 4, 1)).astype("float32")
    seen = tf.constant(RNG.random(x.shape) < 0.5)
    starts = tf.constant(3 * RNG.normal(size=(5, 4, 2)).astype("float32"))
    z, _ = latent_search.search(generate, tf.constant(x), seen, starts, 2)
    images = latent_search.impute(generate, tf.constant(x), seen, starts, 2)
    assert images.shape == (5, 4, 3, 4, 1)
    for codes, sample in zip(z, images, strict=True):
        expected = np.where(seen, x, np.clip(generate(codes), 0, 1))
        np.testing.assert_allclose(sample, expected, atol=1e-6)
