"""How kernels are compiled, and what gives them machine operations that Python has no word for."""

from typing import Any

from numba import njit
from numba.extending import intrinsic

_UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""What tells numba to leave its counting of references (NRT) out; it refuses what needs it."""

_COMMON: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
"""Without the interpreter's lock, and dividing by zero as the machine does."""

INLINED: Any = {"forceinline": True, **_COMMON, **_UNCOUNTED}
"""numba's options for what is compiled as a part of its caller."""


def kernel(signature: Any, *, allocates: bool = False) -> Any:
    """Decorates a function that Python calls: compiled when defined, or read from the cache.

    Unless it makes arrays, numba is told not to count references to them: it would do so wherever
    one is handed to a helper, which takes longer than what most helpers do.
    """
    counted = {} if allocates else _UNCOUNTED
    return njit(signature, cache=True, **_COMMON, **counted)


def helper(function: Any) -> Any:
    """Decorates a function that only kernels call: compiled as a part of them.

    It makes no arrays; its caller keeps alive those that it is given.
    """
    return njit(function, **INLINED)


def operation(function: Any) -> Any:
    """Decorates a function that says how to generate an operation's machine code."""
    return intrinsic(function)


def place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """For an operation on (array, index, ...): the address of array[index].

    Indexes are signed, so numba would test each for being negative; this does not, and what uses it
    reads and writes where it is told: its callers keep inside the array.
    """
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])
