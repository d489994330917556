"""Drawing a dataset beside a reference: samples of a plan with another seed, which is never written."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.ledger import MANIFEST, DatasetManifest
from scimill.bench.formats import catalogue
from scimill.bench.formats.hdf5.read import workload_of
from scimill.bench.params import BenchGenerateConfig
from scimill.bench.pictures.data_plots import plot_data
from scimill.bench.similarity import store_samples
from scimill.bench.similarity.samples import DatasetSample, PlannedFile, is_store, list_files, take_sample
from scimill.config import Layer, build, parse_yaml, read_preset
from scimill.errors import ConfigError, InputError
from scimill.parallel.streams import campaign_stream
from scimill.parallel.world import World
from scimill.store.reader import Reader

PRESETS = "scimill.bench/presets"
SEED = 2**62  # of the reference; a dataset with this seed would be compared with itself
SIZES = {"imseg npy": 60 * 10**9, "imseg hdf5": 60 * 10**9, "bert tfrecord": 5 * 10**9, "dlrm text": 10**8}
"""Bytes to plan: some hundred cases, or a few files; less for text, whose lines must all be measured."""
USUAL_SIZE = 10**10


def plot(folder: Path, pictures: Path, preset: str | None) -> list[Path]:
    """Draw a dataset beside the distribution it was generated from, or a preset's.

    Raises
    ------
    InputError : the dataset is missing, damaged or of unknown format.
    StorageError : the pictures cannot be written.

    """
    stored, workload = read_configuration(folder)
    sample = take_sample(list_files(folder), campaign_stream(1, CAMPAIGN.number), str(folder))
    if workload:
        sample = dataclasses.replace(sample, form=f"{workload} hdf5")
    layers, name = ([read_preset(PRESETS, preset)], f"preset {preset}") if preset else _own_layers(stored, str(folder))
    return plot_data((folder.name, sample), (name, _sample_of(layers, sample.form)), pictures)


def read_configuration(path: Path) -> tuple[str | None, str]:
    """Return the configuration recorded in a dataset, None if there is none; and the workload of a store.

    Raises
    ------
    InputError : a store that holds no workload's data.

    """
    if not is_store(path):
        return DatasetManifest.read(path).config if (path / MANIFEST).exists() else None, ""
    with Reader.open(path) as reader:
        workload = workload_of(reader.layout)
        if not workload:
            raise InputError(
                "the store does not hold the data of a workload", where=str(path), allowed="imseg, bert, dlrm"
            )
        return str(reader.provenance["config"]), workload


def _sample_of(layers: Sequence[Layer], form: str) -> DatasetSample:
    """Sample the distribution that a configuration defines, in the workload and format `form`."""
    workload, kind = form.split()
    wanted = {"workload": workload, "format": kind, "size": SIZES.get(form, USUAL_SIZE), "seed": SEED}
    config = build(BenchGenerateConfig, [*layers, Layer("the reference", wanted)])
    random = campaign_stream(2, CAMPAIGN.number)
    if kind == "hdf5":
        records, fields = store_samples.sample_plan(config, config.size, random)
        return DatasetSample(form, {"store": np.array([config.size])}, records, fields)
    plan = catalogue.make_plan(config, config.size, World(None))
    return take_sample([PlannedFile(file) for file in plan.files], random, "the reference")


def _own_layers(text: str | None, where: str) -> tuple[list[Layer], str]:
    """Return the configuration that a dataset was generated with, or the usual one if it was not generated."""
    usual = [read_preset(PRESETS, "original")], "preset original"
    if text is None:
        return usual
    stored = parse_yaml(text, where)
    try:
        build(BenchGenerateConfig, [stored])
    except ConfigError:  # it was scaled, or made by another version
        return usual
    return [stored], "its configured distribution"
