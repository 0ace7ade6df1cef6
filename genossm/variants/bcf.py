"""Text to BCF, which, unlike text, can only hold names that its header declares."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pysam
import pysam.bcftools

from genossm.core.errors import InputFileError
from genossm.variants.vcf_input import quiet_htslib

_DECLARED = re.compile(rb"##(contig|FILTER|INFO|FORMAT)=<(?:.*?,)?ID=([^,>]+)")


def write_bcf(text: BinaryIO, path: Path) -> None:
    """Write a VCF text, from its beginning, as BCF.

    Names that records use and the header does not declare are declared as htslib does: one string, no meaning.
    Raises: InputFileError if htslib refuses a record.
    """
    header, missing = _undeclared(text)
    # Beside `path`, by its name: so whoever clears up after a killed process finds both.
    with open(f"{path}.vcf", "wb") as whole, ExitStack() as stack:
        stack.callback(Path(whole.name).unlink)
        text.seek(0)
        for _ in header[:-1]:
            whole.write(text.readline())
        whole.writelines(line + b"\n" for line in missing)
        while piece := text.read(1 << 20):
            whole.write(piece)
        whole.flush()
        try:
            with quiet_htslib():
                pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), whole.name, catch_stdout=False)
        except pysam.SamtoolsError as error:
            reason = " ".join(str(error).replace(whole.name, "the records").split())
            raise InputFileError(
                f"The records cannot be written as BCF: {reason}. Write VCF instead (-O z)."
            ) from error


def _undeclared(text: BinaryIO) -> tuple[list[bytes], list[bytes]]:
    """The header, and lines that declare what its records use beyond it."""
    text.seek(0)
    header: list[bytes] = []
    used: dict[tuple[bytes, bytes], bytes] = {}
    for line in text:
        if line.startswith(b"#"):
            header.append(line)
            continue
        columns = line.rstrip(b"\n").split(b"\t", 9)
        used[b"contig", columns[0]] = b""
        used.update(((b"FILTER", name), b"") for name in _names(columns, 6, b";"))
        for entry in _names(columns, 7, b";"):
            name, value, _ = entry.partition(b"=")
            used[b"INFO", name] = b"1,Type=String" if value else b"0,Type=Flag"
        used.update(((b"FORMAT", name), b"1,Type=String") for name in _names(columns, 8, b":"))
    declared = {match.groups() for line in header if (match := _DECLARED.match(line))} | {(b"FILTER", b"PASS")}
    missing = ((*key, shape) for key, shape in used.items() if key not in declared)
    return header, [_declaration(*parts) for parts in missing]


def _names(columns: list[bytes], number: int, divider: bytes) -> list[bytes]:
    if len(columns) <= number or columns[number] == b".":
        return []
    return columns[number].split(divider)


def _declaration(kind: bytes, name: bytes, shape: bytes) -> bytes:
    if kind == b"contig":
        return b"##contig=<ID=%s>" % name
    number = b"Number=%s," % shape if shape else b""
    return b'##%s=<ID=%s,%sDescription="Not described by the input">' % (kind, name, number)
