"""What our fields and header lines are called: GENOSSM_… unless the user gives them a name of their own (`--tag`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from genossm.core.errors import InputFileError, UsageError

DEFAULT_TAG = "GENOSSM"
_ID = re.compile(rb"##INFO=<(?:.*?,)?ID=([^,>]+)")
_ANNOUNCED = re.compile(rb"##genossm\.([A-Za-z0-9_.]+)_version=")  # every run under a tag of its own writes one


@dataclass(frozen=True)
class Naming:
    """tag: what INFO fields begin with, so that scores of several models stand in one file.

    Raises: UsageError for what the VCF specification does not allow in a key.
    """

    tag: str = DEFAULT_TAG

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", self.tag):
            raise UsageError(
                f"--tag {self.tag!r} cannot begin the name of an INFO field; wanted letters, digits, dots and "
                "underscores, a letter or an underscore first."
            )

    def field(self, name: str) -> str:
        """The name of a field that is called `name`, GENOSSM_…, by default."""
        return self.tag + name[len(DEFAULT_TAG) :]

    def fact(self, key: str) -> str:
        """What a header line is called that says where these scores come from."""
        own = "" if self.tag == DEFAULT_TAG else f".{self.tag}"
        return f"genossm{own}_{key}"

    def own_fields(self, header: Iterable[bytes]) -> tuple[bytes, ...]:
        """INFO fields with this tag that a header declares, in its order; not those of longer tags, as A_L is of A."""
        header = tuple(header)
        names = (match[1] for line in header if (match := _ID.match(line)))
        longer = tuple(tag + b"_" for tag in self._longer_tags(header))
        return tuple(name for name in names if name.startswith(self._prefix) and not name.startswith(longer))

    def fact_lines(self, header: Iterable[bytes]) -> tuple[bytes, ...]:
        """The header lines that say where these scores come from."""
        header = tuple(header)
        start = f"##{self.fact('')}".encode()
        longer = tuple(b"##genossm." + tag + b"_" for tag in self._longer_tags(header))
        return tuple(line for line in header if line.startswith(start) and not line.startswith(longer))

    def without_scores(self, header: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The header without our lines.

        Raises: InputFileError if fields with this tag are there that no run of ours has written.
        """
        fields, facts = set(self.own_fields(header)), set(self.fact_lines(header))
        if self.tag != DEFAULT_TAG and fields and not facts:
            raise InputFileError(
                f"The input has INFO/{self.tag}_… of another program. Choose another --tag, so that its fields stay."
            )
        return tuple(
            line for line in header if line not in facts and not ((match := _ID.match(line)) and match[1] in fields)
        )

    def _longer_tags(self, header: Iterable[bytes]) -> list[bytes]:
        found = (match[1] for line in header if (match := _ANNOUNCED.match(line)))
        return [tag for tag in found if tag.startswith(self._prefix)]

    @cached_property
    def _prefix(self) -> bytes:
        return f"{self.tag}_".encode()


DEFAULT_NAMING = Naming()
