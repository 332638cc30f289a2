"""Events between the thread that receives them and the one that uses them, with a high-water mark in bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ptychonnx.runtime.live.events import Frame

__all__ = ["Inbox", "Receiver"]

Event = TypeVar("Event")
# How often a receiving thread looks whether it should end, in seconds.
_POLL_SECONDS = 0.1


class Inbox(Generic[Event]):
    """Events in order of arrival.

    `bytes`: size of the frames that wait.
    """

    def __init__(self, limit: float) -> None:
        """Create an empty inbox that takes frames of at most `limit` bytes in all, and at least one."""
        self._limit = limit
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event; waits while the inbox is full, which holds the sender back."""
        size = _size(event)
        with self._changed:
            while self.bytes and self.bytes + size > self._limit and not self._closed:
                self._changed.wait()
            self._events.append(event)
            self.bytes += size
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Raise an error in `take`, after the events before it."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Let waiting threads go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, count: int, timeout: float) -> list[Event]:
        """Remove up to `count` events; fewer if they do not come within `timeout` seconds.

        Events other than frames are returned one at a time, and not waited for behind frames.

        Raises what `fail` was given, once no events are left.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self._events) < count and not self._ready():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken: list[Event] = []
            while self._events and len(taken) < count:
                frame = isinstance(self._events[0], Frame)
                if taken and not frame:
                    break
                taken.append(self._events.popleft())
                if not frame:
                    break
            self.bytes -= sum(_size(event) for event in taken)
            self._changed.notify_all()
            if not taken and self._error is not None:
                error, self._error = self._error, None
                raise error
            return taken

    def _ready(self) -> bool:
        if self._error is not None or self._closed:
            return True
        return any(not isinstance(event, Frame) for event in self._events)


class Receiver(threading.Thread):
    """A thread that receives from a source and puts events into an inbox."""

    def __init__(self, source: Any, inbox: Inbox, name: str) -> None:
        """Prepare; `start` begins to receive."""
        super().__init__(name=f"ptychonnx-{name}", daemon=True)
        self._receive: Callable[[float], Any] = source.receive
        self._source, self._inbox = source, inbox
        self._stopping = threading.Event()

    def run(self) -> None:
        """Receive until `stop` is called, or the source fails."""
        try:
            while not self._stopping.is_set():
                if (event := self._receive(_POLL_SECONDS)) is not None:
                    self._inbox.put(event)
        except Exception as error:
            self._inbox.fail(error)
        finally:
            self._source.close()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._inbox.close()
        self.join()


def _size(event: object) -> int:
    return event.image.nbytes if isinstance(event, Frame) else 0
