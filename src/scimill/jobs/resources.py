"""Resources of a job: declared once, with units, for all schedulers."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, Duration, Kind, Switch, Whole, parameter

MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@/\-\[\]]*")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")  # 15 characters is the lowest limit of any scheduler (older PBS)
ARRAY = re.compile(r"([0-9:,-]+)(?:%([1-9][0-9]*))?")
ARRAY_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([1-9][0-9]{0,8}))?)?")
LARGEST_ARRAY = 100_000  # jobs; schedulers allow far fewer unless their configuration says otherwise
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


def _job_ids(value: object) -> object:
    """Split ids at commas; those of Flux may begin with ƒ or, in ASCII, with f."""
    return _words(value.replace("ƒ", "f") if isinstance(value, str) else value)


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"not every scheduler accepts the name {value!r}")
    return value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _directive(value: str) -> str:
    """Refuse what would not be one line that schedulers read; the rest is theirs."""
    if not value.isprintable() or not value.strip():
        raise ValueError(f"a directive is one line of options, not {value!r}")
    return value.strip()


def _queue(value: str) -> str:
    for name in value.split(","):
        _word(name)
    return value


def _array_text(value: object) -> object:
    """Accept a number for one index, as YAML reads it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _array(value: str) -> str:
    """Refuse what is not "1,3,7", "0-10:2", "0-9%4" or a mixture, and an index that is given twice."""
    match = ARRAY.fullmatch(value)
    parts = [_part(part) for part in match[1].split(",")] if match else []
    if not parts or not all(parts):
        raise ValueError(f"invalid array {value!r}")
    if sum(map(len, parts)) > LARGEST_ARRAY:
        raise ValueError(f"an array has at most {LARGEST_ARRAY} jobs")
    repeated = [index for index, times in Counter(itertools.chain(*parts)).items() if times > 1]
    if repeated:
        raise ValueError(f"index {repeated[0]} is given twice")
    return value


def _part(text: str) -> range:
    """Return the indices of "3", "0-9" or "0-9:2"; none if it is neither."""
    match = ARRAY_PART.fullmatch(text)
    if not match:
        return range(0)
    first, last, step = match.groups()
    return range(int(first), int(last or first) + 1, int(step or 1))


def indices(array: str | None) -> tuple[int, ...]:
    """Return the indices of an array job in ascending order; empty where there is no array."""
    listed = array.partition("%")[0].split(",") if array else ()
    return tuple(sorted(itertools.chain.from_iterable(map(_part, listed))))


def step_of(listed: Sequence[int]) -> int:
    """Return the step between indices, 1 for a single one; 0 where steps differ, so no range describes them."""
    steps = {later - earlier for earlier, later in itertools.pairwise(listed)} or {1}
    return steps.pop() if len(steps) == 1 else 0


def as_range(array: str) -> str:
    """Write an array whose indices have equal steps as FIRST-LAST[:STEP][%MOST], the only form that PBS reads."""
    listed, limit = indices(array), most_at_once(array)
    step = step_of(listed)
    return f"{listed[0]}-{listed[-1]}" + (f":{step}" if step > 1 else "") + (f"%{limit}" if limit else "")


def most_at_once(array: str | None) -> int | None:
    """Return how many elements of an array job may run at the same time; None if unlimited."""
    limit = (array or "").partition("%")[2]
    return int(limit) if limit else None


Memory = Annotated[
    int, BeforeValidator(_memory), PlainSerializer(lambda size: f"{size / 1024**2:.0f}MiB"),
    Kind('such as "64GiB" or "64GB"', "SIZE"),
]  # fmt: skip
Word = Annotated[str, AfterValidator(_word), Kind("letters, digits and _.+@/-", "WORD")]
Words = Annotated[tuple[Word, ...], BeforeValidator(_words), Kind("words separated by commas", "WORD,...")]
JobIds = Annotated[tuple[Word, ...], BeforeValidator(_job_ids), Kind("words separated by commas", "ID,...")]
Name = Annotated[str, AfterValidator(_name), Kind("a letter, then at most 14 letters, digits and _.-", "NAME")]
QueueNames = Annotated[str, AfterValidator(_queue), Kind("words separated by commas", "WORD,...")]
Directives = Annotated[
    tuple[Annotated[str, AfterValidator(_directive)], ...], BeforeValidator(_one_or_more),
    Kind('options of the scheduler, such as "--reservation=night"; may be repeated', "OPTIONS", is_repeated=True),
]  # fmt: skip
Array = Annotated[
    str, BeforeValidator(_array_text), AfterValidator(_array),
    Kind('such as "0-9", "0-10:2", "1,3,7", or "0-9%4" for four at a time', "FIRST-LAST[:STEP],...[%MOST]"),
]  # fmt: skip


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
    local_disk: Memory | None = parameter(
        None, "space on the local disk of each node, where it can be requested", unit="bytes"
    )
    walltime: Duration = parameter(REQUIRED, "walltime of the job", gt=0)
    queue: QueueNames | None = parameter(
        None, "queue or partition, or several of Slurm's; the machine's default if not given"
    )
    account: Word | None = parameter(None, "account or project to charge")
    filesystems: Words = parameter((), "file systems that the job needs, for schedulers that ask")
    array: Array | None = parameter(None, "indices of an array job")
    after: JobIds = parameter((), "ids of jobs that must succeed before this one starts")
    name: Name = parameter("scimill", "name of the job")
    mail: Word | None = parameter(None, "address to notify when the job ends")
    directives: Directives = parameter((), "more directives for the scheduler, without their prefix")
    image: str | None = parameter(None, "container image to run in; none if not given")
    links: Whole = parameter(
        20, "maximum number of jobs, each of which submits the next if it runs out of walltime", ge=1, le=1000
    )
    resumable: Switch = parameter(
        False, "whether a command that is not scimill's asks with exit code 75 to be run again in another job"
    )

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it names."""
        return tuple(self.queue.split(",")) if self.queue else ()

    @model_validator(mode="after")
    def _minutes_are_whole(self) -> Self:
        if self.walltime < 60:
            raise ValueError(f"a walltime of {self.walltime:g} s is below a minute, the unit of schedulers")
        return self
