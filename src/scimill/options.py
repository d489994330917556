"""Command-line options: made from config classes, or shared by generating and training commands."""

import contextlib
import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
from click.core import ParameterSource

from scimill.config import Layer, ParameterInfo, build, parameters_of, preset_names, read_preset, read_yaml, to_yaml
from scimill.errors import ConfigError
from scimill.parallel.report import say
from scimill.parallel.world import world

if TYPE_CHECKING:
    from scimill.store.output import Output
    from scimill.training.directory import RunDirectory

C = TypeVar("C")
Command = Callable[..., int | None]

ARRAY_INDEX = ("SCIMILL_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX")
"""Variables that hold a job's index in its array; the first is set by our own job scripts."""


class UnseenPath(click.Path):
    """A path that is not looked at: click asks the file system for each, on each rank."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of a word."""
        return Path(value)


class ConfigHelp(click.Command):
    """A command whose help lists parameters under the titles of their config classes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and not isinstance(param, click.Argument):  # click lists those itself
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Group(click.Group):
    """A group of commands that reports a wrong command line in the form of all errors."""

    command_class = ConfigHelp

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole first sentence of its help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.get_short_help_str(limit=10**4)) for name, found in commands if found])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by its name; the error suggests the nearest one."""
        if args[0].startswith("-") or self.get_command(ctx, args[0]):
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        raise click.UsageError(f"no such command: {args[0]}" + (f"; did you mean {near[0]}?" if near else ""), ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, with click's errors in our form."""
        try:
            return super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return ConfigError.exit_code
        except click.Abort:
            raise KeyboardInterrupt from None
        except click.UsageError as error:
            raise usage_error(error) from None


def usage_error(error: click.UsageError) -> ConfigError:
    """Convert click's usage error into ours."""
    path = error.ctx.command_path if error.ctx else "scimill"
    what = error.format_message().rstrip(".")
    what = what[0].lower() + what[1:]
    if isinstance(error, click.NoSuchOption):
        near = difflib.get_close_matches(error.option_name, error.possibilities or [], n=1)
        what = f"no such option: {error.option_name}" + (f"; did you mean {near[0]}?" if near else "")
    elif isinstance(error, click.MissingParameter) and error.param:
        is_option = isinstance(error.param, click.Option)
        what = f"missing {error.param.opts[0] if is_option else error.param.human_readable_name}"
    return ConfigError(what, where=path, remedy=f"{path} --help")


class ConfigOption(click.Option):
    """The flag of one declared parameter; its text is validated with the whole configuration, not by click."""

    def __init__(self, parameter: ParameterInfo) -> None:
        default = ("" if parameter.info.is_required() else "default ") + describe_default(parameter)
        details = "; ".join(part for part in (parameter.allowed if not parameter.is_switch else "", default) if part)
        names = [f"{parameter.flag}/--no-{parameter.flag[2:]}"] if parameter.is_switch else [parameter.flag]
        super().__init__(
            [*names, parameter.name],
            help=f"{parameter.info.description}  [{details}]",
            metavar=None if parameter.is_switch else parameter.kind.metavar,
            multiple=parameter.kind.is_repeated,
            default=None,
        )
        self.parameter, self.group = parameter, parameter.group


def describe_default(parameter: ParameterInfo) -> str:
    """Return a parameter's default as one gives it on the command line, or "required"."""
    if parameter.info.is_required():
        return "required"
    value = parameter.info.default
    if isinstance(value, tuple):
        return (":" if ":" in parameter.kind.metavar else ",").join(f"{part:.6g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, str) else str(value).lower()


class Flags(Generic[C]):
    """The flags of a config class, with ``--preset`` and ``--config``.

    Parameters
    ----------
    config : the config dataclass.
    presets : folder of the presets to offer, such as "scimill.droplets/presets"; none if empty.
    positional : the parameter that is given as arguments without a flag, if any.
    ignored : a config class whose other parameters presets and files may have, too; they have no effect.

    """

    def __init__(self, config: type[C], presets: str = "", positional: str = "", ignored: type | None = None) -> None:
        self._config, self._presets, self._positional = config, presets, positional
        self._ignored = frozenset(parameters_of(ignored) if ignored else ()) - frozenset(parameters_of(config))
        self._known = parameters_of(config)

    def add_to(self, function: Any) -> Any:
        """Attach the options, as click's decorators do."""
        for parameter in reversed(self._known.values()):
            if parameter.name != self._positional:
                function = _add(function, ConfigOption(parameter))
        if self._presets:
            choice = click.Choice(preset_names(self._presets))
            function = click.option("--preset", type=choice, help="A shipped configuration to start from.")(function)
        words = "A YAML file of these parameters."
        return click.option("--config", "config_file", type=UnseenPath(), help=words)(function)

    def split(self, values: Mapping[str, Any]) -> tuple[list[Layer], dict[str, Any]]:
        """Separate the configuration from the other values of a command line; return both."""
        preset, file = values.get("preset"), values.get("config_file")
        layers = [read_preset(self._presets, preset)] if preset else []
        layers += [world().on_root(read_yaml, file)] if file else []  # one rank reads it, not each
        layers = [replace(layer, values=self._used(layer.values)) for layer in layers]
        given = {name: values[name] for name in self._known if values.get(name) not in (None, ())}
        rest = {name: value for name, value in values.items() if name not in (*self._known, "preset", "config_file")}
        return [*layers, Layer("flags", given)], rest

    def _used(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in self._ignored}

    def build(self, values: Mapping[str, Any], trial: Layer | None = None) -> C:
        """Make the configuration. A sweep's trial overrides flags, flags the file, the file the preset."""
        return self.finish(self.split(values)[0], trial)

    def finish(self, layers: list[Layer], trial: Layer | None) -> C:
        """Make the configuration from the layers that `split` returned."""
        return build(self._config, [*layers, trial] if trial else layers)


def configured(
    config: type[C], presets: str = "", positional: str = "", ignored: type | None = None
) -> Callable[[Command], Command]:
    """Give a command the flags of a config class, ``--config``, ``--preset`` and ``--print-config``; see `Flags`.

    The command's function gets the finished config as its first argument.
    """
    flags = Flags(config, presets, positional, ignored)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*, print_config: bool, trial: Layer | None = None, **values: Any) -> int | None:
            layers, rest = flags.split(values)
            with world().together() if values.get("config_file") else contextlib.nullcontext():  # MPI runs already
                made = flags.finish(layers, trial)
            if print_config:
                click.echo(to_yaml(made), nl=False)
                return 0
            return function(made, **rest)

        wrapped: Any = command
        wrapped.build_config, wrapped.presets = flags.build, presets
        printing = click.option("--print-config", is_flag=True, help="Print the complete configuration as YAML.")
        result: Command = flags.add_to(printing(wrapped))
        return result

    return decorate


def layered(config: type[C], shown_presets: str = "") -> Callable[[Command], Command]:
    """Give a command the flags of a config class; its function gets the unmerged layers first.

    The reference lists the presets in the folder `shown_presets`, which the command reads itself.
    """
    flags = Flags(config)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(**values: Any) -> int | None:
            layers, rest = flags.split(values)
            return function(layers, **rest)

        wrapped: Any = command
        wrapped.presets = shown_presets
        result: Command = flags.add_to(wrapped)
        return result

    return decorate


def _add(function: Any, option: click.Option) -> Any:
    """Attach a ready-made option as click's decorators do."""
    function.__click_params__ = [*getattr(function, "__click_params__", []), option]
    return function


def path_argument(name: str, **attributes: Any) -> Callable[[Command], Command]:
    """Give a command a positional path."""
    return click.argument(name, type=UnseenPath(), **attributes)


def fill_output(
    output: "Output", content: str, plan: Callable[[], str], fill: Callable[[], bool], *, dry_run: bool
) -> None:
    """Fill an output and report it, or print the plan; collective.

    Parameters
    ----------
    output, content : the output, and a description of its content.
    plan : describes what filling it would do; collective.
    fill : fills it; returns False if it was already complete. Collective.
    dry_run : whether only to print the plan.

    """
    if dry_run:
        click.echo(plan())
        return
    if not fill() and world().is_root:
        say(f"{output.path} was already complete")
    click.echo(f"{output.path}: {content}")


def report_run(directory: "RunDirectory", *, is_new: bool) -> None:
    """Report a finished training run; `is_new` is False if it had finished before."""
    if not is_new and world().is_root:
        say(f"{directory.path} was already finished")
    click.echo(f"{directory.path}: model.pt, metrics.csv")


break_lock_option = click.option(
    "--break-lock", is_flag=True, help="Take the output over at once from a run on another host that has ended."
)
SAMPLE, ALL = "sample", "all"


def training(function: Command) -> Command:
    """Give a training command its run directory and the flags of all training commands.

    The command's function gets the `training.directory.RunDirectory` as ``directory``.
    """

    @functools.wraps(function)
    def command(
        *args: Any, folder: Path, resume: bool, overwrite: bool, break_lock: bool, sweep: Path | None,
        trial: int | None, **rest: Any,
    ) -> int | None:  # fmt: skip
        _exclude(resume, overwrite)
        layer = _trial(sweep, trial)
        if rest["print_config"]:  # without PyTorch, which takes seconds to load
            return function(*args, directory=None, trial=layer, **rest)
        from scimill.training.directory import RunDirectory

        if layer is not None and trial is not None:
            folder = trial_folder(folder, trial)
        directory = RunDirectory(folder, resume, overwrite, break_lock, is_trial=layer is not None)
        return function(*args, directory=directory, trial=layer, **rest)

    wrapped: Any = command
    for decorator in (
        click.option("--trial", type=click.IntRange(min=0), envvar=ARRAY_INDEX,
                     help="Number of the trial, from 0; the array index of the job if not given."),
        click.option("--sweep", type=click.Path(path_type=Path),
                     help="A YAML file of lists or ranges of parameters; run one of their combinations."),
        break_lock_option,
        click.option("--overwrite", is_flag=True, help="Start over, replacing the existing run."),
        click.option("--resume", is_flag=True, help="Resume the existing run; start one if there is none."),
        click.option("--output", "folder", type=click.Path(path_type=Path), required=True, help="The run directory."),
    ):  # fmt: skip
        wrapped = decorator(wrapped)
    wrapped.build_config = lambda values: function.build_config(  # type: ignore[attr-defined]
        values, _trial(values["sweep"], values["trial"])
    )
    result: Command = wrapped
    return result


def trial_folder(folder: Path, trial: int) -> Path:
    """Return the run directory of a trial, inside that of its sweep."""
    return folder / f"trial-{trial:04d}"


def _trial(sweep: Path | None, trial: int | None) -> Layer | None:
    """Read the parameters of a trial, if there is a sweep."""
    if sweep is None:
        if click.get_current_context().get_parameter_source("trial") is ParameterSource.COMMANDLINE:
            raise ConfigError("--trial needs --sweep", remedy="give the sweep file with --sweep")
        return None
    from scimill.training.sweep import read_trial

    if trial is None:
        raise ConfigError("--sweep needs --trial", remedy="give the trial's number, or submit an array job")
    return read_trial(sweep, trial)


def _exclude(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite cannot be combined", where="the command line")


def generating(function: Command) -> Command:
    """Give a generating command its output and the flags of all generating commands.

    The command's function gets the `store.output.Output` as ``output``, and ``dry_run``.
    """

    @functools.wraps(function)
    def command(
        *args: Any, output: Path, resume: bool, overwrite: bool, break_lock: bool, read_back: str, **rest: Any
    ) -> int | None:
        from scimill.store.output import Output

        _exclude(resume, overwrite)
        place = output.resolve() if output.is_symlink() else output
        made = Output(place, resume, overwrite, break_lock=break_lock, read_back_all=read_back == ALL)
        return function(*args, output=made, **rest)

    wrapped: Any = command
    for decorator in (
        click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
        click.option("--read-back", type=click.Choice([SAMPLE, ALL]), default=SAMPLE, show_default=True,
                     help="Data to read back, on another host, before the output gets its name."),
        break_lock_option,
        click.option("--overwrite", is_flag=True, help="Replace an existing output once the new one is complete."),
        click.option("--resume", is_flag=True, help="Resume an unfinished output; start one if there is none."),
        path_argument("output", help="file or directory to make"),
    ):  # fmt: skip
        wrapped = decorator(wrapped)
    result: Command = wrapped
    return result
