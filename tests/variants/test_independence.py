"""The command's scores do not depend on a file's order, on what else is in it, on batch sizes, pieces or packing."""

from __future__ import annotations

import contextlib
import gzip
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genossm.cli.main import run
from genossm.variants.vcf_input import open_vcf

Scores = dict[tuple[str, ...], tuple[str, str]]
HORIZON = 32
# Two ways to a score agree to 1e-3 nats per 1,024 summed letters, before six digits of it are printed. A masked score
# of a length change sums 16 on either haplotype.
TOLERANCE = 1e-3 * HORIZON / 1024
FEW = settings(
    max_examples=max(2, settings().max_examples // 10), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def lines(human_vcf: Path) -> tuple[list[str], list[str]]:
    """Header and 280 real records, more than are scored together; some have several alleles, some stand there twice."""
    text = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    header, records = [line for line in text if line[0] == "#"], [line for line in text if line[0] != "#"][:280]
    rng, changed = random.Random(7), []
    for number, record in enumerate(records):
        columns = record.split("\t")
        if number % 20 == 0:
            columns[4] += "," + columns[3] + rng.choice(["AC", "GATTACA", "T"])
        if number % 31 == 0:
            columns[4] += ",<DEL>,*"
        changed.append("\t".join(columns))
        if number % 50 == 0:
            changed.append(changed[-1])
    return header, changed


@pytest.fixture(scope="module", params=["causal", "masked"])
def usual(request: pytest.FixtureRequest, model_dir: Path, equivariant_dir: Path, human_fasta: Path) -> list[object]:
    """The options of one command, for either kind of model."""
    if request.param == "causal":
        return ["-f", human_fasta, "-m", model_dir, "--context", 256, "--horizon", HORIZON, "--both-strands"]
    return ["-f", human_fasta, "-m", equivariant_dir, "--context", 64, "--method", "mlm,embedding"]


@pytest.fixture(scope="module")
def score(usual: list[object], lines, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scores]:
    """Scores of some records, by everything that names an allele."""
    folder = tmp_path_factory.mktemp("independence")

    def call(records: Sequence[str], *options: object, suffix: str = ".vcf") -> Scores:
        source, target = folder / "in.vcf", folder / f"out{suffix}"
        source.write_text("".join([*lines[0], *records]))
        words = ["score", *usual, *options, "--force", source, "-o", target]
        with contextlib.suppress(SystemExit):
            run([str(word) for word in words])
        found = read(target)
        target.unlink()
        return found

    return call


def read(path: Path) -> Scores:
    found: Scores = {}
    with open_vcf(path) as vcf:
        for record in vcf.records:
            said = dict(entry.partition("=")[::2] for entry in record.info.decode().split(";"))
            fields = [
                said[key].split(",") for key in sorted(said) if key.startswith("GENOSSM_") and "STATUS" not in key
            ]
            statuses = said["GENOSSM_STATUS"].split(",")
            for number, alt in enumerate(record.alts):
                key = (record.contig, str(record.pos1), record.ref, alt)
                found[key] = ",".join(field[number] for field in fields), statuses[number]
    return found


@pytest.fixture(scope="module")
def plain(score: Callable[..., Scores], lines) -> Scores:
    found = score(lines[1])
    assert len(found) > 280
    assert sum(status == "OK" for _, status in found.values()) > 280
    return found


def assert_same(found: Scores, wanted: Scores) -> None:
    assert found.keys() <= wanted.keys()
    for key, (text, status) in found.items():
        assert status == wanted[key][1]
        for one, other in zip(text.split(","), wanted[key][0].split(","), strict=True):
            same = one == other == "." or math.isclose(float(one), float(other), rel_tol=2e-5, abs_tol=TOLERANCE)
            assert same, (key, one, other)


@FEW
@given(data=st.data())
def test_order_company_and_batch_size(data: st.DataObject, score, plain: Scores, lines) -> None:
    """Any part of the file in any order, in batches of any size."""
    count = data.draw(st.sampled_from([1, 2, 40]))
    chosen = data.draw(st.lists(st.sampled_from(range(len(lines[1]))), min_size=count, max_size=count, unique=True))
    batch = data.draw(st.sampled_from([(), ("--batch-size", 1), ("--batch-size", 7), ("--batch-size", 64)]))
    found = score([lines[1][number] for number in chosen], *batch)
    assert_same(found, plain)


def test_the_whole_file_backwards(score, plain: Scores, lines) -> None:
    found = score(lines[1][::-1], "--batch-size", 5)
    assert found.keys() == plain.keys()
    assert_same(found, plain)


def test_pieces_of_the_file(score, plain: Scores, lines) -> None:
    """Cut where it is cut, by shards and by regions: every allele is in one of them, with its score."""
    shards = [score(lines[1], "--shard", f"{number}/2") for number in (1, 2)]
    assert all(shards)
    middle = int(lines[1][140].split("\t")[1])
    regions = [score(lines[1], "-r", f"20:1-{middle}"), score(lines[1], "-r", f"20:{middle + 1}-")]
    for pieces in (shards, regions):
        assert {key for piece in pieces for key in piece} == set(plain)
        for piece in pieces:
            assert len(piece) < len(plain)
            assert_same(piece, plain)


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_packing(suffix: str, score, plain: Scores, lines) -> None:
    found = score(lines[1][:60], suffix=suffix)
    # BCF keeps a number in 32 bits.
    assert_same(found, plain)
