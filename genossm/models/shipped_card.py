"""The model card of a model that comes with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genossm.models.sequence_model import SequenceModel

_TEMPLATE = """\
---
library_name: genossm
license: apache-2.0
tags: [genomics, dna, {mixer}]
---
# {name}

{summary}

{parameters:,} weights: {n_layer} layers of width {d_model}, one token a base, {kind}. It comes with genossm.

```python
import genossm

model = genossm.load("{name}")
```

On the command line: `genossm score -m {name} -f REFERENCE IN.vcf.gz -o OUT.vcf.gz`.

## Data

{data}

Not trained on: {held_out}; of these {validation} chose which step's weights to keep. Nothing besides one human
reference was read: no other species, no variants.

## Budget

{budget}

## Figures

{figures}

{evaluation}

## Limits

- A score says how likely a sequence is under what this model has seen. It is no statement about disease, and no
  substitute for one.
- It was trained on parts of two chromosomes of one assembly and is small. Larger models, trained on more, do better.
- Figures of masked and of causal models are of different tasks and are not to be compared.
{limits}
## Reproduce

```
genossm genome build REFERENCE.fa -o REFERENCE.zarr
genossm train --config {config}
```

with seed {seed}; that a second run gives the same bits was not tried. Weights are rounded to bfloat16 here (decays to
float16; step-size biases and skips stay float32){rounding}.
`genossm.load` gives them as float32; the loaded model's digest, which scores carry, is `{loaded_digest}`.
"""


def shipped_card(
    model: SequenceModel,
    provenance: Mapping[str, Any],
    *,
    figures: Mapping[str, str],
    evaluation: str = "",
    limits: Sequence[str] = (),
) -> str:
    """The card's text from what the training run recorded.

    provenance: as in provenance.json, with what `ship` adds.   figures: name to value.   evaluation: Markdown.
    """
    extra = provenance["extra"]
    config = extra["config"]
    return _TEMPLATE.format(
        mixer=model.config.mixer,
        name=extra["name"],
        summary=extra["summary"],
        parameters=model.num_parameters(),
        n_layer=model.config.n_layer,
        d_model=model.config.d_model,
        kind=_kind(model),
        data=_data(config, extra, provenance),
        held_out=", ".join(f"`{region}`" for region in _held_out(config["splits"])),
        validation=", ".join(f"`{region}`" for region in _listed(config["splits"]["validation"])),
        budget=_budget(extra["metrics"], config),
        figures=_table(figures),
        evaluation=evaluation.strip() or "Measured at the run's own end alone.",
        limits="".join(f"- {line}\n" for line in limits),
        config=extra["config_file"],
        seed=provenance.get("seed"),
        rounding=_rounding(extra.get("rounding")),
        loaded_digest=extra["loaded_digest"][:12],
    )


def _kind(model: SequenceModel) -> str:
    if model.objective == "causal":
        return "reading from left to right and predicting the next base"
    strands = " on both strands with the same weights" if model.config.equivariant else ""
    return f"reading both ways{strands} and predicting masked bases"


def _data(config: Mapping[str, Any], extra: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    splits = config["splits"]
    train = ", ".join(f"`{region}`" for region in _listed(splits["train"]))
    without = _listed(splits.get("exclude"))
    hole = f" without {', '.join(f'`{region}`' for region in without)}" if without else ""
    contigs = "; ".join(
        f"`{name}` {entry['length']:,} bases, M5 {entry['md5']}" for name, entry in extra["contigs"].items()
    )
    digest = str(provenance.get("reference_digest"))[:12]
    return f"Trained on {train}{hole} of a reference with digest {digest}. Contigs: {contigs}."


def _held_out(splits: Mapping[str, Any]) -> list[str]:
    """Regions that training never read: those cut out, or else those named for judging."""
    cut = _listed(splits.get("exclude"))
    return cut or [*_listed(splits["validation"]), *_listed(splits.get("test"))]


def _budget(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    data = config["data"]
    stages = [int(stage["window"]) for stage in data.get("lengths") or ()]
    windows = " then ".join(f"{window:,}" for window in [*stages, int(data["window"])])
    return (
        f"{metrics['steps']:,} steps over {metrics['tokens'] / 1e9:.2f} billion bases in {metrics['seconds'] / 60:.0f} "
        f"minutes, in windows of {windows} bases; the weights are those of step {metrics['best_step']:,}, which had "
        "the fewest validation bits."
    )


def _rounding(rounding: Mapping[str, Any] | None) -> str:
    if not rounding:
        return ""
    interval = rounding["interval"]
    shown = "no interval" if interval is None else f"95 % interval {interval[0]:+.5f} to {interval[1]:+.5f}"
    return (
        f", which changes the bits per base of {', '.join(rounding['regions'])} in windows of {rounding['context']:,} "
        f"by {rounding['difference']:+.5f} ({shown})"
    )


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(entry) for entry in (value if isinstance(value, list | tuple) else [value])]


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
