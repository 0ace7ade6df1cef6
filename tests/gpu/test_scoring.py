"""Scores on a GPU are those of the CPU, to the tolerance of two ways to the same score, with warm and cold batches."""

from __future__ import annotations

from pathlib import Path

import pysam
import pytest
import torch

import genossm.genome
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import Variant
from genossm.testing.models import enliven
from genossm.variants import ScoringOptions
from genossm.variants.scorer import Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DATA = Path(__file__).parents[2] / "data"
NATS_PER_LETTER = 1e-3 / 1024
KINDS: dict[str, dict[str, object]] = {
    "causal": {},
    "bidirectional": {"direction": "bidirectional", "objective": "masked"},
    "equivariant": {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"},
}


def build(kind: str) -> SequenceModel:
    torch.manual_seed(3)
    return enliven(SequenceModel(StackConfig(64, 3, **KINDS[kind]))).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def genome() -> Genome:
    return genossm.genome.open(DATA / "chr20_1-4Mb.fa.gz")


@pytest.fixture(scope="module")
def chosen() -> list[Variant]:
    """Neighbours of all kinds, in two windows of 16,384 bases."""
    with pysam.VariantFile(str(DATA / "1000g_chr20_1-4Mb.vcf.gz")) as file:
        records = [
            Variant("20", r.pos, r.ref or "", alt)
            for r in file.fetch("20", 2_000_000, 2_016_000)
            for alt in r.alts or ()
        ]
    others = [one for one in records if not one.is_snv]
    return [*records[::8], *others[:4]]


def scores(model: SequenceModel, genome: Genome, wanted: list[Variant], **choices: object) -> list[float]:
    batch_size = choices.pop("batch_size", None)
    scorer = Scorer(model, genome, ScoringOptions(**choices), batch_size=batch_size)  # type: ignore[arg-type]
    found = [one.llr for one in scorer.score([scorer.locate(one) for one in wanted])]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exact", [False, True])
def test_gpu_and_cpu_agree(kind: str, exact: bool, genome: Genome, chosen: list[Variant]) -> None:
    model = build(kind)
    options = {"context": 16_384, "exact": exact, "both_strands": kind == "bidirectional"}
    few = chosen[:3] + chosen[-1:] if exact else chosen
    letters = 512 if kind == "causal" else 32
    on_cpu = scores(model, genome, few, **options)
    model = model.cuda()
    for batch_size in (None, 5):
        on_gpu = scores(model, genome, few, batch_size=batch_size, **options)
        assert on_gpu == pytest.approx(on_cpu, abs=NATS_PER_LETTER * letters)
    assert max(map(abs, on_cpu)) > 100 * NATS_PER_LETTER * letters


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_twice(kind: str, genome: Genome, chosen: list[Variant]) -> None:
    model = build(kind).cuda()
    assert scores(model, genome, chosen, context=16_384) == scores(model, genome, chosen, context=16_384)


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_bases_of_context(kind: str, genome: Genome, chosen: list[Variant]) -> None:
    """Alone and in company, in any order, with windows of the length that the benchmark has."""
    model, options = build(kind).cuda(), {"context": 1 << 20}
    together = scores(model, genome, chosen, **options)
    letters = 512 if kind == "causal" else 32
    assert scores(model, genome, chosen[::-1], **options)[::-1] == pytest.approx(
        together, abs=NATS_PER_LETTER * letters
    )
    alone = scores(model, genome, chosen[5:6], **options)
    assert alone == pytest.approx(together[5:6], abs=NATS_PER_LETTER * letters)


def test_memory_does_not_grow_with_the_number_of_variants(genome: Genome) -> None:
    with pysam.VariantFile(str(DATA / "1000g_chr20_1-4Mb.vcf.gz")) as file:
        records = [
            Variant("20", r.pos, r.ref or "", (r.alts or ("",))[0]) for r in file.fetch("20", 2_000_000, 2_500_000)
        ]
    for kind in ("causal", "equivariant"):
        model, peaks = build(kind).cuda(), []
        for wanted in (records[::16], records[::16], records):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            scores(model, genome, wanted, context=1 << 19)
            peaks.append(torch.cuda.max_memory_allocated())
        assert peaks[2] < 1.5 * peaks[1], (kind, peaks)
