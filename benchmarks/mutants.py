"""Change the source in small ways, one at a time, and see whether the tests notice.

    make mutants                       # or: python benchmarks/mutants.py --count 60 --seed 0

cosmic-ray finds all changes of one place (a number, a sign, a comparison, a branch) in ``methods``,
``priors`` and ``operators``; of these a random sample is tried in a copy of the repository under
``build/mutants``, each against the tests that name the changed module. What survives is listed in
``benchmarks/mutants.md``. Begun again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "mutants"
PACKAGES = ("methods", "priors", "operators")
HARMLESS = ("ReplaceBinaryOperator_BitOr_", "RemoveDecorator", "ExceptionReplacer")
"""Changes that are left out: those of ``A | B`` are mostly in annotations, and without a decorator
or with another exception a module mostly fails to load."""

USED_BY = {
    "steps": "tests/methods",
    "checkpoints": "tests/checkpoints",
    "onnx_model.py": "tests/checkpoints/test_onnx.py",
    "learned.py": "tests/contract/test_operators.py",
}
"""Tests of modules and packages that are used through others."""

CONFIG = """[cosmic-ray]
module-path = [{modules}]
timeout = 1500.0
excluded-modules = []
test-command = "{python} {script} --test"

[cosmic-ray.distributor]
name = "local"
"""


def tests_of(module: Path, tests: Path) -> list[str]:
    """Return the test files that name a module, those in its own folder first."""
    dotted = ".".join(module.with_suffix("").parts[1:])
    parent, _, name = dotted.rpartition(".")
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        text = path.read_text("utf-8")
        mentioned = dotted in text or (parent in text and f"import {name}" in text)
        own = path.stem == f"test_{name}"
        if mentioned or own:
            found.append((not own, path.stat().st_size, str(path)))
    others = [tests for part, tests in USED_BY.items() if part in module.parts]
    return [path for _, _, path in sorted(found)] + others


def run_tests() -> int:
    """Run the tests of the module that differs from the commit, in the copy."""
    changed = subprocess.run(
        ["git", "diff", "--name-only"], capture_output=True, text=True, check=True
    ).stdout.split()
    files = [file for module in changed for file in tests_of(Path(module), Path("tests"))]
    everywhere = ["tests/golden", "tests/contract", "tests/methods/test_figures.py"]
    environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *files, *everywhere], env=environment).returncode


def prepare(count: int, seed: int) -> Path:
    """Make the copy and the list of changes to try; return the file of the list."""
    from cosmic_ray.work_db import WorkDB, use_db

    copy, session = WORK / "copy", WORK / "session.sqlite"
    if session.exists():
        return session
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    modules = ", ".join(f'"src/pristina/{name}"' for name in PACKAGES)
    config = CONFIG.format(modules=modules, python=sys.executable, script=Path(__file__).resolve())
    (WORK / "config.toml").write_text(config)
    subprocess.run(
        [sys.executable, "-m", "cosmic_ray.cli", "init", "../config.toml", "../session.sqlite"],
        cwd=copy,
        check=True,
    )
    with use_db(str(session), WorkDB.Mode.open) as db:
        fit = [
            i for i in db.work_items if not any(h in i.mutations[0].operator_name for h in HARMLESS)
        ]
        fit.sort(
            key=lambda i: (
                str(i.mutations[0].module_path),
                i.mutations[0].start_pos,
                i.mutations[0].operator_name,
                i.mutations[0].occurrence,
            )
        )
        (WORK / "total").write_text(str(len(fit)))
        db.clear()
        db.add_work_items(random.Random(seed).sample(fit, min(count, len(fit))))
    return session


def report(session: Path, seed: int) -> str:
    """Return the table of what was tried."""
    from cosmic_ray.work_db import WorkDB, use_db

    rows: dict[str, list[int]] = {name: [0, 0] for name in PACKAGES}
    survivors = []
    with use_db(str(session), WorkDB.Mode.open) as db:
        results = dict(db.results)
        for item in db.work_items:
            result = results.get(item.job_id)
            if result is None:
                continue
            change = item.mutations[0]
            row = rows[change.module_path.parts[2]]
            row[0] += 1
            if not result.is_killed:
                row[1] += 1
                lines = (result.diff or "").splitlines()
                shown = [s for s in lines if s[:1] in "+-" and s[:3] not in ("+++", "---")]
                place = f"{change.module_path}:{change.start_pos[0]}"
                survivors.append((place, " → ".join(f"`{s[1:].strip()}`" for s in shown)))
    tried, alive = (sum(row[i] for row in rows.values()) for i in (0, 1))
    total = (WORK / "total").read_text()
    text = [
        "# Changes that no test notices",
        "",
        "One small change at a time in the source, against the tests that name the changed module,",
        "the golden numbers, the contracts and the figures of all methods. "
        f"{tried} of {total} possible changes",
        f"were tried (random sample, seed {seed}): `make mutants`.",
        "",
        "| | tried | survived | share |",
        "| --- | --- | --- | --- |",
        *(f"| `{n}` | {a} | {b} | {100 * b / max(a, 1):.0f} % |" for n, (a, b) in rows.items()),
        f"| all | {tried} | {alive} | {100 * alive / max(tried, 1):.0f} % |",
        "",
        "## Survivors",
        "",
        *(f"* `{place}`: {what}" for place, what in sorted(survivors)),
        "",
    ]
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="changes to try (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default 0)")
    parser.add_argument("--test", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.test:
        return run_tests()
    session = prepare(options.count, options.seed)
    command = [sys.executable, "-m", "cosmic_ray.cli", "exec", "../config.toml", str(session)]
    subprocess.run(command, cwd=WORK / "copy", check=True)
    text = report(session, options.seed)
    (ROOT / "benchmarks" / "mutants.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
