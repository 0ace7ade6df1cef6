"""Byte-pair tokens: a small tokenizer is trained here, and compared with the library that reads it."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given

from genossm.core.errors import MissingDependencyError, TokenizerError
from genossm.sequence import BytePairTokenizer, bpe, tokenizer_from_dict
from genossm.testing import repetitive_sequence
from genossm.testing.strategies import dna

tokenizers = pytest.importorskip("tokenizers")

SPECIALS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def trained() -> Any:
    engine = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=SPECIALS, initial_alphabet=list("ACGT"), show_progress=False
    )
    sequence = repetitive_sequence(6000, seed=3).decode()
    engine.train_from_iterator([sequence[i : i + 200] for i in range(0, 6000, 200)], trainer)
    engine.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return engine


ENGINE = trained()
CONTENT = ENGINE.to_str()
TOKENIZER = BytePairTokenizer.from_hugging_face(CONTENT)


@given(dna(1, 300, letters="ACGTacgtNR"))
def test_tokens_are_those_of_the_library(sequence: str) -> None:
    assert TOKENIZER.encode(sequence).tolist() == ENGINE.encode(sequence.upper(), add_special_tokens=False).ids
    marked = TOKENIZER.encode(sequence.encode(), add_special_tokens=True)
    assert marked.tolist() == ENGINE.encode(sequence.upper()).ids
    as_it_is = BytePairTokenizer.from_hugging_face(CONTENT, uppercase=False)
    assert as_it_is.encode(sequence).tolist() == ENGINE.encode(sequence, add_special_tokens=False).ids


@given(dna(0, 300))
def test_decoding_gives_the_letters_back(sequence: str) -> None:
    ids = TOKENIZER.encode(sequence, add_special_tokens=True)
    assert TOKENIZER.decode(ids) == f"[CLS]{sequence}[SEP]"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == sequence


def test_vocabulary_and_special_ids() -> None:
    assert TOKENIZER.vocab == ENGINE.get_vocab()
    assert TOKENIZER.vocab_size == 60
    assert TOKENIZER.padded_vocab_size == 64
    assert [TOKENIZER.unk_id, TOKENIZER.pad_id, TOKENIZER.mask_id] == [0, 3, 4]
    with pytest.raises(TokenizerError, match=r"no token for bos; looked for \[BOS\]"):
        _ = TOKENIZER.bos_id
    # The training sequence is repetitive, so tokens are longer than a base.
    assert len(TOKENIZER.encode(repetitive_sequence(6000, seed=3))) < 4000


def test_letters_beyond_ascii_are_one_unknown_token_each() -> None:
    assert TOKENIZER.encode("ß").tolist() == TOKENIZER.encode(b"\xdf").tolist() == [0]


def test_there_is_no_complement_and_the_error_says_why() -> None:
    why = "no complement map: .*is no token .*cut at other places.*Encode the reverse complement of the letters"
    with pytest.raises(TokenizerError, match=why):
        _ = TOKENIZER.complement_ids
    with pytest.raises(TokenizerError, match=why):
        TOKENIZER.reverse_complement(TOKENIZER.encode("ACGT"))


def test_dict_round_trip() -> None:
    mapping = json.loads(json.dumps(TOKENIZER.to_dict()))
    assert mapping["type"] == "byte_pair"
    assert tokenizer_from_dict(mapping) == TOKENIZER == pickle.loads(pickle.dumps(TOKENIZER))
    assert tokenizer_from_dict(mapping | {"uppercase": False}) != TOKENIZER
    assert BytePairTokenizer.from_hugging_face(json.loads(CONTENT)) == TOKENIZER


def test_truncation_that_a_file_asks_for_cuts_nothing() -> None:
    engine = trained()
    engine.enable_truncation(max_length=8)
    engine.enable_padding(length=8)
    tokenizer = BytePairTokenizer.from_hugging_face(engine.to_str())
    sequence = "ACGGTCA" * 30
    assert len(engine.encode(sequence).ids) == 8
    assert tokenizer.decode(tokenizer.encode(sequence)) == sequence
    assert len(tokenizer.encode("A")) == 1


@pytest.mark.parametrize("ids", [[5, 60], [5, -1]])
def test_decoding_foreign_ids_is_an_error(ids: list[int]) -> None:
    with pytest.raises(TokenizerError, match=rf"id {ids[1]} at position 1 is not in the vocabulary \(0 to 59\)"):
        TOKENIZER.decode(ids)


def with_model(**changes: Any) -> str:
    content = json.loads(CONTENT)
    return json.dumps(content | {"model": content["model"] | changes})


BAD_FILES = {
    "no JSON": ("{", "is no JSON"),
    "a list": ("[]", "got a list, wanted a mapping"),
    "another file": ('{"a": 1}', 'has no "model"'),
    "model is text": ('{"model": "BPE"}', 'has no "model"'),
    "word pieces": (with_model(type="WordPiece"), "type 'WordPiece', wanted 'BPE'"),
    "dropout": (with_model(dropout=0.1), "dropout is 0.1"),
    "damaged": (with_model(merges=["A Q"]), "cannot be read by tokenizers"),
    "of another language": (with_model(vocab={"[UNK]": 0, "a": 1}, merges=[]), "does not give DNA back"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_other_files_are_refused(case: str) -> None:
    content, message = BAD_FILES[case]
    with pytest.raises(TokenizerError, match=message):
        BytePairTokenizer.from_hugging_face(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "kmer"}, "got 'kmer', wanted 'byte_pair'"),
        ({"lower": True}, "tokenizer.lower is not a key"),
        ({"uppercase": "yes"}, "got uppercase 'yes'"),
        ({"tokenizer": None}, "type NoneType; wanted true or false, and the mapping"),
    ],
)
def test_bad_dicts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        BytePairTokenizer.from_dict(TOKENIZER.to_dict() | change)


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bpe._engine.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genossm\[hf\]'"):
        BytePairTokenizer.from_hugging_face(CONTENT)
    bpe._engine.cache_clear()
