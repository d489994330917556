"""Generated datasets of every format, and the similarity of two of them."""

from collections.abc import Iterable
from pathlib import Path

from scimill.bench.generate import generate
from scimill.bench.params import BenchGenerateConfig, SimilarityConfig
from scimill.bench.similarity.compare import describe_similarity
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output

FORMATS = {"bert": ("bert", "tfrecord", "12MB"), "text": ("dlrm", "text", "4MB"),
           "bin": ("dlrm", "bin", "6MB"), "npz": ("dlrm", "npz", "12MB"), "npy": ("dlrm", "npy", "6MB"),
           "parquet": ("dlrm", "parquet", "6MB"), "imseg": ("imseg", "npy", "60MB")}  # fmt: skip


SMALLEST = {"bert": "600KB", "text": "200KB", "bin": "200KB", "npz": "200KB", "npy": "200KB", "parquet": "200KB",
            "imseg": "11MB"}  # fmt: skip


def make(path: Path, kind: str, seed: int = 1, size: str = "", **more: object) -> None:
    """Generate a dataset."""
    workload, form, usual = FORMATS[kind]
    values = {
        "workload": workload,
        "format": form,
        "size": size or usual,
        "seed": seed,
        "rows_per_file": 10_000,
        **more,
    }
    values |= {"depth_range": "128:150", "width_range": "128:150"} if kind == "imseg" else {}
    values |= {"instances_range": "1000:1300"} if kind == "bert" else {}
    generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(path), World(None))


def make_all(folder: Path, seeds: Iterable[int]) -> Path:
    """Generate each format with each seed."""
    for kind in FORMATS:
        for seed in seeds:
            make(folder / f"{kind}-{seed}", kind, seed)
    return folder


def compared(a: Path, b: Path, picture: Path | None = None) -> dict[str, float]:
    """Return the similarity of two datasets and its parts, as the command describes them."""
    lines = describe_similarity(SimilarityConfig(), a, b, picture).splitlines()
    rows = [line.split() for line in lines if not line.startswith(("  A", "  B"))]
    return {row[0]: float(row[1]) if row[1][0].isdigit() else 1.0 for row in rows}
