"""A kernel's source as one text: `#include "..."` lines replaced by the files of this package."""

from __future__ import annotations

import functools
import re
from pathlib import Path

_HERE = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)


@functools.cache
def read_source(path: Path) -> str:
    """The text of `path` with our own headers inlined once each, from its own folder or this one."""
    seen: set[str] = set()

    def inline(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return ""
        seen.add(name)
        beside = path.parent / name
        header = beside if beside.exists() else _HERE / name
        return _INCLUDE.sub(inline, header.read_text()).replace("#pragma once\n", "")

    return _INCLUDE.sub(inline, path.read_text())
