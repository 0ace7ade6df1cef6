"""Masks: what is hidden, how often, and that nothing but seed and sample number decides it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import genossm.genome
from genossm.core.errors import ConfigError
from genossm.data.batch import IGNORE, Batch
from genossm.data.datamodule import GenomeDataModule
from genossm.data.dataset import WindowItem
from genossm.data.masking import MaskedCollator, Masking, as_judged
from genossm.data.windows import RandomWindows, TiledWindows
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval

TOKENIZER = NucleotideTokenizer()
BASES = np.array(TOKENIZER.base_ids)
shares = st.floats(0.0, 1.0)


def item(letters: str, sample: int = 0) -> WindowItem:
    ids = np.concatenate([[TOKENIZER.bos_id], TOKENIZER.encode(letters)]).astype(np.uint8)
    return WindowItem(ids, Interval("x", 0, len(letters)), sample)


@st.composite
def maskings(draw: st.DrawFn) -> Masking:
    mask = draw(shares)
    return Masking(draw(st.floats(0.01, 1.0)), mask, draw(st.floats(0.0, 1.0)) * (1.0 - mask))


@settings(deadline=None, max_examples=60)
@given(
    letters=st.text(alphabet="ACGTNacgtR", min_size=1, max_size=80), masking=maskings(), seed=st.integers(0, 2**32 - 1)
)
def test_what_is_no_target_is_shown_as_it_is_and_targets_are_the_true_bases(
    letters: str, masking: Masking, seed: int
) -> None:
    batch = MaskedCollator(TOKENIZER, masking, seed)([item(letters, 7)])
    true, shown, targets = TOKENIZER.encode(letters), batch.input_ids[0].numpy(), batch.targets[0].numpy()
    assert len(shown) == len(letters)
    chosen = targets != IGNORE
    np.testing.assert_array_equal(shown[~chosen], true[~chosen])
    # A target is a base, itself in the targets, and hidden behind [MASK] or a base.
    np.testing.assert_array_equal(BASES[targets[chosen]], true[chosen])
    assert np.isin(shown[chosen], [TOKENIZER.mask_id, *BASES]).all()


def test_shares_are_those_asked_for() -> None:
    masking = Masking(0.15, mask=0.8, substitute=0.1)
    letters = "".join(np.random.default_rng(0).choice(list("ACGTN"), 2000))
    items = [item(letters, sample) for sample in range(100)]
    batch = MaskedCollator(TOKENIZER, masking, 3)(items)
    true = np.stack([entry.ids[1:] for entry in items])
    shown, chosen = batch.input_ids.numpy(), batch.targets.numpy() != IGNORE
    bases = np.isin(true, BASES)
    targets = int(chosen.sum())
    masked = shown == TOKENIZER.mask_id
    changed = chosen & ~masked & (shown != true)
    # One draw of four gives the base itself.
    counts = {
        "targets": (targets, int(bases.sum()), 0.15),
        "masked": (int(masked.sum()), targets, 0.8),
        "changed": (int(changed.sum()), targets, 0.1 * 3 / 4),
        "kept": (int((chosen & (shown == true)).sum()), targets, 0.1 + 0.1 / 4),
    }
    for letter in BASES:
        counts[f"target {letter}"] = (int((chosen & (true == letter)).sum()), int((true == letter).sum()), 0.15)
        counts[f"becomes {letter}"] = (int((changed & (shown == letter)).sum()), int(changed.sum()), 1 / 4)
    for what, (found, trials, p) in counts.items():
        low, high = binom.ppf([1e-7, 1 - 1e-7], trials, p)
        assert low <= found <= high, what


def test_places_are_chosen_independently_of_each_other() -> None:
    batch = MaskedCollator(TOKENIZER, Masking(0.5), 0)([item("A" * 4000, sample) for sample in range(25)])
    chosen = batch.targets.numpy() != IGNORE
    together = [chosen[:, :-distance] & chosen[:, distance:] for distance in (1, 2, 3)] + [chosen[:-1] & chosen[1:]]
    for both in together:
        # A pair of fair coins has variance 3/16, and a covariance of 1/16 with each of the two pairs that share a coin.
        bound = 5.5 * np.sqrt(both.size * 5 / 16)
        assert abs(int(both.sum()) - both.size / 4) < bound


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_a_mask_is_a_function_of_seed_and_sample_alone(seed: int, samples: list[int]) -> None:
    letters = "ACGTN" * 20
    collate = MaskedCollator(TOKENIZER, Masking(), seed)
    together = collate([item(letters, sample) for sample in samples])
    for row, sample in enumerate(samples):
        alone = MaskedCollator(TOKENIZER, Masking(), seed)([item(letters, sample)])
        assert torch.equal(together.input_ids[row], alone.input_ids[0])
        assert torch.equal(together.targets[row], alone.targets[0])


def test_seed_and_sample_both_change_the_mask() -> None:
    letters = "ACGT" * 200
    masks = [
        tuple(MaskedCollator(TOKENIZER, Masking(), seed)([item(letters, sample)]).targets[0].tolist())
        for seed, sample in itertools.product(range(3), range(3))
    ]
    assert len(set(masks)) == 9


@pytest.mark.parametrize("fraction", [0.01, 1.0])
def test_what_judges_hides_every_target(fraction: float) -> None:
    masking = as_judged(Masking(fraction, mask=0.2, substitute=0.5))
    batch = MaskedCollator(TOKENIZER, masking, 0)([item("ACGT" * 500)])
    chosen = batch.targets != IGNORE
    assert chosen.any()
    assert torch.equal(chosen, batch.input_ids == TOKENIZER.mask_id)
    assert bool(chosen.all()) is (fraction == 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fraction": 0.0}, "fraction is 0.0; wanted a share of the bases above 0"),
        ({"fraction": 1.1}, "fraction is 1.1"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"mask": -0.1}, "mask is -0.1"),
        ({"substitute": -0.1}, "substitute -0.1"),
        ({"mask": 0.8, "substitute": 0.3}, "together at most 1"),
        ({"mask": float("nan")}, "mask is nan"),
    ],
)
def test_shares_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Masking(**values)


def test_shares_that_add_up_to_one_are_accepted() -> None:
    assert Masking(1.0, mask=0.7, substitute=0.3).substitute == 0.3


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    letters = np.random.default_rng(0).choice(list("ACGTN"), 600, p=[0.24, 0.24, 0.24, 0.24, 0.04])
    path = tmp_path / "toy.fa"
    path.write_text(">x\n" + "".join(letters) + "\n")
    return genossm.genome.open(path)


def modules(genome: Genome, *, workers: int = 0, seed: int = 3) -> GenomeDataModule:
    train = RandomWindows(genome, [Interval("x", 0, 400)], 32, seed=3, reverse_complement=True, max_n_fraction=1.0)
    validation = TiledWindows(genome, [Interval("x", 400, 600)], 32, max_n_fraction=1.0)
    return GenomeDataModule(
        genome, TOKENIZER, train, validation, batch=4, validation_batch=4, workers=workers, masking=Masking(), seed=seed
    )


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.intervals == other.intervals
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.targets, other.targets)


def test_batches_are_the_same_at_any_worker_count(genome: Genome) -> None:
    alone, helped = (list(itertools.islice(modules(genome, workers=n).train_dataloader(), 5)) for n in (0, 2))
    assert_same(alone, helped)
    # A window that comes again in a later epoch is masked anew.
    data = modules(genome)
    assert not torch.equal(data.collate([data.train_data[0]]).targets, data.collate([data.train_data[12]]).targets)


def test_validation_hides_the_same_bases_every_time_whatever_the_seed(genome: Genome) -> None:
    data = modules(genome)
    first = list(data.val_dataloader())
    assert_same(first, list(data.val_dataloader()))
    assert_same(first, list(modules(genome, seed=99).val_dataloader()))
    for batch in first:
        assert torch.equal(batch.targets != IGNORE, batch.input_ids == TOKENIZER.mask_id)


def test_windows_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        MaskedCollator(TOKENIZER, Masking(), 0)([item("ACGT"), item("ACG")])
