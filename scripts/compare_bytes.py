#!/usr/bin/env python3
"""Generate a small artifact of every kind, and compare its bytes with an earlier list.

    scripts/compare_bytes.py LIST --write     make the list, before a change
    scripts/compare_bytes.py LIST             compare with the list, after the change
    … --only droplets                         artifacts of one campaign only

Use it to show that a code change does not change bytes. The list holds SHA-256 sums of every dataset of a store except
the timings, and of every file of a dataset directory or atoms cache except its dated manifest. It is valid for one kind
of processor only, so it is not kept in the repository.
"""

import argparse
import hashlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mpi4py

mpi4py.rc.initialize = False  # otherwise importing h5py would start MPI, but this script starts the ranks
import h5py  # noqa: E402
import numpy as np  # noqa: E402

DROPLETS = "--count 3000 --block-size 512 --tolerance 1e-4 --seed 7"
TURBULENCE = "--points 64 --snapshots 5 --members 2 --seed 3 --amplitude 1"
COMMANDS = f"""
droplets generate classic.h5 {DROPLETS}
droplets generate ntlp.h5 {DROPLETS} --preset ntlp-2026 --sampling sobol
droplets generate three.h5 {DROPLETS} --samples 3 --keep-weird
droplets generate cloud.h5 {DROPLETS} --preset cloud
droplets export-data classic.h5 droplets.bin
droplets import-data droplets.bin imported.h5 --block-size 512
turbulence simulate fine.h5 {TURBULENCE} --preset simlint
turbulence simulate arakawa.h5 {TURBULENCE} --preset hw2d --scheme arakawa
turbulence simulate single.h5 {TURBULENCE} --precision float32
turbulence coarsen fine.h5 coarse.h5 --factor 2
turbulence corrections fine.h5 corrections.h5 --factor 2
bench generate imseg imseg-npy --size 20MB --seed 5
bench generate imseg imseg.h5 --size 20MB --seed 5 --format hdf5
bench generate bert bert-tfrecord --size 4MB --seed 5
bench generate bert bert.h5 --size 4MB --seed 5 --format hdf5
bench generate dlrm dlrm-npz --size 4MB --seed 5 --format npz --rows-per-file 10000
bench generate dlrm dlrm-npy --size 4MB --seed 5 --format npy --rows-per-file 10000
bench generate dlrm dlrm-bin --size 4MB --seed 5 --format bin
bench generate dlrm dlrm-text --size 4MB --seed 5 --format text
bench generate dlrm dlrm-parquet --size 4MB --seed 5 --format parquet --rows-per-file 10000
bench generate dlrm dlrm.h5 --size 4MB --seed 5 --format hdf5
bench generate dlrm dlrm-skewed --size 4MB --seed 5 --format text --preset realistic
bench scale imseg imseg-npy imseg-npy-scaled --size 30MB
bench scale imseg imseg.h5 imseg-scaled.h5 --size 30MB
bench scale bert bert-tfrecord bert-tfrecord-scaled --size 6MB
bench scale bert bert.h5 bert-scaled.h5 --size 6MB
bench scale dlrm dlrm-npz dlrm-npz-scaled --size 6MB --format npz
bench scale dlrm dlrm-npy dlrm-npy-scaled --size 2MB --format npy
bench scale dlrm dlrm-bin dlrm-bin-scaled --size 6MB --format bin
bench scale dlrm dlrm-text dlrm-text-scaled --size 2MB --format text
bench scale dlrm dlrm-parquet dlrm-parquet-scaled --size 6MB --format parquet
bench scale dlrm dlrm.h5 dlrm-scaled.h5 --size 6MB
atoms demo metals.xyz --count 60
atoms import alloys metals.xyz --test-fraction 0.2
atoms compress alloys
atoms reduce alloys active --number 16
atoms cache alloys caches-h5 --reduction active --n-caches 2 --train-fraction 0.5 --valid-fraction 0.25
atoms cache alloys caches-npz --reduction active --n-caches 2 --train-fraction 0.5 --valid-fraction 0.25 --format npz
sky scene sky --frames 24 --nodes 3 --rgb-height 96 --thermal-height 24 --interval 900 --faults
sky pair sky --nodes sky/nodes.csv --output sky-pairs.csv
sky align sky-pairs.csv --nodes sky/nodes.csv --output sky-nodes.csv --least-pairs 1
sky prepare sky-pairs.csv sky.h5 --nodes sky-nodes.csv --rgb-height 48 --rgb-width 64 --block-size 8
"""
DATED = {"manifest.json"}
"""Files with the date and host of the run, and help texts."""
TIMINGS = ("blocks/seconds", "blocks/row_crc32c")


def make_everything(folder: Path, campaign: str) -> None:
    """Run the commands in a folder, alternating between one and two ranks; an empty campaign means all."""
    for number, line in enumerate(COMMANDS.strip().splitlines()):
        if campaign not in ("", line.split()[0]):
            continue
        launcher = ["mpirun", "-n", "2"] if number % 2 and line.split()[1] in ("generate", "simulate") else []
        command = [*launcher, "scimill", *shlex.split(line)]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")


def hash_stores(path: Path) -> Iterator[tuple[str, str]]:
    """Hash every dataset of an HDF5 file, and each column of one with columns, except the timings."""
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visit(names.append)
        for name in names:
            if not isinstance(file[name], h5py.Dataset) or file[name].is_scale:
                continue
            value = file[name][()]
            columns = getattr(value, "dtype", np.dtype("O")).names or ()
            for part, values in {f"{name}/{column}": value[column] for column in columns}.items() or [(name, value)]:
                is_array = hasattr(values, "tobytes") and values.dtype != object
                data = values.tobytes() if is_array else repr(values).encode()
                if part not in TIMINGS:
                    yield f"{path.name}/{part}", hashlib.sha256(data).hexdigest()


def hash_everything(folder: Path) -> dict[str, str]:
    """Hash all artifacts below a folder by name."""
    found: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in DATED):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5" and path.parent == folder:
            found |= dict(hash_stores(path))
        elif "alloys/" not in name and "/.scimill" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main() -> None:
    """Write or compare the list."""
    parser = argparse.ArgumentParser(description="Compare the bytes of every kind of artifact with a list.")
    parser.add_argument("list", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="", help="name of a campaign")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_everything(Path(name), arguments.only)
        found = hash_everything(Path(name))
    if arguments.write:
        arguments.list.write_text("".join(f"{value}  {key}\n" for key, value in found.items()), "utf-8")
        return
    pairs = (line.split("  ", 1) for line in arguments.list.read_text("utf-8").splitlines())
    before = {key: value for value, key in pairs}
    different = sorted(key for key in before.keys() | found.keys() if before.get(key) != found.get(key))
    for key in different:
        print(f"{'differs' if key in before and key in found else 'missing' if key in before else 'new'}: {key}")
    print(f"{len(before)} compared")
    sys.exit(f"{len(different)} of {len(before)} differ" if different else 0)


if __name__ == "__main__":
    main()
