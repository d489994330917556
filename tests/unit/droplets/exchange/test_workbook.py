"""The workbook of weird droplets, read back with openpyxl."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from scimill.droplets.exchange import workbook
from scimill.droplets.generate import generate
from scimill.droplets.kernels.weird import CLASSES
from scimill.droplets.params import DropletsGenerateConfig
from scimill.errors import ConfigError, StorageError
from scimill.files import check_workbook
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader

ALONE = World(None)
HOT, SMALL = "outputs-temperature_too_large", "outputs-radius_too_small"


@pytest.fixture(scope="module", params=[False, True], ids=["resampled", "kept"])
def store(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    configure: Callable[..., DropletsGenerateConfig],
) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    config = configure(count=4000, block_size=512, samples=2, tolerance=1e-4, keep_weird=request.param, seed=7)
    generate(config, Output(path), ALONE)
    return path


def counts(store: Path) -> dict[str, int]:
    with Reader.open(store) as reader:
        return dict(zip(CLASSES, reader.column("weird_by_class").sum(axis=0).tolist(), strict=True))


def rows(path: Path, sheet: str) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(path)[sheet].iter_rows(values_only=True))


def test_sheets_columns_and_counts_are_the_known_ones(store: Path, tmp_path: Path) -> None:
    workbook.write(store, tmp_path / "w.xlsx", most_rows=100_000)
    assert openpyxl.load_workbook(tmp_path / "w.xlsx").sheetnames == ["summary", *CLASSES]
    assert all(len(name) <= 31 for name in CLASSES)  # Excel's limit
    hot = rows(tmp_path / "w.xlsx", HOT)
    assert hot[0] == (
        "initial_radius", "initial_temperature", "salinity", "air_temperature", "relative_humidity", "rhoa", "t_final",
        "radius", "temperature",
    )  # fmt: skip
    assert rows(tmp_path / "w.xlsx", CLASSES[0])[0][-2:] == ("t_final", "error")
    assert counts(store)[HOT] > 100
    assert len(hot) - 1 == counts(store)[HOT]


def test_every_row_belongs_to_its_class(store: Path, tmp_path: Path) -> None:
    workbook.write(store, tmp_path / "w.xlsx", most_rows=100_000)
    hot = np.array(rows(tmp_path / "w.xlsx", HOT)[1:], dtype=float)
    small = np.array(rows(tmp_path / "w.xlsx", SMALL)[1:], dtype=float)
    assert (hot[:, 8] > 319.3).all()
    assert (small[:, 7] < 0.97e-8).all()


def test_the_summary_has_shares_and_the_number_left_out(store: Path, tmp_path: Path) -> None:
    workbook.write(store, tmp_path / "w.xlsx", most_rows=50)
    summary = {row[0]: row[1:] for row in rows(tmp_path / "w.xlsx", "summary") if row}
    total = counts(store)[HOT]
    with Reader.open(store) as reader:
        drawn = int(reader.column("attempts").sum())
    assert summary[HOT][:4] == (total, pytest.approx(total / drawn), 50, total - 50)
    assert summary["droplets drawn"][0] == drawn
    assert summary["seed"][0] == 7
    assert summary["accepted_temperature"][:2] == (264.81, 319.3)


def test_the_sample_comes_evenly_from_all_blocks(store: Path) -> None:
    with Reader.open(store) as reader:
        everything = [r["temperature"] for r in workbook._sample(reader, HOT, 10**6)]
        sample = np.concatenate([r["temperature"] for r in workbook._sample(reader, HOT, 100)])
    assert len(everything) == 8  # every block has some
    whole = np.concatenate(everything)
    assert len(sample) == 100
    assert np.isin(sample, whole).all()
    # Positions of 100 out of n without replacement: their mean is (n − 1)/2 with this standard deviation.
    places = np.flatnonzero(np.isin(whole, sample))
    n = len(whole)
    deviation = np.sqrt((n + 1) * (n - 100) / (12 * 100))
    assert abs(places.mean() - (n - 1) / 2) < 4 * deviation


def test_a_workbook_that_cannot_be_written_is_refused_in_advance(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="xlsx"):
        check_workbook(tmp_path / "weird.csv", "--weird")
    with pytest.raises(StorageError, match="does not exist"):
        check_workbook(tmp_path / "missing" / "weird.xlsx", "--weird")
