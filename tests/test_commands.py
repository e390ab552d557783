"""Commands that plugins add to the program: taken over, held to its conventions, and never in another one's way."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from genxai_core.cli import app
from genxai_core.plugins import PluginHost

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/plugins.md"

GREET = """
from genxai_core import hookimpl
from genxai_core.errors import TrainingDiverged

@hookimpl
def genxai_commands(app):
    import typer
    from genxai_core.cli import Json, put, put_json, say

    @app.command()
    def greet(name: str, as_json: Json = False, code: int = 0) -> None:
        '''Greet somebody.'''
        say(f"greeting {name}")
        if name == "nobody":
            raise TrainingDiverged("there is nobody\\nto greet")
        if name == "zero":
            1 / 0
        put_json({"hello": name}) if as_json else put(f"hello {name}")
        raise typer.Exit(code)
"""

COMPONENT = """
from genxai_core import Component
@hookimpl
def genxai_components():
    return [Component("dataset", "beside", "fake_target:Beside", "a component beside a command")]
"""


def adds(*names: str, says: str) -> str:
    """The source of a plugin that adds commands which print a text."""
    added = "\n".join(f"    app.command({name!r})(command)" for name in names)
    return (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_commands(app):\n"
        f"    def command() -> None:\n        'Say who I am.'\n        print({says!r})\n{added}\n"
    )


@pytest.fixture
def installed(tmp_path, genxai):
    """Make distributions that look installed and return the program that sees them: ``installed(name=source)``."""

    def make(**sources: str):
        folder = tmp_path / "site"
        for name, source in sources.items():
            info = folder / f"{name}-9.9.dist-info"
            info.mkdir(parents=True)
            (folder / f"{name}_fake.py").write_text(source)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
            (info / "entry_points.txt").write_text(f"[genxai]\nfake = {name}_fake\n")
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        return lambda *arguments, **environment: genxai(*arguments, PYTHONPATH=path, **environment)

    return make


# -- what a command may count on --------------------------------------------------------------------------------


def test_a_plugins_command_is_one_of_the_programs(installed):
    genxai = installed(polite=GREET)
    assert re.search(r"^ *greet +Greet somebody\.$", genxai("--help", check=True).stdout, re.MULTILINE)
    assert "--code" in genxai("greet", "--help", check=True).stdout
    done = genxai("greet", "Ada", check=True)
    assert (done.stdout, done.stderr) == ("hello Ada\n", "greeting Ada\n")
    assert json.loads(genxai("greet", "Ada", "--json", check=True).stdout) == {"hello": "Ada"}


def test_it_keeps_the_programs_exit_codes_and_one_line_errors(installed):
    genxai = installed(polite=GREET)
    done = genxai("greet", "nobody")
    assert done.returncode == 4
    assert done.stderr == "greeting nobody\nerror: there is nobody to greet\n"
    done = genxai("greet", "nobody", "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"] == {"type": "TrainingDiverged", "message": "there is nobody\nto greet"}
    done = genxai("greet", "zero")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError" in genxai("--traceback", "greet", "zero").stderr.partition("Traceback")[2]
    assert genxai("greet").returncode == 2
    assert genxai("greet", "Ada", "--code", "3").returncode == 3


def test_groups_of_commands_are_taken_over_and_a_callback_is_not(installed):
    source = (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_commands(app):\n"
        "    import typer\n    inner = typer.Typer(help='Two of them.')\n"
        "    inner.command('one')(lambda: print('one'))\n    inner.command('two')(lambda: print('two'))\n"
        "    app.add_typer(inner, name='both')\n    app.callback()(lambda: print('called back'))\n"
    )
    genxai = installed(grouped=source)
    assert genxai("both", "two", check=True).stdout == "two\n"
    assert "Two of them." in genxai("--help", check=True).stdout


def test_a_switched_off_plugin_adds_no_command(installed):
    genxai = installed(polite=GREET)
    for off in ("polite", "all"):
        done = genxai("greet", "Ada", GENXAI_DISABLE_PLUGINS=off)
        assert done.returncode == 2
        assert "greet" in done.stderr


# -- one that is wrong is in nobody's way -----------------------------------------------------------------------

BROKEN = {
    "raises": ("    raise RuntimeError('boom\\nat once')", "RuntimeError: boom at once"),
    "raises after adding": ("    app.command('half')(lambda: None)\n    raise KeyError('x')", "KeyError: 'x'"),
    "exits": ("    raise SystemExit(0)", "SystemExit: 0"),
    "has a signature that no command can have": (
        "    def bad(x: 'Unknown') -> None: ...\n    app.command()(bad)",
        "NameError: name 'Unknown' is not defined",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_fails_there_is_named_and_breaks_nothing(installed, case):
    body, cause = BROKEN[case]
    source = f"from genxai_core import hookimpl\n@hookimpl\ndef genxai_commands(app):\n{body}\n"
    genxai = installed(broken=source + COMPONENT, polite=GREET)
    done = genxai("list", "--json", check=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"warning: plugin broken 9.9: its hook genxai_commands failed: {cause}")
    assert {"dataset/beside"} < {row["name"] for row in json.loads(done.stdout)}
    assert genxai("greet", "Ada", check=True).stdout == "hello Ada\n"
    assert genxai("half").returncode == 2
    strict = genxai("--version", GENXAI_STRICT="1")
    assert strict.returncode == 3
    assert strict.stderr.startswith(f"error: plugin broken 9.9: its hook genxai_commands failed: {cause}")


def test_the_doctor_shows_it(installed):
    genxai = installed(
        broken="from genxai_core import hookimpl\n@hookimpl\ndef genxai_commands(app): raise OSError('x')\n"
    )
    done = genxai("doctor", "--json")
    assert done.returncode == 3
    assert "plugin broken 9.9: its hook genxai_commands failed: OSError: x" in json.loads(done.stdout)["problems"]


def test_nobody_replaces_a_command(installed):
    """Neither the program's own nor another plugin's; the first in the alphabet has a name, and keeps its others."""
    genxai = installed(
        aaa=adds("shared", "first", says="I am aaa"), zzz=adds("list", "shared", "last", says="I am zzz")
    )
    done = genxai("list", check=True)
    assert "I am zzz" not in done.stdout
    assert done.stderr.splitlines() == [
        "warning: plugin zzz 9.9: its command 'list' is left out: genxai itself has one of that name",
        "warning: plugin zzz 9.9: its command 'shared' is left out: aaa has one of that name",
    ]
    for name, says in {"shared": "aaa", "first": "aaa", "last": "zzz"}.items():
        assert genxai(name, check=True).stdout == f"I am {says}\n"
    strict = genxai("first", GENXAI_STRICT="1")
    assert strict.returncode == 3
    assert strict.stderr.startswith("error: plugin zzz 9.9: its command 'list' is left out")


def test_the_command_line_of_one_call_is_not_the_next_ones():
    before = [command.name for command in app.registered_commands]
    host = PluginHost(entry_points=[])
    commands: dict[str, object] = {}
    host.add_commands(commands)
    assert (commands, host.problems) == ({}, [])
    assert [command.name for command in app.registered_commands] == before


# -- the page ---------------------------------------------------------------------------------------------------


def test_the_command_that_the_page_shows_works(installed):
    source = re.search(r'```python title="count\.py"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    genxai = installed(counting=source)
    told = json.loads(genxai("count", "--json", check=True).stdout)
    assert told["explanation"] >= 1
    lines = genxai("count", check=True).stdout.splitlines()
    assert lines == [f"{kind}: {told[kind]}" for kind in sorted(told)]
