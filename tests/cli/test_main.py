"""The shell around all commands: help, one-line errors, exit codes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genossm.cli.main import COMMANDS, run
from genossm.core.errors import ConfigError, ResumeError, TooManySkippedError, UsageError


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_listed_command_exists_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Usage: genossm {name}")


def test_help_of_the_self_test_says_that_its_option_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["score", "--self-test", "--help"]) == 0
    assert re.search(r"--self-test +Run this test\.\n", capsys.readouterr().out)


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["scor"]) == 2
    assert "No such command 'scor'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError, 1), (UsageError, 2), (TooManySkippedError, 3), (ResumeError, 4)]
)
def test_user_errors_print_one_line(
    error: type[Exception], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("genossm.cli.genome")

    def fail(*_: object, **__: object) -> None:
        raise error("what\n  got,   wanted")

    monkeypatch.setattr(module.command, "invoke", fail)
    assert exit_code(["genome", "info", "x"]) == code
    captured = capsys.readouterr()
    assert captured.err == "genossm: error: what got, wanted\n"
    assert captured.out == ""


def test_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("genossm.cli.genome")

    def fail(*_: object, **__: object) -> None:
        raise ConfigError("whole story")

    monkeypatch.setattr(module.command, "invoke", fail)
    with pytest.raises(ConfigError, match="whole story"):
        run(["--debug", "genome", "info", "x"])


def test_a_terminated_command_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
import sys, time
import genossm.cli.genome as module
from genossm.core.atomic import atomic_directory
from genossm.cli.main import run

def build(*_, **__):
    with atomic_directory(sys.argv[1] + "/store.zarr") as folder:
        (folder / "half").write_text("half")
        print("writing", flush=True)
        time.sleep(60)

module.command.invoke = build
run(["genome", "build", "x.fa", "-o", "y"])
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert list(tmp_path.iterdir())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
