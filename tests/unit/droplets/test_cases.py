"""The cases of roll-outs: shipped ones and files, overridden by flags."""

from pathlib import Path

import pytest

from scimill.config import Layer, parameters_of
from scimill.droplets.cases import read_cases
from scimill.droplets.params import DropletsRolloutConfig
from scimill.errors import ConfigError

SHIPPED = ["chamber", "cumulus", "fog", "marine"]


def test_all_shipped_cases_once() -> None:
    assert list(read_cases(["all", "fog"], [])) == SHIPPED
    assert list(read_cases(["fog,chamber", "fog"], [])) == ["fog", "chamber"]


def test_the_default_is_the_chamber() -> None:
    assert read_cases(["chamber"], [])["chamber"] == DropletsRolloutConfig()


def test_flags_win_over_the_case() -> None:
    flags = Layer("flags", {"dt": "0.5,2", "steps": "1e5", "mean_humidity": 0.9})
    for config in read_cases(["all"], [flags]).values():
        assert (config.dt, config.steps, config.mean_humidity) == ((0.5, 2.0), 100_000, 0.9)
    assert read_cases(["fog"], [Layer("flags", {"dt": 0.5})])["fog"].dt == (0.5,)


def test_a_file_is_a_case_named_after_it(tmp_path: Path) -> None:
    file = tmp_path / "mist.yaml"
    file.write_text("mean_humidity: 0.97\ndt: [0.2]\n")
    assert read_cases([str(file), "fog"], [])["mist"] == DropletsRolloutConfig(mean_humidity=0.97, dt=(0.2,))


@pytest.mark.parametrize(
    ("word", "values", "message"),
    [
        ("marina", {}, "unknown case marina; did you mean marine?"),
        ("missing.yaml", {}, "no such file"),
        ("fog", {"humidity": 1}, "unknown key 'humidity'"),
        ("fog", {"dt": "0.1,-1"}, "out of range"),
        ("fog", {"dt": "0.1,x"}, "must be numbers"),
        ("fog", {"dt": ""}, "must be numbers"),
        ("fog", {"humidity_deviation": 0.2}, "humidity would be negative"),
        ("fog", {"start": "dry"}, "must be one of range, multiple, equilibrium"),
    ],
)
def test_mistakes_are_explained(word: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_cases([word], [Layer("flags", values)])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4
    if word == "marina":
        assert all(name in str(caught.value) for name in (*SHIPPED, "all"))


def test_every_quantity_with_a_dimension_has_a_unit() -> None:
    pure = {"mean_humidity", "humidity_deviation", "droplets", "salt_radius_deviation", "salt_hygroscopicity", "start",
            "start_multiple", "start_humidity", "steps", "seed", "tolerance"}  # fmt: skip
    assert {name for name, known in parameters_of(DropletsRolloutConfig).items() if not known.unit} == pure
