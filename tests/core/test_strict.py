from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping, load_yaml, nearest, to_mapping


@dataclass(frozen=True)
class Optimizer:
    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate: got {self.learning_rate}, wanted more than 0.")


@dataclass(frozen=True)
class Run:
    genome: Path
    steps: int
    regions: tuple[str, ...] = ()
    compile: bool = False
    rank: int | Literal["auto"] = "auto"
    seed: int | None = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    warmup: Optimizer | None = None
    weights: dict[str, float] = field(default_factory=dict)


MINIMAL = {"genome": "a.fa", "steps": 3}


def run(**changes: Any) -> Run:
    return from_mapping(Run, {**MINIMAL, **changes}, where="demo.yaml")


def test_defaults_nesting_and_widening() -> None:
    parsed = run(regions=["a", "b"], optimizer={"name": "sgd", "learning_rate": 1}, weights={"x": 2}, warmup={})
    assert parsed == Run(
        genome=Path("a.fa"),
        steps=3,
        regions=("a", "b"),
        optimizer=Optimizer("sgd", 1.0),
        warmup=Optimizer(),
        weights={"x": 2.0},
    )
    assert isinstance(parsed.optimizer.learning_rate, float)
    assert isinstance(parsed.weights["x"], float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, r"demo.yaml.step is not a key of Run. Did you mean 'steps'\?"),
        ({"qqqqq": 3}, "demo.yaml.qqqqq is not a key of Run. Known keys: genome, steps"),
        ({3: 3}, "demo.yaml.3 is not a key"),
        ({"optimizer": {"lerning_rate": 1.0}}, r"demo.yaml.optimizer.lerning_rate is not .* mean 'learning_rate'"),
        ({"warmup": {"lerning_rate": 1.0}}, r"demo.yaml.warmup.lerning_rate is not .* mean 'learning_rate'"),
        ({"steps": 3.0}, r"demo.yaml.steps: got 3.0 \(float\), wanted int"),
        ({"steps": True}, r"demo.yaml.steps: got True \(bool\), wanted int"),
        ({"steps": "3"}, r"demo.yaml.steps: got '3' \(str\), wanted int"),
        ({"steps": None}, "demo.yaml.steps: got None"),
        ({"compile": 1}, "demo.yaml.compile: got 1 .* wanted bool"),
        ({"compile": "yes"}, "wanted bool"),
        ({"regions": "chr1"}, "demo.yaml.regions: got 'chr1' .* wanted a list"),
        ({"regions": ["a", 3]}, r"demo.yaml.regions\[1\]: got 3 .* wanted str"),
        ({"rank": 1.5}, "demo.yaml.rank: got 1.5 .* wanted int or"),
        ({"rank": "atuo"}, "demo.yaml.rank: got 'atuo'"),
        ({"seed": "x"}, "demo.yaml.seed: got 'x' .* wanted int"),
        ({"optimizer": 3}, r"demo.yaml.optimizer: got 3 \(int\), wanted a mapping of name, learning_rate, betas"),
        ({"optimizer": {"name": "adamW"}}, r"optimizer.name: got 'adamW' .* Did you mean 'adamw'\?"),
        ({"optimizer": {"learning_rate": "1e-3"}}, "YAML reads 1e-3 as text: write 1.0e-3"),
        ({"optimizer": {"learning_rate": -1.0}}, "demo.yaml.optimizer: learning_rate: got -1.0, wanted more than 0"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas: got 1 items, wanted 2"),
        ({"optimizer": {"betas": 0.9}}, "optimizer.betas: got 0.9 .* wanted a list"),
        ({"weights": {"x": "y"}}, r"demo.yaml.weights.x: got 'y' \(str\), wanted float"),
        ({"weights": [1]}, "demo.yaml.weights: got .* wanted a mapping"),
        ({"genome": 3}, r"demo.yaml.genome: got 3 \(int\), wanted Path"),
    ],
)
def test_mistakes_are_named_with_their_place(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(Run, {**MINIMAL, **changes}, where="demo.yaml")


def test_missing_key() -> None:
    with pytest.raises(ConfigError, match=r"steps is missing\. Run needs it\."):
        from_mapping(Run, {"genome": "a"})


RUNS = st.builds(
    Run,
    genome=st.text("ab./", min_size=1).map(Path),
    steps=st.integers(),
    regions=st.lists(st.text()).map(tuple),
    compile=st.booleans(),
    rank=st.one_of(st.integers(), st.just("auto")),
    seed=st.none() | st.integers(),
    optimizer=st.builds(
        Optimizer,
        name=st.sampled_from(["adamw", "sgd"]),
        learning_rate=st.floats(min_value=1e-9, max_value=1e9),
        betas=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
    ),
    warmup=st.none() | st.just(Optimizer()),
    weights=st.dictionaries(st.text(), st.floats(allow_nan=False)),
)


@given(RUNS)
def test_round_trip_through_json(original: Run) -> None:
    assert from_mapping(Run, json.loads(json.dumps(to_mapping(original)))) == original


@given(RUNS)
def test_round_trip_through_yaml(original: Run) -> None:
    import yaml

    assert from_mapping(Run, yaml.safe_load(yaml.safe_dump(to_mapping(original)))) == original


def test_nearest() -> None:
    assert nearest("stepz", ["steps", "seed"]) == "steps"
    assert nearest("qqq", ["steps", "seed"]) is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a: [1, 2", InputFileError, "is not valid YAML: .*line 1"),
        ("- 1\n- 2\n", ConfigError, "got list at the top level, wanted `key: value` lines"),
        ("", ConfigError, "got NoneType at the top level"),
        ("a: 1\nb: 2\na: 3\n", ConfigError, "line 3: a stands there twice"),
        ("a:\n  - b: 1\n    b: 2\n", ConfigError, "line 3: b stands there twice"),
        ("a: !!python/object/apply:os.system [ls]\n", InputFileError, "is not valid YAML"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        load_yaml(path)


def test_unreadable_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No configuration file at"):
        load_yaml(tmp_path / "no.yaml")
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputFileError, match="is not valid YAML"):
        load_yaml(path)


def test_good_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "genome: é.fa\nsteps: 3\noptimizer: {learning_rate: 1.0e-3, betas: [0.9, .inf]}\n", encoding="utf-8"
    )
    parsed = from_mapping(Run, load_yaml(path))
    assert parsed.genome == Path("é.fa")
    assert parsed.optimizer.betas == (0.9, math.inf)
