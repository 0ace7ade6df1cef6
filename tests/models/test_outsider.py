"""transformers itself, where it is installed, on configurations that the fixtures do not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genossm

pytest.importorskip("transformers")

# In a process of its own, since transformers warns about things that are none of ours while it is imported.
WRITE = """
import sys, json, torch
from transformers import MambaConfig, MambaForCausalLM
from safetensors.torch import save_file
for target, choices in json.loads(sys.argv[1]).items():
    torch.manual_seed(5)
    model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=24, num_hidden_layers=2, **choices)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        ids = torch.randint(0, 16, (2, 31))
        logits = model(ids).logits
    model.save_pretrained(target)
    save_file({"ids": ids, "logits": logits}, target + ".io")
"""

CHOICES = [
    {"use_bias": True, "use_conv_bias": False, "state_size": 5, "tie_word_embeddings": False},
    {"expand": 3, "conv_kernel": 2, "time_step_rank": 4, "layer_norm_epsilon": 0.01, "residual_in_fp32": False},
]


def test_same_logits_as_transformers(tmp_path: Path) -> None:
    sources = {str(tmp_path / str(number)): choices for number, choices in enumerate(CHOICES)}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRITE, json.dumps(sources)],
        check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "0"},
    )  # fmt: skip
    for source in sources:
        expected = load_file(f"{source}.io")
        with torch.no_grad():
            found = genossm.load(source)(expected["ids"]).logits
        assert expected["logits"].std() > 0.5
        torch.testing.assert_close(found, expected["logits"], atol=1e-4, rtol=0)
