"""In which order the combinations of a grid start: the middle first, then ever finer.

Early stopping judges a trial by those before it. In the order of a sorted axis the worst would come
first and be judged by nobody; in this one a few trials have been everywhere, and whoever comes
later meets competition.
"""

from collections.abc import Iterator

from lmray.sweeps.axes import Axes, Combination, at, combine, grid, identity, leaves

_POINTS = 16
"""Points of the sequence looked at for each combination; what none of them met comes at the end."""


def spread(axes: Axes) -> list[Combination]:
    """Every combination of axes whose values can be listed, in the order of a Halton sequence.

    It has a prime base for each list of values, 2 for the longest. [1, 2, 3, 4, 5] is 3 2 4 1 5.

    Raises UsageError for a range.
    """
    listed = {identity(each): each for each in grid(axes)}
    lengths = {name: len(leaf) for name, leaf in leaves(axes)}  # pyrefly: ignore[bad-argument-type]
    longest_first = sorted(lengths, key=lambda name: -lengths[name])
    bases = dict(zip(longest_first, _primes(), strict=False))
    found: dict[str, Combination] = {}
    for number in range(1, _POINTS * len(listed) + 1):
        if len(found) == len(listed):
            break
        made = combine(axes, lambda name, leaf, n=number: at(leaf, radical_inverse(n, bases[name])))
        found.setdefault(identity(made), made)
    return list((found | listed).values())


def radical_inverse(number: int, base: int) -> float:
    """The digits of `number` behind the point, in reverse: 1, 2, 3, 4 are 0.1, 0.01, 0.11, 0.001
    in base 2 (van der Corput 1935; Halton 1960 for several axes).
    """
    value, place = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        place /= base
        value += digit * place
    return value


def _primes() -> Iterator[int]:
    number = 1
    while True:
        number += 1
        if all(number % divisor for divisor in range(2, number)):
            yield number
