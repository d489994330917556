"""Compare generating datasets with raw writes, with plain generators, and on two ranks with dd.

One process, CPU time: scimill's whole `generate` (planning, creating files, making bytes, checksums, ledger, fsync,
manifest), once through the page cache and once with its default, direct I/O if the file system permits it. The run
through the page cache takes turns with a loop that writes one block over and over into a file of the same size and
syncs it. The default run takes turns with a plain generator, as a user would write it with numpy's global functions,
Python's `random` or protobuf; it makes fewer bytes. The least time of each counts.

Two ranks, wall-clock time: the default `generate`, and dd of as many bytes (oflag=direct conv=fsync bs=4M).

Runs through the page cache write `--megabytes`, all others four times as many.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

from scimill.bench import generate
from scimill.bench.kernels.clicks import COUNTS, INTEGER_RANGE
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World, world
from scimill.store.direct import aligned, allocate_file
from scimill.store.output import Output

# ruff: noqa: NPY002  (a user would write numpy's global functions, as most tutorials do)

BLOCK = 2**22  # bytes, for scimill and the raw loop
LOW, HIGH = -2.340702, 2.639792
Plain = Callable[[Path], None]

# ---- generators as a user would write them ----------------------------------------------------------------------


def plain_imseg(folder: Path) -> None:
    """Write one case of the original's mean size, 157 MB."""
    image = np.random.uniform(LOW, HIGH, (1, 300, 323, 323)).astype(np.float32)
    label = np.random.randint(0, 2, image.shape).astype(np.uint8)
    np.save(folder / "case_00000_x.npy", image)
    np.save(folder / "case_00000_y.npy", label)


def columns(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = np.random.randint(0, 2, rows)
    integers = np.random.randint(0, INTEGER_RANGE, (rows, 13))
    categories = np.column_stack([np.random.randint(0, count, rows) for count in COUNTS])
    return label, integers, categories


def plain_npz(folder: Path) -> None:
    """Write one file of 320 MB; the original's have 2.1 GB."""
    label, integers, categories = columns(1_000_000)
    np.savez(folder / "day_0_reordered.npz", X_int=integers, X_cat=categories, y=label)


def plain_bin(folder: Path) -> None:
    """Write one file of 160 MB; the original's have 1.0 GB."""
    label, integers, categories = columns(1_000_000)
    rows = np.concatenate([label.reshape(-1, 1), integers, categories], axis=1).astype(np.int32)
    rows.tofile(folder / "terabyte_processed_train.bin")


def plain_text(folder: Path) -> None:
    """Write 20 000 lines, 5.7 MB."""
    with (folder / "train.txt").open("w") as file:
        for _ in range(20_000):
            fields = [str(random.randint(0, 1))]
            fields += [str(random.randint(0, 1000)) for _ in range(13)]
            fields += [f"{random.randrange(2**32):08x}" for _ in range(26)]
            file.write("\t".join(fields) + "\n")


PROTO = """
name: "plain.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "FloatList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "float_list" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.FloatList"
          oneof_index: 0 }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Int64List"
          oneof_index: 0 } }
message_type { name: "Features"
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Feature" } }
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
          type_name: ".tensorflow.Features.FeatureEntry" } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Features" } }
"""


def message_classes() -> dict[str, Any]:
    """Return the classes of tf.train by name, without TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(PROTO, descriptor_pb2.FileDescriptorProto()))
    names = ("FloatList", "Int64List", "Feature", "Features", "Example")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.{name}")) for name in names}


def plain_bert(folder: Path) -> None:
    """Write 4 000 records, 11 MB."""
    from crc32c import crc32c

    def masked(content: bytes) -> bytes:
        crc = crc32c(content)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    train = message_classes()
    with (folder / "part-00000-of-00500").open("wb") as file:
        for _ in range(4000):
            data = example(train).SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(length + masked(length) + data + masked(data))


def example(train: dict[str, Any]) -> Any:
    """Draw an instance as the original generator does; build it as BERT's create_pretraining_data does."""

    def whole(values: list[int]) -> Any:
        return train["Feature"](int64_list=train["Int64List"](value=values))

    tokens = int(512 * random.random())
    first, hidden = int(tokens * random.random()), int(0.15 * tokens)
    ids = [int(30522 * random.random()) for _ in range(tokens)] + [0] * (512 - tokens)
    positions = [int(tokens * random.random()) for _ in range(hidden)] + [0] * (76 - hidden)
    weights = [1.0] * hidden + [0.0] * (76 - hidden)
    features = {
        "input_ids": whole(ids),
        "input_mask": whole([1] * tokens + [0] * (512 - tokens)),
        "segment_ids": whole([0] * first + [1] * (tokens - first) + [0] * (512 - tokens)),
        "masked_lm_positions": whole(positions),
        "masked_lm_ids": whole([ids[p] for p in positions[:hidden]] + [0] * (76 - hidden)),
        "masked_lm_weights": train["Feature"](float_list=train["FloatList"](value=weights)),
        "next_sentence_labels": whole([random.randint(0, 1)]),
    }
    return train["Example"](features=train["Features"](feature=features))


CASES: dict[str, tuple[str, str, Plain | None, float, float]] = {
    # name: workload, format, plain generator, goals: share of the raw write rate, times the plain generator
    "imseg": ("imseg", "npy", plain_imseg, 0.50, 12),
    "npz": ("dlrm", "npz", plain_npz, 0.40, 10),
    "bin": ("dlrm", "bin", plain_bin, 0.35, 15),
    "hdf5": ("dlrm", "hdf5", None, 0.30, 0),
    "text": ("dlrm", "text", plain_text, 0.28, 100),
    "bert": ("bert", "tfrecord", plain_bert, 0.17, 60),
}
LEAST_OF_DD = 0.8  # goal for two ranks, wall-clock
LARGE = 4  # times larger outside the page cache, so that starting and finishing take a small share

# ---- measuring --------------------------------------------------------------------------------------------------


def configure(name: str, megabytes: int, *, cached: bool = False) -> BenchGenerateConfig:
    """Return the default configuration, or one for the page cache with blocks of the raw loop's size."""
    workload, form = CASES[name][:2]
    values: dict[str, object] = {"workload": workload, "format": form, "size": megabytes * 10**6}
    return build(
        BenchGenerateConfig, [Layer("benchmark", values | ({"direct": False, "block_size": BLOCK} if cached else {}))]
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call, of all threads and including system time."""
    started = time.process_time()
    work()
    return time.process_time() - started


def write_raw(path: Path, size: int) -> None:
    """Fill a file with one block over and over, and sync it."""
    block = aligned(BLOCK)
    allocate_file(path, size)
    descriptor = os.open(path, os.O_WRONLY)
    for start in range(0, size, BLOCK):
        os.pwrite(descriptor, block[: min(BLOCK, size - start)].data, start)
    os.fsync(descriptor)
    os.close(descriptor)


def content_size(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def measure_one_rank(name: str, folder: Path, megabytes: int, repeats: int) -> dict[str, float]:
    """Measure MB per CPU second: scimill with and without page cache, raw loop, plain generator."""
    config, cached = configure(name, LARGE * megabytes), configure(name, megabytes, cached=True)
    plain = CASES[name][2]
    best: dict[str, float] = {}

    def take(what: str, work: Callable[[], object], path: Path) -> None:
        seconds = cpu_seconds(work)
        best[what] = max(best.get(what, 0.0), content_size(path) / 1e6 / seconds)
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)

    output = Output(folder / ("set.h5" if config.format == "hdf5" else "set"), overwrite=True)
    generate.generate(configure_small(name), output, World(None))  # compiles the kernels
    for _ in range(repeats):
        take("raw", lambda: write_raw(folder / "raw", cached.size), folder / "raw")
        take("cached", lambda: generate.generate(cached, output, World(None)), output.path)
    for _ in range(repeats):
        take("scimill", lambda: generate.generate(config, output, World(None)), output.path)
        if plain is not None:
            (folder / "plain").mkdir()
            take("plain", lambda: plain(folder / "plain"), folder / "plain")
    return best


def configure_small(name: str) -> BenchGenerateConfig:
    return configure(name, 30)


def measure_two_ranks(name: str, folder: Path, megabytes: int, repeats: int) -> dict[str, float]:
    """Measure MB per second of scimill on two ranks, and of dd."""
    best = {"dd": 0.0, "two ranks": 0.0}
    for _ in range(repeats):
        target = folder / "dd"
        command = ["dd", "if=/dev/zero", f"of={target}", "bs=4M", f"count={megabytes * 10**6 // BLOCK}", "oflag=direct"]
        started = time.monotonic()
        subprocess.run([*command, "conv=fsync"], check=True, stderr=subprocess.DEVNULL)
        best["dd"] = max(best["dd"], target.stat().st_size / 1e6 / (time.monotonic() - started))
        target.unlink()
        printed = harness.run_part(name, megabytes, folder, ranks=2)
        best["two ranks"] = max(best["two ranks"], float(printed.split()[-1]))
    return best


def rank(name: str, megabytes: str, folder: str) -> None:
    """Generate on the ranks of this job; rank 0 prints MB per second of the whole run."""
    config, ranks = configure(name, int(megabytes)), world()
    path = Path(folder) / ("ranks.h5" if config.format == "hdf5" else "ranks")
    generate.generate(configure_small(name), Output(path, overwrite=True), ranks)
    ranks.barrier()
    started = time.monotonic()
    generate.generate(config, Output(path, overwrite=True), ranks)
    ranks.barrier()
    if ranks.is_root:
        print(content_size(path) / 1e6 / (time.monotonic() - started))
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def main() -> int:
    size = harness.Option("megabytes", 1000, 20, "size of the datasets that go through the page cache, MB")
    needs = ("crc32c", "google.protobuf", "mpirun", "dd")
    arguments = harness.parse(__doc__, size, harness.repeats(5), harness.DIRECTORY, needs=needs, part=rank)
    goals, results = [], {}
    print(f"{harness.describe_machine()}; one rank in MB per CPU second, two ranks in MB/s\n")
    headings = ("raw", "cached", "of raw", "scimill", "plain", "x plain", "dd", "2 ranks", "of dd")
    print(f"{'':8}" + "".join(f"{head:>9}" for head in headings))
    for name, (_, _, plain, share, ratio) in CASES.items():
        with tempfile.TemporaryDirectory(dir=arguments.directory) as temporary:
            found = measure_one_rank(name, Path(temporary), arguments.megabytes, arguments.repeats)
            found |= measure_two_ranks(name, Path(temporary), LARGE * arguments.megabytes, arguments.repeats)
        results[name] = found
        of_raw, of_dd = found["cached"] / found["raw"], found["two ranks"] / found["dd"]
        times = found["scimill"] / found["plain"] if plain else float("nan")
        print(
            f"{name:8}{found['raw']:9.0f}{found['cached']:9.0f}{of_raw:9.2f}{found['scimill']:9.0f}"
            f"{found.get('plain', 0):9.1f}{times:9.1f}{found['dd']:9.0f}{found['two ranks']:9.0f}{of_dd:9.2f}",
            flush=True,
        )
        goals.append(harness.Goal(f"{name}: share of the raw write rate", of_raw, least=share))
        goals += [harness.Goal(f"{name}: times the plain generator's rate", times, least=ratio)] if plain else []
        goals.append(harness.Goal(f"{name}: two ranks to disk, share of dd", of_dd, least=LEAST_OF_DD))
    return harness.conclude(goals, {"results": results}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
