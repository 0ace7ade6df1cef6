"""Scores as quantiles of a background: which share of its alleles scores no higher.

A file holds entries; one is the sketch of one number (a field), of one kind of alleles, under settings that decide the
score: model, reference and the method's options. An entry is used for equal settings and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genossm.core.atomic import atomic_file
from genossm.core.errors import InputFileError, OutputExistsError
from genossm.core.provenance import Provenance
from genossm.sequence import trimmed_alleles
from genossm.variants.methods import Tag
from genossm.variants.options import ScoringOptions
from genossm.variants.sketch import Sketch

FORMAT, FORMAT_VERSION = "genossm-calibration", 1
FILE_NAME = "calibration.safetensors"
KINDS = ("snv", "insertion", "deletion", "other")
"""Scores of insertions and deletions are sums over another number of letters than those of substitutions."""
_ARRAYS = ("values", "below", "at_or_below")

Settings = dict[str, Any]


def allele_kind(ref: str, alt: str) -> str | None:
    """One of `KINDS`, once shared letters are trimmed; None where nothing changes."""
    _, ref, alt = trimmed_alleles(ref.upper(), alt.upper())
    if not ref or not alt:
        return "insertion" if alt else "deletion" if ref else None
    return "snv" if len(ref) == len(alt) == 1 else "other"


def settings_of(model_digest: str, reference_digest: str, method: str, options: ScoringOptions) -> Settings:
    """What decides a method's numbers, as JSON holds it."""
    chosen = replace(options, methods=(method,), heads=()).as_dict()
    del chosen["methods"]
    return {"model": model_digest, "reference": reference_digest, "method": method, **chosen}


def rounded(score: float) -> float:
    """A score as files hold it, so that one from a file and the same one in memory have one quantile."""
    return float(f"{score:.6g}") + 0.0


@dataclass(frozen=True, eq=False)
class Entry:
    """background: what was sketched, as JSON holds it: "name" in words, without quotes, and digests."""

    tag: str
    kind: str
    settings: Settings
    sketch: Sketch
    background: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The background's."""
        return str(self.background["name"])

    @property
    def key(self) -> tuple[str, str, str]:
        return self.tag, self.kind, json.dumps(self.settings, sort_keys=True)


def quantile_tag(tag: Tag, entries: Mapping[str, Entry]) -> Tag:
    """The field of a number's quantile: GENOSSM_Q of GENOSSM_LLR, else the field's name and _Q.   entries: by kind."""
    names = {f"{entry.name} (sha256 {entry.background['sha256'][:12]})" for entry in entries.values()}
    backgrounds = "; ".join(sorted(names))
    counts = ", ".join(f"{entry.sketch.count} {kind}" for kind, entry in entries.items())
    error = max(entry.sketch.largest_error for entry in entries.values())
    return Tag(
        "GENOSSM_Q" if tag.name == "GENOSSM_LLR" else f"{tag.name}_Q",
        f"Share (0 to 1) of background alleles of the same kind whose {tag.name} is at or below this one: 0 is lower "
        f"than all of them, 1 as high as the highest; background: {backgrounds} ({counts}); off by {error:.2g} at most",
    )


class Calibration:
    """Entries, looked up by number, kind and settings.   name: for messages."""

    def __init__(self, entries: Iterable[Entry], *, name: str = "the calibration") -> None:
        self.entries, self.name = tuple(entries), name
        self._by_key = {entry.key: entry for entry in self.entries}

    def find(self, tag: Tag, settings: Settings) -> dict[str, Entry]:
        """The entries of a number by kind; none where it was not calibrated under these settings."""
        encoded = json.dumps(settings, sort_keys=True)
        found = {kind: self._by_key.get((tag.name, kind, encoded)) for kind in KINDS}
        return {kind: entry for kind, entry in found.items() if entry is not None}

    def holds(self, settings: Settings) -> bool:
        """Whether any number was calibrated under these settings."""
        return any(entry.settings == settings for entry in self.entries)

    def difference(self, asked: Sequence[Settings]) -> str:
        """What tells the settings that are here from those asked for, in words, of the pair that differs least."""
        pairs = [
            [
                f"{key} is {ours.get(key)}, here {theirs.get(key)}"
                for key in {**ours, **theirs}
                if ours.get(key) != theirs.get(key)
            ]
            for ours in (entry.settings for entry in self.entries)
            for theirs in asked
        ]
        return "; ".join(min(pairs, key=len, default=["it is empty"]))

    def joined(self, others: Sequence[Entry], *, force: bool) -> Calibration:
        """With `others` besides. Raises: OutputExistsError where one is there already, without `force`."""
        taken = [entry for entry in others if entry.key in self._by_key]
        if taken and not force:
            raise OutputExistsError(
                f"{self.name} holds {taken[0].tag} of {taken[0].kind} alleles under the same settings already. Choose "
                "another output, or pass --force to replace it."
            )
        replaced = {entry.key for entry in others}
        return Calibration([*(one for one in self.entries if one.key not in replaced), *others], name=self.name)

    def save(self, path: Path, *, provenance: Provenance, force: bool = False) -> None:
        """Write a safetensors file, whole or not at all. Raises: OutputExistsError without `force`."""
        from safetensors.numpy import save

        tensors = {
            f"{number}.{name}": np.ascontiguousarray(getattr(entry.sketch, name))
            for number, entry in enumerate(self.entries)
            for name in _ARRAYS
        }
        described = {
            "format_version": FORMAT_VERSION,
            "entries": [_described(entry) for entry in self.entries],
            "provenance": provenance.as_dict(),
        }
        with atomic_file(path, force=force) as temporary:
            temporary.write_bytes(save(tensors, metadata={FORMAT: json.dumps(described)}))


def load_calibration(path: Path) -> Calibration:
    """Raises: InputFileError if there is no such file, or it holds no calibration."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputFileError(f"No calibration at {path}. Make one with `genossm calibrate`.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            described = json.loads((file.metadata() or {})[FORMAT])
            if described["format_version"] > FORMAT_VERSION:
                raise InputFileError(
                    f"{path} has format version {described['format_version']}, this genossm reads up to "
                    f"{FORMAT_VERSION}. Install a newer genossm."
                )
            entries = [_entry(file, number, one) for number, one in enumerate(described["entries"])]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputFileError(f"{path} is no calibration of genossm, or is damaged: {error}. Make it again.") from error
    return Calibration(entries, name=str(path))


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "tag": entry.tag,
        "kind": entry.kind,
        "settings": entry.settings,
        "background": dict(entry.background),
        "alleles": entry.sketch.count,
        "largest_error": entry.sketch.largest_error,
    }


def _entry(file: Any, number: int, one: dict[str, Any]) -> Entry:
    values, below, at_or_below = (file.get_tensor(f"{number}.{name}") for name in _ARRAYS)
    sketch = Sketch(values, below, at_or_below, int(one["alleles"]))
    return Entry(one["tag"], one["kind"], one["settings"], sketch, one["background"])
