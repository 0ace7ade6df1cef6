from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import TokenizerError
from genossm.sequence import KmerTokenizer, NucleotideTokenizer, complement_ids_from_map

BASES = {str(i): int(value) for i, value in enumerate(NucleotideTokenizer().complement_ids)}


@given(st.randoms(use_true_random=False))
def test_keys_are_read_as_numbers_in_whatever_order_they_stand(random: Any) -> None:
    keys = list(BASES)
    random.shuffle(keys)
    assert complement_ids_from_map({key: BASES[key] for key in keys}, 16).tolist() == list(BASES.values())


def test_the_order_of_sorted_json_is_no_trap() -> None:
    saved = json.loads(json.dumps(BASES, sort_keys=True))
    assert list(saved)[:4] == ["0", "1", "10", "11"]
    ids = complement_ids_from_map(saved, 16)
    assert ids[[7, 8, 9, 10]].tolist() == [10, 9, 8, 7]
    # Read by place, A would become its own neighbour's complement.
    assert list(saved.values()) != ids.tolist()


@given(st.integers(1, 5))
def test_maps_of_kmers_come_back(k: int) -> None:
    complement = KmerTokenizer(k).complement_ids
    mapping = {str(i): int(value) for i, value in enumerate(complement)}
    assert complement_ids_from_map(mapping, len(complement)).tolist() == complement.tolist()


@pytest.mark.parametrize(
    ("mapping", "size", "message"),
    [
        (BASES, 12, "12 is no id of a vocabulary of 12 tokens"),
        (BASES, 24, "got 16 entries, wanted one for each of 24 tokens; id 16 has none"),
        (BASES | {"7": 8}, 16, "sends 7 to 8, and 8 to 9. Complementing twice must change nothing"),
        ({**dict(list(BASES.items())[1:]), "16": 0}, 16, "16 is no id"),
        (BASES | {"07": 10}, 16, "got 17 entries, wanted one for each of 16 tokens; an id stands there twice"),
        (BASES | {"A": 10}, 16, "complement_map, key: got 'A', wanted a token id"),
        (BASES | {"7": "T"}, 16, "complement_map, value of '7': got 'T', wanted a token id"),
        (BASES | {"7": 10.5}, 16, "value of '7': got 10.5"),
        (BASES | {"7": -1}, 16, "-1 is no id"),
    ],
)
def test_bad_maps_are_refused(mapping: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        complement_ids_from_map(mapping, size)
