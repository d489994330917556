"""Use all that `World` and `Stop` have to exchange something; an assertion that fails ends the job."""

import os
import signal
import time

import numpy as np
import pytest

from scimill.errors import InputError
from scimill.parallel.world import STARTED, Stop, World, is_collective, launch, world


def exchange(ranks: World) -> None:
    rank, size = ranks.rank, ranks.size
    assert ranks.gather_all(rank) == list(range(size))
    assert ranks.broadcast(rank) == 0
    received = np.zeros(size, dtype=np.int64)
    ranks.all_to_all(10 * rank + np.arange(size), [1] * size, received, [1] * size)
    assert received.tolist() == [10 * sender + rank for sender in range(size)]
    for step in (1, -1):
        passed = np.zeros(1, dtype=np.int64)
        ranks.pass_around(np.array([rank]), passed, step)
        assert passed[0] == (rank - step) % size
    ranks.barrier()


def find_together(ranks: World) -> None:
    """Every rank gets the error of rank 0, and knows that the others have it too."""
    assert ranks.on_root(lambda: ranks.rank) == 0
    with pytest.raises(InputError, match="found by rank 0") as failure:
        ranks.on_root(refuse, "found by rank 0")
    assert is_collective(failure.value)
    with pytest.raises(InputError, match="found by all") as failure, ranks.together():
        refuse("found by all")
    assert is_collective(failure.value)
    with ranks.together():
        pass


def refuse(what: str) -> None:
    raise InputError(what)


def divide(ranks: World) -> None:
    assert ranks.teams(1) is ranks
    team = ranks.teams(2)
    numbers = ranks.gather_all(ranks.team_number(2))
    assert numbers == sorted(numbers)
    assert team.gather_all(ranks.rank) == [
        rank for rank, number in enumerate(numbers) if number == ranks.team_number(2)
    ]
    exchange(team)
    with pytest.raises(InputError) as failure:
        team.on_root(refuse, "found by this team")
    assert is_collective(failure.value) == (ranks.comm is None)  # the other team does not know
    alone = ranks.alone()
    assert (alone.size, alone.rank, alone.claims_report()) == (1, 0, True)


def stop(ranks: World) -> None:
    """A signal to one rank, or to all at once, stops all; so does the walltime."""
    for signalled in (*({rank} for rank in range(ranks.size)), *[set(range(ranks.size))] * 20):
        request = Stop(ranks)
        assert not request.requested()
        ranks.barrier()
        if ranks.rank in signalled:
            os.kill(os.getpid(), signal.SIGUSR2)
        while not request.requested():
            time.sleep(0.001)
        assert request.finish() == request.reason == "signal SIGUSR2"
        request.restore()
    for walltime, reason in ((time.monotonic() - STARTED + 1000, ""), (0.0, "the walltime")):
        request = Stop(ranks, walltime)
        request.record_block_time(0.5)
        assert request.requested() == bool(reason)
        assert request.finish() == reason
        request.restore()


def main() -> int:
    ranks = world()
    exchange(ranks)
    find_together(ranks)
    divide(ranks)
    stop(ranks)
    print(f"{ranks.size} ranks agree")
    return 0


if __name__ == "__main__":
    launch(main)
