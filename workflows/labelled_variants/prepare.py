"""Bring published sets of labelled variants into one form: tables, references, and a configuration that names them.

    python workflows/labelled_variants/prepare.py SOURCES OUT [--chr20 FASTA] [--yeast GENOME] [--ecoli FASTA]
    genossm evaluate labelled --config OUT/labelled.yaml -m causal=MODEL -m masked=MODEL -o labelled.json

SOURCES holds the folders that README.md lists, as their authors published them. Sets stand on the sequence that came
with them wherever they have one; none is lifted over.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, object]
BRCA1_START = 41_100_001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--chr20", type=Path, help="GRCh37 chromosome 20 whole, contig 20: HNF4A in its place.")
    parser.add_argument("--yeast", type=Path, help="S. cerevisiae R64, contigs I to XVI: HSP82.")
    parser.add_argument("--ecoli", type=Path, help="E. coli U00096.2: infA.")
    parser.add_argument("--context", type=int, default=8192)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    sets: list[dict[str, Any]] = []
    for prepare in (brca1, mpra, thousand_genomes, tem1, yeast_promoters):
        sets += prepare(arguments.sources, arguments.out)
    if arguments.chr20:
        sets += hnf4a(arguments.sources, arguments.out, arguments.chr20)
    if arguments.yeast:
        sets += scan(arguments.sources, arguments.out, "HSP82", "HSP82_dms.tsv.gz", "DMS", arguments.yeast)
    if arguments.ecoli:
        sets += scan(arguments.sources, arguments.out, "infA", "infA_dms.tsv.gz", "DMS", arguments.ecoli)
    # JSON is YAML.
    content = {"context": arguments.context, "sets": sets}
    (arguments.out / "labelled.yaml").write_text(json.dumps(content, indent=1) + "\n")


def brca1(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Saturation genome editing of BRCA1 (Findlay 2018) on 200 kb of GRCh37 chromosome 17."""
    folder = sources / "brca1_sge"
    rows = list(read(folder / "brca1_sge_variants.tsv.gz"))
    names = copy_fasta([folder / "brca1_chr17_41100001-41300000_GRCh37.fa"], out / "brca1.fa")
    for row in rows:
        row["chrom"], row["pos"] = names[0], int(str(row["pos"])) - BRCA1_START + 1
    write(out / "brca1.tsv", rows)
    shared = {"table": "brca1.tsv", "reference": "brca1.fa", "compare": ["phylop", "cadd"], "block": 100}
    classes = {"label": "func_class", "positive": ["LOF"], "negative": ["FUNC"]}
    return [
        {"name": "BRCA1, loss of function against functional", **shared, **classes},
        {"name": "BRCA1, function score", **shared, "label": "function_score"},
    ]


def mpra(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Saturation mutagenesis of regulatory elements (Kircher 2019), each element alone on its own sequence."""
    folder = sources / "satmut_mpra"
    names = copy_fasta([folder / "elements_GRCh37.fa"], out / "mpra.fa")
    starts = {name: start for name, start in element_starts(folder / "elements_GRCh37.fa").items() if name in names}
    rows = []
    for row in measured(folder):
        name = str(row["Element"])
        if name in starts:
            rows.append({**row, "chrom": name, "pos": int(str(row["pos"])) - starts[name] + 1})
    write(out / "mpra.tsv", rows)
    return mpra_sets("MPRA, 14 experiments on their own sequence", "mpra.tsv", "mpra.fa")


def hnf4a(sources: Path, out: Path, chr20: Path) -> list[dict[str, Any]]:
    """One of the elements in its place on the chromosome."""
    rows = [row for row in measured(sources / "satmut_mpra") if row["Element"] == "HNF4A"]
    write(out / "hnf4a.tsv", rows)
    return mpra_sets("MPRA of HNF4A in its place", "hnf4a.tsv", str(chr20.resolve()))


def mpra_sets(name: str, table: str, reference: str) -> list[dict[str, Any]]:
    shared = {"table": table, "reference": reference, "block": 10}
    classes = {"label": "effect", "positive": ["yes"], "negative": ["no"]}
    return [
        {"name": f"{name}, effect (p ≤ 1e-5) against none (p ≥ 0.1)", **shared, **classes},
        {"name": f"{name}, size of the effect", **shared, "label": "size"},
        {"name": f"{name}, effect with its sign", **shared, "label": "Coefficient"},
    ]


def measured(folder: Path) -> Iterator[Row]:
    """Substitutions on GRCh37 that at least ten barcodes carried."""
    for row in read(folder / "elements.tsv.gz"):
        substitution = len(str(row["Ref"])) == 1 and str(row["Alt"]) in "ACGT"
        if row["Release"] != "GRCh37" or not substitution or int(str(row["Barcodes"])) < 10:
            continue
        p = float(str(row["pValue"]))
        effect = "yes" if p <= 1e-5 else "no" if p >= 0.1 else ""
        yield {
            "chrom": row["Chrom"], "pos": row["Pos"], "ref": row["Ref"], "alt": row["Alt"], "Element": row["Element"],
            "Coefficient": row["Coefficient"], "size": abs(float(str(row["Coefficient"]))), "effect": effect,
        }  # fmt: skip


def element_starts(fasta: Path) -> dict[str, int]:
    headers = [line[1:].split() for line in fasta.read_text().splitlines() if line.startswith(">")]
    return {name: int(place.split(":")[1].split("-")[0]) for name, place in headers}


def thousand_genomes(sources: Path, out: Path) -> list[dict[str, Any]]:
    """1000 Genomes phase 3, chr20:1-2 Mb: alleles seen once in 5,008 against common ones."""
    folder = sources / "kg_chr20_1-2Mb"
    copy_fasta([folder / "z.fa.gz"], out / "kg.fa")
    (out / "kg.vcf.gz").write_bytes((folder / "z.vcf.gz").read_bytes())
    limits = {"at_least": 0.05, "at_most": 0.0002, "low_is_effect": True}
    shared = {"table": "kg.vcf.gz", "reference": "kg.fa", "label": "AF", "kinds": ["snv"], "sample": 8000}
    return [{"name": "1000 Genomes chr20:1-2 Mb, singletons against common SNVs", **shared, **limits}]


def tem1(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Deep mutational scan of TEM-1 on its coding sequence; amino acids were measured, nucleotides are the nearest."""
    copy_fasta([sources / "dms_nucleotide" / "bla_TEM1_cds.fa"], out / "bla.fa")
    return scan(sources, out, "TEM-1", "bla_dms.tsv.gz", "DMS_amp_2500_(b)", out / "bla.fa")


def scan(sources: Path, out: Path, name: str, file: str, label: str, reference: Path) -> list[dict[str, Any]]:
    write(out / f"{name}.tsv", list(read(sources / "dms_nucleotide" / file)))
    shared = {"table": f"{name}.tsv", "reference": str(reference.resolve()), "label": label, "block": 30}
    return [{"name": f"{name} deep mutational scan, fitness", **shared}]


def yeast_promoters(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Single-base mutants of native yeast promoters (Vaishnav 2022), each on the reporter's own 110 bases."""
    rows, sequences = [], {}
    for row in read(sources / "yeast_promoter_mpra" / "native_snv_defined_media.tsv.gz"):
        before, after = str(row["base_seq(consensus)"]), str(row["mut_seq"])
        changed = [place for place, (a, b) in enumerate(zip(before, after)) if a != b]
        if len(before) != len(after) or len(changed) != 1:
            continue
        sequences[str(row["base"])] = before
        place = changed[0]
        rows.append({"chrom": row["base"], "pos": place + 1, "ref": before[place], "alt": after[place],
                     "expression": row["meanEL_minus_siblings"],
                     "size": abs(float(str(row["meanEL_minus_siblings"])))})  # fmt: skip
    # Constructs with several consensus sequences under one name would not agree with their rows.
    rows = [row for row in rows if sequences[str(row["chrom"])][int(row["pos"]) - 1] == row["ref"]]
    write(out / "yeast_promoters.tsv", rows)
    (out / "yeast_promoters.fa").write_text("".join(f">{name}\n{letters}\n" for name, letters in sequences.items()))
    shared = {"table": "yeast_promoters.tsv", "reference": "yeast_promoters.fa", "block": 1000}
    return [
        {"name": "yeast promoters, size of the change", **shared, "label": "size"},
        {"name": "yeast promoters, change of expression", **shared, "label": "expression"},
    ]


def read(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


def write(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def copy_fasta(sources: Iterable[Path], target: Path) -> list[str]:
    """The sequences under the first words of their names."""
    lines: list[str] = []
    for source in sources:
        text = gzip.decompress(source.read_bytes()).decode() if source.suffix == ".gz" else source.read_text()
        lines += [line.split()[0] if line.startswith(">") else line for line in text.splitlines()]
    target.write_text("\n".join(lines) + "\n")
    return [line[1:] for line in lines if line.startswith(">")]


if __name__ == "__main__":
    main()
