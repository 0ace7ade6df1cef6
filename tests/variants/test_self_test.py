"""A device that computes other numbers is found out, however little it is off; one that does not is let through."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.core.errors import SelfTestError
from genossm.models import SequenceModel, load
from genossm.models.directory import cast_weights
from genossm.variants.opening import load_model
from genossm.variants.self_test import TOLERANCE, Check, letters, reference_of, require_device, self_test

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
        assert "computes other numbers than the definition" in said
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
