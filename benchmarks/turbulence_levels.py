"""Compare particle flux and energy of saturated turbulence at c1 = 1 with hw2d's published levels.

hw2d publishes averages of 25 runs at 512² (k0 = 0.15, N = 3) from t = 300 on: Γn 0.60 ± 0.05 and E 3.78 ± 0.29, where
the uncertainty is the spread within a run (README of the-rccg/hw2d). The spectral scheme needs fewer points for the
same flow; its hyperviscosity is set by its highest mode.
"""

import argparse
import sys
from pathlib import Path

import harness

from scimill.turbulence.snapshots import open_snapshots

RESULTS = Path("results")
SETTLED = 300.0
PUBLISHED = {
    "particle_flux": (0.60, 0.05),
    "resistive_dissipation": (0.60, 0.05),
    "energy": (3.78, 0.30),
    "enstrophy": (13.2, 0.91),
}


def main() -> int:
    given = harness.parse(
        __doc__,
        harness.Option("points", 128, 64, "points along each axis"),
        harness.Option("hyperviscosity", 5e-5, 5e-4, "hyperviscosity"),
        harness.Option("end", 1000.0, 320.0, f"time at which the run ends, later than {SETTLED:g}"),
        harness.Option(
            "output", RESULTS / "levels.h5", RESULTS / "levels-quick.h5", "file of the run, which is overwritten"
        ),
    )
    given.output.parent.mkdir(parents=True, exist_ok=True)
    simulate(given)
    with open_snapshots(given.output) as store:
        times = store.diagnostics("time")
        rows = {name: store.diagnostics(name)[times >= SETTLED] for name in PUBLISHED}
    goals = []
    print(f"{given.points}², hyperviscosity {given.hyperviscosity:g}, t = {SETTLED:g} … {given.end:g}")
    for name, (level, spread) in PUBLISHED.items():
        values = rows[name]
        print(f"{name:<22} {values.mean():8.3f} ± {values.std():.3f}   hw2d {level:g} ± {spread:g}")
        if name in ("particle_flux", "energy"):
            goals.append(
                harness.Goal(f"{name}: difference from hw2d's", abs(float(values.mean()) - level), most=spread)
            )
    return harness.conclude(goals, {}, given.json)


def simulate(given: argparse.Namespace) -> None:
    flags = {
        "--preset": "hw2d", "--points": given.points, "--hyperviscosity": given.hyperviscosity,
        "--interval": 10.0, "--samples": 50, "--snapshots": round(given.end / 10),
    }  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    harness.run_scimill("turbulence", "simulate", given.output, "--overwrite", *words)


if __name__ == "__main__":
    sys.exit(main())
