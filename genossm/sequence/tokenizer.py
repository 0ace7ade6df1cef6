"""Letters to token ids: the interface of all tokenizers, and the single-nucleotide one.

The vocabulary is that of Caduceus and HyenaDNA, so that their checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from genossm.core.errors import AlphabetError, ConfigError, TokenizerError
from genossm.core.strict import from_mapping

if TYPE_CHECKING:
    from genossm.sequence.bpe import BytePairTokenizer
    from genossm.sequence.kmer import KmerTokenizer

Ids = npt.NDArray[np.integer]
Letters = str | bytes | bytearray | memoryview | npt.NDArray[np.uint8]
SpecialTokens = Literal["sep", "cls_sep", "bos"]
OnUnknown = Literal["unk", "raise"]

_VOCAB: dict[str, int] = {
    "[CLS]": 0, "[SEP]": 1, "[BOS]": 2, "[MASK]": 3, "[PAD]": 4, "[RESERVED]": 5, "[UNK]": 6,
    "A": 7, "C": 8, "G": 9, "T": 10, "N": 11,
}  # fmt: skip
_NUCLEOTIDES = "ACGTN"
_COMPLEMENT_IDS = np.arange(16, dtype=np.uint8)
_COMPLEMENT_IDS[7:11] = (10, 9, 8, 7)
_COMPLEMENT_IDS.flags.writeable = False
# Blocks that stay in the second-level cache: a fifth faster than one pass over a megabase.
_BLOCK = 1 << 16


class Tokenizer(Protocol):
    """What models and loaders may ask of any tokenizer; token ids are small non-negative integers.

    A tokenizer that lacks a special token, or a complement, raises a TokenizerError that says so when it is asked.
    """

    @property
    def vocab(self) -> Mapping[str, int]: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def padded_vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def mask_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def complement_ids(self) -> npt.NDArray[np.integer]: ...

    def encode(self, sequence: Letters, *, add_special_tokens: bool = False) -> Ids: ...
    def decode(self, ids: Ids | Sequence[int]) -> str: ...
    def reverse_complement(self, ids: Ids) -> Ids: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NucleotideTokenizer:
    """One token a base: [CLS] 0, [SEP] 1, [BOS] 2, [MASK] 3, [PAD] 4, [RESERVED] 5, [UNK] 6, A 7, C 8, G 9, T 10, N 11.

    uppercase: read soft-masked letters as their base (Caduceus); if False they become [UNK] (HyenaDNA).
    special_tokens: what `add_special_tokens=True` adds: "sep" appends [SEP] (Caduceus), "cls_sep" puts [CLS] … [SEP]
        around (HyenaDNA's standalone tokenizer), "bos" puts [BOS] in front (causal models of ours).
    on_unknown: other letters become [UNK] (both originals), or "raise" an AlphabetError.
    Source: the tokenizers of Caduceus and HyenaDNA; tests hold their outputs.
    """

    uppercase: bool = True
    special_tokens: SpecialTokens = "sep"
    on_unknown: OnUnknown = "unk"

    # Without annotations: constants of the class, not fields of the dataclass.
    TYPE = "nucleotide"
    cls_id = 0
    sep_id = 1
    bos_id = 2
    mask_id = 3
    pad_id = 4
    unk_id = 6
    n_id = 11
    base_ids = (7, 8, 9, 10)
    vocab_size = 12
    padded_vocab_size = 16

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("special_tokens", self.special_tokens, get_args(SpecialTokens)),
            ("on_unknown", self.on_unknown, get_args(OnUnknown)),
        ):
            if value not in choices:
                raise ConfigError(f"{name}: got {value!r}, wanted one of {', '.join(choices)}.")

    @property
    def vocab(self) -> dict[str, int]:
        """Token to id, a fresh copy."""
        return dict(_VOCAB)

    @property
    def complement_ids(self) -> npt.NDArray[np.uint8]:
        """(16,) id of the complement of every id; specials, N and padding rows map to themselves. Read-only."""
        return _COMPLEMENT_IDS

    @property
    def lookup(self) -> bytes:
        """256 token ids, one an ASCII byte: what `encode` looks letters up in."""
        return _lookup_table(self.uppercase)

    def encode(
        self,
        sequence: Letters,
        *,
        add_special_tokens: bool = False,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Token ids (length,) uint8 of a sequence of ASCII letters, one id a letter (plus special tokens).

        out: contiguous uint8 array of the result's length to write into and return.
        Raises: AlphabetError for other letters under on_unknown="raise"; TokenizerError if `out` does not fit.
        """
        letters = ascii_bytes(sequence)
        front, back = self._specials() if add_special_tokens else ((), ())
        out = _allocate(len(letters) + len(front) + len(back), out)
        body = out[len(front) : len(front) + len(letters)]
        translate_into(letters, self.lookup, body)
        if self.on_unknown == "raise":
            _refuse_unknown(letters, body, self.unk_id)
        out[: len(front)] = front
        out[len(out) - len(back) :] = back
        return out

    def decode(self, ids: Ids | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Letters of token ids (length,); special tokens appear by name unless skipped.

        Raises: TokenizerError for an id outside the vocabulary, naming it and its place.
        """
        array = np.asarray(ids).reshape(-1)
        bad = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if bad.size:
            raise TokenizerError(
                f"Token id {int(array[bad[0]])} at position {int(bad[0])} is not in the vocabulary "
                f"(0 to {self.vocab_size - 1})."
            )
        if skip_special_tokens:
            array = array[array >= self.base_ids[0]]
        names = list(_VOCAB)
        if array.size and int(array.min()) >= self.base_ids[0]:
            return array.astype(np.uint8).tobytes().translate(_letter_table()).decode("ascii")
        return "".join(names[i] for i in array.tolist())

    def reverse_complement(self, ids: Ids) -> npt.NDArray[np.uint8]:
        """Token ids (..., length) of the other strand: reversed along the last axis and complemented."""
        return self.complement_ids[ids[..., ::-1]]

    def pad(self, ids: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.uint8]:
        """Token ids (length,), [PAD] on the left as the original tokenizers do.

        Raises: TokenizerError if `ids` is longer than `length` (nothing is cut off).
        """
        if len(ids) > length:
            raise TokenizerError(f"Cannot pad {len(ids)} tokens to {length}: choose a length of at least {len(ids)}.")
        return np.concatenate([np.full(length - len(ids), self.pad_id, dtype=np.uint8), ids])

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping that `from_dict` reads back to an equal tokenizer."""
        return {
            "type": self.TYPE,
            "uppercase": self.uppercase,
            "special_tokens": self.special_tokens,
            "on_unknown": self.on_unknown,
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> NucleotideTokenizer:
        """The inverse of `to_dict`. Raises: TokenizerError for another type, an unknown key or a wrong value."""
        kind = mapping.get("type")
        if kind != cls.TYPE:
            raise TokenizerError(f"Tokenizer type: got {kind!r}, wanted {cls.TYPE!r}.")
        try:
            return from_mapping(cls, {key: value for key, value in mapping.items() if key != "type"}, where="tokenizer")
        except ConfigError as error:
            raise TokenizerError(str(error)) from error

    def _specials(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return {"sep": ((), (self.sep_id,)), "cls_sep": ((self.cls_id,), (self.sep_id,)), "bos": ((self.bos_id,), ())}[
            self.special_tokens
        ]


def tokenizer_from_dict(mapping: Mapping[str, Any]) -> NucleotideTokenizer | KmerTokenizer | BytePairTokenizer:
    """The tokenizer that `to_dict` described, chosen by its "type".

    Raises: TokenizerError for an unknown type, key or value; MissingDependencyError for byte-pair without genossm[hf].
    """
    from genossm.sequence.bpe import BytePairTokenizer
    from genossm.sequence.kmer import KmerTokenizer

    kinds = {kind.TYPE: kind for kind in (NucleotideTokenizer, KmerTokenizer, BytePairTokenizer)}
    name = mapping.get("type")
    if not isinstance(name, str) or name not in kinds:
        hint = (
            " This is a tokenizer.json of Hugging Face: read it with BytePairTokenizer.from_hugging_face."
            if "type" not in mapping and "model" in mapping
            else ""
        )
        raise TokenizerError(
            f"Tokenizer type {name!r} is not known to this version. Known: {', '.join(map(repr, kinds))}.{hint}"
        )
    return kinds[name].from_dict(mapping)


def translate_into(letters: bytes | bytearray | memoryview, table: bytes, out: npt.NDArray[np.uint8]) -> None:
    """Write `table[letter]` for every byte of `letters` into `out` (length,) uint8, which may be a reversed view."""
    view = memoryview(letters)
    for start in range(0, len(view), _BLOCK):
        # A bytearray translates twice as fast as bytes, which look whether anything changed.
        block = bytearray(view[start : start + _BLOCK]).translate(table)
        out[start : start + _BLOCK] = np.frombuffer(block, dtype=np.uint8)


def ascii_bytes(sequence: Letters) -> bytes | bytearray | memoryview:
    """Letters of any kind of input, one byte each. Raises: TokenizerError for an array that is no uint8 (length,)."""
    if isinstance(sequence, str):
        # Letters beyond ASCII must stay one token each, so they become a byte that no table knows.
        return sequence.encode("ascii") if sequence.isascii() else _one_byte_each(sequence)
    if isinstance(sequence, np.ndarray):
        if sequence.dtype != np.uint8 or sequence.ndim != 1:
            raise TokenizerError(
                f"Cannot encode an array of {sequence.dtype} with shape {sequence.shape}: "
                "wanted ASCII letters as uint8 in one dimension."
            )
        return np.ascontiguousarray(sequence).data
    return sequence


def _one_byte_each(sequence: str) -> bytes:
    return bytes(min(ord(letter), 255) for letter in sequence)


def _allocate(length: int, out: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    if out is None:
        return np.empty(length, dtype=np.uint8)
    if out.dtype != np.uint8 or out.shape != (length,):
        raise TokenizerError(f"out: got {out.dtype} {out.shape}, wanted uint8 ({length},).")
    return out


def _refuse_unknown(letters: bytes | bytearray | memoryview, ids: npt.NDArray[np.uint8], unk_id: int) -> None:
    unknown = np.flatnonzero(ids == unk_id)
    if unknown.size:
        place = int(unknown[0])
        raise AlphabetError(
            f"Letter {chr(letters[place])!r} at position {place} (0-based) has no token; wanted A, C, G, T or N "
            f"({unknown.size} such letters in all). Pass on_unknown='unk' to read them as [UNK]."
        )


@lru_cache(maxsize=2)
def _lookup_table(uppercase: bool) -> bytes:
    table = bytearray([_VOCAB["[UNK]"]] * 256)
    for letter in _NUCLEOTIDES:
        table[ord(letter)] = _VOCAB[letter]
        if uppercase:
            table[ord(letter.lower())] = _VOCAB[letter]
    return bytes(table)


@lru_cache(maxsize=1)
def _letter_table() -> bytes:
    table = bytearray(256)
    for letter in _NUCLEOTIDES:
        table[_VOCAB[letter]] = ord(letter)
    return bytes(table)
