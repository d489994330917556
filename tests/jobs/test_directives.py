"""The checkers of directives refuse and accept the same lines as the real schedulers."""

from pathlib import Path

import pytest

from jobs.directives import (
    cobalt,
    cobalt_minutes,
    pbs,
    pbs_seconds,
    read_cobalt,
    read_pbs,
    read_slurm,
    slurm,
    slurm_seconds,
)

PBS_LINES = ("#PBS -l select=1:ncpus=2", "#PBS -l walltime=1:00:00")
COBALT_LINES = ("#COBALT -n 2", "#COBALT -t 60")


def pbs_script(*lines: str) -> str:
    return "\n".join(["#!/bin/bash", *PBS_LINES, *lines, "hostname", ""])


def cobalt_script(*lines: str, first: str = "#!/bin/bash") -> str:
    return "\n".join([first, *COBALT_LINES, *lines, "hostname", ""])


def slurm_script(*lines: str) -> str:
    return "\n".join(["#!/bin/bash", "#SBATCH --nodes=1", *lines, "hostname", ""])


def assert_reported(problems: list[str], message: str) -> None:
    assert len(problems) >= 1 and message in problems[0], problems


# ---- PBS --------------------------------------------------------------------------------------------------------

PBS_RIGHT = {
    "nothing-more": (),
    "comments-and-blanks-between": ("# why", "", "#PBS -A proj", "", "# why", "#PBS -q debug"),
    "filesystems": ("#PBS -l filesystems=home:eagle",),
    "quoted-resource": ('#PBS -l "filesystems=home:eagle"',),
    "several-options-in-a-line": ("#PBS -A proj -q debug -j oe",),
    "value-without-a-blank": ("#PBS -Nname",),
    "resources-with-a-comma": ("#PBS -l place=scatter,filesystems=home",),
    "chunk-of-polaris": ("#PBS -l select=2:system=polaris", "#PBS -l place=scatter"),
    "two-chunks": ("#PBS -l select=1:ncpus=4+2:ncpus=8:ngpus=4:mem=64gb",),
    "no-count": ("#PBS -l select=ncpus=4",),
    "99-nodes": ("#PBS -l select=99:ncpus=1",),
    "array": ("#PBS -J 0-3", "#PBS -r y"),
    "array-with-step": ("#PBS -J 0-7:2",),
    "array-with-limit": ("#PBS -J 0-7%2",),
    "after-an-array": ("#PBS -W depend=afterok:2[].server",),
    "after-two": ("#PBS -W depend=afterok:1.server:2.server",),
    "mail": ("#PBS -M a@example.org", "#PBS -m abe"),
    "exclusive": ("#PBS -l place=scatter:exclhost",),
    "kept-output": ("#PBS -k doe",),
}
PBS_WRONG = {
    "trailing-comment": ("#PBS -A proj # comment", "directive error"),
    "word-alone": ("#PBS walltime=1:00:00", "directive error"),
    "continuation": ("#PBS -A proj \\", "directive error"),
    "open-quote": ('#PBS -N "x', "directive error"),
    "unknown-resource": ("#PBS -l foo=1", "Unknown resource foo"),
    "filesystems-with-a-comma": ("#PBS -l filesystems=home,eagle", "Unknown resource eagle"),
    "signal": ("#PBS -l signal=TERM@60", "Unknown resource signal"),
    "unknown-in-a-chunk": ("#PBS -l select=1:gpus=4", "Unknown resource gpus"),
    "of-cobalt": ("#PBS -n 2 -t 60", "invalid option -- 'n'"),
    "long-option": ("#PBS --nodes=2", "invalid option -- '-'"),
    "no-value": ("#PBS -A", "requires an argument"),
    "select-and-ncpus": ("#PBS -l ncpus=4", '"select"'),
    "name-of-two-words": ('#PBS -N "two words"', "illegal -N value"),
    "name-of-psij": ('#PBS -N="x"', "illegal -N value"),
    "name-with-a-star": ("#PBS -N 1*x", "illegal -N value"),
    "name-from-a-digit": ("#PBS -N 1x", "illegal -N value"),
    "walltime-1h": ("#PBS -l walltime=1h", "Illegal attribute or resource value: walltime"),
    "walltime-with-days": ("#PBS -l walltime=1:00:00:00", "Illegal attribute or resource value: walltime"),
    "walltime-empty": ("#PBS -l walltime=", "Illegal attribute or resource value: walltime"),
    "variable-in-select": ("#PBS -l select=${N}:ncpus=4", "Illegal attribute or resource value: select"),
    "variable-as-ncpus": ("#PBS -l select=1:ncpus=$N", "Illegal attribute or resource value: ncpus"),
    "select-0": ("#PBS -l select=0:ncpus=4", "Illegal attribute or resource value: select"),
    "memory-with-a-unit-of-slurm": ("#PBS -l select=1:mem=64GiB", "Illegal attribute or resource value: mem"),
    "place-unknown": ("#PBS -l place=spread", "Illegal attribute or resource value: place"),
    "variable-as-queue": ("#PBS -q $Q", "illegal -q value"),
    "variable-as-account": ("#PBS -A $A", "illegal -A value"),
    "join": ("#PBS -j yes", "illegal -j value"),
    "mail-events": ("#PBS -m END", "illegal -m value"),
    "rerun": ("#PBS -r yes", "illegal -r value"),
    "array-of-one": ("#PBS -J 3-3", "illegal -J value"),
    "array-reversed": ("#PBS -J 3-0", "illegal -J value"),
    "array-of-slurm": ("#PBS -J 0,3,5", "illegal -J value"),
    "depend-on-words": ("#PBS -W depend=afterok:first", "illegal -W value"),
    "depend-of-what": ("#PBS -W depend=afterwards:1", "illegal -W value"),
    "depend-on-nothing": ("#PBS -W depend=", "illegal -W value"),
    "unknown-attribute": ("#PBS -W after=1", "illegal -W value"),
    "with-a-blank": ("# PBS -A proj", "ignored:"),
    "small-letters": ("#pbs -A proj", "ignored:"),
}


@pytest.mark.parametrize("name", PBS_RIGHT)
def test_pbs_takes(name: str) -> None:
    assert pbs(pbs_script(*PBS_RIGHT[name])) == []


@pytest.mark.parametrize("name", PBS_WRONG)
def test_pbs_refuses(name: str) -> None:
    line, message = PBS_WRONG[name]
    assert_reported(pbs(pbs_script(line)), message)


def test_pbs_refuses_an_array_that_may_not_be_rerun() -> None:
    assert_reported(pbs(pbs_script("#PBS -J 0-3", "#PBS -r n")), "array")


def test_pbs_refuses_windows_lines() -> None:
    assert pbs(pbs_script().replace("\n", "\r\n")) == ["script contains cr, lf"]


def test_pbs_reads_nothing_after_the_first_command() -> None:
    reading = read_pbs(pbs_script() + "#PBS -A late\n")
    assert "A" not in reading.options
    assert_reported(reading.problems, "ignored: '#PBS -A late' comes after the first command")


@pytest.mark.parametrize("name, line", {"with-a-blank": "# PBS -A proj", "small-letters": "#pbs -A proj"}.items())
def test_pbs_passes_over_what_only_looks_like_a_directive(name: str, line: str) -> None:
    assert "A" not in read_pbs(pbs_script(line)).options, name


def test_pbs_takes_comments_that_name_it() -> None:
    assert pbs(pbs_script("# PBS gives the nodes whole")) == []


DIALECTS = {
    "torque": ("torque", "-l nodes=2:ppn=8:gpus=2:bigmem,mem=8gb", ""),
    "torque-array": ("torque", "-J 0-3", "invalid option -- 'J'"),
    "torque-select": ("torque", "-l select=1", "Unknown resource select"),
    "torque-place": ("torque", "-l place=scatter", "Unknown resource place"),
    "torque-processors": ("torque", "-l nodes=2:ppn=0", "Illegal attribute or resource value: nodes=2:ppn=0"),
    "nci": ("nci", "-P ab1 -l ncpus=96,mem=380GB,jobfs=1GB,storage=gdata/ab1+scratch/ab1", ""),
    "nci-select": ("nci", "-l select=1", "Unknown resource select"),
    "nci-storage": ("nci", "-l storage=gdata/ab1:scratch/ab1", "Illegal attribute or resource value: storage"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_pbs_of_other_kinds(name: str) -> None:
    dialect, line, message = DIALECTS[name]
    problems = read_pbs(f"#!/bin/bash\n#PBS {line}\nhostname\n", dialect=dialect).problems
    assert_reported(problems, message) if message else assert_none(problems)


def assert_none(problems: list[str]) -> None:
    assert problems == []


PBS_TIMES = {"60": 60, "30:00": 1800, "0:30:0": 1800, "01:00:00": 3600, "120:00:00": 432000, "1h": None, "": None}


@pytest.mark.parametrize("text", [*PBS_TIMES, "1:00:00:00", "-1", "1.5h"])
def test_pbs_times(text: str) -> None:
    assert pbs_seconds(text) == PBS_TIMES.get(text)


def test_pbs_options_are_read() -> None:
    options = read_pbs(pbs_script("#PBS -N a -A proj", "#PBS -W depend=afterok:1.s:2.s")).options
    assert options == {
        "select": "1:ncpus=2", "walltime": "1:00:00", "N": "a", "A": "proj", "depend": "afterok:1.s:2.s",
    }  # fmt: skip


def test_pbs_command_line_wins() -> None:
    script = pbs_script("#PBS -A proj", "#PBS -q debug")
    options = read_pbs(script, arguments=["-A", "other", "-l", "walltime=2:00:00"]).options
    assert (options["A"], options["q"], options["walltime"]) == ("other", "debug", "2:00:00")


def test_pbs_server_knows_its_queues() -> None:
    script = pbs_script("#PBS -q debug")
    assert pbs(script, queues={"debug": 3600}) == []
    assert_reported(pbs(script, queues={"prod": 3600}), "Unknown queue debug")
    assert_reported(pbs(script, queues={"debug": 3599}), "violates queue")


def test_pbs_server_knows_its_jobs() -> None:
    script = pbs_script("#PBS -W depend=afterok:1.s:2.s")
    assert pbs(script, jobs={"1.s", "2.s"}) == []
    assert_reported(pbs(script, jobs={"1.s"}), "depends on the unknown job 2.s")


def test_pbs_site_makes_options_mandatory() -> None:
    required = ("A", "walltime", "filesystems")
    assert pbs(pbs_script("#PBS -A proj", "#PBS -l filesystems=home"), required=required) == []
    assert pbs(pbs_script(), required=required) == ["A is mandatory here", "filesystems is mandatory here"]


# ---- Cobalt -----------------------------------------------------------------------------------------------------

COBALT_RIGHT = {
    "nothing-more": (),
    "several-options-in-a-line": ("#COBALT -q full-node -A proj",),
    "attributes": ("#COBALT --attrs filesystems=home,eagle:pubnet=true:mcdram=flat",),
    "bare-attributes": ("#COBALT --attrs pubnet:no_reboot",),
    "equals-sign": ("#COBALT --jobname=a",),
    "abbreviation": ("#COBALT --proj a",),
    "dependencies": ("#COBALT --dependencies 5:6",),
    "environment": (r"#COBALT --env A=1:B=a\:b\=c --env C=3",),
    "mail": ("#COBALT -M a@example.org",),
    "output-with-the-job-id": ("#COBALT -O $jobid",),
    "held": ("#COBALT -h",),
    "then-blank": ("#COBALT -q a", "", "# a comment"),
}
COBALT_WRONG = {
    "of-pbs-name": ("#COBALT -N name", "no such option: -N"),
    "of-pbs-resource": ("#COBALT -l walltime=1:00:00", "no such option: -l"),
    "of-pbs-depend": ("#COBALT -W depend=afterok:5", "no such option: -W"),
    "array": ("#COBALT -J 0-3", "no such option: -J"),
    "unknown": ("#COBALT --nodes 2", "no such option: --nodes"),
    "no-value": ("#COBALT -q", "requires 1 argument"),
    "nodes-half": ("#COBALT -n 1.5", "invalid integer value"),
    "nodes-0": ("#COBALT -n 0", "above zero"),
    "nodes-below-0": ("#COBALT -n -2", "above zero"),
    "processes-0": ("#COBALT --proccount 0", "above zero"),
    "time-with-unit": ("#COBALT -t 60m", "invalid time specification"),
    "time-of-psij": ("#COBALT --time=''", "quotes"),
    "time-empty": ("#COBALT --time=", "empty"),
    "time-of-slurm": ("#COBALT -t 1-00:00:00", "invalid time specification"),
    "time-below-5-minutes": ("#COBALT -t 4", "Walltime less than minimum"),
    "time-below-5-minutes-in-seconds": ("#COBALT -t 00:04:59", "Walltime less than minimum"),
    "quoted-attributes": ('#COBALT --attrs "filesystems=home"', "quotes"),
    "attributes-twice": ("#COBALT --attrs a=1 --attrs b=2", "Multiple --attrs"),
    "attribute-with-two-equals-signs": ("#COBALT --attrs a=b=c", "Improperly formatted"),
    "attribute-without-a-name": ("#COBALT --attrs =b", "Improperly formatted"),
    "environment-without-a-value": ("#COBALT --env A", "Improperly formatted argument to env"),
    "name-of-two-words": ("#COBALT --jobname two words", "'words' is taken as the script"),
    "quoted-name": ('#COBALT --jobname "two words"', "'words\"' is taken as the script"),
    "trailing-comment": ("#COBALT -q a # comment", "'#' is taken as the script"),
    "dependency-of-pbs": ("#COBALT --dependencies afterok:5", "dep_fail"),
    "dependency-with-server": ("#COBALT --dependencies 5.server", "dep_fail"),
    "umask": ("#COBALT -u 999", "Invalid umask"),
    "kernel": ("#COBALT --kernel default", "BlueGene"),
    "interactive": ("#COBALT -I", "interactive"),
}


@pytest.mark.parametrize("name", COBALT_RIGHT)
def test_cobalt_takes(name: str) -> None:
    assert cobalt(cobalt_script(*COBALT_RIGHT[name])) == []


@pytest.mark.parametrize("name", COBALT_WRONG)
def test_cobalt_refuses(name: str) -> None:
    line, message = COBALT_WRONG[name]
    assert_reported(cobalt(cobalt_script(line)), message)


@pytest.mark.parametrize("line", ["", "# comment", "# COBALT -q a", " #COBALT -q a", "#COBALT", "#cobalt -q a"])
def test_cobalt_directives_end_with_the_first_other_line(line: str) -> None:
    reading = read_cobalt(cobalt_script(line, "#COBALT -A late"))
    assert reading.options == {"nodecount": "2", "time": "60"}
    assert any("'#COBALT -A late' comes after" in problem for problem in reading.problems), reading


@pytest.mark.parametrize("first", ["", "# a comment", "#COBALT -n 2", " #!/bin/bash"])
def test_cobalt_wants_an_interpreter_in_line_1(first: str) -> None:
    reading = read_cobalt(cobalt_script(first=first))
    assert reading.options == {}
    assert_reported(reading.problems, "line 1 does not begin with #!")


@pytest.mark.parametrize("left, message", [("#COBALT -n 2", "time"), ("#COBALT -t 60", "nodecount")])
def test_cobalt_requires_nodes_and_time(left: str, message: str) -> None:
    assert cobalt(f"#!/bin/sh\n{left}\nhostname\n") == [f"required option missing: {message}"]


def test_cobalt_wants_an_executable() -> None:
    assert cobalt(cobalt_script(), executable=False) == ["command is not executable"]


def test_cobalt_takes_windows_lines() -> None:
    assert cobalt(cobalt_script("#COBALT -q a").replace("\n", "\r\n")) == []


def test_cobalt_takes_comments_that_name_it() -> None:
    assert cobalt(cobalt_script("# Cobalt starts a job where it was submitted")) == []


COBALT_TIMES = {"60": 60, "0": 0, "01:30": 90, "01:30:59": 90, "02:01:30:00": 2970}


@pytest.mark.parametrize("text", [*COBALT_TIMES, "", "60m", "1:2:3:4:5", "-5", "1.5", "::"])
def test_cobalt_times(text: str) -> None:
    assert cobalt_minutes(text) == COBALT_TIMES.get(text)


@pytest.mark.parametrize("text", ["5", "00:05", "00:05:00", "0"])
def test_cobalt_shortest_times(text: str) -> None:
    assert cobalt(cobalt_script(f"#COBALT -t {text}")) == []


def test_cobalt_options_are_read() -> None:
    options = read_cobalt(cobalt_script("#COBALT --attrs filesystems=home,eagle -q a", "#COBALT --jobname b")).options
    assert options == {
        "nodecount": "2", "time": "60", "attrs": "filesystems=home,eagle", "queue": "a", "jobname": "b",
    }  # fmt: skip


def test_cobalt_command_line_wins_but_for_attributes() -> None:
    script = cobalt_script("#COBALT -q a --attrs x=1")
    assert read_cobalt(script, arguments=["-q", "b"]).options["queue"] == "b"
    assert_reported(cobalt(script, arguments=["--attrs", "y=1"]), "Multiple --attrs")


def test_cobalt_wants_folders_of_outputs(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert cobalt(cobalt_script("#COBALT -o there/a -e a"), folder=tmp_path) == []
    for option in ("-o", "-e", "-O", "--debuglog"):
        assert_reported(cobalt(cobalt_script(f"#COBALT {option} gone/a"), folder=tmp_path), "gone does not exist")


# ---- Slurm ------------------------------------------------------------------------------------------------------

SLURM_RIGHT = {
    "nothing-more": (),
    "comments-and-blanks-between": ("", "# why", "#SBATCH --account=a"),
    "several-options-in-a-line": ("#SBATCH --account=a --partition=b",),
    "array": ("#SBATCH --array=0-9%4",),
    "array-of-one": ("#SBATCH --array=0-0",),
    "array-list": ("#SBATCH --array=1,3,5-11:2%3",),
    "dependency": ("#SBATCH --dependency=afterok:1:2_3 --kill-on-invalid-dep=yes",),
    "signal": ("#SBATCH --signal=B:USR1@60",),
    "mail": ("#SBATCH --mail-user=a@example.org --mail-type=END,FAIL",),
    "memory": ("#SBATCH --mem=64G",),
    "gpus": ("#SBATCH --gpus-per-node=a100:4",),
    "output": ("#SBATCH --output=%x-%A_%a.log",),
    "exclusive": ("#SBATCH --exclusive",),
}
SLURM_WRONG = {
    "time-empty": ("#SBATCH --time=", "Invalid --time"),
    "time-of-psij": ("#SBATCH --time=''", "Invalid --time"),
    "time-0": ("#SBATCH --time=00:00:00", "Invalid --time"),
    "time-with-unit": ("#SBATCH --time=2h", "Invalid --time"),
    "trailing-comment": ("#SBATCH --account=a # comment", "unexpected word '#'"),
    "unknown": ("#SBATCH --walltime=1:00:00", "unrecognized option '--walltime'"),
    "short": ("#SBATCH -N 1", "unexpected word '-N'"),
    "nodes-0": ("#SBATCH --ntasks=0", "Invalid --ntasks"),
    "twice": ("#SBATCH --nodes=2", "given twice"),
    "quoted": ('#SBATCH --job-name="a"', "Invalid --job-name"),
    "variable": ("#SBATCH --partition=$P", "Invalid --partition"),
    "memory-unit": ("#SBATCH --mem=64GiB", "Invalid --mem"),
    "memory-twice": ("#SBATCH --mem=1G --mem-per-cpu=1G", "exclude each other"),
    "dependency-word": ("#SBATCH --dependency=afterok:first", "Invalid --dependency"),
    "dependency-of-pbs": ("#SBATCH --dependency=afterok:5.server", "Invalid --dependency"),
    "array-reversed": ("#SBATCH --array=3-0", "Invalid job array"),
    "signal-unknown-form": ("#SBATCH --signal=USR1@1m", "Invalid --signal"),
    "mail-type": ("#SBATCH --mail-type=ae", "Invalid --mail-type"),
    "with-a-blank": ("# SBATCH --account=a", "ignored:"),
    "small-letters": ("#sbatch --account=a", "ignored:"),
}


@pytest.mark.parametrize("name", SLURM_RIGHT)
def test_slurm_takes(name: str) -> None:
    assert slurm(slurm_script(*SLURM_RIGHT[name])) == []


@pytest.mark.parametrize("name", SLURM_WRONG)
def test_slurm_refuses(name: str) -> None:
    line, message = SLURM_WRONG[name]
    assert_reported(slurm(slurm_script(line)), message)


def test_slurm_reads_nothing_after_the_first_command() -> None:
    reading = read_slurm(slurm_script() + "#SBATCH --account=late\n")
    assert reading.options == {"nodes": "1"}
    assert_reported(reading.problems, "comes after the first command")


def test_slurm_refuses_windows_lines_and_no_interpreter() -> None:
    assert_reported(slurm(slurm_script().replace("\n", "\r\n")), "DOS line breaks")
    assert_reported(slurm("#SBATCH --nodes=1\nhostname\n"), "#!")


SLURM_TIMES = {"60": 3600, "30:00": 1800, "01:00:00": 3600, "1-00": 86400, "1-01:30": 91800, "2-00:00:01": 172801}


@pytest.mark.parametrize("text", [*SLURM_TIMES, "1h", "", "1:2:3:4"])
def test_slurm_times(text: str) -> None:
    assert slurm_seconds(text) == SLURM_TIMES.get(text)
