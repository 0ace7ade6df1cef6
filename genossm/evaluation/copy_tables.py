"""What a training sequence says about the places of a judged one: counts after long contexts, and the latest copy.

A table of all words of 16 bases and more would not fit in memory. Only those that stand in the judged sequence are ever
asked for, so only they are counted: the same numbers, exactly, in memory that the judged sequence decides.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from genossm.evaluation.kmers import EMPTY, enter_words, find, table_bits
from genossm.evaluation.markov import UNKNOWN

_MOST = 0xFFFF


@njit(nogil=True)
def words_before(codes: NDArray[np.uint8], k: int) -> NDArray[np.uint64]:
    """(length,) number of the k bases before each place as they stand; EMPTY where fewer than k known ones do."""
    words = np.full(len(codes), EMPTY, np.uint64)
    mask = np.uint64((1 << (2 * k)) - 1)
    word, known = np.uint64(0), 0
    for i in range(len(codes)):
        if known >= k:
            words[i] = word
        if codes[i] >= UNKNOWN:
            known = 0
        else:
            word = ((word << np.uint64(2)) | np.uint64(codes[i])) & mask
            known += 1
    return words


def counts_after(judged: NDArray[np.uint8], train: Iterable[NDArray[np.uint8]], k: int) -> NDArray[np.uint16]:
    """(length, 4) how often A, C, G, T followed, on either strand of `train`, the k bases before each place."""
    words = words_before(judged, k)
    bits = table_bits(len(words))
    keys = np.full(1 << bits, EMPTY, np.uint64)
    enter_words(words, keys, bits)
    counts = np.zeros((1 << bits, 4), np.uint16)
    for codes in train:
        _count_both_strands(codes, k, keys, counts, bits)
    return _rows(words, keys, counts, bits)


@njit(nogil=True)
def _add(keys, counts, bits, word, base):
    slot = find(keys, word, bits)
    if keys[slot] == word and counts[slot, base] < _MOST:
        counts[slot, base] += np.uint16(1)


@njit(nogil=True)
def _count_both_strands(
    codes: NDArray[np.uint8], k: int, keys: NDArray[np.uint64], counts: NDArray[np.uint16], bits: int
) -> None:
    mask = np.uint64((1 << (2 * k)) - 1)
    high = np.uint64(2 * (k - 1))
    forward, backward, known = np.uint64(0), np.uint64(0), 0
    for i in range(len(codes)):
        code = codes[i]
        if code >= UNKNOWN:
            known = 0
            continue
        if known >= k:
            _add(keys, counts, bits, forward, code)
        forward = ((forward << np.uint64(2)) | np.uint64(code)) & mask
        backward = (backward >> np.uint64(2)) | (np.uint64(3 - code) << high)
        known += 1
        if known > k:
            # On the other strand the base before these k is the one that follows them.
            _add(keys, counts, bits, backward, 3 - codes[i - k])


@njit(nogil=True)
def _rows(
    words: NDArray[np.uint64], keys: NDArray[np.uint64], counts: NDArray[np.uint16], bits: int
) -> NDArray[np.uint16]:
    rows = np.zeros((len(words), 4), np.uint16)
    for i in range(len(words)):
        if words[i] != EMPTY:
            rows[i] = counts[find(keys, words[i], bits)]
    return rows


def latest_copies(judged: NDArray[np.uint8], train: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """(length,) where in `train` the base stands that followed the last copy of the k bases before each place.

    p + 1 for a copy as it stands that base p follows, -(p + 1) for one of the other strand, in front of which base p
    stands (its complement follows); 0 where there is none. Of copies on both strands the one farther on counts.
    """
    words = words_before(judged, k)
    bits = table_bits(len(words))
    keys = np.full(1 << bits, EMPTY, np.uint64)
    enter_words(words, keys, bits)
    latest = np.zeros(1 << bits, np.int64)
    _note_both_strands(train, k, keys, latest, bits)
    return _entries(words, keys, latest, bits)


@njit(nogil=True)
def _note_both_strands(
    codes: NDArray[np.uint8], k: int, keys: NDArray[np.uint64], latest: NDArray[np.int64], bits: int
) -> None:
    mask = np.uint64((1 << (2 * k)) - 1)
    high = np.uint64(2 * (k - 1))
    forward, backward, known = np.uint64(0), np.uint64(0), 0
    for i in range(len(codes)):
        code = codes[i]
        if code >= UNKNOWN:
            known = 0
            continue
        if known >= k:
            slot = find(keys, forward, bits)
            if keys[slot] == forward:
                latest[slot] = i + 1
        forward = ((forward << np.uint64(2)) | np.uint64(code)) & mask
        backward = (backward >> np.uint64(2)) | (np.uint64(3 - code) << high)
        known += 1
        if known > k:
            slot = find(keys, backward, bits)
            if keys[slot] == backward:
                latest[slot] = -(i - k + 1)


@njit(nogil=True)
def _entries(
    words: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.int64], bits: int
) -> NDArray[np.int64]:
    found = np.zeros(len(words), np.int64)
    for i in range(len(words)):
        if words[i] != EMPTY:
            found[i] = values[find(keys, words[i], bits)]
    return found
