"""Compare preparing a store of pairs and reading it with decoding loose files in every epoch.

CPU milliseconds per pair, the least of the repeats, on full-size images (3072 x 2048 JPG and 336 x 252 CSV, to
600 x 800 and 252 x 336). Two loaders of loose files are timed in the same run: the original's (PIL, normalising the
full frame in floats, crop, torch's resize; numpy.loadtxt) and a lean one (PIL, resizing the crop only; numpy.loadtxt).
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np
import simplejpeg
import torch
from PIL import Image

from scimill.config import Layer, build
from scimill.parallel.world import world
from scimill.sky import prepare
from scimill.sky.exchange.index import Pair, read_index, write_index
from scimill.sky.kernels import celsius
from scimill.sky.pair import pair
from scimill.sky.params import PairConfig, PrepareConfig, SceneConfig
from scimill.sky.scene import make_scene
from scimill.store.output import Output
from scimill.store.reader import Reader

SHAPE = (600, 800)
OPTICAL_SHAPE = (2048, 3072)  # rows and columns of a node's optical image
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BLOCK = 4
READS = 20  # passes over the store in one measurement


def make_deployment(folder: Path, frames: int) -> list[Pair]:
    """Make a synthetic deployment whose JPGs hold only the optical image, as the original expects."""
    config = build(SceneConfig, [Layer("benchmark", {"frames": frames, "nodes": 1, "start": "2023-05-10T15:00:00Z"})])
    make_scene(config, Output(folder), world())
    pairs = pair(build(PairConfig, []), folder, folder / "nodes.csv", None, world()).pairs
    for found in pairs:
        image = simplejpeg.decode_jpeg(found.rgb.read_bytes())[:, : OPTICAL_SHAPE[1]]
        found.rgb.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), 85, colorsubsampling="420"))
    write_index(pairs, folder / "index.csv")
    return read_index(folder / "index.csv")


def load_thermal(found: Pair) -> np.ndarray:
    with found.thermal.open() as file:
        return np.loadtxt(file, delimiter=";", skiprows=8)


def load_as_original(found: Pair) -> None:
    """Load a pair with the steps of the original."""
    with Image.open(found.rgb) as file:
        image = torch.from_numpy(np.asarray(file.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    image = (image - MEAN[:, None, None]) / DEVIATION[:, None, None]
    left, top, right, bottom = prepare.centre_box(*OPTICAL_SHAPE)
    rows, columns = (slice(int(a * n), int(b * n)) for a, b, n in ((top, bottom, 2048), (left, right, 3072)))
    crop = image[:, rows, columns]
    torch.nn.functional.interpolate(crop[None], SHAPE, mode="bilinear", antialias=True)
    torch.from_numpy(load_thermal(found))


def load_lean(found: Pair) -> None:
    """Load a pair with as little work as PIL and numpy need."""
    left, top, right, bottom = prepare.centre_box(*OPTICAL_SHAPE)
    box = (left * 3072, top * 2048, right * 3072, bottom * 2048)
    with Image.open(found.rgb) as file:
        np.asarray(file.convert("RGB").resize(SHAPE[::-1], Image.Resampling.BOX, box=box))
    load_thermal(found)


def prepare_command(folder: Path, decode: str) -> Callable[[], None]:
    """Return a function that prepares the pairs into a store, as the command does."""
    config = build(PrepareConfig, [Layer("benchmark", {"decode": decode, "crop": "centre", "block_size": BLOCK})])
    output = Output(folder / f"{decode}.h5", overwrite=True)
    return lambda: (prepare.prepare(config, folder / "index.csv", None, output, world()), None)[1]


def store_reader(store: Path) -> Callable[[], None]:
    """Return a function that reads all blocks in random order, and degrees, as training does."""

    def read() -> None:
        with Reader.open(store, check=False) as reader:
            for _ in range(READS):
                for block in np.random.default_rng(1).permutation(reader.layout.blocks).tolist():
                    reader.rows(block, "rgb")
                    celsius.stored_to_celsius(reader.rows(block, "thermal"))

    return read


def least(function: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds of a call, without the first one, which compiles and fills caches."""
    times = []
    for _ in range(repeats + 1):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times[1:])


def main() -> int:
    frames = harness.Option("frames", 6, 2, "number of image pairs")
    options = harness.parse(__doc__, frames, harness.repeats(3), harness.DIRECTORY)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name) / "deployment"
        pairs = make_deployment(folder, options.frames)
        n, repeats = len(pairs), options.repeats
        ms = {
            "loose files, original": least(lambda: [load_as_original(p) for p in pairs], repeats) / n * 1e3,
            "loose files, lean": least(lambda: [load_lean(p) for p in pairs], repeats) / n * 1e3,
            "prepare, exact": least(prepare_command(folder, "exact"), repeats) / n * 1e3,
            "prepare, fast": least(prepare_command(folder, "fast"), repeats) / n * 1e3,
            "reading the store": least(store_reader(folder / "exact.h5"), repeats) / n / READS * 1e3,
        }
    print(f"{harness.describe_machine()}; {n} full-size pair{'s' * (n != 1)}\n")
    print(f"{'':<24}{'ms/pair':>9}{'pairs/s':>9}{'x original':>12}{'x lean':>9}")
    for label, value in ms.items():
        ratios = [ms[f"loose files, {kind}"] / value for kind in ("original", "lean")]
        print(f"{label:<24}{value:>9.2f}{1e3 / value:>9.1f}{ratios[0]:>12.1f}{ratios[1]:>9.1f}")
    slow = ms["loose files, original"]
    goals = [
        harness.Goal("prepare, exact: times the original's speed", slow / ms["prepare, exact"], least=5),
        harness.Goal("prepare, fast: times the original's speed", slow / ms["prepare, fast"], least=9),
        harness.Goal("reading the store: times the original's speed", slow / ms["reading the store"], least=100),
    ]
    return harness.conclude(goals, {"milliseconds": ms, "pairs": n}, options.json)


if __name__ == "__main__":
    sys.exit(main())
