"""Other authors' checkpoints: which layout it is, and what it becomes here. One file a layout."""

from __future__ import annotations

from genossm.models.importers.checkpoint import Checkpoint, read_checkpoint
from genossm.models.importers.importing import LAYOUTS, import_checkpoint

__all__ = ["LAYOUTS", "Checkpoint", "import_checkpoint", "read_checkpoint"]
