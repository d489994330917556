"""The commands ``scimill jobs …``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill import cli
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.jobs import estimate as estimates
from scimill.jobs import links as links_
from scimill.jobs import machine as machines_
from scimill.jobs.estimate import Job
from scimill.jobs.parts import CONTINUED, read_part
from scimill.jobs.render import Command
from scimill.jobs.render import render as write_script
from scimill.jobs.resources import Resources, indices
from scimill.jobs.scripts import RECORDS
from scimill.options import Group, configured, layered, trial_folder

if TYPE_CHECKING:  # imported inside the commands that need them, so that the others start faster
    from scimill.jobs.chain import Chain, Step
    from scimill.jobs.schedulers import Answer
    from scimill.jobs.steps import StepOutput, Steps

MACHINE = click.option(
    "--machine", "machine_name", required=True, metavar="NAME|FILE", help="Machine, see scimill jobs machines."
)
COMMAND = click.argument("command", nargs=-1, type=click.UNPROCESSED, help="the command line, after --")
CHAIN = click.argument("chain", metavar="CHAIN", help="a YAML file of steps, or the name of a shipped one")
CHAIN_FILES = (".yaml", ".yml")
OUTPUTS = ("output", "folder", "workbook", "picture")
"""Parameters of scimill's commands that name output."""


@click.group(cls=Group)
def jobs() -> None:
    """Batch jobs and chains of them, for Slurm, PBS, Cobalt and Flux."""


@jobs.command()
@click.option(
    "--check", is_flag=True, help="Print the page and the day that each was read from; fail if one is missing."
)
def machines(check: bool) -> None:
    """List the known machines and check their files."""
    for name, path in machines_.names().items():
        machine = machines_.read_machine(str(path))
        click.echo(
            f"{name:<16} {machines_.describe_source(machine, path) if check else machines_.describe_machine(machine)}"
        )


@jobs.command()
@COMMAND
@MACHINE
@configured(Resources)
def render(config: Resources, machine_name: str, command: tuple[str, ...]) -> None:
    """Print the job script that runs COMMAND on a machine.

    Write -- before the command: scimill jobs render --machine local --walltime 1h -- scimill doctor
    """
    if len(command) == 1 and command[0].endswith(CHAIN_FILES):
        remedy = "scimill jobs submit --dry-run shows the plan of a chain; render its commands one by one"
        raise ConfigError("render takes a command, not a chain", where=command[0], remedy=remedy)
    machine = machines_.read_machine(machine_name)
    read = read_command(command, config)
    click.echo(write_script(config, machine, read), nl=False)
    estimates.report([Job("", read, config, len(indices(config.array)) or 1)], machine)


@jobs.command()
@COMMAND
@MACHINE
@click.option("--dry-run", is_flag=True, help="Check everything and print the script or the plan; submit nothing.")
@click.option(
    "--one-at-a-time",
    is_flag=True,
    help="Queue each job of a chain when the one before has left the queue, and stay until all are complete.",
)
@click.option(
    "--pack",
    is_flag=True,
    help="Run all steps of a chain in one job, side by side where they are independent and fit its nodes.",
)
@layered(Resources)
def submit(
    layers: list[Layer], machine_name: str, dry_run: bool, one_at_a_time: bool, pack: bool, command: tuple[str, ...]
) -> None:
    """Submit COMMAND, or all steps of a chain, to a machine's scheduler; print the ids of the jobs.

    One command, after --: scimill jobs submit --machine slurm-generic --walltime 1h -- scimill verify out.h5

    A chain of steps: scimill jobs submit droplets.yaml --machine slurm-generic. Complete steps are skipped, so the
    same command continues a broken chain.
    """
    from scimill.jobs import submit as submitting

    machine = machines_.read_machine(machine_name)
    if len(command) == 1 and command[0].endswith(CHAIN_FILES):
        _submit_chain(command[0], layers, machine, dry_run, one_at_a_time, pack)
        return
    if one_at_a_time or pack:
        flag = "--pack" if pack else "--one-at-a-time"
        raise ConfigError(f"{flag} is for chains", allowed="the name of a file of steps")
    resources = build(Resources, layers)
    read = read_command(command, resources)
    if dry_run:
        submitting.check_runnable(read, resources, machine)
        click.echo(write_script(resources, machine, read), nl=False)
    else:
        for job in submitting.submit(resources, machine, read):
            click.echo(job)
    estimates.report([Job("", read, resources, len(indices(resources.array)) or 1)], machine)


def _submit_chain(
    name: str, layers: list[Layer], machine: machines_.Machine, dry_run: bool, one_at_a_time: bool, pack: bool
) -> None:
    """Queue the steps of a chain that are due, or print the plan."""
    from scimill.jobs import submit as submitting
    from scimill.jobs.state import running

    if one_at_a_time and pack:
        raise ConfigError("--pack and --one-at-a-time exclude each other", remedy="give one of them")
    flags = {key: value for layer in layers for key, value in layer.values.items()}  # later layers win
    walltime = build(Resources, [Layer("flags", flags)]).walltime if pack and "walltime" in flags else None
    # The walltime of a packed job; that of its steps only where the chain says nothing.
    default = {"walltime": flags.pop("walltime")} if walltime else {}
    steps = open_steps(name, Layer("flags", flags), Layer("flags", default))
    commands = read_steps(steps.chain)
    plans = submitting.make_plans(steps, machine, commands)  # a chain that is refused leaves no folder
    for plan in plans if dry_run else ():
        click.echo(f"{plan.step.name:<16} {'to submit' if plan.due else plan.condition}")
    due = [(plan.step, len(plan.due)) for plan in plans if plan.due and not pack]
    estimates.report([Job(step.name, commands[step.name], step.resources, count) for step, count in due], machine)
    if not dry_run:
        steps.keep_verified()  # so that nothing is verified while the chain is locked
        with running(steps.folder):
            _queue_chain(steps, machine, commands, walltime, one_at_a_time, pack)


def _queue_chain(
    steps: "Steps", machine: machines_.Machine, commands: dict[str, Command], walltime: float | None,
    one_at_a_time: bool, pack: bool,
) -> None:  # fmt: skip
    """Queue the steps of a chain that are due: all at once, one at a time, or in one job."""
    from scimill.jobs import follow as following
    from scimill.jobs import pack as packing
    from scimill.jobs import submit as submitting

    if pack:
        with steps.locked() as lock:
            plans = submitting.make_plans(steps, machine, commands)
            job = packing.submit_pack(steps, machine, commands, plans, walltime, lock)
        for plan in plans:
            click.echo(f"{plan.step.name:<16} {job if plan.due else plan.condition}")
        return
    if one_at_a_time or following.needs_one_at_a_time(steps, machine):
        click.echo("queueing one job at a time; keep this command running, or repeat it to continue")
        following.follow(steps, machine, commands, click.echo)
        return
    with steps.locked() as lock:
        plans = submitting.make_plans(steps, machine, commands)
        queued = submitting.submit_chain(steps, machine, plans, lock)
    for plan in plans:
        click.echo(f"{plan.step.name:<16} {' '.join(queued.get(plan.step.name, [plan.condition]))}")


@jobs.command()
@CHAIN
@click.option("--machine", "machine_name", default="local", show_default=True, metavar="NAME|FILE",
              help="A machine without a scheduler.")  # fmt: skip
@click.option(
    "--ranks", type=click.IntRange(min=1), help="Maximum number of ranks of a step; one per core if not given."
)
@click.option("--image", help="Container image to run in, instead of the chain's.")
def run(chain: str, machine_name: str, ranks: int | None, image: str | None) -> None:
    """Run all steps of CHAIN on this computer, one after the other.

    Complete steps are skipped, so the same command continues an interrupted chain.
    """
    from scimill.jobs import run as running

    flags = Layer("flags", {"image": image} if image else {})
    machine = running.fit_machine(machines_.read_machine(machine_name))
    steps = open_steps(chain, flags)
    running.run_chain(steps, machine, read_steps(steps.chain), ranks, click.echo)


@jobs.command()
@CHAIN
@click.option("--watch", is_flag=True, help="Show it again whenever it changes, until all steps are complete.")
def status(chain: str, watch: bool) -> None:
    """Show the state of each step of CHAIN, why it waits, and how many node-hours are left at most."""
    from scimill.jobs.follow import pauses
    from scimill.jobs.submit import require_clear

    shown: list[str] = []
    for pause in pauses():
        steps = open_steps(chain, Layer("flags", {}))
        answer = steps.query_jobs()
        lines = describe_chain(steps, answer)
        if lines != shown:
            click.echo("\n".join([*([""] if shown else []), *lines]))
            pause.restart()
        shown = lines
        steps.keep_verified()
        if not watch:
            require_clear(answer, steps.state.scheduler)
        if not watch or all(steps.condition(step, answer) == "complete" for step in steps.chain.steps.values()):
            return


def describe_chain(steps: "Steps", answer: "Answer") -> list[str]:
    """Return a line for each step of a chain, and one for what is left of it."""
    lines, hours = [], 0.0
    for step in steps.chain.steps.values():
        jobs = sorted({unit.job for unit in steps.units(step) if unit.job})
        text = describe_condition(steps, step, steps.condition(step, answer))
        whys = dict.fromkeys(answer.reasons[job] for job in jobs if answer.reasons.get(job) not in NO_REASONS)
        reasons = f"[{'; '.join(whys)}] " if whys else ""
        lines.append(f"{step.name:<16} {text:<14} {' '.join(jobs):<16} {reasons}{' '.join(step.command)}".rstrip())
        left = sum(steps.unit_condition(step, number, answer) != "complete" for number in range(len(step.units)))
        hours += estimates.most_hours(step.resources, left)
    return [*lines, *([f"at most {hours:.4g} node-hours left, without further links"] if hours else [])]


NO_REASONS = (None, "", "None")


@jobs.command()
@CHAIN
@click.argument("name", metavar="STEP")
@click.option("-f", "--follow", is_flag=True, help="Print what is added until its jobs have ended.")
def logs(chain: str, name: str, follow: bool) -> None:
    """Print the output of the jobs of a step of CHAIN, the first link first."""
    from scimill.jobs import follow as following
    from scimill.jobs.logs import Logs

    steps = open_steps(chain, Layer("flags", {}))
    if name not in steps.chain.steps:
        raise ConfigError(f"unknown step {name!r}", allowed=", ".join(steps.chain.steps))
    step = steps.chain.steps[name]
    printed = Logs(Path.cwd())
    for pause in following.pauses():
        steps.read()
        answer = steps.query_jobs()
        if printed.print_new(steps, step, click.echo):
            pause.restart()
        if not follow or not any(answer.states.get(job, "ended") != "ended" for job in steps.jobs(step)):
            break
    if not printed.count:
        where = ", ".join(printed.patterns(steps, step)) or str(steps.folder)
        raise InputError(f"step {name} has no output yet", where=where)


@jobs.command()
@CHAIN
@click.argument("names", metavar="[STEP]...", nargs=-1, help="steps to cancel; all if none is given")
def cancel(chain: str, names: tuple[str, ...]) -> None:
    """Cancel the jobs of CHAIN that have not ended; submit continues it later."""
    from scimill.jobs.submit import cancel_steps

    steps = open_steps(chain, Layer("flags", {}))
    unknown = sorted(set(names) - steps.chain.steps.keys())
    if unknown:
        raise ConfigError(f"unknown step {unknown[0]!r}", allowed=", ".join(steps.chain.steps))
    if not steps.folder.is_dir():
        return
    with steps.locked():
        for name, ids in cancel_steps(steps, names or tuple(steps.chain.steps)).items():
            click.echo(f"{name:<16} cancelled {' '.join(ids)}")


def describe_condition(steps: "Steps", step: "Step", condition: str) -> str:
    """Return the condition of a step, with its exit codes where it did not succeed."""
    codes = sorted({str(unit.code) for unit in steps.units(step) if unit.code is not None})
    return f"{condition} ({', '.join(codes)})" if condition in ("failed", "stopped") else condition


# ---- what scripts of jobs call ----------------------------------------------------------------------------------

UNIT = "CHAIN/UNIT"


@jobs.command(hidden=True)
@click.argument("unit", metavar=UNIT)
@click.argument("script")
def begin(unit: str, script: str) -> None:
    """Check that the job of SCRIPT is the one that its chain waits for; scripts call it first."""
    chain, name = unit.split("/")
    links_.begin(Path(RECORDS, chain), name, script)


@jobs.command("next", hidden=True)
@click.argument("script", type=click.Path(path_type=Path))
@click.option("--unit", metavar=UNIT, help="Record the exit code for this unit of a chain, and submit the next link.")
@click.option("--script", "own", metavar="NAME", default="", help="Name under which SCRIPT was submitted.")
@click.option("--status", default=CONTINUED, help="Exit code of the command.")
@click.option("--links", default=1, help="Maximum number of links.")
def next_(script: Path, unit: str | None, own: str, status: int, links: int) -> None:
    """Write the next link of SCRIPT, which has ended, and print its path; scripts call it last."""
    if unit is None:
        click.echo(links_.write_next(script))
        return
    chain, name = unit.split("/")
    raise SystemExit(links_.end(Path(RECORDS, chain), name, script.read_text("utf-8"), own, status, links))


@jobs.command(hidden=True)
@click.argument("chain", metavar="CHAIN")
@click.argument("parts", metavar="UNIT=SCRIPT,NEEDS...", nargs=-1)
@click.option("--job", required=True, metavar="ID", help="Id of the job.")
@click.option("--end", required=True, type=float, help="When its walltime ends, s since the epoch.")
@click.option("--nodes", required=True, type=int, help="Its number of nodes.")
@click.option("--each", required=True, metavar="cores=N,gpus=N,memory=MIB", help="What it has of each node.")
@click.option("--shared", is_flag=True, help="Several steps may share a node.")
def pack(chain: str, parts: tuple[str, ...], job: str, end: float, nodes: int, each: str, shared: bool) -> None:
    """Run the steps of a packed job; its script calls it."""
    from scimill.jobs.packed import Packed

    room = {key: int(value) for key, _, value in (word.partition("=") for word in each.split(","))}
    read = [read_part(word) for word in parts]
    packed = Packed(Path(RECORDS, chain), read, room, nodes, is_shared=shared, job=job, end=end)
    raise SystemExit(packed.run())


# ---- chains and command lines -----------------------------------------------------------------------------------


def open_steps(name: str, flags: Layer, defaults: Layer | None = None) -> "Steps":
    """Read a chain and its state in this directory; see `read_chain`."""
    from scimill.jobs.chain import read_chain
    from scimill.jobs.steps import Steps

    return Steps(read_chain(name, flags, defaults), find_output, Path.cwd())


def read_steps(chain: "Chain") -> dict[str, Command]:
    """Read and check the commands of all steps."""
    return {name: read_step(step) for name, step in chain.steps.items()}


def read_step(step: "Step") -> Command:
    """Read a step's command, and check it as the command itself would."""
    try:
        return read_command(step.command, step.resources)
    except ConfigError as error:
        error.where = f"step {step.name}: {error.where}"
        raise


def read_command(words: tuple[str, ...], resources: Resources) -> Command:
    """Read a command line; check one of scimill's as the command itself would.

    Raises
    ------
    ConfigError : the command would refuse to run.
    """
    if not words or Path(words[0]).name != "scimill":
        return Command(words)
    array = indices(resources.array)
    context = cli.check(words[1:], trial=array[-1] if array else None)
    if {"resume", "overwrite"} <= set(context.params) and context.params["overwrite"]:
        raise ConfigError("a job may resume many times; --overwrite would restart each time", where=" ".join(words),
                          remedy="remove the old output, or choose another name")  # fmt: skip
    margin = getattr(context.obj, "walltime_margin", 0.0)
    if "resume" in context.params and resources.walltime <= margin:
        what = f"a walltime of {resources.walltime:g} s leaves no time before the margin of {margin:g} s"
        raise ConfigError(what, where=" ".join(words), remedy="request more, or give the command a --walltime-margin")
    parameters = {parameter.name: parameter for parameter in context.command.params}
    written = [name for name in OUTPUTS if _names_output(parameters.get(name))]
    paths = [context.params[name] for name in written]
    return Command(
        words,
        tuple(parameters),
        tuple(path for path in paths if isinstance(path, Path)),
        margin,
        cli.rate_of(words[1:]),
    )


def _names_output(parameter: click.Parameter | None) -> bool:
    """Whether a parameter names output; an argument does only if it is called OUTPUT."""
    return parameter is not None and (isinstance(parameter, click.Option) or parameter.name == "output")


def find_output(step: "Step", number: int) -> "StepOutput":
    """Return the output of a step; for an array of trials, of the element at this position."""
    from scimill.jobs.steps import StepOutput

    command = read_step(step)
    array, paths = indices(step.resources.array), list(command.outputs)
    if array and "sweep" in command.options:
        paths[:1] = [trial_folder(path, array[number]) for path in paths[:1]]
    return StepOutput(paths, command.is_resumable)
