"""exp, softplus, sigmoid on `Lanes`, without branches and accurate to about one unit in the last place.

exp(x) = 2^k exp(r) with k = round(x / ln 2) and |r| <= ln(2) / 2. Its polynomial and that of log1p are minimax
in relative error (Remez exchange, 40 digits), with the constant term held at 1 so that decays near one are
rounded and not biased. Derivation and measured errors: README.md of selective_scan.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from genossm_kernels._cpu.lanes import Lanes, call_llvm

_LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
_LN_2_LOW = 2.3190468138462996e-17  # what _LN_2 lacks in float64; in float32 the lack (2e-9) is lost in the rounding

# Adding this to a small number leaves its nearest integer in the low bits.
_ROUND = {32: 12582912.0, 64: 6755399441055744.0}
_MANTISSA_BITS = {32: 23, 64: 52}
# Below the first, exp would be denormal and becomes 0; above the second it would overflow and stays there.
_EXP_RANGE = {32: (-87.33, 88.72), 64: (-708.3, 709.7)}
# exp(r) = 1 + r (c0 + r (c1 + ...)): relative error 2.6e-9 and 1.8e-17
_EXP = {
    32: (1.0, 0.500000043574, 0.166663648093, 0.041664773328, 0.00837905900123, 0.00140614216567),
    64: (
        1.0000000000000005616,
        0.50000000000000056003,
        0.16666666666657264815,
        0.041666666666573264409,
        0.0083333333377286560314,
        0.0013888888932470989582,
        0.0001984126147460782343,
        0.000024801504345599314541,
        2.7564261910464542619e-6,
        2.7626365496795405925e-7,
        2.2981327629803854853e-8,
    ),
}
# log1p(w) = 2 s (1 + y (c0 + y (c1 + ...))), s = w / (2 + w), y = s^2 <= 1/9: relative error 4.5e-9 and 1.3e-18
_LOG1P = {
    32: (0.33333208142931059999, 0.20010763615125266776, 0.14000902700905884317, 0.1400599312459076488),
    64: (
        0.33333333333333154844,
        0.20000000000077559514,
        0.14285714274058882108,
        0.11111111976828091596,
        0.090908722394319764006,
        0.076932741975258838283,
        0.066505606843335587059,
        0.060524724321764214104,
        0.041724860370310597861,
        0.085048775006144939331,
    ),
}


class _Expression:
    """An LLVM value that is written like a formula."""

    def __init__(self, builder: Any, lanes: Lanes, value: Any) -> None:
        self.builder, self.lanes, self.value = builder, lanes, value
        self.bits = lanes.element.bitwidth

    def _new(self, value: Any) -> _Expression:
        return _Expression(self.builder, self.lanes, value)

    def constant(self, value: float) -> _Expression:
        return self._new(self.lanes.constant(value))

    def _lift(self, other: _Expression | float) -> Any:
        return other.value if isinstance(other, _Expression) else self.lanes.constant(other)

    def __add__(self, other: _Expression | float) -> _Expression:
        return self._new(self.builder.fadd(self.value, self._lift(other)))

    def __sub__(self, other: _Expression | float) -> _Expression:
        return self._new(self.builder.fsub(self.value, self._lift(other)))

    def __mul__(self, other: _Expression | float) -> _Expression:
        return self._new(self.builder.fmul(self.value, self._lift(other)))

    def __truediv__(self, other: _Expression) -> _Expression:
        return self._new(self.builder.fdiv(self.value, other.value))

    def fma(self, factor: _Expression | float, addend: _Expression | float) -> _Expression:
        arguments = [self.value, self._lift(factor), self._lift(addend)]
        return self._new(call_llvm(self.builder, f"llvm.fmuladd.{self.lanes.suffix}", self.lanes.llvm, arguments))

    def magnitude(self) -> _Expression:
        return self._new(call_llvm(self.builder, f"llvm.fabs.{self.lanes.suffix}", self.lanes.llvm, [self.value]))

    def where(self, operator: str, bound: float, then: _Expression | float, otherwise: _Expression) -> _Expression:
        """`then` in the lanes where `self operator bound` holds; a NaN lane never does."""
        condition = self.builder.fcmp_ordered(operator, self.value, self.lanes.constant(bound))
        return self._new(self.builder.select(condition, self._lift(then), otherwise.value))

    def times_power_of_two(self, rounded: _Expression) -> _Expression:
        """self * 2^k, k in the low bits of `rounded`: added straight into the exponent."""
        integers = self.lanes.llvm_integers
        shift = ir.Constant(integers, [_MANTISSA_BITS[self.bits]] * self.lanes.count)
        exponent = self.builder.shl(self.builder.bitcast(rounded.value, integers), shift)
        total = self.builder.add(self.builder.bitcast(self.value, integers), exponent)
        return self._new(self.builder.bitcast(total, self.lanes.llvm))

    def polynomial(self, coefficients: tuple[float, ...]) -> _Expression:
        """1 + x (c0 + x (c1 + ...))"""
        value = self.constant(coefficients[-1])
        for coefficient in (*coefficients[-2::-1], 1.0):
            value = value.fma(self, coefficient)
        return value


def _exp(x: _Expression) -> _Expression:
    lowest, highest = _EXP_RANGE[x.bits]
    bounded = x.where(">", highest, highest, x)
    shifted = bounded.fma(_LOG2_E, _ROUND[x.bits])
    k = shifted - _ROUND[x.bits]
    r = k.fma(-_LN_2, bounded)
    if x.bits == 64:
        r = k.fma(-_LN_2_LOW, r)
    return x.where("<", lowest, 0.0, r.polynomial(_EXP[x.bits]).times_power_of_two(shifted))


def _softplus(x: _Expression) -> _Expression:
    """max(x, 0) + log1p(exp(-|x|)): relatively accurate also where it is tiny."""
    w = _exp(x.magnitude() * -1.0)
    s = w / (w + 2.0)
    log1p = (s + s) * (s * s).polynomial(_LOG1P[x.bits])
    return x.where(">", 0.0, x + log1p, log1p)


def _sigmoids(x: _Expression) -> tuple[_Expression, _Expression]:
    """sigmoid(x) and sigmoid(-x), both relatively accurate."""
    w = _exp(x.magnitude() * -1.0)
    one = x.constant(1.0)
    larger = one / (w + 1.0)
    smaller = w * larger
    return x.where("<", 0.0, smaller, larger), x.where("<", 0.0, larger, smaller)


def _sigmoid(x: _Expression) -> _Expression:
    return _sigmoids(x)[0]


def _silu(x: _Expression) -> _Expression:
    return x * _sigmoid(x)


def _silu_slope(x: _Expression) -> _Expression:
    """d silu(x) / dx = sigmoid(x) (1 + x sigmoid(-x))"""
    sigmoid, opposite = _sigmoids(x)
    return sigmoid * x.fma(opposite, 1.0)


def _function(formula: Any) -> Any:
    @intrinsic
    def function(_typing, x):
        def generate(_context, builder, _signature, arguments):
            return formula(_Expression(builder, x, arguments[0])).value

        return x(x), generate

    return function


exp = _function(_exp)
softplus = _function(_softplus)
sigmoid = _function(_sigmoid)
silu = _function(_silu)
silu_slope = _function(_silu_slope)
