"""A sequence over three processes against one process that reads it whole: outputs, loss and every gradient."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from genossm.models import SequenceModel, StackConfig, load
from genossm.nn.watching import watching_states
from genossm.parallel import ContextGroup, context_parallel, shortest_part

RANKS = 3
BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
# Steps so small that a state is felt across whole parts, and so large that it is gone soon.
SLOW, FAST = {"dt_min": 1e-4, "dt_max": 1e-3}, {"dt_min": 0.5, "dt_max": 2.0}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "causal, slow": ({**SLOW}, 301),
    "causal, fast, parts longer than its reach": ({**FAST, "d_conv": 7}, 15_001),
    "causal, plain PyTorch": ({"backend": "torch"}, 100),
    "no convolution to speak of": ({"d_conv": 1, "norm": "layer"}, 50),
    "both ways": ({**BOTH, **SLOW}, 302),
    "both ways, untied, fast": ({**BOTH, **FAST, "tie_directions": False, "proj_bias": True}, 15_002),
    "both strands": ({**BOTH, "reverse_complement": "equivariant"}, 303),
    "both strands, recomputed": ({**BOTH, **SLOW, "reverse_complement": "equivariant", "backend": "cpu"}, 303),
}


def build(choices: dict[str, Any]) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(StackConfig(d_model=12, n_layer=2, d_state=4, **choices)).double()


def sequence(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 12, (2, length), generator=generator)
    return ids, torch.randn(2, length, 16, generator=generator, dtype=torch.float64)


def run(name: str, group: ContextGroup | None) -> dict[str, torch.Tensor]:
    """Logits, the states that a causal model ends with, and the gradients of a sum over all positions."""
    choices, length = CASES[name]
    model = build(choices)
    for block in model.backbone.layers:
        block.recompute = "projections" if "recomputed" in name else "auto"  # type: ignore[assignment]
    ids, weight = sequence(length)
    with watching_states() as states:
        if group is None:
            logits = model(ids).logits
        else:
            with context_parallel(model, group.group):
                ids, weight = (group.take(tensor, shortest=shortest_part(model)) for tensor in (ids, weight))
                logits = model(ids).logits
                with torch.no_grad():
                    assert torch.equal(model(ids).logits, logits)
    (logits * weight).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if group is not None:
        for gradient in found.values():
            dist.all_reduce(gradient)
    found["logits"] = logits.detach() if group is None else group.join(logits, length)
    if model.objective == "causal":
        ends = torch.stack([of_mixer[0] for of_mixer in states.values()])
        # The whole sequence ends where the last part does.
        found["states"] = ends if group is None else group.gather(ends)[-1]
    return found


def documented_example() -> str:
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    return text.split("```python\n")[1].split("```")[0]


def work(rank: int, directory: str, port: int) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= address | {"RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.chdir(directory)
    names: dict[str, Any] = {}
    # It starts the group, which the rest goes on with.
    exec(documented_example(), names)
    group = ContextGroup()
    found = {name: run(name, group) for name in CASES}
    torch.save({**found, "documented": names["whole"]}, f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all ranks have worked."""
    directory: Path = tmp_path_factory.mktemp("ranks")
    (directory / "run").mkdir()
    torch.manual_seed(0)
    SequenceModel(StackConfig(d_model=12, n_layer=2, d_state=4)).save_pretrained(directory / "run" / "model")
    (directory / "sequence.txt").write_text("".join("ACGT"[place * place % 7 % 4] for place in range(500)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    mp.spawn(work, args=(str(directory), port), nprocs=RANKS)
    return directory


@pytest.fixture(scope="module")
def results(directory: Path) -> list[dict[str, Any]]:
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def test_the_documented_example(directory: Path, results: list[dict[str, Any]]) -> None:
    model = load(directory / "run" / "model")
    ids = model.encode((directory / "sequence.txt").read_text(), add_bos=True)
    for found in results:
        torch.testing.assert_close(found["documented"], model(ids).logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_parts_together_are_the_whole(name: str, results: list[dict[str, Any]]) -> None:
    expected = run(name, None)
    for rank in range(RANKS):
        found = results[rank][name]
        assert found.keys() == expected.keys()
        for what, tensor in expected.items():
            torch.testing.assert_close(found[what], tensor, rtol=1e-10, atol=1e-11, msg=what)
