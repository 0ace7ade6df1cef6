"""Any bytes through the command: every record comes out, or one clear line does and no file.

More examples by hand: GENOSSM_EXAMPLES=2000 pytest tests/variants/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.cli.main import run
from genossm.testing import random_sequence, write_fasta
from genossm.testing.conformance.adapter import tiny_model
from genossm.testing.conformance.cases import CASES, REFERENCE, entries, header_and_records

CONTEXT = 64
# A run of the command an example: a third of the usual number.
few = settings(max_examples=settings().max_examples // 3 or 1)
_PLAIN = random_sequence(400, seed=4).decode()
# Ambiguity codes where the base that stands first in the alphabet is the one that was there; N; soft-mask.
CONTIG = _PLAIN[:100] + "N" * 20 + _PLAIN[120:200].lower() + "RYSWKM" + _PLAIN[206:]
FIRST = {"R": "A", "Y": "C", "S": "C", "W": "A", "K": "G", "M": "A"}
LETTERS = {"1": CONTIG, "2": _PLAIN[::-1][:150]}


@dataclass(frozen=True)
class Outcome:
    """What the command did.   output: the file's bytes, None if there is none."""

    code: int
    stderr: str
    output: bytes | None


Score = Callable[..., Outcome]


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """`genossm score` on some bytes; whatever is no user error of ours comes through as it was raised."""
    folder = tmp_path_factory.mktemp("fuzz")
    toy = write_fasta(folder / "toy.fa", {name: letters.encode() for name, letters in LETTERS.items()})
    model = tiny_model(folder / "model")

    def call(text: bytes, *, reference: Path = toy, suffix: str = ".vcf", out: str = "out.vcf") -> Outcome:
        source, target = folder / f"in{suffix}", folder / out
        source.write_bytes(text)
        target.unlink(missing_ok=True)
        stderr, code = io.StringIO(), 0
        words = ["score", "-f", reference, "-m", model, "--context", CONTEXT, "--horizon", 4, source, "-o", target]
        with contextlib.redirect_stderr(stderr):
            try:
                run([str(word) for word in words])
            except SystemExit as stop:
                code = int(stop.code or 0)
        left = {path.name for path in folder.iterdir()} - {"toy.fa", "model", source.name, target.name}
        assert not [name for name in left if not name.startswith(("in.", "out."))], left
        return Outcome(code, stderr.getvalue(), target.read_bytes() if target.exists() else None)

    return call


def require_clear(outcome: Outcome) -> None:
    """An error is one line, an exit code of ours, and no file."""
    [line] = outcome.stderr.splitlines()
    assert line.startswith("genossm: error: ")
    assert outcome.code in (1, 2, 3)
    assert outcome.output is None


def require_kept(asked: bytes, outcome: Outcome) -> None:
    """Every record and every header line, in their order, with all other fields as they were."""
    assert outcome.output is not None
    header, records = header_and_records(asked)
    header_out, records_out = header_and_records(outcome.output)
    rest = iter(header_out)
    assert all(any(line == other for other in rest) for line in header)
    assert len(records_out) == len(records)
    for before, after in zip(records, records_out):
        old, new = before.split(b"\t"), after.split(b"\t")
        assert old[:7] + old[8:] == new[:7] + new[8:]
        kept = [entry for entry in entries(after) if not entry.startswith(b"GENOSSM_")]
        assert kept == [entry for entry in entries(before) if entry or old[7]] or old[7] == b""
        statuses = next(entry for entry in entries(after) if entry.startswith(b"GENOSSM_STATUS="))
        assert len(statuses.split(b",")) == old[4].count(b",") + 1


def status(contig: str, pos1: int, ref: str, alt: str) -> str:
    """The first reason that applies, written down once more."""
    if alt == ".":
        return "NO_ALT"
    joined = "[" in alt or "]" in alt
    if alt[0] == "<" or ("<" in alt and not joined):
        return "SYMBOLIC"
    if joined or alt[0] == "." or alt[-1] == ".":
        return "BREAKEND" if alt != "." else "NON_ACGT"
    if alt == "*":
        return "STAR_ALLELE"
    if set(ref.upper() + alt.upper()) - set("ACGT"):
        return "NON_ACGT"
    letters = LETTERS.get(contig.removeprefix("chr"))
    if letters is None:
        return "CONTIG_UNKNOWN"
    if pos1 < 1 or pos1 - 1 + len(ref) > len(letters):
        return "OUT_OF_CONTIG"
    there = letters[pos1 - 1 : pos1 - 1 + len(ref)].upper()
    if "".join(FIRST.get(letter, letter) for letter in there) != ref.upper():
        return "REF_MISMATCH"
    a, b = ref.upper(), alt.upper()
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    return "TOO_LONG" if max(len(a), len(b)) > CONTEXT // 8 else "OK"


HEADER = (
    "##fileformat=VCFv4.3\n##contig=<ID=1>\n##contig=<ID=2>\n##contig=<ID=chr1>\n##contig=<ID=un>\n"
    '##FILTER=<ID=q10,Description="Low">\n##ALT=<ID=DEL,Description="Deletion">\n'
    '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n##INFO=<ID=DB,Number=0,Type=Flag,Description="Flag">\n'
    '##INFO=<ID=TX,Number=.,Type=String,Description="Text">\n##INFO=<ID=AF,Number=A,Type=Float,Description="AF">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Likelihoods">\n'
)
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb\n"
ODD_ALTS = [
    "<DEL>",
    "<NON_REF>",
    "<*>",
    "*",
    "N",
    "n",
    "ACRT",
    "A[1:30[",
    "]un:9]T",
    "A.",
    ".A",
    "A<ctg>",
    "GATTACAGATTACA",
]
DNA = st.text("ACGTacgt", min_size=1, max_size=9)


@st.composite
def alleles(draw: st.DrawFn) -> tuple[str, int, str, list[str]]:
    """(contig, position, REF, ALTs); REF mostly as the reference has it."""
    contig = draw(st.sampled_from(["1", "1", "1", "chr1", "2", "un"]))
    letters = LETTERS.get(contig.removeprefix("chr"), _PLAIN)
    pos1 = draw(st.one_of(st.integers(1, len(letters)), st.integers(0, len(letters) + 9)))
    width = draw(st.integers(1, 12))
    there = "".join(FIRST.get(letter, letter) for letter in letters[max(0, pos1 - 1) : max(0, pos1 - 1) + width])
    ref = draw(st.sampled_from([there, there, there, there.upper(), "N", "A"])) or "A"
    near = st.sampled_from([ref[:1], ref + ref, ref[:1] + "T", ref[::-1], ref])
    alts = draw(st.lists(st.one_of(DNA, near, st.sampled_from(ODD_ALTS)), min_size=1, max_size=4))
    return contig, pos1, ref, draw(st.sampled_from([alts, alts, alts, ["."]]))


DECLARED = st.sampled_from([".", "DP=3", "DB", "DP=1;DB;TX=a,b", "TX=%3D;AF=0.5", "TX=x|y"])
RECORDS = st.lists(st.tuples(alleles(), DECLARED, st.sampled_from(["GT", "GT:PL"])), max_size=8)


def line(change: tuple[str, int, str, list[str]], info: str, form: str) -> str:
    contig, pos1, ref, alts = change
    samples = {"GT": "0/1\t.|.", "GT:PL": "0|1:.\t1/1:1,2,3"}[form]
    return f"{contig}\t{pos1}\trs{pos1}\t{ref}\t{','.join(alts)}\t30\tPASS\t{info}\t{form}\t{samples}\n"


@few
@given(records=RECORDS)
def test_valid_files_keep_every_record_with_its_reason(records: list, score: Score) -> None:
    asked = (HEADER + COLUMNS + "".join(line(*record) for record in records)).encode()
    outcome = score(asked)
    wanted = [[status(*change[:3], alt) for alt in change[3]] for change, _, _ in records]
    flat = [word for words in wanted for word in words]
    checked = [word for word in flat if word in ("REF_MISMATCH", "TOO_LONG", "OK")]
    foreign = "CONTIG_UNKNOWN" in flat and not [word for word in flat if word in ("OUT_OF_CONTIG", *checked)]
    if 2 * checked.count("REF_MISMATCH") > len(checked) or foreign:
        require_clear(outcome)
        assert outcome.code == (1 if foreign else 3)
        return
    assert outcome.code == 0, outcome.stderr
    require_kept(asked, outcome)
    assert outcome.output is not None
    for record, words in zip(header_and_records(outcome.output)[1], wanted):
        said = dict(entry.decode().partition("=")[::2] for entry in entries(record))
        assert said["GENOSSM_STATUS"].split(",") == words
        assert words == ["NO_ALT"] or [text != "." for text in said["GENOSSM_LLR"].split(",")] == [
            word == "OK" for word in words
        ]


@few
@given(records=RECORDS, out=st.sampled_from(["out.vcf", "out.vcf.gz", "out.bcf"]))
def test_bcftools_sees_the_same_file_but_for_our_fields(
    records: list, out: str, score: Score, tmp_path_factory
) -> None:
    plain = [record for record in records if record[0][0] != "un" and record[0][1] > 0]
    good = line(("1", 50, CONTIG[49], ["A" if CONTIG[49] != "A" else "C"]), ".", "GT")
    asked = (HEADER + COLUMNS + good * 33 + "".join(line(*record) for record in plain)).encode()
    outcome = score(asked, out=out)
    assert outcome.code == 0, outcome.stderr
    assert outcome.output is not None
    folder = tmp_path_factory.mktemp("view")
    (folder / "in.vcf").write_bytes(asked)
    (folder / out).write_bytes(outcome.output)
    fields = "INFO/GENOSSM_LLR,INFO/GENOSSM_STATUS"
    removed = pysam.bcftools.annotate("--no-version", "-x", fields, str(folder / out)).splitlines()
    kept = [text for text in removed if not text.startswith("##genossm_")]
    assert kept == pysam.bcftools.view("--no-version", str(folder / "in.vcf")).splitlines()


FIELD = st.binary(max_size=8).map(lambda text: re.sub(rb"[\t\n\r]", b"", text))


@few
@given(fields=st.lists(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD, FIELD), min_size=1, max_size=5), note=FIELD)
def test_bytes_that_mean_nothing_to_us_stay_as_they_are(fields: list, note: bytes, score: Score) -> None:
    """ID, QUAL, FILTER, INFO and genotypes of any bytes, UTF-8 or not."""
    rows = [
        b"\t".join([b"1", b"7", a, CONTIG[6].encode(), b"<DEL>", b, c, d.replace(b"GENOSSM", b""), e, f, b"."])
        for a, b, c, d, e, f in fields
    ]
    asked = HEADER.encode() + b"##note=" + note + b"\n" + COLUMNS.encode() + b"\n".join(rows) + b"\n"
    outcome = score(asked)
    assert outcome.code == 0, outcome.stderr
    require_kept(asked, outcome)


def real_files() -> dict[str, tuple[bytes, Path]]:
    """Bytes to break, with the reference that they stand on."""
    data = Path(__file__).parents[2] / "data"
    human = b"".join(gzip.decompress((data / "1000g_chr20_1-4Mb.vcf.gz").read_bytes()).splitlines(True)[:16])
    header, records = header_and_records(CASES.read_bytes())
    return {
        "human": (human, data / "chr20_1-4Mb.fa.gz"),
        "cases": (b"\n".join([*header, *records[:6], *records[90:100]]) + b"\n", REFERENCE),
    }


REAL = real_files()
SNIPPETS = [
    b"\t",
    b"\n",
    b"\r\n",
    b"",
    b",",
    b".",
    b"#",
    b"\x00",
    b"\xff",
    b"N",
    b"<",
    b"GENOSSM_STATUS=OK;",
    b"-",
    b"20\t",
]


@st.composite
def mutations(draw: st.DrawFn, text: bytes) -> bytes:
    """A few pieces replaced, doubled, moved or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        width = draw(st.sampled_from([0, 1, 1, 2, 30]))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "double", "cut"]))
        if kind == "replace":
            text = text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at + width :]
        elif kind == "double":
            text = text[: at + width] + text[at:]
        else:
            text = text[:at] if draw(st.integers(0, 3)) == 0 else text[: -min(len(text), width) or None]
    return text


def first_malformed(text: bytes) -> int | None:
    """The number of the first data line that is none, by rules written down once more; None if there is none."""
    lines = text.split(b"\n")
    names = next((number for number, line in enumerate(lines) if line.startswith(b"#CHROM")), None)
    if names is None:
        return None
    tabs = lines[names].rstrip(b"\r").count(b"\t")
    last = max((number for number, line in enumerate(lines) if line.rstrip(b"\r")), default=0)
    for number in range(names + 1, last + 1):
        columns = lines[number].rstrip(b"\r").split(b"\t")
        if len(columns) != tabs + 1 or columns == [b""]:
            return number + 1
        contig, position, _, ref, alts = columns[:5]
        whole = re.fullmatch(rb"[0-9]{1,10}", position)
        if not contig or b" " in contig or not whole or re.fullmatch(rb"\.|.*[, ].*|", ref, re.DOTALL):
            return number + 1
        if b" " in alts or b"" in alts.split(b","):
            return number + 1
    return None


@few
@given(data=st.data(), name=st.sampled_from(sorted(REAL)))
def test_broken_real_files_come_out_whole_or_are_refused_by_line(data: st.DataObject, name: str, score: Score) -> None:
    text, reference = REAL[name]
    text = data.draw(mutations(text))
    outcome = score(text, reference=reference)
    bad = first_malformed(text)
    if outcome.code == 0:
        assert bad is None
        require_kept(text, outcome)
        return
    require_clear(outcome)
    named = re.search(r"line (\d+)", outcome.stderr)
    if bad is not None and named and "column names" not in outcome.stderr:
        assert int(named[1]) == bad


@few
@given(data=st.data(), at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_broken_compressed_files_are_noticed(data: st.DataObject, at: int, flip: int, score: Score) -> None:
    """A byte of bgzip flipped or the end cut off: an error, or, where the byte means nothing, the whole file."""
    text, reference = REAL["human"]
    packed = bytearray(bgzip(text))
    at %= len(packed)
    if data.draw(st.booleans()):
        packed = packed[: max(1, at)]
    else:
        packed[at] ^= flip
    outcome = score(bytes(packed), reference=reference, suffix=".vcf.gz")
    if outcome.code:
        require_clear(outcome)
    else:
        require_kept(text, outcome)


@few
@given(data=st.data(), kind=st.sampled_from(["packed", "unpacked", "packed again"]), last=st.booleans())
def test_broken_bcf_is_noticed(data: st.DataObject, kind: str, last: bool, score: Score, tmp_path_factory) -> None:
    """Bytes of the file, or of what it holds: an error, or every record that htslib finds there."""
    whole, reference = bcf(), REAL["human"][1]
    content = bytearray(whole if kind == "packed" else gzip.decompress(whole))
    for _ in range(data.draw(st.integers(1, 2))):
        # The header is the most of it; records are hit as often.
        at = data.draw(st.integers(len(content) - 1200 if last else 0, len(content) - 1))
        new = data.draw(st.sampled_from([b"", b"\0", b"\xff", b"\x7f", bytes([content[at] ^ 1]), b"\x01\x02"]))
        content[at : at + 1] = new
    if data.draw(st.integers(0, 5)) == 0:
        content = content[: data.draw(st.integers(1, len(content)))]
    broken = bgzip(bytes(content)) if kind == "packed again" else bytes(content)
    outcome = score(broken, reference=reference, suffix=".bcf")
    if outcome.code:
        require_clear(outcome)
        return
    assert outcome.output is not None
    path = tmp_path_factory.mktemp("view") / "in.bcf"
    path.write_bytes(broken)
    wanted = pysam.bcftools.view("--no-version", "-H", str(path)).splitlines()
    found = [record.decode().split("\t") for record in header_and_records(outcome.output)[1]]
    assert [one[:7] + one[8:] for one in found] == [(w := line.split("\t"))[:7] + w[8:] for line in wanted]


def test_bcf_in_plain_gzip_is_read(score: Score) -> None:
    outcome = score(gzip.compress(gzip.decompress(bcf())), reference=REAL["human"][1], suffix=".bcf")
    assert outcome.code == 0, outcome.stderr
    require_kept(REAL["human"][0], outcome)


_PACKED: dict[bytes, bytes] = {}


def bcf() -> bytes:
    """The human records as BCF, bgzipped."""
    text = REAL["human"][0]
    if b"bcf" + text not in _PACKED:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "in.vcf").write_bytes(text)
            target = str(Path(folder) / "in.bcf")
            arguments = ("--no-version", "-Ob", "-o", target, str(Path(folder) / "in.vcf"))
            pysam.bcftools.view(*arguments, catch_stdout=False)
            _PACKED[b"bcf" + text] = Path(target).read_bytes()
    return _PACKED[b"bcf" + text]


def bgzip(text: bytes) -> bytes:
    if text not in _PACKED:
        with tempfile.NamedTemporaryFile(suffix=".gz") as file:
            with pysam.BGZFile(file.name, "wb", index=None) as packed:
                packed.write(text)
            _PACKED[text] = Path(file.name).read_bytes()
    return _PACKED[text]
