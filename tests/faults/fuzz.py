"""Feed scimill random configurations and damaged files: only its own short messages, no traceback, no crash, no hang.

Usage: fuzz.py [--configs N] [--files N] [--seed S]; test_random_input.py runs fewer cases.

Each case is the whole command line in a forked process, so that a crash of HDF5 is seen as a case's failure.
"""

import argparse
import faulthandler
import io
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scimill import __main__
from scimill.cli import scimill
from scimill.config import parameters_of
from scimill.droplets.params import DropletsGenerateConfig
from scimill.parallel.world import world

EXIT_CODES = {0, 2, 3, 4, 5}
MOST_LINES = 4
LONGEST_LINE = 500
LIMIT = 120  # s per case; a hang, not a slow machine, shall end it


@dataclass
class Outcome:
    code: int
    message: str
    seconds: float


@dataclass
class Findings:
    """Outcome of the cases: count of each exit code, and the wrong cases."""

    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def judge(self, name: str, outcome: Outcome) -> None:
        self.codes[outcome.code] += 1
        if complaint := complain(outcome):
            self.wrong.append(f"{name}: {complaint} (exit {outcome.code})\n{outcome.message}")


def complain(outcome: Outcome) -> str:
    """Describe what is wrong with the end of a case; empty if nothing."""
    lines = outcome.message.splitlines()
    if outcome.code == -signal.SIGALRM:
        return f"HANG: {LIMIT} s"
    if outcome.code < 0:
        return f"killed by {signal.Signals(-outcome.code).name}"
    if "Traceback" in outcome.message:
        return "traceback"
    if outcome.code not in EXIT_CODES:
        return "no such exit code"
    if outcome.code and not outcome.message.startswith("scimill: error: "):
        return "no message"
    if outcome.code and (len(lines) > MOST_LINES or max(map(len, lines)) > LONGEST_LINE):
        return "message too long"
    return ""


# ---- one case ---------------------------------------------------------------------------------------------------


def run(arguments: list[str], folder: Path) -> Outcome:
    """Run the command line in a forked process; an alarm ends it in any case."""
    messages_file, started = folder / "said", time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_scimill(arguments, messages_file)
    _, status = os.waitpid(child, 0)
    return Outcome(os.waitstatus_to_exitcode(status), _messages(messages_file), time.monotonic() - started)


def _be_scimill(arguments: list[str], messages_file: Path) -> None:
    """Become the command; never return."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT)
        os.dup2(os.open(messages_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # a test runner has replaced them
        faulthandler.disable()
        sys.argv = ["scimill", *arguments]
        __main__.main()
    except SystemExit as request:
        code = int(request.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _messages(messages_file: Path) -> str:
    """Return standard error without progress lines."""
    text = messages_file.read_text("utf-8", "replace")
    news = ("scimill: droplets:", "scimill: import:", "scimill: repack:", "scimill: verify:")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(news))


# ---- random configurations --------------------------------------------------------------------------------------

PARAMETERS = parameters_of(DropletsGenerateConfig)
WORDS = (
    "", " ", "null", "nan", "inf", "-inf", "1e400", "-1", "0", "1e18", "0x10", "1_000", "1:2", "2:1", "0:0", "1:2:3",
    "nan:nan", "60:60:60", "1h", "90min", "-5s", "random", "sobol", "salt-mass", "yes", "~", "µm", "粒子", "\u202e",
    "a" * 5000, "\x00", "\n\n", "{", "!!python/object:os.system", "*", "&a", "<<", "9" * 400, "1e-320", "1e7", "'", '"',
)  # fmt: skip


def scalar(dice: random.Random) -> Any:
    draw: list[Callable[[], Any]] = [
        lambda: dice.choice(WORDS),
        lambda: dice.choice([True, False, None, float("nan"), float("inf"), -float("inf"), -0.0]),
        lambda: dice.randint(-(10 ** dice.randint(0, 30)), 10 ** dice.randint(0, 30)),
        lambda: dice.uniform(-1, 1) * 10.0 ** dice.randint(-300, 300),
        lambda: "".join(chr(dice.choice([dice.randrange(32, 127), dice.randrange(0xD7FF)])) for _ in range(8)),
    ]
    return dice.choice(draw)()


def value(dice: random.Random, depth: int = 0) -> Any:
    """Anything that YAML can say."""
    kind = dice.random()
    if kind < 0.7 or depth > 3:
        return scalar(dice)
    if kind < 0.9:
        return [value(dice, depth + 1) for _ in range(dice.randint(0, 4))]
    return {str(scalar(dice)): value(dice, depth + 1) for _ in range(dice.randint(0, 3))}


def plausible(dice: random.Random, name: str) -> Any:
    """A value that is probably allowed."""
    default, choices = PARAMETERS[name].info.default, PARAMETERS[name].choices
    if choices:
        return dice.choice(choices)
    if isinstance(default, bool):
        return dice.choice([True, False])
    if isinstance(default, tuple):
        return [default[0] * dice.uniform(1.0, 1.1), default[1] * dice.uniform(0.95, 1.0)]
    if isinstance(default, int | float):
        return type(default)(default * dice.choice([0.5, 1, 1, 2]))
    return default if default is None or isinstance(default, str | dict) else dice.choice([1, 1000, 10**6])


def key(dice: random.Random) -> str:
    """A parameter's name, sometimes misspelt or something else."""
    name = dice.choice(list(PARAMETERS))
    if dice.random() < 0.9:
        return name
    return dice.choice([name[:-1], name.upper(), name.replace("_", "-"), str(scalar(dice))])


def config_text(dice: random.Random) -> bytes:
    """A configuration file: valid, with some wrong values, or something else entirely."""
    kind = dice.random()
    if kind < 0.4:
        names = {"count", *dice.sample(list(PARAMETERS), dice.randint(0, 6))}
        return as_yaml({name: plausible(dice, name) for name in names}, dice)
    if kind < 0.55:
        return broken_text(dice)
    rows = {"count": 1000} if dice.random() < 0.8 else {}
    for _ in range(dice.randint(1, 8)):
        name = key(dice)
        rows[name] = plausible(dice, name) if name in PARAMETERS and dice.random() < 0.7 else value(dice)
    text = as_yaml(rows, dice)
    if dice.random() < 0.1:
        text += b"\ncount: 5\ncount: 6\n"
    return mutate(text, dice) if dice.random() < 0.2 else text


def as_yaml(rows: dict[str, Any], dice: random.Random) -> bytes:
    style, is_unicode = dice.choice([None, True, False]), dice.random() < 0.5
    return yaml.dump(rows, default_flow_style=style, allow_unicode=is_unicode).encode("utf-8", "surrogatepass")


def broken_text(dice: random.Random) -> bytes:
    depth = dice.choice([10, 100, 1000, 1000, 30_000])
    return dice.choice([
        b"",
        dice.randbytes(dice.randint(1, 2000)),
        b"[" * depth,
        b"{a: " * depth,
        b"- " * depth,
        b"".join(b"k%d: 1\n" % n for n in range(depth // 6)),
        b"a: &a [*a, *a]\n",
        b"seed:\n- &a0 [1, 1]\n" + b"".join(b"- &a%d [%s]\n" % (n + 1, b"*a%d, " % n * 10) for n in range(12)),
        b"\xff\xfe\x00c\x00o",
        b"count: " + b"9" * depth,
        b"count: 1\n" * 500,
        b"#" * (2 << 20),
        b"--- 1\n--- 2\n",
        b"? [a, b]\n: 1\n",
        b"!!python/object/apply:os.system [true]\n",
        b"count: !!binary aGVsbG8=\n",
        b"seed: 2001-12-14t21:59:43.10-05:00\n",
    ])  # fmt: skip


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Change, drop or insert a few bytes."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(out) + 1)
        out[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
    return bytes(out)


def flags(dice: random.Random) -> Iterator[str]:
    """A few flags with values, valid in half of the cases."""
    is_sane = dice.random() < 0.5
    for _ in range(dice.choice([0, 0, 1, 2, 4])):
        name = dice.choice(list(PARAMETERS)) if is_sane else key(dice)
        flag = "--" + name.replace("_", "-")
        if name in PARAMETERS and PARAMETERS[name].is_switch:
            yield flag
        elif name in PARAMETERS and is_sane:
            yield from _flag(flag, plausible(dice, name))
        else:
            yield f"{flag}={_argument(dice)}"
    if dice.random() < 0.1:
        yield dice.choice(["--preset=classic", "--preset=ntlp-2026", "--preset=other", "--resume", "--overwrite", "-x"])


def _flag(flag: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield f"{flag}={value[0]!r}:{value[1]!r}"
    elif value is not None and not isinstance(value, dict):
        yield f"{flag}={value}"


def _argument(dice: random.Random) -> str:
    """Text that a shell could pass."""
    return str(scalar(dice)).replace("\0", "").encode("utf-8", "replace").decode()


def config_case(dice: random.Random, folder: Path) -> list[str]:
    arguments = ["droplets", "generate", str(folder / "out.h5"), *flags(dice)]
    if dice.random() < 0.9:
        path = folder / "config.yaml"
        path.write_bytes(config_text(dice))
        arguments.append(f"--config={path}")
    return [*arguments, dice.choice(["--dry-run", "--print-config"])]


# ---- damaged files ----------------------------------------------------------------------------------------------

SIZE = ("--count", "200", "--block-size", "50", "--tolerance", "1e-4")


class Stores:
    """Sound files to be damaged: stores, unfinished stores, other HDF5 files, records."""

    def __init__(self, folder: Path) -> None:
        self.whole = [self._generate(folder / f"{n}.h5", more) for n, more in enumerate(((), ("--keep-weird",)))]
        self.part = self._unfinished(folder / "unfinished.h5")
        self.repacked = self._repacked(folder / "repacked.h5")
        self.foreign = self._foreign()

    @staticmethod
    def _generate(path: Path, more: tuple[str, ...]) -> bytes:
        outcome = run(["droplets", "generate", str(path), *SIZE, *more], path.parent)
        assert outcome.code == 0, outcome
        return path.read_bytes()

    def _unfinished(self, path: Path) -> bytes:
        """A complete store with two blocks marked as not done."""
        import h5py

        self._generate(path, ())
        with h5py.File(path, "r+", locking=False) as file:
            ledger = file["blocks"][:]
            ledger["state"][1:3] = 0
            file["blocks"][:] = ledger
        return path.read_bytes()

    def _repacked(self, path: Path) -> bytes:
        outcome = run(["repack", str(path.with_name("0.h5")), str(path)], path.parent)
        assert outcome.code == 0, outcome
        return path.read_bytes()

    @staticmethod
    def _foreign() -> bytes:
        import h5py

        with h5py.File(memory := io.BytesIO(), "w") as file:
            file["blocks"] = np.full(1, 255, [("state", "u1")])
            file.attrs["layout"] = "{}"
        return memory.getvalue()


def damaged(stores: Stores, dice: random.Random) -> bytes:
    """A file's content with random damage, or that of another kind of file."""
    data = bytearray(dice.choice([*stores.whole, stores.part, stores.part, stores.repacked, stores.foreign]))
    kind = dice.randrange(10)
    if kind < 3:
        for _ in range(dice.choice([1, 1, 5, 100])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind < 5:
        del data[dice.randrange(len(data)) :]
    elif kind == 5:
        place = dice.randrange(len(data))
        data[place : place + 4096] = bytes(len(data[place : place + 4096]))
    elif kind == 6:
        data += dice.randbytes(dice.randint(1, 10_000))
    elif kind == 7:
        data = bytearray(dice.choice([b"", b"\0" * 9000, dice.randbytes(dice.randint(1, 20_000)), data[8192:]]))
    return bytes(data)


def records(dice: random.Random) -> bytes:
    """Records of nine float32, of any content, whole or not."""
    count = dice.randint(0, 200)
    data = dice.randbytes(36 * count) if dice.random() < 0.5 else struct.pack("<9f", *[1.0] * 9) * count
    return data + dice.randbytes(dice.choice([0, 0, 1, 35, dice.randrange(100)]))


def file_case(stores: Stores, dice: random.Random, folder: Path) -> list[str]:
    """A command line and the files that it names."""
    file, out = folder / "in.h5", str(folder / "out.h5")
    command = dice.choice(["verify", "verify", "inspect", "resume", "resume", "repack", "import", "import", "export"])
    if command == "import":
        names = [folder / f"{n}.data" for n in range(dice.randint(1, 3))]
        for name in names:
            _lay(name, records(dice), dice)
        return [
            "droplets",
            "import-data",
            *map(str, names),
            out,
            *dice.choice([(), ("--block-size=16",), ("--resume",)]),
            *dice.choice([(), ("--kind=records",), ("--kind=trace",)]),
        ]
    if command == "resume":
        _lay(folder / dice.choice(["out.h5.part", "out.h5.part", "out.h5"]), damaged(stores, dice), dice)
        return ["droplets", "generate", out, *SIZE, "--resume"]
    _lay(file, damaged(stores, dice), dice)
    return {
        "verify": ["verify", str(file)],
        "inspect": ["inspect", str(file)],
        "repack": ["repack", str(file), out],
        "export": ["droplets", "export-data", str(file), str(folder / "out.data")],
    }[command]


def _lay(path: Path, content: bytes, dice: random.Random) -> None:
    """Put a file in place, or sometimes a folder, a dangling link or nothing."""
    kind = dice.random()
    if kind < 0.02:
        path.mkdir()
    elif kind < 0.03:
        path.symlink_to("nowhere")
    elif kind > 0.02:
        path.write_bytes(content)


# ---- all cases --------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Import the modules of all forked cases once."""
    world()
    from scimill.droplets import arguments, generate  # noqa: F401
    from scimill.droplets.exchange import records, workbook  # noqa: F401
    from scimill.droplets.kernels import solver  # noqa: F401
    from scimill.store import commands, inspect, repack, verify  # noqa: F401

    context = scimill.make_context("scimill", ["droplets", "generate", "--help"], resilient_parsing=True)
    for group in ("verify", "inspect", "repack", "droplets"):
        scimill.get_command(context, group)


def fuzz(cases: int, what: str, seed: int, case: Callable[[random.Random, Path], list[str]]) -> Findings:
    """Run cases in a scratch folder; each has its own dice, so that it can be repeated alone."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        for number in range(cases):
            folder.mkdir()
            arguments = case(random.Random(f"{seed} {what} {number}"), folder)
            findings.judge(f"{what} {number}: {arguments}", run(arguments, folder))
            shutil.rmtree(folder)
    return findings


def fuzz_configs(cases: int, seed: int) -> Findings:
    prepare()
    return fuzz(cases, "config", seed, config_case)


def fuzz_files(cases: int, seed: int) -> Findings:
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(Path(folder))
    return fuzz(cases, "file", seed, lambda dice, folder: file_case(stores, dice, folder))


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed scimill random configurations and damaged files.")
    parser.add_argument("--configs", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    bad = 0
    for what, cases, fuzzer in (("configs", args.configs, fuzz_configs), ("files", args.files, fuzz_files)):
        findings = fuzzer(cases, args.seed)
        print(*findings.wrong, sep="\n")
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(findings.codes.items()))
        print(f"{cases} {what} with seed {args.seed}: {len(findings.wrong)} wrong; exit codes {codes}")
        bad += len(findings.wrong)
    print(f"{time.monotonic() - started:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
