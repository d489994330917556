"""Print the SBOM of this image in CycloneDX's format: Python packages with the hashes of their locks, Debian packages.

It runs in an environment of its own, beside that of scimill, which holds cyclonedx-py and the locks.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

LOCKS = {"scimill": "https://pypi.org/simple", "torch-cpu": "https://download.pytorch.org/whl/cpu"}
"""Locks from which an image is installed, and the index that their files come from."""
DPKG = ("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n")

Component = dict[str, Any]


def read_output(*words: object) -> str:
    """Run a command; return what it prints."""
    return subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True).stdout


def run_tool(*words: object) -> dict[str, Any]:
    """Run cyclonedx-py; return the document that it prints."""
    tool = Path(sys.prefix) / "bin" / "cyclonedx-py"
    document: dict[str, Any] = json.loads(read_output(tool, *words, "--of", "JSON", "--no-validate"))
    return document


def key(component: Component) -> tuple[str, str]:
    """Return name and version as the locks have them."""
    return canonicalize_name(component["name"]), component["version"]


def locked() -> dict[tuple[str, str], Component]:
    """Return what the locks allow to be installed, with hashes, by name and version."""
    found = {}
    for name, index in LOCKS.items():
        document = run_tool("requirements", "--index-url", index, Path(sys.prefix) / "locks" / f"{name}.txt")
        found |= {key(each): each for each in document["components"] if "version" in each}
    return found


def add_hashes(components: list[Component]) -> None:
    """Give all packages but scimill itself the hashes of the locks; fail if one is not from there. Drop other links."""
    known = locked()
    for each in components:
        each["externalReferences"] = []
        if each["name"] != "scimill":
            if key(each) not in known:
                raise SystemExit(f"sbom.py: not from scripts/locks: {each['name']} {each['version']}")
            each["externalReferences"] = [link for link in known[key(each)]["externalReferences"] if "hashes" in link]
            each["purl"] = PackageURL("pypi", None, *key(each)).to_string()


def debian_packages() -> list[Component]:
    """Return the installed Debian packages."""
    system = platform.freedesktop_os_release()
    distribution = f"{system['ID']}-{system['VERSION_ID']}"
    found = []
    for state, name, version, processor in map(str.split, read_output(*DPKG).splitlines()):
        qualifiers = {"arch": processor, "distro": distribution}
        address = PackageURL("deb", system["ID"], name, version, qualifiers).to_string()
        if state == "installed":
            found.append({"type": "library", "name": name, "version": version, "purl": address, "bom-ref": address})
    return found


def main() -> None:
    """Print the document; fail if it is not valid."""
    document = run_tool("environment", "--output-reproducible", Path(sys.prefix).parent / ".venv" / "bin" / "python")
    python = document["components"]
    add_hashes(python)
    version = next(each["version"] for each in python if each["name"] == "scimill")
    document["metadata"]["component"] = {"type": "container", "name": "scimill", "version": version}
    document["components"] = python + debian_packages()
    text = json.dumps(document, indent=1)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem:
        raise SystemExit(f"sbom.py: {problem}")
    print(text)


if __name__ == "__main__":
    main()
