"""k-mers against their definition, a loop over the sequence."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import AlphabetError, ConfigError, TokenizerError
from genossm.sequence import KmerTokenizer, reverse_complement, tokenizer_from_dict
from genossm.testing.strategies import dna

DNABERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KS = st.integers(1, 8)
ORDERS = st.permutations("ACGT").map("".join)


def by_definition(tokenizer: KmerTokenizer, sequence: str) -> list[int]:
    step = 1 if tokenizer.overlapping else tokenizer.k
    words = [sequence[i : i + tokenizer.k] for i in range(0, len(sequence) - tokenizer.k + 1, step)]
    return [tokenizer.vocab.get(word, tokenizer.unk_id) for word in words]


@given(k=KS, order=ORDERS)
def test_vocabulary_is_specials_then_every_kmer_in_order(k: int, order: str) -> None:
    tokenizer = KmerTokenizer(k, base_order=order)
    names = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    assert names == [*tokenizer.specials, *map("".join, itertools.product(order, repeat=k))]
    assert tokenizer.vocab_size == len(names)
    assert tokenizer.padded_vocab_size % 8 == 0
    assert 0 <= tokenizer.padded_vocab_size - len(names) < 8


@given(k=KS, order=ORDERS, overlapping=st.booleans(), sequence=dna(0, 120, letters="ACGTNacgtR"), upper=st.booleans())
def test_tokens_are_those_of_the_definition(k: int, order: str, overlapping: bool, sequence: str, upper: bool) -> None:
    tokenizer = KmerTokenizer(k, overlapping, base_order=order, uppercase=upper)
    if overlapping:
        sequence = sequence if len(sequence) >= k else ""
    else:
        sequence = sequence[: len(sequence) // k * k]
    expected = by_definition(tokenizer, sequence.upper() if upper else sequence)
    letters = sequence.encode()
    for given_as in (sequence, letters, bytearray(letters), np.frombuffer(letters, dtype=np.uint8)):
        ids = tokenizer.encode(given_as)
        assert ids.tolist() == expected
        assert ids.dtype == (np.uint8 if k <= 3 else np.int32)


@given(k=KS, order=ORDERS, overlapping=st.booleans(), sequence=dna(8, 160, letters="ACGTN"))
def test_reverse_complement_of_ids_is_that_of_letters(k: int, order: str, overlapping: bool, sequence: str) -> None:
    tokenizer = KmerTokenizer(k, overlapping, base_order=order)
    sequence = sequence[: len(sequence) // k * k]
    ids, other = tokenizer.encode(sequence), tokenizer.encode(reverse_complement(sequence))
    assert np.array_equal(tokenizer.reverse_complement(ids), other)
    assert np.array_equal(tokenizer.reverse_complement(np.stack([ids, other])), np.stack([other, ids]))


@given(k=KS, order=ORDERS)
def test_complement_is_the_reverse_complement_of_each_kmer(k: int, order: str) -> None:
    tokenizer = KmerTokenizer(k, base_order=order)
    complement, vocab = tokenizer.complement_ids, tokenizer.vocab
    assert len(complement) == tokenizer.padded_vocab_size
    assert np.array_equal(complement[complement], np.arange(len(complement)))
    for word, number in itertools.islice(vocab.items(), len(tokenizer.specials), None, max(1, 4**k // 200)):
        assert complement[number] == vocab[reverse_complement(word)]
    others = [*range(len(tokenizer.specials)), *range(tokenizer.vocab_size, tokenizer.padded_vocab_size)]
    assert [int(complement[i]) for i in others] == others
    with pytest.raises(ValueError, match="read-only"):
        complement[0] = 1


@given(k=KS, overlapping=st.booleans(), sequence=dna(8, 120, letters="ACGTN"))
def test_decoding_gives_back_every_base_that_a_known_kmer_holds(k: int, overlapping: bool, sequence: str) -> None:
    tokenizer = KmerTokenizer(k, overlapping)
    sequence = sequence[: len(sequence) // k * k]
    step = 1 if overlapping else k
    known: set[int] = set()
    for start in range(0, len(sequence) - k + 1, step):
        if "N" not in sequence[start : start + k]:
            known.update(range(start, start + k))
    expected = "".join(letter if place in known else "N" for place, letter in enumerate(sequence))
    ids = tokenizer.encode(sequence)
    assert tokenizer.decode(ids) == expected
    marked = tokenizer.encode(sequence, add_special_tokens=True)
    assert tokenizer.decode(marked) == expected + "[SEP]"
    assert tokenizer.decode(marked, skip_special_tokens=True) == expected


def test_special_tokens_in_the_order_of_dnabert() -> None:
    tokenizer = KmerTokenizer(3, specials=DNABERT_SPECIALS, base_order="ATCG", special_tokens="cls_sep")
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 4)
    # AAA 5, AAT 6, AAC 7, AAG 8, ATA 9: T comes second.
    assert tokenizer.encode("AATA", add_special_tokens=True).tolist() == [2, 6, 9, 3]
    assert tokenizer.decode([2, 6, 9, 3]) == "[CLS]AATA[SEP]"
    with pytest.raises(TokenizerError, match=r"has no \[BOS\]; its special tokens: \[PAD\], \[UNK\]"):
        _ = tokenizer.bos_id
    ours = KmerTokenizer(3, special_tokens="bos")
    assert ours.encode("AAA", add_special_tokens=True).tolist() == [ours.bos_id, 7] == [2, 7]


def test_a_mask_is_read_from_its_neighbours() -> None:
    tokenizer = KmerTokenizer(3)
    ids = tokenizer.encode("ACGTACG").copy()
    ids[2] = tokenizer.mask_id
    assert tokenizer.decode(ids) == "ACGTACG"
    ids[1:5] = tokenizer.mask_id
    assert tokenizer.decode(ids) == "ACGNNNN"
    assert KmerTokenizer(3, overlapping=False).decode([3, 7]) == "NNNAAA"


def test_overlapping_kmers_that_contradict_each_other_are_refused() -> None:
    vocab = KmerTokenizer(3).vocab
    with pytest.raises(TokenizerError, match="Token ACG at position 0 contradicts its neighbours"):
        KmerTokenizer(3).decode([vocab["ACG"], vocab["GTA"]])
    assert KmerTokenizer(3, overlapping=False).decode([vocab["ACG"], vocab["GTA"]]) == "ACGGTA"


@pytest.mark.parametrize(
    ("tokenizer", "length", "message"),
    [
        (
            KmerTokenizer(6, overlapping=False),
            1000,
            "window of 1,000 bases is not divisible by k = 6: 4 would be left over. Choose 996 or 1,002 bases, or "
            "overlapping k-mers",
        ),
        (KmerTokenizer(6, overlapping=False), 5, "5 bases is not divisible by k = 6"),
        (KmerTokenizer(6), 5, "window of 5 bases holds no 6-mer. Choose at least 6 bases"),
    ],
)
def test_windows_that_do_not_fit_are_refused(tokenizer: KmerTokenizer, length: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer.encode("A" * length)


@pytest.mark.parametrize("ids", [[4103], [-1]])
def test_decoding_foreign_ids_is_an_error(ids: list[int]) -> None:
    with pytest.raises(TokenizerError, match=rf"id {ids[0]} at position 0 is not in the vocabulary \(0 to 4102\)"):
        KmerTokenizer(6).decode(ids)


def test_strict_tokenizer_names_the_letter() -> None:
    strict = KmerTokenizer(2, on_unknown="raise")
    assert strict.encode("acG").tolist() == KmerTokenizer(2).encode("ACG").tolist()
    with pytest.raises(AlphabetError, match=r"'N' at position 2 .* \(2 such letters in all\)"):
        strict.encode("ACNRT")


@given(k=KS, order=ORDERS, overlapping=st.booleans(), added=st.sampled_from(["sep", "cls_sep"]))
def test_vocabulary_file_and_dict_round_trip(k: int, order: str, overlapping: bool, added: Any) -> None:
    tokenizer = KmerTokenizer(k, overlapping, DNABERT_SPECIALS, order, special_tokens=added)
    assert (
        KmerTokenizer.from_vocabulary(list(tokenizer.vocab), overlapping=overlapping, special_tokens=added) == tokenizer
    )
    mapping = json.loads(json.dumps(tokenizer.to_dict()))
    assert mapping["type"] == "kmer"
    assert tokenizer_from_dict(mapping) == tokenizer == pickle.loads(pickle.dumps(tokenizer))
    assert hash(tokenizer) == hash(tokenizer_from_dict(mapping))


TWO_MERS = [*DNABERT_SPECIALS, *map("".join, itertools.product("ACGT", repeat=2))]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "wanted all 4\\^k k-mers of one k"),
        (TWO_MERS[:-1], "15 tokens follow the special ones"),
        ([*TWO_MERS, "N"], "17 tokens follow the special ones"),
        ([*TWO_MERS[:-2], "TT", "TG"], "token 19 is 'TT', where the order of bases ACGT .* wants 'TG'"),
        ([*TWO_MERS[:6], *TWO_MERS[5:-1]], "base_order: got 'AACG'"),
        (TWO_MERS[1:], r"\[PAD\] must be among them"),
    ],
)
def test_vocabularies_of_other_kinds_are_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        KmerTokenizer.from_vocabulary(tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: got 0, wanted 1 to 8"),
        ({"k": 9}, "k: got 9, wanted 1 to 8"),
        ({"k": 3, "base_order": "ACGU"}, "base_order: got 'ACGU'"),
        ({"k": 3, "special_tokens": "eos"}, "special_tokens: got 'eos'"),
        ({"k": 3, "on_unknown": "skip"}, "on_unknown: got 'skip'"),
        ({"k": 3, "specials": DNABERT_SPECIALS, "special_tokens": "bos"}, r"\[BOS\] must be among them"),
        ({"k": 3, "specials": (*DNABERT_SPECIALS, "ACG")}, "'ACG' is a 3-mer"),
        ({"k": 3, "specials": (*DNABERT_SPECIALS, "[PAD]")}, "stands there twice"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KmerTokenizer(**options)
    mapping = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_dict({"type": "kmer", **mapping})


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "kmer"}, "k is missing"),
        ({"type": "kmer", "k": True}, "wanted int"),
        ({"type": "kmer", "k": 3, "overlaping": True}, "Did you mean 'overlapping'"),
        ({"type": "nucleotide", "k": 3}, "got 'nucleotide', wanted 'kmer'"),
    ],
)
def test_bad_dicts_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        KmerTokenizer.from_dict(mapping)
