import errno
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from scimill import config as configuration
from scimill import pictures
from scimill.droplets import CAMPAIGN, arguments, fields, generate, solve
from scimill.droplets.exchange import records
from scimill.droplets.kernels.weird import BITS, CLASSES
from scimill.droplets.params import DropletsImportConfig, SolveConfig
from scimill.droplets.pictures import outcomes, plots, population
from scimill.errors import InputError, StorageError
from scimill.parallel.world import Stop, world
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.reader import Reader
from scimill.store.writer import open_writer

PICTURES = ["inputs.png", "outcomes.png", "weird.png", "trajectories.png"]
KINDS = {
    "classic": {},
    "several times": {"samples": 3},
    "kept": {"keep_weird": True},
    "kept, several times": {"keep_weird": True, "samples": 3},
}
HOT, SMALL = BITS["outputs-temperature_too_large"], BITS["outputs-radius_too_small"]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory, configure):
    """Generate a store of droplets, once for each set of values."""
    folder, made = tmp_path_factory.mktemp("stores"), {}

    def store(preset="classic", **values):
        key = (preset, *sorted(values.items()))
        if key not in made:
            made[key] = folder / f"{len(made)}.h5"
            config = configure(preset, **{"count": 20_000, "block_size": 4096, **values})
            assert generate.generate(config, Output(made[key]), world())
        return made[key]

    return store


@pytest.fixture
def low_resolution(monkeypatch):
    monkeypatch.setattr(pictures, "DPI", 40)


def png_size(path):
    """Return width and height of a PNG file, from its first chunk; its last chunk must be present, too."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def sizes(folder):
    return {path.name: png_size(path) for path in folder.iterdir()}


# ---- pictures ---------------------------------------------------------------------------------------------------


def test_store_becomes_four_slides_of_one_size(make_store, tmp_path):
    made = plots.plot_store(make_store(), tmp_path / "new")
    assert made == [tmp_path / "new" / name for name in PICTURES]
    assert sizes(tmp_path / "new") == dict.fromkeys(PICTURES, (2400, 1350))


@pytest.mark.parametrize(
    "values",
    [
        {"samples": 3, "keep_weird": True},
        {"count": 1, "keep_weird": True},
        {"count": 50, "relative_humidity_range": (0.7, 0.7), "radius_range": (1e-4, 1e-4)},
    ],
    ids=["kept, several times", "one droplet", "ranges of no width, none weird"],
)
def test_other_kinds_of_stores_are_drawn(values, make_store, tmp_path, low_resolution):
    plots.plot_store(make_store(**values), tmp_path)
    assert sorted(sizes(tmp_path)) == sorted(PICTURES)


def test_imported_records_are_drawn_without_invalid_ones(make_store, tmp_path, low_resolution):
    with Reader.open(make_store()) as reader:
        columns = np.stack([reader.rows(0, name) for name in fields.UNITS], axis=1).astype("<f4")
    columns[3, 2], columns[5, 7], columns[9, 8] = 0, np.nan, np.inf
    (tmp_path / "x.data").write_bytes(columns.tobytes())
    store = tmp_path / "x.h5"
    records.import_files(DropletsImportConfig(files=(str(tmp_path / "x.data"),)), Output(store), world())
    with Reader.open(store) as reader:
        sample = population.read_sample(reader)
    assert "invalid records left out: 3" in sample.content
    assert sample.accepted.values["time"].size + sample.weird.values["time"].size == 4093
    plots.plot_store(store, tmp_path / "drawn")
    assert sorted(sizes(tmp_path / "drawn")) == sorted(PICTURES)


@pytest.mark.parametrize("values", [{}, {"salinity": 0.0}, {"relative_humidity": 1.05}, {"max_steps": 10}])
def test_a_single_droplet_becomes_a_slide(values, tmp_path):
    path = tmp_path / "droplet.picture"
    plots.plot_trajectory(solve.trajectory(SolveConfig(**values)), path)
    assert png_size(path) == (2400, 1350)
    assert list(tmp_path.iterdir()) == [path]


def test_labels_have_the_units_of_the_store(make_store):
    with Reader.open(make_store()) as reader:
        labels = plots.axis_labels(reader)
        units = {field.name: field.units for field in reader.layout.fields}
    assert labels["initial_radius"] == "initial radius (m)"
    assert labels["salinity"] == "salt mass (kg)"
    assert labels["relative_humidity"] == "relative humidity"
    assert all(f"({units[name].replace('m3', 'm³')})" in label for name, label in labels.items() if units[name] != "1")
    with Reader.open(make_store("ntlp-2026")) as reader:
        assert plots.axis_labels(reader)["salinity"] == "solute term (kg)"


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_missing_directory_is_refused(make_store, tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        plots.plot_store(make_store(), tmp_path / "not" / "there")
    with pytest.raises(StorageError, match="does not exist"):
        plots.plot_trajectory(solve.trajectory(SolveConfig()), tmp_path / "not" / "there.png")
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_the_folder_is_refused(make_store, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError):
        plots.plot_store(make_store(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no store")
    with pytest.raises(InputError):
        plots.plot_store(tmp_path / "text.h5", tmp_path)


def test_failed_picture_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "droplet.png"
    path.write_bytes(b"old")

    def fail(self: Figure, part: Path, **_: object) -> None:
        part.write_bytes(b"\x89PNG half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(StorageError, match="disk is full"):
        plots.plot_trajectory(solve.trajectory(SolveConfig()), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---- trajectories through stored points -------------------------------------------------------------------------

ULP = 2.0**-23


@pytest.mark.parametrize("preset", ["classic", "ntlp-2026"])
@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_recomputed_trajectories_pass_through_the_stored_points(preset, values, make_store):
    with Reader.open(make_store(preset, **values)) as reader:
        drawn, many = population.read_group(reader), population.read_group(reader, 400)
        model = arguments.solver_settings(population.read_config(reader))
    shown = outcomes.recompute_trajectories(model, drawn)
    assert max(shown.radius_deviation, shown.temperature_deviation) <= ULP
    again = outcomes.recompute_trajectories(model, many)
    at = np.stack([np.searchsorted(line, times) for line, times in zip(again.times, many.times, strict=True)])
    assert np.array_equal(np.take_along_axis(again.times, at, axis=1), many.times)
    off = np.abs(np.take_along_axis(again.radius, at, axis=1) / many.radius.astype(float) - 1)
    assert off.size > 350
    assert np.count_nonzero(off > ULP) <= 0.01 * off.size  # droplets about to vanish magnify the solver's tolerance
    assert off.max() == pytest.approx(again.radius_deviation)
    assert again.radius_deviation <= 1e-6
    assert again.temperature_deviation <= ULP


def test_wrong_stored_points_are_detected(make_store):
    with Reader.open(make_store()) as reader:
        group, model = population.read_group(reader), arguments.solver_settings(population.read_config(reader))
    wrong = group._replace(radius=group.radius * np.float32(1.001), temperature=group.temperature + 1)
    again = outcomes.recompute_trajectories(model, wrong)
    assert again.radius_deviation == pytest.approx(1e-3, rel=0.01)
    assert again.temperature_deviation > 3e-3


def test_trajectories_use_the_constants_of_the_store(make_store):
    with Reader.open(make_store(water_density=1100, tolerance=1e-7)) as reader:
        group, model = population.read_group(reader), arguments.solver_settings(population.read_config(reader))
    assert outcomes.recompute_trajectories(model, group).radius_deviation < 1e-6
    assert outcomes.recompute_trajectories(arguments.solver_settings(SolveConfig()), group).radius_deviation > 1e-4


def test_group_spans_the_initial_radii_and_is_accepted(make_store):
    with Reader.open(make_store(keep_weird=True)) as reader:
        group = population.read_group(reader)
    assert group.inputs.shape == (6, population.LINES)
    logs = np.log10(group.inputs[0])
    assert np.allclose(np.diff(logs), 5 / (population.LINES + 1), atol=0.1)
    assert np.all((group.radius >= 0.97e-8) & (group.temperature <= 1.03 * 310))


# ---- reading ----------------------------------------------------------------------------------------------------


def whole(reader, name):
    return np.concatenate([reader.rows(block, name) for block in range(reader.layout.blocks)])


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_whole_sample_of_a_small_store_is_the_store(values, make_store):
    with Reader.open(make_store(**values)) as reader:
        sample, counts = population.read_sample(reader), population.read_counts(reader)
        radius = whole(reader, "radius")
        flags = whole(reader, "weird") if not reader.layout.tables else np.zeros(radius.shape, int)
        first = np.broadcast_to(whole(reader, "initial_radius").reshape(-1, *[1] * (radius.ndim - 1)), radius.shape)
        attempts = int(reader.column("attempts").sum())
    assert np.array_equal(sample.accepted.values["radius"], radius[flags == 0])
    assert np.array_equal(sample.accepted.values["initial_radius"], first[flags == 0])
    assert sample.accepted.droplets + sample.weird.droplets == pytest.approx(attempts)
    assert np.all(sample.weird.values["classes"] != 0)
    assert sample.content.startswith("20,000 of 20,000 droplets")
    by_droplet = np.bitwise_or.reduce(flags.reshape(20_000, -1), axis=1)
    classes = by_droplet if values.get("keep_weird") else sample.weird.values["classes"]
    assert counts.by_class.tolist() == [np.count_nonzero(classes & bit) for bit in BITS.values()]
    assert counts.drawn == attempts


@pytest.mark.parametrize("values", [{}, {"samples": 3}, {"keep_weird": True}], ids=["once", "three times", "kept"])
def test_large_store_is_sampled_evenly_and_reproducibly(values, make_store):
    with Reader.open(make_store(**values)) as reader:
        sample, again = population.read_sample(reader, 3000), population.read_sample(reader, 3000)
        attempts = int(reader.column("attempts").sum())
        blocks = [set(reader.rows(block, "initial_radius").tolist()) for block in range(reader.layout.blocks)]
        rows = [reader.layout.rows_in(block) for block in range(reader.layout.blocks)]
    drawn = np.concatenate([sample.accepted.values["initial_radius"], sample.weird.values["initial_radius"]])
    assert 2990 <= sample.accepted.values["time"].size + values.get("keep_weird", 0) * 300 <= 3310
    for block, n in zip(blocks, rows, strict=True):
        of_block = np.isin(drawn, np.array(sorted(block), np.float32)).sum()
        assert of_block == pytest.approx(3000 * n / 20_000, abs=60)
    assert np.array_equal(sample.accepted.values["radius"], again.accepted.values["radius"])
    assert sample.accepted.droplets + sample.weird.droplets == pytest.approx(attempts)


def test_sample_of_a_sobol_sequence_is_unbiased(make_store):
    with Reader.open(make_store(sampling="sobol", count=16_384, keep_weird=True)) as reader:
        sample = population.read_sample(reader, 4096)
    radius = np.concatenate([kind.values["initial_radius"] for kind in (sample.accepted, sample.weird)])
    heights = outcomes.relative_density(radius, np.geomspace(1e-8, 1e-3, 9))
    assert np.all(np.abs(heights - 1) < 0.15)


def test_blocks_are_chosen_evenly(make_store):
    with Reader.open(make_store(block_size=512)) as reader:
        assert population.finished_blocks(reader) == list(range(40))
        assert population.finished_blocks(reader, 4) == [0, 13, 26, 39]
        assert population.finished_blocks(reader, 1) == [0]


def test_unfinished_store_shows_only_its_finished_blocks(configure, tmp_path):
    config = configure(count=1000, block_size=100)
    layout = fields.generation_layout(config)
    output = Output(tmp_path / "x.h5")
    provenance = Provenance("droplets", CAMPAIGN.algorithm, configuration.to_yaml(config), config.seed)
    make = generate.block_maker(config, layout)
    for blocks in ([], [2, 3, 7]):
        writer = open_writer(world(), output, layout, provenance, configuration.explainer(config), Stop(world()))
        for block in blocks:
            writer.write(block, make(block), time.monotonic())
        assert not writer.finish()
        output = Output(tmp_path / "x.h5", resume=True)
        if not blocks:
            with pytest.raises(InputError, match="no finished block"):
                plots.plot_store(output.part, tmp_path / "pictures")
    with Reader.open(output.part) as reader:
        assert population.finished_blocks(reader) == [2, 3, 7]
        assert population.read_sample(reader).content == "300 of 1,000 droplets"


# ---- computing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_means_and_medians_by_cell(seed):
    stream = np.random.default_rng(seed)
    cells, values = stream.integers(0, 20, 300), stream.normal(size=300)
    cells[cells == 7] = 8
    mean, median = outcomes.mean_by_cell(cells, values, 21), outcomes.median_by_cell(cells, values, 21)
    for cell in range(21):
        inside = values[cells == cell]
        if inside.size:
            assert mean[cell] == pytest.approx(inside.mean())
            assert median[cell] == np.median(inside)
        else:
            assert np.isnan(mean[cell])
            assert np.isnan(median[cell])
    assert np.isnan(median[[7, 20]]).all()


def test_counts_of_a_grid_are_those_of_numpy():
    stream = np.random.default_rng(1)
    x, y = 10 ** stream.uniform(-8, -3, 5000), stream.uniform(0.5, 1.1, 5000)
    grid = outcomes.Grid(outcomes.edges("initial_radius", [x], 9), outcomes.edges("relative_humidity", [y], 5))
    expected, _, _ = np.histogram2d(y, x, (grid.y, grid.x))
    assert grid.shape == (5, 9)
    assert np.array_equal(grid.counts(x, y), expected)
    assert grid.counts(x, y).sum() == 5000


def test_edges_are_even_on_the_axis_and_hold_all_values():
    time = outcomes.edges("time", [np.array([1e-3]), np.array([10, 1.0])], 4)
    assert time == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert outcomes.edges("air_temperature", [np.array([273, 310.0])], 2) == pytest.approx([273, 291.5, 310])
    flat = outcomes.edges("air_density", [np.array([1.0, 1.0])], 2)
    assert flat[0] < 1 < flat[-1]
    assert np.all(np.diff(outcomes.edges("time", [np.array([])], 3)) > 0)


def test_relative_density_is_one_where_values_are_even():
    bins = np.linspace(0, 1, 11)
    assert outcomes.relative_density(np.arange(0.05, 1, 0.1), bins) == pytest.approx(np.ones(10))
    assert outcomes.relative_density(np.full(5, 0.31), bins)[3] == 10
    assert outcomes.relative_density(np.array([]), bins).sum() == 0


def droplets(**columns):
    """Make records; values that are not given are ordinary."""
    ordinary = {
        "initial_radius": 1e-7, "initial_temperature": 290, "salinity": 1e-18, "air_temperature": 293.15,
        "relative_humidity": 0.9, "air_density": 1.0, "time": 1.0, "radius": 1e-7, "temperature": 293.15,
    }  # fmt: skip
    n = max(np.size(column) for column in columns.values())
    return {name: np.broadcast_to(columns.get(name, value), n).astype(float) for name, value in ordinary.items()}


def test_droplets_activate_by_passing_the_critical_radius_in_air_above_the_critical_humidity():
    # Facts of this droplet: critical radius 6.319090e-7 m, critical supersaturation 1.135993e-3.
    values = droplets(
        relative_humidity=[1.0011, 1.0012, 1.0012, 1.0012, 0.9],
        initial_radius=[1e-7, 1e-7, 1e-7, 6.4e-7, 1e-7],
        radius=[7e-7, 6.31e-7, 6.33e-7, 7e-7, 1e-7],
    )
    below, passed = outcomes.activation(values, arguments.solver_settings(SolveConfig()))
    assert below.tolist() == [False, True, True, False, False]
    assert passed.tolist() == [True, False, True, True, False]
    shown = next(
        o for o in outcomes.compute_outcomes(values, arguments.solver_settings(SolveConfig())) if "critical" in o.title
    )
    assert np.array_equal(shown.values, [np.nan, 0, 1, np.nan, np.nan], equal_nan=True)
    assert outcomes.describe_outcome(shown) == "50.0% of eligible (40.0% of all)"


def test_outcomes_of_known_droplets():
    values = droplets(radius=[0.99e-8, 1.01e-8, 1e-7, 0.99e-6, 1.01e-6], temperature=[290, 291, 293.15, 300, 293.15])
    growth, evaporates, grows, _, warmer = outcomes.compute_outcomes(values, arguments.solver_settings(SolveConfig()))
    assert growth.values == pytest.approx(np.log10([0.099, 0.101, 1, 9.9, 10.1]))
    assert evaporates.values.tolist() == [1, 0, 0, 0, 0]
    assert grows.values.tolist() == [0, 0, 0, 0, 1]
    assert warmer.values == pytest.approx([-3.15, -2.15, 0, 6.85, 0])
    cells = np.array([0, 0, 1, 3, 3])
    assert outcomes.map_outcome(evaporates, cells, (2, 2))[0].tolist() == [0.5, 0]
    assert np.isnan(outcomes.map_outcome(growth, cells, (2, 2))[1, 0])


def test_outcomes_have_the_shares_that_were_measured_over_all_droplets(make_store):
    with Reader.open(make_store(count=100_000, block_size=65_536, keep_weird=True)) as reader:
        sample, model = population.read_sample(reader), arguments.solver_settings(population.read_config(reader))
    kinds = (sample.accepted.values, sample.weird.values)
    values = {name: np.concatenate([kind[name] for kind in kinds]) for name in fields.UNITS}
    _, evaporates, grows, activated, _ = outcomes.compute_outcomes(values, model)
    can = np.isfinite(activated.values)
    assert evaporates.values.mean() == pytest.approx(0.060, abs=0.004)
    assert grows.values.mean() == pytest.approx(0.168, abs=0.006)
    assert can.mean() == pytest.approx(0.121, abs=0.006)
    assert activated.values[can].mean() == pytest.approx(0.12, abs=0.02)
    assert sample.weird.droplets / 100_000 == pytest.approx(0.0803, abs=0.005)


def test_share_of_a_class_is_of_all_droplets_drawn_in_the_cell():
    def made(radii, weight, classes=0):
        values = droplets(initial_radius=radii, relative_humidity=[0.9] * len(radii))
        return population.Population(values | {"classes": np.full(len(radii), classes, np.uint16)}, weight)

    accepted, weird = made([1.5, 1.5, 3.5], 2.0), made([1.5, 2.5], 3.0, HOT)
    grid = outcomes.Grid(np.array([1.0, 2, 3, 4, 5]), np.array([0.0, 1]))
    sample = population.DropletSample(accepted, weird, "")
    hot = outcomes.share_of_class(sample, grid, outcomes.PLANES[0], "outputs-temperature_too_large")
    assert np.array_equal(hot, [[3 / 7, 1, 0, np.nan]], equal_nan=True)
    small = outcomes.share_of_class(sample, grid, outcomes.PLANES[0], "outputs-radius_too_small")
    assert np.array_equal(small, [[0, 0, 0, np.nan]], equal_nan=True)
    assert outcomes.share_of_class(sample._replace(weird=made([1.5], 3.0, HOT | SMALL)), grid, outcomes.PLANES[0],
                                CLASSES[5])[0, 0] == pytest.approx(3 / 7)  # fmt: skip


def test_resolution_follows_the_number_of_records():
    assert outcomes.resolution(1) == 8
    assert outcomes.resolution(200 * 20**2) == 20
    assert outcomes.resolution(500_000) == 48
