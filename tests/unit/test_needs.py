"""A need that the machine does not meet: the test is skipped; in CI it fails."""

import pytest

import needs


@pytest.fixture(autouse=True)
def two_needs(monkeypatch):
    monkeypatch.setattr(needs, "NEEDS", {"something": lambda: "", "a tape drive": lambda: "no such device"})
    needs.missing.cache_clear()
    yield
    needs.missing.cache_clear()


@pytest.mark.parametrize(("in_ci", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)])
def test_a_missing_need_skips_and_fails_in_ci(monkeypatch, in_ci, outcome):
    monkeypatch.setattr(needs, "IN_CI", in_ci)
    needs.require("something")
    with pytest.raises(outcome, match="needs a tape drive: no such device"):
        needs.require("something", "a tape drive")


def test_an_unknown_need_is_an_error():
    with pytest.raises(KeyError):
        needs.require("tape drive")


def test_a_program_that_is_missing_or_fails_is_named():
    assert needs.programs("sh") == ""
    assert needs.programs("sh", "no-such-program") == "no-such-program not found on PATH"
    assert needs.attempt("true") == ""
    assert needs.attempt("sh", "-c", "echo not allowed >&2; exit 3") == "not allowed"
    assert needs.attempt("false") == "false exits with 1"
    assert "No such file" in needs.attempt("no-such-program")
