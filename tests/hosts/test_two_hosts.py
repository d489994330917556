"""Two hosts write one file over NFS: the bytes of one process, also after a kill, and never two runs at once."""

import re
import signal

import pytest

from hosts.cluster import SCIMILL
from hosts.runs import BLOCKS, REFUSED, ROWS, SOON, Run
from mpi import wait_until

pytestmark = [pytest.mark.needs("hosts", "rooms"), pytest.mark.timeout(1200)]  # guests are ten times slower

STOPPED = 75
LONG = ("--count", 60 * BLOCKS * ROWS, "--block-size", ROWS, "--tolerance", 1e-4)
"""A run that takes longer than another one to start."""


@pytest.fixture(params=["nfs4", "nfs3", "sshfs"])
def run(request, tmp_path):
    hosts = request.getfixturevalue("rooms" if request.param == "sshfs" else "hosts")
    return Run(hosts, request.param, tmp_path)


def test_two_hosts_make_the_bytes_of_one_process(run, reference):
    with run.start() as job:
        result = job.wait()
    assert result.returncode == 0, result
    assert run.find_fault(reference) == ""


@pytest.mark.parametrize(("kind", "victim"), [("nfs4", 0), ("nfs3", 1)])
def test_a_killed_host_ends_the_job_and_the_other_resumes_it(hosts, kind, victim, tmp_path, reference):
    run, other = Run(hosts, kind, tmp_path), hosts.clients[1 - victim]
    with run.start(instant=SOON, rank=victim) as job:
        assert run.wait_for_stop(hosts.clients[victim], job)
        run.kill_rank(hosts.clients[victim])
        result = job.wait(timeout=240)
    assert result.returncode != 0, result
    assert not run.is_published()
    resumed = run.resume(other)
    assert resumed.returncode == 0, resumed
    assert run.find_fault(reference) == ""


def test_a_second_run_on_the_other_host_is_refused(run):
    hosts = run.hosts
    with run.start_on(hosts.h1, size=LONG) as first:
        wait_until(run.has_begun, "the first run to begin", interval=0.2)
        with run.start_on(hosts.h2, "--overwrite", size=LONG) as second:
            refused = second.wait()
        hosts.h1.kill(SCIMILL, number=signal.SIGUSR2)
        stopped = first.wait()
    assert refused.returncode == REFUSED, refused
    assert re.search(r"another run is writing this output: .*process \d+ on h1", refused.stderr), refused
    assert stopped.returncode == STOPPED, stopped
    hosts.h2.succeed("scimill", "verify", f"{run.name}.part", folder=run.folder)
