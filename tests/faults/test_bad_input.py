"""Mistakes of users: a short message that says where and what to do, its exit code, and nothing written."""

from pathlib import Path

import pytest

from faults.conftest import Mount
from mpi import SERIAL_HDF5, Result, scimill, succeed

CONFIG, INPUT, STORAGE = 2, 3, 4
SMALL = ("--count", 1000, "--tolerance", 1e-4)


def generate(output: Path, *args: object) -> Result:
    """Run the generating command on one rank."""
    return scimill("droplets", "generate", output, *args)


def assert_refused(result: Result, code: int, *expected_text: str) -> None:
    """Check the exit code, and that one message of at most four lines has these words."""
    assert (result.returncode, result.tracebacks, len(result.errors)) == (code, 0, 1), result
    assert result.stdout == "", result
    assert len(result.stderr.splitlines()) <= 4, result
    for text in expected_text:
        assert text in result.stderr, result


# ---- configuration ----------------------------------------------------------------------------------------------

WRONG_FLAGS = {
    "unknown-flag": (("--cuont", 1000), "no such option: --cuont; did you mean --count?"),
    "no-count": ((), "count is required"),
    "count-0": (("--count", 0), "flag --count"),
    "count-1e18": (("--count", "1e18"), "<= 1e13"),
    "count-half": (("--count", 1.5), "a whole number"),
    "seed-a-word": ((*SMALL, "--seed", "lucky"), "a whole number"),
    "seed-half": ((*SMALL, "--seed", 1.5), "a whole number"),
    "seed-negative": ((*SMALL, "--seed", -1), ">= 0"),
    "range-upside-down": (
        (*SMALL, "--radius-range", "1e-3:1e-8"),
        "the lower bound 0.001 exceeds the upper bound 1e-08",
    ),
    "range-from-0": ((*SMALL, "--radius-range", "0:1e-8"), "the lower bound must be above 0"),
    "range-of-one": ((*SMALL, "--radius-range", "1e-8"), "low:high"),
    "range-of-words": ((*SMALL, "--radius-range", "small:large"), "flag --radius-range"),
    "tolerance-nan": (("--count", 10, "--tolerance", "nan"), "flag --tolerance"),
    "humidity-in-percent": ((*SMALL, "--relative-humidity-range", "65:110"), "1 is saturation, not 100"),
    "walltime-without-unit": ((*SMALL, "--walltime", 60), "give a unit, e.g. 90s"),
    "unknown-preset": ((*SMALL, "--preset", "classical"), "ntlp-2026"),
    "resume-and-overwrite": ((*SMALL, "--resume", "--overwrite"), "cannot be combined"),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_a_wrong_flag(output: Path, name: str) -> None:
    flags, expected_text = WRONG_FLAGS[name]
    assert_refused(generate(output, *flags), CONFIG, expected_text)
    assert list(output.parent.iterdir()) == []


WRONG_FILES = {
    "unknown-key": (b"cuont: 1000", "unknown key 'cuont'; did you mean 'count'?"),
    "range-upside-down": (b"count: 10\nradius_range: [1.0e-3, 1.0e-8]", "exceeds the upper bound"),
    "key-twice": (b"count: 10\ncount: 20", "key 'count' is given twice"),
    "a-list": (b"- count", "a mapping of keys to values"),
    "no-yaml": (b"count: [10", "not valid YAML"),
    "no-text": (b"\xff\xfe\x80", "not UTF-8"),
    "far-too-large": (b"#" * (2 << 20), "the configuration exceeds"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_configuration_file(output: Path, tmp_path: Path, name: str) -> None:
    content, expected_text = WRONG_FILES[name]
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    assert_refused(generate(output, "--config", file), CONFIG, expected_text, f"file {file}")
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("is_folder", [False, True], ids=["missing", "a-folder"])
def test_a_configuration_file_that_cannot_be_read(output: Path, tmp_path: Path, is_folder: bool) -> None:
    file = tmp_path / "config.yaml"
    if is_folder:
        file.mkdir()
    message = "cannot read the configuration" if is_folder else "no such file"
    assert_refused(generate(output, "--config", file), CONFIG, message, str(file))


# ---- output -----------------------------------------------------------------------------------------------------


def test_an_output_that_exists(output: Path) -> None:
    output.write_text("precious")
    assert_refused(generate(output, *SMALL), STORAGE, "the output already exists", str(output), "--overwrite")
    assert output.read_text() == "precious"


def test_an_output_that_is_a_folder(output: Path) -> None:
    output.mkdir()
    assert_refused(generate(output, *SMALL), STORAGE, "the output is a directory", str(output))


def test_a_directory_that_is_missing(output: Path) -> None:
    folder = output.parent / "missing"
    assert_refused(generate(folder / "droplets.h5", *SMALL), STORAGE, "does not exist", f"mkdir -p {folder}")
    assert not folder.exists()


def test_a_directory_that_is_read_only(mount: Mount) -> None:
    disk = mount("4m")
    mount("4m", "ro")
    assert_refused(generate(disk / "droplets.h5", *SMALL), STORAGE, "cannot be written", str(disk))


# ---- resuming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".part"])
def test_resuming_with_another_configuration_shows_the_difference(output: Path, suffix: str) -> None:
    succeed("droplets", "generate", output, *SMALL)
    stored = output.rename(output.with_name(output.name + suffix))
    before = stored.read_bytes()
    result = generate(output, *SMALL, "--seed", 2, "--schmidt", 0.6, "--resume")
    assert_refused(result, CONFIG, "seed was 1, is 2", "schmidt was 0.615, is 0.6", str(stored), "--overwrite")
    assert stored.read_bytes() == before


@pytest.mark.parametrize("suffix", ["", ".part"])
@pytest.mark.parametrize("content", [b"", b"a letter", bytes(10_000)], ids=["empty", "text", "zeros"])
def test_resuming_what_is_no_store(output: Path, suffix: str, content: bytes) -> None:
    other = output.with_name(output.name + suffix)
    other.write_bytes(content)
    assert_refused(generate(output, *SMALL, "--resume"), INPUT, "not a scimill store", str(other))
    assert other.read_bytes() == content


# ---- input files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 35, 37, 36 * 1000 - 1])
def test_records_that_are_no_whole_number(output: Path, tmp_path: Path, size: int) -> None:
    records = tmp_path / "damaged.data"
    records.write_bytes(bytes(size))
    result = scimill("droplets", "import-data", records, output)
    message = f"the file size, {size:,}," if size else "empty"
    assert_refused(result, INPUT, message, str(records), "a multiple of 36 bytes")
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("command", [("verify",), ("inspect",), ("droplets", "export-data")], ids=" ".join)
@pytest.mark.parametrize("kind", ["missing", "a-folder", "text"])
def test_a_file_that_is_no_store(output: Path, tmp_path: Path, command: tuple[str, ...], kind: str) -> None:
    file = tmp_path / "file.h5"
    if kind == "a-folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("a letter")
    outputs = (output,) if command[0] == "droplets" else ()
    assert_refused(scimill(*command, file, *outputs), INPUT, str(file))


@pytest.mark.parametrize("command", [("repack",), ("droplets", "export-data")], ids=" ".join)
def test_an_unfinished_store_is_not_taken_for_a_whole_one(output: Path, command: tuple[str, ...]) -> None:
    begun = generate(output, *SMALL, "--walltime", "1s", "--walltime-margin", "0.999s")  # it ends at once
    assert begun.returncode == 75, begun
    part, copy = output.with_name(output.name + ".part"), output.with_name("copy")
    assert_refused(scimill(*command, part, copy), INPUT, "the store is unfinished", str(part), "--resume")
    assert not copy.exists()


# ---- ranks ------------------------------------------------------------------------------------------------------


@pytest.mark.needs("serial HDF5")
def test_three_ranks_with_a_serial_hdf5(output: Path) -> None:
    result = scimill("droplets", "generate", output, *SMALL, ranks=3, env=SERIAL_HDF5)
    assert (result.returncode, result.tracebacks, len(result.errors)) == (CONFIG, 0, 1), result
    assert "3 ranks, but this h5py was built without MPI" in result.stderr
    assert "scripts/setup.sh" in result.stderr
    assert list(output.parent.iterdir()) == []
