"""The command line: ``genxai list | info | check | run | report | doctor | schema | new-plugin``.

Exit codes: 0 done; 1 a step failed; 2 bad input (usage, file, parameter, data); 3 a component cannot be had;
4 training diverged; 130 interrupted. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import __version__, registry
from .component import KINDS
from .errors import GenxaiError, GenxaiWarning, one_line

if TYPE_CHECKING:
    from .pipeline.plan import Plan

app = typer.Typer(
    name="genxai",
    help="Explain generative models, and explain with them.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Kind = Literal["explainer", "generator", "discriminator", "metric", "trainer", "dataset"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(help="The pipeline's YAML file.", metavar="FILE")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value: steps.gan.with.steps=10")
]
Data = Annotated[list[Path] | None, typer.Option("--data", metavar="DIR", help="Let paths in the file point into DIR.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="Run this Python file and use its components.")
]
Cache = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Where results are kept.")]


def say(text: str = "") -> None:
    """Print a line for people, on standard error. Control characters, such as a file may hold, are spelt out."""
    sys.stderr.write(_shown(text) + "\n")


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def put(text: str) -> None:
    """Print a line of the result, on standard output. If its reader has gone (``| head``), the work goes on."""
    try:
        sys.stdout.write(_shown(text) + "\n")
    except BrokenPipeError:
        _reader_gone()


def _reader_gone() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to say, at exit neither


def put_json(value: Any) -> None:
    """Print JSON on standard output."""
    put(json.dumps(value, indent=2, ensure_ascii=False))


# -- what there is ----------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Option(help=f"Only this kind: {', '.join(KINDS)}.")] = None,
    as_json: Json = False,
) -> None:
    """List all components: installed, available, failed, of third parties."""
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"--kind {kind}: not one of {', '.join(KINDS)}")
    rows = [row for row in overview() if kind is None or row["kind"] == kind]
    for plugin in registry.default().host.plugins:
        if plugin.error is not None:
            said = one_line(plugin.error)
            say(f"warning: plugin {plugin.distribution} {plugin.version} failed to load: {said} (see 'genxai doctor')")
    if as_json:
        put_json(rows)
        return
    width = max([len(r["name"]) for r in rows], default=0)
    for each in dict.fromkeys(r["kind"] for r in rows):
        put(each + "s")
        for row in (r for r in rows if r["kind"] == each):
            put(f"  {_MARKS[row['status']]} {row['name']:{width}}  {row['summary']}{_aside(row)}")
    counts = {s: sum(r["status"] == s for r in rows) for s in _MARKS}
    put("\n" + ", ".join(f"{mark} {counts[status]} {status}" for status, mark in _MARKS.items() if counts[status]))


_MARKS = {"installed": "●", "third-party": "◆", "available": "○", "disabled": "–", "failed": "✗"}


def _aside(row: dict[str, Any]) -> str:
    return "" if row["status"] == "installed" else f"  [{row['status']}: {row['distribution']}]"


def overview() -> list[dict[str, Any]]:
    """Merge what the catalogue knows with what plugins provide: one row per component and provider."""
    known = registry.catalogue()
    state = registry.default()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for component, plugin in state.provided():
        own = component.full_name in known and known[component.full_name].distribution == plugin.distribution
        rows[component.full_name, plugin.distribution] = {
            "kind": component.kind,
            "name": component.full_name,
            "status": "installed" if own else "third-party",
            "distribution": plugin.distribution,
            "version": plugin.version,
            "summary": component.summary,
        }
    broken = {p.distribution: "failed" if p.error else "disabled" for p in state.host.plugins if p.error or p.disabled}
    for name, entry in known.items():
        rows.setdefault(
            (name, entry.distribution),
            {
                "kind": entry.kind,
                "name": name,
                "status": broken.get(entry.distribution, "available"),
                "distribution": entry.distribution,
                "version": None,
                "summary": entry.summary,
            },
        )
    return sorted(rows.values(), key=lambda r: (KINDS.index(r["kind"]), r["name"], r["distribution"]))


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Full name, such as explainer/cam.", metavar="NAME")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Describe a component: parameters with defaults and docs, paper, what it needs."""
    from .describing import describe

    _load(plugin)
    described = describe(name)
    if as_json:
        put_json(described)
        return
    put(f"{described['name']}  ({described['distribution']} {described['version']})\n{described['summary']}\n")
    if described["doc"]:
        put(described["doc"] + "\n")
    for title, text in described["contract"].items():
        put(f"{title}: {text}")
    put("\nparameters:" if described["parameters"] else "\nno parameters")
    for p in described["parameters"]:
        default = "required" if p["required"] else f"= {p['default']}"
        put(f"  {p['name']}: {p['type']} ({default})" + (f"\n      {p['doc']}" if p["doc"] else ""))
    if described["paper"]:
        put(f"\npaper: {described['paper']}")


# -- pipelines --------------------------------------------------------------------------------------------------


def _load(plugins: list[Path] | None) -> None:
    for path in plugins or []:
        registry.default().host.load_file(path)


def _plan(file: Path, sets: list[str] | None, data: list[Path] | None, plugins: list[Path] | None) -> Plan:
    from . import pipeline

    _load(plugins)
    return pipeline.plan(pipeline.read(file, sets or []), data or [])


@app.command()
def check(file: File, sets: Sets = None, data: Data = None, plugin: Plugins = None, as_json: Json = False) -> None:
    """Check a pipeline without running it: names, parameters, paths, references, order, fit."""
    plan = _plan(file, sets, data, plugin)
    steps = [{"name": s.name, "use": s.use, "needs": s.needs} for s in plan.steps.values()]
    if as_json:
        put_json({"ok": True, "name": plan.source.pipeline.name, "steps": steps})
        return
    for step in steps:
        put(f"  {step['name']}: {step['use']}" + (f"  ← {', '.join(step['needs'])}" if step["needs"] else ""))
    put(f"{file}: fine, {len(steps)} steps")


@app.command()
def run(
    file: File,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/NAME.", metavar="DIR")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Images at once when explaining, sampling and measuring.")] = 64,
    data: Data = None,
    plugin: Plugins = None,
    cache: Cache = None,
    checkpoint_every: Annotated[float, typer.Option(metavar="SECONDS", help="Time between checkpoints.")] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Run a pipeline. What is done is not done again; what was interrupted goes on."""
    from .console import Steps
    from .runtime import Runtime

    runtime = Runtime(
        device=device,
        precision=precision,  # type: ignore[arg-type]  # Runtime refuses what is neither
        batch_size=batch_size,
        quiet=quiet,
        checkpoint_seconds=checkpoint_every,
    )
    plan = _plan(file, sets, data, plugin)
    import torch

    from . import pipeline

    torch.set_flush_denormal(True)  # before the first operation, so that every thread has it; denormals are slow
    out = out or Path("runs") / plan.source.pipeline.name
    observed = not quiet and runtime.is_main
    with registry.default().host.observed_by(Steps(len(plan.steps), say)) if observed else _nothing():
        done = pipeline.run(plan, out=out, cache=cache, runtime=runtime, command=_command())
    if not runtime.is_main:
        return
    if as_json:
        put_json({"out": str(done.out), "report": str(done.report), "ran": done.ran, "found": done.found})
    elif not quiet:
        if not done.ran:
            say(f"nothing to do: all {len(done.found)} steps were done already")
        put(f"report: {done.report}")


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def _command() -> str:
    import shlex

    return shlex.join(["genxai", *sys.argv[1:]])


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write a run's HTML report again."""
    from .report import write_report

    _load(plugin)
    written = write_report(run)
    put_json({"report": str(written)}) if as_json else put(f"report: {written}")


# -- health -----------------------------------------------------------------------------------------------------


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed and what is wrong with it. Exit code 3 if something is."""
    from .describing import health

    found = health()
    if as_json:
        put_json(found)
    else:
        for key, value in found["environment"].items():
            put(f"{key:14} {value}")
        put("")
        for plugin in found["plugins"]:
            put(f"{_HEALTH[plugin['state']]} {plugin['distribution']} {plugin['version']}  {plugin['said']}")
        for problem in found["problems"]:
            put(f"✗ {problem}")
        put("\n" + ("all is well" if found["ok"] else "something is wrong; see ✗ above"))
    if not found["ok"]:
        raise typer.Exit(3)


_HEALTH = {"loaded": "●", "failed": "✗", "disabled": "–"}


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    from .pipeline.schema import json_schema

    put_json(json_schema([row["name"] for row in overview() if row["kind"] != "explanation"]))


# -- a plugin of one's own --------------------------------------------------------------------------------------


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the plugin and its component, in kebab-case.", metavar="NAME")],
    kind: Annotated[Kind, typer.Option(help="What it provides.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Make the folder NAME in here.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a complete, tested, installable plugin into a new folder."""
    from . import scaffold

    files = scaffold.write(name, kind, into)
    commands = scaffold.commands(name, kind, into)
    if as_json:
        put_json({"folder": str(into / name), "files": [file.as_posix() for file in files], "next": commands})
        return
    for file in files:
        put(f"  {into / name / file}")
    put("\n".join(["\nNow install it, test it, and see it:", *(f"  {command}" for command in commands)]))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        put(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        put(context.get_help())
        raise typer.Exit
    if show_traceback:
        os.environ["GENXAI_TRACEBACK"] = "1"


# -- the program ------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code. An error is one line on standard error."""
    code = _main(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone()
    sys.exit(code)


def _main(arguments: list[str]) -> int:
    warnings.showwarning = _warn
    as_json = "--json" in arguments
    try:
        program = typer.main.get_group(app)
        registry.default().host.add_commands(program.commands)
        code = program.main(args=arguments, prog_name="genxai", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        _tell(error, error.format_message(), as_json)
        return 2
    except GenxaiError as error:
        _tell(error, str(error), as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except OSError as error:  # a folder that cannot be written, a disk that is full
        _tell(error, f"{error.filename or 'a file'}: {error.strerror or error}", as_json)
        return 2
    except Exception as error:
        _tell(error, f"{type(error).__name__}: {error} (genxai --traceback … shows where)", as_json)
        return 1


def _tell(error: BaseException, message: str, as_json: bool) -> None:
    if os.environ.get("GENXAI_TRACEBACK") == "1":
        say("".join(traceback.format_exception(error)))
    if as_json:
        put_json({"error": {"type": type(error).__name__, "message": message}})
    say("error: " + " ".join(message.split("\n")))


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, GenxaiWarning):
        say(f"warning: {message}")


if __name__ == "__main__":
    main()
