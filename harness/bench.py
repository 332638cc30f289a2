"""Load on networks, here and on servers: latency and throughput against the number of clients."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.grouping import group_neighbours
from runtime.network import Network, network_input
from runtime.scan import Scan

__all__ = ["LoadPoint", "bench", "to_json"]


@dataclass(frozen=True)
class LoadPoint:
    """One network under the load of so many clients.

    Attributes
    ----------
    network, provider
        Name of the file or URL, and what ran it.
    concurrency
        Clients, each of which sends a request as soon as it has the answer to the one before.
    batch
        Patterns in a request.
    requests, patterns_per_second
        Answers in all rounds, and what they come to.
    median_ms, p90_ms, p99_ms, longest_ms
        Latency of a request.
    """

    network: str
    provider: str
    concurrency: int
    batch: int
    requests: int
    patterns_per_second: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    longest_ms: float


def bench(
    networks: Sequence[Network],
    scan: Scan,
    *,
    concurrency: Sequence[int] = (1, 2, 4, 8),
    batch: int = 16,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Callable[[], None] = lambda: None,
) -> list[LoadPoint]:
    """Closed-loop load: every client waits for its answer before it asks again.

    A closed loop shows what a network can do at most; it cannot show what happens to patterns that arrive
    faster than that. In each round every network is measured at every concurrency, one after the other, so
    that a change of the machine's speed does not fall on one of them alone.

    Parameters
    ----------
    scan
        Its patterns are sent, over and over.
    seconds
        Of one measurement, of which there are `rounds`. Answers after its end still count, with their time.
    progress
        Called after each measurement.

    Returns
    -------
    For each concurrency one point a network, in their order.

    Raises
    ------
    InputError
        If a number is not positive, the scan does not fit a network, or a server fails.
    """
    if min(*concurrency, batch, rounds, seconds) <= 0:
        raise InputError("bench: concurrency, batch, rounds and seconds are numbers above 0")
    for network in networks:
        network.check_scan(scan)
    inputs = [_requests(network, scan, batch) for network in networks]
    for network, values in zip(networks, inputs, strict=True):
        network.predict(values[0])
    latencies: dict[tuple[int, int], list[float]] = {}
    spent: dict[tuple[int, int], float] = {}
    for _ in range(rounds):
        for clients in concurrency:
            for number, (network, values) in enumerate(zip(networks, inputs, strict=True)):
                found, took = _measure(network, values, clients, seconds)
                latencies.setdefault((clients, number), []).extend(found)
                spent[clients, number] = spent.get((clients, number), 0.0) + took
                progress()
    return [
        _point(networks[number], clients, batch, found, spent[clients, number])
        for (clients, number), found in sorted(latencies.items())
    ]


def to_json(points: Sequence[LoadPoint], scan: Scan, seconds: float, rounds: int) -> str:
    """All points as text, with what they were measured on."""
    content: dict[str, Any] = {
        "version": 1,
        "load": "closed loop",
        "scan": scan.name,
        "seconds": seconds,
        "rounds": rounds,
        "points": [asdict(point) for point in points],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _requests(network: Network, scan: Scan, batch: int) -> list[np.ndarray]:
    """Full batches only, [batch, C, N, N] each; a scan of fewer patterns is repeated."""
    groups = group_neighbours(scan.positions, network.contract.gridsize)
    count = max(1, len(groups) // batch)
    index = np.resize(np.arange(len(groups)), count * batch).reshape(count, batch)
    return [network_input(network.contract, network.name, scan, groups[each]) for each in index]


def _measure(
    network: Network, values: Sequence[np.ndarray], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Latencies in seconds, and the time from the first request to the last answer."""
    begin = threading.Barrier(clients + 1)
    ended: list[float] = []

    def client(first: int) -> list[float]:
        found = []
        own = itertools.islice(itertools.cycle(values), first % len(values), None)
        begin.wait()
        end = time.perf_counter() + seconds
        while (sent := time.perf_counter()) < end:
            network.predict(next(own))
            found.append(time.perf_counter() - sent)
        ended.append(time.perf_counter())
        return found

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        begin.wait()
        began = time.perf_counter()
        found = [latency for each in running for latency in each.result()]
    return found, max(ended) - began


def _point(network: Network, clients: int, batch: int, found: Sequence[float], took: float) -> LoadPoint:
    median, p90, p99, longest = (float(value) for value in 1000 * np.percentile(found, [50, 90, 99, 100]))
    return LoadPoint(
        network=network.name,
        provider=network.provider,
        concurrency=clients,
        batch=batch,
        requests=len(found),
        patterns_per_second=len(found) * batch / took,
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        longest_ms=longest,
    )
