"""A page of igv-reports over the alleles that a model finds least likely: a table, and a genome browser at each."""

from __future__ import annotations

import heapq
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import pysam

import genossm.genome
from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import InputFileError, MissingDependencyError, UsageError
from genossm.genome import Genome
from genossm.sequence import Interval
from genossm.variants.info_fields import allele_number, info_fields
from genossm.variants.methods import LLR
from genossm.variants.naming import DEFAULT_TAG, Naming
from genossm.variants.vcf_header import STATUS
from genossm.variants.vcf_input import Record, open_vcf

TOP = 100
_FLANK = 200
_STRIDE = 1 << 20
# The page's own script shows the table once its browser stands. Without the browser's code something stands in for it.
_OFFLINE = """
<p id="genossm-note" hidden style="padding: 1em; background: #fff3cd">
The genome browser of this page could not be fetched: it is igv.js, which the page takes from the network. The table is
complete. Open the page with a network, or make it with <code>--report-standalone</code>, which puts igv.js into it.
</p>
<script>
if (typeof igv === "undefined") {
    document.getElementById("genossm-note").hidden = false
    const nothing = new Proxy({}, { get: (_, name) => name === "then" ? undefined : () => Promise.resolve() })
    window.igv = { createBrowser: () => Promise.resolve(nothing) }
}
</script>
"""


def require_igv_reports() -> None:
    """Raise MissingDependencyError without igv-reports."""
    if importlib.util.find_spec("igv_reports") is None:
        raise MissingDependencyError("The page needs igv-reports. Install it with: pip install 'genossm[report]'")


def refuse_igv_page(scored: str, target: Path, *, force: bool) -> None:
    """Raise before anything slow begins what would be raised in the end."""
    require_igv_reports()
    refuse_overwrite(target, force=force)
    if scored == "-":
        raise UsageError("--report reads the scored file again, which standard output does not allow. Name a file: -o.")
    if target.resolve() == Path(scored).resolve():
        raise UsageError(f"Two outputs are both {target}. Choose another for one of them.")


def write_igv_page(
    scored: str | Path,
    reference: str,
    target: Path,
    *,
    top: int = TOP,
    tag: str = DEFAULT_TAG,
    standalone: bool = False,
    force: bool = False,
) -> int:
    """Write a page over the `top` records of a scored VCF or BCF, and return how many there are.

    The lowest GENOSSM_LLR, where ALT is least likely, ranks first; in a file without it the largest value of its first
    field. Of a record with several ALT alleles the one that ranks highest counts.   tag: what our fields begin with.
    The page holds its data; the browser in it is fetched by whoever opens it (without it there is the table), or, if it
    is to be `standalone`, now.
    Raises: MissingDependencyError; UsageError; InputFileError for a file without scores; OutputError.
    """
    require_igv_reports()
    refuse_overwrite(target, force=force)
    if top < 1:
        raise UsageError(f"A page of {top} records is not possible; wanted at least 1.")
    with open_vcf(scored) as vcf:
        header = vcf.header
        fields = _fields(header, Naming(tag))
        if not fields:
            raise InputFileError(f"{vcf.name} holds no scores (INFO/{tag}_…). Score it first: genossm score.")
        ratio = Naming(tag).field(LLR.tags[0].name)
        number, sign = (ratio, -1.0) if ratio in fields else (fields[0], 1.0)
        ranked = ((value, -place, record) for place, record in enumerate(vcf.records)
                  if (value := _rank(record, number, sign)) is not None)  # fmt: skip
        chosen = sorted(heapq.nlargest(top, ranked, key=lambda one: one[:2]), key=lambda one: -one[1])
    if not chosen:
        raise InputFileError(f"{scored} has no record with a {number}; there is nothing to show.")
    records = [record for _, _, record in chosen]
    with (
        genossm.genome.open(reference) as genome,
        tempfile.TemporaryDirectory(prefix="genossm-") as folder,
        atomic_file(target, force=force) as temporary,
    ):
        sites, fasta = _sites(header, records, Path(folder)), _contigs(records, genome, Path(folder))
        words = [str(sites), "--fasta", str(fasta), "--flanking", str(2 * _FLANK), "--tracks", str(sites)]
        words += ["--info-columns", *fields, "--title", f"genossm: {Path(scored).name}", "--output", str(temporary)]
        _run_igv_reports(words, temporary, Path(folder), standalone=standalone)
    return len(records)


def _run_igv_reports(words: list[str], page: Path, folder: Path, *, standalone: bool) -> None:
    if standalone:
        words = [*words, "--standalone"]
    else:
        note = folder / "note.html"
        note.write_text(_OFFLINE)
        words = [*words, "--header", str(note)]
    done = subprocess.run([sys.executable, "-m", "igv_reports.report", *words], capture_output=True, text=True)
    if done.returncode or not page.is_file():
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        network = " It fetches igv.js, which needs a network: leave --report-standalone out." if standalone else ""
        raise InputFileError(f"igv-reports could not make the page; it says: {last}.{network}")


def _fields(header: tuple[bytes, ...], naming: Naming) -> list[str]:
    """Names of the numbers that the header declares, in its order."""
    ours = [name.decode() for name in naming.own_fields(header)]
    return [name for name in ours if name != naming.field(STATUS)]


def _rank(record: Record, number: str, sign: float) -> float | None:
    """The higher, the nearer the top; None without a number."""
    fields = info_fields(record)
    found = [allele_number(record, fields, number, place) for place in range(len(record.alts))]
    return max((sign * value for value in found if value is not None), default=None)


def _sites(header: tuple[bytes, ...], records: list[Record], folder: Path) -> Path:
    path = folder / "sites.vcf"
    path.write_bytes(b"".join(line + b"\n" for line in (*header, *(b"\t".join(one.columns) for one in records))))
    return path


def _contigs(records: list[Record], genome: Genome, folder: Path) -> Path:
    """The records' contigs under the names that the records use, as an indexed FASTA file."""
    path = folder / "contigs.fa"
    with open(path, "wb") as file:
        for contig in dict.fromkeys(record.contig for record in records):
            length = genome.length(contig)
            file.write(f">{contig}\n".encode())
            for start in range(0, length, _STRIDE):
                file.write(genome.fetch(Interval(contig, start, min(start + _STRIDE, length))))
            file.write(b"\n")
    pysam.faidx(str(path))
    return path
