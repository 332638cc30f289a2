"""The phases by which patches are turned so that all agree where they overlap.

A single pattern fixes its patch only up to a constant phase. Where patches i and j overlap, they say how their phases
differ: c_i - c_j = arg z_ij with z_ij = sum(w_i O_i conj(w_j O_j)). There are more such pairs than patches, so the
phases are found together, by least squares weighted with |z_ij|. This is angular synchronisation (A. Singer, Applied
and Computational Harmonic Analysis 30, 20, 2011, https://doi.org/10.1016/j.acha.2010.02.001), which ptychography uses
to start iterations (Marchesini et al., https://arxiv.org/abs/1402.0550) and to join blocks that were retrieved one by
one (https://arxiv.org/abs/2112.10804). There the phases are those of an eigenvector; here they come from clusters
that grow and from Gauss-Newton steps, since the gap beside that eigenvalue closes as scans grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

__all__ = ["neighbours", "overlaps", "phases_of_pairs", "turns"]

# Nearest neighbours that a patch is compared with: on a raster, those beside it. Overlaps with others are smaller and
# less alike, and make the phases of trained networks worse (docs/decisions/0017-synchronisation.md).
_NEAREST = 4
# ... and at most, where several patches lie at one place.
_MOST_NEAREST = 32
# Neighbours that are searched at once.
_SEARCHED = 2**19
# Weighted patches that are held to be compared, about as many as pairs.
_COMPARED_BYTES = 2**25
# Less than this share of their energies in the overlap, and two patches do not overlap: there is hardly any light.
_LEAST_OVERLAP = 1e-4
# Weights of pairs below this share of the largest are raised to it, so that the equations can be solved.
_LEAST_WEIGHT = 1e-9
# Gauss-Newton steps at most. One is exact unless it takes a pair past half a turn.
_STEPS = 10
# Steps of the power method for each size of clusters: enough to undo wrong turns among few.
_RELAXATIONS = 5


def turns(
    pixels: NDArray[np.intp],
    fractions: NDArray[np.float64],
    order: NDArray[np.intp],
    shape: tuple[int, ...],
    weighted: Callable[[NDArray[np.intp]], NDArray[np.complex128]],
) -> NDArray[np.complex128]:
    """Factors [n] of modulus 1 that bring the phases of n patches together.

    Patches that hang together by overlaps are turned against each other; their mean turn, weighted with their energies,
    is zero, so that the phase that they have on the whole stays. A patch that overlaps with none keeps its own.

    Parameters
    ----------
    pixels, fractions
        [n, 2] (row, column), first pixel of each patch on the canvas and the fraction of a pixel that it lies beyond.
    order
        Numbers [n] of the patches in an order that does not depend on how they came.
    shape
        (h, w) of a patch.
    weighted
        Gives weighted patches complex128 [m, h, w] by their numbers [m].
    """
    pixels = pixels[order]
    pairs = neighbours(pixels + fractions[order], shape)
    products, energies = overlaps(pairs, pixels, shape, lambda some: weighted(order[some]))
    # Written so that what is not a number overlaps with nothing.
    overlapping = np.abs(products) > _LEAST_OVERLAP * np.sqrt(energies)[pairs].prod(axis=1)
    pairs, products = pairs[overlapping], products[overlapping]
    phases, component = phases_of_pairs(len(order), pairs, products)
    turned = np.exp(-1j * phases)
    alone = np.bincount(pairs.ravel(), minlength=len(order)) == 0
    energies[alone] = 0
    mean = np.zeros(len(order), dtype=np.complex128)
    np.add.at(mean, component, energies * turned)
    factors = np.empty(len(order), dtype=np.complex128)
    factors[order] = np.where(alone, 1, turned * np.exp(-1j * np.angle(mean))[component])
    return factors


def neighbours(places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Pairs [m, 2] of neighbouring windows [h, w] at places [n, 2] that overlap, near ones after each other.

    Every window is paired with the nearest ones, and those that hang together by overlaps hang together by pairs.
    """
    # In units of a window, those that overlap are less than 1 apart along both axes.
    scaled = places / shape
    tree = KDTree(scaled)
    everyone = np.arange(len(places))
    repeated = len(places) / max(1, len(np.unique(places, axis=0)))
    nearest = min(round(_NEAREST * repeated), _MOST_NEAREST)
    found = [np.empty((0, 2), dtype=np.intp)]
    found += [_overlapping(tree, some, others) for some, others in _nearest(tree, everyone, nearest)]
    # Where the nearest ones are all of one cluster, overlaps with another one are further away.
    waiting = np.ones(len(places), dtype=bool)
    while True:
        pairs = np.concatenate(found)
        graph = csr_array((np.ones(len(pairs)), pairs.T), shape=(len(places), len(places)))
        labels = connected_components(graph, directed=False)[1]
        waiting &= labels != np.bincount(labels, minlength=1).argmax()
        if not waiting.any():
            break
        nearest *= 2
        found = [pairs]
        for some, others in _nearest(tree, everyone[waiting], nearest):
            waiting[some[others[:, -1] == len(places)]] = False  # there are no more
            foreign = _overlapping(tree, some, others)
            foreign = foreign[labels[foreign[:, 0]] != labels[foreign[:, 1]]]
            found.append(foreign[np.unique(foreign[:, 0], return_index=True)[1]])
    # The order of the tree is one of neighbours: whoever reads the patches in it reads each of them few times.
    rank = np.empty(len(places), dtype=np.intp)
    rank[tree.indices] = everyone
    ranked = np.unique(np.sort(rank[pairs], axis=1), axis=0)
    return np.sort(tree.indices[ranked], axis=1)


def _nearest(
    tree: KDTree, searched: NDArray[np.intp], nearest: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Some of the points [m], and themselves and their nearest others [m, 1 + nearest]; n where there are no more."""
    step = max(1, _SEARCHED // (nearest + 1))
    for start in range(0, len(searched), step):
        some = searched[start : start + step]
        # All that may overlap are within the diagonal of a window.
        yield some, tree.query(tree.data[some], nearest + 1, distance_upper_bound=np.sqrt(2))[1]


def _overlapping(tree: KDTree, some: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.intp]:
    """Pairs [k, 2] of points with those of their nearest others that they overlap with, nearest first."""
    pairs = np.stack([np.broadcast_to(some[:, None], others.shape), others], axis=-1)[others < tree.n]
    apart = np.abs(tree.data[pairs[:, 0]] - tree.data[pairs[:, 1]]).max(axis=1)
    return pairs[(apart < 1) & (pairs[:, 0] != pairs[:, 1])]


def overlaps(
    pairs: NDArray[np.intp],
    pixels: NDArray[np.intp],
    shape: tuple[int, ...],
    weighted: Callable[[NDArray[np.intp]], NDArray[np.complex128]],
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Sums [m] of w_i O_i conj(w_j O_j) over the overlap of each pair, and of |w_i O_i|^2 over each patch [n]."""
    products, energies = np.zeros(len(pairs), dtype=np.complex128), np.zeros(len(pixels))
    step = max(1, _COMPARED_BYTES // (16 * shape[0] * shape[1]))
    for start in range(0, len(pairs), step):
        some = slice(start, start + step)
        needed, inverse = np.unique(pairs[some], return_inverse=True)
        patches = weighted(needed)
        energies[needed] = np.einsum("mij,mij->m", patches.real, patches.real)
        energies[needed] += np.einsum("mij,mij->m", patches.imag, patches.imag)
        offsets = pixels[pairs[some, 1]] - pixels[pairs[some, 0]]
        for index, ((first, second), offset) in enumerate(
            zip(inverse.reshape(-1, 2).tolist(), offsets.tolist(), strict=True), start
        ):
            here = tuple(slice(max(0, d), n + min(0, d)) for d, n in zip(offset, shape, strict=True))
            there = tuple(slice(max(0, -d), n + min(0, -d)) for d, n in zip(offset, shape, strict=True))
            products[index] = np.vdot(patches[second][there], patches[first][here])
    return products, energies


def phases_of_pairs(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Phases c [n] in rad that minimise sum(|z_ij| d_ij^2), d_ij = arg(z_ij exp(-i (c_i - c_j))), and components [n].

    One phase of each connected component is free and is set to 0. The minimum is the one near the phases of growing
    clusters. Each Gauss-Newton step solves the normal equations, whose matrix is the Laplacian of the graph, by one
    sparse factorisation that serves all steps: pairs of neighbours in a plane fill it little, and it does not mind long
    chains or weights of many orders of magnitude, where conjugate gradients take thousands of steps.

    Parameters
    ----------
    pairs, products
        (i, j) [m, 2] and z_ij [m], none of them 0.
    """
    first, second = pairs.T
    weights = np.abs(products)
    weights = np.maximum(weights / weights.max(initial=np.finfo(np.float64).tiny), _LEAST_WEIGHT)
    graph = csr_array((weights, (first, second)), shape=(count, count))
    component = connected_components(graph, directed=False)[1].astype(np.intp)
    fixed = np.unique(component, return_index=True)[1]
    phases = _first_phases(count, pairs, products, np.random.default_rng(0))
    phases -= phases[fixed][component]
    free = np.delete(np.arange(count), fixed)
    if not len(free):
        return phases, component
    matrix = laplacian(graph + graph.T).tocsc()[:, free][free]
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    for _ in range(_STEPS):
        pull = weights * np.angle(products * np.exp(-1j * (phases[first] - phases[second])))
        slope = np.bincount(first, pull, count) - np.bincount(second, pull, count)
        change = factors.solve(slope[free])
        phases[free] += change
        if np.abs(change).max() < 1e-9:
            break
    return phases, component


def _first_phases(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128], coins: np.random.Generator
) -> NDArray[np.float64]:
    """Phases [n] that hardly any noise of the pairs takes half a turn away from those of the least squares.

    Clusters of patches are synchronised before the patches: between two of them, the products of all their pairs add
    up. A spanning tree would take one pair instead, and its errors walk along its branches: in 100,000 patches, 0.3 rad
    of noise are enough to leave whole turns between neighbours that no Gauss-Newton step undoes.
    """
    if not len(products):
        return np.zeros(count)
    cluster, turned = _clusters(count, pairs, products, coins)
    first, second = pairs.T
    members = cluster.max() + 1
    between = products * np.exp(-1j * (turned[first] - turned[second]))
    phases = _first_phases(members, *_summed(cluster[pairs], between, members), coins)
    return _relaxed(phases[cluster] + turned, pairs, products)


def _clusters(
    count: int, pairs: NDArray[np.intp], products: NDArray[np.complex128], coins: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """A cluster for each of n, of which there are about half as many, and its phase inside the cluster.

    Half of all, chosen by coins so that no chains arise, join whom of the other half they overlap with most.
    """
    stays = coins.random(count) < 0.5
    joining, staying = np.concatenate([pairs, pairs[:, ::-1]]).T
    difference = np.concatenate([products, products.conj()])
    possible = np.flatnonzero(~stays[joining] & stays[staying])
    possible = possible[np.lexsort((np.abs(difference[possible]), joining[possible]))]
    heaviest = possible[np.flatnonzero(np.diff(joining[possible], append=-1))]
    joined, turned = np.arange(count), np.zeros(count)
    joined[joining[heaviest]] = staying[heaviest]
    turned[joining[heaviest]] = np.angle(difference[heaviest])
    return np.unique(joined, return_inverse=True)[1], turned


def _summed(
    pairs: NDArray[np.intp], products: NDArray[np.complex128], count: int
) -> tuple[NDArray[np.intp], NDArray[np.complex128]]:
    """Each pair of different clusters once, with the sum of its products."""
    low, high = np.sort(pairs, axis=1).T
    upward = np.where(pairs[:, 0] == low, products, products.conj())
    apart = low != high
    keys, inverse = np.unique(low[apart] * count + high[apart], return_inverse=True)
    sums = np.zeros(len(keys), dtype=np.complex128)
    np.add.at(sums, inverse, upward[apart])
    return np.stack(np.divmod(keys, count), axis=1), sums


def _relaxed(
    phases: NDArray[np.float64], pairs: NDArray[np.intp], products: NDArray[np.complex128]
) -> NDArray[np.float64]:
    """Phases after some steps of the generalised power method (N. Boumal, SIAM J. Optim. 26, 2355, 2016)."""
    matrix = csr_array((products, pairs.T), shape=(len(phases), len(phases)))
    matrix = (matrix + matrix.conj().T).tocsr()
    for _ in range(_RELAXATIONS):
        pulled = matrix @ np.exp(1j * phases)
        phases = np.where(pulled == 0, phases, np.angle(pulled))
    return phases
