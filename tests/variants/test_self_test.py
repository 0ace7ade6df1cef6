"""A device that computes other numbers is found out, however little it is off; one that does not is let through."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.core.errors import InputFileError, OutputExistsError, SelfTestError
from genossm.models import SequenceModel, load
from genossm.models.directory import cast_weights
from genossm.models.shipped import FOLDER, shipped_names
from genossm.variants.expected import (
    LONG,
    SHORT,
    Defined,
    Kept,
    expected_of,
    letters,
    reference_of,
    scored_variants,
    write_expected,
)
from genossm.variants.opening import load_model
from genossm.variants.self_test import TOLERANCE, Check, require_device, self_test

SCAN = importlib.import_module("genossm_kernels.selective_scan.cpu")
CONVOLUTION = importlib.import_module("genossm_kernels.causal_conv1d.cpu")


def test_this_device_computes_what_the_definition_says(
    model: SequenceModel, model_without_bos: SequenceModel, caduceus: SequenceModel
) -> None:
    for one in (model, model_without_bos, caduceus):
        require_device(one)


def test_at_length(model: SequenceModel) -> None:
    checks = self_test(model)
    assert [check.what.split()[0] for check in checks] == ["ln", "ln", "GENOSSM_LLR", *["GENOSSM_EMB_L2"], *(
        f"GENOSSM_EMB_{name}" for name in ("COS", "WINDOW_L2", "WINDOW_COS")
    )]  # fmt: skip
    # Far from what is allowed: float32 leaves room.
    assert all(check.error < check.allowed / 10 for check in checks)


def broken(module: Any, how: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's forward pass, with something done to what it returns."""
    real = module.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        first, *others = real(*arguments, **named)
        return (how(first), *others)

    monkeypatch.setattr(module, "forward", forward)


def one_entry(y: torch.Tensor) -> torch.Tensor:
    y = y.clone()
    y[:, y.shape[1] // 2, 0] += 0.5
    return y


@pytest.mark.parametrize("module", [SCAN, CONVOLUTION])
@pytest.mark.parametrize(
    "how", [lambda y: y * 1.01, lambda y: y.bfloat16().to(y.dtype), one_entry, lambda y: y * float("nan")]
)
@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_a_broken_kernel_is_found_out(
    module: Any, how: Callable[[torch.Tensor], torch.Tensor], kind: str, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = request.getfixturevalue(kind)
    broken(module, how, monkeypatch)
    with pytest.raises(SelfTestError, match=r"cpu computes other numbers .* Nothing was scored"):
        require_device(model)


def test_a_state_that_is_lost_between_pieces_is_found_out(
    model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SCAN.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        y, final, *others = real(*arguments, **named)
        return (y, torch.zeros_like(final), *others)

    monkeypatch.setattr(SCAN, "forward", forward)
    with pytest.raises(SelfTestError):
        require_device(model)


def test_the_command_refuses_to_score(
    run_in_process: Callable[..., tuple[int, str]], human_fasta: Path, human_vcf: Path, model_dir: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert run_in_process("--self-test", "-m", model_dir, "--device", "cpu") == (0, "")
    broken(SCAN, lambda y: y * 1.01, monkeypatch)
    for arguments in (
        ["--self-test", "-m", model_dir],
        ["-f", human_fasta, "-m", model_dir, human_vcf, "-o", "out.vcf"],
    ):
        code, said = run_in_process(*arguments)
        assert code == 1
        assert "computes other numbers than it should" in said
    assert list(tmp_path.iterdir()) == []


def test_the_definition_is_in_double_and_has_the_models_weights(model: SequenceModel) -> None:
    reference = reference_of(model)
    assert {tensor.dtype for tensor in reference.parameters()} == {torch.float64}
    assert reference.config.backend == "reference"
    assert reference.digest() != model.digest()
    for (name, theirs), ours in zip(reference.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(theirs.float(), ours), name


def test_the_window_is_the_same_everywhere() -> None:
    """Written down, since an answer that moves from version to version cannot be compared."""
    assert letters(40) == "CCTTATGATCTAATCGCCAGCCGACGAAACAGTATCGGAC"
    assert letters(1000)[:40] == letters(40)
    assert Check("x", float("inf")).passed is Check("x", 2 * TOLERANCE).passed is False


def test_weights_stored_in_bfloat16_are_scored_in_float32(model: SequenceModel, tmp_path: Path) -> None:
    """Run as stored, every letter is off by some thousandths, which is far from what scores may differ by."""
    narrow = SequenceModel(model.config, model.tokenizer)
    narrow.load_state_dict(model.state_dict())
    cast_weights(narrow, torch.bfloat16)
    stored = load(narrow.save_pretrained(tmp_path / "narrow"))
    assert stored.backbone.embedding.weight.dtype == torch.bfloat16
    with pytest.raises(SelfTestError):
        require_device(stored)
    opened = load_model(str(tmp_path / "narrow"), "cpu")
    assert {weight.dtype for weight in opened.parameters()} == {torch.float32}
    require_device(opened)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_models_bring_what_they_should_say(name: str) -> None:
    opened = load_model(name, "cpu")
    kept = expected_of(opened, FOLDER / name)
    assert isinstance(kept, Kept)
    require_device(opened, FOLDER / name)
    assert (kept.ln_p(LONG) < 0).all()
    assert len(kept.scores()) == len(scored_variants(opened.objective))


@pytest.mark.parametrize("kind", ["model", "masked_model"])
def test_kept_values_are_the_definitions(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(kind)
    write_expected(tmp_path, model)
    kept, defined = expected_of(model, tmp_path), expected_of(model)
    assert (type(kept), type(defined)) == (Kept, Defined)
    for length in (SHORT, LONG):
        torch.testing.assert_close(kept.ln_p(length), defined.ln_p(length), atol=1e-8, rtol=1e-8)
    assert kept.scores() == pytest.approx(defined.scores(), abs=1e-8)
    with pytest.raises(OutputExistsError):
        write_expected(tmp_path, model)


def test_what_fails_the_definition_too_is_found_out_by_kept_values(
    model: SequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that computes wrongly whatever it computes: both sides of the comparison are off by the same."""
    write_expected(tmp_path, model)
    real = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *args, **named: real(*args, **named) * 1.01)
    require_device(model)
    with pytest.raises(SelfTestError):
        require_device(model, tmp_path)


def test_kept_values_of_other_weights_are_passed_over_and_broken_ones_are_named(
    model: SequenceModel, model_without_bos: SequenceModel, tmp_path: Path
) -> None:
    path = write_expected(tmp_path, model)
    assert isinstance(expected_of(model_without_bos, tmp_path), Defined)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputFileError, match=r"self_test\.json cannot be read"):
        require_device(model, tmp_path)
