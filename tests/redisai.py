"""A stand-in for Redis with the RedisAI module: the part of its protocol that the real SmartRedis client needs.

It answers in RESP, keeps tensors and models in memory, and executes TorchScript models with PyTorch.
https://redis.io/docs/latest/develop/reference/protocol-spec and https://oss.redis.com/redisai/commands
"""

import io
import socket
import socketserver
import threading
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

DTYPES = {b"FLOAT": "float32", b"DOUBLE": "float64", b"UINT8": "uint8", b"INT32": "int32", b"INT64": "int64"}
Reply = str | int | bytes | None | list[Any] | Exception


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: "StandIn"

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = [self._word() for _ in range(int(header[1:]))]
            try:
                reply = self.server.answer(words)
            except Exception as error:
                reply = error
            self.wfile.write(encode(reply))

    def _word(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2]


def encode(reply: Reply) -> bytes:
    """Encode a reply in RESP."""
    if isinstance(reply, Exception):
        return f"-ERR {' '.join(str(reply).split())[:200]}\r\n".encode()
    if isinstance(reply, str):
        return f"+{reply}\r\n".encode()
    if isinstance(reply, int):
        return f":{reply}\r\n".encode()
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if reply is None:
        return b"$-1\r\n"
    return b"*%d\r\n" % len(reply) + b"".join(map(encode, reply))


class StandIn(socketserver.ThreadingTCPServer):
    """The server; a context manager that serves on a free port of this machine.

    Attributes
    ----------
    keys : all keys ever written, in order.

    """

    allow_reuse_address, daemon_threads = True, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tensors: dict[bytes, tuple[bytes, list[int], bytes]] = {}
        self.models: dict[bytes, torch.jit.ScriptModule] = {}
        self.keys: list[str] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def answer(self, words: Sequence[bytes]) -> Reply:
        name = words[0].upper().decode().replace(".", "_").lower()
        command = getattr(self, f"do_{name}", None)
        if command is None:
            return ValueError(f"unknown command {words[0]!r}")
        with self._lock:
            reply: Reply = command(*words[1:])
        return reply

    # ---- commands --------------------------------------------------------------------------------------------------

    def do_ping(self, *_: bytes) -> Reply:
        return "PONG"

    def do_command(self, *_: bytes) -> Reply:
        return []

    def do_ai_config(self, *_: bytes) -> Reply:
        return 511 * 1024 * 1024  # GET MODEL_CHUNK_SIZE

    def do_exists(self, *keys: bytes) -> Reply:
        return sum(key in self.tensors or key in self.models for key in keys)

    def do_del(self, *keys: bytes) -> Reply:
        return sum(self.tensors.pop(key, None) is not None for key in keys)

    def do_ai_tensorset(self, key: bytes, dtype: bytes, *rest: bytes) -> Reply:
        blob = rest.index(b"BLOB")
        self.keys.append(key.decode())
        self.tensors[key] = (dtype, [int(size) for size in rest[:blob]], rest[blob + 1])
        return "OK"

    def do_ai_tensorget(self, key: bytes, *_: bytes) -> Reply:
        if key not in self.tensors:
            return KeyError("tensor key is empty")
        dtype, shape, blob = self.tensors[key]
        return [b"dtype", dtype, b"shape", shape, b"blob", blob]

    def do_ai_modelstore(self, key: bytes, backend: bytes, device: bytes, *rest: bytes) -> Reply:
        assert (backend, device) == (b"TORCH", b"CPU")
        data = b"".join(rest[rest.index(b"BLOB") + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.models[key] = torch.jit.load(io.BytesIO(data))
        self.keys.append(key.decode())
        return "OK"

    def do_ai_modelexecute(self, key: bytes, *rest: bytes) -> Reply:
        if key not in self.models:
            return KeyError("model key is empty")
        count = int(rest[1])
        inputs, after = rest[2 : 2 + count], rest[2 + count :]
        outputs = after[2 : 2 + int(after[1])]
        with torch.no_grad():
            results = self.models[key](*(self._tensor(name) for name in inputs))
        results = results if isinstance(results, tuple) else (results,)
        for name, result in zip(outputs, results, strict=True):
            array = result.contiguous().numpy()
            self.tensors[name] = (b"FLOAT", list(array.shape), array.tobytes())
        return "OK"

    def _tensor(self, key: bytes) -> torch.Tensor:
        dtype, shape, blob = self.tensors[key]
        return torch.from_numpy(np.frombuffer(blob, DTYPES[dtype]).reshape(shape).copy())


def free_address() -> str:
    """Return an address on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"
