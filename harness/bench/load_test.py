"""Load test of networks, here and on servers: latency against the number of clients and against the offered rate."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

__all__ = ["LoadPoint", "load_report", "measure_load"]


@dataclass(frozen=True)
class LoadPoint:
    """Latencies of one network under one load.

    * `network`, `provider`: name of the file or URL, and execution provider.
    * `concurrency`: number of clients. In a closed loop, each sends a request as soon as the one before is answered; in
      an open loop, it is the largest number of concurrent requests.
    * `offered`: patterns that arrive per second in an open loop; None in a closed loop.
    * `batch`: patterns in a request.
    * `requests`, `patterns_per_second`: number of answers in all rounds, and the throughput.
    * `median_ms`, `p90_ms`, `p99_ms`, `longest_ms`: latency of a request; in an open loop from the moment at which it
      was due, so that waiting counts.
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


def measure_load(
    networks: Sequence[Predictor],
    scan: Scan,
    *,
    concurrency: Sequence[int] = (1, 2, 4, 8),
    rates: Sequence[float] = (),
    batch: int | Sequence[int] = 16,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> list[LoadPoint]:
    """Measure closed-loop load for each number of clients, then open-loop load for each rate.

    In a closed loop, every client waits for its answer before it sends the next request, which shows the maximum
    throughput. In an open loop, patterns arrive by the clock of a detector, whether or not earlier ones are done, which
    shows how long they wait. In each round every network is measured under every load, one after the other.

    Raises InputError if a number is not positive, or the scan does not fit a network. Raises ServerError if a server
    fails.

    * `rates`: patterns per second that are offered, evenly spaced in requests of `batch`. The number of concurrent
      requests is limited by the largest concurrency.
    * `batch`: patterns in a request: one number for all networks, or one for each.
    * `seconds`, `rounds`: length of one measurement, and number of measurements. Answers after the end still count,
      with their time.

    Returns one point per network for each concurrency, then for each rate.
    """
    batches = [batch] * len(networks) if isinstance(batch, int) else list(batch)
    if min(*concurrency, *rates, *batches, rounds, seconds) <= 0:
        raise InputError("load test: concurrency, rates, batch, rounds and seconds must be numbers above 0")
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
    progress.stage("Measuring load", rounds * len(loads) * len(networks), "measurements")
    measurements = itertools.count(1)
    for _ in range(rounds):
        for load, (clients, rate) in enumerate(loads):
            for number, (network, values) in enumerate(zip(networks, inputs, strict=True)):
                requests = None if rate is None else rate / batches[number]
                measured, elapsed = _measure(network, values, clients, requests, seconds)
                latencies.setdefault((load, number), []).extend(measured)
                spent[load, number] = spent.get((load, number), 0.0) + elapsed
                progress.update(next(measurements))
    return [
        _point(networks[number], *loads[load], batches[number], measured, spent[load, number])
        for (load, number), measured in sorted(latencies.items())
    ]


def load_report(points: Sequence[LoadPoint], scan: Scan, seconds: float, rounds: int) -> str:
    """All points with their settings, as JSON text."""
    content: dict[str, Any] = {
        "version": 1,
        "load": "closed loop; open loop where a rate is offered",
        "scan": scan.name,
        "seconds": seconds,
        "rounds": rounds,
        "points": [asdict(point) for point in points],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _requests(network: Predictor, scan: Scan, batch: int) -> list[tuple[np.ndarray, ...]]:
    """Inputs of full batches; a scan with fewer patterns is repeated."""
    groups = group_neighbours(scan.positions, network.contract.gridsize)
    count = max(1, len(groups) // batch)
    index = np.resize(np.arange(len(groups)), count * batch).reshape(count, batch)
    return [network.inputs(scan, groups[batch_index]) for batch_index in index]


def _measure(
    network: Predictor,
    values: Sequence[tuple[np.ndarray, ...]],
    clients: int,
    rate: float | None,
    seconds: float,
) -> tuple[list[float], float]:
    """Latencies in seconds, and the time from the first request to the last answer.

    `rate` is in requests per second; None for a closed loop.
    """
    begin = threading.Barrier(clients + 1)
    ended: list[float] = []
    arrivals = itertools.count()
    began = 0.0

    def arrive() -> float | None:
        """Wait until the next request of an open loop is due and return that time; None after the last."""
        assert rate is not None
        due = began + next(arrivals) / rate
        if due >= began + seconds:
            return None
        time.sleep(max(0.0, due - time.perf_counter()))
        return due

    def client(first: int) -> list[float]:
        latencies = []
        own = itertools.islice(itertools.cycle(values), first % len(values), None)
        begin.wait()
        if rate is None:
            end = time.perf_counter() + seconds
            while (sent := time.perf_counter()) < end:
                network.predict(*next(own))
                latencies.append(time.perf_counter() - sent)
        else:
            while (due := arrive()) is not None:
                network.predict(*next(own))
                latencies.append(time.perf_counter() - due)
        ended.append(time.perf_counter())
        return latencies

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        began = time.perf_counter()
        begin.wait()
        measured = [latency for future in running for latency in future.result()]
    return measured, max(ended) - began


def _point(
    network: Predictor,
    clients: int,
    offered: float | None,
    batch: int,
    latencies: Sequence[float],
    seconds: float,
) -> LoadPoint:
    median, p90, p99, longest = (float(value) for value in 1000 * np.percentile(latencies, [50, 90, 99, 100]))
    return LoadPoint(
        network=network.name,
        provider=network.provider,
        concurrency=clients,
        offered=offered,
        batch=batch,
        requests=len(latencies),
        patterns_per_second=len(latencies) * batch / seconds,
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        longest_ms=longest,
    )
