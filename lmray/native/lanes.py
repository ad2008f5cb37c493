"""Sixteen fp32 numbers that are computed with at once, on any machine: a type for kernels.

Operations on (array, index) take an array of fp32 or the address of one, and do not look where it
ends: their callers keep inside.

numba's own loops are only as parallel as LLVM can prove them to be. What is written with these is
compiled to vector instructions of the machine's width (two of AVX2's, one of AVX-512's, four of
NEON's), and its accumulators stay in registers. `+ - * /` work on lanes, each rounding its result.
"""

import math
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import models, overload, register_model

from lmray.native.compiled import INLINED, operation, place

WIDTH = 16
ADDRESS = types.int64
"""Where a tensor's numbers begin: an array costs numba ten microseconds to take over."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_VECTOR, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)
_FUSED = ("contract",)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__("lanes")


LANES = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@operation
def load(_context: Any, array: Any, _index: Any) -> Any:
    """array[index : index + 16]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_vector_at(context, builder, signature, arguments), align=4)

    return LANES(array, types.int64), generate


@operation
def store(_context: Any, array: Any, _index: Any, _x: Any) -> Any:
    """array[index : index + 16] = x."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to = _vector_at(context, builder, signature, arguments)
        builder.store(arguments[2], to, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES), generate


@operation
def load_first(_context: Any, array: Any, _index: Any, _count: Any, _fill: Any) -> Any:
    """array[index : index + count] and `fill` in the other lanes; reads nothing beyond."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = [_VECTOR.as_pointer(), _INT, ir.VectorType(ir.IntType(1), WIDTH), _VECTOR]
        function = builder.module.declare_intrinsic(
            "llvm.masked.load.v16f32.p0", (), ir.FunctionType(_VECTOR, kinds)
        )
        at = _vector_at(context, builder, signature, arguments)
        mask = _first(builder, arguments[2])
        return builder.call(function, [at, _INT(4), mask, _repeated(builder, arguments[3])])

    return LANES(array, types.int64, types.int64, types.float32), generate


@operation
def store_first(_context: Any, array: Any, _index: Any, _x: Any, _count: Any) -> Any:
    """array[index : index + count] = the first lanes of x; writes nothing beyond."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = [_VECTOR, _VECTOR.as_pointer(), _INT, ir.VectorType(ir.IntType(1), WIDTH)]
        function = builder.module.declare_intrinsic(
            "llvm.masked.store.v16f32.p0", (), ir.FunctionType(ir.VoidType(), kinds)
        )
        to = _vector_at(context, builder, signature, arguments)
        mask = _first(builder, arguments[3])
        builder.call(function, [arguments[2], to, _INT(4), mask])
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES, types.int64), generate


@operation
def keep_first(_context: Any, _x: Any, _count: Any, _fill: Any) -> Any:
    """The first `count` lanes of x, none if it is negative, and `fill` in the others."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, count, fill = arguments
        return builder.select(_first(builder, count), x, _repeated(builder, fill))

    return LANES(LANES, types.int64, types.float32), generate


@operation
def spread(_context: Any, array: Any, _index: Any) -> Any:
    """array[index] in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _repeated(builder, builder.load(_number_at(context, builder, signature, arguments)))

    return LANES(array, types.int64), generate


@operation
def repeat(_context: Any, _x: Any) -> Any:
    """A number in every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _repeated(builder, arguments[0])

    return LANES(types.float32), generate


@operation
def number(_context: Any, array: Any, _index: Any) -> Any:
    """array[index]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_number_at(context, builder, signature, arguments))

    return types.float32(array, types.int64), generate


@operation
def whole_number(_context: Any, _address: Any, _index: Any) -> Any:
    """The int64 at an index from an address on."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        beginning, index = arguments
        pointer = builder.inttoptr(beginning, ir.IntType(64).as_pointer())
        return builder.load(builder.gep(pointer, [index]))

    return types.int64(types.int64, types.int64), generate


@operation
def put(_context: Any, array: Any, _index: Any, _x: Any) -> Any:
    """array[index] = x, a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _number_at(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(array, types.int64, types.float32), generate


@operation
def multiply_add(_context: Any, _x: Any, _y: Any, _z: Any) -> Any:
    """x * y + z in each lane, rounded once where the machine has such an instruction."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _fused(builder, *arguments)

    return LANES(LANES, LANES, LANES), generate


@operation
def root(_context: Any, _x: Any) -> Any:
    """The square root in each lane, correctly rounded."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = builder.module.declare_intrinsic("llvm.sqrt.v16f32", (), kind)
        return builder.call(function, arguments)

    return LANES(LANES), generate


@operation
def larger(_context: Any, _x: Any, _y: Any) -> Any:
    """The larger number in each lane; y where one of them is NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _larger(builder, *arguments)

    return LANES(LANES, LANES), generate


@operation
def largest(_context: Any, _x: Any) -> Any:
    """The largest number of all lanes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _folded(builder, arguments[0], lambda x, y: _larger(builder, x, y))

    return types.float32(LANES), generate


@operation
def total(_context: Any, _x: Any) -> Any:
    """The sum of all lanes: of halves, of their halves and so on."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _folded(builder, arguments[0], builder.fadd)

    return types.float32(LANES), generate


@operation
def exp2(_context: Any, _x: Any) -> Any:
    """2^x in each lane to a relative 2^-23; 0 below -126, 2^126 above 126.

    2^x = 2^n 2^f with n whole and |f| <= 1/2: adding 1.5 2^23 leaves n in the lowest bits of the
    sum, from where it is added to the exponent of 2^f, eight terms of its Taylor series. NaN stays.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        low, high = _everywhere(-126.0), _everywhere(126.0)
        below = builder.fcmp_ordered("<", arguments[0], low)
        x = builder.select(below, low, arguments[0])
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        shift = _everywhere(1.5 * 2**23)
        shifted = builder.fadd(x, shift)
        fraction = builder.fsub(x, builder.fsub(shifted, shift))
        power, *terms = (
            _everywhere(math.log(2) ** k / math.factorial(k)) for k in range(7, -1, -1)
        )
        for term in terms:
            power = _fused(builder, power, fraction, term)
        exponent = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * WIDTH))
        result = builder.add(builder.bitcast(power, _INTS), exponent)
        return builder.select(below, _everywhere(0.0), builder.bitcast(result, _VECTOR))

    return LANES(LANES), generate


def _arithmetic(symbol: Any, generated: str) -> None:
    @operation
    def compute(_context: Any, _x: Any, _y: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, generated)(*arguments)

        return LANES(LANES, LANES), generate

    @overload(symbol, strict=False, jit_options=INLINED)
    def choose(x: Any, y: Any) -> Any:
        if isinstance(x, _Lanes) and isinstance(y, _Lanes):
            return lambda x, y: compute(x, y)
        return None


for _symbol, _generated in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _generated)


def _number_at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    if not isinstance(signature.args[0], types.Integer):
        return place(context, builder, signature, arguments)
    beginning, index = arguments[:2]
    return builder.gep(builder.inttoptr(beginning, _FLOAT.as_pointer()), [index])


def _vector_at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    number = _number_at(context, builder, signature, arguments)
    return builder.bitcast(number, _VECTOR.as_pointer())


def _everywhere(value: float) -> Any:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(value)))] * WIDTH)


def _repeated(builder: Any, value: Any, kind: Any = _VECTOR) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, value, _INT(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * WIDTH))


def _first(builder: Any, count: Any) -> Any:
    """Which lanes are among the first `count`, an int64."""
    # Held to the width first, so that it fits the lanes' 32 bits.
    most = count.type(WIDTH)
    held = builder.select(builder.icmp_signed("<", count, most), count, most)
    counts = _repeated(builder, builder.trunc(held, _INT), _INTS)
    return builder.icmp_signed("<", ir.Constant(_INTS, list(range(WIDTH))), counts)


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=_FUSED), z, flags=_FUSED)


def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _folded(builder: Any, x: Any, join: Any) -> Any:
    width = WIDTH
    while width > 1:
        width //= 2
        halves = (
            builder.shuffle_vector(
                x,
                ir.Constant(x.type, ir.Undefined),
                ir.Constant(ir.VectorType(_INT, width), list(range(first, first + width))),
            )
            for first in (0, width)
        )
        x = join(*halves)
    return builder.extract_element(x, _INT(0))
