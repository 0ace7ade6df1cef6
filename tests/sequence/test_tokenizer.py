from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import AlphabetError, ConfigError, TokenizerError
from genossm.sequence import NucleotideTokenizer, reverse_complement, tokenizer_from_dict
from genossm.testing.strategies import dna

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"
CADUCEUS = json.loads((GOLDEN / "caduceus_ps" / "tokenization.json").read_text())
HYENADNA = json.loads((GOLDEN / "hyenadna_standalone" / "tokenization.json").read_text())


def test_vocabulary_is_that_of_both_originals() -> None:
    tokenizer = NucleotideTokenizer()
    assert tokenizer.vocab == CADUCEUS["vocab"] == HYENADNA["vocab"]
    assert tokenizer.vocab_size == len(CADUCEUS["vocab"])
    for name in ("pad", "mask", "bos", "sep", "cls", "unk"):
        assert getattr(tokenizer, f"{name}_id") == CADUCEUS[f"{name}_token_id"]
    assert [tokenizer.vocab[base] for base in "ACGTN"] == [*tokenizer.base_ids, tokenizer.n_id]


def test_complement_ids_are_those_of_caduceus_and_padding_rows_stay() -> None:
    complement = NucleotideTokenizer().complement_ids
    # Its keys are strings, so it is read by number and never by place.
    expected = {int(key): value for key, value in CADUCEUS["complement_map"].items()} | {i: i for i in range(12, 16)}
    assert {i: int(complement[i]) for i in range(16)} == expected
    with pytest.raises(ValueError, match="read-only"):
        complement[0] = 1


@pytest.mark.parametrize("case", CADUCEUS["cases"], ids=lambda case: case["text"])
def test_tokens_are_those_of_caduceus(case: dict[str, Any]) -> None:
    tokenizer = NucleotideTokenizer()
    assert tokenizer.encode(case["text"]).tolist() == case["without_special"]
    special = tokenizer.encode(case["text"], add_special_tokens=True)
    assert special.tolist() == case["with_special"]
    assert tokenizer.pad(special, 20).tolist() == case["padded_to_20"]


@pytest.mark.parametrize("case", HYENADNA["cases"], ids=lambda case: case["text"])
def test_tokens_are_those_of_hyenadna(case: dict[str, Any]) -> None:
    standalone = NucleotideTokenizer(uppercase=False, special_tokens="cls_sep")
    assert standalone.encode(case["text"]).tolist() == case["without_special"]
    special = standalone.encode(case["text"], add_special_tokens=True)
    assert special.tolist() == case["standalone_with_special"]
    assert standalone.pad(special, 20).tolist() == case["standalone_padded_to_20"]
    training = NucleotideTokenizer(uppercase=False, special_tokens="sep")
    assert training.encode(case["text"], add_special_tokens=True).tolist() == case["repo_with_special"]


def test_bos_goes_in_front() -> None:
    assert NucleotideTokenizer(special_tokens="bos").encode("AC", add_special_tokens=True).tolist() == [2, 7, 8]


@given(dna(0, 300, letters="ACGTN"))
def test_round_trip(sequence: str) -> None:
    tokenizer = NucleotideTokenizer()
    assert tokenizer.decode(tokenizer.encode(sequence)) == sequence
    assert tokenizer.decode(tokenizer.encode(sequence.lower())) == sequence
    marked = tokenizer.encode(sequence, add_special_tokens=True)
    assert tokenizer.decode(marked) == sequence + "[SEP]"
    assert tokenizer.decode(marked, skip_special_tokens=True) == sequence


@given(dna(1, 300, letters="ACGTN"))
def test_reverse_complement_of_ids_is_that_of_letters(sequence: str) -> None:
    tokenizer = NucleotideTokenizer()
    ids = tokenizer.encode(sequence)
    assert tokenizer.decode(tokenizer.reverse_complement(ids)) == reverse_complement(sequence)
    pair = np.stack([ids, tokenizer.reverse_complement(ids)])
    assert np.array_equal(tokenizer.reverse_complement(pair), pair[::-1])


@given(st.binary(max_size=300))
def test_every_kind_of_input_gives_the_same_ids(letters: bytes) -> None:
    tokenizer = NucleotideTokenizer()
    array = np.frombuffer(letters, dtype=np.uint8)
    expected = [tokenizer.vocab.get(chr(byte).upper() if byte < 128 else "?", tokenizer.unk_id) for byte in letters]
    assert tokenizer.encode(letters).tolist() == expected
    assert tokenizer.encode(bytearray(letters)).tolist() == expected
    assert tokenizer.encode(array).tolist() == expected
    assert tokenizer.encode(array[::-1]).tolist() == expected[::-1]
    assert tokenizer.encode(letters.decode("latin-1")).tolist() == expected


@pytest.mark.parametrize("letter", ["é", "Ω", "𝄞"])
def test_letters_beyond_ascii_are_one_unknown_token_each(letter: str) -> None:
    assert NucleotideTokenizer().encode(f"A{letter}C").tolist() == [7, 6, 8]


def test_longer_than_one_block(human_slice: bytes) -> None:
    tokenizer = NucleotideTokenizer()
    ids = tokenizer.encode(human_slice)
    assert len(ids) == 100_000
    for base, name in zip(tokenizer.base_ids, b"ACGT"):
        assert np.array_equal(ids == base, np.frombuffer(human_slice, dtype=np.uint8) == name)


def test_out_is_filled_and_returned() -> None:
    out = np.full(3, 99, dtype=np.uint8)
    assert NucleotideTokenizer().encode("AC", add_special_tokens=True, out=out) is out
    assert out.tolist() == [7, 8, 1]
    with pytest.raises(TokenizerError, match=r"out: got uint8 \(3,\), wanted uint8 \(2,\)"):
        NucleotideTokenizer().encode("AC", out=out)
    with pytest.raises(TokenizerError, match=r"out: got int64 \(2,\)"):
        NucleotideTokenizer().encode("AC", out=np.zeros(2, dtype=np.int64))  # type: ignore[arg-type]


def test_strict_tokenizer_names_the_letter() -> None:
    strict = NucleotideTokenizer(on_unknown="raise")
    assert strict.encode("acgtN").tolist() == [7, 8, 9, 10, 11]
    with pytest.raises(AlphabetError, match=r"'R' at position 2 .* \(2 such letters in all\)"):
        strict.encode("ACRRT", add_special_tokens=True)


@pytest.mark.parametrize(("ids", "message"), [([7, 12], "id 12 at position 1"), ([-1], "id -1 at position 0")])
def test_decoding_foreign_ids_is_an_error(ids: list[int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        NucleotideTokenizer().decode(ids)


def test_padding_cuts_nothing() -> None:
    with pytest.raises(TokenizerError, match="Cannot pad 3 tokens to 2"):
        NucleotideTokenizer().pad(np.array([7, 8, 9], dtype=np.uint8), 2)


def test_arrays_of_other_shapes_are_refused() -> None:
    for array in (np.zeros((2, 2), dtype=np.uint8), np.zeros(2, dtype=np.int64)):
        with pytest.raises(TokenizerError, match="wanted ASCII letters as uint8 in one dimension"):
            NucleotideTokenizer().encode(array)


@given(st.booleans(), st.sampled_from(["sep", "cls_sep", "bos"]), st.sampled_from(["unk", "raise"]))
def test_dict_round_trip(uppercase: bool, special_tokens: Any, on_unknown: Any) -> None:
    tokenizer = NucleotideTokenizer(uppercase=uppercase, special_tokens=special_tokens, on_unknown=on_unknown)
    mapping = json.loads(json.dumps(tokenizer.to_dict()))
    assert mapping["type"] == "nucleotide"
    assert tokenizer_from_dict(mapping) == tokenizer == pickle.loads(pickle.dumps(tokenizer))
    assert hash(tokenizer) == hash(tokenizer_from_dict(mapping))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "6mer"}, "'6mer' is not known"),
        ({}, "None is not known"),
        ({"type": ["kmer"]}, "is not known to this version. Known: 'nucleotide', 'kmer', 'byte_pair'"),
        ({"model": {"type": "BPE"}}, "BytePairTokenizer.from_hugging_face"),
        ({"type": "nucleotide", "upercase": True}, "Did you mean 'uppercase'"),
        ({"type": "nucleotide", "uppercase": "yes"}, "wanted bool"),
        ({"type": "nucleotide", "special_tokens": "eos"}, "special_tokens"),
    ],
)
def test_bad_dicts_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_dict(mapping)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="special_tokens: got 'eos', wanted one of sep, cls_sep, bos"):
        NucleotideTokenizer(special_tokens="eos")  # type: ignore[arg-type]
