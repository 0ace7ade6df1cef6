"""Alleles on a sample's own haplotypes: against the definition, `bcftools consensus`, and plain scores."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.core.errors import UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.variants import FilePolicy, ScoringOptions, Summary, score_file
from genossm.variants.definition_haplotypes import haplotype_causal_llr, haplotype_masked_llr
from genossm.variants.vcf_input import open_vcf

SLICE = 60_000
NATS_PER_LETTER = 1e-3 / 1024
HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=20>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="Phase set">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tother\tme\n"
)
LETTERS = random_sequence(800, seed=11).decode()


def run(
    model: SequenceModel, genome: Genome, source: Path, target: Path, sample: str | None, **options: object
) -> Summary:
    chosen = ScoringOptions(**{"context": 128, "horizon": 16, **options})  # type: ignore[arg-type]
    policy = FilePolicy(haplotypes=sample, force=True)
    return score_file(model, genome, source, target, chosen, policy, command="genossm score")


def said(path: Path) -> list[tuple[list[str], list[str]]]:
    """Scores and statuses of every record."""
    found = []
    with open_vcf(path) as vcf:
        for record in vcf.records:
            entries = dict(entry.partition("=")[::2] for entry in record.info.decode().split(";"))
            found.append((entries.get("GENOSSM_LLR", ".").split(","), entries["GENOSSM_STATUS"].split(",")))
    return found


def row(pos1: int, alt: str, genotype: str, *, width: int = 1, phase_set: str = "", letters: str = LETTERS) -> str:
    ref = letters[pos1 - 1 : pos1 - 1 + width]
    keys, value = ("GT:PS", f"{genotype}:{phase_set}") if phase_set else ("GT", genotype)
    return f"20\t{pos1}\t.\t{ref}\t{alt}\t.\t.\t.\t{keys}\t0|0\t{value}\n"


def swap(pos1: int, by: int = 1) -> str:
    return "ACGT"[("ACGT".index(LETTERS[pos1 - 1]) + by) % 4]


def scored(
    rows: list[str], model: SequenceModel, make_genome, folder: Path, sample: str | None = "me", **options: object
) -> list[tuple[list[str], list[str]]]:
    (folder / "in.vcf").write_text(HEADER + "".join(rows))
    genome = make_genome({"20": LETTERS}, circular=options.pop("circular", ()))
    run(model, genome, folder / "in.vcf", folder / "out.vcf", sample, **options)
    return said(folder / "out.vcf")


# Real haplotypes.


def carried(path: Path, sample: str) -> list[tuple[Variant, tuple[int, ...]]]:
    """What a sample carries and on which haplotypes, as pysam reads it."""
    with pysam.VariantFile(str(path)) as file:
        found = [(record, record.samples[sample]["GT"]) for record in file]
    return [
        (Variant("20", record.pos, str(record.ref), alt), tuple(h for h, one in enumerate(genotype) if one == number))
        for record, genotype in found
        for number, alt in enumerate(record.alts or (), start=1)
        if number in genotype
    ]


@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_real_haplotypes_score_as_defined(
    kind: str, real_haplotypes: Path, human_slice: bytes, make_genome, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Both strands, windows that many of the sample's alleles share, homozygous ones among them."""
    model, sample, context, horizon = request.getfixturevalue(kind), "HG00100", 1024, 64
    genome = make_genome({"20": human_slice[:SLICE]})
    options = {"context": context, "horizon": horizon, "both_strands": True}
    summary = run(model, genome, real_haplotypes, tmp_path / "out.vcf", sample, **options)
    mine = carried(real_haplotypes, sample)
    found = [float(values[0]) for values, statuses in said(tmp_path / "out.vcf") if statuses == ["OK"]]
    assert len(found) == len(mine) > 80
    assert summary.as_dict()["haplotypes"] == {"sample": sample, "alleles": len(mine), "left_out": {}}
    indels = [i for i, (one, _) in enumerate(mine) if not one.is_snv]
    homozygous = [i for i, (_, where) in enumerate(mine) if len(where) == 2]
    chosen = {*indels[:4], *homozygous[:3], *random.Random(1).sample(range(len(mine)), 5)}
    near = 0
    for number in sorted(chosen):
        one, where = mine[number]
        values = []
        for haplotype in where:
            others = [other for other, on in mine if haplotype in on and other != one]
            near += sum(abs(other.pos1 - one.pos1) < context // 2 for other in others)
            for strand in "+-":
                if kind == "model":
                    values.append(
                        haplotype_causal_llr(
                            model, genome, one, others, context=context, horizon=horizon, strand=strand
                        )
                    )
                else:
                    values.append(haplotype_masked_llr(model, genome, one, others, context=context, strand=strand))
        wanted = sum(values) / len(values)
        assert found[number] == pytest.approx(wanted, rel=2e-5, abs=NATS_PER_LETTER * 1024), one
    assert near > 5


# Laws on made-up genotypes.


@st.composite
def records(draw: st.DrawFn) -> list[tuple[int, str, list[str], str]]:
    """(position, REF, ALTs, genotype): close to one another, overlapping, in and around repeats, phased or not."""
    found = []
    for _ in range(draw(st.integers(1, 9))):
        pos1, width = draw(st.integers(300, 420)), draw(st.sampled_from([1, 1, 2, 5]))
        ref = LETTERS[pos1 - 1 : pos1 - 1 + width]
        options = st.one_of(
            st.text("ACGT", min_size=1, max_size=4), st.sampled_from([ref[0], ref + ref, ref[0] + "TT"])
        )
        alts = draw(st.lists(options.filter(lambda alt, ref=ref: alt != ref), min_size=1, max_size=2, unique=True))
        word = draw(st.sampled_from(["0|1", "1|0", "1|1", "1/1", "0/1", "0|0", "1", "2|1", ".|1", "./.", "1|2"]))
        word = word.replace("2", "1") if len(alts) == 1 else word
        found.append((pos1, ref, alts, word))
    return found


def text_of(changes: list[tuple[int, str, list[str], str]]) -> str:
    return "".join(
        f"20\t{pos1}\t.\t{ref}\t{','.join(alts)}\t.\t.\t.\tGT\t.\t{word}\n" for pos1, ref, alts, word in changes
    )


def trimmed(pos1: int, ref: str, alt: str) -> tuple[int, int, str]:
    start = pos1 - 1
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    return start, start + len(ref), alt


def overlap(a: tuple[int, int, str], b: tuple[int, int, str]) -> bool:
    if a[0] == a[1] and b[0] == b[1]:
        return a[0] == b[0]
    if a[0] == a[1]:
        return b[0] < a[0] < b[1]
    if b[0] == b[1]:
        return a[0] < b[0] < a[1]
    return max(a[0], b[0]) < min(a[1], b[1])


@settings(max_examples=settings().max_examples // 2 or 1)
@given(changes=records())
def test_any_genotypes_score_as_defined(changes, model: SequenceModel, make_genome, tmp_path_factory) -> None:
    """Whose alleles are made, in what order, and what gives way is worked out once more here, allele by allele."""
    folder, genome = tmp_path_factory.mktemp("any"), make_genome({"20": LETTERS})
    (folder / "in.vcf").write_text(HEADER + text_of(changes))
    run(model, genome, folder / "in.vcf", folder / "out.vcf", "me", context=128, horizon=None)
    on: dict[int, set[tuple[tuple[int, int, str], str]]] = {0: set(), 1: set()}
    where: list[list[tuple[str, tuple[int, ...]]]] = []
    for pos1, ref, alts, word in changes:
        alleles = word.replace("/", "|").split("|")
        known = "/" not in word or len(set(alleles)) == 1
        where.append([])
        for number, alt in enumerate(alts, start=1):
            having = tuple(h for h, one in enumerate(alleles) if one == str(number))
            status = "NOT_CARRIED" if not having else "OK" if known else "UNPHASED"
            where[-1].append((status, having))
            for haplotype in having if known else ():
                on[haplotype].add((trimmed(pos1, ref, alt), alt))
    made = {}
    for haplotype, edits in on.items():
        made[haplotype] = []
        for edit in sorted({edit for edit, _ in edits}):
            if not any(overlap(edit, before) for before in made[haplotype]):
                made[haplotype].append(edit)
    for (pos1, ref, alts, _), expected, (values, statuses) in zip(
        changes, where, said(folder / "out.vcf"), strict=True
    ):
        assert statuses == [status for status, _ in expected]
        for alt, (status, having), value in zip(alts, expected, values):
            assert (value == ".") == (status != "OK")
            if status != "OK":
                continue
            one = trimmed(pos1, ref, alt)
            sums = [
                haplotype_causal_llr(
                    model,
                    genome,
                    Variant("20", pos1, ref, alt),
                    [as_variant(edit) for edit in made[haplotype] if edit != one and not overlap(edit, one)],
                    context=128,
                    horizon=32,
                )
                for haplotype in having
            ]
            assert float(value) == pytest.approx(sum(sums) / len(sums), rel=2e-5, abs=NATS_PER_LETTER * 64)


def as_variant(edit: tuple[int, int, str]) -> Variant:
    """With the base behind it, so that neither allele is empty and trimming gives the same place again."""
    start, end, letters = edit
    return Variant("20", start + 1, LETTERS[start : end + 1], letters + LETTERS[end])


def test_without_other_alleles_it_is_the_plain_score(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    rows = [
        row(1, swap(1), "0|1"),
        row(5, LETTERS[4] + "GATC", "1|1"),
        row(200, swap(200), "1/1"),
        row(400, LETTERS[399], "1|0", width=7),
        row(600, "GT" + LETTERS[599], "1"),
        row(800, swap(800), "0|1"),
    ]
    # Each in a file of its own, so that nothing else is on its haplotype.
    options = {"both_strands": True, "horizon": None}
    for one in rows:
        mine = scored([one], model, make_genome, tmp_path, **options)
        plain = scored([one], model, make_genome, tmp_path, sample=None, **options)
        assert mine[0][1] == plain[0][1] == ["OK"]
        assert float(mine[0][0][0]) == pytest.approx(float(plain[0][0][0]), rel=2e-5, abs=3e-5)


def test_a_neighbour_on_the_same_haplotype_matters_and_on_the_other_does_not(
    model: SequenceModel, make_genome, tmp_path: Path
) -> None:
    alone = scored([row(400, swap(400), "0|1")], model, make_genome, tmp_path)
    [same, _] = scored([row(400, swap(400), "0|1"), row(396, swap(396), "0|1")], model, make_genome, tmp_path)
    [other, _] = scored([row(400, swap(400), "0|1"), row(396, swap(396), "1|0")], model, make_genome, tmp_path)
    assert other == alone[0]
    assert abs(float(same[0][0]) - float(alone[0][0][0])) > 1e-3


def test_a_homozygous_allele_is_the_mean_of_both_haplotypes(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    neighbours = [row(396, swap(396), "0|1"), row(408, swap(408), "1|0")]
    first, second, both, unphased = (
        float(scored([row(400, swap(400), word), *neighbours], model, make_genome, tmp_path)[0][0][0])
        for word in ("1|0", "0|1", "1|1", "1/1")
    )
    assert abs(first - second) > 1e-3
    assert both == unphased == pytest.approx((first + second) / 2, rel=2e-5)


def test_statuses_and_what_is_left_out(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    rows = [
        row(300, swap(300), "0/1"),
        row(310, swap(310), "0|0"),
        row(320, swap(320), "."),
        row(330, f"{swap(330)},{swap(330, 2)},*,<DEL>", "1|4"),
        row(340, LETTERS[339], "0|1", width=4),
        row(342, swap(342), "0|1"),
        row(342, swap(342), "1|0"),
        row(350, LETTERS[349], "0|1"),
        f"un\t5\t.\tA\tC\t.\t.\t.\tGT\t.\t1|1\n20\t360\t.\t{swap(360)}\tA\t.\t.\t.\tGT\t.\t1|1\n",
        f"20\t370\t.\t{LETTERS[369]}\t{swap(370)}\t.\t.\t.\tDP\t3\t4\n",
        row(380, ".", "0|0"),
        row(390, LETTERS[389] + "ACGTTGCATGCATTGACCATG", "0|1"),
    ]
    found = scored(rows, model, make_genome, tmp_path)
    assert [statuses for _, statuses in found] == [
        ["UNPHASED"], ["NOT_CARRIED"], ["NOT_CARRIED"], ["OK", "NOT_CARRIED", "STAR_ALLELE", "SYMBOLIC"],
        ["OK"], ["OK"], ["OK"], ["OK"], ["CONTIG_UNKNOWN"], ["REF_MISMATCH"], ["NOT_CARRIED"], ["NO_ALT"], ["TOO_LONG"],
    ]  # fmt: skip
    assert found[7][0] == ["0"]
    summary = run(model, make_genome({"20": LETTERS}), tmp_path / "in.vcf", tmp_path / "out.vcf", "me")
    assert summary.as_dict()["haplotypes"] == {
        "sample": "me",
        # A long one is made too, though it has no score of its own.
        "alleles": 5,
        "left_out": {"CONTIG_UNKNOWN": 1, "OVERLAPPING": 1, "REF_MISMATCH": 1, "SYMBOLIC": 1, "UNPHASED": 1},
    }
    assert "1 UNPHASED" in summary.line()


def test_phase_sets_do_not_know_of_each_other(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    def middle(neighbour: str, sample_set: str, own_set: str) -> str:
        rows = [row(400, swap(400), "0|1", phase_set=own_set), row(396, swap(396), neighbour, phase_set=sample_set)]
        return scored(rows, model, make_genome, tmp_path)[0][0][0]

    alone = scored([row(400, swap(400), "0|1")], model, make_genome, tmp_path)[0][0][0]
    assert middle("0|1", "7", "7") == middle("0|1", ".", ".") != alone
    assert middle("0|1", "7", "8") == middle("0|1", ".", "8") == alone
    # What is on both haplotypes is on this one, whatever is known of phase.
    assert middle("1/1", ".", "8") == middle("1|1", "9", "8") == middle("0|1", "7", "7")


def test_the_order_of_the_file_does_not_matter(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [row(pos1, swap(pos1), rng.choice(["0|1", "1|0", "1|1"])) for pos1 in range(300, 500, 9)]
    rows += [row(345, LETTERS[344], "1|1", width=12), row(350, LETTERS[349] + "TT", "0|1")]
    order = rng.sample(range(len(rows)), len(rows))
    plain = scored(rows, model, make_genome, tmp_path)
    mixed = scored([rows[i] for i in order], model, make_genome, tmp_path)
    for number, (values, statuses) in zip(order, mixed):
        assert statuses == plain[number][1]
        assert float(values[0]) == pytest.approx(float(plain[number][0][0]), rel=2e-5, abs=NATS_PER_LETTER * 16)


def test_the_whole_contig_as_window(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    rows = [row(pos1, swap(pos1), "1|1" if pos1 % 2 else "0|1") for pos1 in range(20, 780, 95)]
    whole = scored(rows, model, make_genome, tmp_path, context=None)
    for one, other in zip(whole, scored(rows, model, make_genome, tmp_path, context=4096), strict=True):
        assert one[1] == other[1] == ["OK"]
        assert float(one[0][0]) == pytest.approx(float(other[0][0]), rel=2e-5, abs=3e-5)


def test_on_a_circular_contig(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    """Across the origin as on a straight contig that was cut elsewhere, on the same grid."""
    rows = [row(3, swap(3), "0|1"), row(800, swap(800), "0|1"), row(790, LETTERS[789], "0|1", width=3)]
    found = scored(rows, model, make_genome, tmp_path, circular=("20",))
    straight = make_genome({"20": LETTERS[-128:] + LETTERS + LETTERS[:256]})
    for number, (pos1, turn) in enumerate([(3, 0), (800, 0), (790, 0)]):
        moved = []
        for text in rows:
            columns = text.split("\t")
            place = int(columns[1])
            # Each of the three stands once in the neighbourhood of the allele that is asked for.
            place += 800 if pos1 > 700 and place < 100 else -800 if pos1 < 100 and place > 700 else 0
            moved.append("\t".join([columns[0], str(place + 128 + turn), *columns[2:]]))
        (tmp_path / "straight.vcf").write_text(HEADER + "".join(moved))
        run(model, straight, tmp_path / "straight.vcf", tmp_path / "straight.out.vcf", "me")
        wanted = said(tmp_path / "straight.out.vcf")[number]
        assert wanted[1] == found[number][1] == ["OK"]
        assert float(found[number][0][0]) == pytest.approx(float(wanted[0][0]), rel=2e-5, abs=3e-5)


def test_the_command(run_in_process, human_fasta: Path, human_vcf: Path, model_dir: Path, tmp_path: Path) -> None:
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    source = tmp_path / "in.vcf"
    source.write_text("".join(lines[:120]))
    usual = ["-f", human_fasta, "-m", model_dir, "--context", 256, "--horizon", 16, "--haplotypes", "HG00096"]
    assert run_in_process(*usual, "in.vcf", "-o", "out.vcf", "--summary", "summary.json")[0] == 0
    with open_vcf(tmp_path / "out.vcf") as vcf:
        header = b"\n".join(vcf.header).decode()
    assert "##genossm_haplotypes=HG00096\n" in header
    assert "--haplotypes HG00096" in header.split("##genossm_command=")[1].split("\n")[0]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["haplotypes"]["sample"] == "HG00096"
    assert summary["skipped"]["NOT_CARRIED"] + summary["scored"] == summary["alleles"]
    assert 0 < summary["scored"] < summary["alleles"]
    for number in (1, 2):
        assert run_in_process(*usual, "in.vcf", "--shard", f"{number}/2", "-o", f"{number}.vcf")[0] == 0
    assert run_in_process("merge", "1.vcf", "2.vcf", "-o", "joined.vcf")[0] == 0
    assert (tmp_path / "joined.vcf").read_bytes() == (tmp_path / "out.vcf").read_bytes()
    for arguments, text in (
        (["--haplotypes", "nobody", "in.vcf", "-o", "x.vcf"], "no such sample; it has HG00096, HG00097"),
        (["-", "-o", "x.vcf"], "Pass a file"),
        (["--variant", "20:1000226:A>T"], "go with a VCF or BCF file"),
    ):
        code, stderr = run_in_process(*usual, *arguments)
        assert (code, text in stderr) == (2, True), stderr


def test_a_file_without_samples(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    with pytest.raises(UsageError, match="it has none"):
        run(model, make_genome({"20": LETTERS}), tmp_path / "in.vcf", tmp_path / "out.vcf", "me")
