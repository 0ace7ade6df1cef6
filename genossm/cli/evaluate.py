"""`genossm evaluate`: its subcommands, imported when they are called."""

from __future__ import annotations

from genossm.cli.lazy import Commands, lazy_group

COMMANDS: Commands = {
    "bases": ("genossm.cli.evaluate_bases", "Bits per base beside Markov models on the same bases."),
    "compressors": ("genossm.cli.evaluate_compressors", "Bits per base of a general compressor: a floor."),
    "context": ("genossm.cli.evaluate_context", "Bits per base by how much sequence a method sees."),
    "context-table": ("genossm.cli.evaluate_context_table", "Set results by context side by side, with intervals."),
    "labelled": ("genossm.cli.evaluate_labelled", "Scores against labelled variants: AUROC, Spearman."),
    "labelled-table": ("genossm.cli.evaluate_labelled_table", "Set results on labelled variants side by side."),
    "places": ("genossm.cli.evaluate_places", "Tell judged bases inside repeats from those outside."),
    "variants": ("genossm.cli.evaluate_variants", "Scores beside allele frequency."),
}


@lazy_group(COMMANDS)
def command() -> None:
    """Measure bits per base, or scores against allele frequency."""
