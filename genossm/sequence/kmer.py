"""Words of k bases as tokens, at every base or side by side."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from genossm.core.errors import AlphabetError, ConfigError, TokenizerError
from genossm.core.strict import from_mapping, to_mapping
from genossm.sequence.alphabet import BASES
from genossm.sequence.tokenizer import Ids, Letters, OnUnknown, SpecialTokens, ascii_bytes, translate_into

OUR_SPECIALS = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
_NEEDED = ("[UNK]", "[MASK]", "[PAD]")
_ADDED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sep": ((), ("[SEP]",)), "cls_sep": (("[CLS]",), ("[SEP]",)), "bos": (("[BOS]",), ()),
}  # fmt: skip
_LONGEST = 8
_NO_BASE = 4
# As the models' embeddings are padded.
_MULTIPLE = 8


@dataclass(frozen=True)
class KmerTokenizer:
    """One token for k bases; special tokens come first, then all k-mers in the order of `base_order`.

    k: 1 to 8.   overlapping: a token at every base (length − k + 1 of them), or side by side (length / k).
    specials: special tokens by id. [UNK], [MASK] and [PAD] must be there.   base_order: the order of the four bases.
    uppercase: read soft-masked letters as their base; if False a k-mer with one becomes [UNK].
    special_tokens: what `add_special_tokens=True` adds: "sep" appends [SEP], "cls_sep" puts [CLS] … [SEP] around,
        "bos" puts [BOS] in front.
    on_unknown: a k-mer with any letter but A, C, G, T becomes [UNK], or "raise" an AlphabetError.
    The complement of a token is the reverse complement of its k-mer, so that `reverse_complement(ids)` are the ids of
    the other strand.
    DNABERT's vocabulary: specials ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), base_order "ATCG", "cls_sep".
    Raises: ConfigError for an impossible value.
    """

    k: int
    overlapping: bool = True
    specials: tuple[str, ...] = OUR_SPECIALS
    base_order: str = "ACGT"
    uppercase: bool = True
    special_tokens: SpecialTokens = "sep"
    on_unknown: OnUnknown = "unk"

    # Without annotation: a constant of the class, not a field of the dataclass.
    TYPE = "kmer"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= _LONGEST:
            raise ConfigError(f"k: got {self.k}, wanted 1 to {_LONGEST} (there are 4^k tokens).")
        if sorted(self.base_order) != sorted(BASES.decode()):
            raise ConfigError(f"base_order: got {self.base_order!r}, wanted the letters A, C, G and T in some order.")
        for name, value, choices in (
            ("special_tokens", self.special_tokens, get_args(SpecialTokens)),
            ("on_unknown", self.on_unknown, get_args(OnUnknown)),
        ):
            if value not in choices:
                raise ConfigError(f"{name}: got {value!r}, wanted one of {', '.join(choices)}.")
        self._check_specials()

    def _check_specials(self) -> None:
        if len(set(self.specials)) != len(self.specials):
            raise ConfigError(f"specials: a token stands there twice in {', '.join(self.specials)}.")
        clash = [name for name in self.specials if len(name) == self.k and not set(name) - set(self.base_order)]
        if clash:
            raise ConfigError(f"specials: {clash[0]!r} is a {self.k}-mer. Call it otherwise.")
        front, back = _ADDED[self.special_tokens]
        lacking = [name for name in (*_NEEDED, *front, *back) if name not in self.specials]
        if lacking:
            raise ConfigError(f"specials: {', '.join(lacking)} must be among them, got {', '.join(self.specials)}.")

    @property
    def vocab(self) -> dict[str, int]:
        """Token to id, a fresh copy."""
        return {token: number for number, token in enumerate(self._tokens())}

    @property
    def vocab_size(self) -> int:
        """Special tokens and 4^k k-mers."""
        return len(self.specials) + 4**self.k

    @property
    def padded_vocab_size(self) -> int:
        """`vocab_size` up to the next multiple of 8."""
        return -(-self.vocab_size // _MULTIPLE) * _MULTIPLE

    @property
    def pad_id(self) -> int:
        return self.special_id("[PAD]")

    @property
    def mask_id(self) -> int:
        return self.special_id("[MASK]")

    @property
    def unk_id(self) -> int:
        return self.special_id("[UNK]")

    @property
    def bos_id(self) -> int:
        """Raises: TokenizerError if there is no [BOS] among `specials`."""
        return self.special_id("[BOS]")

    def special_id(self, name: str) -> int:
        """Id of a special token. Raises: TokenizerError if it is not among `specials`."""
        try:
            return self.specials.index(name)
        except ValueError:
            raise TokenizerError(
                f"This tokenizer has no {name}; its special tokens: {', '.join(self.specials)}."
            ) from None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of token ids: uint8 where they fit, else int32."""
        return np.dtype(np.uint8 if self.padded_vocab_size <= 256 else np.int32)

    @property
    def complement_ids(self) -> npt.NDArray[np.integer]:
        """(padded_vocab_size,) id of the reverse complement of every k-mer; all else maps to itself. Read-only."""
        return _complement_ids(self.k, len(self.specials), self.base_order, self.padded_vocab_size, self.dtype)

    def encode(self, sequence: Letters, *, add_special_tokens: bool = False) -> Ids:
        """Token ids of a sequence of ASCII letters: (length − k + 1,) overlapping, else (length / k,).

        Raises: TokenizerError if `length` is not divisible by k (side by side) or shorter than k (overlapping);
        AlphabetError under on_unknown="raise".
        """
        letters = ascii_bytes(sequence)
        self._check_length(len(letters))
        codes = np.empty(len(letters), dtype=np.uint8)
        translate_into(letters, _base_codes(self.base_order, self.uppercase), codes)
        unknown = codes == _NO_BASE
        any_unknown = bool(unknown.any())
        if any_unknown and self.on_unknown == "raise":
            _refuse_unknown(letters, unknown)
        codes &= 3
        ids = self._words(codes).astype(self.dtype) + self.dtype.type(len(self.specials))
        if any_unknown:
            ids[self._touched(unknown)] = self.unk_id
        if add_special_tokens:
            front, back = _ADDED[self.special_tokens]
            ends = [np.array([self.special_id(name) for name in names], dtype=self.dtype) for names in (front, back)]
            ids = np.concatenate([ends[0], ids, ends[1]])
        return ids

    def decode(self, ids: Ids | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Letters of token ids (length,); special tokens appear by name unless skipped.

        [UNK] and [MASK] stand for k bases: those that no overlapping neighbour tells read N.
        Raises: TokenizerError for an id outside the vocabulary, or overlapping k-mers that contradict each other.
        """
        array = np.asarray(ids, dtype=np.int64).reshape(-1)
        bad = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if bad.size:
            raise TokenizerError(
                f"Token id {int(array[bad[0]])} at position {int(bad[0])} is not in the vocabulary "
                f"(0 to {self.vocab_size - 1})."
            )
        stands_for_bases = (array >= len(self.specials)) | (array == self.unk_id) | (array == self.mask_id)
        pieces, start = [], 0
        for inside, group in itertools.groupby(stands_for_bases.tolist()):
            count = sum(1 for _ in group)
            part = array[start : start + count]
            if inside:
                pieces.append(self._letters(part, start))
            elif not skip_special_tokens:
                pieces.extend(self.specials[i] for i in part.tolist())
            start += count
        return "".join(pieces)

    def reverse_complement(self, ids: Ids) -> Ids:
        """Token ids (..., length) of the other strand: reversed along the last axis and complemented."""
        return self.complement_ids[ids[..., ::-1]]

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping that `from_dict` reads back to an equal tokenizer."""
        return {"type": self.TYPE, **to_mapping(self)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> KmerTokenizer:
        """The inverse of `to_dict`. Raises: TokenizerError for another type, an unknown key or a wrong value."""
        if mapping.get("type") != cls.TYPE:
            raise TokenizerError(f"Tokenizer type: got {mapping.get('type')!r}, wanted {cls.TYPE!r}.")
        try:
            return from_mapping(cls, {key: value for key, value in mapping.items() if key != "type"}, where="tokenizer")
        except ConfigError as error:
            raise TokenizerError(str(error)) from error

    @classmethod
    def from_vocabulary(
        cls, tokens: Sequence[str], *, overlapping: bool = True, special_tokens: SpecialTokens = "cls_sep"
    ) -> KmerTokenizer:
        """The tokenizer whose tokens by id are `tokens`, as the lines of a vocab.txt: specials, then all k-mers.

        Raises: TokenizerError if there is anything but specials and all k-mers of one k in the order of their letters.
        """
        specials = tuple(itertools.takewhile(lambda token: bool(set(token) - set(BASES.decode())), tokens))
        words = tuple(tokens[len(specials) :])
        k = len(words[0]) if words else 0
        # In order, the last letter runs through the four bases first.
        base_order = "".join(word[-1:] for word in words[:4])
        if len(words) != 4**k or k > _LONGEST:
            raise TokenizerError(
                f"Vocabulary: {len(words)} tokens follow the special ones, the first of them {words[:1]}; wanted "
                f"all 4^k k-mers of one k of at most {_LONGEST}, and nothing after them."
            )
        try:
            found = cls(k, overlapping, specials, base_order, special_tokens=special_tokens)
        except ConfigError as error:
            raise TokenizerError(f"Vocabulary: {error}") from error
        wrong = next((i for i, (a, b) in enumerate(zip(found._tokens(), tokens)) if a != b), None)
        if wrong is not None:
            raise TokenizerError(
                f"Vocabulary: token {wrong} is {tokens[wrong]!r}, where the order of bases {base_order} of the first "
                f"k-mers wants {found._tokens()[wrong]!r}. Sort the k-mers."
            )
        return found

    def _check_length(self, length: int) -> None:
        rest = length % self.k
        if not self.overlapping and rest:
            raise TokenizerError(
                f"A window of {length:,} bases is not divisible by k = {self.k}: {rest} would be left over. Choose "
                f"{length - rest:,} or {length - rest + self.k:,} bases, or overlapping k-mers."
            )
        if self.overlapping and 0 < length < self.k:
            raise TokenizerError(f"A window of {length} bases holds no {self.k}-mer. Choose at least {self.k} bases.")

    def _words(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """Number of every k-mer in base 4, of base codes (length,); 4^8 numbers just fit 16 bits."""
        columns = self._columns(codes)
        words = columns[0].astype(np.uint16)
        for column in columns[1:]:
            words <<= 2
            words |= column
        return words

    def _touched(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which k-mers hold a marked letter."""
        return np.logical_or.reduce(self._columns(marked))

    def _columns(self, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The j-th letter of every k-mer, for j = 0 to k − 1; views."""
        if not self.overlapping:
            return [values[j :: self.k] for j in range(self.k)]
        count = max(0, len(values) - self.k + 1)
        return [values[j : j + count] for j in range(self.k)]

    def _letters(self, ids: npt.NDArray[np.int64], first: int) -> str:
        """Letters of k-mers, [UNK] and [MASK] in a row, the first of them at position `first`."""
        words, known = ids - len(self.specials), ids >= len(self.specials)
        length = len(ids) + self.k - 1 if self.overlapping else len(ids) * self.k
        codes = np.full(length, _NO_BASE, dtype=np.uint8)
        for j, column in enumerate(self._columns(codes)):
            wanted = (words >> 2 * (self.k - 1 - j)) & 3
            clash = np.flatnonzero(known & (column != _NO_BASE) & (column != wanted))
            if clash.size:
                raise TokenizerError(
                    f"Token {self._tokens()[ids[clash[0]]]} at position {first + int(clash[0])} contradicts its "
                    "neighbours: overlapping k-mers must share their letters."
                )
            column[known] = wanted[known]
        letters = np.frombuffer(f"{self.base_order}N".encode(), dtype=np.uint8)
        return letters[codes].tobytes().decode("ascii")

    def _tokens(self) -> tuple[str, ...]:
        return _tokens(self.k, self.specials, self.base_order)


@lru_cache(maxsize=8)
def _tokens(k: int, specials: tuple[str, ...], base_order: str) -> tuple[str, ...]:
    return (*specials, *map("".join, itertools.product(base_order, repeat=k)))


@lru_cache(maxsize=8)
def _complement_ids(k: int, first: int, base_order: str, size: int, dtype: np.dtype[Any]) -> npt.NDArray[np.integer]:
    partner = np.array([base_order.index("TGCA"["ACGT".index(base)]) for base in base_order])
    words, turned = np.arange(4**k), np.zeros(4**k, dtype=np.int64)
    for j in range(k):
        turned = turned << 2 | partner[words >> 2 * j & 3]
    ids = np.arange(size, dtype=dtype)
    ids[first : first + 4**k] = turned + first
    ids.flags.writeable = False
    return ids


@lru_cache(maxsize=8)
def _base_codes(base_order: str, uppercase: bool) -> bytes:
    table = bytearray([_NO_BASE] * 256)
    for code, base in enumerate(base_order):
        table[ord(base)] = code
        if uppercase:
            table[ord(base.lower())] = code
    return bytes(table)


def _refuse_unknown(letters: bytes | bytearray | memoryview, unknown: npt.NDArray[np.bool_]) -> None:
    places = np.flatnonzero(unknown)
    raise AlphabetError(
        f"Letter {chr(letters[int(places[0])])!r} at position {int(places[0])} (0-based) is in no k-mer; wanted A, C, "
        f"G or T ({places.size} such letters in all). Pass on_unknown='unk' to read its k-mers as [UNK]."
    )
