"""Run files: strict, with errors that lead to the key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping
from genossm.data.masking import Masking
from genossm.training.config import TrainConfig, differences, load_train_config

Make = Callable[..., TrainConfig]


@pytest.fixture
def run_file(mapping: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


def test_a_file_reads_back_from_its_own_mapping(run_file: Path) -> None:
    config = load_train_config(run_file)
    assert from_mapping(TrainConfig, config.as_mapping()) == config
    assert yaml.safe_load(yaml.safe_dump(config.as_mapping())) == config.as_mapping()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("optimizer.learning_rat=0.1", "optimizer.learning_rat is not a key of OptimizerConfig. Did you mean 'learnin"),
        ("runn.seed=1", "runn is not a key of TrainConfig. Did you mean 'run'?"),
        ("model.d_modle=8", "model.d_modle is not a key of StackConfig. Did you mean 'd_model'?"),
        (
            "model={d_model: 8, n_layer: 1, direction: bidirectional}",
            "model: objective is 'causal' and direction 'bidir",
        ),
        (
            "model.objective=masked",
            "model: objective is 'masked' and direction 'causal'; wanted the objective 'causal'",
        ),
        ("model.reverse_complement=equivariant", "model: reverse_complement is 'equivariant' and direction 'causal'"),
        ("masking={fraction: 0.15}", "masking is given, but model.objective is 'causal'"),
        ("masking={fraction: 1.5}", "masking: fraction is 1.5; wanted a share"),
        ("masking={mask: 0.9, substitute: 0.2}", "masking: mask is 0.9 and substitute 0.2"),
        ("masking={fractoin: 0.2}", "masking.fractoin is not a key of Masking. Did you mean 'fraction'?"),
        ("model.preset=smal", "There is no preset 'smal'. Did you mean 'small'?"),
        ("optimizer.learning_rate=1e-3", "YAML reads 1e-3 as text"),
        ("optimizer.learning_rate=-1.0", "learning_rate is -1.0"),
        ("optimizer.betas=[0.9, 1.5]", "betas are (0.9, 1.5)"),
        ("data.window=0", "data: window is 0"),
        ("data.stride=5", "data: stride is given, but sampling is 'random'"),
        ("data.max_n_fraction=1.5", "max_n_fraction is 1.5"),
        ("data.sampling=tilde", "Did you mean 'tiled'?"),
        ("run.max_tokens=100", "run: max_steps and max_tokens are both given"),
        ("run.max_steps=null", "Nothing ends the run"),
        ("run.precision=16", "run.precision: got 16 (int), wanted one of"),
        ("run.seed=-1", "run: seed is -1"),
        ("run.devices=3", "data.batch is 4, which 3 devices cannot share evenly"),
        ("schedule.final_fraction=2.0", "final_fraction 2.0"),
        ("seed", "--set 'seed': wanted section.key=value"),
        ("run.seed.x=1", "seed is a value, not a section"),
        ("run.seed=[", "'[' is not a YAML value"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(run_file: Path, settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_train_config(run_file, [settings])


def test_settings_change_single_keys(run_file: Path) -> None:
    config = load_train_config(run_file, ["run.max_steps=7", "model.d_state=2", "splits.train=[toy, '21']"])
    assert config.run.max_steps == 7
    assert config.stack_config().d_state == 2
    assert config.splits.regions("train") == ("toy", "21")


def test_a_cosine_needs_an_end_and_a_constant_rate_does_not(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="cosine schedule needs an end"):
        make_config(run__max_steps=None, run__max_minutes=1.0)
    config = make_config(run__max_steps=None, run__max_minutes=1.0, schedule__kind="constant")
    assert config.total_steps is None


def test_tokens_become_whole_steps(make_config: Make) -> None:
    config = make_config(run__max_steps=None, run__max_tokens=4 * 32 * 10 + 1)
    assert config.total_steps == 11


def test_a_masked_model_hides_fifteen_percent_unless_told_otherwise(masked: dict[str, Any]) -> None:
    config = from_mapping(TrainConfig, masked)
    assert config.masking == Masking(0.15, mask=0.8, substitute=0.1)
    # What is written beside the model says so, and reads back.
    assert config.as_mapping()["masking"] == {"fraction": 0.15, "mask": 0.8, "substitute": 0.1}
    assert from_mapping(TrainConfig, config.as_mapping()) == config
    assert from_mapping(TrainConfig, {**masked, "masking": {"fraction": 0.3}}).masking == Masking(0.3)


def test_the_unit_of_a_run_is_that_of_its_objective(make_config: Make, masked: dict[str, Any]) -> None:
    assert make_config().unit == "bits per base"
    assert from_mapping(TrainConfig, masked).unit == "masked bits per base"


def test_a_contig_named_by_a_number_is_a_region(make_config: Make) -> None:
    assert make_config(splits__train=20, splits__test=[21, "X"]).splits.regions("test") == ("21", "X")


def test_a_preset_is_changed_by_further_keys(mapping: dict[str, Any]) -> None:
    mapping["model"] = {"preset": "tiny", "n_layer": 3}
    stack = from_mapping(TrainConfig, mapping).stack_config()
    assert (stack.d_model, stack.n_layer) == (64, 3)


def test_missing_files_say_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No configuration file at"):
        load_train_config(tmp_path / "absent.yaml")


def test_differences_name_changed_keys(make_config: Make) -> None:
    old = make_config().as_mapping()
    new = make_config(run__seed=9, data__window=16).as_mapping()
    assert differences(old, new) == ["data.window", "run.seed"]
    assert differences(old, old) == []
