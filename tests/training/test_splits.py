"""Regions of a run from strings, with holes, from BED files; and that its model is never judged on them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError, IntervalError
from genossm.core.strict import from_mapping
from genossm.data.windows import TiledWindows
from genossm.evaluation.leaks import refuse_learnt_regions
from genossm.sequence import Interval
from genossm.training import TrainConfig, load_train_config, train
from genossm.training.data_config import SplitsConfig
from genossm.training.reading import parse_splits, plan_windows

Make = Callable[..., TrainConfig]


def with_splits(mapping: dict[str, Any], **splits: Any) -> TrainConfig:
    return from_mapping(TrainConfig, {**mapping, "splits": splits})


def test_held_out_parts_are_cut_out_of_training(mapping: dict[str, Any], toy_fasta: Path) -> None:
    config = with_splits(
        mapping, train=["toy"], exclude=["toy:101-200", "toy:1,001-1,500"], validation="toy:1,001-1,200"
    )
    with genossm.genome.open(toy_fasta) as genome:
        splits = parse_splits(config.splits, genome)
        training, validation = plan_windows(config, genome)
        starts = {training.interval(n).start for n in range(5000)}
    assert splits.train == (Interval("toy", 0, 100), Interval("toy", 200, 1000), Interval("toy", 1500, 3600))
    allowed = [*range(69), *range(200, 969), *range(1500, 3569)]
    assert starts <= set(allowed)
    assert len(starts) > 0.75 * len(allowed)
    assert isinstance(validation, TiledWindows)
    # Without the hole the same regions would be refused.
    whole = with_splits(mapping, train=["toy"], validation="toy:1,001-1,200")
    with genossm.genome.open(toy_fasta) as genome, pytest.raises(ConfigError, match="overlap by 200 bases"):
        plan_windows(whole, genome)


def test_pieces_shorter_than_a_window_are_an_error_or_left_out(mapping: dict[str, Any], toy_fasta: Path) -> None:
    mapping["data"]["window"] = 120
    splits = {"train": "toy", "exclude": ["toy:101-200", "toy:1,001-1,500"], "validation": "toy:1,001-1,200"}
    with genossm.genome.open(toy_fasta) as genome:
        with pytest.raises(IntervalError, match=r"region toy:1-100 has 100 bases.*short_regions: skip"):
            plan_windows(with_splits(mapping, **splits), genome)
        mapping["data"]["short_regions"] = "skip"
        training, _ = plan_windows(with_splits(mapping, **splits), genome)
        assert all(training.interval(n).start >= 200 for n in range(500))


def test_bed_files_stand_wherever_regions_do(mapping: dict[str, Any], toy_fasta: Path, tmp_path: Path) -> None:
    (tmp_path / "include.bed").write_text("toy\t0\t600\tx\t0\t-\ntoy\t500\t700\ntoy\t700\t800\ntoy\t900\t1000\n")
    (tmp_path / "holes.bed").write_text("toy\t100\t200\n")
    config = with_splits(
        mapping,
        train=[str(tmp_path / "include.bed"), "toy:2,001-2,200"],
        exclude=[str(tmp_path / "holes.bed"), "toy:2,101-2,200"],
        validation="toy:2,401-3,000",
    )
    with genossm.genome.open(toy_fasta) as genome:
        splits = parse_splits(config.splits, genome)
        expected = ["toy:1-100", "toy:201-800", "toy:901-1,000", "toy:2,001-2,100"]
        assert [str(region) for region in splits.train] == expected
        (tmp_path / "holes.bed").write_text("toy\t100\t200\ntoy\t3500\t3601\n")
        with pytest.raises(InputFileError, match=r"holes\.bed, line 2: toy:3,501-3,601 ends after contig toy"):
            parse_splits(config.splits, genome)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "toy"}, "splits: validation is missing"),
        ({"validation": "toy"}, "splits: train is missing"),
        ({"bed": "a.bed", "test": "toy"}, "splits: bed and test are both given"),
        ({"train": "toy", "validatoin": "toy"}, "splits.validatoin is not a key of SplitsConfig. Did you mean 'valid"),
    ],
)
def test_splits_are_complete_and_said_once(mapping: dict[str, Any], splits: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        with_splits(mapping, **splits)


@pytest.fixture
def basenji(mapping: dict[str, Any], tmp_path: Path) -> tuple[TrainConfig, Path]:
    path = tmp_path / "sequences.bed"
    path.write_text("toy\t0\t1000\ttrain\ntoy\t1200\t2400\ttrain\ntoy\t2400\t3000\tvalid\ntoy\t3000\t3600\ttest\n")
    mapping["run"]["max_steps"] = 4
    return with_splits(mapping, bed=str(path), exclude="toy:1-200"), path


def test_a_run_keeps_what_it_read_and_is_not_judged_on_it(basenji: tuple[TrainConfig, Path], toy_fasta: Path) -> None:
    config, path = basenji
    result = train(config)
    written = load_train_config(config.output.directory / "config.yaml").splits
    regions = ("toy:201-1,000", "toy:1,201-2,400")
    assert written == SplitsConfig(regions, ("toy:2,401-3,000",), ("toy:3,001-3,600",))
    provenance = json.loads((result.model / "provenance.json").read_text())
    assert provenance["extra"]["config"]["splits"]["train"] == list(regions)
    path.unlink()
    # The same contig in a file with others, under another name, is known again.
    text = toy_fasta.read_text().replace(">toy", ">renamed")
    (path.parent / "more.fa").write_text(f">first\nACGT\n{text}")
    with genossm.genome.open(path.parent / "more.fa") as genome:
        refuse_learnt_regions(result.model, genome, [Interval("renamed", 3000, 3600)])
        with pytest.raises(ConfigError, match=r"renamed:201-1,000 among its train regions"):
            refuse_learnt_regions(result.model, genome, [Interval("renamed", 0, 201)])
    with genossm.genome.open(toy_fasta) as genome:
        refuse_learnt_regions(result.model, genome, [Interval("toy", 0, 200), Interval("toy", 3000, 3600)])
        with pytest.raises(ConfigError, match=r"toy:201-1,000 among its train regions, which shares 1 bases"):
            refuse_learnt_regions(result.model, genome, [Interval("toy", 0, 201)])
        with pytest.raises(ConfigError, match="toy:2,401-3,000 among its validation regions"):
            refuse_learnt_regions(result.model, genome, [Interval("toy", 2999, 3600)])


def test_holes_of_a_configuration_were_not_learnt(toy_fasta: Path, tmp_path: Path) -> None:
    splits = {"train": ["toy"], "exclude": "toy:3,001-3,600", "validation": "toy:3,001-3,300"}
    (tmp_path / "model").mkdir()
    with genossm.genome.open(toy_fasta) as genome:
        content = {"reference_digest": genome.reference_digest, "extra": {"config": {"splits": splits}}}
        (tmp_path / "model" / "provenance.json").write_text(json.dumps(content))
        refuse_learnt_regions(tmp_path / "model", genome, [Interval("toy", 3300, 3600)])
        with pytest.raises(ConfigError, match="toy:1-3,000 among its train regions"):
            refuse_learnt_regions(tmp_path / "model", genome, [Interval("toy", 2999, 3600)])


def test_a_bed_file_that_changed_is_another_run(basenji: tuple[TrainConfig, Path]) -> None:
    config, path = basenji
    train(config)
    assert train(config, resume=True).steps == 4
    path.write_text(path.read_text().replace("1200", "1300"))
    with pytest.raises(ConfigError, match=r"other values of splits\.train"):
        train(config, resume=True)


def test_the_configuration_of_a_run_can_be_run_again(basenji: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, _ = basenji
    train(config)
    again = yaml.safe_load((config.output.directory / "config.yaml").read_text())
    again["output"]["directory"] = str(tmp_path / "again")
    assert train(from_mapping(TrainConfig, again)).steps == 4


def test_a_run_goes_on_with_its_reference_in_any_form_and_with_no_other(
    mapping: dict[str, Any], toy_fasta: Path, tmp_path: Path
) -> None:
    mapping["run"]["max_steps"] = 2
    train(from_mapping(TrainConfig, mapping))
    genossm.genome.build(toy_fasta, tmp_path / "toy.zarr")
    mapping["run"]["max_steps"] = 3
    mapping["genome"]["path"] = str(tmp_path / "toy.zarr")
    assert train(from_mapping(TrainConfig, mapping), resume=True).steps == 3
    text = toy_fasta.read_text()
    (tmp_path / "other.fa").write_text(text[:-2] + ("C" if text[-2] == "A" else "A") + "\n")
    mapping["genome"]["path"] = str(tmp_path / "other.fa")
    with pytest.raises(ConfigError, match=r"made on another reference than other\.fa: its digest is .*--against"):
        train(from_mapping(TrainConfig, mapping), resume=True)
