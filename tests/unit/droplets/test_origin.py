"""What imported stores say about their physics and ranges, and ranges measured for generating others."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from scimill.config import Layer, build, from_stored, read_preset, read_yaml, to_yaml
from scimill.droplets import origin, ranges
from scimill.droplets.exchange import records
from scimill.droplets.fields import RANGED, UNITS
from scimill.droplets.generate import generate
from scimill.droplets.params import DropletPhysics, DropletsGenerateConfig, DropletsImportConfig
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader

ALONE = World(None)
LOW = [1e-7, 280, 1e-20, 281, 0.9, 1.0, 0.01, 2e-7, 280]
HIGH = [1e-5, 290, 1e-15, 289, 1.01, 1.2, 1.0, 2e-5, 290]


def make_records(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(LOW, HIGH, (count, 9)).astype("<f4")


@pytest.fixture
def import_records(tmp_path: Path) -> Callable[..., Path]:
    """Import an array of records; return the store."""

    def make(made: np.ndarray, *presets: str, **values: object) -> Path:
        made.astype("<f4").tofile(tmp_path / "a.data")
        layers = [read_preset("scimill.droplets/presets/import", preset) for preset in presets]
        own = {"files": [str(tmp_path / "a.data")], "block_size": 64, **values}
        config = build(DropletsImportConfig, [*layers, Layer("test", own)])
        assert records.import_files(config, Output(tmp_path / "s.h5", overwrite=True), ALONE)
        return tmp_path / "s.h5"

    return make


def stored(store: Path) -> dict[str, object]:
    with Reader.open(store) as reader:
        return dict(origin.stored_config(reader))


def test_physics_is_unknown_unless_given(import_records: Callable[..., Path]) -> None:
    found = stored(import_records(make_records(100)))
    assert found["physics"] == "unknown"
    assert not origin.is_physics_known(found)
    assert "schmidt" not in found, "no constant is made up"
    assert found["salinity_kind"] == "salt-mass"


@pytest.mark.parametrize("values", [{"schmidt": 0.6}, {"physics": "given"}, {"surface_tension": 0.07, "schmidt": 0.5}])
def test_given_physics_is_recorded_completely(import_records: Callable[..., Path], values: dict[str, object]) -> None:
    found = stored(import_records(make_records(100), **values))
    expected = {**yaml.safe_load(to_yaml(build(DropletPhysics, []))), **values, "physics": "given"}
    assert {name: found.get(name) for name in expected} == expected
    assert origin.is_physics_known(found)


@pytest.mark.parametrize("preset", ["classic", "cloud", "ntlp-2026"])
def test_presets_state_the_physics_of_the_generator(import_records: Callable[..., Path], preset: str) -> None:
    generated = build(
        DropletsGenerateConfig, [read_preset("scimill.droplets/presets", preset), Layer("test", {"count": 1})]
    )
    found = stored(import_records(make_records(100), preset))
    names = yaml.safe_load(to_yaml(build(DropletPhysics, [])))
    assert {name: found.get(name) for name in names} == {name: getattr(generated, name) for name in names}


def test_stating_constants_of_unknown_physics_is_refused() -> None:
    with pytest.raises(ConfigError, match="physics is unknown, but schmidt is given"):
        build(DropletsImportConfig, [Layer("test", {"files": ["a"], "physics": "unknown", "schmidt": 0.6})])


def test_a_stored_configuration_is_read_back(import_records: Callable[..., Path]) -> None:
    for values in ({}, {"schmidt": 0.6}):
        with Reader.open(import_records(make_records(100), **values)) as reader:
            text = str(reader.provenance["config"])
        assert to_yaml(from_stored(DropletsImportConfig, text)) == text


def test_earlier_imports_have_unknown_physics() -> None:
    assert not origin.is_physics_known({"files": ["a.data"], "salinity_kind": "salt-mass"})
    assert origin.is_physics_known({"count": 10, "schmidt": 0.6})


def test_ranges_are_those_of_accepted_records(import_records: Callable[..., Path]) -> None:
    made = make_records(1000)
    made[3, 0], made[4, 7], made[5, 6], made[6, 2] = 1e-9, 1.0, np.nan, 0  # accepted; too large; not finite; no salt
    with Reader.open(import_records(made)) as reader:
        found = origin.measured_ranges(reader)
    good = np.delete(made, [4, 5], axis=0)
    for index in range(len(RANGED)):
        column = good[:, index][good[:, index] > 0] if index == 2 else good[:, index]
        assert found[index] == (float(column.min()), float(column.max())), RANGED[index]
    assert found[0][0] == pytest.approx(1e-9)


def test_ranges_of_a_store_without_them_are_computed(
    import_records: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader.open(import_records(make_records(300))) as reader:
        expected = origin.measured_ranges(reader)
        monkeypatch.setattr(origin, "EXTREMES", ("as in", "an earlier version"))
        assert origin.measured_ranges(reader) == expected


def test_a_store_without_accepted_records_has_no_ranges(import_records: Callable[..., Path]) -> None:
    made = make_records(100)
    made[:, 7] = 1e-9
    with Reader.open(import_records(made)) as reader, pytest.raises(InputError, match="no accepted row"):
        origin.measured_ranges(reader)


def test_impossible_records_are_reported_flagged_and_counted(
    import_records: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    made = make_records(200)
    made[[1, 100], 0], made[150, 4], made[7, 8], made[60, 6] = -1, -0.5, np.nan, 0
    store = import_records(made)
    text = capfd.readouterr().err
    assert (
        "impossible records, kept and flagged: 2 with a radius of 0 or less, 1 with a value that is not finite" in text
    )
    assert "flagged as weird: 5 of 200 records" in text
    with h5py.File(store) as file:
        assert file["blocks"]["impossible"].sum(axis=0).tolist() == [1, 2, 0, 1, 0, 0, 1]
        assert np.flatnonzero(file["weird"][:]).tolist() == [1, 7, 60, 100, 150]


def test_generate_accepts_measured_ranges(import_records: Callable[..., Path], tmp_path: Path) -> None:
    made = make_records(2000)
    made[:, 1] = made[:, 3] + np.random.default_rng(2).uniform(-1, 1, 2000)
    ranges.measure(import_records(made, "ntlp-2026"), (0.0, 1.0), tmp_path / "ranges.yaml", overwrite=False)
    config = build(DropletsGenerateConfig, [read_yaml(tmp_path / "ranges.yaml"), Layer("test", {"count": 100})])
    assert config.salinity_kind == "solute-term"
    assert config.temperature_offset_range == pytest.approx((-1, 1), abs=0.01)
    assert config.radius_range == pytest.approx((made[:, 0].min(), made[:, 0].max()), rel=1e-7)
    generate(config, Output(tmp_path / "new.h5"), ALONE)


def test_quantiles_narrow_the_ranges(import_records: Callable[..., Path]) -> None:
    made = make_records(999)
    found = yaml.safe_load(ranges.measure(import_records(made), (0.05, 0.9), None, overwrite=False))
    columns = dict(zip(UNITS, made.T.astype(float), strict=True))
    for name, field in {**ranges.FIELDS, "temperature_range": "initial_temperature"}.items():
        low, high = (float(value) for value in found[name])
        expected = np.quantile(columns[field], (0.05, 0.9))
        assert (low, high) == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1), (0, 1.1)])
def test_quantiles_that_are_no_range_are_refused(tmp_path: Path, quantiles: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="quantiles"):
        ranges.measure(tmp_path / "s.h5", quantiles, None, overwrite=False)


def test_ranges_that_generate_refuses_are_refused(import_records: Callable[..., Path]) -> None:
    made = make_records(100)
    made[:, 4] *= 100  # per cent
    with pytest.raises(ConfigError, match="relative_humidity_range exceeds 10"):
        ranges.measure(import_records(made, kind="records"), (0, 1), None, overwrite=False)
