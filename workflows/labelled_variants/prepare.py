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
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import genossm.genome
from genossm.sequence import Interval, Variant

Row = dict[str, object]
BRCA1_START = 41_100_001
# A multiple of every window's grid up to contexts of 131,072: a stretch cut here is scored as it is in its genome.
GRID = 65_536
# What the scan of HSP82 says where nothing was measured.
UNMEASURED = -999.0
# Alleles that are judged of the larger sets of long windows; heads learn from whole tables.
SAMPLES = {"kg": 2000, "TEM-1": 2000, "HSP82": 1500, "infA": 800}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--chr20", type=Path, help="GRCh37 chromosome 20 whole, contig 20: HNF4A in its place.")
    parser.add_argument("--yeast", type=Path, help="S. cerevisiae R64, contigs I to XVI: HSP82.")
    parser.add_argument("--ecoli", type=Path, help="E. coli U00096.2: infA.")
    parser.add_argument("--context", type=int, default=2048)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    sets: list[dict[str, Any]] = []
    for prepare in (brca1, mpra, thousand_genomes, tem1, yeast_promoters):
        sets += prepare(arguments.sources, arguments.out)
    if arguments.chr20:
        sets += hnf4a(arguments.sources, arguments.out, arguments.chr20)
    if arguments.yeast:
        sets += scan_in_genome(arguments.sources, arguments.out, "HSP82", "HSP82_dms.tsv.gz", arguments.yeast)
    if arguments.ecoli:
        sets += scan_in_genome(arguments.sources, arguments.out, "infA", "infA_dms.tsv.gz", arguments.ecoli)
    agree(arguments.out, sets)
    # JSON is YAML.
    content = {"methods": ["llr", "mlm", "embedding"], "context": arguments.context, "sets": sets}
    (arguments.out / "labelled.yaml").write_text(json.dumps(content, indent=1) + "\n")


def brca1(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Saturation genome editing of BRCA1 (Findlay 2018) on 200 kb of GRCh37 chromosome 17."""
    folder = sources / "brca1_sge"
    rows = list(read(folder / "brca1_sge_variants.tsv.gz"))
    names = copy_fasta([folder / "brca1_chr17_41100001-41300000_GRCh37.fa"], out / "brca1.fa")
    for row in rows:
        row["chrom"], row["pos"] = names[0], int(str(row["pos"])) - BRCA1_START + 1
        row["loss"] = {"LOF": "yes", "FUNC": "no"}.get(str(row["func_class"]), "")
    write(out / "brca1.tsv", rows)
    shared = {"table": "brca1.tsv", "reference": "brca1.fa", "compare": ["phylop", "cadd"], "block": 100}
    classes = {"label": "loss", "positive": ["yes"]}
    return [
        {"name": "BRCA1: loss of function", **shared, **classes},
        {"name": "BRCA1: function score", **shared, "label": "function_score", "effect_is": "low"},
    ]


def mpra(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Saturation mutagenesis of regulatory elements (Kircher 2019), each element alone on its own sequence.

    Of several experiments on one element, also turned round, the first stands here: the others repeat its alleles.
    """
    folder = sources / "satmut_mpra"
    elements = read_elements(folder / "elements_GRCh37.fa")
    rows = []
    for row in measured(folder):
        name = str(row["Element"])
        if name in elements:
            rows.append({**row, "chrom": name, "pos": int(str(row["pos"])) - elements[name].first + 1})
    write(out / "mpra.tsv", rows)
    (out / "mpra.fa").write_text("".join(f">{name}\n{one.letters}\n" for name, one in elements.items()))
    return mpra_sets("MPRA", "mpra.tsv", "mpra.fa")


def hnf4a(sources: Path, out: Path, chr20: Path) -> list[dict[str, Any]]:
    """One of the elements in its place on the chromosome."""
    rows = [row for row in measured(sources / "satmut_mpra") if row["Element"] == "HNF4A"]
    write(out / "hnf4a.tsv", cut(chr20, rows, out / "hnf4a.fa"))
    return mpra_sets("MPRA of HNF4A in place", "hnf4a.tsv", "hnf4a.fa")


def mpra_sets(name: str, table: str, reference: str) -> list[dict[str, Any]]:
    shared = {"table": table, "reference": reference, "block": 10}
    classes = {"label": "effect", "positive": ["yes"]}
    return [
        {"name": f"{name}: effect or none", **shared, **classes},
        {"name": f"{name}: size of the effect", **shared, "label": "size", "effect_is": "high"},
        {"name": f"{name}: effect with its sign", **shared, "label": "Coefficient"},
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


class Element(NamedTuple):
    """first, last: 1-based, as its header says."""

    contig: str
    first: int
    last: int
    letters: str


def read_elements(fasta: Path) -> dict[str, Element]:
    """By name; those that overlap an earlier one are left out."""
    found: dict[str, Element] = {}
    for part in fasta.read_text().split(">")[1:]:
        head, *lines = part.splitlines()
        name, place = head.split()
        contig, ends = place.split(":")
        first, last = map(int, ends.split("-"))
        if not any(one.contig == contig and one.first <= last and first <= one.last for one in found.values()):
            found[name] = Element(contig, first, last, "".join(lines))
    return found


def thousand_genomes(sources: Path, out: Path) -> list[dict[str, Any]]:
    """1000 Genomes phase 3, chr20:1-2 Mb: SNVs seen once in 5,008 against common ones, as many of either."""
    folder = sources / "kg_chr20_1-2Mb"
    [contig] = copy_fasta([folder / "z.fa.gz"], out / "kg.fa")
    classes: dict[str, list[Row]] = {"yes": [], "no": []}
    for line in gzip.decompress((folder / "z.vcf.gz").read_bytes()).decode().splitlines():
        fields = line.split("\t")
        if line.startswith("#") or len(fields[3]) > 1 or fields[4] not in "ACGT":
            continue
        info: dict[str, str] = {key: value for key, _, value in (part.partition("=") for part in fields[7].split(";"))}
        frequency = float(info["AF"])
        label = "yes" if info["AC"] == "1" else "no" if frequency >= 0.05 else None
        if label:
            classes[label].append({"chrom": contig, "pos": int(fields[1]), "ref": fields[3], "alt": fields[4],
                                   "AF": frequency, "singleton": label})  # fmt: skip
    fewer = min(map(len, classes.values()))
    chosen = [row for rows in classes.values() for row in random.Random(0).sample(rows, fewer)]
    write(out / "kg.tsv", sorted(chosen, key=lambda row: (int(str(row["pos"])), str(row["alt"]))))
    shared = {
        "table": "kg.tsv",
        "reference": "kg.fa",
        "label": "singleton",
        "positive": ["yes"],
        "sample": SAMPLES["kg"],
    }
    return [{"name": "1000 Genomes: singleton or common", **shared}]


def tem1(sources: Path, out: Path) -> list[dict[str, Any]]:
    """Deep mutational scan of TEM-1 on its coding sequence; amino acids were measured, nucleotides are the nearest."""
    copy_fasta([sources / "dms_nucleotide" / "bla_TEM1_cds.fa"], out / "bla.fa")
    rows = scanned(sources, "bla_dms.tsv.gz", "DMS_amp_2500_(b)")
    return scan("TEM-1", rows, out, "bla.fa")


def scan_in_genome(sources: Path, out: Path, name: str, file: str, genome: Path) -> list[dict[str, Any]]:
    """A deep mutational scan of a gene in its place."""
    return scan(name, cut(genome, scanned(sources, file, "DMS"), out / f"{name}.fa"), out, f"{name}.fa")


def scanned(sources: Path, file: str, label: str) -> list[Row]:
    """Changes with a measurement, which is high where the protein works."""
    rows = []
    for row in read(sources / "dms_nucleotide" / file):
        text = str(row[label])
        if text and float(text) != UNMEASURED:
            rows.append({**{key: row[key] for key in ("chrom", "pos", "ref", "alt", "aa_variant")}, "fitness": text})
    return rows


def scan(name: str, rows: Sequence[Row], out: Path, reference: str) -> list[dict[str, Any]]:
    write(out / f"{name}.tsv", rows)
    shared = {"table": f"{name}.tsv", "reference": reference, "label": "fitness", "effect_is": "low", "block": 30}
    shared["sample"] = SAMPLES.get(name, 0)
    return [{"name": f"{name} scan: fitness", **shared}]


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
        {"name": "yeast promoters: size of the change", **shared, "label": "size", "effect_is": "high"},
        {"name": "yeast promoters: change", **shared, "label": "expression"},
    ]


def cut(path: Path, rows: Sequence[Row], target: Path) -> list[Row]:
    """Write the stretch of a genome around the rows, and give the rows on it.

    Of a genome of one contig that is the one, whatever the rows call it.
    """
    with genossm.genome.open(path) as genome:
        said = str(rows[0]["chrom"])
        contig = genome.contigs[0] if len(genome.contigs) == 1 else genome.resolve(said)
        places = [int(str(row["pos"])) - 1 for row in rows]
        start = max(0, min(places) // GRID - 1) * GRID
        end = min(genome.length(contig), (max(places) // GRID + 2) * GRID)
        letters = genome.fetch(Interval(contig, start, end)).decode()
    name = f"{said}:{start + 1}-{end}"
    target.write_text(f">{name}\n{letters}\n")
    return [{**row, "chrom": name, "pos": int(str(row["pos"])) - start} for row in rows]


def agree(out: Path, sets: Iterable[dict[str, Any]]) -> None:
    """Stop at a REF that is not what the sequence says."""
    for table, reference in dict.fromkeys((one["table"], one["reference"]) for one in sets):
        with (out / table).open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        with genossm.genome.open(out / reference) as genome:
            for row in rows:
                variant = Variant(row["chrom"], int(row["pos"]), row["ref"], row["alt"])
                found = genome.fetch(Interval(variant.contig, variant.start0, variant.end0)).decode()
                if found != variant.ref:
                    raise SystemExit(f"{table}: {variant}, but {reference} has {found}.")
        print(f"{table}: {len(rows):,} rows, REF of all agrees with {reference}")


def read(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield dict(row)


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
