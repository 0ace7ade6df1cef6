"""`add_norm` on a GPU: accuracy at every size and dtype, the same bits twice, long tensors, graphs, opcheck."""

from __future__ import annotations

import pytest
import torch

from genossm.nn import Stack, StackConfig
from genossm_kernels import add_norm
from genossm_kernels.testing import excess, norm_inputs, norm_results

FLOAT, BFLOAT, HALF = torch.float32, torch.bfloat16, torch.float16
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # What PyTorch says of its own streams and contexts is not ours.
    pytest.mark.filterwarnings("default"),
]

DTYPES = {
    "mixed": (BFLOAT, FLOAT, BFLOAT),
    "nothing_added": (None, FLOAT, BFLOAT),
    "float": (FLOAT, FLOAT, FLOAT),
    "narrow": (BFLOAT, BFLOAT, BFLOAT),
    "half": (HALF, HALF, FLOAT),
}
# Every size in the dtypes of a training step, and all dtypes at an even and an odd size.
CASES = [("mixed", channels, "layer") for channels in (1, 64, 256, 259, 512, 1000, 8192, 16384)]
CASES += [("mixed", channels, "rms") for channels in (256, 1000)]
CASES += [(name, channels, "layer") for name in DTYPES if name != "mixed" for channels in (256, 259)]


@pytest.mark.parametrize(("name", "channels", "kind"), CASES)
def test_as_accurate_as_plain_float_and_the_same_bits_twice(name: str, channels: int, kind: str) -> None:
    """Given the stream, which is right to the bit."""
    x_dtype, stream_dtype, dtype = DTYPES[name]
    rows = 3, min(1501, 2**21 // channels)  # several for each block
    inputs = norm_inputs(rows=rows, channels=channels, x=x_dtype is not None, bias=kind == "layer")
    of_dtypes = {"x": x_dtype, "residual": stream_dtype}
    given = {name: tensor.to("cuda", of_dtypes.get(name, FLOAT)) for name, tensor in inputs.items()}
    found = norm_results(given, dtype=dtype, kind=kind, backend="cuda")
    again = norm_results(given, dtype=dtype, kind=kind, backend="cuda")
    assert [key for key in found if not torch.equal(found[key], again[key])] == []

    added = inputs.pop("x", torch.zeros(()))
    inputs["residual"] = (inputs["residual"] + added).to(stream_dtype).double()
    assert torch.equal(found["stream"].cpu(), inputs["residual"].to(stream_dtype))
    exact, plain = (
        norm_results(
            {key: tensor.to("cuda", wide) for key, tensor in inputs.items()}, dtype=wide, kind=kind, backend="reference"
        )
        for wide in (torch.float64, FLOAT)
    )
    complaints = []
    for key, tensor in found.items():
        other = "grad residual" if key == "grad x" else key
        rounding = torch.finfo(tensor.dtype).eps
        complaints.append(excess(found, {key: plain[other]}, {key: exact[other]}, rounding=rounding))
    assert [complaint for complaint in complaints if complaint] == []


@pytest.mark.parametrize("used", [("y",), ("stream",)])
def test_an_output_that_nobody_uses_has_no_gradient(used: tuple[str, ...]) -> None:
    inputs = {name: tensor.float().cuda() for name, tensor in norm_inputs(channels=256).items()}
    found = norm_results(inputs, dtype=FLOAT, backend="cuda", used=used)
    expected = norm_results(inputs, dtype=FLOAT, backend="torch", used=used)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def test_rows_that_begin_anywhere_are_read_in_place() -> None:
    """Slices on 16 bytes and beside them: the bits of a copy."""
    whole = torch.randn(500, 300, device="cuda")
    weight = torch.randn(256, device="cuda")
    for start in (0, 1, 4, 44):
        rows = whole[:, start : start + 256]
        for one, other in zip(add_norm(rows, rows, weight), add_norm(rows.clone(), rows.clone(), weight)):
            assert torch.equal(one, other)


def test_more_elements_than_32_bits_count() -> None:
    """2^31 + 2^20 elements: the last rows are those of a small call, forward and backward."""
    channels, few = 256, 2048
    rows = 2**31 // channels + 4096
    weight = torch.randn(channels, device="cuda", requires_grad=True)
    stream = torch.randn(rows, channels, device="cuda", dtype=BFLOAT).requires_grad_()
    last = stream.detach()[-few:].clone().requires_grad_()
    gradients = torch.zeros(rows, channels, device="cuda", dtype=BFLOAT)
    gradients[-few:] = torch.randn(few, channels, device="cuda")
    y, _ = add_norm(None, stream, weight, dtype=BFLOAT, backend="cuda")
    found = torch.autograd.grad(y, (stream, weight), gradients)
    expected_y, _ = add_norm(None, last, weight, dtype=BFLOAT, backend="cuda")
    expected = torch.autograd.grad(expected_y, (last, weight), gradients[-few:])
    assert torch.equal(y[-few:], expected_y)
    assert torch.equal(found[0][-few:], expected[0])
    assert not found[0][:-few].any()
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("recompute", ["nothing", "projections"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_a_stack_has_the_gradients_of_plain_norms(norm: str, recompute: str) -> None:
    results = []
    for backend in ("auto", "torch"):
        torch.manual_seed(0)
        stack = Stack(
            StackConfig(d_model=64, n_layer=3, direction="bidirectional", objective="masked", norm=norm)
        ).cuda()
        stack.recompute(recompute)  # pyright: ignore[reportArgumentType]
        for module in stack.modules():
            if type(module).__name__ in ("RMSNorm", "LayerNorm"):
                module.backend = backend  # pyright: ignore[reportAttributeAccessIssue]
        ids = torch.randint(0, 16, (2, 333), generator=torch.Generator().manual_seed(1)).cuda()
        hidden = stack(ids)
        parameters = list(stack.parameters())
        results.append((hidden, *torch.autograd.grad(hidden.square().sum(), parameters)))
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_captured_and_replayed() -> None:
    inputs = {name: tensor.float().cuda() for name, tensor in norm_inputs(channels=256).items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}

    def step() -> tuple[torch.Tensor, ...]:
        y, stream = add_norm(**leaves, dtype=BFLOAT, backend="cuda")
        return (y, *torch.autograd.grad(y.float().square().sum() + stream.sum(), list(leaves.values())))

    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        inputs["x"].mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    for found, expected in zip(captured, step(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("x_dtype", [None, BFLOAT, FLOAT])
def test_opcheck(x_dtype: torch.dtype | None, gradients: bool) -> None:
    given = {name: tensor.float().cuda() for name, tensor in norm_inputs(bias=True, x=x_dtype is not None).items()}
    if x_dtype is not None:
        given["x"] = given["x"].to(x_dtype)
    tensors = [given.get(name) for name in ("x", "residual", "weight", "bias")]
    for tensor in tensors:
        if tensor is not None:
            tensor.requires_grad_(gradients)
    torch.library.opcheck(torch.ops.genossm.add_norm, (*tensors, True, 1e-5, BFLOAT, "cuda"))
