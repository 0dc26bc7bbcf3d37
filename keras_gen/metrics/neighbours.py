"""Nearest neighbours and balls around points, in blocks of bounded memory.

All pairs are compared through one matrix product,
`norm(a - b)**2 = norm(a)**2 + norm(b)**2 - 2 * a @ b`. That loses the last
digits of a small distance, so whatever is close to a decision is measured once
more as `norm(a - b)`: ties and distances of 0 are exact.
"""

import numpy as np

_BLOCK = 2**22  # float64 numbers in a block of distances or differences
_SPARE = 8  # candidates beyond the k nearest that are measured exactly


def nearest(queries, points, k=1):
    """The `k` points nearest to each query, by Euclidean distance.

    A point that is a query too counts as its own neighbour, at distance 0:
    the distance to the k-th *other* point is
    `nearest(points, points, k + 1)[0][:, -1]`.

    Args:
        queries: `(num_queries, dim)`, computed in float64.
        points: `(num_points, dim)`.
        k: Integer of at least 1 and at most `num_points`.

    Returns:
        Distances, float64 `(num_queries, k)`, smallest first, and the indices
        of the points, int64 `(num_queries, k)`; of equally distant points
        the one of the smaller index comes first. Takes tens of MB beside them.

    Raises:
        ValueError: If the shapes do not fit, or there are fewer than `k`
            points.

    Example:

    >>> distances, indices = nearest([[0.0]], [[3.0], [1.0], [2.0]], k=2)
    >>> indices
    array([[1, 2]])
    """
    queries, points = _check(queries, points)
    if not 1 <= k <= len(points):
        raise ValueError(
            f"`k` must be an integer in [1, {len(points)}], since there are "
            f"{len(points)} points. Got {k!r}. Pass more points or a smaller k."
        )
    num_candidates = min(k + _SPARE, len(points))
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), "int64")
    for rows, squared, _ in _blocks(queries, points):
        candidates = np.argpartition(squared, num_candidates - 1)
        # In order of index, so that a stable sort leaves ties in that order.
        candidates = np.sort(candidates[:, :num_candidates])
        pairs = np.repeat(np.arange(len(queries))[rows], num_candidates)
        exact = _distances(queries, points, pairs, candidates.ravel())
        exact = exact.reshape(candidates.shape)
        order = np.argsort(exact, kind="stable")[:, :k]
        distances[rows] = np.take_along_axis(exact, order, 1)
        indices[rows] = np.take_along_axis(candidates, order, 1)
    return distances, indices


def count_balls(queries, centres, radii):
    """In how many balls each query lies, their surfaces included.

    `sum(norm(query - centre) <= radius)` over all balls.

    Args:
        queries: `(num_queries, dim)`, computed in float64.
        centres: `(num_balls, dim)`.
        radii: `(num_balls,)`, for example the last column of the distances
            that `nearest` gives; a point on the surface is then found to be.

    Returns:
        int64 `(num_queries,)`.

    Raises:
        ValueError: If the shapes do not fit.

    Example:

    >>> count_balls([[0.0], [2.0]], [[0.0], [1.0]], [1.0, 1.0])
    array([2, 1])
    """
    queries, centres = _check(queries, centres)
    radii = np.asarray(radii, "float64")
    if radii.shape != (len(centres),):
        raise ValueError(
            "`radii` must be one number for each of the "
            f"{len(centres)} centres, got shape {radii.shape}."
        )
    counts = np.empty(len(queries), "int64")
    for rows, squared, error in _blocks(queries, centres):
        squared -= np.square(radii)
        inside = squared < -error
        unsure, ball = np.nonzero(np.abs(squared) <= error)
        exact = _distances(queries, centres, unsure + rows.start, ball)
        inside[unsure, ball] = exact <= radii[ball]
        counts[rows] = inside.sum(axis=1)
    return counts


def _blocks(queries, points):
    """Yields a slice of queries, their squared distances, and the error.

    The squared distances `(block, num_points)` come from the matrix product;
    they are off by no more than the error `(block, 1)`.
    """
    centre = points.mean(axis=0)  # small norms lose fewer digits
    points = points - centre
    norms = np.square(points).sum(axis=1)
    size = max(1, _BLOCK // len(points))
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        block = queries[rows] - centre
        block_norms = np.square(block).sum(axis=1, keepdims=True)
        squared = block @ points.T
        squared *= -2
        squared += norms
        squared += block_norms
        error = 8 * points.shape[1] * np.finfo("float64").eps
        yield rows, squared, error * (block_norms + norms.max())


def _distances(queries, points, rows, columns):
    """`norm(queries[rows] - points[columns])`, measured directly."""
    distances = np.empty(len(rows))
    size = max(1, _BLOCK // queries.shape[1])
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        differences = queries[rows[part]] - points[columns[part]]
        distances[part] = np.sqrt(np.square(differences).sum(axis=1))
    return distances


def _check(queries, points):
    queries = np.asarray(queries, "float64")
    points = np.asarray(points, "float64")
    fits = queries.ndim == points.ndim == 2
    if not fits or queries.shape[1] != points.shape[1] or not points.size:
        raise ValueError(
            "`queries` and `points` (or `centres`) must have the shapes "
            "(num_queries, dim) and (num_points, dim), with a dim and a point "
            f"at least, got {queries.shape} and {points.shape}."
        )
    return queries, points
