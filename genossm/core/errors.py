"""Every error that a user can cause, in one family.

The command line prints a `GenossmError` in one line and exits with its `exit_code`; anything else is a
bug of ours and keeps its traceback. A message says what, got, wanted, and the next step.
"""


class GenossmError(Exception):
    """Base of all user errors."""

    exit_code = 1


class UsageError(GenossmError):
    """Options or arguments that contradict each other."""

    exit_code = 2


class ConfigError(GenossmError):
    """A configuration file or dataclass with an unknown key, a wrong type or an impossible value."""


class InputFileError(GenossmError):
    """An input file that is missing, truncated, or not of the format that was asked for."""


class OutputError(GenossmError):
    """An output that cannot be written: no such folder, no permission, no space."""


class OutputExistsError(OutputError):
    """An output path that is already taken, without --force."""


class OutputInUseError(OutputError):
    """An output that another process writes."""


class AlphabetError(GenossmError):
    """A letter that the chosen policy does not allow."""


class IntervalError(GenossmError):
    """An interval or region string that cannot be read, is empty, or leaves its contig."""


class VariantError(GenossmError):
    """A variant that cannot be read or cannot stand where it says."""


class ContigNotFoundError(GenossmError):
    """A contig, or any alias of it, that the genome does not hold."""


class ReferenceMismatchError(GenossmError):
    """A REF allele that differs from the reference sequence."""


class TooManySkippedError(GenossmError):
    """More records without a score than the caller allowed."""

    exit_code = 3


class WrongAssemblyError(TooManySkippedError):
    """A VCF whose REF alleles do not match this reference at all."""


class TokenizerError(GenossmError):
    """A tokenizer file or token id that cannot be used."""


class ModelFormatError(GenossmError):
    """A model directory or checkpoint that is incomplete, contradictory or of an unknown layout."""


class MethodError(GenossmError):
    """A model asked for something that its objective or direction does not give."""


class MemoryEstimateError(GenossmError):
    """A length or batch that does not fit in memory; says the bytes and what would fit."""


class NumericsError(GenossmError):
    """NaN or infinity where a number was due; says where it came from."""


class MissingDependencyError(GenossmError):
    """An optional package that this command needs and that is not installed."""


class ResumeError(GenossmError):
    """What an unfinished run left behind belongs to another input, model, reference or option."""

    # Of its own, so that a script can tell what a start anew mends.
    exit_code = 4


class SelfTestError(NumericsError):
    """A device that computes other numbers than the definition says."""


class ParallelError(GenossmError):
    """Processes that cannot work together as asked: none started, too many for a sequence, or one that is lost."""


class RunInterruptedError(GenossmError):
    """A run that a signal ended before its last step; exits as a shell expects it, with 128 and the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class WorkerDiedError(GenossmError):
    """A loader process that ended without having been told to."""
