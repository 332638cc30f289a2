"""One property of a scan, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["NO_PROBE", "Finding", "FindingVerdict"]

FindingVerdict = Literal["good", "doubtful", "wrong", "unknown"]
NO_PROBE = "the scan has no probe: give one with --probe"


@dataclass(frozen=True)
class Finding:
    """What was measured of one property of a scan, and what it means.

    * `verdict`: ``unknown`` if the file does not hold what it takes to tell.
    * `text`: one line, with what to do unless all is well.
    * `values`: figures by name, as JSON holds them.
    """

    subject: str
    verdict: FindingVerdict
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
