"""Complement maps as files hold them: token id to the id of its complement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.core.errors import TokenizerError


def complement_ids_from_map(complement_map: Mapping[Any, Any], size: int) -> npt.NDArray[np.int64]:
    """(size,) complement of every id, from a mapping as JSON gives it: keys are ids as text, in any order.

    JSON sorted by key has its ids in the order "0", "1", "10", "11", "2": keys are read as numbers, never by place.
    Raises: TokenizerError if it has a key or a value that is no id, lacks an id, or is not its own inverse.
    """
    found = {_id(key, "key"): _id(value, f"value of {key!r}") for key, value in complement_map.items()}
    strange = sorted((found.keys() | set(found.values())) - set(range(size)))
    if strange:
        raise TokenizerError(
            f"complement_map: {strange[0]} is no id of a vocabulary of {size} tokens (0 to {size - 1}). "
            "The map belongs to another vocabulary."
        )
    lacking = sorted(set(range(size)) - found.keys())
    if lacking or len(found) != len(complement_map):
        raise TokenizerError(
            f"complement_map: got {len(complement_map)} entries, wanted one for each of {size} tokens"
            + (f"; id {lacking[0]} has none." if lacking else "; an id stands there twice.")
        )
    ids = np.array([found[i] for i in range(size)], dtype=np.int64)
    wrong = np.flatnonzero(ids[ids] != np.arange(size))
    if wrong.size:
        first = int(wrong[0])
        raise TokenizerError(
            f"complement_map is not its own inverse: it sends {first} to {ids[first]}, and {ids[first]} to "
            f"{ids[ids[first]]}. Complementing twice must change nothing."
        )
    return ids


def _id(value: Any, what: str) -> int:
    try:
        if isinstance(value, bool | float):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise TokenizerError(f"complement_map, {what}: got {value!r}, wanted a token id.") from None
