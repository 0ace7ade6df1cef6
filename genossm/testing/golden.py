"""Our outputs beside those of the authors' own code on the same weights, and how far the two strands are apart.

    python -m genossm.testing.golden tests/fixtures/golden

A folder holds a checkpoint as its authors write it, and `io.safetensors`: input_ids, and logits, last_hidden_state or
both. Columns: folder; largest absolute difference of logits and of hidden states in float32; for models that share
weights between strands, the largest difference between the logits of the reverse complement, turned back, and the
logits. A dash stands where the folder or the model has no such thing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from genossm.core.errors import InputFileError
from genossm.models import SequenceModel, load

COLUMNS = ("fixture", "logits", "hidden_states", "strands")


@torch.no_grad()
def differences(folder: Path) -> dict[str, float]:
    """Largest absolute differences of one folder, by column."""
    model, expected = load(folder), load_file(folder / "io.safetensors")
    ids = expected["input_ids"]
    output = model(ids, return_hidden_states=True)
    assert output.hidden_states is not None
    found = {"logits": (output.logits, "logits"), "hidden_states": (output.hidden_states[-1], "last_hidden_state")}
    result = {
        column: (ours - expected[name]).abs().max().item() for column, (ours, name) in found.items() if name in expected
    }
    if model.config.equivariant:
        result["strands"] = strand_residual(model, ids)
    return result


@torch.no_grad()
def strand_residual(model: SequenceModel, ids: torch.Tensor) -> float:
    """Largest difference between the logits of `ids` (batch, length) and those of its reverse complement, turned back.

    0 but for rounding in a reverse-complement-equivariant model.
    """
    complement = torch.arange(model.config.vocab_size)
    known = torch.from_numpy(model.tokenizer.complement_ids.astype("int64"))[: len(complement)]
    complement[: len(known)] = known
    turned = model(complement[ids.long()].flip(1)).logits.flip(1)[..., complement]
    return (turned - model(ids).logits).abs().max().item()


def table(root: Path) -> Iterator[str]:
    """Tab-separated lines, header first. Raises: InputFileError if no folder in `root` holds outputs."""
    folders = sorted(path.parent for path in root.glob("*/io.safetensors"))
    if not folders:
        raise InputFileError(f"{root} has no folder with an io.safetensors. Pass the folder that holds the fixtures.")
    yield "\t".join(COLUMNS)
    for folder in folders:
        found = differences(folder)
        figures = (f"{found[column]:.1e}" if column in found else "-" for column in COLUMNS[1:])
        yield "\t".join([folder.name, *figures])


if __name__ == "__main__":
    for line in table(Path(sys.argv[1])):
        print(line)
