"""Resources of a job: declared once, with units, for all schedulers."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, Duration, Kind, Whole, parameter

MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@/\-\[\]]*")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")  # 15 characters is the lowest limit of any scheduler (older PBS)
ARRAY = re.compile(r"(\d+)-(\d+)(?:%(\d+))?")
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def _memory(value: object) -> object:
    """Read "64GiB" or "64GB"; refuse a bare number, whose unit is unknown."""
    if match := MEMORY.fullmatch(str(value).strip()):
        number, prefix, binary = match.groups()
        return round(float(number) * (1024 if binary else 1000) ** POWERS[prefix.upper()])
    raise ValueError("give a size with a unit, e.g. 64GiB")


def _word(value: str) -> str:
    """Refuse quotes, blanks and shell characters, which a directive cannot hold."""
    if not WORD.fullmatch(value):
        raise ValueError(f"{value!r} has characters that no scheduler accepts")
    return value


def _words(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) else value


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"not every scheduler accepts the name {value!r}")
    return value


def _array(value: str) -> str:
    match = ARRAY.fullmatch(value)
    if not match or int(match[1]) > int(match[2]) or match[3] == "0":
        raise ValueError(f"invalid array {value!r}")
    return value


def indices(array: str | None) -> range:
    """Return the indices of an array job; empty where there is no array."""
    match = ARRAY.fullmatch(array or "")
    return range(int(match[1]), int(match[2]) + 1) if match else range(0)


Memory = Annotated[
    int, BeforeValidator(_memory), PlainSerializer(lambda size: f"{size / 1024**2:.0f}MiB"),
    Kind('such as "64GiB" or "64GB"', "SIZE"),
]  # fmt: skip
Word = Annotated[str, AfterValidator(_word), Kind("letters, digits and _.+@/-", "WORD")]
Words = Annotated[tuple[Word, ...], BeforeValidator(_words), Kind("words separated by commas", "WORD,...")]
Name = Annotated[str, AfterValidator(_name), Kind("a letter, then at most 14 letters, digits and _.-", "NAME")]
Array = Annotated[
    str, AfterValidator(_array), Kind('such as "0-9", or "0-9%4" for four at a time', "FIRST-LAST[%MOST]")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Resources:
    """Resources."""

    nodes: Whole = parameter(1, "nodes", ge=1, le=10**6)
    ranks_per_node: Whole | None = parameter(
        None, "ranks per node; if not given, one per GPU, or as many as fit on the cores", ge=1
    )
    threads_per_rank: Whole = parameter(1, "threads per rank", ge=1)
    gpus_per_node: Whole = parameter(0, "GPUs per node", ge=0)
    memory: Memory | None = parameter(None, "memory per node; the scheduler's default if not given", unit="bytes")
    walltime: Duration = parameter(REQUIRED, "walltime of the job", gt=0)
    queue: Word | None = parameter(None, "queue or partition; the machine's default if not given")
    account: Word | None = parameter(None, "account or project to charge")
    filesystems: Words = parameter((), "file systems that the job needs, for schedulers that ask")
    array: Array | None = parameter(None, "indices of an array job")
    after: Words = parameter((), "ids of jobs that must succeed before this one starts")
    name: Name = parameter("scimill", "name of the job")
    mail: Word | None = parameter(None, "address to notify when the job ends")
    image: str | None = parameter(None, "container image to run in; none if not given")
    links: Whole = parameter(
        20, "maximum number of jobs, each of which submits the next if it runs out of walltime", ge=1, le=1000
    )

    @model_validator(mode="after")
    def _minutes_are_whole(self) -> Self:
        if self.walltime < 60:
            raise ValueError(f"a walltime of {self.walltime:g} s is below a minute, the unit of schedulers")
        return self
