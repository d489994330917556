"""Reader of imseg's cases: pairs of an image and its labels, in NumPy's .npy format."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Change, Changes
from scimill.bench.dataset.plan import DataFile, KnownBytes
from scimill.bench.formats import source
from scimill.bench.formats.imseg_npy.cases import EVALUATION
from scimill.bench.formats.npy import read_npy_header
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels import perturbation
from scimill.bench.kernels.scaling import Picks
from scimill.bench.kernels.volumes import HIGH, LOW
from scimill.parallel.world import World
from scimill.store.direct import Bytes

Case = TypeVar("Case")

PATTERNS = "case_*_x.npy, case_*_y.npy"
SUFFIXES = {"x": "<f4", "y": "|u1"}
_NAME = re.compile(r"(?:.*_)?(\d{1,9})_x\.npy")
MIN_EDGE = 128  # voxels: the trainer crops patches of 128³
LABELS = 2  # the largest label: background, kidney, tumour


@dataclass(frozen=True)
class NpyFile:
    """The header of a file with one array."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    header: bytes

    @property
    def size(self) -> int:
        """Bytes of the array's values."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def read_header(path: Path) -> NpyFile | str:
    """Read the header of a .npy file; return a description of the defect if there is one."""
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = read_npy_header(file)
            length = file.tell()
            file.seek(0)
            array = NpyFile(path, shape, dtype.str, file.read(length))
        missing = length + array.size - path.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "is not a .npy file"
    if is_fortran or missing:
        wrong = f"is {abs(missing):,} bytes too {'short' if missing > 0 else 'long'}"
        return "is in Fortran order" if is_fortran else wrong
    return array


@dataclass(frozen=True)
class RolledVolume:
    """The values of an array of shape (1, D, H, W), rolled along depth; intensities also get noise.

    Attributes
    ----------
    array : the file.
    change : how its values change.

    """

    array: NpyFile
    change: Change

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.array.size

    def fill(self, start: int, stop: int, work: Bytes, at: int) -> None:
        """Put bytes [start, stop) at work[at:]; see `plan.FileSegment.fill`."""
        position = start
        while position < stop:
            place_in_file = (position + self._shift) % self.size
            length = min(stop - position, self.size - place_in_file)
            place = at + position - start
            work[place : place + length] = source.read_bytes(
                self.array.path, len(self.array.header) + place_in_file, length
            )
            position += length
        if self.array.dtype == SUFFIXES["x"] and not self.change.is_copy and not self.change.shuffled:
            self._add_noise(start, work[at : at + stop - start])

    @property
    def _shift(self) -> int:
        """Bytes by which the values are rolled: the same whole number of slices for image and labels."""
        depth = self.array.shape[1]
        return slice_shift(self.change, depth) * (self.size // depth)

    def _add_noise(self, start: int, content: Bytes) -> None:
        voxels = content.view(np.float32) if content.ctypes.data % 4 == 0 else content.copy().view(np.float32)
        add_noise(voxels, self.change, start // 4)
        content[:] = voxels.view(np.uint8)


def slice_shift(change: Change, depth: int) -> int:
    """Number of its `depth` slices by which a case is rolled; 0 where it is copied."""
    return 0 if change.is_copy else 1 + int(perturbation.draw_integers(change.key, 0, np.array([depth - 1]))[0])


def add_noise(voxels: NDArray[np.float32], change: Change, first: int) -> None:
    """Add noise to intensities in place; the first one is voxel `first` of its case."""
    low, high, reach = float(LOW), float(HIGH), change.noise * float(HIGH - LOW)
    perturbation.add_noise(voxels, change.key + np.uint64(1), np.uint64(first), low, high, reach, change.repeat)


class CaseFiles:
    """A scanned dataset of cases ``case_00000_x.npy``, ``case_00000_y.npy``; each case is a piece of one record."""

    format, record, unit = "npy", "case", 1

    def __init__(self, parts: Sequence[DatasetPart], arrays: Mapping[Path, NpyFile]) -> None:
        self.parts, self._arrays = parts, arrays

    def lengths(self, part: int, piece: int) -> Integers:
        """Return the size of the case, the only record of the piece."""
        return self.parts[part].pieces.size[piece : piece + 1]

    def total(self, counts: Sequence[int]) -> int:
        """Return the size of a dataset in bytes; files add nothing to their cases."""
        return sum(counts)

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return two files for each case. Cases keep their numbers; added cases get the numbers after the last."""
        found = {
            number: [self._file(path, number, kind, changes(which, picks[which], index)) for kind in SUFFIXES]
            for number, path, which, index in self._number_cases(picks)
        }
        return [file for number in sorted(found) for file in found[number]]

    def origins(self, picks: Sequence[Picks]) -> dict[str, Path]:
        """Return the input file that each output file would be a copy of, by the output's name."""
        return {
            f"case_{number:05}_{kind}.npy": case_file(path, kind)
            for number, path, _, _ in self._number_cases(picks)
            for kind in SUFFIXES
        }

    def _number_cases(self, picks: Sequence[Picks]) -> Iterator[tuple[int, Path, int, int]]:
        """Yield number and image of each picked case, its part and the index of its pick."""
        numbers = [[number_of(path) for path in part.files] for part in self.parts]
        for number, which, index in number_cases(numbers, picks):
            yield number, self.parts[which].files[int(picks[which].piece[index])], which, index

    def _file(self, image: Path, number: int, kind: str, change: Change) -> DataFile:
        array = self._arrays[case_file(image, kind)]
        name = f"case_{number:05}_{kind}.npy"
        return DataFile(name, int(kind == "x"), (KnownBytes(array.header), RolledVolume(array, change)))


def number_cases(numbers: Sequence[Sequence[int]], picks: Sequence[Picks]) -> Iterator[tuple[int, int, int]]:
    """Yield number, part and index of each pick; repeated cases get new numbers after the last one.

    Parameters
    ----------
    numbers : numbers of the cases of each part.
    picks : picks of each part.

    """
    following = max(max(of_part) for of_part in numbers) + 1
    for which, (of_part, part_picks) in enumerate(zip(numbers, picks, strict=True)):
        for index, (piece, times) in enumerate(zip(part_picks.piece.tolist(), part_picks.times.tolist(), strict=True)):
            yield of_part[piece] if times == 0 else following, which, index
            following += times > 0


def split_cases(cases: Sequence[Case], number: Callable[[Case], int]) -> tuple[list[Case], list[Case]]:
    """Split cases into training and evaluation, which the trainer distinguishes by number."""
    training = [case for case in cases if number(case) not in EVALUATION]
    evaluation = [case for case in cases if number(case) in EVALUATION]
    if not training:  # the evaluation cases are scaled instead; repeated ones get numbers of training cases
        return evaluation, training
    return training, evaluation


def find(folder: Path) -> list[Path]:
    """Find the images of a dataset; labels without an image appear as the image's expected name."""
    names = {path.name for path in folder.glob("*_x.npy")}
    names |= {path.name.removesuffix("_y.npy") + "_x.npy" for path in folder.glob("*_y.npy")}
    return [folder / name for name in sorted(names)]


def scan(folder: Path, skip_damaged: bool, world: World) -> CaseFiles:
    """Scan a dataset, one case at a time on each rank; collective.

    Raises
    ------
    InputError : the dataset has defects.

    """
    paths = world.on_root(find, folder)
    found = source.run_in_parallel(world, [partial(scan_case, path) for path in paths])
    defects = [defect for _, wrong in found for defect in wrong]
    source.report_defects([*defects, *find_repeated_numbers(paths)], folder, world, skip_damaged)
    sound = [(path, arrays) for path, (arrays, wrong) in zip(paths, found, strict=True) if not wrong]
    training, evaluation = split_cases(sound, lambda case: number_of(case[0]))
    parts = [_part("training", training), _part("evaluation", evaluation, grows=False)]
    arrays = {array.path: array for _, of_case in sound for array in of_case}
    return CaseFiles(source.usable_parts(parts, folder, world), arrays)


def find_repeated_numbers(images: Sequence[Path]) -> list[Defect]:
    """Find cases whose number also occurs in another file name."""
    numbers = Counter(number_of(image) for image in images)
    return [
        Defect(image.name, "has the same number as another case") for image in images if numbers[number_of(image)] > 1
    ]


def number_of(image: Path) -> int:
    """Return the number of a case, as the trainer reads it from the name; -1 if there is none."""
    match = _NAME.fullmatch(image.name)
    return int(match[1]) if match else -1


def case_file(image: Path, kind: str) -> Path:
    """Return the file of the same case with the suffix `kind`, "x" or "y"."""
    return image.with_name(image.name.removesuffix("_x.npy") + f"_{kind}.npy")


def scan_case(image: Path) -> tuple[list[NpyFile], list[Defect]]:
    """Read the headers and the labels of a case; return its arrays and defects."""
    arrays: list[NpyFile] = []
    defects: list[Defect] = []
    if not _NAME.fullmatch(image.name):
        return arrays, [Defect(image.name, "has no case number before _x in its name")]
    for kind, dtype in SUFFIXES.items():
        path = case_file(image, kind)
        array = read_header(path) if path.exists() else "is missing"
        what = array if isinstance(array, str) else describe_array_defect(array, dtype)
        if what:
            defects.append(Defect(path.name, what))
        elif not isinstance(array, str):
            arrays.append(array)
    if not defects and arrays[0].shape != arrays[1].shape:
        defects.append(Defect(arrays[1].path.name, f"has shape {arrays[1].shape}, but the image has {arrays[0].shape}"))
    if not defects and (what := describe_label_defect(arrays[1])):
        defects.append(Defect(arrays[1].path.name, what))
    return arrays, defects


def describe_array_defect(array: NpyFile, dtype: str) -> str:
    """Describe why the trainer would refuse an array; empty if it would not."""
    if array.dtype != dtype:
        return f"has dtype {np.dtype(array.dtype)}, not {np.dtype(dtype)}"
    if len(array.shape) != 4 or array.shape[0] != 1 or min(array.shape[1:]) < MIN_EDGE:
        return f"has shape {array.shape}, not (1, D, H, W) with edges of at least {MIN_EDGE}"
    return ""


def describe_label_defect(array: NpyFile) -> str:
    """Describe why the trainer would refuse the labels; empty if it would not."""
    largest, step = 0, 1 << 22
    for start in range(0, array.size, step):
        piece = source.read_bytes(array.path, len(array.header) + start, min(step, array.size - start))
        largest = max(largest, int(piece.max()))
    if largest > LABELS:
        return f"has label {largest}; allowed are 0 to {LABELS}"
    return "" if largest else "has only label 0"


def _part(name: str, cases: Sequence[tuple[Path, Sequence[NpyFile]]], *, grows: bool = True) -> DatasetPart:
    scans = [FileScan([0], [sum(array.size + len(array.header) for array in arrays)], [1]) for _, arrays in cases]
    return source.make_part(name, [path for path, _ in cases], scans, grows=grows)
