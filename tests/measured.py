"""Keep what coverage.py has recorded on a rank that ends the job: MPI_Abort lets no process save anything."""

import sys


def save_before_abort() -> None:
    """Save before MPI ends this process, if it is measured; see scripts/coverage.sh."""
    if "coverage" not in sys.modules:
        return
    from coverage import Coverage
    from mpi4py import MPI

    class Saving(MPI.Intracomm):
        def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
            if measuring := Coverage.current():
                measuring.save()
            super().Abort(errorcode)

    MPI.COMM_WORLD = Saving(MPI.COMM_WORLD)
