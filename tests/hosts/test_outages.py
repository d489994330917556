"""The file server or the network fails during a run: it ends, publishes nothing wrong, and can be resumed."""

import pytest

from hosts.runs import SOON, Run

pytestmark = [pytest.mark.needs("hosts"), pytest.mark.timeout(1200)]  # guests are ten times slower

NOTICED = 240.0
"""s; mpirun ends a job that lost a host within this time; on an idle machine in 20 s: `ssh` gives up after 15 s."""


@pytest.mark.parametrize("kind", ["nfs4", "nfs3"])
def test_the_server_restarts_during_a_run(hosts, kind, tmp_path, reference):
    run = Run(hosts, kind, tmp_path)
    with run.start(instant=SOON) as job:
        assert run.wait_for_stop(hosts.h1, job)
        hosts.srv.restart()
        run.carry_on(hosts.h1)
        result = job.wait()
    if result.returncode:
        assert result.errors, result
        assert not run.is_published()
        resumed = run.resume(hosts.h2)
        assert resumed.returncode == 0, resumed
    assert run.find_fault(reference) == ""


@pytest.mark.parametrize("kind", ["nfs4", "nfs3"])
def test_a_host_loses_its_network(hosts, kind, tmp_path, reference):
    run = Run(hosts, kind, tmp_path)
    with run.start(instant=SOON) as job:
        assert run.wait_for_stop(hosts.h1, job)
        hosts.network.cut("h2")
        run.carry_on(hosts.h1)
        result = job.wait(NOTICED)
    assert result.returncode != 0, result
    assert not run.is_published()
    hosts.network.restore("h2")
    resumed = run.resume(hosts.h1)
    assert resumed.returncode == 0, resumed
    assert run.find_fault(reference) == ""
