"""The workflow's plan, and what becomes of a wrong configuration."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Call = Callable[..., CompletedProcess[str]]
Change = Callable[[dict[str, Any]], object]


def write_config(project: Path, change: Change) -> None:
    path = project / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))


def test_lint_finds_nothing(project: Path, snakemake: Call) -> None:
    done = snakemake(project, "--lint")
    assert done.returncode == 0, done.stderr
    assert "your workflow is in a good condition" in done.stderr


def test_plan_of_the_shipped_configuration(tmp_path: Path, inputs: Path, workflow: Path, snakemake: Call) -> None:
    """In a folder that looks like the clone after `make demo`."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "demo/run").mkdir(parents=True)
    (tmp_path / "demo/run/model").symlink_to(inputs / "model")
    done = snakemake(tmp_path, "--configfile", workflow / "config/config.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.M) == ["genome_store", "score", "summary", "all"]
    assert "genossm score $1 -f results/genome/reference.zarr -m demo/run/model --context 8192" in done.stdout


def test_the_shipped_configuration_names_every_key_and_its_default(workflow: Path) -> None:
    shipped = yaml.safe_load((workflow / "config/config.yaml").read_text())
    schema = yaml.safe_load((workflow / "schemas/config.schema.yaml").read_text())

    def compare(values: dict[str, Any], described: dict[str, Any]) -> None:
        assert set(values) == set(described)
        for key, value in values.items():
            if "properties" in described[key]:
                compare(value, described[key]["properties"])
            elif "default" in described[key]:
                assert value == described[key]["default"]

    compare(shipped, schema["properties"])


def test_all_options_reach_the_command(project: Path, snakemake: Call) -> None:
    score = {
        "methods": ["llr", "embedding"],
        "context": 2048,
        "horizon": "full",
        "both_strands": True,
        "check_ref": "e",
        "max_skip_frac": 0.5,
        "batch_size": 7,
        "device": "cuda:1",
    }
    write_config(project, lambda config: config.update(score=score))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    options = "--method llr --method embedding --both-strands --context 2048 --horizon full --check-ref e"
    assert f"{options} --max-skip-frac 0.5 --batch-size 7 --device cuda:1" in done.stdout
    assert re.search(r"resources:.*\bgpu=1\b", done.stdout)


def test_names_of_contigs_reach_the_store(project: Path, snakemake: Call) -> None:
    (project / "names.tsv").write_text("20\tchr20\n")
    write_config(project, lambda config: config["reference"].update(aliases="names.tsv", circular=["MT", "p 1"]))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "--alias-file names.tsv --circular MT --circular 'p 1'" in done.stdout


def test_a_store_is_used_as_it_is(project: Path, human_store: Path, snakemake: Call) -> None:
    write_config(project, lambda config: config["reference"].update(path=str(human_store)))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"-f {human_store} " in done.stdout
    assert "genome_store" not in done.stdout


def test_a_model_of_the_hub_is_passed_on_by_name(project: Path, snakemake: Call) -> None:
    write_config(project, lambda config: config.update(model="owner/name"))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "-m owner/name " in done.stdout


def test_a_shipped_model_is_passed_on_by_name(project: Path, snakemake: Call) -> None:
    write_config(project, lambda config: config.update(model="human-causal-2m"))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "-m human-causal-2m " in done.stdout


def test_a_directory_with_a_shipped_models_name_is_passed_on_as_written(project: Path, snakemake: Call) -> None:
    (project / "model").rename(project / "human-causal-2m")
    write_config(project, lambda config: config.update(model="./human-causal-2m"))
    done = snakemake(project, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "-m ./human-causal-2m " in done.stdout
    assert "human-causal-2m/model.safetensors" in done.stdout


WRONG: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda c: c.update(refrence=1), r"top level: .*'refrence' was unexpected.*Known keys: reference, "),
    "unknown key inside": (
        lambda c: c["score"].update(contex=8),
        r"score: .*'contex' was unexpected.*Known keys: meth",
    ),
    "missing model": (lambda c: c.pop("model"), r"top level: 'model' is a required property"),
    "no input": (lambda c: c.update(inputs=[]), r"inputs: .*Wanted: a list of at least one file"),
    "wrong type": (lambda c: c.update(inputs="a.vcf"), r"inputs: 'a\.vcf' is not of type 'array'"),
    "odd context": (lambda c: c["score"].update(context=1023), r"score\.context: 1023 .*Wanted: bases .*multiple of 4"),
    "wrong horizon": (lambda c: c["score"].update(horizon="ful"), r"score\.horizon: 'ful' .*Wanted: .*or `full`"),
    "wrong method": (lambda c: c["score"].update(methods=["llm"]), r"score\.methods\[0\]: 'llm' is not one of"),
    "wrong device": (lambda c: c["score"].update(device="gpu"), r"score\.device: 'gpu' .*Wanted: auto, cpu, cuda"),
    "no VCF": (lambda c: c["inputs"][1].update(vcf="x.txt"), r"inputs\[1\]\.vcf: 'x\.txt' .*Wanted: a file that ends"),
    "name with slash": (lambda c: c["inputs"][0].update(name="a/b"), r"inputs\[0\]\.name: 'a/b' .*Wanted: letters"),
    "name twice": (lambda c: c["inputs"][0].update(name="mixed"), r"two inputs have the name 'mixed'"),
    "name of all": (lambda c: c["inputs"][0].update(name="all"), r"the name 'all'"),
    "no such model": (lambda c: c.update(model="./modle"), r"there is no model directory at \./modle"),
    "no such shipped model": (
        lambda c: c.update(model="human-causal-2"),
        r"no shipped model's name.*Did you mean the shipped model 'human-causal-2m'\?",
    ),
    "no such file": (
        lambda c: c["inputs"][0].update(vcf="snv.vcf"),
        r"Missing input files for rule score:.*\bsnv\.vcf",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_is_one_clear_error(project: Path, snakemake: Call, case: str) -> None:
    change, message = WRONG[case]
    write_config(project, change)
    done = snakemake(project, "--dry-run")
    assert done.returncode == 1
    # A dry run reports missing files on standard output.
    said = done.stderr + done.stdout
    assert re.search(message, said, re.S), said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 16
    assert not (project / "results").exists()


def test_the_environment_names_this_version(workflow: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"genossm =={version}\n" in (workflow / "envs/genossm.yaml").read_text()
