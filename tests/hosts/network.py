"""A network namespace with two bridges: `cluster` between the guests, and `control` between them and the tests."""

import contextlib
import subprocess
from collections.abc import Iterable, Iterator

CONTROL = "10.77.1"
"""First three numbers of addresses on the control network; those on the cluster network start with 10.77.0."""


class Network:
    """The network of one session. Each guest has a TAP device on both bridges."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def create(self, guests: Iterable[str]) -> None:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self._ip("link set lo up", *self._bridge("cluster"), *self._bridge("control"))
        self._ip(f"address add {CONTROL}.254/24 dev control")
        for guest in guests:
            self._ip(*self._tap(guest, "cluster"), *self._tap(f"{guest}-control", "control"))

    def cut(self, guest: str) -> None:
        """Lose all packets between a guest and the others; the tests still reach it.

        The guest's link stays up: user-mode Linux does not recover from an error of its device.
        """
        self._ip(f"link set {guest} nomaster")

    def restore(self, guest: str) -> None:
        self._ip(f"link set {guest} master cluster")

    def enter(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs another one in this network."""
        return "nsenter", f"--net=/run/netns/{self.namespace}", *command

    def is_used(self) -> bool:
        """Whether a process is in this network."""
        return bool(subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, check=False).stdout)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True, check=False)

    @staticmethod
    def _bridge(name: str) -> tuple[str, str]:
        return f"link add {name} type bridge", f"link set {name} up"

    @staticmethod
    def _tap(name: str, bridge: str) -> tuple[str, str]:
        return f"tuntap add dev {name} mode tap", f"link set {name} master {bridge} up"

    def _ip(self, *lines: str) -> None:
        command = ["ip", "-netns", self.namespace, "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)


def namespaces(prefix: str) -> Iterator[str]:
    """Return the names of this machine's network namespaces that start so."""
    with contextlib.suppress(OSError):
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        yield from (line.split()[0] for line in listed.splitlines() if line.startswith(prefix))
