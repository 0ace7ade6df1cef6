"""A CSV file with a row for some of a run's steps, whole at any moment and continued by a resumed run."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from genossm.core.atomic import atomic_file


class StepTable:
    """columns: "step" is the first."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def start(self, last_step: int) -> None:
        """Start the file, or cut what a broken run wrote after `last_step`, from which the run goes on."""
        kept = [
            [row.get(column, "") for column in self.columns] for row in self._rows() if int(row["step"]) <= last_step
        ]
        with atomic_file(self.path, force=True) as temporary, open(temporary, "w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(self.columns)
            writer.writerows(kept)
            handle.flush()
            os.fsync(handle.fileno())

    def append(self, row: Mapping[str, float | None]) -> None:
        """One row at the end; a column that is missing, None or NaN stays empty."""
        with open(self.path, "a", newline="") as handle:
            csv.writer(handle).writerow([_text(row.get(column)) for column in self.columns])

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as handle:
            reader = csv.reader(handle)
            header = next(reader, [])
            # A row that was cut off when the run died is shorter. An earlier version wrote fewer columns.
            return [dict(zip(header, row)) for row in reader if len(row) == len(header) and row[0].isdigit()]


def _text(value: float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
