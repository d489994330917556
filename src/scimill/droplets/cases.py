"""The cases of roll-outs: shipped ones by name, or a user's own file."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from scimill.config import Layer, build, preset_names, read_preset, read_yaml
from scimill.droplets.params import DropletsRolloutConfig
from scimill.errors import ConfigError

PRESETS = "scimill.droplets/presets/rollout"
ALL = "all"
SUFFIX = ".yaml"


def read_cases(words: Sequence[str], overrides: list[Layer]) -> dict[str, DropletsRolloutConfig]:
    """Return the configurations of cases by name.

    Parameters
    ----------
    words : each one or several names, separated by commas: shipped cases, "all" of them, or files of parameters.
    overrides : values for every case, which win over those of the case.

    Raises
    ------
    ConfigError : an unknown case, a file that is not a configuration, or a wrong value.

    """
    named = [name for word in words for name in word.split(",") if name]
    every = [case for name in named for case in (preset_names(PRESETS) if name == ALL else [name])]
    return {
        name.removesuffix(SUFFIX).rpartition("/")[2]: build(DropletsRolloutConfig, [_read_case(name), *overrides])
        for name in dict.fromkeys(every)
    }


def _read_case(name: str) -> Layer:
    known = preset_names(PRESETS)
    if name in known:
        return read_preset(PRESETS, name)
    if name.endswith(SUFFIX):
        return read_yaml(Path(name))
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"unknown case {name}" + (f"; did you mean {near[0]}?" if near else ""),
        where="flag --rollout", allowed=f"{', '.join(known)}, {ALL}, or a {SUFFIX} file of parameters",
    )  # fmt: skip
