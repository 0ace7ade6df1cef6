"""What is known of an allele beside its sequence: tissue, distance to a start site, conservation, by column name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import InputFileError

Values = Mapping[str, object]


@dataclass(frozen=True)
class Covariate:
    """One column.   categories: the words that it may hold, each a column of 0 and 1; None for a number."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        return 1 if self.categories is None else len(self.categories)

    def encode(self, values: Values | None, where: str) -> list[float]:
        """The numbers of one allele.

        Raises: InputFileError where it is missing, is no number, or is a word that training did not see.
        """
        value = None if values is None else values.get(self.name)
        text = "" if value is None else str(value).strip()
        if text in ("", ".") or text.lower() == "nan":
            raise InputFileError(
                f"{where} lacks the covariate {self.name}. Give it as a column of the table, as an INFO field of the "
                "VCF, or in a table of its own: --covariates FILE."
            )
        if self.categories is None:
            return [_number(text, self.name, where)]
        if text not in self.categories:
            raise InputFileError(
                f"{where}: the covariate {self.name} is {text!r}, which training never saw; it saw "
                f"{', '.join(self.categories)}."
            )
        return [float(text == category) for category in self.categories]


def learn_covariates(names: Sequence[str], rows: Sequence[Values], wheres: Sequence[str]) -> tuple[Covariate, ...]:
    """Numbers where every row has one, else categories in alphabetical order.

    Raises: InputFileError for a row without one.
    """
    found: list[Covariate] = []
    for name in names:
        texts = [str(row.get(name, "")).strip() for row in rows]
        for text, where in zip(texts, wheres):
            if text in ("", ".", "None"):
                Covariate(name).encode({}, where)
        numeric = all(_is_number(text) for text in texts)
        found.append(Covariate(name, None if numeric else tuple(sorted(set(texts)))))
    return tuple(found)


def covariate_matrix(
    covariates: Sequence[Covariate], rows: Sequence[Values | None], wheres: Sequence[str]
) -> NDArray[np.float64]:
    """(rows, numbers) of all covariates side by side. Raises: as `Covariate.encode`."""
    width = sum(covariate.width for covariate in covariates)
    if not width:
        return np.zeros((len(rows), 0))
    encoded = [
        [n for one in covariates for n in one.encode(row, where)] for row, where in zip(rows, wheres, strict=True)
    ]
    return np.array(encoded, dtype=np.float64).reshape(len(rows), width)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str, name: str, where: str) -> float:
    if not _is_number(text):
        raise InputFileError(f"{where}: the covariate {name} is {text!r}; wanted a number, as in training.")
    return float(text)
