from __future__ import annotations

import inspect

import pytest

from genossm.core import errors

ALL = [value for value in vars(errors).values() if inspect.isclass(value)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_a_users_error_with_a_documented_exit_code(error: type[errors.GenossmError]) -> None:
    assert issubclass(error, errors.GenossmError)
    assert error.__doc__
    expected = {errors.UsageError: 2, errors.TooManySkippedError: 3, errors.ResumeError: 4}
    assert error.exit_code == next((code for base, code in expected.items() if issubclass(error, base)), 1)
