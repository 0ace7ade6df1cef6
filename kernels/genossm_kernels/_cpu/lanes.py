"""A vector type for Numba, so that a kernel says what becomes one vector instruction and nothing is left to luck.

`Lanes` is 512 bits of float32 or float64, lowered to LLVM's own vector type: LLVM emits one AVX-512, two AVX2 or
four NEON instructions for an operation on it. Memory is addressed by raw pointers and 64-bit element offsets,
which reads slices of larger tensors in place. Nothing here checks bounds: the callers' layouts are checked in Python.
"""

# ruff: noqa: ARG001  (Numba fixes the parameters of an intrinsic)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_BITS = 512
_INT32 = ir.IntType(32)


class Lanes(types.Type):
    """A vector of as many `element`s as fit in 512 bits."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.count = _BITS // element.bitwidth
        super().__init__(name=f"Lanes({element})")

    @property
    def llvm_element(self) -> ir.Type:
        return ir.FloatType() if self.element.bitwidth == 32 else ir.DoubleType()

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(self.llvm_element, self.count)

    @property
    def llvm_integers(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.element.bitwidth), self.count)

    @property
    def suffix(self) -> str:
        """How LLVM's intrinsics name this vector."""
        return f"v{self.count}f{self.element.bitwidth}"

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.llvm, [value] * self.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.llvm)


def _operation(definition: Any) -> Any:
    """Numba's `intrinsic`, which type checkers take for a function of the typing context."""
    return intrinsic(definition)


def call_llvm(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    """Call one of LLVM's intrinsic functions."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _splat(builder: Any, lanes: Lanes, value: Any) -> Any:
    undefined = ir.Constant(lanes.llvm, ir.Undefined)
    first = builder.insert_element(undefined, value, _INT32(0))
    everywhere = ir.Constant(ir.VectorType(_INT32, lanes.count), [0] * lanes.count)
    return builder.shuffle_vector(first, undefined, everywhere)


def _vector_address(builder: Any, lanes: Lanes, base: Any, offset: Any) -> Any:
    return builder.bitcast(builder.gep(base, [offset]), lanes.llvm.as_pointer())


def _first_lanes(builder: Any, lanes: Lanes, count: Any) -> Any:
    """A mask that is true in the first `count` lanes."""
    numbers = ir.Constant(ir.VectorType(_INT32, lanes.count), list(range(lanes.count)))
    short = builder.trunc(count, _INT32)
    limit = builder.insert_element(ir.Constant(numbers.type, ir.Undefined), short, _INT32(0))
    everywhere = ir.Constant(numbers.type, [0] * lanes.count)
    limit = builder.shuffle_vector(limit, ir.Constant(numbers.type, ir.Undefined), everywhere)
    return builder.icmp_signed("<", numbers, limit)


@_operation
def pointer(_typing, address, like):
    """`address` as a pointer to elements of the type of the number `like`."""
    kind = types.unliteral(like)

    def generate(context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], context.get_data_type(kind).as_pointer())

    return types.CPointer(kind)(types.int64, like), generate


@_operation
def integers(_typing, record):
    """A pointer to a record of 64-bit integers as a pointer to the first of them."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(record), generate


@_operation
def lane_count(_typing, like):
    """How many elements of the type of the number `like` make one `Lanes`."""
    count = Lanes(types.unliteral(like)).count

    def generate(_context, builder, _signature, arguments):
        return ir.IntType(64)(count)

    return types.int64(like), generate


@_operation
def element_size(_typing, like):
    """Bytes of one element of the type of the number `like`."""
    size = types.unliteral(like).bitwidth // 8

    def generate(_context, builder, _signature, arguments):
        return ir.IntType(64)(size)

    return types.int64(like), generate


@_operation
def shifted(_typing, base, offset):
    """The address of `base[offset]`."""

    def generate(_context, builder, _signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return base(base, types.int64), generate


@_operation
def get(_typing, base, offset):
    """The number at `base[offset]`."""

    def generate(_context, builder, _signature, arguments):
        return builder.load(builder.gep(arguments[0], [arguments[1]]), align=base.dtype.bitwidth // 8)

    return base.dtype(base, types.int64), generate


@_operation
def put(_typing, base, offset, value):
    """Set the number at `base[offset]`."""

    def generate(context, builder, _signature, arguments):
        builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]), align=base.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(base, types.int64, base.dtype), generate


@_operation
def take(_typing, base, offset):
    """Add one to the integer at `base[offset]` and return what it was: threads share work with it."""

    def generate(_context, builder, _signature, arguments):
        return builder.atomic_rmw("add", builder.gep(arguments[0], [arguments[1]]), ir.IntType(64)(1), "monotonic")

    return types.int64(base, types.int64), generate


@_operation
def load(_typing, base, offset, count):
    """The first `count` lanes (all if it is larger) from `base[offset:]`; the others are zero and not touched."""
    lanes = Lanes(base.dtype)

    def generate(_context, builder, _signature, arguments):
        address = _vector_address(builder, lanes, arguments[0], arguments[1])
        mask = _first_lanes(builder, lanes, arguments[2])
        alignment = _INT32(lanes.element.bitwidth // 8)
        name = f"llvm.masked.load.{lanes.suffix}.p0{lanes.suffix}"
        return call_llvm(builder, name, lanes.llvm, [address, alignment, mask, lanes.constant(0.0)])

    return lanes(base, types.int64, types.int64), generate


@_operation
def store(_typing, base, offset, value, count):
    """Write the first `count` lanes (all if it is larger) to `base[offset:]`."""
    lanes = value

    def generate(context, builder, _signature, arguments):
        address = _vector_address(builder, lanes, arguments[0], arguments[1])
        mask = _first_lanes(builder, lanes, arguments[3])
        alignment = _INT32(lanes.element.bitwidth // 8)
        name = f"llvm.masked.store.{lanes.suffix}.p0{lanes.suffix}"
        call_llvm(builder, name, ir.VoidType(), [arguments[2], address, alignment, mask])
        return context.get_dummy_value()

    return types.void(base, types.int64, value, types.int64), generate


@_operation
def load_all(_typing, base, offset):
    """All lanes from `base[offset:]`."""
    lanes = Lanes(base.dtype)

    def generate(_context, builder, _signature, arguments):
        address = _vector_address(builder, lanes, arguments[0], arguments[1])
        return builder.load(address, align=lanes.element.bitwidth // 8)

    return lanes(base, types.int64), generate


@_operation
def store_all(_typing, base, offset, value):
    """Write all lanes to `base[offset:]`."""
    lanes = value

    def generate(context, builder, _signature, arguments):
        address = _vector_address(builder, lanes, arguments[0], arguments[1])
        builder.store(arguments[2], address, align=lanes.element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(base, types.int64, value), generate


@_operation
def prefetch(_typing, base, offset):
    """Ask for the cache line of `base[offset]`; any address is allowed."""

    def generate(context, builder, _signature, arguments):
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), ir.IntType(8).as_pointer())
        call_llvm(builder, "llvm.prefetch.p0i8", ir.VoidType(), [address, _INT32(0), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(base, types.int64), generate


@_operation
def splat(_typing, value):
    """`value` in every lane."""
    lanes = Lanes(types.unliteral(value))

    def generate(_context, builder, _signature, arguments):
        return _splat(builder, lanes, arguments[0])

    return lanes(value), generate


@_operation
def total(_typing, value):
    """The sum of all lanes, always in the same order: halves onto halves."""
    lanes = value

    def generate(_context, builder, _signature, arguments):
        vector, count = arguments[0], lanes.count
        while count > 1:
            count //= 2
            low = ir.Constant(ir.VectorType(_INT32, count), list(range(count)))
            high = ir.Constant(ir.VectorType(_INT32, count), list(range(count, 2 * count)))
            vector = builder.fadd(
                builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high)
            )
        return builder.extract_element(vector, _INT32(0))

    return lanes.element(value), generate


@_operation
def totals(_typing, base):
    """As many vectors as one has lanes, from `base` on: lane i of the result is the sum of vector i.

    Adding neighbours of two vectors at a time takes a third of the instructions of that many `total`s.
    """
    lanes = Lanes(base.dtype)

    def generate(_context, builder, _signature, arguments):
        even = ir.Constant(ir.VectorType(_INT32, lanes.count), list(range(0, 2 * lanes.count, 2)))
        odd = ir.Constant(even.type, list(range(1, 2 * lanes.count, 2)))
        vectors = []
        for i in range(lanes.count):
            address = _vector_address(builder, lanes, arguments[0], ir.IntType(64)(i * lanes.count))
            vectors.append(builder.load(address, align=lanes.element.bitwidth // 8))
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [
                builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd)) for a, b in pairs
            ]
        return vectors[0]

    return lanes(base), generate


@_operation
def clear(_typing, target, count):
    """Set `count` vectors from `target` on to zero."""

    def generate(context, builder, _signature, arguments):
        address = builder.bitcast(arguments[0], ir.IntType(8).as_pointer())
        size = builder.mul(arguments[1], ir.IntType(64)(_BITS // 8))
        values = [address, ir.IntType(8)(0), size, ir.IntType(1)(0)]
        call_llvm(builder, "llvm.memset.p0i8.i64", ir.VoidType(), values)
        return context.get_dummy_value()

    return types.void(target, types.int64), generate


@_operation
def copy(_typing, target, source, count):
    """Copy `count` vectors to `target` from `source`, which lies elsewhere."""

    def generate(context, builder, _signature, arguments):
        addresses = [builder.bitcast(argument, ir.IntType(8).as_pointer()) for argument in arguments[:2]]
        size = builder.mul(arguments[2], ir.IntType(64)(_BITS // 8))
        call_llvm(builder, "llvm.memcpy.p0i8.p0i8.i64", ir.VoidType(), [*addresses, size, ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(target, source, types.int64), generate


@_operation
def add(_typing, a, b):
    def generate(_context, builder, _signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), generate


@_operation
def sub(_typing, a, b):
    def generate(_context, builder, _signature, arguments):
        return builder.fsub(*arguments)

    return a(a, b), generate


@_operation
def mul(_typing, a, b):
    def generate(_context, builder, _signature, arguments):
        return builder.fmul(*arguments)

    return a(a, b), generate


@_operation
def fma(_typing, a, b, c):
    """a * b + c, in one rounding where the machine has the instruction."""
    lanes = a

    def generate(_context, builder, _signature, arguments):
        return call_llvm(builder, f"llvm.fmuladd.{lanes.suffix}", lanes.llvm, list(arguments))

    return a(a, b, c), generate
