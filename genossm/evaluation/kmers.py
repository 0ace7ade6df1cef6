"""Words of up to 31 bases as numbers, on both strands, in open hash tables: compiled, a pass a sequence.

A word's number has two bits a base, the first base highest. The canonical word is the lesser of a word and its reverse
complement, so that both strands count as one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNKNOWN = 4


def table_bits(entries: int) -> int:
    """log2 of a table's size at which so many entries leave half of it free."""
    return max(10, int(2 * entries - 1).bit_length())


@njit(inline="always")
def slot_of(key, bits):
    """Where a key's search begins in a table of 2^bits slots."""
    return np.int64((np.uint64(key) * _GOLDEN) >> np.uint64(64 - bits))


@njit(inline="always")
def find(keys, key, bits):
    """The slot that holds `key`, or the free one where it belongs."""
    slot = slot_of(key, bits)
    last = (1 << bits) - 1
    while keys[slot] != EMPTY and keys[slot] != key:
        slot = (slot + 1) & last
    return slot


@njit(nogil=True)
def canonical_words(codes: NDArray[np.uint8], k: int) -> NDArray[np.uint64]:
    """(length,) canonical word of the k bases that end at each place; EMPTY where fewer than k known ones do."""
    words = np.full(len(codes), EMPTY, np.uint64)
    mask = np.uint64((1 << (2 * k)) - 1)
    high = np.uint64(2 * (k - 1))
    forward, backward, known = np.uint64(0), np.uint64(0), 0
    for i in range(len(codes)):
        code = codes[i]
        if code >= _UNKNOWN:
            known = 0
            continue
        forward = ((forward << np.uint64(2)) | np.uint64(code)) & mask
        backward = (backward >> np.uint64(2)) | (np.uint64(3 - code) << high)
        known += 1
        if known >= k:
            words[i] = min(forward, backward)
    return words


@njit(nogil=True)
def enter_words(words: NDArray[np.uint64], keys: NDArray[np.uint64], bits: int) -> None:
    """Put every word into the table `keys` of 2^bits slots, once."""
    for word in words:
        if word != EMPTY:
            keys[find(keys, word, bits)] = word


@njit(nogil=True)
def count_entered(words: NDArray[np.uint64], keys: NDArray[np.uint64], counts: NDArray[np.uint32], bits: int) -> None:
    """Add the occurrences of `words` to `counts`, of those that the table holds alone."""
    for word in words:
        if word != EMPTY:
            slot = find(keys, word, bits)
            if keys[slot] == word:
                counts[slot] += np.uint32(1)


@njit(nogil=True)
def look_up(
    words: NDArray[np.uint64], keys: NDArray[np.uint64], counts: NDArray[np.uint32], bits: int
) -> NDArray[np.uint32]:
    """(length,) count of each word, 0 of absent ones."""
    found = np.zeros(len(words), np.uint32)
    for i in range(len(words)):
        if words[i] != EMPTY:
            slot = find(keys, words[i], bits)
            if keys[slot] == words[i]:
                found[i] = counts[slot]
    return found


@njit(nogil=True)
def bases_since(words: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """(length,) how many places before each one the same word ended last; 0 where it never did."""
    keys = np.full(1 << bits, EMPTY, np.uint64)
    last = np.zeros(1 << bits, np.int64)
    since = np.zeros(len(words), np.int64)
    for i in range(len(words)):
        if words[i] == EMPTY:
            continue
        slot = find(keys, words[i], bits)
        if keys[slot] == words[i]:
            since[i] = i - last[slot]
        keys[slot] = words[i]
        last[slot] = i
    return since
