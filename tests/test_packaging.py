"""The wheel holds all of the package and nothing else, and works away from the repository."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import cnnsvm

ROOT = Path(__file__).parents[1]
BUILD = """
from setuptools.build_meta import build_wheel
build_wheel("dist", {"--build-option": ["--compression=stored"]})
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel made from a copy of the sources, unpacked."""
    copy, unpacked = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("unpacked")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("cnnsvm", "tests", "experiments", "examples", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (file,) = (copy / "dist").glob("cnnsvm-*-py3-none-any.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unpacked)
    return unpacked


def files(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    assert files(wheel / "cnnsvm") == files(ROOT / "cnnsvm")
    (info,) = wheel.glob("*.dist-info")
    assert {path.name for path in wheel.iterdir()} == {"cnnsvm", info.name}
    assert (info / "licenses/LICENSE").is_file()


def test_its_metadata_are_complete_and_have_no_relative_links(wheel):
    (file,) = wheel.glob("*.dist-info/METADATA")
    metadata = Parser().parsestr(file.read_text(encoding="utf-8"))
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier")
    assert "cnnsvm predict" in metadata.get_payload()
    assert not re.findall(r"\]\((?!https://)", metadata.get_payload())


def test_unpacked_elsewhere_its_command_runs(wheel, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    code = "import cnnsvm.cli; print(cnnsvm.__file__); cnnsvm.cli.main(['--version'])"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    place, version = run.stdout.splitlines()
    assert Path(place).is_relative_to(wheel)
    assert version == f"cnnsvm {cnnsvm.__version__}"


def test_a_container_is_built_of_files_that_are_there_and_not_ignored():
    recipe, compose, ignore = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("Dockerfile", "compose.yaml", ".dockerignore")
    )
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", recipe, re.MULTILINE)
    sources = {name for line in copied for name in line.split()}
    assert sources == set(re.findall(r"^!(.+)$", ignore, re.MULTILINE))
    assert all((ROOT / name).exists() for name in sources)
    given = set(re.findall(r"^        (\w+): ", compose, re.MULTILINE))
    assert given == set(re.findall(r"^ARG (\w+)", recipe, re.MULTILINE))
