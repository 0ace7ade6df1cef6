"""Linear heads: fitted by scikit-learn, kept as numbers. Nothing is unpickled, and scoring needs no scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import MissingDependencyError

Kind = Literal["logistic", "ridge", "svm"]
Task = Literal["classification", "regression"]
TASKS: dict[str, Task] = {"logistic": "classification", "svm": "classification", "ridge": "regression"}
OUTPUTS = {
    "logistic": "probability (0 to 1) of the positive class, in a set mixed as the training set",
    "svm": "signed distance from the boundary, without unit; positive: the positive class",
    "ridge": "predicted value, in the label's unit",
}
STRENGTHS: tuple[float, ...] = tuple(10.0**power for power in range(-4, 4))
"""Of the penalty, an allele, so that it means the same in folds of other sizes: what is tried. Large is strong."""
_NARROW = 64


@dataclass(frozen=True, eq=False)
class Linear:
    """mean, scale: of every feature in training.   weights: of the standardised features.   strength: the penalty's."""

    kind: Kind
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float
    strength: float

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(alleles,) of what `OUTPUTS` says.   features: (alleles, features)."""
        found = ((features - self.mean) / self.scale) @ self.weights + self.intercept
        return 1.0 / (1.0 + np.exp(-np.clip(found, -700, 700))) if self.kind == "logistic" else found


def fit_linear(kind: Kind, features: NDArray[np.float64], labels: NDArray[np.float64], strength: float) -> Linear:
    """Fit on all rows.   labels: 0 or 1, or any numbers for "ridge".

    Raises: MissingDependencyError without scikit-learn.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    # A feature that never changed says nothing; dividing by 1 leaves it at 0.
    scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, 1.0)
    estimator = _estimator(kind, strength * len(labels), features.shape[1])
    estimator.fit((features - mean) / scale, labels)
    weights = np.ravel(np.asarray(estimator.coef_, dtype=np.float64))
    return Linear(kind, mean, scale, weights, float(np.ravel(estimator.intercept_)[0]), strength)


def _estimator(kind: Kind, penalty: float, width: int) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise MissingDependencyError(
            "Heads need scikit-learn. Install it with: pip install 'genossm[train]'"
        ) from error
    if kind == "ridge":
        return Ridge(alpha=penalty)
    if kind == "svm":
        return LinearSVC(C=1.0 / penalty, dual="auto", max_iter=5000)
    # Newton's steps are few; each costs the cube of the width.
    solver = "newton-cholesky" if width <= _NARROW else "lbfgs"
    return LogisticRegression(C=1.0 / penalty, solver=solver, max_iter=2000, tol=1e-5)
