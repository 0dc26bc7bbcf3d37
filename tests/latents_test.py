import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import tensorflow as tf

from keras_gen.latents import interpolate, traverse, truncated_normal


def latents(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_linear_steps_are_equal():
    a, b = latents(5), latents(5, seed=1)
    path = interpolate(a, b, 4, method="linear")
    assert path.shape == (4, 5) and path.dtype == "float32"
    np.testing.assert_allclose(path, np.linspace(a, b, 4), rtol=1e-6)


@pytest.mark.parametrize("latent_dim", [2, 3, 64])
def test_spherical_path_of_unit_vectors_is_the_great_circle(latent_dim):
    a, b = (v / np.linalg.norm(v) for v in latents(2, latent_dim))
    expected = scipy.spatial.geometric_slerp(a, b, np.linspace(0, 1, 7))
    np.testing.assert_allclose(interpolate(a, b, 7), expected, atol=1e-6)


def test_spherical_path_of_any_vectors_is_its_formula():
    a, b, t = np.array([3.0, 0.0]), np.array([1.0, 1.0]), 0.25
    angle = np.pi / 4
    expected = (np.sin(0.75 * angle) * a + np.sin(t * angle) * b) / np.sin(
        angle
    )
    np.testing.assert_allclose(interpolate(a, b, 5)[1], expected, rtol=1e-6)


def test_spherical_path_keeps_to_the_lengths_of_a_normal_prior():
    a, b = latents(2, 512)
    middle = np.linalg.norm(interpolate(a, b, 3)[1])
    chord = np.linalg.norm(interpolate(a, b, 3, "linear")[1])
    assert abs(middle - np.sqrt(512)) < 1.0
    assert chord < 0.75 * np.sqrt(512)


@pytest.mark.parametrize("method", ["spherical", "linear"])
def test_path_starts_at_a_and_ends_at_b_exactly(method):
    a, b = latents(2, 3, 8).astype("float32")
    path = interpolate(a, b, 6, method)
    assert path.shape == (6, 3, 8)
    np.testing.assert_array_equal(path[0], a)
    np.testing.assert_array_equal(path[-1], b)


def test_rows_of_a_batch_are_joined_one_by_one():
    a, b = latents(2, 4, 8)
    b[2] = 2 * a[2]  # one of them is parallel
    path = interpolate(tf.constant(a), tf.constant(b), 5)
    for i in range(4):
        np.testing.assert_allclose(
            path[:, i], interpolate(a[i], b[i], 5), rtol=1e-6
        )


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_vectors_without_an_arc_are_joined_by_a_line(factor):
    a = latents(8)
    path = interpolate(a, factor * a, 5)
    np.testing.assert_allclose(
        path, np.linspace(a, factor * a, 5), rtol=1e-6, atol=1e-7
    )


def test_nearly_parallel_vectors_keep_their_precision():
    a = np.array([1.0, 0.0])
    b = np.array([np.cos(1e-4), np.sin(1e-4)])
    expected = [np.cos(5e-5), np.sin(5e-5)]
    np.testing.assert_allclose(interpolate(a, b, 3)[1], expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@pytest.mark.parametrize("dim", [2, -3])
def test_traversal_sets_one_dimension_and_leaves_the_others(shape, dim):
    z = latents(*shape).astype("float32")
    before = z.copy()
    path = traverse(z, dim, [-3, 0, 3.5])
    assert path.shape == (3, *shape) and path.dtype == "float32"
    for step, value in zip(path, [-3, 0, 3.5], strict=True):
        assert np.all(step[..., dim] == value)
        np.testing.assert_array_equal(
            np.delete(step, dim, -1), np.delete(z, dim, -1)
        )
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(3), np.zeros(4), 5), "`a` and `b`.*same shape"),
        ((np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), 5), r"`a`.*\(1, 2, 3\)"),
        ((np.zeros(0), np.zeros(0), 5), r"`a`.*\(0,\)"),
        ((np.zeros(3), np.full(3, np.nan), 5), "`b` must be finite"),
        ((np.zeros(3), np.array(["x"] * 3), 5), "`b` must hold numbers"),
        ((np.zeros(3), np.zeros(3), 1), "`num_steps`.*got 1"),
        ((np.zeros(3), np.zeros(3), 2.0), "`num_steps`.*got 2.0"),
        ((np.zeros(3), np.zeros(3), 5, "cubic"), "`method`.*'cubic'"),
    ],
)
def test_paths_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        interpolate(*arguments)
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(()), 0, [1.0]), "`z`"),
        ((np.zeros(3), 3, [1.0]), "`dim`.*3 latent dimensions.*got 3"),
        ((np.zeros(3), 0.5, [1.0]), "`dim`"),
        ((np.zeros(3), 0, []), "`values`"),
        ((np.zeros(3), 0, [[1.0]]), "`values`"),
        ((np.zeros(3), 0, [1.0, np.inf]), "`values`.*1 of 2 finite"),
    ],
)
def test_traversals_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        traverse(*arguments)


def test_truncated_numbers_are_of_the_truncated_normal_distribution():
    z = truncated_normal((20_000,), np.float32(0.7), (0, 1))
    assert z.dtype == "float32" and np.max(np.abs(z)) <= np.float32(0.7)
    cdf = scipy.stats.truncnorm(-0.7, 0.7).cdf
    assert scipy.stats.kstest(np.asarray(z), cdf).pvalue > 0.01
    far = truncated_normal((20_000,), np.float32(3.0), (0, 1))
    # Neighbours may be rounded to the same number.
    assert np.all(np.diff(np.asarray(z)[np.argsort(far)]) > -1e-6)
