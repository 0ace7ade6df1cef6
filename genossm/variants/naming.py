"""What our fields and header lines are called: GENOSSM_… unless the user gives them a name of their own (`--tag`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from genossm.core.errors import InputFileError, UsageError

DEFAULT_TAG = "GENOSSM"
_ID = re.compile(rb"##INFO=<(?:.*?,)?ID=([^,>]+)")


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

    def is_ours(self, entry: bytes) -> bool:
        """Whether an INFO entry, or the name of a field, is one of ours."""
        return entry.startswith(self._prefix)

    def holds_scores(self, header: tuple[bytes, ...]) -> bool:
        """Whether a header declares fields of ours."""
        return any((match := _ID.match(line)) and self.is_ours(match[1]) for line in header)

    def without_scores(self, header: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The header without our lines.

        Raises: InputFileError if fields with this tag are there that no run of ours has written.
        """
        facts = f"##{self.fact('')}".encode()
        if self.tag != DEFAULT_TAG and self.holds_scores(header) and not any(line.startswith(facts) for line in header):
            raise InputFileError(
                f"The input has INFO/{self.tag}_… of another program. Choose another --tag, so that its fields stay."
            )
        return tuple(
            line
            for line in header
            if not line.startswith(facts) and not ((match := _ID.match(line)) and self.is_ours(match[1]))
        )

    @cached_property
    def _prefix(self) -> bytes:
        return f"{self.tag}_".encode()


DEFAULT_NAMING = Naming()
