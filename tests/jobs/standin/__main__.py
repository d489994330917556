"""``python -m jobs.standin FOLDER COMMAND ARGUMENTS``: qsub, qstat, qdel, qalter, qrls, or the server itself."""

import sys
from pathlib import Path

from jobs.standin import cobalt, pbs
from jobs.standin.server import Server
from jobs.standin.state import site


def main() -> int:
    folder, command, *arguments = sys.argv[1:]
    if command == "server":
        Server(Path(folder)).serve()
        return 0
    scheduler = {"pbs": pbs, "cobalt": cobalt}[site(Path(folder)).scheduler]
    return int(getattr(scheduler, command)(Path(folder), arguments))


if __name__ == "__main__":
    sys.exit(main())
