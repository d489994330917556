"""Write the result of pairing as an Excel workbook: a summary, the pairs, and every file that is in no pair."""

import dataclasses
from pathlib import Path

from openpyxl import Workbook

from scimill.files import replacing
from scimill.sky.exchange.discover import FileFinding
from scimill.sky.exchange.index import COLUMNS
from scimill.sky.exchange.nodes import write_time
from scimill.sky.pair import Pairing, count_files

MOST_ROWS = 1_000_000  # a sheet holds 1 048 576


def write_workbook(pairing: Pairing, path: Path) -> None:
    """Write the workbook, replacing an existing one."""
    book = Workbook(write_only=True)
    overview = book.create_sheet("summary")
    overview.append(["kind", "number"])
    for row in count_files(pairing):
        overview.append(list(row))
    if max(len(pairing.pairs), len(pairing.findings)) > MOST_ROWS:
        overview.append([f"the other sheets have only the first {MOST_ROWS:,} rows"])
    findings = book.create_sheet("files in no pair")
    findings.append(list(FileFinding._fields))
    for finding in pairing.findings[:MOST_ROWS]:
        findings.append([str(finding.file), finding.kind, finding.detail])
    pairs = book.create_sheet("pairs")
    pairs.append(list(COLUMNS))
    for found in pairing.pairs[:MOST_ROWS]:
        values = dataclasses.asdict(found) | {"time": write_time(found.time)}
        pairs.append([str(value) if isinstance(value, Path) else value for value in values.values()])
    with replacing(path, "workbook") as part:
        book.save(part)
