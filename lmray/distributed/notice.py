"""A notice that this process will be ended soon: SIGTERM, as on a spot machine that is taken back.

Ray's answer to it is to end at once, a driver's by abort() and a stack trace (2.60). A process that
trains writes a checkpoint first, and then ends as Ray would have: whoever waits for it takes it for
lost and goes on elsewhere. A driver says what it does instead: Slurm, systemd, containers and Ray's
jobs tell it so.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

_given = threading.Event()
_heeded = threading.Event()


class Heeding:
    """Makes an actor of Ray Tune, or of another library with `setup`, heed notices."""

    def setup(self, config: dict[str, Any]) -> None:
        """As of the class it is mixed into, in the process's main thread, as signals need it."""
        heed()
        super().setup(config)  # pyrefly: ignore[missing-attribute]


def heed() -> None:
    """From now on SIGTERM is a notice to whoever trains, and otherwise what it has been before.

    To be called in the process's main thread.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        if _heeded.is_set() and not _given.is_set():
            _given.set()
        elif callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handle)


def given() -> bool:
    """Whether the process was told that it will end."""
    return _given.is_set()


@contextmanager
def heeded() -> Iterator[None]:
    """Around a training that asks `given`; ends the process after it if that has become true."""
    _heeded.set()
    try:
        yield
    finally:
        _heeded.clear()
    if given():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()  # for the main thread to act on it


@contextmanager
def on_notice(act: Callable[[], None], *numbers: int) -> Iterator[None]:
    """Has a driver call `act` when told by one of these signals, KeyboardInterrupt once more.

    Inside of a Ray session, whose beginning takes SIGTERM for itself. Only a process's main
    thread is ever told; in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True
        act()

    with ExitStack() as handlers:
        for number in numbers:
            handlers.enter_context(kept(number))
            signal.signal(number, handle)
        yield


@contextmanager
def kept(number: int) -> Iterator[None]:
    """Puts back after the block, in a main thread, what the process did at a signal before it."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before or signal.SIG_DFL)


def as_ctrl_c() -> None:
    """Does what Ctrl-C would, also in a shell's background, where that is ignored."""
    handle = signal.getsignal(signal.SIGINT)
    if not callable(handle):
        raise KeyboardInterrupt
    handle(signal.SIGINT, None)
