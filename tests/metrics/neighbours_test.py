import numpy as np
import pytest
import scipy.spatial

from keras_gen.metrics import neighbours
from keras_gen.metrics.neighbours import count_balls, nearest


def points(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that the sets here take several blocks, the last one not full."""
    monkeypatch.setattr(neighbours, "_BLOCK", 2**12)


@pytest.mark.parametrize("k", [1, 5, 300])
def test_nearest_are_those_of_a_search_tree(k):
    queries, known = points(150, 7), points(300, 7, seed=1)
    distances, indices = nearest(queries, known, k)
    expected = scipy.spatial.KDTree(known).query(queries, range(1, k + 1))
    np.testing.assert_allclose(distances, expected[0], rtol=1e-14)
    np.testing.assert_array_equal(indices, expected[1])


def test_distances_keep_their_digits_far_from_the_origin():
    known = 1e6 + 1e-3 * points(200, 5)
    known[100:] += 1e3  # two clusters: no shift of the origin suits both
    distances, indices = nearest(known, known, 3)
    expected = scipy.spatial.distance.cdist(known, known)
    order = np.argsort(expected, axis=1)[:, :3]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(
        distances, np.take_along_axis(expected, order, 1), rtol=1e-12
    )


def test_equally_distant_points_come_in_order_of_their_index():
    known = np.repeat([[0.1, 0.7], [0.3, 0.3]], 3, axis=0)
    distances, indices = nearest(known[:1], known, 6)
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(distances[0, :3], 0.0)


def test_ball_counts_are_those_of_all_pairs():
    queries, centres = points(150, 4), points(200, 4, seed=1)
    radii = np.random.default_rng(2).uniform(0.5, 3, 200)
    pairs = scipy.spatial.distance.cdist(queries, centres)
    np.testing.assert_array_equal(
        count_balls(queries, centres, radii), (pairs <= radii).sum(axis=1)
    )


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_the_neighbour_that_a_ball_reaches_to_lies_in_it(scale):
    known = 1.0 + scale * points(200, 6)
    radii = nearest(known, known, 4)[0][:, -1]
    # Itself and three others, no fewer for want of a digit.
    inside = scipy.spatial.distance.cdist(known, known)
    inside = (inside <= radii[:, None] * (1 + 1e-12)).sum()
    assert count_balls(known, known, radii).sum() == inside == 4 * 200


def test_balls_of_radius_zero_hold_their_copies():
    known = points(50, 3)
    counts = count_balls(np.repeat(known, 2, axis=0), known, np.zeros(50))
    np.testing.assert_array_equal(counts, 1)


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_numbers_of_neighbours_are_refused(k):
    with pytest.raises(ValueError, match=rf"`k`.*\[1, 3\].*Got {k}"):
        nearest(points(2, 2), points(3, 2), k)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (4, 5)), ((3,), (4, 3)), ((2, 3), (0, 3))]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    queries, known = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"`queries` and `points`.*got \("):
        nearest(queries, known)
    with pytest.raises(ValueError, match=r"`queries` and `points`.*got \("):
        count_balls(queries, known, np.zeros(len(known)))


def test_a_radius_is_needed_for_each_ball():
    with pytest.raises(ValueError, match=r"`radii`.*4 centres.*\(3,\)"):
        count_balls(np.zeros((2, 2)), np.zeros((4, 2)), np.zeros(3))
