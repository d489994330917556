"""Tests of evaluation: recall, probes and rank agree with their definitions; embeddings come from the networks."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scimill import pictures
from scimill.config import Layer, build, read_preset
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import world
from scimill.sky import prepare
from scimill.sky.exchange.index import read_index, write_index
from scimill.sky.kernels import retrieval
from scimill.sky.learning import embed, evaluate, models, network, train
from scimill.sky.pair import pair
from scimill.sky.params import EmbedConfig, PairConfig, PrepareConfig, SceneConfig, SkyTrainConfig
from scimill.sky.scene import make_scene
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory
from unit.sky.command import call


def random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ---- measures ---------------------------------------------------------------------------------------------------


def test_recall_is_that_of_the_definition():
    queries = random(40, 6)
    candidates = queries + 1.5 * random(40, 6, seed=2)
    cosine = [[q @ c / np.linalg.norm(q) / np.linalg.norm(c) for c in candidates] for q in queries]
    place = [sorted(row, reverse=True).index(row[i]) for i, row in enumerate(cosine)]
    found = retrieval.recall(queries, candidates)
    assert 0 < found.at_1 < found.at_5 < 1
    assert found == pytest.approx((np.mean(np.array(place) < 1), np.mean(np.array(place) < 5), 40))
    assert found.over_chance(1) == pytest.approx(found.at_1 * 40)
    assert found.over_chance(5) == pytest.approx(found.at_5 * 8)


@pytest.mark.parametrize("others", [np.ones((50, 4)), np.zeros((50, 4))])
def test_embeddings_that_are_all_the_same_have_the_recall_of_chance(others):
    assert retrieval.recall(others, others) == pytest.approx((0.02, 0.1, 50))


def test_recall_of_all_rows_does_not_depend_on_how_they_are_cut(monkeypatch):
    queries, candidates = random(40, 6), random(40, 6, seed=2)
    whole = retrieval.recall(queries, candidates)
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    assert retrieval.recall(queries, candidates) == whole


def test_probes_find_what_is_there_and_nothing_where_there_is_nothing():
    features = random(400, 12)
    label = features @ random(12, seed=3) + 5
    noise = random(400, seed=4)
    for probe in (retrieval.neighbours, retrieval.ridge):
        assert retrieval.r_squared(probe(features[:300], label[:300], features[300:]), label[300:]) > 0.4
        assert retrieval.r_squared(probe(features[:300], noise[:300], features[300:]), noise[300:]) < 0.1
    assert retrieval.r_squared(retrieval.ridge(features[:300], label[:300], features[300:]), label[300:]) > 0.99
    wide = random(20, 60)  # more features than samples
    assert np.isfinite(retrieval.ridge(wide, wide[:, 0], wide)).all()
    assert np.isnan(retrieval.r_squared(np.ones(3), np.ones(3)))


def test_effective_rank_has_the_published_values():
    # RankMe of an identity matrix, of a single direction, and of Gaussian numbers
    assert retrieval.effective_rank(retrieval.spectrum(np.eye(32))) == pytest.approx(32, abs=0.01)
    assert retrieval.effective_rank(retrieval.spectrum(np.outer(random(100), random(32)))) == pytest.approx(1, abs=1e-3)
    assert retrieval.effective_rank(retrieval.spectrum(random(1000, 32))) == pytest.approx(31.87, abs=0.05)


# ---- a small run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment, its stores, and a short training run."""
    folder = tmp_path_factory.mktemp("run")
    small = {"frames": 48, "rgb_height": 32, "thermal_height": 12, "field_size": 128, "interval": 3600}
    make_scene(build(SceneConfig, [Layer("test", small)]), Output(folder / "c"), world())
    table = folder / "c/nodes-aligned.csv"
    write_index(pair(build(PairConfig, []), folder / "c", table, None, world()).pairs, folder / "i.csv")
    for name in ("s", "shuffled"):
        values = {"rgb_height": 24, "rgb_width": 32, "block_size": 8, "shuffled": name == "shuffled"}
        config = build(PrepareConfig, [Layer("test", values)])
        assert prepare.prepare(config, folder / "i.csv", table, Output(folder / f"{name}.h5"), world())
    layer = {
        "rgb_width": 4, "thermal_width": 4, "projector": (16, 8), "batch_size": 16, "epochs": 1, "time_block": "1h",
        "test_share": 0.4, "held_out_nodes": "W02D", "threads": 1,
    }  # fmt: skip
    config = build(SkyTrainConfig, [read_preset("scimill.sky/presets/train", "small"), Layer("test", layer)])
    assert train.train_network(config, folder / "s.h5", RunDirectory(folder / "run"), world())
    return folder


def embed_all(run: Path, output: Path, store: str = "s", **values: Any) -> evaluate.Columns:
    config = build(EmbedConfig, [Layer("test", values)])
    assert embed.embed_store(config, run / "run", run / f"{store}.h5", Output(output), world())
    return evaluate.read_embeddings(output)


def test_embeddings_are_the_networks_own_and_know_what_training_has_seen(run, tmp_path):
    columns = embed_all(run, tmp_path / "e.h5")
    model, content, _ = models.load_model(run / "run")
    with Reader.open(run / "s.h5") as reader:
        rows = {name: reader.rows(3, name) for name in ("rgb", "thermal", "node", "time")}
    expected = network.embed(model, rows["rgb"], rows["thermal"])
    for name, values in expected.items():
        assert np.array_equal(columns[name][24:32], values)
    assert np.array_equal(columns["time"][24:32], rows["time"])
    is_w056 = columns["node"] == b"W056"
    assert set(columns["role"][~is_w056]) == {embed.OTHER_NODE}
    for name, code in (("train", embed.TRAIN), ("validation", embed.VALIDATION), ("test", embed.TEST)):
        in_blocks = np.isin(np.arange(len(is_w056)) // 8, content["split"][name])
        assert set(columns["role"][is_w056 & in_blocks]) == {code}
    assert set(embed_all(run, tmp_path / "o.h5", "shuffled")["role"]) == {embed.OTHER_NODE, embed.OTHER_STORE}
    with pytest.raises(ConfigError, match="model_identity"):
        embed_all(run, tmp_path / "x.h5", model_identity="other")


def test_the_command_says_what_it_would_embed_and_refuses_what_is_no_model(run, tmp_path, capsys):
    call("embed", run / "run", run / "s.h5", tmp_path / "e.h5", "--dry-run")
    assert "widths" in capsys.readouterr().out
    with pytest.raises(InputError):
        call("embed", run / "s.h5", run / "s.h5", tmp_path / "e.h5")
    assert list(tmp_path.iterdir()) == []


def test_sets_that_training_has_not_seen_are_judged(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "DPI", 60)
    columns = embed_all(run, tmp_path / "e.h5")
    found = evaluate.evaluate(tmp_path / "e.h5", run / "c/truth.csv")
    assert [j.name for j in found] == ["test", "validation", "other node"]
    codes = (embed.TEST, embed.VALIDATION, embed.OTHER_NODE)
    assert [j.pairs for j in found] == [int((columns["role"] == code).sum()) for code in codes]
    assert set(found[0].probes) == {"sun elevation", "cover", "cloud_base", "air_temperature"}
    test = columns["role"] == embed.TEST
    recall = retrieval.recall(columns["rgb_embedding"][test], columns["thermal_embedding"][test])
    assert found[0].to_thermal == recall
    assert found[0].deviation["rgb"] == pytest.approx(columns["rgb_embedding"][test].std(0).mean())
    paths = evaluate.write_evaluation(found, tmp_path / "pictures")
    assert [entry["set"] for entry in json.loads(paths[0].read_text())] == [j.name for j in found]
    assert paths[1].stat().st_size > 10_000
    assert "times chance" in evaluate.describe_results(found)


def test_labels_are_those_of_the_pairs(run, tmp_path):
    columns = embed_all(run, tmp_path / "e.h5")
    labels = evaluate.read_truth(run / "c/truth.csv", columns)
    with (run / "c/truth.csv").open(newline="") as file:
        known = {(int(row["timestamp"]), row["vsn"]): float(row["cover"]) for row in csv.DictReader(file)}
    wanted = [known[int(t), n.decode()] for t, n in zip(columns["time"], columns["node"], strict=True)]
    assert labels["cover"].tolist() == wanted
    (tmp_path / "few.csv").write_text("timestamp,vsn,cover\n1,W056,0.5\n")
    with pytest.raises(InputError, match="no row for timestamp"):
        evaluate.read_truth(tmp_path / "few.csv", columns)
    with pytest.raises(InputError, match="sky embed"):
        evaluate.read_embeddings(run / "s.h5")


def test_shuffled_pairs_are_pairs_of_no_instant(run):
    pairs = read_index(run / "i.csv")
    mixed = prepare.shuffle_pairs(pairs, 1)
    assert sorted(p.thermal for p in mixed) == sorted(p.thermal for p in pairs)
    assert [p.rgb for p in mixed] == [p.rgb for p in pairs]
    assert all(one.thermal != other.thermal for one, other in zip(mixed, pairs, strict=True))


def test_what_was_seen_all_cannot_be_judged(run, tmp_path, monkeypatch):
    embed_all(run, tmp_path / "e.h5")
    monkeypatch.setattr(evaluate, "FEWEST", 1000)
    with pytest.raises(ConfigError, match="has not seen"):
        evaluate.evaluate(tmp_path / "e.h5", None)
