"""The header lines and INFO entries that scoring adds, and taking earlier ones out."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from genossm.core.errors import InputFileError
from genossm.core.provenance import package_version
from genossm.variants.methods import LLR, METHODS, Method, Tag, tags_of
from genossm.variants.naming import DEFAULT_NAMING, Naming
from genossm.variants.options import ScoringOptions
from genossm.variants.status import Status

RATIO, STATUS = LLR.tags[0].name, "GENOSSM_STATUS"
STATUS_MEANING = "One word an ALT allele, or NO_ALT for the record: OK if it is scored, else the reason why it is not"


@dataclass(frozen=True)
class ScoringRun:
    """What a header says about how the scores came about.

    options: with the methods named.   command: without what may differ between equal runs.
    methods: those of `options`; None looks the names up, which does for methods without trained parts.
    tags: the fields written, in their order; None for those of the methods.   haplotypes: of which sample, if of one.
    """

    model_digest: str
    reference_digest: str
    options: ScoringOptions
    command: str
    methods: tuple[Method, ...] | None = None
    tags: tuple[Tag, ...] | None = None
    haplotypes: str | None = None
    naming: Naming = DEFAULT_NAMING

    @cached_property
    def fields(self) -> tuple[Tag, ...]:
        """The fields that hold numbers, as they are called in this run's files."""
        tags = tags_of(self.options.methods) if self.tags is None else self.tags
        return tuple(replace(tag, name=self.naming.field(tag.name)) for tag in tags)

    @cached_property
    def names(self) -> frozenset[bytes]:
        """Of all fields that a record may get."""
        return frozenset(name.encode() for name in (*(tag.name for tag in self.fields), self.naming.field(STATUS)))

    def facts(self) -> dict[str, object]:
        """What the scores come from, by name."""
        options = self.options
        methods = [METHODS[name] for name in options.methods] if self.methods is None else self.methods
        facts: dict[str, object] = {
            "version": package_version(),
            "model": f"sha256:{self.model_digest}",
            "reference": f"sha256:{self.reference_digest}",
            "method": ", ".join(method.label for method in methods),
            "context": options.context_text,
        }
        if options.has_horizon:
            facts["horizon"] = options.horizon_text
        if options.has_neighbourhood:
            facts["neighbourhood"] = options.neighbourhood
        facts["strands"] = ",".join(options.strands)
        for method in methods:
            facts.update(method.facts)
        if self.haplotypes is not None:
            facts["haplotypes"] = self.haplotypes
        return {**facts, "command": self.command}

    def header_lines(self) -> tuple[bytes, ...]:
        """INFO definitions, then one `##genossm_…=` line a fact."""
        status = self.naming.field(STATUS)
        lines = (
            *(tag.info_line() for tag in self.fields),
            f'##INFO=<ID={status},Number=.,Type=String,Description="{STATUS_MEANING}">',
            *(f"##{self.naming.fact(key)}={value}" for key, value in self.facts().items()),
        )
        return tuple(line.encode("utf-8", errors="surrogateescape") for line in lines)


def refuse_scored(header: tuple[bytes, ...], *, name: str, replace: bool, naming: Naming = DEFAULT_NAMING) -> None:
    """Raise InputFileError if a header holds our INFO fields already, unless they are to be replaced."""
    if not replace and naming.own_fields(header):
        raise InputFileError(
            f"{name} holds scores of an earlier run (INFO/{naming.tag}_…). Pass --force to replace them, --tag NAME to "
            "add others, or score the original file."
        )


def scored_header(header: tuple[bytes, ...], run: ScoringRun, *, name: str, replace: bool) -> tuple[bytes, ...]:
    """The input's header with our lines before the column names; those of an earlier scoring give way.

    Raises: InputFileError if there are any and they are not to be replaced.
    """
    refuse_scored(header, name=name, replace=replace, naming=run.naming)
    return (*run.naming.without_scores(header[:-1]), *run.header_lines(), header[-1])


def facts_in(header: tuple[bytes, ...] | list[bytes], naming: Naming = DEFAULT_NAMING) -> dict[str, str]:
    """What the `##genossm_…=` lines of a header say, by name without the prefix."""
    start = len(f"##{naming.fact('')}")
    pairs = (line[start:].split(b"=", 1) for line in naming.fact_lines(header))
    return {pair[0].decode(): pair[1].decode("utf-8", errors="replace") for pair in pairs if len(pair) == 2}


def methods_in(facts: dict[str, str]) -> tuple[str, ...]:
    """Names of the methods that a header's facts speak of; those of a later version are left out."""
    labels = facts.get("method", "").split(", ")
    return tuple(name for name, method in METHODS.items() if method.label in labels)


class Outcome(Protocol):
    """An allele's status and its numbers in the order of the tags, empty where it has none."""

    @property
    def status(self) -> Status: ...

    @property
    def numbers(self) -> tuple[float | None, ...]: ...


def values_of(one: Outcome, tags: tuple[Tag, ...]) -> tuple[float | None, ...]:
    """An allele's numbers, one a tag; None where it has none."""
    return one.numbers or (None,) * len(tags)


def scored_info(info: bytes, scored: Sequence[Outcome], run: ScoringRun, replaced: Container[bytes] = ()) -> bytes:
    """INFO with the scores of a record's ALT alleles at its end.   replaced: fields of an earlier run, which give way.

    Raises: InputFileError for a field of the same name that no header declares as ours.
    """
    entries = [] if info in (b".", b"") else [entry for entry in info.split(b";") if _key(entry) not in replaced]
    for entry in entries:
        if _key(entry) in run.names:
            raise InputFileError(
                f"the record holds INFO/{_key(entry).decode()}, which the header does not declare. Pass --tag NAME, so "
                "that it stays, or take it out."
            )
    if [one.status for one in scored] != [Status.NO_ALT]:
        columns = zip(*(values_of(one, run.fields) for one in scored))
        for tag, values in zip(run.fields, columns, strict=True):
            entries.append(f"{tag.name}={','.join(map(format_score, values))}".encode())
    entries.append(f"{run.naming.field(STATUS)}={','.join(one.status for one in scored)}".encode())
    return b";".join(entries)


def _key(entry: bytes) -> bytes:
    return entry.partition(b"=")[0]


def format_score(score: float | None) -> str:
    """A score as VCF's 32-bit floats keep it: six significant digits; a dot for none."""
    # Adding 0 turns a negative zero, which says nothing, into a plain one.
    return "." if score is None else f"{float(f'{score:.6g}') + 0.0:.6g}"
