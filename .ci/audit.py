"""Asks the public vulnerability service about every installed package; says so when it cannot be reached.

    python .ci/audit.py

Exit code: 0 nothing known, 1 something is known, 3 the service could not be reached or knows none of the packages, so
nothing was checked beyond `.ci/check_floors.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys

ACCEPTED = {
    "CVE-2026-69112": "accelerate: path traversal in load_checkpoint_in_model and load_checkpoint_and_dispatch, which "
    "this package never calls; no fixed release when this was written",
}
"""Known and not reachable from here, with the reason; see docs/security.md."""


def main() -> int:
    """Runs pip-audit on this environment and returns the exit code."""
    words = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--timeout", "10", "--format", "json"]
    for identifier in ACCEPTED:
        words += ["--ignore-vuln", identifier]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    checked = [package for package in packages if "skip_reason" not in package]
    if not checked:
        reason = f"all {len(packages)} packages were skipped"
        if not packages:
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        sys.stderr.write(
            f"audit: NOT checked: the vulnerability service cannot be reached from here, or knows none of the packages "
            f"({reason[:200]}). Run `make audit` where it can.\n"
        )
        return 3
    found = [(package, flaw) for package in checked for flaw in package["vulns"]]
    for package, flaw in found:
        fixed = ", ".join(flaw["fix_versions"]) or "no release"
        sys.stdout.write(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}\n")
    skipped = len(packages) - len(checked)
    sys.stdout.write(f"audit: {len(checked)} packages checked, {skipped} skipped, {len(found)} known flaws\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
