"""How a tool is called, and where its output says status and score."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from genossm.core.errors import ConfigError
from genossm.core.strict import from_mapping, load_yaml
from genossm.testing.conformance.cases import ALIASES, CIRCULAR, CONTEXT, HERE, REFERENCE

CAPABILITIES = ("aliases", "circular", "windows", "refuses")


@dataclass(frozen=True)
class Adapter:
    """A tool, as `README.md` describes it.

    command: a template; `{input}` becomes `{output}`, both plain VCF.   prepare: templates that run once, before.
    score, status: INFO keys; without a status, an allele that is not OK has to have no score.
    words: the tool's own words for a status, by word; any that is not there is ours.
    own: beginnings of the INFO keys that the tool adds.   has: of `CAPABILITIES`, what the tool does.
    tolerance: within which two scores are the same.
    Raises: ConfigError for a capability that does not exist, or a command without `{input}` and `{output}`.
    """

    name: str
    command: str
    score: str
    status: str | None = None
    prepare: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        unknown = [one for one in self.has if one not in CAPABILITIES]
        if unknown:
            raise ConfigError(f"has: {unknown[0]!r} is no capability; wanted some of {', '.join(CAPABILITIES)}.")
        for place in ("{input}", "{output}"):
            if place not in self.command:
                raise ConfigError(f"command: {self.command!r} has no {place}, so nothing can be passed through it.")


def load_adapter(path: Path | None = None) -> Adapter:
    """Read an adapter; that of genossm itself if no path is given. Raises: ConfigError; InputFileError."""
    path = path or HERE / "genossm.yaml"
    return from_mapping(Adapter, load_yaml(path), where=str(path))


class Workplace:
    """A folder in which a tool runs.   model: what `{model}` stands for; tiny random weights if None."""

    def __init__(self, adapter: Adapter, folder: Path, model: str | None = None) -> None:
        self.adapter, self._folder = adapter, folder
        used = " ".join((adapter.command, *adapter.prepare))
        if model is None and "{model}" in used:
            model = str(tiny_model(folder / "model"))
        self._places = {
            "reference": REFERENCE,
            "aliases": ALIASES,
            "circular": CIRCULAR,
            "context": CONTEXT,
            "model": model,
            "folder": folder,
            "genossm": _program(),
        }
        for template in adapter.prepare:
            done = self._run(template)
            if done.returncode:
                raise ConfigError(f"{adapter.name}: preparing failed with {template!r}: {done.stderr.strip()}")

    def score(self, text: bytes, name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Pass a VCF through the tool: how that ended, and where the output should be."""
        source, target = self._folder / f"{name}.vcf", self._folder / f"{name}.scored.vcf"
        source.write_bytes(text)
        return self._run(self.adapter.command, input=source, output=target), target

    def _run(self, template: str, **places: object) -> subprocess.CompletedProcess[str]:
        return self.execute([word.format(**self._places, **places) for word in shlex.split(template)])

    def execute(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder. Raises: ConfigError if there is no such program."""
        try:
            return subprocess.run(words, capture_output=True, text=True, cwd=self._folder, errors="replace")
        except OSError as error:
            raise ConfigError(f"{self.adapter.name}: {words[0]!r} cannot be run: {error.strerror}.") from error


def tiny_model(folder: Path, objective: str = "causal") -> Path:
    """A model of a few hundred weights, none of them at its initial value."""
    import torch

    from genossm.models import SequenceModel, StackConfig
    from genossm.testing.models import enliven

    torch.manual_seed(3)
    direction = "causal" if objective == "causal" else "bidirectional"
    config = StackConfig(d_model=8, n_layer=2, direction=direction, objective=objective)  # type: ignore[arg-type]
    return enliven(SequenceModel(config)).eval().save_pretrained(folder)


def _program() -> str:
    """The command that is installed beside this interpreter, or the one on the path."""
    beside = Path(sys.executable).with_name("genossm")
    return str(beside) if beside.exists() else shutil.which("genossm") or "genossm"
