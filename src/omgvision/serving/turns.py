"""One question at a time: few wait for their turn, and who has left waits no longer."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK = 0.2
"""Seconds after which who waits looks whether it is still wanted."""


class Busy(Exception):
    """More people wait than the server lets."""


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Turns:
    """First come, first served.

    Args:
        waiting: How many may wait. All wait in a thread, of which a server has few.
    """

    def __init__(self, *, waiting: int) -> None:
        self._waiting = waiting
        self._line: deque[object] = deque()  # the first has the turn
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, *, gone: threading.Event | None = None) -> Iterator[None]:
        """Waits, and lets the next in at the end.

        Args:
            gone: Set when there is nothing to wait for any more.

        Raises:
            Busy: Too many wait already.
            Gone: `gone` was set meanwhile.
        """
        me, gone = object(), gone or threading.Event()
        with self._moved:
            if len(self._line) > self._waiting:
                raise Busy(f"{self._waiting} questions wait for their turn already: try again later")
            self._line.append(me)
        try:
            with self._moved:
                while self._line[0] is not me and not gone.is_set():
                    self._moved.wait(_LOOK)
            if gone.is_set():
                raise Gone
            yield
        finally:
            with self._moved:
                self._line.remove(me)
                self._moved.notify_all()
