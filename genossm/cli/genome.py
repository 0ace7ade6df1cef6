"""`genossm genome build`, `genossm genome info` and `genossm genome verify`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genossm.genome.build import Progress


@click.group(name="genome")
def command() -> None:
    """Build, inspect and verify genome stores."""


@command.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The store to write, ending in .zarr."
)
@click.option("--force", is_flag=True, help="Replace the store if it exists.")
@click.option(
    "--alias-file",
    type=click.Path(path_type=Path),
    help="Lines of a contig's name and further names for it, split by tabs.",
)
@click.option(
    "--circular", multiple=True, metavar="CONTIG", help="A contig whose end joins its start; may be repeated."
)
@click.option("--chunk-length", type=int, help="Bases a chunk.  [default: 262144]")
@click.option(
    "--codec", type=click.Choice(["blosc-lz4", "blosc-zstd", "zstd", "none"]), help="Compression.  [default: blosc-lz4]"
)
@click.option("--shard-length", type=int, help="Bases a file, a multiple of a chunk's.  [default: a chunk a file]")
def build(
    reference: Path,
    output: Path,
    force: bool,
    alias_file: Path | None,
    circular: tuple[str, ...],
    chunk_length: int | None,
    codec: str | None,
    shard_length: int | None,
) -> None:
    """Encode a reference once, so that any window of it is read fast.

    REFERENCE is a FASTA (plain, bgzip or gzip), 2bit, GenBank or EMBL file.

    Prints the store's path, its contigs, bases and the seconds it took, split by tabs.
    """
    import genossm.genome

    options = {"chunk_length": chunk_length, "codec": codec, "shard_length": shard_length}
    with _progress_bar(reference.name) as progress:
        summary = genossm.genome.build(
            reference,
            output,
            aliases=genossm.genome.read_alias_file(alias_file) if alias_file else None,
            circular=circular,
            force=force,
            progress=progress,
            **{name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
        )
    click.echo(f"{summary.path}\t{summary.contigs} contigs\t{summary.bases} bases\t{summary.seconds:.1f} s")


@command.command()
@click.argument("genome")
def info(genome: str) -> None:
    """Print a table of the contigs of GENOME: a store or its URL, or a FASTA, 2bit, GenBank or EMBL file."""
    import genossm.genome
    from genossm.genome.describe import as_table, describe

    with genossm.genome.open(genome) as opened:
        click.echo(as_table(describe(opened)))


@command.command()
@click.argument("store")
@click.option(
    "--against", metavar="REFERENCE", help="Compare bases and soft-mask with this FASTA, 2bit or store besides."
)
def verify(store: str, against: str | None) -> None:
    """Read every base of STORE (a path or URL) and compare it with the digests that the store was built with.

    Prints a table of the contigs, each with OK or with what is wrong; the exit code is 1 if anything is.
    """
    from genossm.genome.verify import as_table, compare, require_equal, require_whole
    from genossm.genome.verify import verify as verify_store

    with _progress_bar(store) as progress:
        checks = verify_store(store, progress=progress)
    if against is None or any(check.problem for check in checks):
        click.echo(as_table(checks))
        require_whole(store, checks)
        return
    checks = compare(store, against)
    click.echo(as_table(checks))
    require_equal(store, against, checks)


@contextmanager
def _progress_bar(name: str) -> Iterator[Progress | None]:
    """Bases so far on stderr; nothing if stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status(f"Reading {name}") as status:
        yield lambda contig, bases: status.update(f"Reading {name}: {bases:,} bases, contig {contig} done")
