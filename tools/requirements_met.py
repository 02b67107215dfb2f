"""Exit code 0 if this Python has every dependency in pyproject.toml and the extras named as arguments, else 1.

The Makefile asks this before it calls pip, so an environment that is already complete (a container image, a shared
virtual environment) is used as it is.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    import tomllib  # Python 3.11
    from packaging.requirements import Requirement  # comes with lightning and pytest
except ImportError:
    sys.exit(1)


def main(extras: list[str]) -> int:
    """0 if all is there, else 1."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    wanted = list(map(Requirement, lines))
    own = [requirement for requirement in wanted if requirement.name == project["name"]]  # an extra that names others
    if nested := sorted({extra for requirement in own for extra in requirement.extras} - set(extras)):
        return main([*extras, *nested])
    return int(not all(is_met(requirement) for requirement in wanted if requirement not in own))


def is_met(requirement: Requirement) -> bool:
    """Whether an installed version satisfies the requirement, or its marker excludes this machine."""
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
