"""kill -9 of a rank in each phase of writing; scripts/fault_campaign.sh does it at many more instants."""

import random

import pytest

from faults.campaign import CLOCK, PLACES, Campaign

pytestmark = pytest.mark.usefixtures("fuzzers_beside")

SEED = 20_260_101
CASES = [
    *(place for place in PLACES if place[0] not in ("opening", "rename")),
    ("opening", 2, 1), ("rename", 2, 0), ("rename", 1, 0), (CLOCK, 2, 1), (CLOCK, 1, 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def campaign(compiled_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("campaign"))


@pytest.mark.parametrize(("phase", "ranks", "rank"), CASES)
def test_a_killed_run_resumes_to_the_same_bytes(campaign: Campaign, phase: str, ranks: int, rank: int) -> None:
    name = f"{phase}-{ranks}-{rank}"
    kill = campaign.draw(phase, ranks, rank, random.Random(f"{SEED} {name}"))
    outcome = campaign.run(kill, name)
    assert outcome.good, outcome
