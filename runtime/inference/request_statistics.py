"""Latency and throughput of the requests to a server."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RequestLog", "RequestStatistics"]


@dataclass(frozen=True)
class RequestStatistics:
    """Statistics of the requests of one run.

    * `requests`, `patterns`, `retries`: number of answers, of groups of patterns in them, and of attempts that were
      repeated.
    * `seconds`: time from the first request to the last answer, including the caller's own work in between.
    * `median_ms`, `p90_ms`, `p99_ms`, `longest_ms`: latency of a request in milliseconds, from its first attempt to its
      answer. It includes failed attempts and the pauses between them, but not the time in the queue before the first
      attempt.
    * `in_flight`: largest number of simultaneous requests.
    * `versions`: versions of the model that answered.
    """

    requests: int
    patterns: int
    retries: int
    seconds: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    longest_ms: float
    in_flight: int
    versions: tuple[str, ...]

    @property
    def patterns_per_second(self) -> float:
        """Throughput as the caller saw it, in groups of patterns per second."""
        return self.patterns / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Entry in `metrics.json`."""
        return {
            "requests": self.requests,
            "patterns": self.patterns,
            "retries": self.retries,
            "seconds": self.seconds,
            "latency_ms": {
                "median": self.median_ms,
                "p90": self.p90_ms,
                "p99": self.p99_ms,
                "longest": self.longest_ms,
            },
            "patterns_per_second": self.patterns_per_second,
            "in_flight": self.in_flight,
            "versions": list(self.versions),
        }

    def __str__(self) -> str:
        """One line for the terminal."""
        repeated = f", {self.retries} repeated" if self.retries else ""
        return (
            f"{self.requests} requests, at most {self.in_flight} in flight{repeated}: latency {self.median_ms:.1f} ms "
            f"(median), {self.p90_ms:.1f} (90%), {self.p99_ms:.1f} (99%), {self.longest_ms:.1f} (longest), "
            f"{self.patterns_per_second:.0f} patterns/s"
        )


class RequestLog:
    """Collects latencies for `RequestStatistics`; all methods may be called from any thread."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._latencies: list[float] = []
        self._patterns = self._retries = 0
        self._versions: dict[str, None] = {}
        self._first = self._last = 0.0

    def answered(self, sent: float, patterns: int, version: str) -> None:
        """Record an answer that arrives now, for `patterns` groups sent at `sent` (`time.perf_counter`)."""
        now = time.perf_counter()
        with self._lock:
            self._first = min(self._first, sent) if self._latencies else sent
            self._last = now
            self._latencies.append(now - sent)
            self._patterns += patterns
            self._versions[version] = None

    def repeated(self) -> None:
        """Record an attempt that failed and is repeated."""
        with self._lock:
            self._retries += 1

    def statistics(self) -> RequestStatistics | None:
        """Statistics so far; None before the first answer."""
        with self._lock:
            if not self._latencies:
                return None
            median, p90, p99, longest = (
                float(value) for value in 1000 * np.percentile(self._latencies, [50, 90, 99, 100])
            )
            return RequestStatistics(
                requests=len(self._latencies),
                patterns=self._patterns,
                retries=self._retries,
                seconds=self._last - self._first,
                median_ms=median,
                p90_ms=p90,
                p99_ms=p99,
                longest_ms=longest,
                in_flight=self._in_flight,
                versions=tuple(sorted(self._versions)),
            )
