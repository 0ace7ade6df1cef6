"""Whether one way to compute is as exact as another that is trusted, for every tensor, and where it is not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

from torch import Tensor


def less_exact(
    found: Mapping[str, Tensor],
    trusted: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    *,
    rounding: float,
    times: float = 2.0,
    sequences: Collection[str] = (),
    stretches: int = 16,
) -> list[str]:
    """A line for whatever has an error above `times` that of `trusted`, the worst first; none where all is well.

    An error is the norm of the difference to `exact`, over the norm of that. rounding: what counts as the error of
    `trusted` where that is smaller, by luck.   sequences: names of tensors (batch, length, ...), which are looked at in
    so many `stretches` of their length as well, so that an error in one place is not lost among all the others.
    Raises: ValueError if the three do not have the same names.
    """
    if not found.keys() == trusted.keys() == exact.keys():
        names = sorted(found), sorted(trusted), sorted(exact)
        raise ValueError("There are tensors {}, to be compared with {} and {}; wanted the same names.".format(*names))
    lines: list[tuple[float, str]] = []
    for name, expected in exact.items():
        for place, part in _places(name, expected, stretches if name in sequences else 0):
            error, usual = (_error(tensor[part], expected[part]) for tensor in (found[name], trusted[name]))
            allowed = times * max(usual, rounding)
            if error <= allowed:
                continue
            # A NaN is on neither side of anything, and is the worst.
            ratio = math.inf if math.isnan(error / allowed) else error / allowed
            lines.append((ratio, f"{place}: error {error:.1e}, {ratio:.2f} times what {usual:.1e} of the other allows"))
    return [line for _, line in sorted(lines, reverse=True)]


def _places(name: str, tensor: Tensor, stretches: int) -> Iterator[tuple[str, tuple[slice, ...]]]:
    yield name, (slice(None),)
    edges = [number * tensor.shape[1] // stretches for number in range(stretches + 1)] if stretches else []
    for start, stop in itertools.pairwise(edges):
        if start < stop:
            yield f"{name}, positions {start} to {stop - 1}", (slice(None), slice(start, stop))


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())
