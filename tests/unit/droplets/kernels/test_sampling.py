import numpy as np
import pytest
from scipy.stats import kstest, qmc

from scimill.droplets import CAMPAIGN, arguments
from scimill.droplets.kernels import sampling
from scimill.droplets.kernels.sampling import INPUTS, Sobol
from scimill.droplets.params import solute_per_salinity
from scimill.parallel.streams import block_stream, campaign_stream

MANY = 20_000
LEAST_P = 1e-3  # the seeds are fixed, so a test passes always or never


def is_uniform(values, low, high):
    return kstest((values - low) / (high - low), "uniform").pvalue > LEAST_P


# ---- inputs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(preset, configure):
    return configure(preset, seed=11)


@pytest.fixture
def drawn(config, draw):
    """Return float32 inputs by name, and times, of many droplets."""
    droplets, times = draw(config, MANY)
    assert droplets.dtype == times.dtype == np.float32
    return dict(zip(INPUTS, droplets.astype(float), strict=True)), times.astype(float)


@pytest.mark.parametrize("name", ["initial_radius", "salinity", "time"])
def test_inputs_that_span_decades_are_log_uniform(name, drawn, config):
    inputs, times = drawn
    values = {**inputs, "time": times[:, 0]}[name]
    low, high = getattr(config, f"{name.removeprefix('initial_')}_range")
    assert is_uniform(np.log(values), np.log(low), np.log(high))
    assert not is_uniform(values, low, high)


@pytest.mark.parametrize("name", ["air_temperature", "relative_humidity", "air_density"])
def test_the_other_inputs_are_uniform(name, drawn, config):
    assert is_uniform(drawn[0][name], *getattr(config, f"{name}_range"))


def test_initial_temperature_is_uniform_or_near_the_air_temperature(drawn, config):
    inputs, _ = drawn
    if config.temperature_offset_range is None:
        assert is_uniform(inputs["initial_temperature"], *config.temperature_range)
    else:
        offset = inputs["initial_temperature"] - inputs["air_temperature"]
        assert is_uniform(offset, *config.temperature_offset_range)
        assert np.abs(offset).max() <= 3.00002


def test_inputs_are_independent(drawn, config):
    inputs, times = drawn
    if config.temperature_offset_range is not None:
        inputs["initial_temperature"] -= inputs["air_temperature"]
    coordinates = np.array([*inputs.values(), times[:, 0]])
    coordinates[[0, 2, 6]] = np.log(coordinates[[0, 2, 6]])
    correlations = np.corrcoef(coordinates) - np.eye(7)
    assert np.abs(correlations).max() < 4 / np.sqrt(MANY)


def test_corners_of_the_cube_are_the_ends_of_the_ranges(configure):
    ranges = arguments.ranges(configure())
    low, high = sampling.inputs(np.array([[0.0] * 6, [1.0] * 6]), ranges).T
    ends = (ranges.radius, ranges.temperature, ranges.salinity, ranges.air_temperature, ranges.relative_humidity,
            ranges.air_density)  # fmt: skip
    np.testing.assert_allclose([low, high], np.transpose(ends), rtol=1e-7)


def test_a_range_of_one_value_gives_that_value(configure, draw):
    droplets, times = draw(configure(radius_range="1e-6:1e-6", time_range="2:2", air_temperature_range="290:290"), 50)
    assert set(droplets[0]) == {np.float32(1e-6)}
    assert set(droplets[3]) == {np.float32(290)}
    assert set(times.ravel()) == {np.float32(2)}


# ---- salinity cap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0.01, 1.0, 30.0])
def test_stored_values_respect_the_salinity_cap(cap, preset, configure, draw):
    config = configure(preset, salinity_cap=cap, salinity_range="1e-25:1e-8")
    (r, _, salinity, *_), _ = draw(config, MANY)
    water = config.water_density * 4 / 3 * np.pi * r.astype(float) ** 3
    share = solute_per_salinity(config) * salinity.astype(float) / (cap * water)
    assert share.max() <= 1 + 6e-8  # half a bit of the stored salinity
    assert share.max() > 0.99
    assert salinity.min() >= np.float32(1e-25)


def test_the_cap_uses_the_stored_radius(configure):
    points = np.random.default_rng(1).random((1000, 6))
    points[:, 2] = 1.0
    config = configure("ntlp-2026", salinity_cap=1.0, salinity_range="1e-25:1")
    r, _, salinity, *_ = sampling.inputs(points, arguments.ranges(config)).astype(float)
    np.testing.assert_allclose(salinity, config.water_density * 4 / 3 * np.pi * r**3, rtol=6e-8)


def test_salinity_is_log_uniform_up_to_the_cap_and_never_above_its_range(configure, draw):
    config = configure("ntlp-2026", salinity_cap=1.0, salinity_range="1e-24:1e-12")
    (r, _, salinity, *_), _ = draw(config, MANY)
    most = np.minimum(1e-12, config.water_density * 4 / 3 * np.pi * r.astype(float) ** 3)
    assert is_uniform(np.log(salinity / 1e-24) / np.log(most / 1e-24), 0, 1)


# ---- times ------------------------------------------------------------------------------------------------------


def test_times_ascend_along_the_samples_and_are_log_uniform_together(configure, draw):
    config = configure(samples=7)
    _, times = draw(config, 4000)
    assert times.shape == (4000, 7)
    assert (np.diff(times, axis=1) >= 0).all()
    assert is_uniform(np.log(times.astype(float).ravel()), *np.log(config.time_range))


# ---- streams ----------------------------------------------------------------------------------------------------


def test_streams_are_reproducible():
    np.testing.assert_array_equal(block_stream(1, 2, 3).random(100), block_stream(1, 2, 3).random(100))
    np.testing.assert_array_equal(campaign_stream(1, 2).random(100), campaign_stream(1, 2).random(100))


def test_streams_differ_by_seed_campaign_and_block():
    keys = [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1), (1, 1, 2**40), (2**62, 1, 0)]
    drawn = [*(block_stream(*key).random(64) for key in keys), campaign_stream(1, 1).random(64)]
    together = np.concatenate(drawn)
    assert len(set(together)) == len(together)


def test_neighbouring_blocks_are_uncorrelated():
    blocks = np.array([block_stream(1, CAMPAIGN.number, block).random(10_000) for block in range(20)])
    assert np.abs(np.corrcoef(blocks) - np.eye(20)).max() < 0.05


# ---- Sobol ------------------------------------------------------------------------------------------------------


def sobol(seed=1):
    return Sobol(campaign_stream(seed, CAMPAIGN.number))


def test_sobol_points_do_not_depend_on_how_they_are_requested():
    whole = sobol().points(0, 1000)
    pieces = sobol()
    np.testing.assert_array_equal(pieces.points(0, 1), whole[:1])
    np.testing.assert_array_equal(pieces.points(1, 99), whole[1:100])
    np.testing.assert_array_equal(pieces.points(300, 200), whole[300:500])
    np.testing.assert_array_equal(pieces.points(999, 1), whole[999:])
    np.testing.assert_array_equal(sobol().points(640, 64), whole[640:704])


def test_sobol_can_go_back_and_start_again():
    sequence = sobol()
    first = sequence.points(0, 200)
    np.testing.assert_array_equal(sequence.points(100, 50), first[100:150])
    np.testing.assert_array_equal(sequence.points(0, 200), first)


def test_sobol_is_scrambled_by_the_seed():
    assert not np.isin(sobol(1).points(0, 500), sobol(2).points(0, 500)).any()


def test_sobol_fills_the_cube_more_evenly_than_chance():
    even = qmc.discrepancy(sobol().points(0, 1024))
    chance = min(qmc.discrepancy(block_stream(1, CAMPAIGN.number, block).random((1024, 6))) for block in range(10))
    assert even < 0.25 * chance
