"""Classes of places against what a slow reading of the definition gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError
from genossm.core.provenance import Provenance
from genossm.evaluation import places
from genossm.evaluation.places import INSIDE, Places, classify_places, read_places, write_places
from genossm.genome import Genome
from genossm.sequence import reverse_complement
from genossm.sequence.interval import Interval
from genossm.testing.toy import random_sequence, write_fasta

TRAIN, REGION = Interval("t", 0, 1100), Interval("x", 150, 700)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    """A unit that stands 9 times in training as it is and once on the other strand, and one that stands 9 times."""
    often, seldom = random_sequence(40, seed=1), random_sequence(40, seed=2)
    train = b"NACGT".join([*[often] * 9, reverse_complement(often), *[seldom] * 9])
    train = train + random_sequence(1100 - len(train), seed=3)
    unique = random_sequence(900, seed=4)
    copied = unique[100:160]
    x = unique[:300] + often + unique[340:420] + seldom + b"NN" + unique[462:500] + reverse_complement(copied)
    x += unique[560:610] + copied[:50] + unique[660:]
    return genossm.genome.open(write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", {"t": train, "x": x}))


def by_the_book(genome: Genome, reaches: tuple[int, ...]) -> list[tuple[bool, int]]:
    train = genome.fetch(TRAIN)
    x = genome.fetch(Interval("x", 0, genome.length("x")))
    both = [train, reverse_complement(train)]
    often = set()
    for start in range(len(x) - 23):
        word = x[start : start + 24]
        if b"N" not in word and sum(strand.startswith(word, i) for strand in both for i in range(len(strand))) >= 10:
            often.add(start)
    found = []
    for t in range(REGION.start, REGION.end):
        inside = any(start in often for start in range(t - 23, t + 1))
        word = x[t - 24 : t]
        reach = reaches[-1] + 1
        if b"N" not in word:
            earlier = [s for s in range(t - 24) if x[s : s + 24] in (word, reverse_complement(word))]
            reach = t - max(earlier) if earlier else reach
        found.append((inside, sum(reach > limit for limit in reaches)))
    return found


def test_classes_are_those_of_the_definition(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    reaches = (60, 120, 360, 450)
    monkeypatch.setattr(places, "REACHES", reaches)
    monkeypatch.setattr(places, "_PIECE", 97)  # so that words stand across the ends of pieces
    classes = classify_places(genome, [TRAIN], [REGION]).classes[0]
    expected = by_the_book(genome, reaches)
    assert [(bool(c // 5), int(c % 5)) for c in classes] == expected
    assert len(set(expected)) >= 4
    assert any(inside for inside, _ in expected)


def test_a_unit_on_either_strand_counts_and_nine_are_not_ten(genome: Genome) -> None:
    classified = classify_places(genome, [TRAIN], [REGION])
    inside = np.array([INSIDE in name for name in classified.names])[classified.classes[0]]
    assert inside[300 - 150 : 340 - 150].all()
    assert not inside[420 - 150 : 460 - 150].any()


def test_a_file_reads_back_and_knows_its_sequence(genome: Genome, tmp_path: Path) -> None:
    classified = classify_places(genome, [TRAIN], [REGION])
    write_places(classified, tmp_path / "p.npz", provenance=Provenance())
    found = read_places(tmp_path / "p.npz")
    part = Interval("x", 200, 300)
    np.testing.assert_array_equal(found.of(genome, part), classified.classes[0][50:150])
    assert sum(found.numbers().values()) == len(REGION)
    with pytest.raises(ConfigError, match="not among the classified regions"):
        found.of(genome, Interval("x", 100, 200))
    other = Places(found.regions, found.classes, {"x": "0" * 32}, found.names)
    with pytest.raises(ConfigError, match="another sequence"):
        other.of(genome, part)
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(InputFileError, match="Cannot read"):
        read_places(tmp_path / "no.npz")
