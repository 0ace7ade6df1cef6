"""Heads on a sample's own haplotypes: what they would say if the haplotype were the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.variants import ScoringOptions, score
from genossm.variants.extras import Extras, head_settings
from genossm.variants.haplotype_scorer import open_scorer
from genossm.variants.heads.estimators import Kind, Linear
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.heads.head import VariantHead
from genossm.variants.locate import Allele
from genossm.variants.vcf_input import open_vcf

HEADER = (
    '##fileformat=VCFv4.2\n##contig=<ID=20>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tme\n"
)
LETTERS = random_sequence(800, seed=11).decode()
OPTIONS = ScoringOptions(128, 16)
# Numbers of order 1 from hidden states in float32.
TOLERANCE = 2e-4


def head_of(model: SequenceModel, kind: Kind) -> VariantHead:
    """Weights of every size on everything that a head can see."""
    width = 2 + 2 + 2 * model.config.d_model
    rng = np.random.default_rng(2)
    linear = Linear(kind, rng.normal(size=width), np.full(width, 2.0), rng.normal(size=width), 0.1, 1.0)
    options = OPTIONS.of_model(model.objective, equivariant=model.config.equivariant)
    return VariantHead("mine", linear, FeatureSpec(flank=8), (), head_settings(model, options), "made up", {})


@pytest.fixture(params=["model", "masked_model", "equivariant_model"])
def any_model(request: pytest.FixtureRequest) -> SequenceModel:
    return request.getfixturevalue(request.param)


def swap(pos1: int) -> str:
    return "ACGT"[("ACGT".index(LETTERS[pos1 - 1]) + 1) % 4]


def on_haplotypes(
    rows: list[tuple[int, str, str, str]], model: SequenceModel, genome: Genome, head: VariantHead, folder: Path
) -> list[tuple[float | None, ...]]:
    """The model's ratio and the head's number of every allele that the sample carries."""
    path = folder / "in.vcf"
    lines = [f"20\t{pos1}\t.\t{ref}\t{alt}\t.\t.\t.\tGT\t{word}\n" for pos1, ref, alt, word in rows]
    path.write_text(HEADER + "".join(lines))
    options = ScoringOptions(128, 16, methods=(), heads=("mine",))
    scorer, personal = open_scorer(model, genome, options, path, "me", extras=Extras(heads=(head,)))
    assert personal is not None
    with open_vcf(path) as vcf:
        located = []
        for record in vcf.records:
            alleles = [scorer.locate(Allele("20", record.pos1, record.ref, alt)) for alt in record.alts]
            located += personal.of_record(record, alleles)
    return [one.numbers for one in scorer.score(located)]


def plain(one: tuple[int, str, str], letters: str, model: SequenceModel, make_genome, head: VariantHead) -> list[float]:
    genome, extras = make_genome({"20": letters}), Extras(heads=(head,))
    [found] = score(model, genome, [Variant("20", *one)], methods=["mine"], context=128, horizon=16, extras=extras)
    return [float(number) for number in found.numbers if number is not None]


def test_alone_on_its_haplotype_an_allele_has_the_plain_number(
    any_model: SequenceModel, make_genome, tmp_path: Path
) -> None:
    head, genome = head_of(any_model, "ridge"), make_genome({"20": LETTERS})
    for one in (
        (400, LETTERS[399], swap(400)),
        (500, LETTERS[499], LETTERS[499] + "GAT"),
        (600, LETTERS[599:604], "T"),
    ):
        [mine] = on_haplotypes([(*one, "0|1")], any_model, genome, head, tmp_path)
        assert mine == pytest.approx(plain(one, LETTERS, any_model, make_genome, head), abs=TOLERANCE)


def test_the_haplotype_is_the_reference_that_the_head_sees(
    any_model: SequenceModel, make_genome, tmp_path: Path
) -> None:
    """The neighbour made in the genome itself, and the head asked as of any allele."""
    head, genome = head_of(any_model, "logistic"), make_genome({"20": LETTERS})
    one, neighbour = (400, LETTERS[399], swap(400)), (396, LETTERS[395], swap(396))
    made = LETTERS[:395] + swap(396) + LETTERS[396:]
    wanted = plain(one, made, any_model, make_genome, head)
    without = plain(one, LETTERS, any_model, make_genome, head)
    [same, _] = on_haplotypes([(*one, "0|1"), (*neighbour, "0|1")], any_model, genome, head, tmp_path)
    assert same == pytest.approx(wanted, abs=TOLERANCE)
    [other, _] = on_haplotypes([(*one, "0|1"), (*neighbour, "1|0")], any_model, genome, head, tmp_path)
    assert other == pytest.approx(without, abs=TOLERANCE)
    assert abs(wanted[1] - without[1]) > 10 * TOLERANCE
    # On both haplotypes: the mean of what the head says of each, not what it says of their mean.
    [both, _] = on_haplotypes([(*one, "1|1"), (*neighbour, "1|0")], any_model, genome, head, tmp_path)
    assert both == pytest.approx(np.mean([wanted, without], axis=0).tolist(), abs=TOLERANCE)
