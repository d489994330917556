"""The parser. A command's module is imported when the command is asked for, so that ``--help`` is quick."""

import contextlib
import difflib
import functools
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import click
from click.core import ParameterSource

from scimill import __version__
from scimill.config import Declared, Layer, build, declared, preset_names, read_preset, read_yaml, to_yaml
from scimill.errors import ConfigError

C = TypeVar("C")
Command = Callable[..., int | None]

ARRAY_INDEX = ("SCIMILL_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX")
"""Variables that hold a job's index in its array; the first is set by our own job scripts."""
COMMANDS = {
    # name: (module, attribute, help)
    "droplets": ("scimill.droplets.commands", "droplets", "Cloud droplets: radius and temperature by stiff ODEs."),
    "turbulence": ("scimill.turbulence.commands", "turbulence", "Hasegawa–Wakatani turbulence, learned corrections."),
    "bench": (
        "scimill.bench.commands",
        "bench",
        "Storage benchmarks: data sets of an exact size, scaled and compared.",
    ),
    "sky": ("scimill.sky.commands", "sky", "Sky: pairs of colour and thermal images of Sage nodes, VICReg."),
    "atoms": ("scimill.atoms.commands", "atoms", "Atoms: a database of structures for active learning."),
    "jobs": ("scimill.jobs.commands", "jobs", "Batch jobs: scripts for Slurm, PBS and Cobalt."),
    "verify": ("scimill.verify", "verify", "Check a store (structure, checksums, physical ranges) or a training run."),
    "inspect": ("scimill.store.commands", "inspect", "Print what a store holds and where it comes from."),
    "repack": ("scimill.store.commands", "repack", "Copy a store, compressed or in other chunks."),
    "doctor": ("scimill.doctor", "doctor", "Check this machine: MPI, HDF5, locks, launchers, containers."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for.

    Parameters
    ----------
    lazy : module, attribute and help of each command by its name.

    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they are declared."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = self._lazy[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by its name, or the nearest one for the message."""
        if args[0].startswith("-") or self.get_command(ctx, args[0]):
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        raise click.UsageError(f"no such command: {args[0]}" + (f"; did you mean {near[0]}?" if near else ""), ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        if not self._lazy:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self._lazy.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, with click's complaints in our form."""
        try:
            return super().main(*args, **kwargs)
        except click.Abort:
            raise KeyboardInterrupt from None
        except click.UsageError as error:
            raise _in_our_form(error) from None


def _in_our_form(error: click.UsageError) -> ConfigError:
    """Tell a wrong command line as all user's errors are told."""
    path = error.ctx.command_path if error.ctx else "scimill"
    what = error.format_message().rstrip(".")
    what = what[0].lower() + what[1:]
    if isinstance(error, click.NoSuchOption):
        near = difflib.get_close_matches(error.option_name, error.possibilities or [], n=1)
        what = f"no such option: {error.option_name}" + (f"; did you mean {near[0]}?" if near else "")
    elif isinstance(error, click.MissingParameter) and error.param:
        what = f"missing {error.param.human_readable_name}"
    return ConfigError(what, where=path, remedy=f"{path} --help")


@click.group(
    cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="scimill")
def scimill() -> None:
    """Mill simulations into training sets, on many ranks, into one HDF5 file, and train on them.

    The same command runs on a laptop, under mpirun or srun, in a job and in a container.
    """


# ---- options from declarations ----------------------------------------------------------------------------------


class ConfigHelp(click.Command):
    """A command whose parameters are listed under the titles of the config classes that declare them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class ConfigOption(click.Option):
    """The flag of one declared parameter; its text is validated with the whole configuration, not by click."""

    def __init__(self, parameter: Declared) -> None:
        default = "required" if parameter.info.is_required() else f"default {_text(parameter.info.default)}"
        details = "; ".join(part for part in (parameter.allowed if not parameter.is_switch else "", default) if part)
        names = [f"{parameter.flag}/--no-{parameter.flag[2:]}"] if parameter.is_switch else [parameter.flag]
        super().__init__(
            [*names, parameter.name],
            help=f"{parameter.info.description}  [{details}]",
            metavar=None if parameter.is_switch else parameter.kind.metavar,
            default=None,
        )
        self.group = parameter.group


def _text(value: object) -> str:
    if isinstance(value, tuple) and all(isinstance(part, int) for part in value):
        return ",".join(str(part) for part in value)
    if isinstance(value, tuple):
        return ":".join(f"{part:.6g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)


class Flags(Generic[C]):
    """The flags of a config class, its presets, and ``--config``: what a command line says of a configuration.

    Parameters
    ----------
    config : the config dataclass.
    presets : folder of the presets that are offered, such as "droplets/presets"; none where empty.
    positional : the parameter that is given as arguments without a flag, if any.

    """

    def __init__(self, config: type[C], presets: str = "", positional: str = "") -> None:
        self._config, self._presets, self._positional = config, presets, positional
        self._known = declared(config)

    def add_to(self, function: Any) -> Any:
        """Attach the options, as click's decorators do."""
        for parameter in reversed(self._known.values()):
            if parameter.name != self._positional:
                function = _add(function, ConfigOption(parameter))
        if self._presets:
            choice = click.Choice(preset_names(self._presets))
            function = click.option("--preset", type=choice, help="A shipped configuration to begin with.")(function)
        file = click.Path(path_type=Path)
        return click.option("--config", "config_file", type=file, help="A YAML file of these parameters.")(function)

    def split(self, values: Mapping[str, Any]) -> tuple[list[Layer], dict[str, Any]]:
        """Take what a command line says of the configuration out of all that it says; return both."""
        preset, file = values.get("preset"), values.get("config_file")
        layers = [read_preset(self._presets, preset)] if preset else []
        layers += [read_yaml(file)] if file else []
        given = {name: values[name] for name in self._known if values.get(name) not in (None, ())}
        rest = {name: value for name, value in values.items() if name not in (*self._known, "preset", "config_file")}
        return [*layers, Layer("flags", given)], rest

    def build(self, values: Mapping[str, Any], trial: Layer | None = None) -> C:
        """Make the configuration. A sweep's trial wins over flags, flags over the file, the file over the preset."""
        return self.finish(self.split(values)[0], trial)

    def finish(self, layers: list[Layer], trial: Layer | None) -> C:
        """Make the configuration from the layers that `split` has found."""
        return build(self._config, [*layers, trial] if trial else layers)


def configured(config: type[C], presets: str = "", positional: str = "") -> Callable[[Command], Command]:
    """Give a command the flags of a config class, ``--config``, ``--preset`` and ``--print-config``; see `Flags`.

    The command's function gets the finished config as its first argument.
    """
    flags = Flags(config, presets, positional)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*, print_config: bool, trial: Layer | None = None, **values: Any) -> int | None:
            layers, rest = flags.split(values)
            made = flags.finish(layers, trial)
            if print_config:
                click.echo(to_yaml(made), nl=False)
                return 0
            return function(made, **rest)

        wrapped: Any = command
        wrapped.build_config = flags.build
        printing = click.option("--print-config", is_flag=True, help="Print the complete configuration as YAML.")
        result: Command = flags.add_to(printing(wrapped))
        return result

    return decorate


def layered(config: type[C]) -> Callable[[Command], Command]:
    """Give a command the flags of a config class that it finishes itself: its function gets the layers first."""
    flags = Flags(config)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(**values: Any) -> int | None:
            layers, rest = flags.split(values)
            return function(layers, **rest)

        result: Command = flags.add_to(command)
        return result

    return decorate


def _add(function: Any, option: click.Option) -> Any:
    """Attach a ready-made option as click's decorators do."""
    function.__click_params__ = [*getattr(function, "__click_params__", []), option]
    return function


def training(function: Command) -> Command:
    """Give a training command its run directory and the flags that all such commands have.

    The command's function gets the `training.directory.RunDirectory` as ``directory``.
    """

    @functools.wraps(function)
    def command(
        *args: Any, folder: Path, resume: bool, overwrite: bool, sweep: Path | None, trial: int | None, **rest: Any
    ) -> int | None:
        _exclude(resume, overwrite)
        layer = _trial(sweep, trial)
        if rest["print_config"]:  # without PyTorch, which takes seconds to load
            return function(*args, directory=None, trial=layer, **rest)
        from scimill.training.directory import RunDirectory

        if layer is not None and trial is not None:
            folder = trial_folder(folder, trial)
        directory = RunDirectory(folder, resume, overwrite, is_trial=layer is not None)
        return function(*args, directory=directory, trial=layer, **rest)

    wrapped: Any = command
    for decorator in (
        click.option("--trial", type=click.IntRange(min=0), envvar=ARRAY_INDEX,
                     help="Number of the trial, from 0; the array index of the job if not given."),
        click.option("--sweep", type=click.Path(path_type=Path),
                     help="A YAML file of lists or ranges of parameters; run one of their combinations."),
        click.option("--overwrite", is_flag=True, help="Begin anew, replacing the run that is there."),
        click.option("--resume", is_flag=True, help="Go on with the run that is there; begin it where there is none."),
        click.option("--output", "folder", type=click.Path(path_type=Path), required=True, help="The run directory."),
    ):  # fmt: skip
        wrapped = decorator(wrapped)
    wrapped.build_config = lambda values: function.build_config(  # type: ignore[attr-defined]
        values, _trial(values["sweep"], values["trial"])
    )
    result: Command = wrapped
    return result


def trial_folder(folder: Path, trial: int) -> Path:
    """Run directory of a trial, in that of its sweep."""
    return folder / f"trial-{trial:04d}"


def _trial(sweep: Path | None, trial: int | None) -> Layer | None:
    """Read the parameters of a trial, where there is a sweep."""
    if sweep is None:
        if click.get_current_context().get_parameter_source("trial") is ParameterSource.COMMANDLINE:
            raise ConfigError("--trial needs --sweep", remedy="give the sweep's file")
        return None
    from scimill.training.sweep import read_trial

    if trial is None:
        raise ConfigError("--sweep needs --trial", remedy="give the trial's number, or submit it as an array job")
    return read_trial(sweep, trial)


def _exclude(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", where="the command line")


def generating(function: Command) -> Command:
    """Give a generating command its output and the flags that all such commands have.

    The command's function gets the `store.output.Output` as ``output``, and ``dry_run``.
    """

    @functools.wraps(function)
    def command(*args: Any, output: Path, resume: bool, overwrite: bool, **rest: Any) -> int | None:
        from scimill.store.output import Output

        _exclude(resume, overwrite)
        return function(*args, output=Output(output, resume, overwrite), **rest)

    wrapped: Any = command
    for decorator in (
        click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
        click.option("--overwrite", is_flag=True, help="Replace an existing output once the new one is complete."),
        click.option("--resume", is_flag=True, help="Go on with an unfinished output; begin it where there is none."),
        click.argument("output", type=click.Path(path_type=Path)),
    ):
        wrapped = decorator(wrapped)
    result: Command = wrapped
    return result


# ---- looking at a command line without running it ---------------------------------------------------------------


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
        raise _in_our_form(error) from None
    except click.exceptions.Exit:
        raise ConfigError("the command only prints its help", where=" ".join(["scimill", *words])) from None


def _follow(words: list[str]) -> click.Context:
    """Go from group to group, and parse what remains as the parameters of the command."""
    context = click.Context(scimill, info_name="scimill")
    while isinstance(context.command, click.Group):
        if not words:
            raise click.UsageError("missing command", context)
        name, command, words = context.command.resolve_command(context, words)
        assert command is not None  # resolve_command has failed otherwise
        context = _enter(command, name, words, context)
    return context


def _enter(command: click.Command, name: str | None, words: list[str], parent: click.Context) -> click.Context:
    """Return the context of a group's command, with its parameters where it is no group itself."""
    if isinstance(command, click.Group):
        return click.Context(command, info_name=name, parent=parent)
    return command.make_context(name, words, parent=parent)


def check(words: Sequence[str], trial: int | None = None) -> click.Context:
    """Check a command line of scimill and its configuration as running it would; see `parse`.

    Parameters
    ----------
    words : the command line after ``scimill``.
    trial : the trial of a sweep that is looked at, where the job's array index will tell it.

    Returns
    -------
    The context of the parsed command, with its configuration, if it has one, as ``obj``.

    Raises
    ------
    ConfigError : what running it would refuse before anything is done.
    """
    context = parse(words)
    build_config = getattr(context.command.callback, "build_config", None)
    if build_config:
        known = context.params.get("trial")
        with context:
            context.obj = build_config({**context.params, "trial": trial if known is None else known})
    return context
