"""Compute features and embeddings of all pairs of a store with trained networks, into a new store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scimill import config as configuration
from scimill.campaign import describe_plan
from scimill.errors import ConfigError
from scimill.parallel.world import World
from scimill.sky import CAMPAIGN, fields
from scimill.sky.learning.models import load_model
from scimill.sky.learning.network import SkyNetwork, embed, set_threads, widths
from scimill.sky.learning.train import split_names
from scimill.sky.params import EmbedConfig
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.verify import open_on_all_ranks
from scimill.store.writer import BlockData
from scimill.training.directory import describe_store

EMBED = "embed"
COPIED = ("time", "node", "position", "sun_elevation", "status")
TRAIN, VALIDATION, TEST, OTHER_NODE, OTHER_STORE = range(5)
ROLES = ("train", "validation", "test", "other node", "other store")
"""How training used a pair."""


def layout(model: SkyNetwork, source: Layout) -> Layout:
    """Make the layout of a store of embeddings."""
    named = {field.name: field for field in source.fields}
    made = [
        Field(name, "float32", "1", f"{kind} of the {camera} image", (width,))
        for (name, width), (camera, kind) in zip(widths(model).items(), MEANINGS, strict=True)
    ]
    role = Field("role", "uint8", "1", "what training knew of the pair: 0 train, 1 validation, 2 test, "
                 "3 a node held out, 4 another store", valid=(0, OTHER_STORE))  # fmt: skip
    return Layout(source.rows, source.block_rows, (*made, *(named[name] for name in COPIED), role))


MEANINGS = (
    ("colour", "features"), ("colour", "embedding"), ("thermal", "features"), ("thermal", "embedding"),
)  # fmt: skip


def embed_store(config: EmbedConfig, model_path: Path, store: Path, output: Output, world: World) -> bool:
    """Embed all pairs of a store; collective. Return False if the output was already complete.

    Raises
    ------
    InputError : the model or the store does not exist, or is of another kind.
    ScimillError : see `store.writer.open_writer`.

    """
    set_threads(config.threads)
    with open_on_all_ranks(store, world) as reader:
        with world.together():
            fields.require_sky(reader)
            reader.require_complete()
            model, content, identity = load_model(model_path)
            plan = _with_identities(config, identity, describe_store(reader)["identity"])
        made = layout(model, reader.layout)
        make_block = _block_maker(model, content, plan, reader)
        return CAMPAIGN.fill(plan, made, make_block, output, world, maker=EMBED, unit="pairs")


def _with_identities(config: EmbedConfig, model: str, store: str) -> EmbedConfig:
    """Add the identities of model and store to the configuration; given ones must match."""
    found = {"model_identity": model, "store_identity": store}
    for name, value in found.items():
        if getattr(config, name) not in ("", value):
            raise ConfigError(f"{name} does not match: it is {value}", where=f"flag --{name.replace('_', '-')}")
    return configuration.with_values(config, **found)


def _block_maker(
    model: SkyNetwork, content: Mapping[str, Any], config: EmbedConfig, reader: Reader
) -> Callable[[int], BlockData]:
    is_own = content["store"]["identity"] == config.store_identity
    role_of = {
        block: role
        for role, name in ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test"))
        for block in content["split"][name]
    }
    held_out = np.array([name.encode() for name in split_names(content["network"]["held_out_nodes"])], dtype="S8")

    def make(block: int) -> BlockData:
        rows = {name: reader.rows(block, name) for name in ("rgb", "thermal", *COPIED)}
        role = np.full(len(rows["time"]), role_of.get(block, TEST) if is_own else OTHER_STORE, dtype=np.uint8)
        role[np.isin(rows["node"], held_out)] = OTHER_NODE
        return BlockData({**embed(model, rows["rgb"], rows["thermal"]), **{n: rows[n] for n in COPIED}, "role": role})

    return make


def describe_embedding(model_path: Path, store: Path, output: Output) -> str:
    """Describe what embedding would do, for ``--dry-run``; see `campaign.describe_plan`."""
    model = load_model(model_path).model
    with Reader.open(store) as reader:
        fields.require_sky(reader)
        made = layout(model, reader.layout)
    sizes = ", ".join(f"{name} {width}" for name, width in widths(model).items())
    return describe_plan(output, made, {"pairs": f"{made.rows:,}", "widths": sizes})
