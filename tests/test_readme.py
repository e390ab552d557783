"""The README's two commands are those that CI runs and that the tests know."""

from __future__ import annotations

import re


def commands(root) -> list[str]:
    return re.findall(r"```bash\n(.+?)\n```", (root / "README.md").read_text())


def test_ci_runs_the_test_command_of_the_readme(root):
    lines = (root / ".ci/run").read_text().splitlines()
    test_command = next(c for c in commands(root) if "pytest" in c)
    assert lines[-1] == test_command


def test_the_main_job_is_an_example_that_ci_runs(root):
    main = next(c for c in commands(root) if "genxai run" in c)
    pipeline = main.split("genxai run ")[1].split()[0]
    assert "# ci:" in (root / pipeline).read_text()
    assert "pip install -q . ./plugins/*" in main


def test_the_plugin_table_names_every_distribution(root):
    text = (root / "README.md").read_text()
    for folder in sorted((root / "plugins").iterdir()):
        assert f"`{folder.name}`" in text, folder.name


def test_requirements_install_every_distribution(root):
    text = (root / "requirements-dev.txt").read_text()
    for folder in sorted((root / "plugins").iterdir()):
        assert f"-e plugins/{folder.name}\n" in text, folder.name
