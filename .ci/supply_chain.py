"""Write what this product is made of: a bill of materials and the licences, and check that every file is hashed.

    python .ci/supply_chain.py --out DIR

DIR gets `sbom.cdx.json` (CycloneDX 1.5, from uv.lock) and `licences.txt` (what each installed package says of itself).
Exit status 1 where a locked file has no hash, or an installed package names no licence at all.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPORT = ["uv", "export", "--frozen", "--quiet", "--format", "cyclonedx1.5", "--all-groups", "--no-emit-project"]
_LONGEST = 80


def unhashed(lock: Path) -> list[str]:
    """Return the packages of a lock that have a file without a SHA-256."""
    packages = tomllib.loads(lock.read_text())["package"]
    fetched = [package for package in packages if "registry" in package["source"]]
    return [
        package["name"]
        for package in fetched
        for file in [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if not file.get("hash", "").startswith("sha256:")
    ]


def licence_of(package: metadata.Distribution) -> str:
    """Return what a package says of its licence: the expression, the classifiers, the old field, or its files."""
    fields = package.metadata
    classified = [line.split(" :: ")[-1] for line in fields.get_all("Classifier", []) if line.startswith("License ::")]
    written = (fields.get("License") or "").strip().splitlines()
    files = [Path(name).name for name in fields.get_all("License-File", [])]
    said = fields.get("License-Expression") or ", ".join(classified) or (written[0] if written else "")
    return (said or (f"see {', '.join(files)}" if files else ""))[:_LONGEST]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    export = subprocess.run(EXPORT, cwd=ROOT, capture_output=True, text=True, check=True)
    named = {part["name"] for part in json.loads(export.stdout)["components"]}
    (out / "sbom.cdx.json").write_text(export.stdout)
    packages = {package.name: package for package in metadata.distributions() if package.name}
    lines = {name: licence_of(package) for name, package in sorted(packages.items())}
    text = "".join(f"{name} {packages[name].version}: {said or 'UNKNOWN'}\n" for name, said in lines.items())
    (out / "licences.txt").write_text(text)
    problems = [f"{name} has a file without a hash" for name in unhashed(ROOT / "uv.lock")]
    problems += [f"{name} names no licence" for name, said in lines.items() if not said and name.lower() in named]
    print(f"{len(named)} components, {len(lines)} licences in {out}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
