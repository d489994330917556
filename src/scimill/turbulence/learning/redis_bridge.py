"""Client of a Redis database in a separate process: SmartRedis needs numpy 1, scimill needs numpy 2.

Run as a script with SmartRedis on PYTHONPATH; it does not import scimill. Each request and each answer is a line of
JSON with the number of bytes (float32 values or other data) that follow it. See `redis_model`.
"""

import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np
from smartredis import Client


def serve(client: Any, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends."""
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["bytes"])
        try:
            reply, payload = answer(client, request, data)
        except Exception as error:  # any error: the rank reports it
            reply, payload = {"error": str(error).strip().splitlines()[-1]}, b""
        answers.write(json.dumps({**reply, "bytes": len(payload)}).encode() + b"\n" + payload)
        answers.flush()


def answer(client: Any, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Carry out one request; return the answer and the bytes that follow it."""
    key, action = request["key"], request["action"]
    if action == "store":
        client.set_model(key, data, "TORCH", "CPU")
        client.put_tensor(f"{key}.about", np.frombuffer(request["about"].encode(), np.uint8).copy())
        return {}, b""
    if action == "open":
        known = client.model_exists(key) and client.tensor_exists(f"{key}.about")
        return {"about": client.get_tensor(f"{key}.about").tobytes().decode() if known else ""}, b""
    given, made = (f"{key}.{name}.{request['rank']}" for name in ("input", "output"))
    client.put_tensor(given, np.frombuffer(data, np.float32).reshape(request["shape"]).copy())
    client.run_model(key, inputs=[given], outputs=[made])
    result = client.get_tensor(made)
    return {"shape": list(result.shape)}, result.astype(np.float32).tobytes()


def main() -> None:
    """Connect to the given address and serve requests."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep what the library prints out of the answers
    try:
        client = Client(len(sys.argv) > 2, address=sys.argv[1], logger_name="scimill")
    except Exception as error:
        answers.write(json.dumps({"error": str(error).strip().splitlines()[0], "bytes": 0}).encode() + b"\n")
        return
    answers.write(b'{"bytes": 0}\n')
    answers.flush()
    serve(client, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
