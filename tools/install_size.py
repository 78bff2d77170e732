"""Prints what an environment's packages take on disk, the largest first: MB (10⁶ bytes) of what pip wrote.

Run it with the environment's own Python, after `pip install accmpeg`. pip and setuptools came with the
environment and are not counted. With `--limit MB` it fails where the sum is larger.
"""

import argparse
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

OF_THE_ENVIRONMENT = {"pip", "setuptools"}


def size_of(distribution: Distribution) -> tuple[int, int]:
    """Bytes of a distribution's files, and how many of these are bytecode."""
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    sizes = [(path.suffix == ".pyc", path.stat().st_size) for path in paths if path.is_file()]
    return sum(size for _, size in sizes), sum(size for bytecode, size in sizes if bytecode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=float, metavar="MB")
    limit = parser.parse_args().limit
    rows = [
        (*size_of(distribution), f"{distribution.name} {distribution.version}")
        for distribution in distributions()
        if distribution.name not in OF_THE_ENVIRONMENT
    ]
    rows.sort(reverse=True)
    total, bytecode = sum(row[0] for row in rows) / 1e6, sum(row[1] for row in rows) / 1e6
    for size, _, name in rows:
        print(f"{size / 1e6:7.1f} MB  {name}")
    print(f"{total:7.1f} MB  together, of which bytecode {bytecode:.1f}")
    if limit is not None and total > limit:
        sys.exit(f"the packages take more than {limit:g} MB")


if __name__ == "__main__":
    main()
