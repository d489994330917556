"""The client of a Redis database, in a process of its own: SmartRedis needs numpy 1, all else here needs numpy 2.

It is run as a script with SmartRedis on PYTHONPATH and knows nothing of scimill. A request is a line of JSON, with the
sizes of the arrays of float32 or bytes that follow it; so is an answer. See `redis_model`.
"""

import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np
from smartredis import Client


def serve(client: Any, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are none."""
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["bytes"])
        try:
            reply, payload = answer(client, request, data)
        except Exception as error:  # whatever it is, the rank reports it
            reply, payload = {"error": str(error).strip().splitlines()[-1]}, b""
        answers.write(json.dumps({**reply, "bytes": len(payload)}).encode() + b"\n" + payload)
        answers.flush()


def answer(client: Any, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Do what is asked for."""
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
    """Connect to the address that is given, and serve."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no answer
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
