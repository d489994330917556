"""A seeded thousand of the states that a power cut can leave; crash_states.py tries a hundred thousand."""

import pytest

from faults import crash_states
from faults.crash_states import KINDS, Operation

SEED = 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_is_resumed_to_the_same_bytes(kind: str) -> None:
    outcome = crash_states.run(kind, 334, SEED, processes=1)
    assert len(outcome.seen) >= 334
    assert outcome.wrong == []


# ---- the model sees what it is to see ---------------------------------------------------------------------------


def left_by(*operations: Operation) -> set[tuple[tuple[str, bytes | None], ...]]:
    """Return all states that a power cut can leave of these operations."""
    cuts = crash_states.Cuts(list(operations), "seed")
    return {tuple(sorted(crash_states.leave(list(operations), cuts[number]).items())) for number in range(1000)}


def test_a_name_without_its_bytes_and_torn_bytes_are_among_the_states() -> None:
    make, write = Operation("make", 1, "a"), Operation("write", 1, data=b"x" * 512 + b"y" * 512)
    assert left_by(make, write) == {
        (),
        (("a", b""),),
        (("a", bytes(1024)),),
        (("a", b"x" * 512),),
        (("a", b"x" * 512 + bytes(512)),),
        (("a", bytes(512) + b"y" * 512),),
        (("a", b"x" * 512 + b"y" * 512),),
    }


def test_what_was_synced_stays() -> None:
    operations = [Operation("make", 1, "a"), Operation("write", 1, data=b"x"), Operation("sync", 1)]
    states = left_by(*operations, Operation("move", name="a", target="b"))
    assert (("b", b"x"),) in states
    assert not {(("b", b""),)} & states


def test_a_store_published_before_its_data_were_synced_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out every sync: then a name may be on the disk before the bytes."""
    record = crash_states.record

    def forgetful(kind: str, folder: crash_states.Path) -> list[Operation]:
        return [operation for operation in record(kind, folder) if operation.kind != "sync"]

    monkeypatch.setattr(crash_states, "record", forgetful)
    outcome = crash_states.run("store", 200, SEED, processes=1)
    assert any("published too early" in complaint for complaint in outcome.wrong)
