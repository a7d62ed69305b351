"""Jobs for the tests of the worker."""

import sys


class Echo:
    def __init__(self, factor: float) -> None:
        sys.stdout.write("libraries print while loading\n")
        self._factor = factor

    def run(self, workload: str) -> dict[str, float]:
        sys.stdout.write("and while working\n")
        return {"rate": self._factor * float(workload)}


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no such model here")
