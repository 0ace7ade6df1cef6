"""Does a tool that scores variants keep every record, with a score or the right reason?

    python -m genossm.testing.conformance [--adapter FILE.yaml] [--model DIRECTORY]
    pytest --pyargs genossm.testing.conformance

`README.md` beside this file says what is in the folder and how another tool joins in.
"""

from __future__ import annotations

from genossm.testing.conformance.adapter import Adapter, Workplace, load_adapter
from genossm.testing.conformance.cases import Expectation, expectations
from genossm.testing.conformance.laws import Finding, findings

__all__ = ["Adapter", "Expectation", "Finding", "Workplace", "expectations", "findings", "load_adapter"]
