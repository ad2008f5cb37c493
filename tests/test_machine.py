"""What a process keeps of the memory that it has freed, by the system's own counts."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import contextlib, pathlib, resource
from lmray.machine import freed_memory_kept

def faults():
    bytearray(1 << 26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        bytearray(1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])

before = faults()
with freed_memory_kept() as kept:
    assert kept
    within, held = faults(), resident()
after = faults()
print(before, within, after, held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_freed_memory_is_there_for_what_comes_next_and_given_back_at_the_end():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, within, after, given_back = map(int, done.stdout.split())
    pages = (1 << 26) // 4096
    assert within < pages / 100 < min(before, after)
    assert given_back > 0.9 * pages
