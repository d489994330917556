"""Match the images of a deployment by node, position and exact time in nanoseconds."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scimill.errors import InputError
from scimill.files import check_directory, replacing
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.world import World
from scimill.sky.exchange import decode, names
from scimill.sky.exchange.discover import (
    DAMAGED,
    DUPLICATE,
    IGNORED,
    KINDS,
    ORPHAN,
    UNKNOWN,
    FileFinding,
    ImageFile,
    discover,
)
from scimill.sky.exchange.index import Pair, write_index
from scimill.sky.exchange.nodes import Nodes, read_nodes
from scimill.sky.kernels import camera, solar
from scimill.sky.params import PairConfig

NANOSECOND = 1e-9  # s
OTHER_KIND = {names.RGB: names.THERMAL, names.THERMAL: names.RGB}
KIND_NAMES = {names.RGB: "JPG", names.THERMAL: "thermal file"}
MAX_SHOWN = 20  # findings listed one by one


class Match(NamedTuple):
    """Two files of one frame."""

    rgb: ImageFile
    thermal: ImageFile


class CheckResult(NamedTuple):
    """Sizes of the images of a match, or what is wrong with its files."""

    rgb: tuple[int, int]
    thermal: tuple[int, int]
    is_counts: bool
    findings: tuple[FileFinding, ...] = ()


class Pairing(NamedTuple):
    """The pairs of a deployment, and the files that are in no pair."""

    pairs: list[Pair]
    findings: list[FileFinding]


def pair(config: PairConfig, source: Path, nodes_path: Path, folder: Path | None, world: World) -> Pairing:
    """Find and match all images; collective.

    Parameters
    ----------
    config : which pairs to keep.
    source, folder : the deployment, and the folder of the files that metadata names; see `discover.discover`.
    nodes_path : the table of nodes.
    world : the ranks, which share the reading of the files.

    Raises
    ------
    InputError : the deployment or the table cannot be read, there are no pairs, or ``strict`` finds a faulty file.

    """
    nodes = world.on_root(read_nodes, nodes_path)
    found = world.on_root(discover, source, nodes, folder)
    matches, findings = match(
        [file for file in found if isinstance(file, ImageFile)], round(config.tolerance / NANOSECOND)
    )
    findings += [finding for finding in found if isinstance(finding, FileFinding)]
    matches, excluded = _select_pointings(matches, nodes, config)
    checked = _check_all(matches, world)
    findings += excluded + [finding for check in checked for finding in check.findings]
    pairs = _make_pairs([(m, c) for m, c in zip(matches, checked, strict=True) if not c.findings], nodes)
    pairs, excluded = _select_by_sun(pairs, config.sun_elevation)
    findings += excluded
    findings.sort(key=lambda finding: (KINDS.index(finding.kind), finding.file))
    with world.together():
        _require_pairs(config, source, pairs, findings)
    return Pairing(pairs, findings)


def match(files: Iterable[ImageFile], tolerance: int = 0) -> tuple[list[Match], list[FileFinding]]:
    """Match files by node, time and position.

    Parameters
    ----------
    files : images of known nodes.
    tolerance : largest time difference, in ns, of files without an exact match.

    Returns
    -------
    Matches in order of time, and a finding for every other file.

    """
    findings = []
    by_kind: dict[str, dict[tuple[str, int, int], ImageFile]] = {names.RGB: {}, names.THERMAL: {}}
    for file in sorted(files, key=lambda file: file.path):
        first = by_kind[file.frame.kind].setdefault((file.vsn, file.frame.time, file.frame.position), file)
        if first is not file:
            findings.append(FileFinding(file.path, DUPLICATE, f"same frame as {first.path}"))
    both = by_kind[names.RGB].keys() & by_kind[names.THERMAL].keys()
    matches = [Match(by_kind[names.RGB].pop(key), by_kind[names.THERMAL].pop(key)) for key in both]
    near = (
        _match_near(list(by_kind[names.RGB].values()), list(by_kind[names.THERMAL].values()), tolerance)
        if tolerance
        else []
    )
    matched = {id(file) for pair_ in near for file in pair_}
    left = [file for kind in by_kind.values() for file in kind.values() if id(file) not in matched]
    findings += [FileFinding(f.path, ORPHAN, f"this frame has no {KIND_NAMES[OTHER_KIND[f.frame.kind]]}") for f in left]
    return sorted(matches + near, key=lambda m: (m.rgb.frame.time, m.rgb.vsn, m.rgb.frame.position)), findings


def _match_near(rgb: Sequence[ImageFile], thermal: Sequence[ImageFile], tolerance: int) -> list[Match]:
    """Match files of the same node and position by time, the nearest first."""
    places: dict[tuple[str, int], list[ImageFile]] = defaultdict(list)
    for file in thermal:
        places[file.vsn, file.frame.position].append(file)
    candidates = [
        (abs(one.frame.time - other.frame.time), number, one, other)
        for number, one in enumerate(rgb)
        for other in places[one.vsn, one.frame.position]
        if abs(one.frame.time - other.frame.time) <= tolerance
    ]
    used: set[int] = set()
    found = []
    for _, _, one, other in sorted(candidates, key=lambda c: c[:2]):
        if not {id(one), id(other)} & used:
            used |= {id(one), id(other)}
            found.append(Match(one, other))
    return found


def _select_pointings(matches: list[Match], nodes: Nodes, config: PairConfig) -> tuple[list[Match], list[FileFinding]]:
    """Keep matches with the wanted pointing, of nodes with a known place at that time."""
    kept, findings = [], []
    for found in matches:
        file = found.rgb
        node = nodes.at(file.vsn, file.frame.time)
        position = camera.true_preset(file.frame.position, node.south_preset) if node else names.NO_PRESET
        if node is None:
            detail = f"the table of nodes has no place of {file.vsn} at this time"
            findings += [FileFinding(part.path, UNKNOWN, detail) for part in found]
        elif config.pointings == "sky" and position != names.NO_PRESET and not camera.is_sky(position):
            findings += [
                FileFinding(part.path, IGNORED, f"the camera pointed at {_code(position)}, not at the sky")
                for part in found
            ]
        else:
            kept.append(found)
    return kept, findings


def _code(position: int) -> str:
    return camera.code(position) if 1 <= position <= camera.PRESETS else ""


def _check_all(matches: Sequence[Match], world: World) -> list[CheckResult]:
    """Check all matches, shared among the ranks; the results are in the order of the matches."""
    progress = Progress(len(matches), unit="pairs", what="reading", enabled=world.is_root)
    mine = []
    for number in range(world.rank, len(matches), world.size):
        mine.append(check_match(matches[number]))
        if progress.due():
            progress.update(number)
    progress.close()
    shared = world.gather_all(mine)
    return [shared[number % world.size][number // world.size] for number in range(len(matches))]


def check_match(found: Match) -> CheckResult:
    """Read both files of a match completely."""
    problems: dict[str, str] = {}
    rgb, thermal, is_counts = (0, 0), (0, 0), False
    try:
        rgb = decode.check_rgb(decode.read_bytes(found.rgb.path))
    except decode.UnreadableFile as error:
        problems[names.RGB] = str(error)
    try:
        image = decode.read_thermal(decode.read_bytes(found.thermal.path))
        rows, columns = image.celsius.shape
        thermal, is_counts = (rows, columns), image.counts is not None
    except decode.UnreadableFile as error:
        problems[names.THERMAL] = str(error)
    findings = [
        FileFinding(file.path, DAMAGED, problems[file.frame.kind])
        if file.frame.kind in problems
        else FileFinding(file.path, ORPHAN, f"its {KIND_NAMES[OTHER_KIND[file.frame.kind]]} is damaged")
        for file in found
    ]
    return CheckResult(rgb, thermal, is_counts, tuple(findings) if problems else ())


def _make_pairs(checked: Sequence[tuple[Match, CheckResult]], nodes: Nodes) -> list[Pair]:
    """Make pairs of the matches, with the place of the node and the elevation of the sun."""
    places = [nodes.at(found.rgb.vsn, found.rgb.frame.time) for found, _ in checked]
    known = [place for place in places if place is not None]
    times = np.array([found.rgb.frame.time for found, _ in checked], dtype=np.int64)
    elevations = solar.elevation(times, [node.latitude for node in known], [node.longitude for node in known])
    return [
        Pair(
            time=found.rgb.frame.time, vsn=found.rgb.vsn, position=found.rgb.frame.position,
            pointing=_code(camera.true_preset(found.rgb.frame.position, node.south_preset)),
            sun_elevation=float(elevation), latitude=node.latitude, longitude=node.longitude,
            rgb_height=check.rgb[0], rgb_width=check.rgb[1],
            thermal_height=check.thermal[0], thermal_width=check.thermal[1], is_counts=check.is_counts,
            rgb=found.rgb.path, thermal=found.thermal.path,
        )
        for (found, check), node, elevation in zip(checked, known, elevations, strict=True)
    ]  # fmt: skip


def _select_by_sun(pairs: Sequence[Pair], limits: tuple[float, float]) -> tuple[list[Pair], list[FileFinding]]:
    """Keep the pairs with the sun between two elevations."""
    kept, findings = [], []
    for found in pairs:
        if limits[0] <= found.sun_elevation <= limits[1]:
            kept.append(found)
        else:
            detail = f"the sun's elevation is {found.sun_elevation:.2f} degrees"
            findings += [FileFinding(path, IGNORED, detail) for path in (found.rgb, found.thermal)]
    return kept, findings


def _require_pairs(config: PairConfig, source: Path, pairs: Sequence[Pair], findings: Sequence[FileFinding]) -> None:
    bad = [finding for finding in findings if finding.kind != IGNORED]
    if config.strict and bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        what = f"{bad[0].kind}: {bad[0].detail}{more}"
        raise InputError(what, where=str(bad[0].file), remedy="leave out --strict to continue without them")
    if not pairs:
        what = f"no pairs in {describe_count(len(findings), 'file')}" + (f"; {findings[0].detail}" if findings else "")
        raise InputError(what, where=str(source), remedy="check that --nodes lists these nodes")


# ---- reports ----------------------------------------------------------------------------------------------------


def count_files(pairing: Pairing) -> list[tuple[str, int]]:
    """Count the pairs, and the files of each kind that are in no pair."""
    counts = Counter(finding.kind for finding in pairing.findings)
    return [("pairs", len(pairing.pairs)), *((kind, counts[kind]) for kind in KINDS if counts[kind])]


def describe_pairing(pairing: Pairing) -> str:
    """Describe the numbers of pairs and files, and the first findings, one line each."""
    lines = [f"{count:>9,}  {kind}" for kind, count in count_files(pairing)]
    shown = [finding for finding in pairing.findings if finding.kind != IGNORED]
    lines += [f"{finding.kind:<13}{finding.file}: {finding.detail}" for finding in shown[:MAX_SHOWN]]
    if len(shown) > MAX_SHOWN:
        lines.append(f"… and {len(shown) - MAX_SHOWN:,} more; list all with --report")
    return "\n".join(lines)


def write_report(pairing: Pairing, path: Path) -> None:
    """Write all findings to a CSV file, replacing an existing one."""
    with replacing(path, "report") as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([FileFinding._fields, *pairing.findings])


def write_all(pairing: Pairing, index: Path, others: Sequence[tuple[Path, Callable[[Pairing, Path], None]]]) -> None:
    """Write the index, then the other files that were asked for.

    Raises
    ------
    StorageError : a file cannot be written.

    """
    for path in (index, *(path for path, _ in others)):
        check_directory(path)
    write_index(pairing.pairs, index)
    for path, write in others:
        write(pairing, path)
