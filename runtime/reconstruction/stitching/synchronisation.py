"""Angular synchronisation: phases that rotate patches so that they agree where they overlap.

A single pattern determines its patch only up to a constant phase. The overlap of patches i and j determines the
difference of their phases: c_i - c_j = arg z_ij with z_ij = sum(w_i O_i conj(w_j O_j)). There are more pairs than
patches, so all phases are computed together by least squares with weights |z_ij|. This is angular synchronisation
(A. Singer, Applied and Computational Harmonic Analysis 30, 20, 2011, https://doi.org/10.1016/j.acha.2010.02.001), which
ptychography uses to initialise iterations (Marchesini et al., https://arxiv.org/abs/1402.0550) and to merge blocks that
were reconstructed separately (https://arxiv.org/abs/2112.10804). There the phases are those of an eigenvector. Its
spectral gap closes as scans grow, so here they come from hierarchical clusters and Gauss-Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

from ptychonnx.runtime.scan.forward_model import overlapping_parts

__all__ = ["overlap_products", "overlapping_pairs", "phase_factors", "synchronised_phases"]

# Neighbours that a patch is compared with: on a raster, the adjacent ones. Overlaps with others are smaller and agree
# less, which makes the phases of trained networks worse (docs/decisions/0017-synchronisation.md).
_NEIGHBOURS = 4
# Upper limit if several patches share one position.
_MAX_NEIGHBOURS = 32
# Neighbours per query of the tree.
_QUERY_SIZE = 2**19
# Weighted patches in memory for the comparison, about as many as pairs.
_COMPARISON_BYTES = 2**25
# Pairs with a smaller share of their energies in the overlap are ignored: it received hardly any light.
_MIN_OVERLAP = 1e-4
# Lower limit of pair weights relative to the largest, so that the equations stay solvable.
_MIN_WEIGHT = 1e-9
# Limit of Gauss-Newton steps. One is exact unless a phase difference wraps.
_MAX_STEPS = 10
# Steps of the power method per level of clusters, enough to correct wrapped phases in small clusters.
_POWER_STEPS = 5


def phase_factors(
    corners: NDArray[np.intp],
    fractions: NDArray[np.float64],
    order: NDArray[np.intp],
    shape: tuple[int, ...],
    weighted: Callable[[NDArray[np.intp]], NDArray[np.complex128]],
) -> NDArray[np.complex128]:
    """Phase factors, complex128 [n] of modulus 1, that make n patches agree.

    Within each connected component, patches are rotated to a common global phase. Their mean rotation, weighted with
    their energies, is zero, so that the component keeps its mean phase. An isolated patch keeps its own phase.

    * `corners`, `fractions`: int and float64 [n, 2] (row, column), place of each patch on the canvas, see
      `canvas.PlacedPatches`.
    * `order`: indices [n] of the patches in an order that does not depend on their order of arrival.
    * `shape`: (h, w) of a patch.
    * `weighted`: function that returns weighted patches complex128 [m, h, w] for indices [m].
    """
    corners = corners[order]
    pairs = overlapping_pairs(corners + fractions[order], shape)
    products, energies = overlap_products(pairs, corners, shape, lambda index: weighted(order[index]))
    # False for NaN, so that invalid patches overlap with none.
    overlapping = np.abs(products) > _MIN_OVERLAP * np.sqrt(energies)[pairs].prod(axis=1)
    pairs, products = pairs[overlapping], products[overlapping]
    phases, component = synchronised_phases(len(order), pairs, products)
    rotations = np.exp(-1j * phases)
    isolated = np.bincount(pairs.ravel(), minlength=len(order)) == 0
    energies[isolated] = 0
    mean = np.zeros(len(order), dtype=np.complex128)
    np.add.at(mean, component, energies * rotations)
    factors = np.empty(len(order), dtype=np.complex128)
    factors[order] = np.where(isolated, 1, rotations * np.exp(-1j * np.angle(mean))[component])
    return factors


def overlapping_pairs(places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Pairs int [m, 2] of neighbouring windows (h, w) at places [n, 2] that overlap, ordered by location.

    Each window is paired with its nearest neighbours. Further pairs connect all windows that overlaps connect.
    """
    # In units of a window, overlapping windows are less than 1 apart along both axes.
    tree = KDTree(places / shape)
    windows = np.arange(len(places))
    per_place = len(places) / max(1, len(np.unique(places, axis=0)))
    count = min(round(_NEIGHBOURS * per_place), _MAX_NEIGHBOURS)
    lists = [np.empty((0, 2), dtype=np.intp)]
    lists += [_overlapping(tree, queried, others) for queried, others in _nearest(tree, windows, count)]
    # If all neighbours of a window are in its own cluster, overlaps with another cluster are further away.
    searching = np.ones(len(places), dtype=bool)
    while True:
        pairs = np.concatenate(lists)
        graph = csr_array((np.ones(len(pairs)), pairs.T), shape=(len(places), len(places)))
        labels = connected_components(graph, directed=False)[1]
        searching &= labels != np.bincount(labels, minlength=1).argmax()
        if not searching.any():
            break
        count *= 2
        lists = [pairs]
        for queried, others in _nearest(tree, windows[searching], count):
            searching[queried[others[:, -1] == len(places)]] = False  # no further neighbours
            foreign = _overlapping(tree, queried, others)
            foreign = foreign[labels[foreign[:, 0]] != labels[foreign[:, 1]]]
            lists.append(foreign[np.unique(foreign[:, 0], return_index=True)[1]])
    # The tree orders windows by location, so that each patch is read only a few times.
    rank = np.empty(len(places), dtype=np.intp)
    rank[tree.indices] = windows
    ranked = np.unique(np.sort(rank[pairs], axis=1), axis=0)
    return np.sort(tree.indices[ranked], axis=1)


def _nearest(
    tree: KDTree, points: NDArray[np.intp], count: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield points [m] with their neighbours [m, 1 + count], themselves included; n marks missing neighbours."""
    step = max(1, _QUERY_SIZE // (count + 1))
    for start in range(0, len(points), step):
        queried = points[start : start + step]
        # Overlapping windows are within the diagonal of a window.
        yield queried, tree.query(tree.data[queried], count + 1, distance_upper_bound=np.sqrt(2))[1]


def _overlapping(tree: KDTree, queried: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.intp]:
    """Pairs [k, 2] of points and those of their neighbours that they overlap with, nearest first."""
    pairs = np.stack([np.broadcast_to(queried[:, None], others.shape), others], axis=-1)[others < tree.n]
    distance = np.abs(tree.data[pairs[:, 0]] - tree.data[pairs[:, 1]]).max(axis=1)
    return pairs[(distance < 1) & (pairs[:, 0] != pairs[:, 1])]


def overlap_products(
    pairs: NDArray[np.intp],
    corners: NDArray[np.intp],
    shape: tuple[int, ...],
    weighted: Callable[[NDArray[np.intp]], NDArray[np.complex128]],
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Sums [m] of w_i O_i conj(w_j O_j) over the overlap of each pair, and of |w_i O_i|^2 over each patch [n]."""
    products, energies = np.zeros(len(pairs), dtype=np.complex128), np.zeros(len(corners))
    step = max(1, _COMPARISON_BYTES // (16 * shape[0] * shape[1]))
    for start in range(0, len(pairs), step):
        chunk = pairs[start : start + step]
        needed, inverse = np.unique(chunk, return_inverse=True)
        patches = weighted(needed)
        energies[needed] = np.einsum("mij,mij->m", patches.real, patches.real)
        energies[needed] += np.einsum("mij,mij->m", patches.imag, patches.imag)
        offsets = corners[chunk[:, 1]] - corners[chunk[:, 0]]
        for index, ((first, second), offset) in enumerate(
            zip(inverse.reshape(-1, 2).tolist(), offsets.tolist(), strict=True), start
        ):
            here, there = overlapping_parts(offset, shape)
            products[index] = np.vdot(patches[second][there], patches[first][here])
    return products, energies


def synchronised_phases(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Phases c [n] in rad that minimise sum(|z_ij| d_ij^2), d_ij = arg(z_ij exp(-i (c_i - c_j))), and components [n].

    One phase of each connected component is arbitrary and set to 0. The minimum is the one near the phases of
    hierarchical clusters. Gauss-Newton steps solve the normal equations, whose matrix is the graph's Laplacian, with
    one sparse factorisation for all steps. Neighbours in a plane cause little fill-in, and long chains or weights of
    many orders of magnitude do no harm, where conjugate gradients take thousands of steps.

    `pairs` are (i, j) int [m, 2], and `products` z_ij complex128 [m], nowhere 0.
    """
    first, second = pairs.T
    weights = np.abs(products)
    weights = np.maximum(weights / weights.max(initial=np.finfo(np.float64).tiny), _MIN_WEIGHT)
    graph = csr_array((weights, (first, second)), shape=(count, count))
    component = connected_components(graph, directed=False)[1].astype(np.intp)
    fixed = np.unique(component, return_index=True)[1]
    phases = _initial_phases(count, pairs, products, np.random.default_rng(0))
    phases -= phases[fixed][component]
    free = np.delete(np.arange(count), fixed)
    if not len(free):
        return phases, component
    matrix = laplacian(graph + graph.T).tocsc()[:, free][free]
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    for _ in range(_MAX_STEPS):
        residual = weights * np.angle(products * np.exp(-1j * (phases[first] - phases[second])))
        gradient = np.bincount(first, residual, count) - np.bincount(second, residual, count)
        change = factors.solve(gradient[free])
        phases[free] += change
        if np.abs(change).max() < 1e-9:
            break
    return phases, component


def _initial_phases(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Phases [n] within pi of the least-squares solution, even for noisy pairs.

    Clusters of patches are synchronised first: between two clusters, the products of all their pairs add up. A spanning
    tree would use one pair instead, and its errors accumulate along the branches: with 100,000 patches, a noise of
    0.3 rad suffices to leave phase differences of 2 pi between neighbours, which no Gauss-Newton step corrects.
    """
    if not len(products):
        return np.zeros(count)
    cluster, within = _clusters(count, pairs, products, rng)
    first, second = pairs.T
    clusters = cluster.max() + 1
    between = products * np.exp(-1j * (within[first] - within[second]))
    phases = _initial_phases(clusters, *_summed(cluster[pairs], between, clusters), rng)
    return _power_method(phases[cluster] + within, pairs, products)


def _clusters(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Cluster label [n] of each node, for about half as many clusters, and its phase [n] within the cluster.

    A random half of the nodes, so that no chains arise, joins the node of the other half with the largest overlap.
    """
    stays = rng.random(count) < 0.5
    joining, staying = np.concatenate([pairs, pairs[:, ::-1]]).T
    difference = np.concatenate([products, products.conj()])
    possible = np.flatnonzero(~stays[joining] & stays[staying])
    possible = possible[np.lexsort((np.abs(difference[possible]), joining[possible]))]
    heaviest = possible[np.flatnonzero(np.diff(joining[possible], append=-1))]
    centre, phases = np.arange(count), np.zeros(count)
    centre[joining[heaviest]] = staying[heaviest]
    phases[joining[heaviest]] = np.angle(difference[heaviest])
    return np.unique(centre, return_inverse=True)[1], phases


def _summed(
    pairs: NDArray[np.intp], products: NDArray[np.complex128], count: int
) -> tuple[NDArray[np.intp], NDArray[np.complex128]]:
    """Pairs of different clusters, each once, with the sums of their products."""
    low, high = np.sort(pairs, axis=1).T
    upward = np.where(pairs[:, 0] == low, products, products.conj())
    apart = low != high
    keys, inverse = np.unique(low[apart] * count + high[apart], return_inverse=True)
    sums = np.zeros(len(keys), dtype=np.complex128)
    np.add.at(sums, inverse, upward[apart])
    return np.stack(np.divmod(keys, count), axis=1), sums


def _power_method(
    phases: NDArray[np.float64], pairs: NDArray[np.intp], products: NDArray[np.complex128]
) -> NDArray[np.float64]:
    """Phases [n] after some steps of the generalised power method (N. Boumal, SIAM J. Optim. 26, 2355, 2016)."""
    matrix = csr_array((products, pairs.T), shape=(len(phases), len(phases)))
    matrix = (matrix + matrix.conj().T).tocsr()
    for _ in range(_POWER_STEPS):
        product = matrix @ np.exp(1j * phases)
        phases = np.where(product == 0, phases, np.angle(product))
    return phases
