"""Folds that do not leak, figures that are honest, heads that are scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from genossm.core.errors import InputFileError
from genossm.variants.heads import crossvalidation
from genossm.variants.heads.crossvalidation import Examples, metric_of, nested_cross_validation, split
from genossm.variants.heads.estimators import Kind, fit_linear


@pytest.fixture(scope="module", autouse=True)
def _few_strengths() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossvalidation, "STRENGTHS", (1e-4, 1.0))
        yield


def examples(count: int = 400, stretches: int = 40, *, signal: float = 0.0, width: int = 6, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width))
    groups = np.sort(rng.integers(stretches, size=count))
    labels = (signal * features[:, 0] + rng.normal(size=count) > 0).astype(float)
    positions = groups * 10_000 + rng.integers(10_000, size=count)
    return Examples(features, features[:, 1], labels, groups, groups % 3, positions, 128)


@given(st.integers(6, 60), st.integers(2, 6), st.integers(0, 5000), st.integers(0, 1 << 20))
def test_folds_divide_no_stretch_and_keep_their_distance(stretches: int, folds: int, gap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = examples(150, stretches, seed=seed)
    found = Examples(
        found.features,
        found.ratios,
        np.arange(150.0),
        found.groups,
        found.contigs,
        rng.integers(300_000, size=150),
        gap,
    )
    rows = np.sort(rng.choice(150, 120, replace=False))
    if len(np.unique(found.groups[rows])) < folds:
        return
    tested = []
    try:
        for train, test in split(found, rows, folds, seed):
            tested.extend(test)
            assert not set(found.groups[train]) & set(found.groups[test])
            assert set(train) | set(test) <= set(rows)
            for one in train:
                near = test[found.contigs[test] == found.contigs[one]]
                assert not len(near) or np.abs(found.positions[near] - found.positions[one]).min() >= gap
            if gap == 0:
                assert len(train) + len(test) == len(rows)
    except InputFileError:
        assert gap > 0
        return
    assert sorted(tested) == rows.tolist()


def test_noise_is_noise_and_signal_is_signal() -> None:
    noise, _ = nested_cross_validation("logistic", examples(), outer=4, inner=3, replicates=100)
    assert noise.interval[0] < 0.5 < noise.interval[1]
    strong, head = nested_cross_validation("logistic", examples(signal=5.0), outer=4, inner=3, replicates=100)
    assert strong.interval[0] > 0.9
    assert strong.interval[0] <= strong.value <= strong.interval[1]
    assert strong.alone == pytest.approx(0.5, abs=0.1)
    assert np.abs(head.weights).argmax() == 0
    assert (strong.alleles, strong.stretches, len(strong.folds)) == (400, 40, 4)
    again, _ = nested_cross_validation("logistic", examples(signal=5.0), outer=4, inner=3, replicates=100)
    assert again == strong or (again.value, again.interval, again.folds) == (
        strong.value,
        strong.interval,
        strong.folds,
    )


def test_what_tells_stretches_apart_does_not_count() -> None:
    """Features that name the stretch, and labels that are the stretch's: learnt by heart, worth nothing elsewhere."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 10)
    names = rng.normal(size=(40, 30))[groups]
    labels = rng.permutation(np.arange(40) % 2)[groups].astype(float)
    found = Examples(names, names[:, 0], labels, groups, np.zeros(400, dtype=int), groups * 1000, 0)
    honest, head = nested_cross_validation("logistic", found, outer=4, inner=3, replicates=50)
    assert roc_auc_score(labels, head.predict(names)) > 0.85
    assert honest.value < 0.75


def test_a_number_is_predicted() -> None:
    found = examples(signal=1.0)
    target = 2.0 * found.features[:, 2] + 5.0
    found = Examples(found.features, found.ratios, target, found.groups, found.contigs, found.positions, found.gap)
    judged, head = nested_cross_validation("ridge", found, outer=4, inner=3, replicates=50)
    assert (judged.metric, judged.value > 0.99) == ("Spearman", True)
    np.testing.assert_allclose(head.predict(found.features), target, atol=0.05)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "svm"])
def test_heads_are_those_of_scikit_learn(kind: Kind) -> None:
    found = examples(signal=1.0)
    features = found.features * np.array([1, 100, 1e-3, 1, 1, 0]) + 7.0
    head = fit_linear(kind, features, found.labels, 0.01)
    penalty = 0.01 * len(found)
    if kind == "ridge":
        outsider = make_pipeline(StandardScaler(), Ridge(alpha=penalty)).fit(features, found.labels)
        expected = outsider.predict(features)
    elif kind == "svm":
        svm = LinearSVC(C=1 / penalty, max_iter=5000)
        expected = make_pipeline(StandardScaler(), svm).fit(features, found.labels).decision_function(features)
    else:
        logistic = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-8))
        expected = logistic.fit(features, found.labels).predict_proba(features)[:, 1]
    np.testing.assert_allclose(head.predict(features), expected, atol=1e-5)


def test_too_little_to_divide() -> None:
    with pytest.raises(InputFileError, match="3 stretches, too few for 5 folds"):
        nested_cross_validation("logistic", examples(60, 3))
    found = examples(60, 12)
    same = Examples(found.features, found.ratios, np.ones(60), found.groups, found.contigs, found.positions, 0)
    with pytest.raises(InputFileError, match="one class alone"):
        nested_cross_validation("svm", same)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    values, labels = (np.array(column, dtype=float) for column in zip(*pairs))
    found = metric_of("logistic")(values, labels)
    if len(set(labels)) == 2:
        assert found == pytest.approx(roc_auc_score(labels, values))
    else:
        assert np.isnan(found)
