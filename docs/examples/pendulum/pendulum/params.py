"""Parameters: each is declared once."""

from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, File, PositiveRange, Run, Whole, parameter


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateConfig(File, Run):
    """Pendulums."""

    count: Whole = parameter(REQUIRED, "pendulums to generate", ge=1, le=10**13)
    block_size: Whole = parameter(4096, "pendulums per block", ge=1, le=10**7)
    angle_range: PositiveRange = parameter((0.1, 3.0), "initial angle", unit="rad")
    length_range: PositiveRange = parameter((0.1, 2.0), "length", unit="m")
    time_range: PositiveRange = parameter((0.01, 4.0), "time since the release", unit="s")
