"""Models in a Redis database with RedisAI, such as SmartSim starts beside a simulation: redis://host:port/key.

Each rank has its own SmartRedis client in a separate process, since SmartRedis needs another numpy. The keys of its
tensors end with the rank, so ranks never overwrite each other's tensors. The model is stored under the key in the
address, and the description of its origin under `key.about`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from scimill.errors import ConfigError, InputError, NumericalError
from scimill.training.inference import Single

SCHEME = "redis://"
BRIDGE = Path(__file__).with_name("redis_bridge.py")
PACKAGES_VARIABLE = "SCIMILL_SMARTREDIS"
"""Variable with the folder of SmartRedis and its numpy; the folder smartredis of the environment if not set."""
CLIENT_ENVIRONMENT = {
    "SR_LOG_FILE": os.devnull, "SR_LOG_LEVEL": "QUIET",
    "SR_CONN_TIMEOUT": "5", "SR_CONN_INTERVAL": "100",  # s, ms: how long and how often to try to connect
    "SR_CMD_TIMEOUT": "60000",  # ms
}  # fmt: skip
"""Environment of the client, unless the user has set these variables."""


def is_address(text: str) -> bool:
    """Return whether a model is named by an address in a database."""
    return text.startswith(SCHEME)


def packages() -> Path:
    """Return the folder of SmartRedis and its numpy."""
    return Path(os.environ.get(PACKAGES_VARIABLE, Path(sys.prefix) / "smartredis"))


class RedisModel:
    """A model in a database, usable as an `inference.InferenceModel`; a context manager.

    Parameters
    ----------
    address : redis://host:port/key.
    rank : the rank, which names its tensors.

    Raises
    ------
    ConfigError : the address is invalid, or SmartRedis is not installed.
    InputError : the database does not respond.

    """

    def __init__(self, address: str, rank: int = 0) -> None:
        self.address, self._rank = address, rank
        parts = urlsplit(address)
        self._key = parts.path.lstrip("/")
        if not (parts.hostname and _port(address) and self._key):
            raise ConfigError("invalid address of a model", where=address, allowed="redis://host:port/key")
        folder = packages()
        if not (folder / "smartredis").is_dir():
            remedy = f"run scripts/setup.sh --with-smartredis, or set {PACKAGES_VARIABLE} to its folder"
            raise ConfigError("SmartRedis is not installed", where=str(folder), remedy=remedy)
        self._process = subprocess.Popen(
            [sys.executable, str(BRIDGE), f"{parts.hostname}:{parts.port}"],
            env={**CLIENT_ENVIRONMENT, **os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.about: Mapping[str, str] = {}
        self._receive(InputError)

    def open(self) -> Self:
        """Read the description of the model.

        Raises
        ------
        InputError : the database has no such model.
        """
        reply, _ = self._ask({"action": "open"}, b"", InputError)
        if not reply["about"]:
            self.close()
            remedy = "run scimill turbulence export RUN ADDRESS --format torchscript"
            raise InputError("the database has no such model", where=self.address, remedy=remedy)
        self.about = json.loads(reply["about"])
        return self

    def store(self, script: bytes, about: Mapping[str, str]) -> None:
        """Store a TorchScript model and its description in the database."""
        self._ask({"action": "store", "about": json.dumps(dict(about))}, script, InputError)

    def __call__(self, inputs: Single) -> Single:
        """Compute the outputs of the model in the database."""
        request = {"action": "run", "shape": inputs.shape, "rank": self._rank}
        reply, data = self._ask(request, np.ascontiguousarray(inputs).tobytes(), NumericalError)
        return np.frombuffer(data, np.float32).reshape(reply["shape"])

    def _ask(
        self, request: dict[str, Any], data: bytes, failure: type[InputError | NumericalError]
    ) -> tuple[dict[str, Any], bytes]:
        assert self._process.stdin is not None
        line = json.dumps({"key": self._key, **request, "bytes": len(data)}).encode()
        try:
            self._process.stdin.write(line + b"\n" + data)
            self._process.stdin.flush()
        except OSError:
            raise self._close_with_error("its client has stopped", failure) from None
        return self._receive(failure)

    def _receive(self, failure: type[InputError | NumericalError]) -> tuple[dict[str, Any], bytes]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._close_with_error("its client has stopped", failure)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._close_with_error(reply["error"], failure)
        return reply, self._process.stdout.read(reply["bytes"])

    def _close_with_error(self, why: str, failure: type[InputError | NumericalError]) -> InputError | NumericalError:
        self.close()
        return failure(f"the request to the database failed: {why}", where=self.address)

    def close(self) -> None:
        """Stop the client."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None
