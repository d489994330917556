"""The commands ``scimill jobs …``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scimill import cli
from scimill.config import Layer, build
from scimill.errors import ConfigError
from scimill.jobs import machine as machines_
from scimill.jobs.render import Command
from scimill.jobs.render import render as write_script
from scimill.jobs.resources import Resources, indices
from scimill.options import ConfigHelp, Group, configured, layered, trial_folder

if TYPE_CHECKING:  # what only some commands need is imported by them: a login node waits for no more than it must
    from scimill.jobs.campaign import Campaign, Step
    from scimill.jobs.steps import Product, Steps

MACHINE = click.option(
    "--machine", "machine_name", required=True, metavar="NAME|FILE", help="The machine, see scimill jobs machines."
)
COMMAND = click.argument("command", nargs=-1, type=click.UNPROCESSED)
CAMPAIGN = click.argument("campaign", metavar="CAMPAIGN")
OUTPUTS = ("output", "folder", "workbook", "picture")
"""Parameters of our commands that name what they write."""


@click.group(cls=Group)
def jobs() -> None:
    """Batch jobs and chains of them, for Slurm, PBS and Cobalt."""


@jobs.command()
def machines() -> None:
    """List the machines, and check their files."""
    for name, path in machines_.names().items():
        machine = machines_.read_machine(str(path))
        gpus = f", {machine.gpus_per_node} GPUs" if machine.gpus_per_node else ""
        nodes = f"{machine.cores_per_node} cores{gpus} per node"
        click.echo(f"{name:<16} {machine.scheduler:<8} {machine.launcher:<14} {nodes:<32} {machine.description}")


@jobs.command(cls=ConfigHelp)
@COMMAND
@MACHINE
@configured(Resources)
def render(config: Resources, machine_name: str, command: tuple[str, ...]) -> None:
    """Print the job script that runs COMMAND on a machine.

    Write -- before the command: scimill jobs render --machine local --walltime 1h -- scimill doctor
    """
    machine = machines_.read_machine(machine_name)
    click.echo(write_script(config, machine, read_command(command, config)), nl=False)


@jobs.command(cls=ConfigHelp)
@COMMAND
@MACHINE
@click.option("--dry-run", is_flag=True, help="Check everything, print the scripts, and submit nothing.")
@layered(Resources)
def submit(layers: list[Layer], machine_name: str, dry_run: bool, command: tuple[str, ...]) -> None:
    """Submit COMMAND, or all steps of a campaign, to a machine's scheduler; print the ids of the jobs.

    One command, after --: scimill jobs submit --machine slurm-generic --walltime 1h -- scimill verify out.h5

    A chain of steps: scimill jobs submit droplets.yaml --machine slurm-generic. Steps that are complete are left
    out, so the same command goes on with a broken chain.
    """
    from scimill.jobs import submit as submitting

    machine = machines_.read_machine(machine_name)
    if len(command) == 1 and command[0].endswith((".yaml", ".yml")):
        _submit_campaign(command[0], layers, machine, dry_run)
        return
    resources = build(Resources, layers)
    read = read_command(command, resources)
    if dry_run:
        submitting.check_runnable(read, resources, machine)
        click.echo(write_script(resources, machine, read), nl=False)
        return
    for job in submitting.submit(resources, machine, read):
        click.echo(job)


def _submit_campaign(name: str, layers: list[Layer], machine: machines_.Machine, dry_run: bool) -> None:
    """Queue what is due of a campaign, or say what would be."""
    from scimill.jobs import submit as submitting

    steps = open_steps(name, _together(layers))
    plans = submitting.plan(steps, machine, read_steps(steps.campaign))
    if dry_run:
        for plan in plans:
            click.echo(f"{plan.step.name:<16} {'to submit' if plan.is_due else plan.standing}")
        return
    queued = submitting.submit_campaign(steps, machine, plans)
    for plan in plans:
        standing = plan.standing if plan.step.name not in queued else " ".join(queued[plan.step.name])
        click.echo(f"{plan.step.name:<16} {standing}")


@jobs.command(cls=ConfigHelp)
@CAMPAIGN
@click.option("--machine", "machine_name", default="local", show_default=True, metavar="NAME|FILE",
              help="A machine without a scheduler.")  # fmt: skip
@click.option("--ranks", type=click.IntRange(min=1), help="Most ranks of a step; one per core if not given.")
@click.option("--image", help="Container image to run in, instead of what the campaign says.")
def run(campaign: str, machine_name: str, ranks: int | None, image: str | None) -> None:
    """Run all steps of CAMPAIGN here, one after the other.

    Steps that are complete are left out, so the same command goes on with a campaign that was interrupted.
    """
    from scimill.jobs import run as running

    flags = Layer("flags", {"image": image} if image else {})
    machine = running.here(machines_.read_machine(machine_name))
    steps = open_steps(campaign, flags)
    running.run_campaign(steps, machine, read_steps(steps.campaign), ranks, click.echo)


@jobs.command()
@CAMPAIGN
def status(campaign: str) -> None:
    """Show where each step of CAMPAIGN stands."""
    steps = open_steps(campaign, Layer("flags", {}))
    live = steps.live()
    for step in steps.campaign.steps.values():
        known = {job for unit in step.units if (job := steps.job(unit))}
        codes = {str(ended.code) for unit in step.units if (ended := steps.status(unit))}
        standing = steps.standing(step, live)
        told = standing + (f" ({', '.join(sorted(codes))})" if standing in ("failed", "stopped") else "")
        click.echo(f"{step.name:<16} {told:<14} {' '.join(sorted(known)):<16} {' '.join(step.command)}".rstrip())
    if live is None:
        raise ConfigError(
            f"{steps.scheduler} does not answer what has become of the jobs", remedy="ask on a login node"
        )


# ---- what the commands are about --------------------------------------------------------------------------------


def _together(layers: list[Layer]) -> Layer:
    """What flags and a file say of resources, as one layer; flags win."""
    return Layer("flags", {name: value for layer in layers for name, value in layer.values.items()})


def open_steps(name: str, flags: Layer) -> "Steps":
    """Read a campaign, and what is known of it in this directory."""
    from scimill.jobs.campaign import read_campaign
    from scimill.jobs.steps import Steps

    return Steps(read_campaign(name, flags), products, Path.cwd())


def read_steps(campaign: "Campaign") -> dict[str, Command]:
    """Read and check the commands of all steps."""
    return {name: read_step(step) for name, step in campaign.steps.items()}


def read_step(step: "Step") -> Command:
    """Read a step's command, and check it as the command itself would."""
    try:
        return read_command(step.command, step.resources)
    except ConfigError as error:
        error.where = f"step {step.name}: {error.where}"
        raise


def read_command(words: tuple[str, ...], resources: Resources) -> Command:
    """Read a command line; one of scimill's is checked as the command itself would.

    Raises
    ------
    ConfigError : running it would refuse it.
    """
    if not words or Path(words[0]).name != "scimill":
        return Command(words)
    array = indices(resources.array)
    context = cli.check(words[1:], trial=array[-1] if array else None)
    if {"resume", "overwrite"} <= set(context.params) and context.params["overwrite"]:
        raise ConfigError("a job may need many links: --overwrite would begin anew with each", where=" ".join(words),
                          remedy="remove the old output, or name another")  # fmt: skip
    margin = getattr(context.obj, "walltime_margin", 0.0)
    if "resume" in context.params and resources.walltime <= margin:
        what = f"a walltime of {resources.walltime:g} s leaves no time before the margin of {margin:g} s"
        raise ConfigError(what, where=" ".join(words), remedy="ask for more, or give the command a --walltime-margin")
    parameters = {parameter.name: parameter for parameter in context.command.params}
    written = [name for name in OUTPUTS if _names_output(parameters.get(name))]
    paths = [context.params[name] for name in written]
    return Command(words, tuple(parameters), tuple(path for path in paths if isinstance(path, Path)))


def _names_output(parameter: click.Parameter | None) -> bool:
    """Whether a parameter names what is written; an argument does only as OUTPUT."""
    return parameter is not None and (isinstance(parameter, click.Option) or parameter.name == "output")


def products(step: "Step", number: int) -> "Product":
    """What a step writes; of an array of trials, what the one of this number does."""
    from scimill.jobs.steps import Product

    command = read_step(step)
    array, paths = indices(step.resources.array), list(command.products)
    if array and "sweep" in command.options:
        paths[:1] = [trial_folder(path, array[number]) for path in paths[:1]]
    return Product(paths, command.is_resumable)
