"""Exported corrections run in what simulations use: onnxruntime, libtorch, a database behind SmartRedis."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mpi import scimill
from redisai import StandIn, free_address
from scimill.errors import ConfigError, InputError, StorageError
from scimill.training.checkpoint import save_model
from scimill.turbulence.learning.export import export
from scimill.turbulence.learning.models import open_correction
from scimill.turbulence.learning.network import CorrectionNetwork, CorrectionNetworkSpec
from scimill.turbulence.learning.redis_model import RedisModel

SPEC = CorrectionNetworkSpec(
    hidden=(6, 5, 4), activation="silu", points=32, box=25.6, step=0.026, substeps=2, scheme="spectral",
    physics={"alpha": 1.0}, input_scale=(1.5, 2.5, 7.0), output_scale=(0.005, 0.03), band=(3.0, 10.0),
)  # fmt: skip
FORMS = {"torchscript": "model-script.pt", "onnx": "model.onnx"}
SLABS = ((32, 32), (11, 32), (1, 32))  # rows and columns without halos: one rank's, one of three's, one row


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the model of a run directory, with initial weights."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(4)
    network = CorrectionNetwork(SPEC)
    store = {"rows": 12, "path": "/data/corrections.h5", "seed": "1", "identity": "0123"}
    about = {"network": SPEC.to_dict(), "store": store, "environment": {"date": "2026-11-25"}}
    position = {"best_loss": 0.5, "best_epoch": 3}
    save_model(folder, {**about, "state": network.state_dict(), "position": position})
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    for form, name in FORMS.items():
        export(run, str(run / name), form, zero=False, overwrite=False)
    return run


def states(x: int, y: int, n: int = 1) -> np.ndarray:
    edge = 2 * SPEC.radius
    shape = (n, 3, x + edge, y + edge)
    scale = np.array(SPEC.input_scale).reshape(1, 3, 1, 1)
    return (scale * np.random.default_rng(5).normal(size=shape)).astype(np.float32)


def expected(run: Path, inputs: np.ndarray) -> np.ndarray:
    """Compute the outputs in float64 with PyTorch."""
    network = CorrectionNetwork(SPEC)
    network.load_state_dict(torch.load(run / "model.pt", weights_only=True)["state"])
    with torch.no_grad():
        outputs: np.ndarray = network.double()(torch.from_numpy(inputs).double()).numpy()
    return outputs


@pytest.mark.parametrize("name", [*FORMS.values(), "", "model.pt"])
def test_every_kind_of_model_gives_the_same_for_any_slab(exported: Path, name: str) -> None:
    correction = open_correction(str(exported / name))
    assert correction.spec == SPEC
    model = correction.model
    for slab in SLABS:
        for n in (1, 3):
            inputs = states(*slab, n)
            found, wanted = model(inputs), expected(exported, inputs)
            assert found.dtype == np.float32
            assert found.shape == (n, 2, *slab)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("form", FORMS)
def test_the_zero_model_gives_zeros(run: Path, tmp_path: Path, form: str) -> None:
    path = str(tmp_path / FORMS[form])
    assert "zero network" in export(run, path, form, zero=True, overwrite=False)
    correction = open_correction(path)
    assert correction.spec == SPEC
    assert not correction.model(states(7, 9)).any()


def test_an_existing_file_is_kept(exported: Path) -> None:
    path = exported / FORMS["onnx"]
    before = path.read_bytes()
    with pytest.raises(StorageError, match="the output already exists"):
        export(exported, str(path), "onnx", zero=True, overwrite=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", [*FORMS.values(), "model.pt"])
def test_no_damaged_model_is_used(exported: Path, tmp_path: Path, name: str) -> None:
    """Truncated, or with a flipped bit in a weight."""
    data = (exported / name).read_bytes()
    damaged = tmp_path / name
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        open_correction(str(damaged))
    weight = np.float32(torch.load(exported / "model.pt", weights_only=True)["state"]["body.2.weight"][0, 0, 0, 0])
    place = data.index(weight.tobytes())
    damaged.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
    with pytest.raises(InputError, match="it is damaged" if name == "model.pt" else "checksum"):
        open_correction(str(damaged))


def test_what_is_no_model_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_correction(str(tmp_path / "missing.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="damaged, or the file is not a model"):
        open_correction(str(tmp_path / "text.onnx"))
    content = torch.load(run / "model.pt", weights_only=True)
    content["network"]["campaign"] = "droplets"
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match="belongs to campaign droplets"):
        open_correction(str(tmp_path))


# ---- a database -------------------------------------------------------------------------------------------------

CLIENT = """
import sys, numpy as np
from scimill.parallel.world import launch, world
from scimill.turbulence.learning.models import open_correction

def run():
    ranks = world()
    correction = open_correction(sys.argv[1], ranks.rank)
    inputs = np.load(sys.argv[2])
    np.save(f"{sys.argv[3]}.{ranks.rank}.npy", correction.model(inputs[ranks.rank :: ranks.size]))
    correction.close()
    return 0

launch(run)
"""


@pytest.mark.needs("SmartRedis")
def test_a_database_corrects_every_rank(exported: Path, tmp_path: Path) -> None:
    """The real client on two ranks; each writes its own keys."""
    inputs = states(9, 32, 2)
    np.save(tmp_path / "inputs.npy", inputs)
    with StandIn() as server:
        address = f"redis://{server.address}/correction"
        export(exported, address, "torchscript", zero=False, overwrite=False)
        result = scimill(
            address, tmp_path / "inputs.npy", tmp_path / "out", ranks=2, program=(sys.executable, "-c", CLIENT)
        )
        assert result.returncode == 0, result
        keys = set(server.keys)
    for rank in range(2):
        wanted = expected(exported, inputs[rank::2])
        found = np.load(tmp_path / f"out.{rank}.npy")
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())
    assert keys >= {"correction", "correction.about", "correction.input.0", "correction.input.1"}


@pytest.mark.needs("SmartRedis")
def test_a_database_without_the_model_says_so() -> None:
    with StandIn() as server, pytest.raises(InputError, match="has no such model"):
        open_correction(f"redis://{server.address}/nothing")


@pytest.mark.needs("SmartRedis")
def test_no_database_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_CONN_TIMEOUT", "1")
    with pytest.raises(InputError, match="the request to the database failed"):
        RedisModel(f"redis://{free_address()}/model")


@pytest.mark.parametrize(
    "address", ["redis://host/model", "redis://host:1234", "redis://host:port/model", "redis:///m"]
)
def test_an_address_has_a_host_a_port_and_a_key(address: str) -> None:
    with pytest.raises(ConfigError, match="invalid address of a model"):
        RedisModel(address)


def test_missing_smartredis_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCIMILL_SMARTREDIS", str(tmp_path))
    with pytest.raises(ConfigError, match="SmartRedis is not installed"):
        RedisModel("redis://localhost:6379/model")


def test_a_database_takes_no_onnx(exported: Path) -> None:
    with pytest.raises(ConfigError, match="RedisAI cannot run onnx models"):
        export(exported, "redis://localhost:6379/model", "onnx", zero=False, overwrite=False)
