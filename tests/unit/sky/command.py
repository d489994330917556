"""Run the command line in this process."""

from scimill.cli import scimill


def call(*words: object) -> None:
    """Run `scimill sky` with these arguments; errors are raised."""
    scimill.main(["sky", *map(str, words)], prog_name="scimill", standalone_mode=False)
