"""What callers hand to `score` and `saturation`: read where it can mean one thing only, else refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from genossm.core.errors import UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.locate import Allele


def require_model_and_genome(function: str, model: object, genome: object) -> None:
    """Raises: UsageError if they are swapped, or paths, or anything else."""
    if isinstance(model, Genome) and isinstance(genome, SequenceModel):
        raise UsageError(f"{function} got the genome first; wanted {function}(model, genome, …). Exchange the two.")
    # What torch.compile makes of a model is none, and passes all of a model's attributes on.
    if not isinstance(model, SequenceModel) and not hasattr(model, "backbone"):
        raise UsageError(
            f"{function}: the model is {_told(model)}; wanted a loaded one, as genossm.load(path) gives it."
        )
    if not isinstance(genome, Genome):
        raise UsageError(
            f"{function}: the genome is {_told(genome)}; wanted an open one, as genossm.genome.open(path) gives it."
        )


def read_variants(variants: Iterable[Variant | Allele | str] | Variant | Allele | str) -> Iterator[Variant | Allele]:
    """One by one, texts parsed; a single one is a list of one.

    Raises: UsageError for anything else, at once if it cannot be gone through; VariantError for a text.
    """
    if isinstance(variants, Variant | Allele | str):
        variants = (variants,)
    if isinstance(variants, os.PathLike) or not isinstance(variants, Iterable):
        raise UsageError(
            f"score: the variants are {variants!r}; wanted a list of them, an iterator or a DataFrame. The records of "
            "a file are scored by genossm.variants.score_file."
        )
    return map(_read, variants)


def _told(value: object) -> str:
    """A model's own representation would fill a screen."""
    return repr(value) if isinstance(value, str | os.PathLike) else f"a {type(value).__name__}"


def _read(variant: object) -> Variant | Allele:
    if isinstance(variant, str):
        return Variant.parse(variant)
    if isinstance(variant, Variant | Allele):
        return variant
    raise UsageError(
        f"score: {variant!r} is no variant; wanted a Variant, an Allele, or a text such as '20:1000226:A>T'."
    )
