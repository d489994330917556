"""Saturated turbulence at c1 = 1 against hw2d's published levels: particle flux and energy.

    python benchmarks/turbulence_levels.py [--points 128] [--hyperviscosity 5e-5] [--end 1000] [--output levels.h5]

hw2d publishes, from 25 runs at 512² (k0 = 0.15, N = 3) averaged from t = 300: Γn 0.60 ± 0.05 and E 3.78 ± 0.29, where
the uncertainty is the spread within a run (README of the-rccg/hw2d). The spectral scheme needs fewer points for the
same flow; what hyperviscosity it is run with follows from its highest mode.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from goals import Goal, conclude

from scimill.turbulence.snapshots import open_snapshots

SETTLED = 300.0
PUBLISHED = {
    "particle_flux": (0.60, 0.05),
    "resistive_dissipation": (0.60, 0.05),
    "energy": (3.78, 0.30),
    "enstrophy": (13.2, 0.91),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--hyperviscosity", type=float, default=5e-5)
    parser.add_argument("--end", type=float, default=1000.0)
    parser.add_argument("--output", type=Path, default=Path("levels.h5"))
    given = parser.parse_args()
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
            goals.append(Goal(f"{name}, away from hw2d's", abs(float(values.mean()) - level), most=spread))
    return conclude(goals, {}, None)


def simulate(given: argparse.Namespace) -> None:
    flags = {
        "--preset": "hw2d", "--points": given.points, "--hyperviscosity": given.hyperviscosity,
        "--interval": 10.0, "--samples": 50, "--snapshots": round(given.end / 10),
    }  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    subprocess.run(["scimill", "turbulence", "simulate", str(given.output), "--overwrite", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
