"""Run the command line in this process."""

from scimill.cli import scimill


def call(*words: object) -> None:
    """Run `scimill sky` with these words; what it refuses is raised."""
    scimill.main(["sky", *map(str, words)], prog_name="scimill", standalone_mode=False)
