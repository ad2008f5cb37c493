"""What this process may use of the machine, and what it has used."""

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GB = 10**9


def available_cores() -> int:
    """CPU cores this process may use: those it was granted, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Most bytes of memory that this process has had at a time, since `forget_peak_memory`."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def forget_peak_memory() -> bool:
    """Begins the peak anew from what this process has now; False where the system cannot.

    Linux does it at a 5 in clear_refs (proc_pid_clear_refs(5)).
    """
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""mallopt's names, from glibc's malloc.h; its defaults are below."""

_TRIM_THRESHOLD, _MMAP_MAX = 128 * 1024, 65536


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within the block this process keeps the memory that it frees, for what it allocates next.

    glibc's malloc gives blocks of more than 32 MiB back to the system at once and gets them anew,
    page by page, each of which the system fills with zeros: up to an eighth of the CPU time of a
    training step, whose tensors are of the same sizes every time. Threads that start within the
    block, and later, share an arena that is there: one of their own would give its memory back all
    the same. At the end what is free is given back. Yields whether it is so: other systems stay as
    they are.
    """
    if platform.libc_ver()[0] != "glibc":
        yield False
        return
    libc = ctypes.CDLL(None)
    try:
        libc.mallopt(_M_ARENA_MAX, 1)
        # -1: no free top of the heap is too large to be kept. 0: no block has its own mapping.
        yield libc.mallopt(_M_TRIM_THRESHOLD, -1) == 1 and libc.mallopt(_M_MMAP_MAX, 0) == 1
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.malloc_trim(0)
