"""How much faster scoring is than two full passes a variant, and what memory it takes: a table, and a JSON line a row.

    python -m genossm.testing.benchmark_scoring -f FASTA --vcf VCF -m MODEL [-m MODEL ...] [--out ROWS.jsonl]

Variants are taken at even distances from one megabase of the file, all kinds as they come. Rows of a model: scoring as
`genossm score` does it, what it measures of its own error included; for a causal model the same with the full horizon,
on fewer variants; two passes of the same model over the whole window for each variant, timed on a few (the first, which
warms up, left out) and given as a rate; and peak memory against the number of variants.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import torch

import genossm.genome
from genossm.core.provenance import package_version
from genossm.genome import Genome
from genossm.inference import SEGMENT_LENGTH, log_probabilities, masked_log_probabilities, stream
from genossm.models import SequenceModel, load
from genossm.sequence import Interval
from genossm.variants.locate import Allele, Located
from genossm.variants.options import ScoringOptions
from genossm.variants.scorer import Scorer

Row = dict[str, Any]


def alleles(vcf: Path, region: Interval, count: int) -> list[Allele]:
    """`count` first ALT alleles of a region's records, at even distances in the file."""
    with pysam.VariantFile(str(vcf)) as file:
        records = file.fetch(region.contig, region.start, region.end)
        found = [Allele(r.contig, r.pos, r.ref or "", r.alts[0]) for r in records if r.alts]
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    return [found[number] for number in chosen]


class Benchmark:
    """One model on one device.   options: what is compared with two full passes over windows of its context."""

    def __init__(self, model: SequenceModel, genome: Genome, options: ScoringOptions) -> None:
        self.model, self.genome, self.options = model, genome, options

    def scoring(self, variants: Sequence[Allele], what: str, **changes: Any) -> Row:
        """Locating and scoring `variants`, from a scorer that has seen none of them."""
        scorer = Scorer(self.model, self.genome, dataclasses.replace(self.options, **changes))
        before = self._reset_memory()
        seconds = self._time(lambda: scorer.score([scorer.locate(one) for one in variants]))
        row = {"what": what, "variants": len(variants), "seconds": seconds, "per_second": len(variants) / seconds}
        return {**row, **self._memory(before), "measured": scorer.measured}

    def two_passes(self, variants: Sequence[Allele]) -> Row:
        """Both haplotypes of each variant's window, whole; the first variant is not counted."""
        scorer = Scorer(self.model, self.genome, self.options)
        located = [scorer.locate(one) for one in variants]
        before = self._reset_memory()
        seconds = [self._time(lambda one=one: self._two_passes(one)) for one in located][1:]
        mean = sum(seconds) / len(seconds)
        row = {"what": "two full passes", "variants": len(seconds), "seconds": sum(seconds), "per_second": 1 / mean}
        return {**row, **self._memory(before)}

    def memory(self, variants: Sequence[Allele], counts: Sequence[int]) -> Iterator[Row]:
        """Peak memory while more and more variants of the same megabase are scored."""
        for count in counts:
            chosen = np.linspace(0, len(variants) - 1, min(count, len(variants))).astype(int)
            yield {**self.scoring([variants[i] for i in chosen], "memory"), "measured": None}

    @torch.inference_mode()
    def _two_passes(self, located: Located) -> None:
        placement = located.placement
        assert placement is not None
        context, length = self.options.usual_window, self.genome.length(placement.contig)
        half = context // 2
        start = max(0, (placement.leftmost - context // 4) // half * half)
        window = Interval(placement.contig, start, min(start + context, length))
        ids = self.model.encode(self.genome.fetch(window))
        for base in self.model.tokenizer.base_ids[:2]:
            ids[0, placement.leftmost - start] = base
            if self.model.objective == "masked":
                masked = torch.zeros_like(ids, dtype=torch.bool)
                masked[0, placement.leftmost - start] = True
                masked_log_probabilities(self.model, ids, masked).cpu()
            else:
                self._sum(ids)

    def _sum(self, ids: torch.Tensor) -> float:
        """ln p of a whole window by a causal model."""
        whole = ids.shape[1] if ids.device.type == "cuda" else SEGMENT_LENGTH
        total = 0.0
        for segment in stream(self.model, ids[:, :-1], segment_length=whole):
            last = segment.start + segment.logits.shape[1]
            codes = (ids[:, segment.start + 1 : last + 1] - self.model.tokenizer.base_ids[0]).clamp(0, 3)
            total += float(log_probabilities(segment.logits).gather(2, codes.unsqueeze(2)).double().sum())
        return total

    def _time(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def _reset_memory(self) -> int:
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return _resident()

    def _memory(self, before: int) -> Row:
        """On a GPU what PyTorch had allocated at most; on a CPU by how much the process's highest mark rose."""
        if self.model.device.type == "cuda":
            return {"peak_bytes": torch.cuda.max_memory_allocated()}
        return {"peak_bytes": _resident(), "peak_rose_by": _resident() - before}


def measure(benchmark: Benchmark, vcf: Path, region: Interval, arguments: argparse.Namespace) -> Iterator[Row]:
    """All rows of one model."""
    everything = alleles(vcf, region, 1 << 30)
    chosen = alleles(vcf, region, arguments.variants)
    # The very same variants: shapes that are met for the first time cost a GPU more than the passes do.
    benchmark.scoring(chosen, "warm-up")
    default = benchmark.scoring(chosen, "default")
    plain = benchmark.two_passes(chosen[:: max(1, len(chosen) // (arguments.passes + 1))][: arguments.passes + 1])
    yield {**default, "ratio": default["per_second"] / plain["per_second"]}
    if benchmark.model.objective == "causal" and arguments.full_horizon:
        few = alleles(vcf, region, arguments.full_horizon)
        full = benchmark.scoring(few, "full horizon", horizon=None)
        yield {**full, "ratio": full["per_second"] / plain["per_second"]}
    yield {**plain, "ratio": 1.0}
    yield from benchmark.memory(everything, arguments.memory)


def main() -> None:
    """Print the table to stdout, and append the rows to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-f", "--fasta-ref", required=True)
    parser.add_argument("--vcf", type=Path, required=True)
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--region", default="20:2,000,001-3,000,000")
    parser.add_argument("--context", type=int, default=1 << 20)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=3, help="variants that two full passes are timed on")
    parser.add_argument("--full-horizon", type=int, default=100, help="variants of that row; 0 leaves it out")
    parser.add_argument("--memory", type=int, nargs="*", default=[250, 1000, 4000])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print("model\twhat\tvariants\tseconds\tvariants_s\tratio\tpeak_GB")
    with genossm.genome.open(arguments.fasta_ref) as genome:
        for path in arguments.model:
            model = load(path, device=arguments.device)
            benchmark = Benchmark(model, genome, ScoringOptions(arguments.context))
            for row in measure(benchmark, arguments.vcf, Interval.parse(arguments.region), arguments):
                _report(path, model, row, arguments)


def _report(path: str, model: SequenceModel, row: Row, arguments: argparse.Namespace) -> None:
    ratio = f"{row['ratio']:.1f}" if "ratio" in row else ""
    figures = f"{row['seconds']:.2f}\t{row['per_second']:.2f}\t{ratio}\t{row['peak_bytes'] / 1e9:.2f}"
    name = Path(path).parent.name if Path(path).name == "model" else Path(path).name
    print(name, row["what"], row["variants"], figures, sep="\t", flush=True)
    if arguments.out is None:
        return
    gpu = model.device.type == "cuda"
    stamp = {
        "commit": _commit(),
        "genossm": package_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads",
        "model": name,
        "objective": model.objective,
        "parameters": model.num_parameters(),
        "context": arguments.context,
        "region": arguments.region,
    }
    with arguments.out.open("a") as file:
        file.write(json.dumps({**stamp, **row}) + "\n")


def _resident() -> int:
    """Bytes of the process's highest mark so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _commit() -> str | None:
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


if __name__ == "__main__":
    main()
