"""The command ``scimill``, also ``python -m scimill``."""

from typing import NoReturn

from scimill.parallel.world import launch


def main() -> NoReturn:
    """Run the command line under the guard that ends all ranks together."""
    launch(run)


def run() -> int:
    """Run the command line on this rank; return its exit code."""
    from scimill.cli import scimill

    try:
        return int(scimill.main(prog_name="scimill", standalone_mode=False) or 0)
    except ModuleNotFoundError as error:
        from scimill.extras import explain

        raise explain(error) from None


if __name__ == "__main__":
    main()
