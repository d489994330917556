"""What `scimill droplets export --exact` writes and refuses; tests/validation/droplets/test_exact.py runs it."""

import re
from pathlib import Path
from typing import Any

import pytest

from scimill.cli import scimill as command_line
from scimill.config import Layer, build
from scimill.droplets import arguments
from scimill.droplets.exchange import integrator
from scimill.droplets.kernels import lanes, rodas5p
from scimill.droplets.params import DropletsExactConfig
from scimill.errors import ConfigError, NumericalError, ScimillError, StorageError


def config(**values: Any) -> DropletsExactConfig:
    return build(DropletsExactConfig, [Layer("test", values)])


def call(*args: object) -> None:
    command_line.main(["droplets", "export", *map(str, args)], prog_name="scimill", standalone_mode=False)


def numbers(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"\d\.\d+e[+-]\d+", text)}


# ---- rendering --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exact.c", "exact.f90"])
def test_all_coefficients_and_constants_are_in_the_text_to_the_last_bit(name: str) -> None:
    changed = config(surface_tension=0.0712345, hygroscopicity=0.61, max_steps=1234)
    wanted = {abs(value) for row in (*rodas5p.A, *rodas5p.C) for value in row} | {1 / rodas5p.GAMMA, 1234.0}
    wanted |= set(arguments.constants(changed)) | {lanes.FIRST_STEP, lanes.SHORTEST_STEP, lanes.SMALLEST_U}
    assert wanted <= numbers(integrator.render(changed, Path(name)))


@pytest.mark.parametrize("name", ["exact.c", "exact.f90"])
def test_the_statuses_are_those_of_the_kernel(name: str) -> None:
    text = integrator.render(config(), Path(name))
    found = dict(re.findall(r"droplet_(\w+) = (\d)", text, re.IGNORECASE))
    assert {key.upper(): int(code) for key, code in found.items()} == {
        status: getattr(lanes, status) for status in integrator.STATUSES
    }
    assert sorted(map(int, found.values())) == list(range(7))


@pytest.mark.parametrize(
    ("kind", "words", "factor"), [("salt-mass", "salt mass", 0.6), ("solute-term", "solute term", 1)]
)
def test_the_meaning_of_salinity(kind: str, words: str, factor: float) -> None:
    chosen = config(salinity_kind=kind)
    assert f"salinity is the {words}" in integrator.render(chosen, Path("exact.c"))
    assert integrator.constants(chosen)["solute_per_salinity"] == pytest.approx(factor)


def test_every_constant_has_a_meaning() -> None:
    assert set(integrator.constants(config())) == set(integrator.MEANINGS)


@pytest.mark.parametrize("name", ["exact.c", "exact.f90"])
def test_the_text_is_ascii_and_fits_into_fortran_s_132_columns(name: str) -> None:
    text = integrator.render(config(), Path(name))
    assert text.isascii()
    if name.endswith("f90"):
        assert max(map(len, text.splitlines())) <= 132


def test_constants_that_overflow_are_refused() -> None:
    with pytest.raises(NumericalError, match="cannot be computed"):
        integrator.render(config(latent_heat=1e308, water_molar_mass=1e10), Path("exact.c"))


# ---- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language"), [("a.c", "C11"), ("a.f90", "Fortran 2008"), ("my-file.f90", "Fortran 2008")]
)
def test_the_suffix_chooses_the_language(
    name: str, language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("--exact", tmp_path / name)
    assert capsys.readouterr().out == f"{tmp_path / name}: exact integrator in {language}\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_presets_files_and_flags_set_the_constants_and_ranges_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("count: 100\nradius_range: [1.0e-7, 1.0e-4]\ngas_constant: 8.5\n")
    call("--exact", tmp_path / "a.c", "--preset", "ntlp-2026", "--config", tmp_path / "all.yaml", "--schmidt", 0.63)
    expected = config(salinity_kind="solute-term", gas_constant=8.5, schmidt=0.63)
    assert (tmp_path / "a.c").read_text() == integrator.render(expected, tmp_path / "a.c")


def test_an_unknown_key_of_a_file_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("schmitt: 0.6\n")
    with pytest.raises(ConfigError, match=r"unknown key 'schmitt'; did you mean 'schmidt'"):
        call("--exact", tmp_path / "a.c", "--config", tmp_path / "wrong.yaml")


ORIGINAL_ONLY = "only the original equations can be exported, without corrections for small, salty and falling droplets"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--exact", "a.txt"), "no language has the suffix '.txt'"),
        (("--exact", "a"), "the file has no suffix"),
        (("--exact", "a.F90"), "no language has the suffix '.F90'"),
        (("--exact", "1a.f90"), "'1a' is not a valid name of a Fortran module"),
        (("--exact", "sweep.f90"), "the name sweep is already used inside the module"),
        (("--exact", "a.c", "run"), "MODEL has no effect on the exact integrator"),
        (("run", "b.f90", "--exact", "a.c"), "MODEL has no effect on the exact integrator"),
        (("--exact", "a.c", "--format", "onnx"), "--format has no effect on the exact integrator"),
        (("--exact", "a.c", "--precision", "float32"), "--precision has no effect on the exact integrator"),
        (("--exact", "a.c", "--zero"), "--zero has no effect on the exact integrator"),
        (("--exact", "a.c", "--schmidt", "-1"), "--schmidt -1 is out of range"),
        (("--exact",), "option '--exact' requires an argument"),
        ((), "missing model"),
        (("run",), "missing output"),
        (("run", "net.what"), "the format does not follow from the name of the file"),
        (("--exact", "a.c", "--preset", "cloud"), ORIGINAL_ONLY),
        (("run", "net.onnx", "--format", "onnx", "--preset", "classic"), "--preset needs --exact"),
        (("run", "net.onnx", "--format", "onnx", "--schmidt", "0.6"), "--schmidt needs --exact"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        call(*words)
    assert caught.value.what == message
    assert len(str(caught.value).splitlines()) <= 4
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_replaced_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.c"
    path.write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        call("--exact", path)
    assert path.read_text() == "mine"
    call("--exact", path, "--overwrite")
    assert "advance_droplet" in path.read_text()


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScimillError, match="directory does not exist"):
        call("--exact", tmp_path / "no" / "a.c")
