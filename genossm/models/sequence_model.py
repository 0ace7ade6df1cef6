"""`SequenceModel`: a stack, its head, its tokenizer, and what it was trained to predict."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genossm.core.errors import ConfigError, MethodError, UsageError
from genossm.core.provenance import Provenance
from genossm.core.strict import to_mapping
from genossm.models.memory import require_memory
from genossm.nn import LanguageModelHead, Stack, StackConfig, StackState
from genossm.sequence import NucleotideTokenizer


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """What a model returns.

    logits: position t of a causal model speaks of the token after t, of a masked model of the token at t.
    hidden_states: on request, n_layer + 1 tensors: what enters each block, then what the head reads.
    state: on request, the state after the last token.
    """

    logits: Float[Tensor, "batch length vocab"]
    hidden_states: tuple[Float[Tensor, "batch length d_model"], ...] | None = None
    state: StackState | None = None


class SequenceModel(nn.Module):
    """A language model of DNA.

    tokenizer: None is the single-nucleotide tokenizer, with [BOS] before every window if the model is causal.
    Raises: ConfigError if the tokenizer has more tokens than the embedding has rows.

    >>> model = SequenceModel(StackConfig(d_model=16, n_layer=2))
    >>> model(model.encode("ACGT")).logits.shape
    torch.Size([1, 4, 16])
    """

    def __init__(self, config: StackConfig, tokenizer: NucleotideTokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        # A masked model's windows have nothing in front of them.
        specials = "bos" if config.objective == "causal" else "sep"
        self.tokenizer = tokenizer or NucleotideTokenizer(special_tokens=specials)
        if self.tokenizer.vocab_size > config.vocab_size:
            raise ConfigError(
                f"vocab_size is {config.vocab_size} and the tokenizer has {self.tokenizer.vocab_size} tokens; "
                f"wanted at least as many rows. {self.tokenizer.padded_vocab_size} is the usual size."
            )
        complement = _complement_of(self.tokenizer, config.vocab_size) if config.equivariant else None
        self.backbone = Stack(config, complement)
        self.head = LanguageModelHead(self.backbone.embedding, tied=config.tie_embeddings, complement=complement)

    @property
    def objective(self) -> str:
        """What the logits predict: "causal" is the next token, "masked" the token at their own place."""
        return self.config.objective

    @property
    def begins_with_bos(self) -> bool:
        """Whether the model expects [BOS] before the first base of a window; it follows from the tokenizer."""
        return self.tokenizer.special_tokens == "bos"

    @property
    def device(self) -> torch.device:
        return self.backbone.embedding.weight.device

    def forward(
        self,
        input_ids: Int[Tensor, "batch length"],
        *,
        state: StackState | None = None,
        return_state: bool = False,
        return_hidden_states: bool = False,
    ) -> ModelOutput:
        """Read tokens (uint8, int32 or int64) and predict, from `state` on if one is given.

        Raises: UsageError for letters; ShapeError for ids that are not (batch, length) or a state of other rows or
        layers; MethodError for a state given to or asked of a model that reads both ways; MemoryEstimateError before
        anything runs, if batch x length cannot fit in memory.
        """
        if not isinstance(input_ids, Tensor):
            raise UsageError(
                f"A model reads a tensor of token ids (batch, length); got {type(input_ids).__name__}. "
                "Encode letters first: model(model.encode(sequence))."
            )
        if input_ids.dim() == 2:
            batch, length = input_ids.shape
            require_memory(self.config, batch, length, self.head.weight, hidden_states=return_hidden_states)
        output = self.backbone.run(input_ids, state, return_hidden_states=return_hidden_states)
        if return_state and output.state is None:
            why = "a bidirectional model" if self.config.direction != "causal" else "a part of a sequence"
            raise MethodError(f"There is no state to return from {why}. Leave return_state out.")
        return ModelOutput(self.head(output.last_hidden), output.hidden_states, output.state if return_state else None)

    def encode(self, sequence: str | bytes, *, add_bos: bool = False) -> Int[Tensor, "1 length"]:
        """Token ids of one sequence on the model's device, with [BOS] in front on request; one a letter.

        A, C, G, T and N have a token each, lower case (soft-masked) the same ones unless the tokenizer says
        `uppercase=False`, when it becomes [UNK]. IUPAC codes such as R, U, gaps and any other letter become [UNK], or
        raise under the tokenizer's `on_unknown="raise"`. Spaces and line ends are letters too.
        Raises: UsageError for a list of sequences; AlphabetError for a letter that the tokenizer refuses.
        """
        if isinstance(sequence, list | tuple):
            raise UsageError(
                f"encode takes one sequence; got a {type(sequence).__name__} of {len(sequence)}. Encode each, and join "
                "those of one length with torch.cat."
            )
        ids = torch.from_numpy(self.tokenizer.encode(sequence)).to(self.device, torch.int64)
        return self.prepend_bos(ids[None]) if add_bos else ids[None]

    def prepend_bos(self, input_ids: Int[Tensor, "batch length"]) -> Int[Tensor, "batch longer"]:
        """`input_ids` with one [BOS] in front of every row."""
        return torch.cat([input_ids.new_full((len(input_ids), 1), self.tokenizer.bos_id), input_ids], dim=1)

    def num_parameters(self) -> int:
        """Number of weights; shared ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """Name to weight as files hold them: sorted, shared ones once."""
        return {name: parameter.detach() for name, parameter in sorted(self.named_parameters())}

    def digest(self) -> str:
        """SHA-256, as hex, over configuration, tokenizer and weights; the choice of backend does not count.

        Of the configuration only what differs from the defaults counts, so that a choice that a later version adds
        does not change the digest of models that never made it.
        """
        described = {"stack": _chosen(self.config), "tokenizer": self.tokenizer.to_dict()}
        result = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for name, tensor in self.tensors().items():
            result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            result.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return result.hexdigest()

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        provenance: Provenance | None = None,
        figures: Mapping[str, str | float] | None = None,
        card: str | None = None,
        force: bool = False,
    ) -> Path:
        """Write a model directory, whole or not at all, and return its path.

        provenance: where the weights came from; the model's digest is filled in.
        figures: name to number or text, for the model card.   card: its whole text, instead of the usual one.
        Raises: OutputExistsError if `directory` exists, without `force`.
        """
        from genossm.models.directory import write_directory

        return write_directory(
            self, Path(directory), provenance=provenance, figures=figures or {}, card=card, force=force
        )


def _chosen(config: StackConfig) -> dict[str, Any]:
    """The fields that differ from their defaults, without `backend`."""
    defaults = {field.name: field.default for field in fields(config)}
    return {name: value for name, value in to_mapping(config).items() if name != "backend" and value != defaults[name]}


def _complement_of(tokenizer: NucleotideTokenizer, vocab_size: int) -> Int[Tensor, " vocab"]:
    """Complement of every row; rows beyond the tokenizer's are their own."""
    complement = torch.arange(vocab_size)
    known = torch.from_numpy(tokenizer.complement_ids.astype("int64"))[:vocab_size]
    complement[: len(known)] = known
    return complement
