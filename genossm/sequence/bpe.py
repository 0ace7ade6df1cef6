"""Byte-pair tokens through Hugging Face `tokenizers` (genossm[hf])."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.core.errors import MissingDependencyError, TokenizerError
from genossm.sequence.alphabet import reverse_complement
from genossm.sequence.tokenizer import Ids, Letters, ascii_bytes

_NAMES = {
    "pad": ("[PAD]", "<pad>"), "mask": ("[MASK]", "<mask>"), "unk": ("[UNK]", "<unk>"),
    "bos": ("[BOS]", "<bos>", "<s>"),
}  # fmt: skip
_MULTIPLE = 8
# Every pair of bases, and long enough to be cut into several tokens.
_PROBE = "AACAGATCCGCTGGTTA" * 4


@dataclass(frozen=True)
class BytePairTokenizer:
    """Tokens of varying length, learnt by byte-pair encoding: what a Hugging Face tokenizer.json describes.

    definition: that file's content, JSON; use `from_hugging_face`.   uppercase: read soft-masked letters as their base.
    `add_special_tokens=True` adds what the file's post-processor adds. Letters without a token become the file's
    unknown token.
    There is no complement map: `complement_ids` and `reverse_complement` raise, and say why.
    Raises: MissingDependencyError without `tokenizers`; TokenizerError if the file is no byte-pair tokenizer of DNA.
    """

    definition: str
    uppercase: bool = True

    # Without annotation: a constant of the class, not a field of the dataclass.
    TYPE = "byte_pair"

    def __post_init__(self) -> None:
        _check_definition(self.definition)
        ids = self.encode(_PROBE)
        if self.decode(ids) != _PROBE:
            raise TokenizerError(
                f"The tokenizer does not give DNA back: {_PROBE[:17]!r}… becomes {self.decode(ids)[:40]!r}. "
                "Wanted a byte-pair tokenizer whose tokens, joined, are the sequence."
            )

    @classmethod
    def from_hugging_face(cls, content: str | Mapping[str, Any], *, uppercase: bool = True) -> BytePairTokenizer:
        """From the content of a tokenizer.json, as text or parsed.

        Truncation and padding that it may ask for are left out: nothing is ever cut off a window in silence.
        Raises: as the class.
        """
        try:
            mapping = json.loads(content) if isinstance(content, str) else dict(content)
        except ValueError as error:
            raise TokenizerError(f"tokenizer.json is no JSON: {error}.") from error
        if not isinstance(mapping, dict):
            raise TokenizerError(f"tokenizer.json: got a {type(mapping).__name__}, wanted a mapping.")
        return cls(json.dumps(mapping | {"truncation": None, "padding": None}, separators=(",", ":")), uppercase)

    @property
    def vocab(self) -> dict[str, int]:
        """Token to id, a fresh copy."""
        return dict(_engine(self.definition).get_vocab(with_added_tokens=True))

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return len(_tokens(self.definition))

    @property
    def padded_vocab_size(self) -> int:
        """`vocab_size` up to the next multiple of 8."""
        return -(-self.vocab_size // _MULTIPLE) * _MULTIPLE

    @property
    def pad_id(self) -> int:
        return self._special("pad")

    @property
    def mask_id(self) -> int:
        return self._special("mask")

    @property
    def bos_id(self) -> int:
        return self._special("bos")

    @property
    def unk_id(self) -> int:
        return self._special("unk")

    @property
    def complement_ids(self) -> npt.NDArray[np.integer]:
        """Raises: TokenizerError always, saying why there is none."""
        raise TokenizerError(_why_no_complement(self.definition))

    def reverse_complement(self, ids: Ids) -> Ids:
        """Raises: TokenizerError always, saying why ids cannot be complemented."""
        del ids
        raise TokenizerError(_why_no_complement(self.definition))

    def encode(self, sequence: Letters, *, add_special_tokens: bool = False) -> Ids:
        """Token ids (tokens,) int32 of a sequence of ASCII letters; fewer than letters."""
        letters = bytes(ascii_bytes(sequence))
        # Upper case of bytes: that of text would make two letters of some beyond ASCII.
        text = (letters.upper() if self.uppercase else letters).decode("latin-1")
        encoding = _engine(self.definition).encode(text, add_special_tokens=add_special_tokens)
        return np.array(encoding.ids, dtype=np.int32)

    def decode(self, ids: Ids | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Letters of token ids (tokens,), nothing between them; special tokens appear by name unless skipped.

        Raises: TokenizerError for an id outside the vocabulary, naming it and its place.
        """
        tokens, specials = _tokens(self.definition), _special_ids(self.definition)
        pieces = []
        for place, number in enumerate(np.asarray(ids).reshape(-1).tolist()):
            if not 0 <= number < len(tokens) or tokens[number] is None:
                raise TokenizerError(
                    f"Token id {number} at position {place} is not in the vocabulary (0 to {len(tokens) - 1})."
                )
            if not (skip_special_tokens and number in specials):
                pieces.append(tokens[number])
        return "".join(pieces)

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping that `from_dict` reads back to an equal tokenizer; it holds the whole tokenizer.json."""
        return {"type": self.TYPE, "uppercase": self.uppercase, "tokenizer": json.loads(self.definition)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> BytePairTokenizer:
        """The inverse of `to_dict`. Raises: TokenizerError for another type, an unknown key or a wrong value."""
        if mapping.get("type") != cls.TYPE:
            raise TokenizerError(f"Tokenizer type: got {mapping.get('type')!r}, wanted {cls.TYPE!r}.")
        unknown = sorted(mapping.keys() - {"type", "uppercase", "tokenizer"})
        if unknown:
            raise TokenizerError(f"tokenizer.{unknown[0]} is not a key. Known keys: type, uppercase, tokenizer.")
        uppercase, content = mapping.get("uppercase", True), mapping.get("tokenizer")
        if not isinstance(uppercase, bool) or not isinstance(content, Mapping):
            raise TokenizerError(
                f"tokenizer: got uppercase {uppercase!r} and a tokenizer of type {type(content).__name__}; wanted "
                "true or false, and the mapping of a Hugging Face tokenizer.json."
            )
        return cls.from_hugging_face(content, uppercase=uppercase)

    def _special(self, role: str) -> int:
        vocab = _engine(self.definition)
        for name in _NAMES[role]:
            if (number := vocab.token_to_id(name)) is not None:
                return number
        raise TokenizerError(f"This tokenizer has no token for {role}; looked for {', '.join(_NAMES[role])}.")


def _check_definition(definition: str) -> None:
    try:
        model = json.loads(definition)["model"]
        kind, dropout = model.get("type"), model.get("dropout")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TokenizerError(
            'This is no tokenizer.json of Hugging Face: it has no "model". Take the file that '
            "`tokenizers.Tokenizer.save` writes."
        ) from None
    if kind != "BPE":
        raise TokenizerError(f"tokenizer.json: got a model of type {kind!r}, wanted 'BPE'.")
    if dropout:
        raise TokenizerError(
            f"tokenizer.json: dropout is {dropout}, so a window would give other tokens each time. Set it to null."
        )


@lru_cache(maxsize=4)
def _engine(definition: str) -> Any:
    """The `tokenizers.Tokenizer`; kept outside the dataclass, which stays a plain value."""
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependencyError(
            "Byte-pair tokenizers need Hugging Face tokenizers, which is not installed. Install it with: "
            "pip install 'genossm[hf]'"
        ) from error
    try:
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"tokenizer.json cannot be read by tokenizers {tokenizers.__version__}: {error}."
        ) from error


@lru_cache(maxsize=4)
def _tokens(definition: str) -> tuple[Any, ...]:
    """Token by id; None where an id has none."""
    vocab = _engine(definition).get_vocab(with_added_tokens=True)
    tokens: list[str | None] = [None] * (max(vocab.values()) + 1)
    for token, number in vocab.items():
        tokens[number] = token
    return tuple(tokens)


@lru_cache(maxsize=4)
def _special_ids(definition: str) -> frozenset[int]:
    return frozenset(
        number for number, token in _engine(definition).get_added_tokens_decoder().items() if token.special
    )


@lru_cache(maxsize=4)
def _why_no_complement(definition: str) -> str:
    words = {token for token in _tokens(definition) if token and not set(token) - set("ACGT")}
    lacking = sorted(
        (word for word in words if reverse_complement(word) not in words), key=lambda word: (len(word), word)
    )
    example = (
        f"the reverse complement of {len(lacking):,} of {len(words):,} tokens is no token (of {lacking[0]}, say), and "
        if lacking
        else ""
    )
    return (
        f"Byte-pair tokens have no complement map: {example}pairs are merged in one order, so the other strand is cut "
        "at other places and into another number of tokens. Encode the reverse complement of the letters instead."
    )
