"""Reading: whatever a file is packed in, its lines come out as they stand; what is wrong is named with its place."""

from __future__ import annotations

import gzip
from pathlib import Path

import pysam
import pysam.bcftools
import pytest

from genossm.core.errors import InputFileError
from genossm.variants.vcf_input import open_vcf

HEADER = b"##fileformat=VCFv4.2\n##contig=<ID=1,length=99>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
RECORDS = b"1\t5\trs1\tA\tC,<DEL>\t.\tPASS\tDP=3\n1\t9\t.\tG\t.\t9\t.\t.\n"


def lines(path: Path) -> list[bytes]:
    with open_vcf(path) as vcf:
        return [*vcf.header, *(record.with_info(record.info) for record in vcf.records)]


def packed(path: Path, text: bytes, packing: str) -> Path:
    if packing == "bgzip":
        with pysam.BGZFile(str(path), "wb", index=None) as file:
            file.write(text)
    else:
        path.write_bytes(gzip.compress(text) if packing == "gzip" else text)
    return path


@pytest.mark.parametrize("packing", ["plain", "bgzip", "gzip"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_text_comes_out_as_it_stands(packing: str, end: bytes, tmp_path: Path) -> None:
    text = (HEADER + RECORDS).replace(b"\n", end)
    assert lines(packed(tmp_path / "any.name", text, packing)) == (HEADER + RECORDS).splitlines()


def test_last_line_may_lack_its_end_and_blank_lines_may_follow(tmp_path: Path) -> None:
    wanted = (HEADER + RECORDS).splitlines()
    assert lines(packed(tmp_path / "a.vcf", (HEADER + RECORDS)[:-1], "plain")) == wanted
    assert lines(packed(tmp_path / "b.vcf", HEADER + RECORDS + b"\n\n", "plain")) == wanted


@pytest.mark.parametrize("level", ["-Ob", "-Ou"])
def test_bcf_reads_as_bcftools_view_prints_it(level: str, human_vcf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.bcf"
    region = "20:1000000-1050000"
    pysam.bcftools.view(level, "--no-version", "-r", region, "-o", str(path), str(human_vcf), catch_stdout=False)
    assert lines(path) == pysam.bcftools.view("--no-version", str(path)).encode().splitlines()


def test_real_file_loses_nothing(human_vcf: Path) -> None:
    assert lines(human_vcf) == gzip.decompress(human_vcf.read_bytes()).splitlines()


@pytest.mark.parametrize("kind", ["bgzip", "gzip", "bcf"])
def test_cut_anywhere_is_an_error(kind: str, tmp_path: Path) -> None:
    text = HEADER + b"".join(b"1\t%d\t.\tA\tC\t.\t.\t.\n" % i for i in range(1, 30))
    whole = packed(tmp_path / "whole.vcf", text, "plain" if kind == "bcf" else kind)
    if kind == "bcf":
        whole = tmp_path / "whole.bcf"
        pysam.bcftools.view("-Ob", "-o", str(whole), str(tmp_path / "whole.vcf"), catch_stdout=False)
    data = whole.read_bytes()
    broken = tmp_path / "cut"
    for length in {1, 17, 18, 19, len(data) // 2, len(data) - 29, len(data) - 28, len(data) - 27, len(data) - 1}:
        broken.write_bytes(data[:length])
        with pytest.raises(InputFileError):
            lines(broken)


def test_cut_between_two_blocks_is_an_error(tmp_path: Path) -> None:
    data = packed(tmp_path / "x.vcf.gz", HEADER + RECORDS, "bgzip").read_bytes()
    (tmp_path / "cut.vcf.gz").write_bytes(data[:-28])
    with pytest.raises(InputFileError, match="truncated"):
        lines(tmp_path / "cut.vcf.gz")


def test_damaged_block_is_an_error(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "x.vcf.gz", HEADER + RECORDS, "bgzip").read_bytes())
    data[60] ^= 0xFF
    (tmp_path / "bad.vcf.gz").write_bytes(data)
    with pytest.raises(InputFileError, match=r"damaged|truncated"):
        lines(tmp_path / "bad.vcf.gz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b">chr1\nACGT\n", "neither VCF nor BCF"),
        (b"##gff-version 3\n", "wanted ##fileformat=VCF"),
        (HEADER.splitlines(keepends=True)[0], "before any line of column names"),
        (b"##fileformat=VCFv4.2\n1\t5\t.\tA\tC\t.\t.\t.\n", "before any line of column names"),
        (b"##fileformat=VCFv4.2\n#CHROM POS ID REF ALT QUAL FILTER INFO\n", "line 2: the column names are"),
        (b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n", "line 2: the column names are"),
    ],
)
def test_what_is_no_vcf(text: bytes, message: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.vcf", text, "plain")
    with pytest.raises(InputFileError, match=message):
        lines(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1\t6\t.\tA\tC\t.\t.", "7 columns, wanted 8"),
        (b"1\t6\t.\tA\tC\t.\t.\t.\tGT", "9 columns, wanted 8"),
        (b"1 6 . A C . . .", "1 columns"),
        (b"1\tsix\t.\tA\tC\t.\t.\t.", "POS is 'six'"),
        (b"1\t-6\t.\tA\tC\t.\t.\t.", "POS is '-6'"),
        (b"1\t\t.\tA\tC\t.\t.\t.", "POS is ''"),
        (b"1\t99999999999\t.\tA\tC\t.\t.\t.", "POS is"),
        (b"\t6\t.\tA\tC\t.\t.\t.", "CHROM is ''"),
        (b"1\t6\t.\t\tC\t.\t.\t.", "REF is ''"),
        (b"1\t6\t.\t.\tC\t.\t.\t.", "REF is '.'"),
        (b"1\t6\t.\tA,G\tC\t.\t.\t.", "REF is 'A,G'"),
        (b"1\t6\t.\tA\t\t.\t.\t.", "ALT is ''"),
        (b"1\t6\t.\tA\tC,\t.\t.\t.", "ALT is 'C,'"),
        (b"", "is blank"),
    ],
)
def test_malformed_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.vcf", HEADER + RECORDS + line + b"\n" + RECORDS, "plain")
    with pytest.raises(InputFileError, match=f"line 6.*{message}"):
        lines(path)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No file at"):
        lines(tmp_path / "absent.vcf")
    with pytest.raises(InputFileError, match=r"Cannot read|directory"):
        lines(tmp_path)
