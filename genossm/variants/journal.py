"""The scores of a file's finished blocks, beside the file that is being written: what a killed run leaves behind.

`out.vcf.gz.journal` begins with a line of its own and is then a row of frames: length, checksum, and a body that is a
line of JSON with, for a block, its numbers behind it. Each checksum goes on from that of the frame before, so that a
frame that was cut off, or stands where it does not belong, ends what is read. The first frame says what the scores
depend on. Output itself is not kept: who resumes reads the input again, takes finished blocks' numbers from here and
writes every file from its beginning, so that it is the file of a run that nothing disturbed.

The journal is also the lock of its output. On a file system without locks there is none, and of two runs the first
(with --force the last) that ends gives the whole file.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import behind_link, readable_write_errors, require_parent
from genossm.core.errors import OutputError, OutputExistsError, OutputInUseError, ResumeError

_MAGIC = b"genossm journal 1\n"
_FRAME = struct.Struct("<II")
# Zeros, as a crash of the machine can leave at a file's end, are no valid frame.
_FIRST_CHECKSUM = 0x67656E6F
_ATTEMPTS = 20


def journal_path(target: str | Path) -> Path:
    """Where the journal of an output lies."""
    return Path(f"{target}.journal")


@dataclass(frozen=True)
class Content:
    """What the whole frames of a journal hold.

    identity: what the scores depend on; None if not even that is there.   blocks, records: finished.
    placing: the run had begun to put its files where they belong.   end, checksum: where the next frame goes.
    workers: (host, process) of the runs that wrote it.
    """

    identity: dict[str, str] | None
    blocks: int
    records: int
    placing: bool
    end: int
    checksum: int
    workers: tuple[tuple[str, int], ...]


def read_journal(target: str | Path) -> Content | None:
    """What an unfinished run has left for the output `target`, or None if there is nothing.

    Raises: OutputError for a journal that cannot be read; OutputExistsError for a file that is none.
    """
    path = journal_path(target)
    try:
        with open(path, "rb") as file:
            return _content(file, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(
            f"Cannot read {path}: {error.strerror}. Finished records would be there: make it readable, or choose "
            "another output."
        ) from error


class Journal:
    """Finished blocks: first those of earlier runs, to be taken in order, then those of this one, added."""

    def __init__(self, path: Path, file: BinaryIO, found: Content, *, keep: bool) -> None:
        self._path, self._file, self._keep = path, file, keep
        self._frames = _frames(file) if found.blocks else iter(())
        self._end, self._checksum = found.end, found.checksum
        self.blocks, self.records = found.blocks, found.records
        self.placing = found.placing

    def take(self, block: int, digest: str, shape: tuple[int, int]) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """The numbers of block `block` of an earlier run, NaN where an allele has none, and what was noted with them.

        digest: of the block's records.   shape: (alleles, numbers).
        Raises: ResumeError if the records are not those that were scored.
        """
        for head, numbers in self._frames:
            if head.get("block") == block:
                if head["digest"] != digest or tuple(head["shape"]) != shape:
                    break
                return np.frombuffer(numbers, dtype="<f8").reshape(shape), head["note"]
        raise ResumeError(
            f"The input has changed since the run that {self._path} is of: its finished records are not those of block "
            f"{block + 1} of the input. Resume with that input, or start anew with --force and without --resume."
        )

    def require_end(self, blocks: int) -> None:
        """Raise ResumeError if the journal holds more than the `blocks` that the input has."""
        if self.blocks > blocks:
            raise ResumeError(
                f"The input has become shorter since the run that {self._path} is of. Resume with that input, or start "
                "anew with --force and without --resume."
            )

    def add(
        self,
        block: int,
        records: int,
        digest: str,
        numbers: NDArray[np.float64],
        note: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Keep what a block scored; it is on the disk when this returns.   note: what else a resumed run needs."""
        if self._keep:
            head = {"block": block, "records": records, "digest": digest, "shape": numbers.shape, "note": dict(note)}
            self._append(head, numbers.astype("<f8").tobytes())
            self.blocks, self.records = self.blocks + 1, self.records + records

    def note(self, **head: Any) -> None:
        """A frame without numbers."""
        self._append(head, b"")

    def _append(self, head: dict[str, Any], numbers: bytes) -> None:
        body = json.dumps(head).encode() + b"\n" + numbers
        checksum = zlib.crc32(body, self._checksum)
        frame = _FRAME.pack(len(body), checksum) + body
        with readable_write_errors(self._path, "Finished blocks are kept: make room and pass --resume."):
            done = 0
            while done < len(frame):
                done += os.pwrite(self._file.fileno(), frame[done:], self._end + done)
            os.fsync(self._file.fileno())
        self._end, self._checksum = self._end + len(frame), checksum


@contextmanager
def open_journal(
    target: Path,
    identity: Mapping[str, str],
    outputs: Iterable[Path] = (),
    *,
    resume: bool,
    force: bool,
    keep: bool = True,
) -> Iterator[Journal]:
    """The journal of an output, locked; removed when the block ends well, or nothing is worth keeping.

    identity: what scores depend on, by name.   outputs: files whose temporary siblings, left by runs that were killed,
    are taken away.   resume: go on from the journal that is there, if there is one.
    force: without `resume`, forget what is there.   keep: False for a lock alone.
    Raises: OutputInUseError if another process writes this output; OutputError if its folder cannot be written to;
    OutputExistsError if there is a journal with finished blocks and neither `resume` nor `force`; ResumeError if it is
    of another run.
    """
    path = journal_path(target)
    require_parent(target)
    with _locked(path, target) as file:
        found = _content(file, path)
        if found.blocks and not resume and not force:
            raise OutputExistsError(
                f"{path} holds {found.records:,} finished records of an interrupted run. Pass --resume to go on, or "
                "--force to start anew."
            )
        if found.blocks and resume:
            _require_same(found.identity or {}, identity, path)
        # Before the journal forgets who they were.
        _remove_leftovers(outputs, found.workers)
        if not (found.blocks and resume):
            found = Content(None, 0, 0, False, len(_MAGIC), _FIRST_CHECKSUM, ())
        journal = Journal(path, file, found, keep=keep)
        with readable_write_errors(path, "Choose another output, or make room."):
            file.truncate(found.end if found.blocks else 0)
            if not found.blocks:
                os.pwrite(file.fileno(), _MAGIC, 0)
        if found.identity is None:
            journal.note(identity=dict(identity))
        journal.note(host=socket.gethostname(), process=os.getpid())
        try:
            yield journal
        except BaseException:
            # Asked of the file: a signal may come between a block's last byte and its count.
            if not _content(file, path).blocks:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def _require_same(before: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        said = "; ".join(f"{key} was {before.get(key, 'none')}, is {now.get(key, 'none')}" for key in differing)
        raise ResumeError(
            f"{path} is of another run: {said}. Resume with the same, or start anew with --force and without --resume."
        )


def _remove_leftovers(outputs: Iterable[Path], workers: Iterable[tuple[str, int]]) -> None:
    """Take away the temporary files of processes that were killed."""
    gone = {process for host, process in workers if host == socket.gethostname() and process != os.getpid()}
    for path in map(behind_link, outputs):
        for process in gone:
            for left in path.parent.glob(f".tmp-{process}-*-{glob.escape(path.name)}*"):
                left.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, target: Path) -> Iterator[BinaryIO]:
    """The file at `path`, made if missing, open for this process alone."""
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            # Of any kind: in /proc, where no file can be made, it is the one of a file that is not there.
            raise OutputError(f"Cannot write {path}: {error.strerror}. Choose another output.") from error
        with open(descriptor, "r+b") as file:
            _lock(file, path, target)
            # Whoever held the lock before may have removed the file since it was opened.
            if _same_file(descriptor, path):
                yield file
                return
    raise OutputInUseError(f"Cannot write {target}: other processes keep writing it. Run one at a time.")


def _lock(file: BinaryIO, path: Path, target: Path) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        workers = _content(file, path).workers
        who = f" (process {workers[-1][1]} on {workers[-1][0]})" if workers else ""
        raise OutputInUseError(
            f"Another process{who} is writing {target}. Wait until it has ended, or choose another output."
        ) from None
    except OSError:
        # A file system without locks.
        return


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _frames(file: BinaryIO) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Bodies of the whole frames, as (JSON, numbers)."""
    for _, _, head, numbers in _scan(file):
        yield head, numbers


def _scan(file: BinaryIO) -> Iterator[tuple[int, int, dict[str, Any], bytes]]:
    """(end, checksum, JSON, numbers) of frames from the first, up to one that is not whole."""
    end, checksum = len(_MAGIC), _FIRST_CHECKSUM
    while prefix := os.pread(file.fileno(), _FRAME.size, end):
        if len(prefix) < _FRAME.size:
            return
        length, wanted = _FRAME.unpack(prefix)
        if length > os.fstat(file.fileno()).st_size - end:
            return
        body = os.pread(file.fileno(), length, end + _FRAME.size)
        if len(body) != length or zlib.crc32(body, checksum) != wanted:
            return
        end, checksum = end + _FRAME.size + length, wanted
        line, _, numbers = body.partition(b"\n")
        yield end, checksum, json.loads(line), numbers


def _content(file: BinaryIO, path: Path) -> Content:
    """Raises: OutputExistsError for a file that is no journal."""
    start = os.pread(file.fileno(), len(_MAGIC), 0)
    # What a killed process, or a crash of the machine, leaves of the first line is ours as well.
    if not _MAGIC.startswith(start.rstrip(b"\0")):
        raise OutputExistsError(f"{path} is where the journal of this output goes, and is none. Move it away.")
    identity: dict[str, str] | None = None
    blocks = records = 0
    end, checksum, placing = len(_MAGIC), _FIRST_CHECKSUM, False
    workers: list[tuple[str, int]] = []
    if start == _MAGIC:
        for end, checksum, head, _ in _scan(file):  # noqa: B007
            identity = head.get("identity", identity)
            placing = placing or "placing" in head
            if "block" in head:
                blocks, records = blocks + 1, records + head["records"]
            if "process" in head:
                workers.append((head["host"], head["process"]))
    return Content(identity, blocks, records, placing, end, checksum, tuple(workers))
