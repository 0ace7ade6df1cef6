"""A variant-effect head: what it sees, its numbers, where it came from; its folder in a model's directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import atomic_directory
from genossm.core.errors import InputFileError, UsageError
from genossm.core.provenance import Provenance
from genossm.core.strict import from_mapping
from genossm.variants.heads.covariates import Covariate
from genossm.variants.heads.estimators import OUTPUTS, Linear
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.methods import METHODS, Method, Tag, is_method_name

FORMAT, FORMAT_VERSION = "genossm-variant-head", 1
FOLDER = "heads"
_FILE, _TENSORS = "head.json", "head.safetensors"
_TAKEN = re.compile(r"llr|status|q|emb(_.*)?|.*_q")


@dataclass(frozen=True, eq=False)
class VariantHead:
    """settings: model digest and options that its features were made under; a head is used under equal ones alone.
    label: what it learnt, in words.   figures: of cross-validation, as JSON holds them.
    """

    name: str
    linear: Linear
    spec: FeatureSpec
    covariates: tuple[Covariate, ...]
    settings: Mapping[str, Any]
    label: str
    figures: Mapping[str, Any]

    @property
    def method(self) -> Method:
        """What a header says of it."""
        tag = Tag(
            f"GENOSSM_{self.name.upper()}",
            f"Variant-effect head {self.name} ({self.linear.kind}) trained on {self.label}: "
            f"{OUTPUTS[self.linear.kind]}",
        )
        covariates = f"; covariates {', '.join(one.name for one in self.covariates)}" if self.covariates else ""
        facts = {f"head_{self.name}": f"sha256:{self.digest()}; {self.linear.kind}{covariates}"}
        return Method(f"head:{self.name}", f"head {self.name}", (), (tag,), facts)

    def predict(self, features: NDArray[np.float64], covariates: NDArray[np.float64]) -> NDArray[np.float64]:
        """(alleles,).   features: (alleles, features) by its spec.   covariates: (alleles, numbers)."""
        return self.linear.predict(np.concatenate([features, covariates], axis=1))

    def digest(self) -> str:
        """SHA-256, as hex, over all that its numbers depend on."""
        described = {"kind": self.linear.kind, "intercept": self.linear.intercept, **self._described()}
        result = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for name, values in _tensors(self.linear).items():
            result.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return result.hexdigest()

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise UsageError unless `settings` are those of training."""
        for key in sorted({*settings, *self.settings}):
            mine, theirs = self.settings.get(key), settings.get(key)
            if mine != theirs:
                raise UsageError(
                    f"The head {self.name} was trained with {key} {mine}, here it is {theirs}: its features would be "
                    "others. Pass what it was trained with, or train it anew."
                )

    def save(self, directory: Path, *, provenance: Provenance, force: bool = False) -> Path:
        """Write the head's folder, whole or not at all. Raises: OutputExistsError without `force`."""
        from safetensors.numpy import save

        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "kind": self.linear.kind,
            "intercept": self.linear.intercept,
            "strength": self.linear.strength,
            **self._described(),
            "label": self.label,
            "figures": dict(self.figures),
            "digest": self.digest(),
            "provenance": provenance.as_dict(),
        }
        with atomic_directory(directory, force=force, marker=_FILE) as temporary:
            (temporary / _FILE).write_text(json.dumps(content, indent=2) + "\n")
            (temporary / _TENSORS).write_bytes(save(_tensors(self.linear)))
        return directory

    def _described(self) -> dict[str, Any]:
        return {
            "features": {"parts": list(self.spec.parts), "flank": self.spec.flank},
            "covariates": [dataclasses.asdict(one) for one in self.covariates],
            "settings": dict(self.settings),
        }


def load_head(directory: Path) -> VariantHead:
    """Raises: InputFileError if the folder holds no head, a damaged one, or one of a newer version."""
    try:
        content = json.loads((directory / _FILE).read_text())
        if content["format"] != FORMAT or content["format_version"] > FORMAT_VERSION:
            raise InputFileError(f"{directory} holds no head that this genossm reads. Install a newer genossm.")
        from safetensors.numpy import load_file

        tensors = load_file(directory / _TENSORS)
        linear = Linear(
            content["kind"],
            tensors["mean"],
            tensors["scale"],
            tensors["weights"],
            float(content["intercept"]),
            float(content["strength"]),
        )
        head = VariantHead(
            content["name"],
            linear,
            from_mapping(FeatureSpec, content["features"], where=f"{directory / _FILE}: features"),
            tuple(
                from_mapping(Covariate, one, where=f"{directory / _FILE}: covariates") for one in content["covariates"]
            ),
            content["settings"],
            content["label"],
            content["figures"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputFileError(f"{directory} holds no readable head: {error}. Train it anew.") from error
    if head.digest() != content["digest"]:
        raise InputFileError(f"{directory}: a file was changed or mixed up; the digest differs. Train the head anew.")
    return head


def check_name(name: str) -> str:
    """`name`, if a head may have it. Raises: UsageError."""
    if not is_method_name(name) or name in METHODS or _TAKEN.fullmatch(name):
        raise UsageError(
            f"A head cannot be called {name!r}; wanted small letters, digits and _, and not a name of another field."
        )
    return name


def refuse_methods(methods: Sequence[str]) -> None:
    """Heads learn from the model's own ratio and its hidden states. Raises: UsageError if something else was chosen."""
    if methods:
        raise UsageError(
            f"A head learns from the model's own ratio and hidden states; got {', '.join(methods)}. Leave methods out."
        )


def heads_in(folder: Path) -> list[Path]:
    """The heads in a folder of heads, by name; a model's are in its `heads`."""
    return sorted(path.parent for path in folder.glob(f"*/{_FILE}")) if folder.is_dir() else []


def find_heads(names: Sequence[str], folders: Sequence[Path]) -> tuple[VariantHead, ...]:
    """Heads by name, from the first folder of heads that has one of that name.

    Raises: UsageError for a name that is neither a method nor a head.
    """
    present = {path.name: path for folder in reversed(folders) for path in heads_in(folder)}
    for name in names:
        if name not in present:
            has = f"there are {', '.join(sorted(present))}" if present else "there is none"
            raise UsageError(
                f"{name!r} is no method; wanted one or several of {', '.join(METHODS)}, or a head ({has})."
            )
    return tuple(load_head(present[name]) for name in names)


def _tensors(linear: Linear) -> dict[str, NDArray[np.float64]]:
    return {"mean": linear.mean, "scale": linear.scale, "weights": linear.weights}
