"""Load on networks, here and on servers: latency against the number of clients, and against the offered rate."""

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

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.model import Network, network_inputs
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

__all__ = ["LoadPoint", "bench", "to_json"]


@dataclass(frozen=True)
class LoadPoint:
    """One network under one load.

    Attributes
    ----------
    network, provider
        Name of the file or URL, and what ran it.
    concurrency
        Clients. In a closed loop each sends a request as soon as it has the answer to the one before; in an open
        one as many requests can be under way.
    offered
        Patterns that arrive a second, in an open loop; None in a closed one.
    batch
        Patterns in a request.
    requests, patterns_per_second
        Answers in all rounds, and what they come to.
    median_ms, p90_ms, p99_ms, longest_ms
        Latency of a request; in an open loop from the moment at which it was due, so that waiting counts.
    """

    network: str
    provider: str
    concurrency: int
    offered: float | None
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
    rates: Sequence[float] = (),
    batch: int | Sequence[int] = 16,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Callable[[], None] = lambda: None,
) -> list[LoadPoint]:
    """Closed-loop load for each number of clients, then open-loop load for each rate.

    In a closed loop every client waits for its answer before it asks again: it shows what a network can do at
    most. In an open loop patterns arrive by the clock of a detector, whether the ones before are done or not: it
    shows how long they wait, and what happens if more arrive than that. In each round every network is measured
    under every load, one after the other, so that a change of the machine's speed does not fall on one alone.

    Parameters
    ----------
    rates
        Patterns a second that are offered, evenly spaced in requests of `batch`; as many requests can be under way
        as the largest concurrency.
    scan
        Its patterns are sent, over and over.
    batch
        Patterns in a request; one number for all networks, or one for each.
    seconds
        Of one measurement, of which there are `rounds`. Answers after its end still count, with their time.
    progress
        Called after each measurement.

    Returns
    -------
    For each concurrency, then for each rate, one point a network, in their order.

    Raises
    ------
    InputError
        If a number is not positive, the scan does not fit a network, or a server fails.
    """
    batches = [batch] * len(networks) if isinstance(batch, int) else list(batch)
    if min(*concurrency, *rates, *batches, rounds, seconds) <= 0:
        raise InputError("bench: concurrency, rates, batch, rounds and seconds are numbers above 0")
    for network in networks:
        network.check_scan(scan)
    inputs = [_requests(network, scan, size) for network, size in zip(networks, batches, strict=True)]
    for network, values in zip(networks, inputs, strict=True):
        network.predict(*values[0])
    loads: list[tuple[int, float | None]] = [
        *((clients, None) for clients in sorted(concurrency)),
        *((max(concurrency), rate) for rate in sorted(rates)),
    ]
    latencies: dict[tuple[int, int], list[float]] = {}
    spent: dict[tuple[int, int], float] = {}
    for _ in range(rounds):
        for load, (clients, rate) in enumerate(loads):
            for number, (network, values) in enumerate(zip(networks, inputs, strict=True)):
                requests = None if rate is None else rate / batches[number]
                found, took = _measure(network, values, clients, requests, seconds)
                latencies.setdefault((load, number), []).extend(found)
                spent[load, number] = spent.get((load, number), 0.0) + took
                progress()
    return [
        _point(networks[number], *loads[load], batches[number], found, spent[load, number])
        for (load, number), found in sorted(latencies.items())
    ]


def to_json(points: Sequence[LoadPoint], scan: Scan, seconds: float, rounds: int) -> str:
    """All points as text, with what they were measured on."""
    content: dict[str, Any] = {
        "version": 1,
        "load": "closed loop; open loop where a rate is offered",
        "scan": scan.name,
        "seconds": seconds,
        "rounds": rounds,
        "points": [asdict(point) for point in points],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _requests(network: Network, scan: Scan, batch: int) -> list[tuple[np.ndarray, ...]]:
    """Inputs of full batches only; a scan of fewer patterns is repeated."""
    groups = group_neighbours(scan.positions, network.contract.gridsize)
    count = max(1, len(groups) // batch)
    index = np.resize(np.arange(len(groups)), count * batch).reshape(count, batch)
    return [network_inputs(network.contract, network.name, scan, groups[each]) for each in index]


def _measure(
    network: Network,
    values: Sequence[tuple[np.ndarray, ...]],
    clients: int,
    rate: float | None,
    seconds: float,
) -> tuple[list[float], float]:
    """Latencies in seconds, and the time from the first request to the last answer.

    `rate` is in requests a second; None for a closed loop.
    """
    begin = threading.Barrier(clients + 1)
    ended: list[float] = []
    arrivals = itertools.count()
    began = 0.0

    def arrive() -> float | None:
        """When the next request of an open loop is due, after waiting for it; None after the last."""
        assert rate is not None
        due = began + next(arrivals) / rate
        if due >= began + seconds:
            return None
        time.sleep(max(0.0, due - time.perf_counter()))
        return due

    def client(first: int) -> list[float]:
        found = []
        own = itertools.islice(itertools.cycle(values), first % len(values), None)
        begin.wait()
        if rate is None:
            end = time.perf_counter() + seconds
            while (sent := time.perf_counter()) < end:
                network.predict(*next(own))
                found.append(time.perf_counter() - sent)
        else:
            while (due := arrive()) is not None:
                network.predict(*next(own))
                found.append(time.perf_counter() - due)
        ended.append(time.perf_counter())
        return found

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        began = time.perf_counter()
        begin.wait()
        found = [latency for each in running for latency in each.result()]
    return found, max(ended) - began


def _point(
    network: Network, clients: int, offered: float | None, batch: int, found: Sequence[float], took: float
) -> LoadPoint:
    median, p90, p99, longest = (float(value) for value in 1000 * np.percentile(found, [50, 90, 99, 100]))
    return LoadPoint(
        network=network.name,
        provider=network.provider,
        concurrency=clients,
        offered=offered,
        batch=batch,
        requests=len(found),
        patterns_per_second=len(found) * batch / took,
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        longest_ms=longest,
    )
