"""`add_norm` against its formula in float64: the kernels' own source on an emulated GPU, and PyTorch's operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from genossm_kernels.testing import excess, norm_inputs, norm_results

FLOAT, BFLOAT, HALF = torch.float32, torch.bfloat16, torch.float16


@dataclass(frozen=True)
class Norm:
    """One call; `dtypes` are those of x (None: nothing is added), the stream and the output."""

    dtypes: tuple[torch.dtype | None, torch.dtype, torch.dtype] = (BFLOAT, FLOAT, BFLOAT)
    kind: str = "rms"
    rows: tuple[int, ...] = (2, 33)
    channels: int = 24
    bias: bool = False
    used: tuple[str, ...] = ("y", "stream")
    eps: float = 1e-5

    def inputs(self) -> dict[str, torch.Tensor]:
        inputs = norm_inputs(rows=self.rows, channels=self.channels, x=self.dtypes[0] is not None, bias=self.bias)
        dtypes = dict(zip(("x", "residual"), self.dtypes))
        return {name: tensor.to(dtypes.get(name, FLOAT)) for name, tensor in inputs.items()}

    def run(self, inputs: dict[str, torch.Tensor], backend: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"kind": self.kind, "eps": self.eps, "used": self.used}
        return norm_results(inputs, dtype=dtype, backend=backend, **options)

    def check(self, found: dict[str, torch.Tensor]) -> None:
        """The stream is right to the bit, and the rest as accurate as its formula in float32, given that stream."""
        inputs = self.inputs()
        added = inputs.pop("x", None)
        inputs["residual"] = stream = (inputs["residual"].double() + (0 if added is None else added.double())).to(
            self.dtypes[1]
        )
        assert torch.equal(found["stream"], stream)
        exact, plain = (
            self.run({name: tensor.to(dtype) for name, tensor in inputs.items()}, "reference", dtype)
            for dtype in (torch.float64, FLOAT)
        )
        names = {name: name for name in exact} | ({} if added is None else {"grad x": "grad residual"})
        assert found.keys() == names.keys()
        for name, other in names.items():
            right, usual = {name: exact[other]}, {name: plain[other]}
            assert not excess(found, usual, right, rounding=torch.finfo(found[name].dtype).eps)


NORMS = {
    "mixed": Norm(),
    "y_alone": Norm(used=("y",)),
    "stream_alone": Norm(used=("stream",)),
    "one_row": Norm(rows=(1,), eps=0.5),
    "layer": Norm(kind="layer", bias=True),
    "nothing_added": Norm((None, FLOAT, BFLOAT), channels=256, rows=(40,)),
    "narrow": Norm((BFLOAT, BFLOAT, BFLOAT), kind="layer", channels=36),
    "narrow_stream_wide_x": Norm((FLOAT, HALF, FLOAT), channels=300, rows=(7,)),
    "one_channel": Norm(channels=1, rows=(300,)),
    "odd_over_several_warps": Norm((HALF, FLOAT, HALF), kind="layer", bias=True, channels=1001, rows=(11,)),
    "float": Norm((FLOAT, FLOAT, FLOAT), bias=True, channels=1024, rows=(3, 2, 2)),
}


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("name", NORMS)
def test_kernels_are_as_accurate_as_plain_float(name: str) -> None:
    norm = NORMS[name]
    norm.check(norm.run(norm.inputs(), "cuda", norm.dtypes[2]))


@pytest.mark.parametrize("name", ["mixed", "layer", "nothing_added", "float"])
def test_of_pytorch_s_operators(name: str) -> None:
    norm = NORMS[name]
    norm.check(norm.run(norm.inputs(), "auto", norm.dtypes[2]))
