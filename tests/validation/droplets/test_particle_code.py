"""The particle code in the documentation compiles with the exported module, and gives the network's results."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from needs import require
from scimill.config import Layer, build
from scimill.droplets.learning.fortran import make_module
from scimill.droplets.learning.network import DropletNetwork, predict
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

PAGE = Path(__file__).parents[3] / "docs/droplets-in-models.md"
STRICT = ("-std=f2008", "-Wall", "-Wextra", "-pedantic", "-Werror")
STEPS, N, DT = 3, 40, 0.5
MAIN = """
program main
  use, intrinsic :: iso_fortran_env, only: real64
  use droplet_network, only: droplets_in_range, predict_droplets
  implicit none
  interface
    subroutine step_droplets(n, dt, radius, temperature, salt, air_temperature, humidity, air_density, outside)
      import :: real64
      integer, intent(in) :: n
      real(real64), intent(in) :: dt, salt(n), air_temperature(n), humidity(n), air_density(n)
      real(real64), intent(inout) :: radius(n), temperature(n)
      integer, intent(out) :: outside
    end subroutine step_droplets
  end interface
  integer, parameter :: n = {n}
  real(real64), parameter :: dt = {dt}
  real(real64) :: x(n, 6), new_radius(n), new_temperature(n)
  integer :: step, outside, unit

  open (newunit=unit, file="x.bin", access="stream", form="unformatted", status="old")
  read (unit) x
  close (unit)
  open (newunit=unit, file="y.bin", access="stream", form="unformatted", status="replace")
  do step = 1, {steps}
    associate (radius => x(:, 1), temperature => x(:, 2), salt => x(:, 3), air_temperature => x(:, 4), &
               humidity => x(:, 5), air_density => x(:, 6))
{arrays}
      print '(i0)', outside
      call step_droplets(n, dt, radius, temperature, salt, air_temperature, humidity, air_density, outside)
      print '(i0)', outside
      write (unit) radius, temperature, new_radius, new_temperature
    end associate
  end do
end program main
"""


@pytest.fixture(scope="module")
def model() -> DropletNetwork:
    torch.manual_seed(1)
    config = build(DropletsTrainConfig, [Layer("test", {"hidden": [8, 8]})])
    data = build(DropletsGenerateConfig, [Layer("test", {"count": 1})])
    return DropletNetwork(make_spec(config, data)).double().eval()


@pytest.fixture
def start(model: DropletNetwork) -> np.ndarray:
    """Droplets of which the first two are too large, (N, 6)."""
    low, high = np.array(model.spec.ranges[:6]).T
    x = np.random.default_rng(1).uniform(size=(N, 6))
    x = np.where(high / low > 5, low * (high / low) ** (0.3 + 0.4 * x), low + (high - low) * (0.3 + 0.4 * x))
    x[:2, 0] = 0.1
    return np.asarray(x)


@pytest.mark.parametrize("flags", [(), ("-fopenmp",)], ids=str)
def test_the_documented_particle_code_gives_the_results_of_the_network(
    flags: tuple[str, ...], model: DropletNetwork, start: np.ndarray, tmp_path: Path
) -> None:
    require("gfortran")
    loop, arrays, *_ = re.findall(r"```fortran\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "droplet_network.f90"
    path.write_text(make_module(model, path, {"made": "for a test"}))
    (tmp_path / "particles.f90").write_text(loop)
    (tmp_path / "main.f90").write_text(MAIN.format(n=N, dt=f"{DT}_real64", steps=STEPS, arrays=arrays))
    start.T.tofile(tmp_path / "x.bin")
    sources = (path.name, "particles.f90", "main.f90")
    done = subprocess.run(
        ["gfortran", *STRICT, "-O1", *flags, *sources, "-o", "main"], check=False, cwd=tmp_path, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run("./main", check=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    found, x = np.fromfile(tmp_path / "y.bin").reshape(STEPS, 2, 2, N), start
    outside = []
    for step in range(STEPS):
        inputs = np.concatenate([x, np.full((N, 1), DT)], 1)
        outside += 2 * [N - int(model.in_range(torch.from_numpy(inputs)).sum())]
        x = np.concatenate([predict(model, inputs), x[:, 2:]], 1)
        for way in (0, 1):  # loop, arrays
            np.testing.assert_allclose(found[step, way].T, x[:, :2], rtol=1e-10)
    assert outside[0] == 2
    assert done.stdout.split() == list(map(str, outside))
    marks = [int(mark) for mark in re.findall(r"! (\d)$", loop, re.MULTILINE)]
    assert marks == list(range(1, 10))
