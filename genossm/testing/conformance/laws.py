"""What is looked at in a tool's output: each allele's status and score, and the laws that a whole file keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from genossm.testing.conformance.adapter import Adapter, Workplace
from genossm.testing.conformance.cases import (
    CASES,
    MALFORMED,
    Expectation,
    entries,
    expectations,
    header_and_records,
    value,
)

Verdict = Literal["kept", "broken", "left out"]
Scores = dict[str, tuple[str | None, str | None]]
"""Name of an allele to (status, score) as written; None where there is none."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.   name: "snv/1" for an allele, "file:order" or "malformed:position" for others."""

    name: str
    verdict: Verdict
    wanted: str
    got: str
    reason: str


def findings(place: Workplace) -> Iterator[Finding]:
    """Run a tool over the whole suite and say of everything whether it is kept."""
    asked = CASES.read_bytes()
    done, target = place.score(asked, "cases")
    if done.returncode or not target.exists():
        got = f"exit code {done.returncode}: {_last(done.stderr)}"
        yield Finding("file:output", "broken", "an output file, exit code 0", got, "nothing in the file is malformed")
        return
    output = target.read_bytes()
    yield from file_laws(asked, output, place.adapter)
    scored = scores_of(output, place.adapter)
    yield from (allele_law(one, scored, place.adapter) for one in expectations())
    yield company_law(place, scored)
    yield from (malformed_laws(place))


def scores_of(output: bytes, adapter: Adapter) -> Scores:
    """Status and score of every allele, by its name."""
    found: Scores = {}
    for record in header_and_records(output)[1]:
        case, alts = value(record, "CASE"), record.split(b"\t")[4]
        statuses = _split(value(record, adapter.status)) if adapter.status else []
        numbers = _split(value(record, adapter.score))
        if alts == b".":
            found[f"{case}/0"] = _at(statuses, 0, adapter), None
            continue
        for index in range(alts.count(b",") + 1):
            number = numbers[index] if index < len(numbers) else "."
            found[f"{case}/{index + 1}"] = _at(statuses, index, adapter), None if number == "." else number
    return found


def allele_law(one: Expectation, scored: Scores, adapter: Adapter) -> Finding:
    """Whether an allele has the status and the kind of score that the table gives it."""
    wanted = f"{one.status}, {one.score}"
    lacking = [need for need in one.needs if need not in adapter.has]
    if lacking:
        return Finding(one.name, "left out", wanted, f"needs {', '.join(lacking)}", one.reason)
    if one.name not in scored:
        return Finding(one.name, "broken", wanted, "no such record, or too few alleles", one.reason)
    status, text = scored[one.name]
    right = (adapter.status is None or status == one.status) and _score_is(one.score, text, scored, adapter)
    return Finding(one.name, "kept" if right else "broken", wanted, f"{status}, {text}", one.reason)


def file_laws(asked: bytes, output: bytes, adapter: Adapter) -> Iterator[Finding]:
    """Records, their order, their other fields and the header's lines."""
    header_in, records_in = header_and_records(asked)
    header_out, records_out = header_and_records(output)
    rest = iter(header_out)
    lost = [line for line in header_in if not any(line == other for other in rest)]
    yield _law("file:header", "every line of the header, in its order", lost, "lines of the input stay as they are")
    cases_in, cases_out = ([value(record, "CASE") for record in records] for records in (records_in, records_out))
    first = next((a for a, b in zip(cases_in, cases_out) if a != b), None)
    wrong = [f"{len(cases_out)} records, the first out of place is {first}"] if cases_in != cases_out else []
    yield _law("file:records", f"{len(cases_in)} records in their order", wrong, "no record is lost, moved or added")
    changed = [
        f"{value(a, 'CASE')}" for a, b in zip(records_in, records_out) if _others(a, adapter) != _others(b, adapter)
    ]
    yield _law("file:fields", "all other fields byte for byte", changed, "what a tool does not add to it leaves alone")


def company_law(place: Workplace, scored: Scores) -> Finding:
    """The same file backwards, every fifth record left out: scores do not depend on order or company."""
    header, records = header_and_records(CASES.read_bytes())
    kept = [record for number, record in enumerate(records) if number % 5][::-1]
    done, target = place.score(b"\n".join([*header, *kept]) + b"\n", "company")
    name, wanted, reason = "file:company", "the same scores", "a score does not depend on what else is in the file"
    if done.returncode or not target.exists():
        return Finding(name, "broken", wanted, f"exit code {done.returncode}: {_last(done.stderr)}", reason)
    again = scores_of(target.read_bytes(), place.adapter)
    wrong = [
        allele
        for allele, (status, text) in again.items()
        if status != scored.get(allele, (None, None))[0] or not _same(text, scored[allele][1], place.adapter)
    ]
    return _law(name, wanted, wrong, reason)


def malformed_laws(place: Workplace) -> Iterator[Finding]:
    """A malformed line stops the tool, which says which line it is and leaves no output behind."""
    for one in MALFORMED:
        name, wanted = f"malformed:{one.name}", f"an exit code, line {one.number} named, no output"
        if "refuses" not in place.adapter.has:
            yield Finding(name, "left out", wanted, "needs refuses", one.reason)
            continue
        done, target = place.score(one.text().encode(), f"malformed-{one.name}")
        right = done.returncode > 0 and not target.exists() and str(one.number) in _last(done.stderr)
        got = f"exit code {done.returncode}{', an output' if target.exists() else ''}: {_last(done.stderr)}"
        yield Finding(name, "kept" if right else "broken", wanted, got, one.reason)


def _score_is(kind: str, text: str | None, scored: Scores, adapter: Adapter) -> bool:
    if kind == "none" or text is None:
        return kind == "none" and text is None
    number = _number(text)
    if kind.startswith("same:"):
        return _same(text, scored.get(kind.removeprefix("same:"), (None, None))[1], adapter)
    return math.isfinite(number) and {"finite": True, "zero": number == 0, "nonzero": number != 0}[kind]


def _same(one: str | None, other: str | None, adapter: Adapter) -> bool:
    if one is None or other is None:
        return one is other
    # What is printed with six digits may differ in the last of them.
    return math.isclose(_number(one), _number(other), rel_tol=1e-5, abs_tol=adapter.tolerance)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _split(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _at(statuses: Sequence[str], index: int, adapter: Adapter) -> str | None:
    return adapter.words.get(statuses[index], statuses[index]) if index < len(statuses) else None


def _others(record: bytes, adapter: Adapter) -> tuple[list[bytes], list[bytes]]:
    columns = record.split(b"\t")
    own = tuple(prefix.encode() for prefix in adapter.own)
    kept = [entry for entry in entries(record) if not (own and entry.startswith(own))]
    return columns[:7] + columns[8:], kept


def _law(name: str, wanted: str, wrong: Sequence[object], reason: str) -> Finding:
    got = "as wanted" if not wrong else f"{len(wrong)} not, the first {wrong[0]!r}"
    return Finding(name, "broken" if wrong else "kept", wanted, got, reason)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
