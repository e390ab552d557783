"""`genxai label`: what is heavy is imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genxai_core.cli import Json, put, put_json
from genxai_core.errors import InputError

if TYPE_CHECKING:
    from genxai_core import Samples

RUN = "The folder of a run, or one of saved samples."
STEP = "Which step's images; default: the only step of the run that has some."


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("label")(label)


def label(
    run: Annotated[Path, typer.Argument(help=RUN, metavar="RUN")],
    step: Annotated[str | None, typer.Option(help=STEP, metavar="NAME")] = None,
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="FILE")] = Path("labels.html"),
    n: Annotated[int, typer.Option("--n", help="Show this many images, the first ones.")] = 200,
    as_json: Json = False,
) -> None:
    """Write a page on which you click the broken images of a run and download their labels."""
    from genxai_core import storage

    from . import label_page

    if n < 1:
        raise InputError(f"--n {n}: must be at least 1")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; name the file to write")
    if out.suffix.lower() not in (".html", ".htm"):  # not over somebody's labels.csv
        raise InputError(f"--out {out}: the page is HTML; let its name end in .html")
    samples, name = _samples(run, step)
    shown = samples[:n]
    storage.write_text(out, label_page.render(shown, name))
    if as_json:
        put_json({"page": str(out), "images": len(shown), "of": len(samples)})
    else:
        put(f"page: {out}  ({len(shown)} of {len(samples)} images; open it in a browser)")


def _samples(run: Path, step: str | None) -> tuple[Samples, str]:
    """Load the images of a run's step, or of a folder of saved samples, with what to call them."""
    from genxai_core import Samples, saving
    from genxai_core.pipeline.run import load_run

    if (run / "manifest.json").is_file():
        step = step or _only_step(run)
        found, name = load_run(run, step), f"{run.resolve().name}: {step}"
    elif (run / "result.json").is_file():
        if step is not None:
            raise InputError(f"--step {step}: {run} is one result, not a run of steps; leave it out")
        found, name = saving.load_result(run), run.resolve().name
    else:
        raise InputError(f"{run}: neither the folder of a run (manifest.json) nor of saved samples (result.json)")
    if not isinstance(found, Samples):
        raise InputError(f"{name} holds a {type(found).__name__}, not samples; label what dataset/generated draws")
    return found, name


def _only_step(run: Path) -> str:
    """Return the step of a run whose result is samples."""
    from genxai_core import storage

    manifest = storage.read_json(run / "manifest.json")
    steps = manifest.get("steps") if isinstance(manifest, dict) else None
    if not isinstance(steps, dict) or not all(isinstance(entry, dict) for entry in steps.values()):
        raise InputError(f"{run / 'manifest.json'}: not the manifest of a run")
    able = [name for name, entry in steps.items() if entry.get("result") == "samples"]
    if len(able) != 1:
        which = f"several steps with images: {', '.join(able)}" if able else "no step with images that were generated"
        raise InputError(f"{run} has {which}; say which to label: --step NAME")
    return str(able[0])
