"""Causal log-likelihood ratios from one reference pass a window: each alternative continues from a stored state.

A window's inputs are [BOS], where the model has one, and then its letters; the output after input j speaks of the
next letter. States are kept only at multiples of `_STRIDE` inputs, since a cut costs calls of the scan: an
alternative takes the last one before its fork and reads the few letters in between again. What has been padded at
the end of a row cannot change what stands before it, the model being causal.

Where the horizon is shorter than it could be, some alleles of each call are run to the full one as well, beside the
others, and the difference is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm.inference import log_probabilities, require_causal, stream
from genossm.models import SequenceModel, StackState
from genossm.sequence import Placement
from genossm.variants.haplotypes import Contrast, Window, contrasts
from genossm.variants.measured import MeasuredError
from genossm.variants.options import ScoringOptions
from genossm.variants.reference import Letters

# A cut is a call more. On a CPU it costs less than the letters that it saves.
_STRIDE = {"cpu": 16}
_STRIDE_ELSEWHERE = 64
_WINDOWS = 32
_BATCH_LETTERS = 1 << 23
# On a CPU what a pass holds should stay in the caches: four alternatives of the usual horizon. A GPU wants more work.
_PASS_TOKENS = {"cpu": 2304}
_PASS_TOKENS_ELSEWHERE = 1 << 18
# Alternatives wait for others of like length to share a pass with.
_WAITING_TOKENS = {"cpu": 1 << 15}
_WAITING_TOKENS_ELSEWHERE = 1 << 20
_STATE_BYTES = {"cpu": 1 << 28}
_STATE_BYTES_ELSEWHERE = 1 << 30
_UNSCORED = 4
# The full horizon, a quarter of the context, is measured up to here.
_FULL_HORIZON = 1 << 18

_CODES = np.full(256, _UNSCORED, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGT", dtype=np.uint8)] = np.arange(4)

Row = tuple[Window, list[tuple[int, Contrast]]]
"""A window and what is asked in it: the contrasts with their numbers."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """Inputs to read on from a stored state; `codes[j]` is the letter to score after input j.

    number: the contrast's.   sign: 1 for the alternative, -1 for the reference haplotype.
    """

    number: int
    sign: float
    ids: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]


@dataclass
class _Waiting:
    """Branches that wait for a full batch, and their states in the same order."""

    branches: list[_Branch] = field(default_factory=list)
    states: list[StackState] = field(default_factory=list)
    nbytes: int = 0
    tokens: int = 0

    def add(self, branches: Sequence[_Branch], state: StackState) -> None:
        self.branches.extend(branches)
        self.states.append(state)
        self.nbytes += state.nbytes
        self.tokens += sum(len(branch.ids) for branch in branches)


class CausalPasses:
    """Runs placements through a causal model.

    batch_size: alternatives in one pass; None chooses by their length.
    measured: the error of the horizon so far; None where it is the full one.
    Raises: MethodError for a model that is not causal.
    """

    def __init__(
        self, model: SequenceModel, source: Letters, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        require_causal(model)
        self._model, self._source, self._options, self._batch_size = model, source, options, batch_size
        self._lead = int(model.begins_with_bos)
        device = model.device.type
        self._pass_tokens = _PASS_TOKENS.get(device, _PASS_TOKENS_ELSEWHERE)
        self._stride = _STRIDE.get(device, _STRIDE_ELSEWHERE)
        self._waiting_tokens = _WAITING_TOKENS.get(device, _WAITING_TOKENS_ELSEWHERE)
        self._state_bytes = _STATE_BYTES.get(device, _STATE_BYTES_ELSEWHERE)
        self._row_bytes = model.backbone.initial_state(1).nbytes
        self._sums = np.zeros(0)
        self._waiting = _Waiting()
        self._progress: Callable[[int], None] | None = None
        self._full = replace(options, horizon=_FULL_HORIZON)
        self.measured: MeasuredError | None = None
        if options.longest < self._full.longest:
            self.measured = MeasuredError({"horizon": options.longest, "against": f"{self._full.longest} letters"})

    def values(
        self, placements: Sequence[Placement], progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """(placements, strands, 1) log-likelihood ratios in nats; see `ratios`."""
        items = [item for one in placements for item in contrasts(one, self._options, self._source)]
        sample = self._sample(placements, items)
        full = [item for number in sample for item in contrasts(placements[number], self._full, self._source)]
        found = self.ratios(items + full, progress)
        strands = len(self._options.strands)
        values = found[: len(items)].reshape(len(placements), strands, 1)
        if self.measured is not None:
            for number, value in zip(sample, found[len(items) :].reshape(len(sample), strands).mean(axis=1)):
                self.measured.add(placements[number], float(values[number].mean() - value))
        return values

    def _sample(self, placements: Sequence[Placement], items: Sequence[Contrast]) -> list[int]:
        """Numbers of the alleles that are run to the full horizon as well."""
        if self.measured is None:
            return []
        # Counted alike on every device, so that every device measures the same alleles.
        spent = sum(item.count + _STRIDE_ELSEWHERE // 2 for item in items)
        windows: dict[Window, int] = defaultdict(int)
        for item in items:
            windows[item.window] = max(windows[item.window], self._inputs_needed([(0, item)]))
        price = len(self._options.strands) * self._full.longest
        spent += sum(windows.values())
        return self.measured.draw(placements, range(len(placements)), lambda _: price, spent, alone=True)

    @torch.inference_mode()
    def ratios(
        self, contrasts: Sequence[Contrast], progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """(contrasts,) Σ ln p(ALT) − Σ ln p(REF) in nats, the same whatever else is among `contrasts`.

        progress: called with the number of alternatives just done.
        """
        self._sums, self._waiting, self._progress = np.zeros(len(contrasts)), _Waiting(), progress
        by_window: dict[Window, list[tuple[int, Contrast]]] = defaultdict(list)
        for number, item in enumerate(contrasts):
            if item.count:
                by_window[item.window].append((number, item))
        # Windows of like length share a batch, so that little of it is padding.
        rows = sorted(by_window.items(), key=lambda row: -self._inputs_needed(row[1]))
        while rows:
            size = max(1, min(_WINDOWS, _BATCH_LETTERS // max(1, self._inputs_needed(rows[0][1]))))
            self._run_windows(rows[:size])
            rows = rows[size:]
        self._flush()
        return self._sums

    def _inputs_needed(self, items: list[tuple[int, Contrast]]) -> int:
        return max(item.start + item.count - 1 + self._lead for _, item in items)

    def _run_windows(self, rows: list[Row]) -> None:
        """Read each window once, set its alternatives on their way, and subtract what the reference says."""
        ids, codes = self._inputs(rows, max(self._inputs_needed(items) for _, items in rows))
        cuts: dict[int, list[tuple[int, _Branch]]] = defaultdict(list)
        for row, (_, items) in enumerate(rows):
            for number, item in items:
                cut = max(0, item.fork + self._lead - 1) // self._stride * self._stride
                cuts[cut].extend((row, branch) for branch in self._branches(number, item, ids[row], cut))
        self._set_off(cuts.pop(0, []), self._model.backbone.initial_state(len(rows)), range(len(rows)))
        sums = [_RunningSum(self._edges(items)) for _, items in rows]
        keep = {cut: sorted({row for row, _ in branches}) for cut, branches in cuts.items()}
        for start, scores, kept in self._read(ids, codes, None, keep):
            for one, values in zip(sums, scores.cpu().numpy()):
                one.add(start, values)
            for cut, state in kept.items():
                self._set_off(cuts.pop(cut), state, keep[cut])
        for (_, items), one in zip(rows, sums):
            for number, item in items:
                if item.ref is None:
                    first, last = self._scored(item)
                    self._sums[number] -= one[last] - one[first]

    def _scored(self, item: Contrast) -> tuple[int, int]:
        """The outputs that speak of an item's letters."""
        first = item.start + self._lead - 1
        return max(0, first), first + item.count

    def _edges(self, items: list[tuple[int, Contrast]]) -> set[int]:
        return {edge for _, item in items if item.ref is None for edge in self._scored(item)}

    def _inputs(self, rows: list[Row], length: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """(windows, length) token ids of the reference, and the code of the letter after each."""
        tokenizer = self._model.tokenizer
        ids = np.full((len(rows), length), tokenizer.n_id, dtype=np.uint8)
        codes = np.full((len(rows), length), _UNSCORED, dtype=np.uint8)
        ids[:, : self._lead] = tokenizer.bos_id
        for row, (window, _) in enumerate(rows):
            letters = window.letters(self._source, 0, length + 1 - self._lead)
            read = tokenizer.encode(letters[: length - self._lead])
            ids[row, self._lead : self._lead + len(read)] = read
            after = _letter_codes(letters[1 - self._lead :])
            codes[row, : len(after)] = after
        return ids, codes

    def _branches(self, number: int, item: Contrast, row: npt.NDArray[np.uint8], cut: int) -> Iterator[_Branch]:
        """The alternative from input `cut` on, and the reference haplotype where it is not the reference itself."""
        prefix = row[cut : item.fork + self._lead]
        for sign, letters in ((1.0, item.alt), (-1.0, item.ref)):
            if letters is None:
                continue
            ids = np.concatenate([prefix, self._model.tokenizer.encode(letters[:-1])])
            codes = np.full(len(ids), _UNSCORED, dtype=np.uint8)
            # Without [BOS] a window's very first letter follows no input: it is not scored.
            scored = min(item.count, len(ids))
            codes[len(ids) - scored :] = _letter_codes(letters)[len(letters) - scored :]
            yield _Branch(number, sign, ids, codes)

    def _set_off(self, branches: list[tuple[int, _Branch]], state: StackState, rows: Sequence[int]) -> None:
        """state: of the windows `rows`, in that order."""
        if branches:
            place = {row: number for number, row in enumerate(rows)}
            chosen = [place[row] for row, _ in branches]
            # Nearly always one allele has a state for itself; a copy of it would cost more than its share of a pass.
            own = state if chosen == list(range(len(rows))) else state.select(chosen)
            self._waiting.add([branch for _, branch in branches], own)
            if self._batch_size is None:
                enough = self._waiting.tokens >= self._waiting_tokens
            else:
                enough = len(self._waiting.branches) >= 4 * self._batch_size
            if enough or self._waiting.nbytes > self._state_bytes:
                self._flush()

    def _rows_for(self, length: int) -> int:
        return self._batch_size or max(1, self._pass_tokens // max(1, length))

    def _flush(self) -> None:
        """Run what waits, in batches of like length, and forget it."""
        branches, states = self._waiting.branches, self._waiting.states
        self._waiting = _Waiting()
        if not branches:
            return
        state = StackState.cat(states)
        order = sorted(range(len(branches)), key=lambda i: -len(branches[i].ids))
        while order:
            size = self._rows_for(len(branches[order[0]].ids))
            chosen, order = order[:size], order[size:]
            self._run_branches([branches[i] for i in chosen], state.select(chosen))

    def _run_branches(self, branches: list[_Branch], state: StackState) -> None:
        shape = (len(branches), len(branches[0].ids))
        ids = np.full(shape, self._model.tokenizer.n_id, dtype=np.uint8)
        codes = np.full(shape, _UNSCORED, dtype=np.uint8)
        for row, branch in enumerate(branches):
            ids[row, : len(branch.ids)] = branch.ids
            codes[row, : len(branch.ids)] = branch.codes
        sums = np.zeros(len(branches))
        for _, scores, _ in self._read(ids, codes, state, {}):
            sums += scores.double().sum(dim=1).cpu().numpy()
        for branch, value in zip(branches, sums):
            self._sums[branch.number] += branch.sign * value
        if self._progress:
            self._progress(sum(branch.sign > 0 for branch in branches))

    def _read(
        self,
        ids: npt.NDArray[np.uint8],
        codes: npt.NDArray[np.uint8],
        state: StackState | None,
        keep: dict[int, list[int]],
    ) -> Iterator[tuple[int, Tensor, Mapping[int, StackState]]]:
        """`(start, ln p of each coded letter from there on (batch, length), states by place)`, piece by piece.

        keep: places and the rows whose states are wanted there.
        """
        if not ids.shape[1]:
            return
        segments = stream(
            self._model,
            torch.from_numpy(ids),
            state=state,
            segment_length=max(self._stride, self._pass_tokens // len(ids)),
            cuts=tuple(self._full_at(keep)),
            keep=keep,
        )
        for segment in segments:
            end = segment.start + segment.logits.shape[1]
            values = log_probabilities(segment.logits)
            spoken = torch.from_numpy(codes[:, segment.start : end]).to(values.device, torch.int64)
            picked = values.gather(2, spoken.clamp(max=3).unsqueeze(2)).squeeze(2)
            yield segment.start, torch.where(spoken < _UNSCORED, picked, 0.0), segment.kept

    def _full_at(self, keep: dict[int, list[int]]) -> Iterator[int]:
        """Places at which as many states are held as may be at once."""
        held = 0
        for place in sorted(keep):
            held += len(keep[place]) * self._row_bytes
            if held > self._state_bytes:
                held = 0
                yield place


class _RunningSum:
    """Sums of a row of numbers up to some places, without keeping the row."""

    def __init__(self, edges: set[int]) -> None:
        self._edges = np.array(sorted(edges), dtype=np.int64)
        self._sums = np.zeros(len(self._edges))
        self._total = 0.0

    def add(self, start: int, values: npt.NDArray[np.float32]) -> None:
        """The numbers from `start` on."""
        sums = self._total + np.cumsum(values, dtype=np.float64)
        first, last = np.searchsorted(self._edges, (start, start + len(values)), side="right")
        self._sums[first:last] = sums[self._edges[first:last] - start - 1]
        self._total = float(sums[-1])

    def __getitem__(self, edge: int) -> float:
        """The sum of all numbers before `edge`."""
        return float(self._sums[np.searchsorted(self._edges, edge)])


def _letter_codes(letters: bytes) -> npt.NDArray[np.uint8]:
    return _CODES[np.frombuffer(letters, dtype=np.uint8)]
