"""Make traces of a simulation: droplets in changing air, integrated exactly, in the layout of RichterLab/NTLP's dumps.

36 bytes per record, little-endian: int32 particle, int32 status, then float32 time, radius, temperature, solute term,
air temperature, relative humidity and air density. A record has the state before the step, and the air of the step.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scimill.config import Layer, build, read_preset
from scimill.droplets import arguments
from scimill.droplets.kernels import solver
from scimill.droplets.params import DropletsGenerateConfig

Record = tuple[int, int, float, float, float, float, float, float, float]
"""particle, status, time, radius, temperature, solute term, air temperature, relative humidity, air density"""


def pack(records: Iterable[Record]) -> bytes:
    return b"".join(struct.pack("<2i7f", *record) for record in records)


def settings() -> solver.SolverSettings:
    layers = [read_preset("scimill.droplets/presets", "ntlp-2026"), Layer("test", {"count": 1})]
    return arguments.solver_settings(build(DropletsGenerateConfig, layers))


def simulate(particles: int, steps: int, dt: float, seed: int = 1) -> np.ndarray:
    """Simulate particles; return the fields of all records but particle and status, (steps, particles, 7)."""
    random = np.random.default_rng(seed)
    radius = 10 ** random.uniform(-6.3, -4.7, particles).astype("f4")
    solute = (10 ** random.uniform(-19, -17, particles)).astype("f4")
    air = np.float32(285) + random.normal(0, 1, particles).astype("f4")
    humidity = random.uniform(0.97, 1.01, particles).astype("f4")
    temperature, density = air.copy(), np.full(particles, 1.1, dtype="f4")
    made = np.empty((steps, particles, 7), dtype="f4")
    for step in range(steps):
        made[step] = np.stack([np.full(particles, step * dt), radius, temperature, solute, air, humidity, density], 1)
        droplets = np.stack([radius, temperature, solute, air, humidity, density])
        after = solver.solve(settings(), droplets, np.full((particles, 1), dt, dtype="f4"))
        radius, temperature = after[0][:, 0], after[1][:, 0]
        air = air + random.normal(0, 0.02, particles).astype("f4")
        humidity = np.clip(humidity + random.normal(0, 0.001, particles), 0.9, 1.015).astype("f4")
    return made


def write(path: Path, made: np.ndarray, status: int = 64, first: int = 0) -> None:
    """Write records in the order of the time steps, as a simulation does."""
    path.write_bytes(pack((first + number, status, *row) for step in made.tolist() for number, row in enumerate(step)))
