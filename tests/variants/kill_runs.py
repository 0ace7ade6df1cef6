"""Scores a file in processes that are killed, and goes on: called by `test_resume.py`, or by hand with many moments.

    python kill_runs.py FOLDER REFERENCE MODEL IN.vcf SUFFIX SAMPLE MOMENT...

SAMPLE: alleles are scored on its haplotypes; - for none.
A moment is `call:F` or `time:F`: at the share F of the calls that change files, or of an undisturbed run's time.
Each is a run of its own, in a folder of its own, killed there, killed again on the way when it is resumed, and resumed
to its end. Processes are forked, so that torch is loaded once. Prints one line of JSON a moment: its name, how the
killed runs ended, and what differs from the undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genossm
import genossm.genome
from genossm.core.errors import OutputExistsError
from genossm.variants import FilePolicy, ScoringOptions, files, score_file

OPTIONS = ScoringOptions(context=64, horizon=8)
CALLS = ("pwrite", "fsync", "link", "replace", "unlink")


def score(model: Any, reference: str, vcf: str, folder: Path, suffix: str, sample: str, *, resume: bool) -> None:
    files.block_records = lambda *_: 16  # type: ignore[assignment]
    policy = FilePolicy(
        check_ref="x",
        skipped=folder / f"skipped{suffix}",
        resume=resume,
        haplotypes=None if sample == "-" else sample,
        summary=folder / "summary.json",
        tsv=folder / "out.tsv",
        parquet=folder / "out.parquet",
    )
    with genossm.genome.open(reference) as genome:
        score_file(model, genome, vcf, folder / f"out{suffix}", OPTIONS, policy, command="genossm score")


def in_child(run: Callable[[], None], *, kill_after: float | None = None) -> int:
    """The process's exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if kill_after is not None:
                timer = threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            run()
            code = 0
        except OutputExistsError:
            code = 3
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(call: int, run: Callable[[], None]) -> Callable[[], None]:
    """`run`, in a process that kills itself before call number `call` of those that change files."""

    def run_and_die() -> None:
        left = [call]
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name), left))
        run()

    return run_and_die


def counting(run: Callable[[], None], into: Path) -> Callable[[], None]:
    """`run`, and then the number of its calls that change files."""

    def run_and_count() -> None:
        left = [0]
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name), left))
        run()
        into.write_text(str(-left[0]))

    return run_and_count


def counted(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if function.__name__ == "pwrite":
                # Half of it gets there.
                function(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    summary = json.loads(found.pop("summary.json", b"{}"))
    for key in ("seconds", "alleles_per_second", "resumed"):
        summary.pop(key, None)
    summary.get("provenance", {}).pop("created", None)
    return {**found, "summary.json": json.dumps(summary).encode()}


def main() -> None:
    folder, reference, directory, vcf, suffix, sample, *moments = sys.argv[1:]
    home, model = Path(folder), genossm.load(directory)
    rng = random.Random(moments[0])

    def run(place: Path, *, resume: bool) -> Callable[[], None]:
        return lambda: score(model, reference, vcf, place, suffix, sample, resume=resume)

    # The index of a FASTA file is made once, and is no part of what is counted.
    genossm.genome.open(reference).close()
    whole = home / "whole"
    whole.mkdir()
    started = time.perf_counter()
    assert in_child(counting(run(whole, resume=False), home / "calls")) == 0
    seconds, calls = time.perf_counter() - started, int((home / "calls").read_text())
    for moment in moments:
        kind, _, value = moment.partition(":")
        place = home / moment.replace(":", "-")
        place.mkdir()
        codes: list[int] = []
        for attempt in range(3):
            again = run(place, resume=attempt > 0)
            if kind == "call":
                number = 1 + int(float(value) * (calls - 1)) if attempt == 0 else rng.randint(1, calls)
                codes.append(in_child(dying_at(number, again)))
            else:
                codes.append(in_child(again, kill_after=seconds * float(value) / (attempt + 1)))
            if codes[-1] != -signal.SIGKILL:
                break
        if codes[-1] == -signal.SIGKILL:
            codes.append(in_child(run(place, resume=True)))
        expected, found = contents(whole), contents(place)
        differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(json.dumps({"moment": moment, "codes": codes, "differing": differing}), flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
