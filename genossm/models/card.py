"""The README.md of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from genossm.core.provenance import Provenance

if TYPE_CHECKING:
    from genossm.models.sequence_model import SequenceModel

_TEMPLATE = """\
---
library_name: genossm
tags: [genomics, dna, {mixer}]
---
# {title}

A {direction} {mixer} language model of DNA: {parameters:,} weights, {n_layer} layers of width {d_model}, one token a
base. Its objective is {objective}; {bos}.

## Use

```python
import genossm

model = genossm.load("{title}")
logits = model(model.encode("ACGTACGT"{encode_bos})).logits  # (1, length, {vocab_size})
```

## Figures

{figures}

## Where it came from

{provenance}

The whole record stands in `provenance.json`. Weights in `model.safetensors`, shape in `config.json`, vocabulary in
`tokenizer.json`.

## Limits

A score of this model says how likely a sequence is under what the model has seen; it is no statement about disease.
"""


def model_card(model: SequenceModel, provenance: Provenance, figures: Mapping[str, str | float]) -> str:
    """The card's text. figures: name to number or text, shown as a table."""
    config = model.config
    return _TEMPLATE.format(
        title=provenance.extra.get("name", "model"),
        mixer=config.mixer,
        direction=config.direction,
        parameters=model.num_parameters(),
        n_layer=config.n_layer,
        d_model=config.d_model,
        vocab_size=config.vocab_size,
        objective="the next base" if config.objective == "causal" else config.objective,
        bos="it sees [BOS] before every window" if model.begins_with_bos else "it sees windows without [BOS]",
        encode_bos=", add_bos=True" if model.begins_with_bos else "",
        figures=_table(figures) if figures else "None were given when this directory was written.",
        provenance=_table({key: value for key, value in provenance.as_dict().items() if key != "extra"}),
    )


def _table(rows: Mapping[str, str | float]) -> str:
    lines = ["| what | value |", "|---|---|"]
    for name, value in rows.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {shown.replace('|', '/')} |")
    return "\n".join(lines)
