#!/usr/bin/env python3
"""Write the reference pages (docs/reference) from the declarations of commands, parameters, exit codes and so on.

Run it after a change of a parameter, a flag or a help text.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

from scimill import errors
from scimill.cli import COMMANDS, scimill
from scimill.config import File, Run, parameters_of, preset_names, read_preset
from scimill.extras import PURPOSES, extras
from scimill.jobs.schedulers import COBALT_WORDS, FLUX_WORDS, PBS_WORDS, SLURM_WORDS, JobState
from scimill.options import ConfigOption, describe_default
from scimill.training.params import TrainingConfig

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
SHARED = {parameter.group: page for config, page in ((TrainingConfig, "training"), (Run, "shared"), (File, "shared"))
          for parameter in parameters_of(config).values()}  # fmt: skip
HEADER = "<!-- Made by scripts/make_reference.py. Do not edit. -->\n\n"


def table(titles: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def code(text: str) -> str:
    """Mark a text as code; nothing stays nothing."""
    return f"`{text}`" if text else ""


def describe_parameters(options: list[ConfigOption]) -> str:
    """Tables of declared parameters, one per group."""
    text = ""
    for group in dict.fromkeys(option.group for option in options):
        rows = [
            [code(p.flag), code(describe_default(p)), p.allowed, p.info.description or ""]
            for p in (option.parameter for option in options if option.group == group)
        ]
        text += f"**{group}**\n\n" + table(["parameter", "default", "allowed", "meaning"], rows)
    return text


def describe_arguments(command: click.Command, context: click.Context) -> str:
    """Table of a command's arguments, and of the options that are not parameters."""
    plain = [option for option in command.params if not isinstance(option, ConfigOption)]
    records = [option.get_help_record(context) for option in plain]
    rows = [[code(record[0]), " ".join(record[1].split())] for record in records if record]
    return table(["argument or option", "meaning"], rows) if rows else ""


def describe_command(path: str, command: click.Command, page: str) -> str:
    """Section of one command."""
    context = click.Context(command, info_name=path)
    options = [option for option in command.params if isinstance(option, ConfigOption)]
    own = [option for option in options if SHARED.get(option.group, page) == page]
    shared = sorted({SHARED[option.group] for option in options if option not in own})
    links = " and ".join(f"the [{name} parameters]({name}.md)" for name in shared)
    summary = inspect.cleandoc(command.help or "").replace("\b\n", "")
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    return (
        f"## {path}\n\n{summary}\n\n```text\n{usage}\n```\n\n"
        + describe_arguments(command, context)
        + describe_parameters(own)
        + (f"It also has {links}.\n\n" if links else "")
        + describe_presets(command)
    )


def describe_presets(command: click.Command) -> str:
    """Table of the presets that a command offers."""
    folder = getattr(command.callback, "presets", "")
    rows = []
    for name in preset_names(folder) if folder else ():
        values = read_preset(folder, name).values
        rows.append([code(name), ", ".join(code(f"{key}: {value}") for key, value in values.items()) or "the defaults"])
    return table(["preset", "sets"], rows) if rows else ""


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """All commands below a command, or the command itself."""
    if isinstance(command, click.Group):
        for name, found in command.commands.items():
            yield from commands(f"{path} {name}", found)
    else:
        yield path, command


def describe_exit_codes() -> str:
    """Table of exit codes, from the classes of errors."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if "exit_code" in vars(kind)]
    rows = [[str(kind.exit_code), (kind.__doc__ or "").split("\n")[0]] for kind in kinds if kind.exit_code != 1]
    rows += [["0", "Finished."], ["1", "A defect of scimill: it prints a traceback."]]
    return table(["exit code", "meaning"], sorted(rows, key=lambda row: int(row[0])))


def describe_states() -> str:
    """Table of what the schedulers' words for the states of jobs mean."""
    all_words = {"Slurm": SLURM_WORDS, "PBS, Torque": PBS_WORDS, "Cobalt": COBALT_WORDS, "Flux": FLUX_WORDS}
    rows = [
        [title, *(", ".join(code(word) for word, state in words.items() if state == one) for one in get_args(JobState))]
        for title, words in all_words.items()
    ]
    return table(["scheduler", *get_args(JobState)], rows)


def describe_extras() -> str:
    """Table of the extras of the package."""
    rows = [[code(extra), ", ".join(map(code, packages)), PURPOSES[extra]] for extra, packages in extras().items()]
    return table(["extra", "packages", "for"], rows)


def parameters(*configs: type) -> str:
    """Tables of the parameters of config classes."""
    return describe_parameters([ConfigOption(p) for config in configs for p in parameters_of(config).values()])


def pages() -> dict[str, str]:
    """All pages by name."""
    found = {
        "shared": "# Shared parameters\n\n"
        + parameters(Run, File)
        + "## Exit codes\n\n"
        + describe_exit_codes()
        + "\n## Extras\n\n"
        + describe_extras(),
        "training": "# Training parameters\n\nEvery `train` command has them.\n\n"
        + describe_parameters(
            [ConfigOption(p) for p in parameters_of(TrainingConfig).values() if SHARED[p.group] == "training"]
        ),
    }
    for campaign in scimill.campaigns:  # of a stranger's campaign, its own package has the pages
        if scimill.campaigns[campaign].is_own:
            found[campaign] = describe_group(campaign, campaign)
    found["jobs"] = describe_group("jobs", "jobs") + "## States of jobs\n\n" + describe_states()
    others = [name for name in COMMANDS if name != "jobs"]
    found["files"] = "# Commands for every file\n\n" + "".join(sections(name, "files") for name in others)
    return {name: HEADER + text.rstrip() + "\n" for name, text in found.items()}


def describe_group(name: str, page: str) -> str:
    """Page of one group of commands."""
    return f"# scimill {name}\n\n" + sections(name, page)


def sections(name: str, page: str) -> str:
    """Sections of a command and those below it."""
    command = scimill.get_command(click.Context(scimill), name)
    assert command is not None
    return "".join(describe_command(path, found, page) for path, found in commands(f"scimill {name}", command))


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    is_check = parser.parse_args().check
    made = {FOLDER / f"{name}.md": text for name, text in pages().items()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"docs/reference/{path.name}: {'out of date, run scripts/make_reference.py' if is_check else 'written'}")
        if not is_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], "utf-8")
    unknown = sorted(set(FOLDER.glob("*.md")) - set(made))
    for path in unknown:
        print(f"docs/reference/{path.name}: describes nothing that exists, remove it")
    return 1 if unknown or (stale and is_check) else 0


if __name__ == "__main__":
    sys.exit(main())
