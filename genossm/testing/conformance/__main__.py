"""`python -m genossm.testing.conformance`: a table of what a tool keeps; exit code 1 if anything is broken."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from genossm.core.errors import GenossmError
from genossm.testing.conformance import Workplace, findings, load_adapter


@click.command()
@click.option("--adapter", type=click.Path(path_type=Path), metavar="FILE.yaml", help="The tool.  [default: genossm]")
@click.option("--model", metavar="MODEL", help="What {model} stands for.  [default: tiny random weights]")
@click.option("--broken", is_flag=True, help="List what is broken, and nothing else.")
def command(adapter: Path | None, model: str | None, broken: bool) -> None:
    """Run a tool over the conformance suite and print a table: name, verdict, wanted, got, reason."""
    if model is not None and Path(model).exists():
        model = str(Path(model).resolve())
    counts: Counter[str] = Counter()
    click.echo("\t".join(("name", "verdict", "wanted", "got", "reason")))
    with tempfile.TemporaryDirectory(prefix="genossm-conformance-") as folder:
        try:
            for one in findings(Workplace(load_adapter(adapter), Path(folder), model)):
                counts[one.verdict] += 1
                if one.verdict == "broken" or not broken:
                    click.echo("\t".join((one.name, one.verdict, one.wanted, one.got, one.reason)))
        except GenossmError as error:
            click.echo(f"conformance: error: {error}", err=True)
            sys.exit(error.exit_code)
    click.echo(f"{counts['kept']} kept, {counts['broken']} broken, {counts['left out']} left out", err=True)
    sys.exit(bool(counts["broken"]))


if __name__ == "__main__":
    command()
