"""`genossm train` as a user meets it: real sequence, one line an error, nothing half written."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from genossm.cli.main import run
from genossm.nn.stack import Stack
from genossm.training.config import load_train_config

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sysconfig.get_path("scripts")) / "genossm"


def installed(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 1.2 Mb of the shipped contig 20, of which the first megabase is N."""
    folder = tmp_path_factory.mktemp("human")
    with gzip.open(ROOT / "data/chr20_1-4Mb.fa.gz", "rt") as handle:
        handle.readline()
        letters = "".join(line.strip() for _, line in zip(range(30_000), handle))[:1_200_000]
    (folder / "chr20.fa").write_text(">20\n" + letters + "\n")
    config = {
        "genome": {"path": "chr20.fa"},
        "splits": {"train": "20:1,000,001-1,150,000", "validation": "20:1,150,001-1,160,000"},
        "data": {"window": 128, "batch": 8},
        "model": {"d_model": 16, "n_layer": 2, "d_state": 4},
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup_steps": 5},
        "run": {"max_steps": 40, "validate_every": 20, "checkpoint_every": 20},
        "output": {"directory": "out/run"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_few_steps_lower_the_loss_on_human_sequence(
    human: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = installed("train", "--config", "run.yaml", cwd=human)
    assert done.returncode == 0, done.stderr
    # Data on stdout, everything else on stderr; no bar, since this is no terminal.
    assert done.stdout == "out/run/model\n"
    assert "\x1b" not in done.stderr
    with open(human / "out/run/metrics.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    trained = [float(row["train_bits_per_base"]) for row in rows if row["train_bits_per_base"]]
    assert trained[0] > trained[-1]
    validated = [float(row["validation_bits_per_base"]) for row in rows if row["validation_bits_per_base"]]
    # Less than the entropy of the bases' frequencies, about 1.99 here, so that order has been learnt.
    assert validated[-1] < 1.965
    monkeypatch.chdir(human)
    with pytest.raises(SystemExit):
        run(["train", "--config", "run.yaml"])
    assert capsys.readouterr().err.startswith("genossm: error: out/run exists already. Pass --resume")
    with pytest.raises(SystemExit) as ended:
        run(["train", "--config", "run.yaml", "--resume", "--set", "run.max_steps=42"])
    assert ended.value.code == 0
    assert "step 42/42" in capsys.readouterr().err


REFUSED = [
    (["--config", "absent.yaml"], 1, "No configuration file at absent.yaml"),
    (["--config", "run.yaml", "--set", "optimizer.learning_rat=1"], 1, "Did you mean 'learning_rate'?"),
    (["--config", "run.yaml", "--set", "genome.path=absent.fa"], 1, "absent.fa"),
    (["--config", "run.yaml", "--set", "genome.path=run.yaml"], 1, "run.yaml"),
    (["--config", "run.yaml", "--set", "splits.train=21"], 1, "21"),
    (["--config", "run.yaml", "--set", "splits.train=20:1-1,000,000"], 1, "max_n_fraction"),
    (["--config", "run.yaml", "--set", "data.window=200,001"], 1, "data.window"),
    (["--config", "run.yaml", "--set", "data.window=10001"], 1, "window of 10,001 bases does not fit"),
    (["--config", "run.yaml", "--set", "splits.validation=20:1,149,001-1,160,000"], 1, "overlap by 1,000 bases"),
    (["--config", "run.yaml", "--resume"], 1, "nothing to resume"),
    (
        ["--config", "run.yaml", "--set", "masking.fraction=0.15"],
        1,
        "masking is given, but model.objective is 'causal'",
    ),
    (["--config", "run.yaml", "--set", "masking.fraction=15"], 1, "masking: fraction is 15.0; wanted a share"),
    (["--config", "run.yaml", "--set", "model.direction=bidirectional"], 1, "wanted the objective 'masked'"),
    (["--config", "run.yaml", "--set", "model.objective=masked"], 1, "wanted the objective 'causal'"),
    (["--config", "run.yaml", "--resume", "--force"], 2, "Choose one"),
]


@pytest.fixture
def folder(human: Path, tmp_path: Path) -> Path:
    for name in ("run.yaml", "chr20.fa"):
        (tmp_path / name).symlink_to(human / name)
    return tmp_path


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        run(["train", *arguments])
    assert ended.value.code == code
    check_refusal(folder, *capsys.readouterr(), message)


@pytest.mark.parametrize("case", [1, 4, 8])
def test_the_installed_command_refuses_alike_and_at_once(folder: Path, case: int) -> None:
    arguments, code, message = REFUSED[case]
    done = installed("train", *arguments, cwd=folder)
    assert done.returncode == code
    check_refusal(folder, done.stdout, done.stderr, message)


def check_refusal(folder: Path, stdout: str, stderr: str, message: str) -> None:
    assert stdout == ""
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("genossm: error: ")
    assert message in stderr
    assert sorted(entry.name for entry in folder.iterdir()) == ["chr20.fa", "run.yaml"]


def test_checks_come_before_lightning_is_loaded(folder: Path) -> None:
    code = (
        "import sys\n"
        "from genossm.core.errors import ConfigError\n"
        "from genossm.training import load_train_config, train\n"
        "try:\n"
        "    train(load_train_config('run.yaml', ['splits.validation=20:1,149,001-1,160,000']))\n"
        "except ConfigError:\n"
        "    sys.exit('lightning' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["train", "--confg", "run.yaml"])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    config = load_train_config(path)
    assert config.total_steps is not None
    assert config.splits.regions("test")


def test_what_is_recomputed_changes_no_number(human: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(human)
    levels: list[str] = []
    usual = Stack.recompute
    monkeypatch.setattr(Stack, "recompute", lambda self, level: (levels.append(level), usual(self, level))[1])
    figures = []
    for level in ("projections", "nothing"):
        folder = f"out/{level}"
        options = ["run.max_steps=3", "run.log_every=1", f"run.recompute={level}", f"output.directory={folder}"]
        with pytest.raises(SystemExit):
            run(["train", "--config", "run.yaml", *(word for option in options for word in ("--set", option))])
        with open(f"{folder}/metrics.csv", newline="") as handle:
            figures.append([row["train_bits_per_base"] for row in csv.DictReader(handle)])
    assert levels == ["projections", "nothing"]
    assert len(figures[0]) >= 3
    assert figures[0] == figures[1]
