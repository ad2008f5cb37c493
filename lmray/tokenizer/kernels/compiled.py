"""How kernels are compiled for each pattern, and machine operations on bytes and words.

`load8`, `load64` and `load_word` read where they are told: their callers keep inside the array.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import overload

from lmray.native.compiled import INLINED, operation, place

BYTES = types.Array(types.uint8, 1, "C", readonly=True)
"""The type of text given to a kernel; arrays that can be written to pass as well."""


def allocating_helper(function: Any) -> Any:
    """Decorates a helper that makes arrays, for kernels that may."""
    return njit(function, nogil=True, forceinline=True)


def generic(function: Any) -> Any:
    """Decorates a function that Python calls: `compile_for` compiles it, once for each pattern."""
    return njit(function, cache=True, nogil=True)


def compile_for(function: Any, signature: Any) -> None:
    """Compiles a generic function for one more signature, or reads that from the cache."""
    function.disable_compile(False)
    function.compile(signature)
    function.disable_compile()


def by_rules(function: Any, kind: Any) -> Any:
    """Decorates what `function`, of those in scan.py, is where the rules are of type `kind`."""

    def register(implementation: Any) -> Any:
        @overload(function, strict=False, jit_options=INLINED)
        def choose(data: Any, start: Any, stop: Any, classes: Any, rules: Any) -> Any:
            return implementation if rules == kind else None

        return implementation

    return register


@operation
def load8(_context: Any, array: Any, _index: Any) -> Any:
    """array[index] as int64, for an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        spot = place(context, builder, signature, arguments)
        return builder.zext(builder.load(spot), ir.IntType(64))

    return types.int64(array, types.int64), generate


@operation
def load64(_context: Any, array: Any, _index: Any) -> Any:
    """The eight bytes array[index : index + 8] as one little-endian uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        spot = place(context, builder, signature, arguments)
        word = ir.IntType(64)
        return builder.load(builder.bitcast(spot, word.as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@operation
def load_word(_context: Any, array: Any, _index: Any) -> Any:
    """array[index], for an array of uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(place(context, builder, signature, arguments))

    return types.uint64(array, types.int64), generate


@operation
def within64(_context: Any, array: Any, _index: Any, _bits: Any, _low: Any, _count: Any) -> Any:
    """Which of 64 bytes from `index` on lie in a range once `bits` are set in each, as bits.

    The range begins at `low` and is of `count` values; vector instructions of any machine do it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, bits, low, count = arguments
        byte, vector = ir.IntType(8), ir.VectorType(ir.IntType(8), 64)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)

        def repeated(value: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(
                undefined, builder.trunc(value, byte), ir.Constant(ir.IntType(32), 0)
            )
            return builder.shuffle_vector(one, undefined, everywhere)

        spot = place(context, builder, signature, (array, index))
        found = builder.load(builder.bitcast(spot, vector.as_pointer()), align=1)
        above = builder.sub(builder.or_(found, repeated(bits)), repeated(low))
        inside = builder.icmp_unsigned("<", above, repeated(count))
        return builder.bitcast(inside, ir.IntType(64))

    integer = types.int64
    return types.uint64(array, integer, integer, integer, integer), generate


@operation
def trailing_zeros(_context: Any, _word: Any) -> Any:
    """How many of the lowest bits of a uint64 are 0; 64 for 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@operation
def bit_length(_context: Any, _word: Any) -> Any:
    """How many bits an int64 that is not negative needs; 0 for 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(ir.IntType(64), 64), zeros)

    return types.int64(types.int64), generate


@operation
def prefetch(_context: Any, array: Any, _index: Any) -> Any:
    """Asks for array[index] to be fetched from memory; any index will do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        spot = place(context, builder, signature, arguments)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        values = [ir.Constant(number, value) for value in (0, 3, 1)]
        builder.call(function, [builder.bitcast(spot, pointer), *values])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
