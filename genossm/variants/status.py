"""Why an ALT allele has a score or has none; the words are those of `genossm.sequence.status`."""

from __future__ import annotations

from genossm.sequence.status import STATUS_MEANINGS as STATUS_MEANINGS
from genossm.sequence.status import Status as Status
from genossm.sequence.status import matches_reference as matches_reference
from genossm.sequence.status import reference_status as reference_status
from genossm.sequence.status import written_status as written_status
