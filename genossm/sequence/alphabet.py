"""The DNA alphabet: complements, IUPAC codes and what an ambiguous reference letter stands for.

Letters are ASCII; lower case is soft-masking and is kept. U and gaps are no letters of a DNA reference.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from genossm.core.errors import AlphabetError

Text = TypeVar("Text", bytes, str)

BASES = b"ACGT"

IUPAC_BASES: dict[str, str] = {
    "A": "A", "C": "C", "G": "G", "T": "T",
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
"""Every IUPAC letter with the bases it stands for, in alphabetical order (Cornish-Bowden 1985)."""

_LETTERS = "".join(IUPAC_BASES)
LETTERS: bytes = (_LETTERS + _LETTERS.lower()).encode("ascii")
"""Every letter that a DNA reference may hold, upper case first."""

_COMPLEMENTS = "TGCAYRSWMKVHDBN"
_UNKNOWN = 0


def _table(source: str, target: str, *, default: int | None) -> bytes:
    entries = list(range(256)) if default is None else [default] * 256
    for letter, image in zip(source + source.lower(), target + target.lower()):
        entries[ord(letter)] = ord(image)
    return bytes(entries)


COMPLEMENT_TABLE: bytes = _table(_LETTERS, _COMPLEMENTS, default=_UNKNOWN)
"""256 bytes: ASCII letter to ASCII complement, case kept; 0 for everything that is no IUPAC letter."""

# N is itself allowed in a VCF REF, so it is not reduced.
_FIRST_TABLE = _table(
    _LETTERS, "".join(b if n == "N" else b[0] for n, b in (IUPAC_BASES | {"N": "N"}).items()), default=None
)


def reverse_complement(sequence: Text) -> Text:
    """The other strand, read 5' to 3'; IUPAC codes are complemented and case is kept.

    Raises: AlphabetError naming the first letter that is no IUPAC DNA code, and its place.
    """
    if isinstance(sequence, str):
        return reverse_complement(_ascii(sequence)).decode("ascii")
    complement = sequence.translate(COMPLEMENT_TABLE)
    unknown = complement.find(_UNKNOWN)
    if unknown >= 0:
        _refuse(sequence[unknown], unknown)
    return complement[::-1]


def reverse_complement_array(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`reverse_complement` for an ASCII array of shape (length,); returns a new contiguous array.

    Raises: AlphabetError naming the first letter that is no IUPAC DNA code, and its place.
    """
    return np.frombuffer(bytearray(reverse_complement(codes.tobytes())), dtype=np.uint8)


def iupac_first(letters: Text) -> Text:
    """Each ambiguity code as its alphabetically first base, N and everything else as it is, case kept.

    Source: VCF 4.3 section 1.6.1, REF: "ambiguity codes should be reduced to a concrete base by using the one
    that is first alphabetically"; N is allowed there.
    """
    if isinstance(letters, str):
        return letters.encode("latin-1").translate(_FIRST_TABLE).decode("latin-1")
    return letters.translate(_FIRST_TABLE)


def iupac_matches(reference_letter: str, base: str) -> bool:
    """Whether `base` in a VCF REF agrees with a letter of the reference, by the VCF rule; case is ignored.

    An ambiguity code matches itself and its alphabetically first base, no other.
    """
    letter, wanted = reference_letter.upper(), base.upper()
    return wanted in (letter, iupac_first(letter))


def _ascii(sequence: str) -> bytes:
    try:
        return sequence.encode("ascii")
    except UnicodeEncodeError as error:
        raise AlphabetError(
            f"Letter {sequence[error.start]!r} at position {error.start} (0-based) is no DNA letter. "
            f"Wanted one of {_LETTERS}, in either case."
        ) from None


def _refuse(code: int, position: int) -> None:
    raise AlphabetError(
        f"Letter {chr(code)!r} at position {position} (0-based) is no DNA letter, so it has no complement. "
        f"Wanted one of {_LETTERS}, in either case."
    )
