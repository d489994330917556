"""Print the licences of all Debian and Python packages of this image."""

import importlib.metadata
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

LICENCE_FILE = re.compile(r"dist-info.*(licen[cs]e|copying|notice|copyright|authors)", re.IGNORECASE)


def debian_packages() -> Iterator[tuple[str, str]]:
    """Yield name with version, and licence, of each installed Debian package."""
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        copyright_file = Path("/usr/share/doc") / line.split()[0] / "copyright"
        found = copyright_file.exists()
        yield f"{line} (Debian)", copyright_file.read_text("utf-8", "replace") if found else "not in the package"


def python_packages() -> Iterator[tuple[str, str]]:
    """Yield name with version, and licence, of each installed Python package."""
    for package in sorted(importlib.metadata.distributions(), key=lambda each: each.name.lower()):
        named = [package.metadata.get(key, "") for key in ("License-Expression", "License")]
        named += [each for each in package.metadata.get_all("Classifier") or [] if each.startswith("License")]
        files = [file for file in package.files or () if LICENCE_FILE.search(str(file)) and ".py" not in file.suffix]
        texts = [Path(str(file.locate())).read_text("utf-8", "replace") for file in files if file.locate().is_file()]
        yield f"{package.name} {package.version} (Python)", "\n".join([*filter(None, named), *texts])


if __name__ == "__main__":
    for packages in (python_packages(), debian_packages()):
        for title, text in packages:
            print(f"{'=' * 80}\n{title}\n{'=' * 80}\n{text.strip()}\n")
