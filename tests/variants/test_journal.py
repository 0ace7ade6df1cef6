"""Whatever becomes of a journal's end, what is read from it is what was written, in order, from the beginning."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import OutputError, OutputExistsError, OutputInUseError, ResumeError
from genossm.variants.journal import Journal, journal_path, open_journal, read_journal

FIRST_LINE = b"genossm journal 1\n"
IDENTITY = {"model": "a", "context": "64"}


def block(number: int) -> tuple[int, str, np.ndarray]:
    """Number of records, digest and numbers of the block."""
    numbers = np.random.default_rng(number).normal(size=(number % 5 + 1, 2))
    numbers[0, 1] = np.nan
    return number + 1, f"digest {number}", numbers


def add(journal: Journal, numbers: range) -> None:
    for number in numbers:
        records, digest, values = block(number)
        journal.add(number, records, digest, values, {"number": number / 3})


def interrupted(target: Path, numbers: range, *, resume: bool = False) -> bytes:
    """A run that adds blocks and then stops; returns its journal."""
    with suppress(KeyboardInterrupt), open_journal(target, IDENTITY, resume=resume, force=False) as journal:
        add(journal, numbers)
        raise KeyboardInterrupt
    return journal_path(target).read_bytes()


def require_blocks(journal: Journal, count: int) -> None:
    for number in range(count):
        _, digest, values = block(number)
        found, note = journal.take(number, digest, values.shape)
        np.testing.assert_array_equal(found, values)
        assert note == {"number": number / 3}


@given(cut=st.floats(0, 1), tail=st.sampled_from([b"", b"\0", b"\0" * 64, b"\xff" * 64, b"{}\n"]))
def test_a_torn_end_is_dropped_and_written_again(cut: float, tail: bytes, tmp_path_factory) -> None:
    target = tmp_path_factory.mktemp("torn") / "out.vcf"
    whole = interrupted(target, range(4))
    # A first line that is torn is ours too, but not with something else behind it.
    first = 0 if tail.strip(b"\0") == b"" else len(FIRST_LINE)
    journal_path(target).write_bytes(whole[: max(first, int(cut * len(whole)))] + tail)
    found = read_journal(target)
    assert found is not None
    assert found.blocks == (4 if cut == 1 else found.blocks) < 5
    assert found.records == sum(block(number)[0] for number in range(found.blocks))
    interrupted(target, range(found.blocks, 6), resume=True)
    with open_journal(target, IDENTITY, resume=True, force=False) as journal:
        assert journal.blocks == 6
        require_blocks(journal, 6)
    assert not journal_path(target).exists()


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit_ends_what_is_read(place: float, bit: int, tmp_path_factory) -> None:
    target = tmp_path_factory.mktemp("bits") / "out.vcf"
    whole = bytearray(interrupted(target, range(4)))
    at = len(FIRST_LINE) + int(place * (len(whole) - len(FIRST_LINE)))
    whole[at] ^= 1 << bit
    journal_path(target).write_bytes(whole)
    found = read_journal(target)
    assert found is not None
    assert found.end <= at
    if found.blocks:
        with open_journal(target, IDENTITY, resume=True, force=False) as journal:
            require_blocks(journal, found.blocks)


def test_frames_of_another_place_are_not_taken(tmp_path: Path) -> None:
    """A frame is valid only behind the frame that it was written behind."""
    one, other = tmp_path / "one.vcf", tmp_path / "other.vcf"
    first = interrupted(one, range(1))
    longer = interrupted(other, range(3))
    journal_path(one).write_bytes(first + longer[len(first) :][40:])
    found = read_journal(one)
    assert found is not None
    assert found.blocks == 1


def test_a_journal_goes_when_the_run_ends_or_nothing_is_worth_keeping(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    assert read_journal(target) is None
    with open_journal(target, IDENTITY, resume=False, force=False) as journal:
        add(journal, range(2))
        assert journal_path(target).exists()
    assert list(tmp_path.iterdir()) == []
    with suppress(KeyboardInterrupt), open_journal(target, IDENTITY, resume=False, force=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with suppress(KeyboardInterrupt), open_journal(target, IDENTITY, resume=False, force=False, keep=False) as one:
        add(one, range(2))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_finished_blocks_are_not_forgotten_by_accident(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    interrupted(target, range(2))
    with (
        pytest.raises(OutputExistsError, match=r"3 finished records .*--resume"),
        open_journal(target, IDENTITY, resume=False, force=False),
    ):
        raise AssertionError
    with open_journal(target, IDENTITY, resume=False, force=True) as journal:
        assert journal.blocks == 0


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({**IDENTITY, "context": "128"}, "context was 64, is 128"),
        ({"model": "a"}, "context was 64, is none"),
        ({**IDENTITY, "horizon": "8"}, "horizon was none, is 8"),
    ],
)
def test_another_run_does_not_go_on(identity: dict[str, str], said: str, tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    before = interrupted(target, range(2))
    with pytest.raises(ResumeError, match=said), open_journal(target, identity, resume=True, force=False):
        raise AssertionError
    assert journal_path(target).read_bytes() == before


def test_other_records_are_not_taken_for_those_that_were_scored(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    interrupted(target, range(2))
    for number, digest, shape in ((0, "digest 1", (1, 2)), (0, "digest 0", (2, 2)), (1, "digest 0", (1, 2))):
        with (
            pytest.raises(ResumeError, match=f"block {number + 1} of the input"),
            open_journal(target, IDENTITY, resume=True, force=False) as journal,
        ):
            journal.take(number, digest, shape)
    with (
        pytest.raises(ResumeError, match="shorter"),
        open_journal(target, IDENTITY, resume=True, force=False) as journal,
    ):
        journal.require_end(1)
    assert journal_path(target).exists()


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    journal_path(target).write_text("my diary\n")
    for force in (False, True):
        with (
            pytest.raises(OutputExistsError, match="Move it away"),
            open_journal(target, IDENTITY, resume=force, force=force),
        ):
            raise AssertionError
    assert journal_path(target).read_text() == "my diary\n"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "I/O error")])
def test_a_journal_that_cannot_be_read_or_made_is_one_clear_error(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised by hand: root, who runs tests in containers, may read everything."""

    def refuse(*_: object) -> int:
        raise error

    target = tmp_path / "out.vcf"
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OutputError, match=rf"Cannot read .*out\.vcf\.journal: {error.strerror}.*make it readable"):
        read_journal(target)
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(OutputError, match=rf"Cannot write .*out\.vcf\.journal: {error.strerror}"),
        open_journal(target, IDENTITY, resume=False, force=False),
    ):
        raise AssertionError


def test_a_folder_in_the_place_of_a_journal(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    journal_path(target).mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        read_journal(target)
    with (
        pytest.raises(OutputError, match="Is a directory"),
        open_journal(target, IDENTITY, resume=False, force=False),
    ):
        raise AssertionError


HOLDER = """
import sys
from pathlib import Path
from genossm.variants.journal import open_journal
with open_journal(Path(sys.argv[1]), {}, resume=False, force=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    command = [sys.executable, "-c", HOLDER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        for force in (False, True):
            with (
                pytest.raises(OutputInUseError, match=rf"process {holder.pid} on .* is writing"),
                open_journal(target, IDENTITY, resume=False, force=force),
            ):
                raise AssertionError
        holder.stdin.close()
        assert holder.wait() == 0
    with open_journal(target, IDENTITY, resume=False, force=False):
        pass


def test_a_full_disk_costs_the_block_that_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.vcf"
    real, room = os.pwrite, [3]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        room[0] -= 1
        if room[0] >= 0:
            return real(descriptor, data, offset)
        if room[0] == -1:
            # As a file system does: what fits, then nothing.
            return real(descriptor, data[:10], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_journal(target, IDENTITY, resume=False, force=False) as journal:
        pass
    with suppress(KeyboardInterrupt), open_journal(target, IDENTITY, resume=False, force=False) as journal:
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OutputError, match=r"No space left on device.*make room and pass --resume"):
            add(journal, range(9))
        raise KeyboardInterrupt
    monkeypatch.undo()
    with open_journal(target, IDENTITY, resume=True, force=False) as journal:
        assert journal.blocks == 3
        require_blocks(journal, 3)
