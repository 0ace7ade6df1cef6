"""Fill a folder with what config/config.yaml here names: slices of the example data, and models of random weights.

From the clone: python workflows/variant_scoring/.test/prepare.py data FOLDER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pysam
import torch

from genossm.models import SequenceModel, StackConfig
from genossm.testing.models import enliven


def write_slice(source: Path, target: Path, first1: int, last1: int) -> None:
    with pysam.VariantFile(str(source)) as whole, pysam.VariantFile(str(target), "w", header=whole.header) as part:
        for record in whole.fetch("20", first1 - 1, last1):
            part.write(record)


def write_model(folder: Path, config: StackConfig) -> None:
    torch.manual_seed(0)
    enliven(SequenceModel(config)).save_pretrained(folder)


def main() -> None:
    data, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(Path(__file__).parent / "config", folder / "config")
    shutil.copy(data / "chr20_1-4Mb.fa.gz", folder / "reference.fa.gz")
    vcf = data / "1000g_chr20_1-4Mb.vcf.gz"
    write_slice(vcf, folder / "snvs.vcf.gz", 3_300_001, 3_303_000)
    write_slice(vcf, folder / "mixed.vcf", 3_400_001, 3_402_000)
    with open(folder / "mixed.vcf", "a") as mixed:
        # One allele that has no score, so that the summary has a reason to count.
        mixed.write("20\t3402001\t.\tN\t<DEL>\t.\t.\tAF=0.1\tGT" + "\t0|0" * 4 + "\n")
    write_model(folder / "model", StackConfig(d_model=8, n_layer=2))
    both_sides = StackConfig(
        d_model=8, n_layer=2, direction="bidirectional", reverse_complement="equivariant", objective="masked"
    )
    write_model(folder / "masked_model", both_sides)


if __name__ == "__main__":
    main()
