"""The compiled inside of the copy model: one window, base by base. See `copy_model` for what it does and why."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from genossm.evaluation.kmers import slot_of

LENGTHS = (24, 16, 12)
COPIES = 2 * len(LENGTHS) + 1  # each length on either strand, and the copy in the training sequence
TRAINED_COPY = COPIES - 1
TABLE_BITS = 22
BUCKETS, MISSES = 12, 9
LOCAL_ORDER_CONTEXTS = 16
# Experts: the Markov model, local counts, the copies, then counts of the training sequence.
FIRST_COPY = 2
_RECENT = 0xFFFF
_RATE, _SLOWEST = 0.005, 1.0 / 1024
_LOCAL_DECAY_AT = 255.0


@njit(inline="always")
def _popcount(bits):
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@njit(inline="always")
def _bucket(length):
    """Bases that a copy has been right in a row: 0 .. 11, finer where there are few."""
    if length < 4:
        return length
    if length < 8:
        return 4 + (length - 4) // 2
    if length < 16:
        return 6 + (length - 8) // 4
    return min(8 + (length - 16) // 8, 11)


@njit
def _find_copy(codes, tables, which, stamp, start, here, word, k, inverted):
    """Index of the base that the latest copy in the window predicts from, or -1."""
    entry = tables[which, slot_of(word, TABLE_BITS)] - stamp
    if entry <= 0:
        return -1
    after = start + entry
    for i in range(k):
        if inverted:
            if codes[after - k + i] != 3 - codes[here - 1 - i]:
                return -1
        elif codes[after - k + i] != codes[here - k + i]:
            return -1
    if inverted:
        return after - k - 1 if after - k - 1 >= start else -1
    return after


@njit
def _look_for_copies(codes, tables, stamp, start, here, known, words, pointers, lengths, recent):
    """Give every copy expert whose last k bases were not all right the latest exact copy, if there is one."""
    for which in range(len(LENGTHS)):
        k = LENGTHS[which]
        if known < k:
            continue
        for inverted in range(2):
            expert = 2 * which + inverted
            if pointers[expert] >= 0 and lengths[expert] >= k:
                continue
            found = _find_copy(codes, tables, which, stamp, start, here, words[inverted, which], k, inverted)
            if found >= 0 and found != pointers[expert]:
                pointers[expert], lengths[expert], recent[expert] = found, k, 0
        tables[which, slot_of(words[0, which], TABLE_BITS)] = stamp + here - start


@njit
def _roll(words, code):
    for which in range(len(LENGTHS)):
        k = LENGTHS[which]
        mask = np.uint64((1 << (2 * k)) - 1)
        words[0, which] = ((words[0, which] << np.uint64(2)) | np.uint64(code)) & mask
        words[1, which] = (words[1, which] >> np.uint64(2)) | (np.uint64(3 - code) << np.uint64(2 * (k - 1)))


@njit
def _predict_copy(told, chance, markov, inputs):
    """ln p of an expert that expects one base with some chance, and the others as the Markov model does."""
    rest = np.log((1.0 - chance) / (1.0 - np.exp(markov[told])))
    for b in range(4):
        inputs[b] = markov[b] + rest
    inputs[told] = np.log(chance)


@njit
def _predict_counts(counts, strength, below, inputs):
    """ln p from counts, shrunk to what the order below says; returns whether anything was counted."""
    total = 0.0
    for b in range(4):
        total += counts[b]
    for b in range(4):
        inputs[b] = np.log((counts[b] + strength * np.exp(below[b])) / (total + strength))
    return total > 0.0


@njit(nogil=True)
def read_window(
    codes: NDArray[np.uint8],
    start: int,
    end: int,
    score_from: int,
    markov: NDArray[np.float32],
    trained_counts: NDArray[np.uint16],
    trained_copies: NDArray[np.int64],
    train: NDArray[np.uint8],
    weights: NDArray[np.float64],
    chances: NDArray[np.float64],
    seen: NDArray[np.float64],
    tables: NDArray[np.int64],
    stamp: int,
    result: NDArray[np.float64],
) -> None:
    """Predict each base from `start` to `end` from those since `start`; ln p of those from `score_from` on in `result`.

    markov: (length, 4) ln p.   trained_counts: (orders, length, 4).   trained_copies: (length,), see `latest_copies`.
    weights: (sets, experts), chances and seen: (copies, contexts), all learned on as bases are seen.
    tables: (lengths, slots); an entry above `stamp` belongs to this window.
    """
    orders = len(trained_counts)
    experts = FIRST_COPY + COPIES + orders
    inputs = np.zeros((experts, 4))
    active = np.zeros(experts, np.bool_)
    active[:FIRST_COPY] = True
    pointers, steps = np.full(COPIES, -1, np.int64), np.ones(COPIES, np.int64)
    lengths, recent = np.zeros(COPIES, np.int64), np.zeros(COPIES, np.int64)
    told, contexts = np.zeros(COPIES, np.int64), np.zeros(COPIES, np.int64)
    local = np.full((LOCAL_ORDER_CONTEXTS, 4), 0.5)
    words = np.zeros((2, len(LENGTHS)), np.uint64)
    scores, p = np.zeros(4), np.zeros(4)
    for which in range(len(LENGTHS)):
        steps[2 * which + 1] = -1
    context, known = 0, 0
    for here in range(start, end):
        code = codes[here]
        if code > 3:
            known = 0
            pointers[:] = -1
            continue
        _look_for_copies(codes, tables, stamp, start, here, known, words, pointers, lengths, recent)
        copy = trained_copies[here] if len(trained_copies) else 0
        if copy != 0 and (pointers[TRAINED_COPY] < 0 or lengths[TRAINED_COPY] < LENGTHS[0]):
            steps[TRAINED_COPY] = 1 if copy > 0 else -1
            pointers[TRAINED_COPY], lengths[TRAINED_COPY], recent[TRAINED_COPY] = abs(copy) - 1, LENGTHS[0], 0
        for b in range(4):
            inputs[0, b] = markov[here, b]
        total = local[context].sum()
        for b in range(4):
            inputs[1, b] = np.log(local[context, b] / total)
        longest = 0
        for j in range(COPIES):
            source = train if j == TRAINED_COPY else codes
            pointer = pointers[j]
            usable = pointer >= 0 and pointer < len(source) and source[pointer] < 4
            active[FIRST_COPY + j] = usable
            if not usable:
                pointers[j] = -1
                continue
            told[j] = source[pointer] if steps[j] > 0 else 3 - source[pointer]
            contexts[j] = _bucket(lengths[j]) * MISSES + min(_popcount(recent[j]), MISSES - 1)
            _predict_copy(told[j], chances[j, contexts[j]], markov[here], inputs[FIRST_COPY + j])
            longest = max(longest, 1 + _bucket(lengths[j]))
        highest = 0
        for order in range(orders):
            e = FIRST_COPY + COPIES + order
            below = inputs[e - 1] if order and active[e - 1] else inputs[0]
            active[e] = _predict_counts(trained_counts[order, here], 1.0, below, inputs[e])
            if active[e]:
                highest = order + 1
        row = weights[longest * (orders + 1) + highest]
        _mix(inputs, active, row, scores, p)
        if here >= score_from:
            result[here - score_from] = np.log(p[code])
        _learn_weights(inputs, active, row, p, code)
        for j in range(COPIES):
            if pointers[j] < 0:
                continue
            hit = told[j] == code
            _learn_chance(chances, seen, j, contexts[j], hit)
            lengths[j] = lengths[j] + 1 if hit else 0
            recent[j] = ((recent[j] << 1) | (0 if hit else 1)) & _RECENT
            pointers[j] += steps[j]
            if pointers[j] < (0 if j == TRAINED_COPY else start) or _popcount(recent[j]) >= MISSES - 1:
                pointers[j] = -1
        local[context, code] += 1.0
        if total > _LOCAL_DECAY_AT:
            for b in range(4):
                local[context, b] *= 0.5
        context = (context * 4 + code) % LOCAL_ORDER_CONTEXTS
        _roll(words, code)
        known += 1


@njit
def _mix(inputs, active, weights, scores, p):
    """Geometric mixture: p is the softmax of weighted ln p."""
    highest = -1e300
    for b in range(4):
        scores[b] = 0.0
        for e in range(len(active)):
            if active[e]:
                scores[b] += weights[e] * inputs[e, b]
        highest = max(highest, scores[b])
    total = 0.0
    for b in range(4):
        p[b] = np.exp(scores[b] - highest)
        total += p[b]
    for b in range(4):
        # What nobody expects still has a chance, so that no single base costs more than 16 bits.
        p[b] = (p[b] / total + 2.0**-16) / (1.0 + 4 * 2.0**-16)


@njit
def _learn_weights(inputs, active, weights, p, code):
    """One step down the gradient of -ln p(code)."""
    for e in range(len(active)):
        if active[e]:
            expected = 0.0
            for b in range(4):
                expected += p[b] * inputs[e, b]
            weights[e] += _RATE * (inputs[e, code] - expected)


@njit
def _learn_chance(chances, seen, j, context, hit):
    seen[j, context] += 1.0
    rate = max(1.0 / (seen[j, context] + 1.5), _SLOWEST)
    found = chances[j, context] + rate * ((1.0 if hit else 0.0) - chances[j, context])
    chances[j, context] = min(max(found, 1e-3), 1.0 - 1e-4)
