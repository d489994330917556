"""The command line. A command's module is imported only when it is used, so ``--help`` is fast."""

import contextlib
import functools
import importlib
import io
from collections.abc import Sequence

import click

from scimill.errors import ConfigError
from scimill.options import Group, usage_error
from scimill.plugins import Plugin, installed
from scimill.version import __version__

COMMANDS = {
    # name: (module, attribute, help)
    "jobs": ("scimill.jobs.commands", "jobs", "Batch jobs: scripts and chains for Slurm, PBS, Cobalt and Flux."),
    "verify": ("scimill.artifact_commands", "verify", "Check a store, a training run, a dataset or a database."),
    "inspect": ("scimill.artifact_commands", "inspect", "Print what an artifact holds and where it comes from."),
    "repair": ("scimill.artifact_commands", "repair", "Rebuild the damaged parts of an artifact."),
    "repack": ("scimill.store.commands", "repack", "Copy a store, compressed or in other chunks."),
    "doctor": ("scimill.doctor", "doctor", "Check this machine: MPI, HDF5, locks, launchers, containers, campaigns."),
}


class Scimill(Group):
    """The command ``scimill``: the installed campaigns, and commands that work on any campaign's output."""

    @functools.cached_property
    def campaigns(self) -> dict[str, Plugin]:
        """Campaigns by name."""
        return installed()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List names in the order in which ``--help`` shows them."""
        return [*self.campaigns, *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name in COMMANDS:
            module, attribute, _ = COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return self.campaigns[cmd_name].commands() if cmd_name in self.campaigns else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Campaigns"):
            formatter.write_dl([(name, plugin.help) for name, plugin in self.campaigns.items()])
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=Scimill, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="scimill")
def scimill() -> None:
    """Generate training data with many ranks into one parallel HDF5 file, and train on it.

    The same command runs on a laptop, under mpirun or srun, in a job and in a container.
    """


# ---- checking a command line without running it -----------------------------------------------------------------


def parse(words: Sequence[str]) -> click.Context:
    """Parse a command line of scimill as running it would.

    Parameters
    ----------
    words : the command line after ``scimill``.

    Raises
    ------
    ConfigError : no such command or option, or an argument is missing.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # --help would print
            return _follow(list(words))
    except click.UsageError as error:
        raise usage_error(error) from None
    except click.exceptions.Exit:
        raise ConfigError("the command only prints its help", where=" ".join(["scimill", *words])) from None


def _follow(words: list[str]) -> click.Context:
    """Descend through the groups, then parse the remaining words as the command's parameters."""
    context = click.Context(scimill, info_name="scimill")
    while isinstance(context.command, click.Group):
        if not words:
            raise click.UsageError("missing command", context)
        name, command, words = context.command.resolve_command(context, words)
        assert command is not None  # resolve_command raises otherwise
        context = _enter(command, name, words, context)
    return context


def _enter(command: click.Command, name: str | None, words: list[str], parent: click.Context) -> click.Context:
    """Return the context of a group's command; parse its parameters unless it is a group itself."""
    if isinstance(command, click.Group):
        return click.Context(command, info_name=name, parent=parent)
    return command.make_context(name, words, parent=parent)


def rate_of(words: Sequence[str]) -> str:
    """Return the measured speed of a command, in words; empty if its campaign declares none."""
    plugin = installed().get(words[0]) if len(words) > 1 else None
    rate = plugin.campaign.rates.get(words[1]) if plugin and plugin.campaign else None
    return str(rate) if rate else ""


def check(words: Sequence[str], trial: int | None = None) -> click.Context:
    """Check a command line of scimill and its configuration as running it would; see `parse`.

    Parameters
    ----------
    words : the command line after ``scimill``.
    trial : the trial of a sweep to check, if the job's array index will select it.

    Returns
    -------
    The context of the parsed command, with its configuration, if it has one, as ``obj``.

    Raises
    ------
    ConfigError : running it would be refused before any work is done.
    """
    context = parse(words)
    build_config = getattr(context.command.callback, "build_config", None)
    if build_config:
        known = context.params.get("trial")
        with context:
            context.obj = build_config({**context.params, "trial": trial if known is None else known})
    return context
