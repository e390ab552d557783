"""How the kit is tested: broken components of which each must fail its check, and say how to mend it."""

from __future__ import annotations

import inspect
import itertools
import os

import pytest

from genxai_core.testing import fixtures, with_plugin

isolated_registry = fixtures.isolated_registry


@pytest.fixture
def conforms(isolated_registry):
    """Make a conformance class for a class that is registered by it: ``conforms(ExplainerTests, Broken, rtol=0.1)``."""
    counted = itertools.count()

    def make(base, cls, kind="", summary="for a test", **members):
        name = isolated_registry.register(f"{kind or base.kind}/tested-{next(counted)}", cls, summary)
        return type("TestMutant", (base,), {"component": name, **members})

    return make


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a conformance class's checks directly: ``run(cls) -> {check: None | 'skipped: …' | AssertionError}``."""

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing here must outlive a power cut

    def one(cls, name):
        arguments = {}
        if "tmp_path" in inspect.signature(getattr(cls, name)).parameters:
            arguments["tmp_path"] = tmp_path / f"{cls.__name__}-{name}-{len(list(tmp_path.iterdir()))}"
            arguments["tmp_path"].mkdir()
        try:
            with with_plugin(cls().plugin_file()):
                getattr(cls(), name)(**arguments)
        except pytest.skip.Exception as skipped:
            return f"skipped: {skipped}"
        except AssertionError as error:
            return error
        return None

    def checks(cls, *names):
        return {name: one(cls, name) for name in names or sorted(n for n in dir(cls) if n.startswith("test_"))}

    return checks


@pytest.fixture
def failures(run):
    """Run a class and return the checks that failed, with their messages; each must say how to mend it."""

    def of(cls, *names):
        found = {name: str(error) for name, error in run(cls, *names).items() if isinstance(error, AssertionError)}
        for name, text in found.items():
            assert "\n  To mend: " in text, f"{name}: {text}"
        return found

    return of
