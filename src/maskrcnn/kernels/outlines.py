"""Trace the outlines of masks along pixel edges: runs -> rings of corner points; and bridge rings into one polygon."""

import numpy as np
from numba import njit

MAX_NEIGHBOURS = 1024
"""Points to either side that the search for a bridge visits. It keeps the cost of R rings at R times this."""


@njit(cache=True, nogil=True)
def trace_rings(runs, height):
    """Return the rings of a mask: points (P, 2) int64 x and y, ring offsets (R + 1,), and the part of each ring (R,).

    Pixels that share an edge are of one part. The first ring of a part is its outer one, the others are its holes.

    Runs are cut into spans within a column. Each span has two edges of width 1, at its top and at its bottom: edge 2s
    and edge 2s + 1 of span s. Vertical edges between two columns connect the ends of these. A ring takes them in turn.
    """
    n_spans = 0
    for i in range(len(runs)):
        n_spans += (runs[i, 0] + runs[i, 1] - 1) // height - runs[i, 0] // height + 1
    column_of_span = np.empty(n_spans, np.int64)
    y_of_edge = np.empty(2 * n_spans, np.int64)
    n = 0
    for i in range(len(runs)):
        start, end = runs[i, 0], runs[i, 0] + runs[i, 1]
        for column in range(start // height, (end - 1) // height + 1):
            column_of_span[n] = column
            y_of_edge[2 * n] = max(start - column * height, 0)
            y_of_edge[2 * n + 1] = min(end - column * height, height)
            n += 1
    left, right = _connect_edges(column_of_span, y_of_edge)
    return _walk_rings(column_of_span, y_of_edge, left, right)


@njit(cache=True, nogil=True)
def _connect_edges(column_of_span, y_of_edge):
    """Return the edge that follows each horizontal edge at its left end and at its right end, (2 * spans,) each.

    On the line between two columns, the edges that end there are sorted by y and connected in pairs: between the two of
    a pair, one column is inside the mask and the other outside. Two edges that meet at one y continue each other, or
    two pixels touch at a corner. Then the bottom edge of a pixel comes first: the outline turns around each pixel, and
    the two stay separate.
    """
    n_spans = len(column_of_span)
    left, right = np.empty(2 * n_spans, np.int64), np.empty(2 * n_spans, np.int64)
    a = a_end = 0  # edges of the column to the left of the line
    while a_end < 2 * n_spans or a < a_end:
        b = b_end = a_end  # edges of the column to the right of it
        line = column_of_span[a // 2] + 1 if a < a_end else column_of_span[b // 2]
        while b_end < 2 * n_spans and column_of_span[b_end // 2] == line:
            b_end += 2
        next_a, next_a_end = b, b_end
        waiting, waiting_is_left = -1, False
        while a < a_end or b < b_end:
            if a < a_end and b < b_end:
                # At equal y, bottom edges, which have odd numbers, come before top edges.
                from_left = y_of_edge[a] < y_of_edge[b] or (y_of_edge[a] == y_of_edge[b] and a % 2 >= b % 2)
            else:
                from_left = a < a_end
            edge = a if from_left else b
            if from_left:
                a += 1
            else:
                b += 1
            if waiting < 0:
                waiting, waiting_is_left = edge, from_left
                continue
            if waiting_is_left:
                right[waiting] = edge
            else:
                left[waiting] = edge
            if from_left:
                right[edge] = waiting
            else:
                left[edge] = waiting
            waiting = -1
        a, a_end = next_a, next_a_end
    return left, right


@njit(cache=True, nogil=True)
def _walk_rings(column_of_span, y_of_edge, left, right):
    """Follow the edges of every ring from its first edge on; `trace_rings` explains what is returned."""
    n_edges = len(y_of_edge)
    part_of_edge = np.full(n_edges, -1, np.int64)
    points = np.empty((2 * n_edges, 2), np.int64)
    ring_offsets = np.zeros(n_edges + 1, np.int64)
    part_of_ring = np.empty(n_edges, np.int64)
    n_points = n_rings = n_parts = 0
    for first in range(n_edges):
        if part_of_edge[first] >= 0:
            continue
        # The first edge of an outer ring is the top of a span. That of a hole is the bottom of a span, whose top
        # has been visited.
        is_outer = first % 2 == 0
        part = n_parts if is_outer else part_of_edge[first - 1]
        n_parts += is_outer
        edge, rightwards = first, is_outer
        while part_of_edge[edge] < 0:
            part_of_edge[edge] = part
            column = column_of_span[edge // 2]
            x = column + 1 if rightwards else column
            following = right[edge] if rightwards else left[edge]
            if y_of_edge[following] != y_of_edge[edge]:
                points[n_points, 0], points[n_points, 1] = x, y_of_edge[edge]
                points[n_points + 1, 0], points[n_points + 1, 1] = x, y_of_edge[following]
                n_points += 2
            rightwards = column_of_span[following // 2] == x
            edge = following
        part_of_ring[n_rings] = part
        n_rings += 1
        ring_offsets[n_rings] = n_points
    return points[:n_points].copy(), ring_offsets[: n_rings + 1].copy(), part_of_ring[:n_rings].copy()


@njit(cache=True, nogil=True)
def order_of_bridged_points(points, offsets, by_x):
    """Return the order (N,) int64 in which one polygon walks the points (P, 2) of all rings, bridges included.

    `offsets` (R + 1,) delimits the rings and `by_x` sorts the points by x, then y. The points at both ends of a bridge
    occur again.
    """
    n_points, n_rings = len(points), len(offsets) - 1
    rank = np.empty(n_points, np.int64)
    for r in range(n_points):
        rank[by_x[r]] = r
    # A linked list of visits: visit k < P is that of point k, later ones repeat the ends of bridges.
    n_visits = n_points + 2 * (n_rings - 1)
    point_of_visit = np.empty(n_visits, np.int64)
    point_of_visit[:n_points] = np.arange(n_points)
    next_visit = np.empty(n_visits, np.int64)
    ring_of_point = np.empty(n_points, np.int64)
    n = n_points
    for ring in range(n_rings):
        first, end = offsets[ring], offsets[ring + 1]
        ring_of_point[first:end] = ring
        for k in range(first, end - 1):
            next_visit[k] = k + 1
        next_visit[end - 1] = first
    for ring in range(1, n_rings):
        first, end = offsets[ring], offsets[ring + 1]
        nearest = _near_point(points, by_x, rank, ring_of_point, first, offsets[ring - 1])
        point_of_visit[n], point_of_visit[n + 1] = first, nearest
        next_visit[n], next_visit[n + 1] = n + 1, next_visit[nearest]
        next_visit[nearest], next_visit[end - 1] = first, n
        n += 2
    order = np.empty(n_visits, np.int64)
    visit = 0
    for k in range(n_visits):
        order[k] = point_of_visit[visit]
        visit = next_visit[visit]
    return order


@njit(cache=True, nogil=True)
def _near_point(points, by_x, rank, ring_of_point, anchor, fallback):
    """Return the point of earlier rings that is nearest to point `anchor`, of `fallback` and the neighbours in x."""
    nearest = fallback
    min_distance = (points[anchor, 0] - points[fallback, 0]) ** 2 + (points[anchor, 1] - points[fallback, 1]) ** 2
    for step in (-1, 1):
        r = rank[anchor] + step
        end = min(max(rank[anchor] + step * MAX_NEIGHBOURS, -1), len(points))
        while r != end:
            k = by_x[r]
            dx, dy = points[k, 0] - points[anchor, 0], points[k, 1] - points[anchor, 1]
            if dx * dx > min_distance:
                break
            if ring_of_point[k] < ring_of_point[anchor] and dx * dx + dy * dy < min_distance:
                nearest, min_distance = k, dx * dx + dy * dy
            r += step
    return nearest
