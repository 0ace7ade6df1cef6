"""`python -m genossm`, for starters of processes that want a module: `torchrun ... -m genossm train ...`."""

from __future__ import annotations

from genossm.cli.main import run

if __name__ == "__main__":
    run()
