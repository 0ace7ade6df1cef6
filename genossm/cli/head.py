"""`genossm head`: its subcommands, imported when they are called."""

from __future__ import annotations

from genossm.cli.lazy import Commands, lazy_group

COMMANDS: Commands = {
    "list": ("genossm.cli.head_list", "List a model's heads with their figures."),
    "tune": ("genossm.cli.head_tune", "Fine-tune a copy of a model, with a head, on labelled variants."),
    "train": ("genossm.cli.head_train", "Train a head on labelled variants."),
}


@lazy_group(COMMANDS)
def command() -> None:
    """Variant-effect heads: trained on labelled variants over a frozen model, used by name in --method."""
