"""Run folders for the tests of the report, and a reader of its page."""

from __future__ import annotations

import html.parser

import torch

from genxai_core import saving, storage
from genxai_core.explanation import Attribution
from genxai_core.interfaces import Metric
from genxai_core.report import (
    write_report,
)

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Kid(Metric):
    higher_is_better = {"kid": False, "coverage": True, "n": None}

    def update(self, **inputs):
        raise NotImplementedError

    compute = merge = reset = update


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def images(n=4, shift=0.0) -> torch.Tensor:
    return ((torch.arange(n * 64).float() / (n * 64) + shift) % 1.0).view(n, 1, 8, 8)


def attribution(shift=0.0, **more) -> Attribution:
    signed = torch.sin(torch.arange(4 * 64).float() + shift).view(4, 8, 8)
    return Attribution(maps=signed, images=images(), value_range=(0.0, 1.0), **more)


def write_run(run, results, manifest=None, entries=None):
    """Write a run folder: ``results`` by (name, use), ``entries`` changes of their manifest entries."""
    described = {}
    for (name, use), result in results.items():
        described[name] = {
            "use": use,
            "kind": use.split("/")[0],
            "with": {},
            "call": {},
            "seed": 0,
            "status": "failed" if result is None else "done",
            "seconds": 1.5,
            "summary": f"summary of {name}",
            "error": None,
            **(entries or {}).get(name, {}),
        }
        if result is not None:
            saving.save_result(result, run / "steps" / name / "result")
    head = {"genxai": "0.1.0", "name": "tiny", "seed": 7, "status": "complete", "command": "genxai run tiny.yaml"}
    run.mkdir(exist_ok=True)
    storage.write_json(
        run / "manifest.json", {**head, "order": list(described), "steps": described, **(manifest or {})}
    )
    (run / "pipeline.yaml").write_text("genxai: 1\nname: tiny\n")
    return run


def report(run) -> str:
    return write_report(run).read_text()
