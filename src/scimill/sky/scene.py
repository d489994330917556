"""Make a synthetic deployment: loose files with real layout and names, and tables of the true values."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from matplotlib import colormaps
from numpy.typing import NDArray

from scimill.errors import Stopped, StorageError
from scimill.files import check_free, storage_errors
from scimill.parallel.report import Progress, describe_count
from scimill.parallel.streams import block_stream
from scimill.parallel.world import Stop, World
from scimill.sky import CAMPAIGN
from scimill.sky.exchange import names
from scimill.sky.exchange.loose import thermal_text, write_file
from scimill.sky.exchange.nodes import write_nodes, write_time
from scimill.sky.faults import Faults
from scimill.sky.kernels import camera, celsius, clouds, solar
from scimill.sky.params import SceneConfig
from scimill.sky.weather import Deployment, Shot
from scimill.store.output import Output

JOB, TASK = "sky", "mobotix-scan-0.24.3"
URL = "https://storage.sagecontinuum.org/api/v1/data"
WARMEST, COLDEST = 25.0, -60.0  # °C, range of the false colours
SHOT_NOISE = 0.012  # standard deviation of the optical camera; 1 is white
VIGNETTE = 0.18  # relative darkening of the corners of the optical image
METADATA = (
    "timestamp", "name", "value", "filename", "host", "job", "node", "plugin", "position", "task", "vsn", "zone",
)  # fmt: skip
JPG_BYTES, CSV_BYTES = 0.25, 6.5  # per pixel, for the check of free space


class Scene:
    """A synthetic deployment in a folder.

    Parameters
    ----------
    config : its parameters.
    folder : the folder of its files.

    """

    def __init__(self, config: SceneConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.deployment = Deployment(config)
        self.faults = Faults(self.deployment.count if config.faults else 0)
        self.optical = (config.rgb_height, config.rgb_height * 3 // 2)
        self.infrared = (config.thermal_height, config.thermal_height * 4 // 3)

    def paths(self, shot: Shot) -> tuple[Path, Path]:
        """Return the paths of a frame's JPG and CSV, relative to the folder."""
        rows, columns = self.optical
        rgb = names.rgb(shot.time, (rows, 2 * columns), shot.position)
        thermal = names.thermal(shot.time, self.infrared, shot.position)
        if self.config.layout == "tree":
            folder = Path(JOB, TASK, shot.node_id)
            return folder / rgb, folder / thermal
        return Path("train/rgb/processed", shot.vsn, rgb), Path("train/thermal", shot.vsn, thermal)

    def make(self, item: int) -> None:
        """Write the files of a frame, including its fault if it has one."""
        shot = self.deployment.shot(item)
        rgb, thermal = self.paths(shot)
        for name, content in self.faults.apply(item, rgb, self.jpg, thermal, self.csv, shot):
            write_file(self.folder / name, content)
        if self.config.layout == "train":
            write_file(self.folder / "train/pairs" / shot.vsn / f"{shot.time}.txt", self._pair(rgb, thermal).encode())

    def _pair(self, rgb: Path, thermal: Path) -> str:
        if self.config.pair_paths == "absolute":
            return f"{(self.folder / rgb).resolve()}\n{(self.folder / thermal).resolve()}\n"
        base = Path("train/rgb/processed" if self.config.pair_paths == "processed" else "train/rgb")
        return f"{rgb.relative_to(base)}\n{thermal.relative_to('train/thermal')}\n"

    def is_made(self, item: int) -> bool:
        """Return whether both files of a frame exist."""
        return all((self.folder / path).exists() for path in self.paths(self.deployment.shot(item)))

    def counts(self, shot: Shot, stream: np.random.Generator) -> NDArray[np.uint16]:
        """Make the thermal image of a frame, in counts."""
        sine, depth = self._depths(shot, self.infrared, camera.WHOLE)
        seen = clouds.temperature(sine, depth, shot.sky)
        seen = seen + clouds.NOISE * stream.standard_normal(seen.shape, dtype=np.float32)
        numbers: NDArray[np.uint16] = np.rint((seen - celsius.ZERO) / celsius.STEP).astype(np.uint16)
        return numbers

    def _depths(
        self, shot: Shot, shape: tuple[int, int], box: camera.Box
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        sky, directions = shot.sky, self._directions(shot)
        x, y = camera.tangents(shape, box)
        return clouds.depths(self.deployment.field, directions, x, y, sky.base, np.array(sky.shift), sky.threshold)

    @staticmethod
    def _directions(shot: Shot) -> NDArray[np.float64]:
        return camera.axes(camera.AZIMUTHS[(shot.position - 1) // 4], camera.TILT_DEGREES[(shot.position - 1) % 4])

    def csv(self, shot: Shot) -> bytes:
        """Make the content of a frame's file of temperatures."""
        return thermal_text(self.counts(shot, block_stream(self.config.seed, CAMPAIGN.number, shot.item)))

    def jpg(self, shot: Shot) -> bytes:
        """Make the content of a frame's JPG: the optical image, and the thermal one in false colours beside it."""
        stream = block_stream(self.config.seed, CAMPAIGN.number, shot.item)
        numbers = self.counts(shot, stream)
        image = np.concatenate([self._optical(shot, stream), self._false_colours(numbers)], axis=1)
        content: bytes = simplejpeg.encode_jpeg(image, quality=self.config.quality, colorsubsampling="420")
        return content

    def _optical(self, shot: Shot, stream: np.random.Generator) -> NDArray[np.uint8]:
        box = self.deployment.box(shot.node)
        x, y = camera.tangents(self.optical, box)
        sine, depth = self._depths(shot, self.optical, box)
        towards_sun = clouds.glow(self._directions(shot), x, y, shot.sky.sun)
        image = clouds.colour(sine, depth, towards_sun, shot.sky)
        radius = np.hypot(np.linspace(-1, 1, len(y))[:, None], np.linspace(-1, 1, len(x))[None, :])
        image *= (1 - VIGNETTE / 2 * radius**2)[..., None]
        image += SHOT_NOISE * stream.standard_normal(image.shape, dtype=np.float32)
        pixels: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
        return pixels

    def _false_colours(self, numbers: NDArray[np.uint16]) -> NDArray[np.uint8]:
        shares = (celsius.to_celsius(numbers) - COLDEST) / (WARMEST - COLDEST)
        small = (colormaps["inferno"](shares)[..., :3] * 255).astype(np.uint8)
        rows = np.arange(self.optical[0]) * small.shape[0] // self.optical[0]
        columns = np.arange(self.optical[1]) * small.shape[1] // self.optical[1]
        large: NDArray[np.uint8] = small[rows[:, None], columns[None, :]]
        return large

    def records(self) -> Iterator[dict[str, object]]:
        """Yield the archive's metadata of each file, in the columns of `METADATA`."""
        for item in range(self.deployment.count):
            shot = self.deployment.shot(item)
            for path in self.paths(shot):
                stored = path.name.partition("-")[2]
                yield {
                    "timestamp": write_time(shot.time), "name": "upload",
                    "value": f"{URL}/{JOB}/{TASK}/{shot.node_id}/{path.name}", "filename": stored,
                    "host": f"{shot.node_id}.ws-nxcore", "job": JOB, "node": shot.node_id,
                    "plugin": "registry.sagecontinuum.org/bhupendraraj/mobotix-scan:0.24.3",
                    "position": shot.position, "task": TASK.rpartition("-")[0], "vsn": shot.vsn, "zone": "core",
                }  # fmt: skip

    def write_tables(self) -> None:
        """Write the tables of the whole deployment: nodes, metadata, true values, faults."""
        write_nodes(self.deployment.nodes(aligned=False), self.folder / "nodes.csv")
        write_nodes(self.deployment.nodes(aligned=True), self.folder / "nodes-aligned.csv")
        lines, table = [], [["", *("meta." + name if number > 2 else name for number, name in enumerate(METADATA))]]
        for number, record in enumerate(self.records()):
            meta = {name: str(record[name]) for name in METADATA[3:]}
            lines.append(json.dumps({**{name: record[name] for name in METADATA[:3]}, "meta": meta}))
            table.append([str(number), *(str(record[name]) for name in METADATA)])
        (self.folder / "sage_meta").mkdir(exist_ok=True)
        write_file(self.folder / "sage_meta/uploads.ndjson", ("\n".join(lines) + "\n").encode())
        write_table(self.folder / "sage_meta/uploads.csv", table)
        write_table(self.folder / "truth.csv", self._truth())
        if self.config.faults:
            rows = [[str(path), fault] for path, fault in self.faults.list_files(self._file)]
            write_table(self.folder / "faults.csv", [["file", "fault"], *rows])

    def _file(self, item: int, kind: str) -> Path:
        return self.paths(self.deployment.shot(item))[kind == names.THERMAL]

    def _truth(self) -> list[list[str]]:
        rows = [["timestamp", "vsn", "position", "sun_elevation", "cover", "cloud_base", "air_temperature"]]
        for item in range(self.deployment.count):
            s = self.deployment.shot(item)
            numbers = (s.sun_elevation, s.sky.cover, s.sky.base, s.sky.air)
            rows.append([str(s.time), s.vsn, str(s.position), *(f"{value:.4f}" for value in numbers)])
        return rows


def write_table(path: Path, rows: list[list[str]]) -> None:
    """Write a CSV file."""
    with storage_errors(path, "writing a table"), path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def prepare_folder(config: SceneConfig, output: Output) -> None:
    """Make the folder, or refuse one that is not empty.

    Raises
    ------
    StorageError : it is not empty or is a file, or there is too little space.

    """
    folder = output.path
    with storage_errors(folder, "preparing the folder"):
        if folder.exists() and not folder.is_dir():
            raise StorageError("the output is a file", where=str(folder), allowed="a directory")
        if folder.is_dir() and any(folder.iterdir()) and not (output.resume or output.overwrite):
            remedy = "choose another name, or use --resume to continue or --overwrite to write into it"
            raise StorageError("the directory is not empty", where=str(folder), remedy=remedy)
        if not folder.parent.is_dir():
            remedy = f"mkdir -p {folder.parent}"
            raise StorageError("the output's directory does not exist", where=str(folder.parent), remedy=remedy)
        check_free(folder, int(estimate_bytes(config)))
        folder.mkdir(exist_ok=True)


def estimate_bytes(config: SceneConfig) -> float:
    """Estimate the bytes of a deployment."""
    optical, thermal = 3 * config.rgb_height**2, config.thermal_height**2 * 4 / 3
    return config.frames * config.nodes * (JPG_BYTES * optical + CSV_BYTES * thermal)


def make_scene(config: SceneConfig, output: Output, world: World) -> int:
    """Make the files of a deployment; collective. Return the number of frames.

    Raises
    ------
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `prepare_folder` and `weather.Deployment`.

    """
    stop = Stop(world, config.walltime, config.walltime_margin)
    with world.together():
        scene = Scene(config, output.path)
    world.on_root(prepare_folder, config, output)
    count = scene.deployment.count
    items = range(world.rank, count, world.size)
    _make_frames(items, lambda item: output.resume and scene.is_made(item), scene.make, stop, world, count)
    reason = stop.finish()
    stop.restore()
    if reason:
        world.fail(Stopped(f"stopped by {reason}; all files are kept", remedy="rerun with --resume"))
    world.on_root(scene.write_tables)
    return count


def _make_frames(
    items: range, is_made: Callable[[int], bool], make: Callable[[int], None], stop: Stop, world: World, count: int
) -> None:
    progress = Progress(count, unit="frames", what="scene", enabled=world.is_root)
    for item in items:
        if stop.requested():
            break
        if not is_made(item):
            make(item)
        if progress.due():
            progress.update(item)
    progress.close()


def describe_scene(config: SceneConfig, output: Output) -> str:
    """Describe what making a deployment would do."""
    deployment = Deployment(config)
    last = deployment.shot(config.frames - 1)
    days = (last.time - deployment.start) / solar.NANOSECONDS_PER_DAY
    return "\n".join(
        (
            f"output    {output.path}",
            f"frames    {deployment.count:,} of {describe_count(config.nodes, 'node')}, over {days:.3g} days",
            f"size      about {estimate_bytes(config) / 2**20:.4g} MiB",
        )
    )
