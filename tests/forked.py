"""Run scimill's command line in processes forked from one that has imported everything.

Importing takes longer than most runs of the tests. Each run is a process of its own with the real command line, and
ranks start the real MPI; only the start of the interpreter is shared. Tests of the start itself use `mpi.start`.

Usage, in the folder of the tests:
    python -m forked SOCKET MODULES...            fork for each request through a Unix socket; default: all modules
    python -S forked.py SOCKET ARGUMENTS...       be one run: under mpirun, a rank
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time

sys.path[:0] = [os.path.dirname(__file__)]  # noqa: PTH120 - nothing is imported that a rank does not need
LENGTH = 8  # bytes of the number that precedes a message
INSTANT = "RANK_AND_INSTANT"  # environment variable of a run: which rank dies, and when


def connect(path: str, request: dict[str, object], descriptors: tuple[int, int, int]) -> tuple[socket.socket, int]:
    """Ask the process that forks for a run with these standard streams; return the connection and the run's process."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    message = json.dumps(request).encode()
    socket.send_fds(connection, [len(message).to_bytes(LENGTH)], list(descriptors))
    connection.sendall(message)
    return connection, number_from(connection)


def number_from(connection: socket.socket) -> int:
    """Receive a number."""
    received = connection.recv(LENGTH)
    assert received, "the process that forks has ended"
    return int.from_bytes(received, signed=True)


def request_of(words: list[str], instant: str, cwd: object = "", env: object = ()) -> dict[str, object]:
    """Describe a run of ``scimill WORDS`` in this environment, with some more variables."""
    environment = {**os.environ, **dict(env)}
    return {"words": words, "instant": instant, "cwd": str(cwd or os.getcwd()), "environment": environment}  # noqa: PTH109


def be_a_run() -> None:
    """Wait for a run, pass signals on to it, and end as it ends; it is killed if this process is killed."""
    rank, _, instant = os.environ.pop(INSTANT, "nobody never").partition(" ")
    is_dying = rank in ("all", os.environ.get("OMPI_COMM_WORLD_RANK"))
    connection, pid = connect(sys.argv[1], request_of(sys.argv[2:], instant if is_dying else "never"), (0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: pass_on(number, pid))
    code = number_from(connection)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def pass_on(number: int, pid: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# ---- the process that forks -------------------------------------------------------------------------------------


def serve(path: str, modules: list[str]) -> None:
    import_early(modules or all_modules())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path + ".new")
    listening.listen()
    os.rename(path + ".new", path)  # noqa: PTH104 - who finds the socket can connect at once
    waiting = selectors.DefaultSelector()
    waiting.register(listening, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:  # the test process has ended
                return
            if key.fileobj is listening:
                begin(listening, waiting)
            elif waiting.get_map().get(key.fd) is not key:  # its run has ended meanwhile
                continue
            elif isinstance(key.fileobj, int):
                end(key, waiting)
            else:  # whoever asked for the run is gone
                pass_on(signal.SIGKILL, key.data)
                waiting.unregister(key.fileobj)


def begin(listening: socket.socket, waiting: selectors.BaseSelector) -> None:
    connection, _ = listening.accept()
    length, descriptors, _, _ = socket.recv_fds(connection, LENGTH, 3)
    message = connection.recv(int.from_bytes(length), socket.MSG_WAITALL)
    pid = os.fork()
    if pid == 0:
        try:
            listening.close()
            become_scimill(descriptors, **json.loads(message))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    send(pid, connection)
    waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
    waiting.register(connection, selectors.EVENT_READ, pid)


def end(key: selectors.SelectorKey, waiting: selectors.BaseSelector) -> None:
    pid, connection = key.data
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    waiting.unregister(key.fileobj)
    os.close(key.fileobj)
    if connection in waiting.get_map():
        waiting.unregister(connection)
        send(code, connection)
    connection.close()


def send(number: int, connection: socket.socket) -> None:
    """Send a number to a process that may have ended."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(number.to_bytes(LENGTH, signed=True))


def all_modules() -> list[str]:
    """Name what any command may need."""
    import pkgutil

    import scimill

    modules = [module.name for module in pkgutil.walk_packages(scimill.__path__, "scimill.")]
    # The bridge runs beside another numpy.
    ours = [name for name in modules if not name.endswith(("__main__", "redis_bridge"))]
    return [*ours, "torch._dynamo", "torch.utils.tensorboard"]


def import_early(modules: list[str]) -> None:
    """Import what the runs need, and let numba prepare to load compiled kernels."""
    import gc
    import importlib

    from scimill.parallel.world import defer_mpi

    defer_mpi()
    import numba

    for module in modules:
        importlib.import_module(module)
    numba.njit(lambda: 0)()
    gc.collect()
    gc.freeze()  # collections in the forked processes leave these objects' pages shared


def become_scimill(
    descriptors: list[int], words: list[str], instant: str, cwd: str, environment: dict[str, str]
) -> None:
    """Become the command; never return."""
    import atexit

    from faults.instants import arm
    from measured import save_before_abort
    from scimill import __main__
    from scimill.parallel import world

    atexit._clear()  # what the imported modules do at the end takes 50 ms
    os.setsid()
    with open("/proc/self/comm", "w") as name:  # noqa: PTH123 - for pkill
        name.write("scimill")
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["scimill", *words]
    world.STARTED = time.monotonic()  # the walltime counts from here
    arm(instant)
    save_before_abort()
    try:
        __main__.main()
    except SystemExit as request:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(request.code or 0))


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:]) if __spec__ else be_a_run()
