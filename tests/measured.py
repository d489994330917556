"""Keep what coverage.py has recorded on a rank that ends the job: MPI_Abort lets no process save anything."""

import sys


def save_before_abort() -> None:
    """If this process is measured, see scripts/coverage.sh, save before MPI ends it."""
    if "coverage" not in sys.modules:
        return
    import mpi4py

    mpi4py.rc.initialize = False
    from coverage import Coverage
    from mpi4py import MPI

    class Saving(MPI.Intracomm):
        def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
            if measuring := Coverage.current():
                measuring.save()
            super().Abort(errorcode)

    start = MPI.Init_thread

    def start_and_wrap() -> int:
        level = start()
        MPI.COMM_WORLD = Saving(MPI.COMM_WORLD)
        return level

    MPI.Init_thread = start_and_wrap
