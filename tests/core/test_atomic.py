"""Whole or not at all: errors, kills, races, full disks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genossm.core.atomic import atomic_directory, atomic_file
from genossm.core.errors import OutputError, OutputExistsError

WRITER = """
import sys, time
from pathlib import Path
from genossm.core.atomic import atomic_directory, atomic_file
from genossm.core.errors import OutputExistsError
kind, target, name, force, gate = sys.argv[1:]
try:
    if kind == "file":
        with atomic_file(target, force=force == "force") as temporary, open(temporary, "w") as handle:
            handle.write(name)
            print("ready", flush=True)
            while not Path(gate).exists(): time.sleep(0.001)
            handle.write(name)
    else:
        with atomic_directory(target, force=force == "force", marker="a") as temporary:
            (temporary / "a").write_text(name)
            print("ready", flush=True)
            while not Path(gate).exists(): time.sleep(0.001)
            (temporary / "b").write_text(name)
    print("done")
except OutputExistsError as error:
    print("refused")
"""


def start_writer(kind: str, target: Path, name: str, *, force: bool, gate: Path) -> subprocess.Popen[str]:
    arguments = [kind, str(target), name, "force" if force else "no", str(gate)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    # Not communicate(): it would miss what readline() has buffered already.
    assert process.stdout is not None
    with process.stdout as printed:
        said = printed.read().strip()
    process.wait(timeout=60)
    return said


def content(target: Path) -> str:
    if target.is_file():
        return target.read_text()
    return (target / "a").read_text() + (target / "b").read_text()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".tmp-")]


def test_file_appears_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.vcf.gz"
    with atomic_file(target) as temporary:
        assert temporary.name.endswith("-x.vcf.gz")
        assert temporary.parent == tmp_path
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["x.vcf.gz"]


def test_directory_appears_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.zarr"
    with atomic_directory(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


@pytest.mark.parametrize("make", [atomic_file, atomic_directory])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, make: type, error: type[BaseException]) -> None:
    with pytest.raises(error), make(tmp_path / "x") as temporary:  # noqa: PT012
        (temporary / "a" if temporary.is_dir() else temporary).write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [atomic_file, atomic_directory])
def test_an_error_leaves_the_old_one(tmp_path: Path, make: type) -> None:
    target = tmp_path / "x"
    with make(target) as temporary:
        (temporary / "a" if temporary.is_dir() else temporary).write_text("old")
    with pytest.raises(ValueError, match="now"), make(target, force=True) as temporary:  # noqa: PT012
        (temporary / "a" if temporary.is_dir() else temporary).write_text("new")
        raise ValueError("now")
    assert (target / "a" if target.is_dir() else target).read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("make", [atomic_file, atomic_directory])
def test_nothing_is_overwritten_without_force(tmp_path: Path, make: type) -> None:
    target = tmp_path / "x"
    target.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"exists already.*--force"), make(target):
        pytest.fail("the block must not run")
    assert target.read_text() == "mine"


def test_force_replaces(tmp_path: Path) -> None:
    file, folder = tmp_path / "f", tmp_path / "d"
    file.write_text("old")
    folder.mkdir()
    (folder / "old").write_text("old")
    with atomic_file(file, force=True) as temporary:
        temporary.write_text("new")
    with atomic_directory(folder, force=True) as temporary:
        (temporary / "new").write_text("new")
    assert file.read_text() == "new"
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert leftovers(tmp_path) == []


def test_force_does_not_remove_a_folder_of_another_kind(tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter1").write_text("years")
    with (
        pytest.raises(OutputExistsError, match=r"holds no zarr\.json"),
        atomic_directory(target, force=True, marker="zarr.json"),
    ):
        pytest.fail("the block must not run")
    assert (target / "chapter1").read_text() == "years"
    (target / "chapter1").unlink()
    with atomic_directory(target, force=True, marker="zarr.json") as temporary:
        (temporary / "zarr.json").write_text("{}")
    with atomic_directory(target, force=True, marker="zarr.json") as temporary:
        (temporary / "zarr.json").write_text("[]")
    assert (target / "zarr.json").read_text() == "[]"


def test_force_on_a_link_replaces_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / "a").write_text("kept")
    link.symlink_to(real)
    with atomic_directory(link, force=True) as temporary:
        (temporary / "a").write_text("new")
    assert (real / "a").read_text() == "kept"
    assert (link / "a").read_text() == "new"
    assert not link.is_symlink()
    assert leftovers(tmp_path) == []


def test_force_on_a_link_to_a_file_replaces_the_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to("elsewhere/real")
    with pytest.raises(OutputExistsError, match="exists already"), atomic_file(link):
        pytest.fail("the block must not run")
    with atomic_file(link, force=True) as temporary:
        assert temporary.parent == real.parent
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "link", "real"]


@pytest.mark.parametrize("force", [False, True])
def test_a_pipe_or_device_is_not_replaced(tmp_path: Path, force: bool) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for path in (pipe, link):
        for make in (atomic_file, atomic_directory):
            with pytest.raises(OutputExistsError, match="is a device or pipe"), make(path, force=force):
                pytest.fail("the block must not run")
    assert pipe.is_fifo()
    assert link.is_char_device()
    assert leftovers(tmp_path) == []


def test_force_on_a_broken_link_replaces_the_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with atomic_file(link, force=True) as temporary:
        temporary.write_text("new")
    assert not link.is_symlink()
    assert link.read_text() == "new"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="is a directory"), atomic_file(tmp_path, force=True):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("make", [atomic_file, atomic_directory])
def test_a_missing_folder_is_named(tmp_path: Path, make: type) -> None:
    with pytest.raises(OutputError, match=r"the folder .*/no does not exist"), make(tmp_path / "no" / "x"):
        pytest.fail("the block must not run")


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    target = tmp_path / "x"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OutputError, match=rf"Cannot write {target}: File too large"), atomic_file(target) as temporary:  # noqa: PT012
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            temporary.write_bytes(b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_os_errors_pass_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x") as temporary:  # noqa: PT012
        temporary.write_text("x")
        (elsewhere / "missing").read_text()
    target = elsewhere / "x"
    with pytest.raises(PermissionError), atomic_file(target) as temporary:  # noqa: PT012
        temporary.write_text("x")
        raise PermissionError(13, "Permission denied", str(tmp_path / "somebody_elses"))


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("force", [False, True])
def test_of_racing_processes_one_whole_artefact_stays(tmp_path: Path, kind: str, force: bool) -> None:
    target, gate = tmp_path / "x", tmp_path / "gate"
    writers = {name: start_writer(kind, target, name, force=force, gate=gate) for name in "pqrstu"}
    gate.touch()
    said = {name: finish(process) for name, process in writers.items()}
    winners = [name for name, word in said.items() if word == "done"]
    assert set(said.values()) <= {"done", "refused"}
    assert len(winners) == (len(writers) if force else 1)
    assert content(target) in {2 * name for name in winners}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("old", [False, True])
def test_a_killed_process_leaves_the_target_as_it_was(tmp_path: Path, kind: str, old: bool) -> None:
    target, gate = tmp_path / "x", tmp_path / "gate"
    if old:
        gate.touch()
        first = start_writer(kind, target, "old", force=False, gate=gate)
        finish(first)
        gate.unlink()
    process = start_writer(kind, target, "new", force=True, gate=gate)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    assert target.exists() == old
    if old:
        assert content(target) == "oldold"
    # What it left is hidden and does not stand in the way of the next.
    assert len(leftovers(tmp_path)) == 1
    gate.touch()
    again = start_writer(kind, target, "new", force=True, gate=gate)
    assert finish(again) == "done"
    assert content(target) == "newnew"


def test_readers_never_see_a_missing_file_while_it_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("0" * 1000)
    end = time.monotonic() + 0.5
    seen = 0
    process = subprocess.Popen(
        [sys.executable, "-c", f"while True: assert len(open({str(target)!r}).read()) == 1000"], stderr=subprocess.PIPE
    )
    while time.monotonic() < end:
        with atomic_file(target, force=True) as temporary:
            temporary.write_text(str(seen % 10) * 1000)
        seen += 1
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert seen > 10
