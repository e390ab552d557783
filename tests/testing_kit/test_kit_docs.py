"""The pages about the kit are complete, and the code on them runs as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genxai_core import testing
from genxai_core.component import KINDS
from genxai_core.testing import ComponentTests

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs/reference/testing.md").read_text()
GUIDE = (ROOT / "docs/how-to/test-your-plugin.md").read_text()
CLASSES = [getattr(testing, n) for n in testing.__all__ if n.endswith("Tests")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_check_is_on_the_page_as_its_docstring_says(cls):
    for name in [n for n in dir(cls) if n.startswith("test_")]:
        said = " ".join(getattr(cls, name).__doc__.split()).replace("``", "`")
        assert f"| `{name}` | {said} |" in REFERENCE, name


def test_no_check_is_on_the_page_that_there_is_not():
    documented = set(re.findall(r"^\| `(test_\w+)`", REFERENCE, re.MULTILINE))
    assert documented == {n for cls in CLASSES for n in dir(cls) if n.startswith("test_")}


def test_every_kind_and_every_public_name_is_on_the_page():
    assert {cls.kind for cls in CLASSES if cls is not ComponentTests} == set(KINDS)
    for name in testing.__all__:
        assert re.search(rf"`{name}\b", REFERENCE), name
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ExplanierTests'"):
        _ = testing.ExplanierTests


def test_every_trait_is_on_the_page():
    for cls in CLASSES:
        for name, value in vars(cls).items():
            hidden = name.startswith(("_", "test_")) or isinstance(value, property)
            internal = name in ("kind", "shapes", "inherited", "base", "answers", "new", "draw", "measured", "updated")
            if not hidden and not internal and not callable(value):
                assert re.search(rf"`{name}\b", REFERENCE), f"{cls.__name__}.{name}"


def blocks():
    return re.findall(r'^```python(?: title="[^"]*")?\n(.*?)^```$', GUIDE, re.DOTALL | re.MULTILINE)


def run(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.fixture
def desk(tmp_path):
    """A folder with every block of the guide as a file of tests, and the tutorial's plugin."""
    for i, block in enumerate(blocks()):
        (tmp_path / f"test_block_{i}.py").write_text(block)
    shutil.copy(ROOT / "examples/occlude.py", tmp_path)
    return tmp_path


def test_the_first_class_of_the_guide_runs_as_it_says(desk):
    done = run(desk, "test_block_0.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(outcomes(done.stdout)) == sum(outcomes(GUIDE)) > 20
    assert outcomes(done.stdout)[0] >= outcomes(GUIDE)[0]  # where there is a GPU, one more passes


def test_the_other_classes_of_the_guide_run(desk):
    done = run(desk, "--ignore", "test_block_0.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 xfailed" in done.stdout


def outcomes(text):
    """How many passed and how many were skipped."""
    return [int(n) for n in re.search(r"(\d+) passed, (\d+) skipped", text).groups()]
