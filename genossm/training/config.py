"""A training run in one file: strict, frozen, and the same on any machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genossm.core.errors import ConfigError
from genossm.core.strict import from_mapping, load_yaml, require_positive, to_mapping
from genossm.data.lengths import Lengths
from genossm.data.masking import Masking
from genossm.models.presets import preset
from genossm.nn.config import StackConfig
from genossm.training.data_config import DataConfig as DataConfig
from genossm.training.data_config import SplitsConfig as SplitsConfig


@dataclass(frozen=True)
class GenomeConfig:
    """path: FASTA (plain or bgzip) or genome store, relative to the current directory."""

    path: Path


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019); weight_decay is not applied to A_log, D, biases and norms.

    decay_embeddings: apply it to the embedding (and the head that shares its weights).
    """

    name: Literal["adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    decay_embeddings: bool = False

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not self.eps > 0 or self.weight_decay < 0:
            raise ConfigError(
                f"learning_rate is {self.learning_rate}, eps {self.eps}, weight_decay {self.weight_decay}; "
                "wanted the first two above 0 and the last at least 0."
            )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}; wanted both at least 0 and below 1.")


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up over `warmup_steps`, then "cosine" down to `final_fraction` of the rate, or "constant"."""

    kind: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 100
    final_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or not 0.0 <= self.final_fraction <= 1.0:
            raise ConfigError(
                f"warmup_steps is {self.warmup_steps} and final_fraction {self.final_fraction}; "
                "wanted at least 0, and from 0 to 1."
            )


@dataclass(frozen=True)
class RunConfig:
    """How long, on what, and how often to look.

    max_steps or max_tokens: one of them, or neither with a constant schedule; the same result on any machine.
    max_minutes: stop after so much time, wherever the run stands.
    precision: "32", "bf16" (autocast), or "auto": bf16 on a GPU that has it, else 32.
    gradient_clip: largest norm of all gradients together; null for none.
    recompute: what the backward pass makes again instead of keeping it: "nothing", "cheap" (norms, convolutions),
        "projections" (the least memory), or "auto": cheap for long windows. The numbers stay the same.
    accelerator, devices: as Lightning names them; devices of one machine.   nodes: machines.
    context_parallel: devices that read each window together, a stretch each, so that a device needs the memory of its
        stretch alone; the others share the batch. It divides devices * nodes.
    strategy: what several devices do with the weights: "ddp" has all of them on each, "fsdp" spreads weights and
        optimizer over them; "auto" is ddp. One device has them all in any case.
    validate_every, checkpoint_every, log_every: steps.
    watch_every: steps between measurements of gradient norms by block and of states, which go to watch.csv and are
        warned of when they grow; null for none.
    """

    max_steps: int | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None
    precision: Literal["auto", "32", "bf16"] = "auto"
    gradient_clip: float | None = 1.0
    seed: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    context_parallel: int = 1
    validate_every: int = 500
    checkpoint_every: int = 500
    log_every: int = 10
    watch_every: int | None = 20
    recompute: Literal["auto", "nothing", "cheap", "projections"] = "auto"

    def __post_init__(self) -> None:
        require_positive(
            self,
            *("max_steps", "max_tokens", "max_minutes", "gradient_clip"),
            *("devices", "validate_every", "checkpoint_every", "log_every", "watch_every"),
            *("nodes", "context_parallel"),
        )
        if self.ranks % self.context_parallel:
            raise ConfigError(
                f"context_parallel is {self.context_parallel}, which does not divide {self.ranks} devices "
                "(run.devices * run.nodes)."
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; wanted a whole number from 0 to 4294967295.")
        if self.max_steps is not None and self.max_tokens is not None:
            raise ConfigError("max_steps and max_tokens are both given. Keep one: the other follows from the batch.")
        if self.max_steps is None and self.max_tokens is None and self.max_minutes is None:
            raise ConfigError("Nothing ends the run. Give max_steps, max_tokens or max_minutes.")

    @property
    def ranks(self) -> int:
        """Processes of the run, one a device."""
        return self.devices * self.nodes

    @property
    def readers(self) -> int:
        """How many devices, or groups of devices that read together, share a batch."""
        return self.ranks // self.context_parallel


@dataclass(frozen=True)
class OutputConfig:
    """directory: holds config.yaml, metrics.csv, watch.csv, checkpoints/ and, once the run is whole, the model."""

    directory: Path


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a run. `model` holds the keys of StackConfig, and may name a `preset` that they change.

    masking: for models whose objective is "masked", which hide 15 % of the bases unless told otherwise; causal models
    have none.
    """

    genome: GenomeConfig
    splits: SplitsConfig
    model: dict[str, Any]
    output: OutputConfig
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)
    masking: Masking | None = None

    def __post_init__(self) -> None:
        self._settle_masking()
        self._check_states()
        for name, stage in zip(self.data.stage_names(), self.lengths.stages):
            if stage.batch % self.run.readers:
                together = f" groups of {self.run.context_parallel}" if self.run.context_parallel > 1 else ""
                raise ConfigError(
                    f"{name}.batch is {stage.batch}, which {self.run.readers}{together} devices cannot share evenly."
                )
            self._require_stretches(f"{name}.window", stage.window)
        if self.data.validation_window is not None:
            self._require_stretches("data.validation_window", self.data.validation_window)
        if self.schedule.kind == "cosine" and self.total_steps is None:
            raise ConfigError("A cosine schedule needs an end: give run.max_steps or run.max_tokens.")

    def _check_states(self) -> None:
        if not self.data.carries_states:
            return
        what = "data.segment is given" if self.data.segment is not None else "data.sampling is 'contigs'"
        direction = self.stack_config().direction
        if direction != "causal":
            raise ConfigError(
                f"{what}, but model.direction is {direction!r}: such a model reads whole windows and has no state to "
                "hand on. Leave it out, or set model.direction to causal."
            )
        if self.run.context_parallel > 1:
            raise ConfigError(
                f"{what} and run.context_parallel is {self.run.context_parallel}; states come from the step before or "
                "from the other devices. Keep one."
            )

    def _require_stretches(self, name: str, window: int) -> None:
        """Each device of a group reads a stretch, and its convolutions look back over the end of one neighbour's."""
        if window // self.run.context_parallel < (1 if self.run.context_parallel == 1 else self._shortest_stretch):
            raise ConfigError(
                f"{name} is {window}, too short for run.context_parallel = {self.run.context_parallel}: a device's "
                f"stretch needs at least {self._shortest_stretch} bases, as far as the convolution looks back "
                "(model.d_conv)."
            )

    @property
    def _shortest_stretch(self) -> int:
        return max(1, self.stack_config().d_conv - 1)

    @property
    def most_together(self) -> int:
        """Up to how many devices `run.context_parallel` may have."""
        if self.data.carries_states:
            return 1
        validation = self.data.validation_window or self.data.window
        return max(1, min(validation, *(stage.window for stage in self.lengths.stages)) // self._shortest_stretch)

    def _settle_masking(self) -> None:
        objective = self.stack_config().objective
        if objective == "causal" and self.masking is not None:
            raise ConfigError(
                "masking is given, but model.objective is 'causal': such a model predicts the next base, and none is "
                "hidden. Leave masking out, or set model.direction to bidirectional and model.objective to masked."
            )
        if objective == "masked" and self.masking is None:
            # Written into config.yaml and checkpoints, as every other default is.
            object.__setattr__(self, "masking", Masking())

    @property
    def unit(self) -> str:
        """What the figures of this run count; those of a masked model are no match for those of a causal one."""
        return "bits per base" if self.masking is None else "masked bits per base"

    @property
    def lengths(self) -> Lengths:
        """What each step reads: window, batch, bases."""
        return self.data.stages()

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, all stages of `data.lengths` included; None if only time ends it."""
        if self.run.max_tokens is not None:
            return self.lengths.steps_for(self.run.max_tokens)
        return self.run.max_steps

    def stack_config(self) -> StackConfig:
        """The model's shape: the preset, if one is named, with the other keys of `model` on top.

        Raises: ConfigError for an unknown preset or key.
        """
        overrides = dict(self.model)
        name = overrides.pop("preset", None)
        base = {} if name is None else to_mapping(preset(str(name)))
        return from_mapping(StackConfig, {**base, **overrides}, where="model")

    def as_mapping(self) -> dict[str, Any]:
        """Plain mapping that `from_mapping` reads back to an equal configuration."""
        return to_mapping(self)


def load_train_config(path: str | Path, settings: Iterable[str] = ()) -> TrainConfig:
    """Read a YAML file; `settings` are `section.key=value` with YAML values, applied on top.

    Raises: InputFileError if it is missing or no YAML; ConfigError for an unknown key, a wrong type or value.
    """
    mapping = load_yaml(path)
    for setting in settings:
        _apply(mapping, setting)
    return from_mapping(TrainConfig, mapping)


def _apply(mapping: dict[str, Any], setting: str) -> None:
    import yaml

    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting!r}: wanted section.key=value, such as run.max_steps=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: {text!r} is not a YAML value.") from error
    *sections, last = key.split(".")
    place: Any = mapping
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {setting!r}: {section} is a value, not a section.")
    place[last] = value


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    """Keys (dotted) at which two plain configurations differ."""
    changed: list[str] = []
    for key in sorted(set(old) | set(new)):
        path = f"{prefix}{key}"
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            changed += differences(left, right, prefix=f"{path}.")
        elif left != right:
            changed.append(path)
    return changed
