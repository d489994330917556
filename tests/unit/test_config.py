import importlib
import pkgutil
import re
import subprocess
import sys

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

import scimill
from scimill import cli
from scimill.config import (
    REQUIRED,
    STRICT,
    Duration,
    File,
    Layer,
    Number,
    PositiveRange,
    Range,
    Run,
    Switch,
    Whole,
    build,
    declare_optional,
    explainer,
    parameter,
    parameters_of,
    parse_yaml,
    plain,
    preset_names,
    read_preset,
    read_yaml,
    to_yaml,
)
from scimill.droplets.params import DropletsImportConfig
from scimill.errors import ConfigError
from scimill.options import ConfigOption

WITHOUT_UNIT = {
    "learning_rate",
    "weight_decay",
    "momentum",
    "step_factor",
    "final_learning_rate",
    "clip_norm",
    "validation_share",
    "test_share",
    "radius_scale",
    *("invariance", "variance", "covariance", "crop", "flip", "vertical_flip"),
    *("brightness", "contrast", "saturation", "noise", "thermal_gain"),
    *("sherwood", "nusselt", "schmidt", "prandtl", "hygroscopicity", "saturation_slope", "tolerance"),
    *("mass_accommodation", "thermal_accommodation"),
    *("relative_humidity", "relative_humidity_range", "salinity_cap", "weird_capacity"),
    *("test_fraction", "fraction", "train_fraction", "valid_fraction"),
    "alpha",
    "kappa",
    "courant",
    "amplitude",
    "correlation",
    "largest_gap",
    "radius_tolerance",
    "radius_threshold",
    "growth_scale",
    *("mean_humidity", "humidity_deviation", "start_humidity", "start_multiple"),
    *("salt_radius_deviation", "salt_hygroscopicity"),
}
"""Every other number or range of the shipped configurations has a unit."""


def shipped_configs():
    """Config classes of all campaigns."""
    names = [info.name for info in pkgutil.walk_packages(scimill.__path__, "scimill.") if info.name.endswith(".params")]
    assert names
    found = [value for name in names for value in vars(importlib.import_module(name)).values()]
    return sorted({value for value in found if isinstance(value, type) and value.__name__.endswith("Config")}, key=repr)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Example(File, Run):
    """An example."""

    count: Whole = parameter(REQUIRED, "how many", ge=1, le=10**13)
    weight: Number | None = parameter(None, "its weight", unit="kg", gt=0)
    offset: Range | None = parameter(None, "an offset", unit="K")
    size: PositiveRange = parameter((1e-8, 1e-3), "its size", unit="m")
    loud: Switch = parameter(False, "whether it is heard", affects_data=False)
    limit: Duration = parameter("60s", "a time")


def example(**values):
    return build(Example, [Layer("test", {"count": 1, **values})])


def refusal(layers, config=Example):
    """Return the error that refuses layers; it must fit a terminal."""
    with pytest.raises(ConfigError) as caught:
        build(config, layers)
    text = str(caught.value)
    assert len(text.splitlines()) <= 4
    assert max(map(len, text.splitlines())) < 450
    return text


# ---- declarations -----------------------------------------------------------------------------------------------


def test_every_parameter_is_declared_in_full(subtests):
    for config in shipped_configs():
        with subtests.test(config.__name__):
            assert len(parameters_of(config)) == len(config.__dataclass_fields__)
            for name, known in parameters_of(config).items():
                assert_declared_in_full(name, known)


def assert_declared_in_full(name, known):
    assert known.flag == "--" + name.rstrip("_").replace("_", "-")
    assert known.info.description
    assert known.info.description[0].isascii()
    assert not known.info.description.endswith(".")
    assert known.group
    assert known.allowed.endswith(f", in {known.unit}") == bool(known.unit)


def test_every_measure_has_a_unit(subtests):
    for config in shipped_configs():
        measures = {
            name for name, known in parameters_of(config).items() if known.kind.metavar in ("NUMBER", "LOW:HIGH")
        }
        with subtests.test(config.__name__):
            assert {name for name in measures if not parameters_of(config)[name].unit} <= WITHOUT_UNIT


def config_commands(group=cli.scimill, path=("scimill",)):
    """Every command that has flags of a config class, with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from config_commands(command, (*path, name))
        elif any(isinstance(option, ConfigOption) for option in command.params):
            yield " ".join((*path, name)), command


def test_help_gives_the_meaning_and_unit_of_every_parameter(subtests):
    commands = dict(config_commands())
    assert commands
    for path, command in commands.items():
        text = "".join(command.get_help(click.Context(command, info_name=path)).split())
        with subtests.test(path):
            for option in [option for option in command.params if isinstance(option, ConfigOption)]:
                assert option.opts[0] in text
                assert "".join(option.help.split()) in text
                assert "default" in option.help or "required" in option.help


def test_help_line_is_made_from_the_declaration():
    options = {name: ConfigOption(known) for name, known in parameters_of(Example).items()}
    assert options["count"].help == "how many  [a whole number, >= 1 and <= 1e13; required]"
    assert options["weight"].help == "its weight  [a number, > 0, in kg; default none]"
    assert options["size"].help == "its size  [low:high with 0 < low <= high, in m; default 1e-08:0.001]"
    assert options["offset"].help == "an offset  [low:high with low <= high, in K; default none]"
    assert options["loud"].opts == ["--loud"]
    assert options["loud"].secondary_opts == ["--no-loud"]
    assert options["limit"].help == 'a time  [such as "2h", "90min", "7d", "1:30:00" or "1-12:00:00"; default 60s]'


def test_a_parameter_stands_under_the_title_of_its_class():
    assert parameters_of(Example)["seed"].group == "The run"
    assert parameters_of(Example)["size"].group == "An example"


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_value", "value"),
    [("1e6", 10**6), (1e6, 10**6), ("2_000_000", 2 * 10**6), ("12", 12), (7.0, 7), ("1.5e3", 1500), (10**13, 10**13)],
)
def test_whole_numbers(given_value, value):
    count = example(count=given_value).count
    assert count == value
    assert type(count) is int


@pytest.mark.parametrize(
    "value",
    [True, False, 1.5, "1.5", "1.5e0", "many", "", None, [1], {"a": 1}, float("nan"), float("inf"), "1e99", "9" * 5000],
)
def test_what_is_no_whole_number(value):
    text = refusal([Layer("test", {"count": value})])
    assert "count " in text
    assert "a whole number, >= 1 and <= 1e13" in text


@pytest.mark.parametrize(("value", "sign"), [(0, ">= 1"), (-1, ">= 1"), (10**18, "<= 1e13"), ("1e18", "<= 1e13")])
def test_whole_numbers_outside_their_limits(value, sign):
    assert sign in refusal([Layer("test", {"count": value})])


@pytest.mark.parametrize(("given_value", "value"), [("1e-8", 1e-8), (3, 3.0), ("2.5", 2.5)])
def test_numbers(given_value, value):
    assert example(weight=given_value).weight == value


@pytest.mark.parametrize("value", [True, "heavy", 0, -1.0, float("nan"), float("inf"), "nan", "inf", "", [1.0]])
def test_what_is_no_number_above_zero(value):
    assert "a number, > 0, in kg" in refusal([Layer("test", {"count": 1, "weight": value})])


@pytest.mark.parametrize("value", ["1e-7:1e-5", [1e-7, 1e-5], ["1e-7", "1e-5"], (1e-7, 1e-5)])
def test_ranges(value):
    assert example(size=value).size == (1e-7, 1e-5)


def test_a_range_may_hold_one_value_and_may_be_negative_where_allowed():
    assert example(size="1:1", offset="-3:3").offset == (-3.0, 3.0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e-3:1e-8", "the lower bound 0.001 exceeds the upper bound 1e-08"),
        ("0:1", "lower bound must be above 0"),
        ("-1:1", "lower bound must be above 0"),
        ("1", ""),
        ("1:2:3", ""),
        ("a:b", ""),
        (":", ""),
        (5, ""),
        ([1, 2, 3], ""),
        ([True, 2], ""),
        (None, ""),
    ],
)
def test_what_is_no_positive_range(value, reason):
    text = refusal([Layer("test", {"count": 1, "size": value})])
    assert reason in text
    assert "low:high with 0 < low <= high, in m" in text


DURATIONS = {
    "2h": 7200, "90min": 5400, "90m": 5400, "1h30m": 5400, "1.5h": 5400, "45s": 45, "1:30:00": 5400, "7d": 604800,
    "1d12h": 129600, "1d 12h 30min 5s": 131405, "2H": 7200, "1 h": 3600, "168:00:00": 604800, "1:12:30:05": 131405,
    "1-12": 129600, "1-12:30": 131400, "1-00:00:00": 86400, "0-00:00:45": 45, "7-1": 608400,
}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations(text, seconds):
    assert example(walltime=text, walltime_margin="0s").walltime == seconds


NO_DURATIONS = [
    90, "90", 1.5, "", "h", "1:70:00", "-5s", "2 hours", "1:30", True, "9" * 400 + "h", "1.2.3h", ".h", "30m2h",
    "7d-12", "1-24", "1-12:60", "1-", "-12", "1-1:00:00:00", "1:2:3:4:5", "2h-30m", "\u0661h\u0661",
]  # fmt: skip


@pytest.mark.parametrize("value", NO_DURATIONS)
def test_what_is_no_duration(value):
    allowed = 'such as "2h", "90min", "7d", "1:30:00" or "1-12:00:00"'
    assert allowed in refusal([Layer("test", {"count": 1, "walltime": value})])


def test_not_given_is_allowed_where_it_says_so():
    assert example(weight=None, walltime=None, offset=None).weight is None
    refusal([Layer("test", {"count": 1, "limit": None})])


@pytest.mark.parametrize("value", ["loud", 2, "", None, [True]])
def test_what_is_no_switch(value):
    assert "true or false" in refusal([Layer("test", {"count": 1, "loud": value})])


@pytest.mark.parametrize("value", [-1, 2**63, "one", 1.5, True])
def test_what_is_no_seed(value):
    assert "seed" in refusal([Layer("test", {"count": 1, "seed": value})])


# ---- messages ---------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_nearest_known_one_and_its_source():
    text = refusal([Layer("file a.yaml", {"count": 1}), Layer("file b.yaml", {"wieght": 2})])
    assert "unknown key 'wieght'; did you mean 'weight'?" in text
    assert "file b.yaml" in text
    assert "a.yaml" not in text


@pytest.mark.parametrize("key", [1, None, True, "zzzzzz", "x" * 10_000, "a\nb"])
def test_no_unknown_key_makes_up_a_meaning(key):
    assert "did you mean" not in refusal([Layer("file", {key: 2})])


def test_a_wrong_value_is_reported_with_its_source():
    assert "flag --weight" in refusal([Layer("file f", {"count": 1}), Layer("flags", {"weight": "x"})])
    assert "file f, key weight" in refusal([Layer("file f", {"count": 1, "weight": "x"}), Layer("flags", {})])


def test_what_is_required_is_asked_for_by_its_flag():
    text = refusal([Layer("flags", {})])
    assert "--count is required" in text
    assert "give --count" in text


def test_several_faults_are_counted():
    assert "count must be a whole number" in refusal([Layer("test", {"count": "x", "weight": "y"})])


def test_parameters_that_contradict_each_other_are_refused(configure):
    with pytest.raises(ConfigError, match="would not fit"):
        configure(block_size=2**24, samples=1000)
    with pytest.raises(ConfigError, match="fewer than count"):
        configure(sampling="sobol", count=10**10)
    with pytest.raises(ConfigError, match="not 100"):
        configure(relative_humidity_range="65:110")
    with pytest.raises(ConfigError, match="no salinity"):
        configure(salinity_cap=1e-3)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*parameters_of(Example), "count", "cuont", ""]), YAML_VALUES, max_size=4))
def test_any_values_are_accepted_or_refused_in_four_lines(values):
    try:
        made = build(Example, [Layer("fuzz", {"count": 1}), Layer("fuzz", values)])
    except ConfigError as error:
        assert len(str(error).splitlines()) <= 4
    else:
        assert build(Example, [parse_yaml(to_yaml(made), "itself")]) == made


# ---- YAML -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"walltime": "1:30:00", "weight": 1e-300, "loud": True},
        {"offset": "-3:3", "size": "1e-9:1e-7", "seed": 2**63 - 1, "count": 10**13},
        {"limit": "0.1s", "weight": 0.1 + 0.2},
        {"mpi_io_hints": "striping_factor=16,cb_nodes=4"},
    ],
)
def test_yaml_round_trip(values):
    made = example(**values)
    text = to_yaml(made)
    assert build(Example, [parse_yaml(text, "itself")]) == made
    assert to_yaml(build(Example, [parse_yaml(text, "itself")])) == text


@pytest.mark.parametrize("value", [0, 7])
def test_a_stored_configuration_is_the_same_as_itself(value):
    made = example(seed=value)
    assert parse_yaml(to_yaml(made), "itself").values["seed"] == value
    assert explainer(made)(to_yaml(made)) == ""


REQUIRED_VALUES = {
    "count": 5,
    "frames": 5,
    "snapshots": 5,
    "fine": "fine # run.h5",
    "from_": "a # b.h5",
    "model": "redis://host:6379/m # n",
    "files": ["a # b.data", "c: d.data", "'", ""],
    "workload": "imseg",
    "size": "1GB",
}


def test_yaml_of_shipped_configs_is_complete_and_commented(subtests):
    for config in shipped_configs():
        with subtests.test(config.__name__):
            assert_yaml_is_complete_and_commented(config)


def assert_yaml_is_complete_and_commented(config):
    required = {name for name, known in parameters_of(config).items() if known.info.is_required()}
    made = build(config, [Layer("test", {name: REQUIRED_VALUES[name] for name in required})])
    text = to_yaml(made)
    assert build(config, [parse_yaml(text, "itself")]) == made
    for name, known in parameters_of(config).items():
        assert re.search(rf"^{name}: .*  # {re.escape(known.info.description)}", text, re.MULTILINE)
        assert not known.unit or f"[{known.unit}]\n" in text


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), min_size=1, max_size=3))
def test_any_text_survives_yaml(names):
    made = build(DropletsImportConfig, [Layer("test", {"files": names})])
    assert build(DropletsImportConfig, [parse_yaml(to_yaml(made), "itself")]) == made


def test_presets_are_complete_configurations_but_for_the_count(any_preset, configure):
    assert set(preset_names("scimill.droplets/presets")) == {"classic", "cloud", "ntlp-2026"}
    assert set(preset_names("scimill.droplets/presets/import")) == {"classic", "cloud", "ntlp-2026"}
    assert set(preset_names("scimill.droplets/presets/train")) == {"published", "relaxation", "small", "large"}
    made = configure(any_preset)
    assert build(type(made), [parse_yaml(to_yaml(made), "itself")]) == made


def test_classic_is_the_defaults(configure):
    assert read_preset("scimill.droplets/presets", "classic").values == {}
    assert configure("classic").radius_range == (1e-8, 1e-3)
    assert configure("ntlp-2026").salinity_kind == "solute-term"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("count: 1\ncount: 2", "key 'count' is given twice"),
        ("count: 1\nsize: {a: 1, a: 2}", "key 'a' is given twice"),
        ("- 1\n- 2", "a mapping of keys to values"),
        ("just text", "a mapping of keys to values"),
        ("count: [1", "not valid YAML"),
        ("count: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("{[1]: 2}", "not valid YAML"),
        ("a: &a [*a]\n? *a\n: 1", "not valid YAML"),
        ("[" * 1000, "not valid YAML"),
        ("count: " + "9" * 5000, "not valid YAML"),
        ("count: 2020-13-45", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_configuration(text, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_yaml(text, "file f")
    assert "file f" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_changes_nothing(text):
    assert parse_yaml(text, "file").values == {}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("walltime: 1:30:00", "walltime", 5400.0),
        ("size: 1:10", "size", (1.0, 10.0)),
        ("size: 1:10.5", "size", (1.0, 10.5)),
        ("size: 1e-8:1e-3", "size", (1e-8, 1e-3)),
        ("weight: 1e-3", "weight", 1e-3),
        ("count: 1e6", "count", 10**6),
    ],
)
def test_yaml_reads_what_a_flag_reads(text, key, value):
    """YAML 1.1 reads 1:30:00 as a base-60 number, and 1e6 as text."""
    layers = [Layer("test", {"count": 1}), parse_yaml(text, "file")]
    assert getattr(build(Example, layers), key) == value


def test_files_that_cannot_be_read(tmp_path):
    for name, content in (("binary", b"\xff\xfe\x00"), ("large", b"#" * (2 << 20))):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "missing")
    for name in ("binary", "large", "."):
        with pytest.raises(ConfigError, match="configuration"):
            read_yaml(tmp_path / name)


# ---- layers -----------------------------------------------------------------------------------------------------


def printed(capsys, *words):
    """The configuration that a command prints."""
    assert cli.scimill.main([*words, "--print-config"], standalone_mode=False) == 0
    return parse_yaml(capsys.readouterr().out, "printed").values


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("count: 7\nair_density_range: [1.0, 1.1]\ntolerance: 1e-6\n")
    words = ("droplets", "generate", "out.h5", "--preset", "ntlp-2026", "--config", str(file))
    values = printed(capsys, *words, "--tolerance", "1e-5", "--radius-range", "1e-7:1e-5", "--keep-weird")
    assert values["tolerance"] == 1e-5  # flag over file
    assert values["count"] == 7  # file
    assert values["air_density_range"] == [1.0, 1.1]  # file over preset
    assert values["relative_humidity_range"] == [0.55, 1.1]  # preset over default
    assert values["radius_range"] == [1e-7, 1e-5]  # flag over default
    assert values["keep_weird"] is True
    assert values["prandtl"] == 0.715  # default


def test_a_flag_takes_back_what_the_file_switches_on(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("count: 1\nkeep_weird: true\n")
    words = ("droplets", "generate", "out.h5", "--config", str(file))
    assert printed(capsys, *words)["keep_weird"] is True
    assert printed(capsys, *words, "--no-keep-weird")["keep_weird"] is False


@pytest.mark.parametrize(
    ("words", "expected_text"),
    [
        (["--tolerence", "1"], "did you mean --tolerance?"),
        (["--preset", "newest"], "classic"),
        (["--count", "0"], "flag --count"),
        (["--count"], "requires an argument"),
        (["--config", "/nowhere/at/all.yaml", "--count", "1"], "no such file"),
        ([], "count is required"),
    ],
)
def test_wrong_command_lines_are_config_errors(words, expected_text):
    with pytest.raises(ConfigError) as caught:
        cli.scimill.main(["droplets", "generate", "out.h5", *words], standalone_mode=False)
    assert expected_text in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


# ---- differences ------------------------------------------------------------------------------------------------


def test_only_what_affects_the_data_makes_a_difference():
    stored = to_yaml(example(walltime="2h", loud=True, walltime_margin="5s"))
    assert explainer(example())(stored) == ""


def test_differences_are_named_with_both_values():
    difference = explainer(example(count=2, size="1e-7:1e-3"))(to_yaml(example()))
    assert difference == "count was 1, is 2; size was [1e-08, 0.001], is [1e-07, 0.001]"


def without(name):
    return "".join(line for line in to_yaml(example()).splitlines(keepends=True) if not line.startswith(name))


def test_a_parameter_that_the_stored_configuration_lacks_had_its_default():
    assert explainer(example())(without("size")) == ""
    assert explainer(example(size="1e-7:1e-3"))(without("size")) == "size was [1e-08, 0.001], is [1e-07, 0.001]"


def test_a_required_parameter_that_the_stored_configuration_lacks_makes_a_difference():
    assert explainer(example())(without("count")) == "count was None, is 1"


def test_plain_values_are_what_yaml_knows():
    assert plain(example(walltime="61s"))["walltime"] == "61.0s"
    assert plain(example())["size"] == [1e-8, 1e-3]
    assert plain(example())["weight"] is None


# ---- weight of the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["droplets", "--help"], ["droplets", "generate", "--help"]])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys; from scimill.cli import scimill\n"
        f"scimill.main({words}, standalone_mode=False)\n"
        "print(sorted({'mpi4py', 'h5py', 'numba', 'scipy', 'torch', 'matplotlib', 'openpyxl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_declaration_with_an_unknown_limit_is_refused():
    with pytest.raises(TypeError, match="no argument minimum; limits are ge, gt, le, lt, min_length, max_length"):
        parameter(1, "how many", minimum=1)


def test_a_check_across_parameters_is_reported_in_our_form():
    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Ordered(Run):
        """Ordered."""

        first: Whole = parameter(1, "first")
        last: Whole = parameter(2, "last")

        def __post_init__(self):
            if self.last < self.first:
                raise ValueError("last is before first")

    assert "last is before first" in refusal([Layer("flags", {"last": 0})], Ordered)


# ---- descriptions of what may be unknown ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
@declare_optional(Example)
class Described:
    """What is known of an example."""

    name: str = parameter("", "its name")


def test_optional_parameters_are_none_unless_given_and_checked_as_declared():
    assert parameters_of(Described).keys() == {"name", *parameters_of(Example)}
    made = build(Described, [Layer("test", {"weight": "2.5", "loud": True})])
    known = plain(made)
    assert {name: value for name, value in known.items() if value is not None} == {
        "name": "", "weight": 2.5, "loud": True,
    }  # fmt: skip
    assert "weight -1 is out of range" in refusal([Layer("test", {"weight": -1})], Described)
    assert "count 0 is out of range" in refusal([Layer("test", {"count": 0})], Described)
    assert "the lower bound must be above 0" in refusal([Layer("test", {"size": "0:1"})], Described)


def test_optional_parameters_keep_unit_meaning_and_choices():
    for name, known in parameters_of(Example).items():
        copied = parameters_of(Described)[name]
        assert (copied.unit, copied.info.description, copied.kind, copied.flag) == (
            known.unit, known.info.description, known.kind, known.flag,
        )  # fmt: skip
        assert copied.group == "What is known of an example"
    assert parameters_of(DropletsImportConfig)["salinity_kind"].choices == ("salt-mass", "solute-term")
