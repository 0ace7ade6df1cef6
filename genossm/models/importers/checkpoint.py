"""Another author's model directory as it is: configuration, tensors, tokenizer. Nothing is unpickled unless asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from genossm.core.errors import ModelFormatError
from genossm.core.provenance import file_sha256
from genossm.models.weights import read_json, read_safetensors
from genossm.sequence import NucleotideTokenizer

_WEIGHTS, _SHARDS = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.pt", "model.pt")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """config: of the source's config.json.   files: names to SHA-256 of what the tensors were read from."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, str]


def read_checkpoint(directory: Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Read config.json and the weights; safetensors win over pickles.

    allow_pickle: read a .bin or .pt file where there is nothing else, with PyTorch's loader restricted to tensors.
    Raises: ModelFormatError if a file is missing, damaged, or a pickle nobody allowed.
    """
    config = read_json(directory / "config.json")
    paths = _weight_files(directory, allow_pickle=allow_pickle)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors.update(read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path))
    return Checkpoint(directory, config, tensors, {path.name: file_sha256(path) for path in paths})


def source_tokenizer(directory: Path) -> NucleotideTokenizer:
    """The source's tokenizer; without a file of one, the plain one of the field, which puts nothing in front.

    Raises: ModelFormatError if its vocabulary is not the single-nucleotide one.
    """
    path = directory / "tokenizer.json"
    vocabulary = read_json(path).get("model", {}).get("vocab") if path.is_file() else None
    own = NucleotideTokenizer()
    if vocabulary is not None:
        _require_same_vocabulary(vocabulary, own, path)
    settings = directory / "tokenizer_config.json"
    adds_bos = settings.is_file() and read_json(settings).get("add_bos_token") is True
    return NucleotideTokenizer(special_tokens="bos") if adds_bos else own


def require_nucleotides(vocab_size: int, where: str) -> None:
    """Raise ModelFormatError unless `vocab_size` can be the single-nucleotide vocabulary, padded or not."""
    own = NucleotideTokenizer()
    if not own.vocab_size <= vocab_size <= own.padded_vocab_size:
        raise ModelFormatError(
            f"{where}: the vocabulary has {vocab_size:,} tokens; genossm imports models of single nucleotides, with "
            f"{own.vocab_size} to {own.padded_vocab_size}. It is a model of something else, or uses another tokenizer."
        )


def _require_same_vocabulary(vocabulary: object, own: NucleotideTokenizer, path: Path) -> None:
    found = vocabulary if isinstance(vocabulary, Mapping) else {}
    differing = [token for token in "ACGTN" if found.get(token) != own.vocab[token]]
    if differing:
        shown = ", ".join(f"{token} is {found.get(token)}, wanted {own.vocab[token]}" for token in differing)
        raise ModelFormatError(f"{path}: not the single-nucleotide vocabulary of Caduceus and HyenaDNA: {shown}.")


def _weight_files(directory: Path, *, allow_pickle: bool) -> list[Path]:
    if (directory / _WEIGHTS).is_file():
        return [directory / _WEIGHTS]
    if (directory / _SHARDS).is_file():
        names = read_json(directory / _SHARDS).get("weight_map", {}).values()
        # A name with a folder in it could point anywhere on the machine.
        return sorted({directory / Path(str(name)).name for name in names})
    pickles = [directory / name for name in _PICKLES if (directory / name).is_file()]
    if not pickles:
        raise ModelFormatError(f"{directory} holds no weights: wanted {_WEIGHTS}. Copy or download it again.")
    if not allow_pickle:
        raise ModelFormatError(
            f"{pickles[0]} is a pickle, which can run code when it is read. If you trust its source, pass "
            "--allow-pickle (allow_pickle=True); tensors only are read from it."
        )
    return pickles[:1]


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way at all
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelFormatError(f"{path} cannot be read as tensors: {reason}. Copy or download it again.") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelFormatError(f"{path} holds more than named tensors. Save the model's state_dict alone.")
    return dict(content)
