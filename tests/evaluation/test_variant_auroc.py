"""Areas under ROC curves against scikit-learn, and what resampling whole blocks must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from genossm.evaluation.variant_auroc import auroc, block_weights, roc_curve, weighted_auroc

# Few distinct scores, so that ties are the rule.
SAMPLES = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40)


def arrays(sample: list[tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, positive, weights = (np.array(column) for column in zip(*sample))
    return scores.astype(float), positive.astype(bool), weights.astype(float)


@given(SAMPLES.filter(lambda sample: len({positive for _, positive, _ in sample}) == 2))
def test_area_equals_scikit_learn(sample: list[tuple[int, bool, int]]) -> None:
    scores, positive, _ = arrays(sample)
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


@given(SAMPLES)
def test_weights_are_repetitions(sample: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = arrays(sample)
    times = weights.astype(int)
    [weighted] = weighted_auroc(scores, positive, weights[None])
    repeated = auroc(np.repeat(scores, times), np.repeat(positive, times))
    assert weighted == pytest.approx(repeated, nan_ok=True)


@given(SAMPLES.filter(lambda sample: len({positive for _, positive, _ in sample}) == 2))
def test_curve_rises_from_corner_to_corner_and_encloses_the_area(sample: list[tuple[int, bool, int]]) -> None:
    scores, positive, _ = arrays(sample)
    curve = roc_curve(scores, positive, points=20_001)
    assert curve.true_positive[-1] == 1.0
    assert (np.diff(curve.true_positive) >= -1e-12).all()
    area = np.trapezoid(curve.true_positive, curve.false_positive)
    assert area == pytest.approx(auroc(scores, positive), abs=1e-3)


def test_known_areas() -> None:
    positive = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 2.0, 1.0, 0.0]), positive) == 1.0
    assert auroc(np.array([0.0, 1.0, 2.0, 3.0]), positive) == 0.0
    assert auroc(np.zeros(4), positive) == 0.5
    assert np.isnan(auroc(np.arange(3.0), np.ones(3, bool)))


def test_blocks_are_drawn_whole() -> None:
    positions = np.array([5, 9_999, 10_000, 10_001, 55_000, 70_000, 80_000])
    weights = block_weights(positions, 10_000, replicates=300, seed=1)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    # Five blocks hold an allele; each draw has as many.
    assert (weights[:, [0, 2, 4, 5, 6]].sum(axis=1) == 5).all()
    assert weights[:, 0].mean() == pytest.approx(1.0, abs=0.2)
    assert (weights == block_weights(positions, 10_000, replicates=300, seed=1)).all()


def test_interval_of_blocks_is_wider_than_of_single_alleles_where_neighbours_are_alike() -> None:
    rng = np.random.default_rng(0)
    # 40 blocks of 25 alleles; what an allele scores, and whether it is common, both hang on its block.
    block_mood = np.repeat(rng.normal(size=40), 25)
    positive = rng.random(1000) < 1 / (1 + np.exp(-block_mood))
    scores = block_mood + 0.1 * rng.normal(size=1000)
    positions = np.arange(1000) * 400
    spread = {
        size: weighted_auroc(scores, positive, block_weights(positions, size, replicates=400, seed=0)).std()
        for size in (10_000, 400)
    }
    assert spread[10_000] > 1.5 * spread[400]
