import threading
import time
from collections.abc import Iterator

import pytest

from lmray.errors import UsageError
from lmray.machine import available_cores
from lmray.threads import ordered_map, resolve


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(num_threads: int) -> None:
    def late_if_even(number: int) -> int:
        time.sleep(0.003 * (number % 2 == 0))
        return number * number

    found = list(ordered_map(late_if_even, range(40), num_threads=num_threads))
    assert found == [number * number for number in range(40)]


def test_several_threads_work_at_once_and_one_works_here() -> None:
    both = threading.Barrier(2, timeout=20)
    list(ordered_map(lambda _: both.wait(), range(6), num_threads=2))
    here = ordered_map(lambda _: threading.current_thread(), range(2), num_threads=1)
    assert set(here) == {threading.current_thread()}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_few_items_are_begun_ahead_of_what_is_taken(num_threads: int) -> None:
    begun = 0

    def items() -> Iterator[int]:
        nonlocal begun
        for number in range(1000):
            begun += 1
            yield number

    results = ordered_map(str, items(), num_threads=num_threads)
    assert begun == 0
    assert next(results) == "0"
    assert begun <= 2 * num_threads
    results.close()
    assert begun <= 2 * num_threads


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_error_comes_in_its_results_place(num_threads: int) -> None:
    done = []

    def fails_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        done.append(number)
        return number

    results = ordered_map(fails_at_three, range(1000), num_threads=num_threads)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(done) < 20


def test_the_number_of_threads() -> None:
    assert resolve("all") == available_cores() >= 1
    assert resolve(7) == 7
    with pytest.raises(UsageError, match="num_threads=0 is not positive"):
        resolve(0)
