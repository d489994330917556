"""Two hosts, as guests or as rooms, and what one process makes without them."""

from collections.abc import Iterator

import pytest

from hosts import cluster
from hosts.cluster import Hosts
from hosts.rooms import Rooms
from hosts.rooms import running as running_rooms
from hosts.runs import REFERENCE, make_reference
from needs import require


@pytest.fixture(scope="session")
def hosts_of_the_session(compiled_kernel: None) -> Iterator[Hosts]:
    require("hosts")
    with cluster.running() as hosts:
        yield hosts


@pytest.fixture
def hosts(hosts_of_the_session: Hosts) -> Iterator[Hosts]:
    """Two hosts that share a disk by NFS; what a test leaves is removed after it."""
    yield hosts_of_the_session
    hosts_of_the_session.clear()


@pytest.fixture(scope="session")
def rooms_of_the_session(compiled_kernel: None) -> Iterator[Rooms]:
    require("rooms")
    with running_rooms() as hosts:
        yield hosts


@pytest.fixture
def rooms(rooms_of_the_session: Rooms) -> Iterator[Rooms]:
    """Two hosts that share a folder by sshfs, or through write-back caches; what a test leaves is removed after it."""
    yield rooms_of_the_session
    rooms_of_the_session.clear()


@pytest.fixture(scope="session")
def reference(compiled_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the datasets that one process on one host makes."""
    return make_reference(tmp_path_factory.mktemp("reference") / REFERENCE)
