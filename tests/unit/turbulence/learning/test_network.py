"""The correction network: halos, the band, training samples and loss."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from scimill.turbulence.learning.network import (
    CorrectionNetwork,
    CorrectionNetworkSpec,
    CorrectionTask,
    clear,
    in_band,
    limit_to_band,
)

POINTS = 24
SPEC = CorrectionNetworkSpec(
    hidden=(5, 4), activation="silu", points=POINTS, box=25.6, step=0.026, substeps=2, scheme="spectral",
    physics={"alpha": 1.0, "modified": True}, input_scale=(1.5, 2.5, 7.0), output_scale=(0.005, 0.03), band=(3.0, 8.0),
)  # fmt: skip
ORIGINAL = dataclasses.replace(SPEC, hidden=(64,) * 6, activation="relu")


@pytest.fixture
def model() -> CorrectionNetwork:
    torch.manual_seed(1)
    return CorrectionNetwork(SPEC).double().eval()


def states(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, POINTS, POINTS)).astype(np.float32)


def test_the_original_has_as_many_weights_as_published_for_three_fields_in_and_two_out() -> None:
    """185 857 with one input and one output field; 576 per further input, 577 per further output."""
    weights = sum(parameter.numel() for parameter in CorrectionNetwork(ORIGINAL).parameters())
    assert weights == 185_857 + 2 * 576 + 577
    assert ORIGINAL.radius == 7


def test_a_spec_survives_a_file() -> None:
    assert CorrectionNetworkSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_halos_give_any_part_what_the_whole_gives(model: CorrectionNetwork) -> None:
    """Convolutions with a periodic halo equal circular ones; a slab with the rows of its neighbours gets its part."""
    state, radius = torch.from_numpy(states(1)).double(), SPEC.radius
    assert radius == 3
    scale = torch.tensor(SPEC.output_scale).reshape(1, 2, 1, 1)
    with torch.no_grad():
        whole = model.normalised(state) * scale
        around = np.pad(state.numpy(), ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="wrap")
        np.testing.assert_allclose(model(torch.from_numpy(around)), whole, rtol=1e-12, atol=1e-15)
        slab = around[:, :, 10 : 10 + 7 + 2 * radius]
        np.testing.assert_allclose(model(torch.from_numpy(slab)), whole[:, :, 10:17], rtol=1e-12, atol=1e-15)


def test_each_layer_pads_periodically(model: CorrectionNetwork) -> None:
    """Compared with circular padding before every layer, as in the original."""
    state = torch.from_numpy(states(2)).double()
    x = state / torch.tensor(SPEC.input_scale).reshape(1, 3, 1, 1)
    for layer in model.body:
        if isinstance(layer, torch.nn.Conv2d):
            x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        x = layer(x)
    torch.testing.assert_close(model.normalised(state), x, rtol=1e-6, atol=1e-9)


def test_the_zero_model_corrects_nothing(model: CorrectionNetwork) -> None:
    clear(model)
    edge = 2 * SPEC.radius + 5
    assert not model(torch.randn(2, 3, edge, edge, dtype=torch.float64)).any()


# ---- the band ---------------------------------------------------------------------------------------------------


def wave(mx: int, my: int) -> np.ndarray:
    x = 2 * np.pi * np.arange(POINTS) / POINTS
    return np.cos(mx * x[:, None] + my * x[None, :] + 0.3)


@pytest.mark.parametrize(("mx", "my", "kept"), [
    (0, 0, False), (2, -2, False), (-2, 2, False), (3, 0, True), (0, 3, True), (-5, 6, True), (7, 0, True),
    (8, 0, False), (-6, 6, False),
])  # fmt: skip
def test_the_band_is_of_wave_numbers(mx: int, my: int, kept: bool) -> None:
    field = torch.from_numpy(wave(mx, my))
    found = limit_to_band(field, torch.from_numpy(in_band(POINTS, SPEC.band)))
    np.testing.assert_allclose(found, field if kept else 0 * field, atol=1e-14)


# ---- training ---------------------------------------------------------------------------------------------------


def pairs(n: int) -> dict[str, np.ndarray]:
    fields, corrections = states(n), 0.01 * states(n, 2)
    names = ("density", "vorticity", "potential")
    rows = {name: fields[:, number] for number, name in enumerate(names)}
    return rows | {f"{name}_correction": corrections[:, number] for number, name in enumerate(names[:2])}


def test_the_loss_is_that_of_the_band_in_units_of_its_scale() -> None:
    task, rows = CorrectionTask(SPEC, 1, [0, 0, 0]), pairs(3)
    with torch.no_grad():
        losses = task.losses(task.prepare(rows))
        inside = torch.from_numpy(in_band(POINTS, SPEC.band))
        given = torch.from_numpy(np.stack([rows[name] for name in ("density", "vorticity", "potential")], 1))
        for number, name in enumerate(("density", "vorticity")):
            wanted = torch.from_numpy(rows[f"{name}_correction"]).double() / SPEC.output_scale[number]
            found = task.model.normalised(given)[:, number].double()
            error = limit_to_band(found - wanted, inside)
            torch.testing.assert_close(losses[number].double(), (error**2).mean((1, 2)).sum(), rtol=1e-5, atol=0)


def test_a_network_that_knows_the_correction_has_no_loss() -> None:
    rows = pairs(1)
    task = CorrectionTask(SPEC, 1, [0])
    exact = torch.from_numpy(np.stack([rows[f"{n}_correction"] for n in ("density", "vorticity")], 1)).double()
    exact = exact / torch.tensor(SPEC.output_scale).reshape(1, 2, 1, 1)
    task.model.normalised = lambda state: exact  # type: ignore[method-assign]
    assert float(task.losses(task.prepare(rows)).sum()) < 1e-9


def test_samples_end_where_their_member_does() -> None:
    task = CorrectionTask(SPEC, 1, [0, 0, 0, 1, 1, 1, 1], span=3, advance=lambda state: state)
    assert [task.samples(block) for block in range(7)] == [1, 0, 0, 1, 1, 0, 0]


def test_an_unrolled_sample_goes_on_from_its_own_corrected_states() -> None:
    """Compared with a loop written out here, with a solver that halves the state."""
    span, seen = 3, []

    def advance(state: np.ndarray) -> np.ndarray:
        seen.append(state)
        return np.concatenate([state / 2, state[:1] + state[1:]])

    task, rows = CorrectionTask(SPEC, 1, [0] * span, span=span, advance=advance), pairs(span)
    with torch.no_grad():
        losses = task.losses(task.prepare(rows))
    scale = np.array(SPEC.output_scale).reshape(2, 1, 1)
    inside = in_band(POINTS, SPEC.band)
    truths = [np.stack([rows[n][k].astype(float) + rows[f"{n}_correction"][k] for n in ("density", "vorticity")])
              for k in range(span)]  # fmt: skip
    state = np.stack([rows[n][0] for n in ("density", "vorticity", "potential")]).astype(float)
    expected = np.zeros(2)
    for step in range(span):
        with torch.no_grad():
            raw = task.model.normalised(torch.from_numpy(state[None]).float())[0].double().numpy()
        found = np.fft.irfft2(np.fft.rfft2(raw) * inside)
        wanted = np.fft.irfft2(np.fft.rfft2((truths[step] - state[:2]) / scale) * inside)
        expected += ((found - wanted) ** 2).mean((1, 2)) / span
        corrected = state[:2] + found * scale
        if step < span - 1:
            np.testing.assert_allclose(seen[step], corrected, rtol=1e-5, atol=1e-6)
            state = np.concatenate([corrected / 2, corrected[:1] + corrected[1:]])
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-4)
    assert len(seen) == span - 1


def test_augmentation_maps_samples_to_equally_good_ones() -> None:
    """Shifting inputs and corrections together does not change the loss, since the network is the same everywhere."""
    task = CorrectionTask(SPEC, 1, [0])
    tensors = task.prepare(pairs(1))
    with torch.no_grad():
        before = task.losses(tensors)
        plain = CorrectionTask(SPEC, 1, [0], augmented=False)
        moved = [task.augment(tensors, np.random.default_rng(seed)) for seed in range(6)]
        differences = [float((task.losses(each) - before).abs().max() / before.max()) for each in moved]
    assert all(not torch.equal(each[0], tensors[0]) for each in moved)
    assert plain.augment(tensors, np.random.default_rng(1)) is tensors
    assert min(differences) < 1e-5  # shifts only; a reflected sample has another loss
    for each in moved:
        errors = [((wanted - given[:, :2]) ** 2).sum() for given, wanted in (each, tensors)]
        torch.testing.assert_close(*errors)


def test_no_rows_make_no_samples() -> None:
    task = CorrectionTask(SPEC, 1, [0, 0], span=2, advance=lambda state: state)
    empty = {name: values[:0] for name, values in pairs(1).items()}
    tensors = task.augment(task.prepare(empty), np.random.default_rng(1))
    assert [len(tensor) for tensor in tensors] == [0, 0]
