"""The commands ``scimill jobs …``."""

import click

from scimill.cli import ConfigHelp, LazyGroup, configured
from scimill.jobs import machine as machines_
from scimill.jobs.render import render as write_script
from scimill.jobs.resources import Resources


@click.group(cls=LazyGroup)
def jobs() -> None:
    """Batch jobs: scripts for Slurm, PBS and Cobalt."""


@jobs.command()
def machines() -> None:
    """List the machines, and check their files."""
    for name, path in machines_.names().items():
        machine = machines_.read_machine(str(path))
        gpus = f", {machine.gpus_per_node} GPUs" if machine.gpus_per_node else ""
        nodes = f"{machine.cores_per_node} cores{gpus} per node"
        click.echo(f"{name:<16} {machine.scheduler:<8} {machine.launcher:<14} {nodes:<32} {machine.description}")


@jobs.command(cls=ConfigHelp)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--machine", "machine_name", required=True, metavar="NAME|FILE", help="The machine, see scimill jobs machines."
)
@configured(Resources)
def render(config: Resources, machine_name: str, command: tuple[str, ...]) -> None:
    """Print the job script that runs COMMAND on a machine.

    Write -- before the command: scimill jobs render --machine local --walltime 1h -- scimill doctor
    """
    click.echo(write_script(config, machines_.read_machine(machine_name), command), nl=False)
