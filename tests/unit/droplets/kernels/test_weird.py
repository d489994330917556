import numpy as np
import pytest

from scimill.droplets import CAMPAIGN, arguments, fields, generate
from scimill.droplets.kernels import lanes, sampling, solver, weird
from scimill.droplets.kernels.sampling import INPUTS
from scimill.errors import NumericalError
from scimill.parallel.streams import block_stream

OUTPUTS = ("time", "radius", "temperature")


def above(value):
    return np.nextafter(np.float32(value), np.float32(np.inf))


def below(value):
    return np.nextafter(np.float32(value), np.float32(-np.inf))


# ---- classes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def names(configure):
    """Return the function that names the classes of one record."""
    limits = arguments.limits(configure())

    def classify(radius, temperature, status=lanes.DONE):
        values = (np.array([[value]], dtype=np.float32) for value in (radius, temperature))
        classes = weird.classify(*values, np.array([[status]], dtype=np.uint8), limits)
        assert classes.dtype == np.uint16
        return {name for name, bit in weird.BITS.items() if classes[0, 0] & bit}

    return classify


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (1e-6, set()),
        (0.97e-8, set()),
        (above(0.97e-8), set()),
        (below(0.97e-8), {"outputs-radius_too_small"}),
        (1e-30, {"outputs-radius_too_small"}),
        (0.0, {"outputs-radius_nonpositive"}),
        (-0.0, {"outputs-radius_nonpositive"}),
        (-1e-6, {"outputs-radius_nonpositive"}),
        (1.03e-3, set()),
        (below(1.03e-3), set()),
        (above(1.03e-3), {"outputs-radius_too_large"}),
    ],
)
def test_classes_of_radius(radius, expected, names):
    assert names(radius, 290.0) == expected


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (290.0, set()),
        (0.97 * 273, set()),
        (above(0.97 * 273), set()),
        (below(0.97 * 273), {"outputs-temperature_too_small"}),
        (1e-3, {"outputs-temperature_too_small"}),
        (0.0, {"outputs-temperature_nonpositive"}),
        (-1.0, {"outputs-temperature_nonpositive"}),
        (1.03 * 310, set()),
        (below(1.03 * 310), set()),
        (above(1.03 * 310), {"outputs-temperature_too_large"}),
    ],
)
def test_classes_of_temperature(temperature, expected, names):
    assert names(1e-6, temperature) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (lanes.DONE, set()),
        (lanes.DRIED, {"dried"}),
        (lanes.TOO_MANY_STEPS, {"inputs-timeout_inputs"}),
        (lanes.STEP_TOO_SMALL, {"inputs-failed_solve"}),
        (lanes.INVALID, {"inputs-invalid_inputs"}),
        (lanes.NOT_FINITE, {"inputs-evaluation_warning"}),
    ],
)
def test_classes_of_endings(status, expected, names):
    assert names(1e-6, 290.0, status) == expected


def test_a_record_may_be_in_several_classes(names):
    assert names(1e-9, 330.0, lanes.DRIED) == {"dried", "outputs-radius_too_small", "outputs-temperature_too_large"}


def test_a_result_that_is_not_a_number_is_never_accepted(names):
    assert names(np.nan, np.nan, lanes.INVALID) == {"inputs-invalid_inputs"}
    assert names(np.nan, 290.0)
    assert names(1e-6, np.inf)


def test_classes_are_the_known_ones_and_dried():
    assert len(weird.CLASSES) == 11
    assert weird.CLASSES[-1] == "dried"
    assert all(name.partition("-")[0] in ("inputs", "outputs") for name in weird.CLASSES[:-1])
    assert max(map(len, weird.CLASSES)) <= 31  # limit for names of sheets
    assert sorted(weird.BITS.values()) == [1 << bit for bit in range(11)]


def test_counts_are_per_class():
    bits = [weird.BITS[name] for name in ("dried", "outputs-radius_too_small")]
    classes = np.array([[0, bits[0]], [bits[1], bits[0] | bits[1]]], dtype=np.uint16)
    found = dict(zip(weird.CLASSES, weird.count_classes(classes).tolist(), strict=True))
    assert {name: count for name, count in found.items() if count} == {"dried": 2, "outputs-radius_too_small": 2}


# ---- what a block records ---------------------------------------------------------------------------------------


@pytest.fixture
def made(preset, configure):
    """Return a configuration, and the content of its block 3."""
    config = configure(preset, count=20_000, block_size=5000, seed=9)
    layout = fields.generation_layout(config)
    return config, generate.block_maker(config, layout)(3)


def columns(values, names):
    return np.array([values[name] for name in names])


def test_weird_records_match_the_solver(made):
    """The original generator logged views of live arrays, so its records held the accepted replacements."""
    config, block = made
    records = block.tables["weird"]
    assert len(records["classes"]) > 400
    solved = solver.solve(arguments.solver_settings(config), columns(records, INPUTS), records["time"][:, None])
    np.testing.assert_array_equal(solved[0][:, 0], records["radius"])
    np.testing.assert_array_equal(solved[1][:, 0], records["temperature"])
    np.testing.assert_array_equal(weird.classify(*solved, arguments.limits(config))[:, 0], records["classes"])
    assert (records["classes"] != 0).all()


def test_the_sample_matches_the_solver_and_has_no_weird_droplet(made):
    config, block = made
    solved = solver.solve(
        arguments.solver_settings(config), columns(block.fields, INPUTS), block.fields["time"][:, None]
    )
    np.testing.assert_array_equal(solved[0][:, 0], block.fields["radius"])
    np.testing.assert_array_equal(solved[1][:, 0], block.fields["temperature"])
    assert not weird.classify(*solved, arguments.limits(config)).any()


def test_weird_records_are_the_draws_missing_from_the_sample(made, draw):
    config, block = made
    records = block.tables["weird"]
    first, times = draw(config, 5000, block=3)
    kept = (columns(block.fields, INPUTS) == first).all(axis=0)
    is_first = records["attempt"] == 0
    np.testing.assert_array_equal(columns(records, INPUTS)[:, is_first], first[:, ~kept])
    np.testing.assert_array_equal(records["time"][is_first], times[~kept, 0])
    accepted = {tuple(row) for row in columns(block.fields, INPUTS).T.tolist()}
    assert accepted.isdisjoint(tuple(row) for row in columns(records, INPUTS).T.tolist())


def test_times_are_kept_when_droplets_are_resampled(made, draw):
    config, block = made
    _, times = draw(config, 5000, block=3)
    np.testing.assert_array_equal(block.fields["time"], times[:, 0])


def test_ledger_counts_every_draw_and_class(made):
    _, block = made
    records = block.tables["weird"]
    assert block.ledger["attempts"] == 5000 + len(records["classes"])
    np.testing.assert_array_equal(block.ledger["weird_by_class"], weird.count_classes(records["classes"]))
    assert set(records["block"]) == {3}
    assert np.bincount(records["attempt"])[0] > np.bincount(records["attempt"])[1] > 0


def test_all_are_counted_even_if_not_all_are_stored(made, configure, preset):
    _, block = made
    small = configure(preset, count=20_000, block_size=5000, seed=9, weird_capacity=0.002)
    cut = generate.block_maker(small, fields.generation_layout(small))(3)
    assert len(cut.tables["weird"]["classes"]) == 10
    np.testing.assert_array_equal(cut.ledger["weird_by_class"], block.ledger["weird_by_class"])
    for name in (*INPUTS, *OUTPUTS):
        np.testing.assert_array_equal(cut.fields[name], block.fields[name])


def test_keep_weird_keeps_the_first_draws_and_flags_them(made, configure, preset, draw):
    config, block = made
    keeping = configure(preset, count=20_000, block_size=5000, seed=9, keep_weird=True)
    kept = generate.block_maker(keeping, fields.generation_layout(keeping))(3)
    first, _ = draw(config, 5000, block=3)
    np.testing.assert_array_equal(columns(kept.fields, INPUTS), first)
    records = block.tables["weird"]
    is_first = records["attempt"] == 0
    flagged = kept.fields["weird"] != 0
    np.testing.assert_array_equal(kept.fields["weird"][flagged], records["classes"][is_first])
    np.testing.assert_array_equal(kept.fields["radius"][flagged], records["radius"][is_first])
    np.testing.assert_array_equal(kept.ledger["weird_by_class"], weird.count_classes(kept.fields["weird"]))


def test_with_many_times_a_whole_row_is_resampled_and_recorded_at_its_first_weird_time(configure):
    config = configure(count=3000, block_size=3000, samples=4, seed=2)
    block = generate.block_maker(config, fields.generation_layout(config))(0)
    records = block.tables["weird"]
    assert block.fields["radius"].shape == (3000, 4)
    low, high = (np.float32(limit) for limit in config.accepted_radius)
    assert ((block.fields["radius"] >= low) & (block.fields["radius"] <= high)).all()
    *outputs, status = solver.solve(
        arguments.solver_settings(config), columns(records, INPUTS), records["time"][:, None]
    )
    np.testing.assert_allclose(outputs[0][:, 0], records["radius"], rtol=1e-5)
    assert (weird.classify(*outputs, status, arguments.limits(config))[:, 0] & records["classes"]).all()


def test_a_block_does_not_depend_on_the_blocks_made_before(preset, configure):
    config = configure(preset, count=4000, block_size=1000, seed=1, sampling="sobol")
    layout = fields.generation_layout(config)
    ascending, jumping = generate.block_maker(config, layout), generate.block_maker(config, layout)
    blocks = [ascending(block) for block in range(4)]
    for number in (3, 1):
        again = jumping(number)
        for name in (*INPUTS, *OUTPUTS):
            np.testing.assert_array_equal(again.fields[name], blocks[number].fields[name])


def test_ranges_with_only_weird_droplets_are_refused(configure):
    config = configure(count=16, block_size=16, accepted_temperature="1:2")
    with pytest.raises(NumericalError, match="weird"):
        generate.block_maker(config, fields.generation_layout(config))(0)


def test_resampling_continues_the_blocks_own_stream(made):
    """The replacements are the stream's next points, so no other block's numbers are used."""
    config, block = made
    stream, ranges = block_stream(config.seed, CAMPAIGN.number, 3), arguments.ranges(config)
    times = sampling.times(stream, 5000, 1, ranges)
    stream.random((5000, len(INPUTS)))
    records = block.tables["weird"]
    second = sampling.inputs(stream.random((np.count_nonzero(records["attempt"] == 0), len(INPUTS))), ranges)
    found = columns(records, INPUTS)[:, records["attempt"] == 1]
    assert times.shape == (5000, 1)
    assert {tuple(row) for row in found.T.tolist()} <= {tuple(row) for row in second.T.tolist()}
