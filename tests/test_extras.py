"""Each extra brings all that its verbs need, and a verb that needs another names it."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import credibly
from workshop import jsonl, made_rows

PROJECT = Path(__file__).parent.parent
ALONE = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
"""
IMPORTS = """
from credibly import workflows
for module in sorted({*workflows._HOMES.values()} - {*workflows._EXTRAS}):
    workflows.imported(module)
"""
COMMANDS = """
from credibly.cli import main
for arguments in json.loads(sys.argv[2]):
    sys.argv = ["credibly", *arguments]
    main()
"""

pytestmark = pytest.mark.slow


def brought(requirements, known):
    """Add to the known packages what an installation of these requirements brings."""
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name not in known and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            known.add(name)
            brought(requires(name) or [], known)


def foreign_to(extra):
    """Return the modules that are installed here, and would not be with one extra alone."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own, extras = {"credibly"}, [extra]
    brought(project["dependencies"], own)
    for wanted in extras:
        listed = project["optional-dependencies"][wanted]
        extras += [name for one in map(Requirement, listed) if one.name == "credibly" for name in one.extras]
        brought(listed, own)
    places = packages_distributions().items()
    return sorted(module for module, names in places if not {canonicalize_name(name) for name in names} & own)


def alone(program, *commands):
    """Run a program where the packages of `train` alone are installed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(credibly.__file__).parents[1])}
    given = [json.dumps(foreign_to("train")), json.dumps([[str(part) for part in one] for one in commands])]
    call = [sys.executable, "-c", ALONE + program, *given]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def test_what_train_does_not_bring_is_known_by_the_project_itself():
    foreign = set(foreign_to("train"))
    assert {"onnxruntime", "onnx", "onnxscript", "fastapi", "uvicorn", "sklearn"} <= foreign
    assert not {"torch", "transformers", "peft", "tokenizers", "matplotlib", "numpy", "credibly"} & foreign


def test_every_verb_that_train_brings_is_imported_with_it_alone():
    done = alone(IMPORTS)
    assert done.returncode == 0, done.stderr


def test_train_alone_fits_predicts_evaluates_and_reports(tmp_path, fit_options):
    train, test = (jsonl(tmp_path / f"{n}.jsonl", made_rows(120, seed=n)) for n in range(2))
    run = tmp_path / "run"
    done = alone(
        COMMANDS,
        ("fit", train, "--output", run, *fit_options),
        ("predict", run, test),
        ("evaluate", run, test),
        ("report", run),
    )
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").is_file()
    assert len([line for line in done.stdout.splitlines() if line.startswith('{"id"')]) == 120


@pytest.mark.parametrize(
    ("verb", "options", "extra"),
    [("export", (), "export"), ("predict", ("-", "--runtime", "onnx"), "serve"), ("serve", (), "serve")],
)
def test_a_verb_that_needs_another_extra_names_it(fitted, verb, options, extra):
    done = alone(COMMANDS, (verb, fitted.run, *options))
    assert done.returncode == 1
    assert f'pip install "credibly[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr
