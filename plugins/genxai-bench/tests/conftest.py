"""What the tests of the framework share: a registry with a plugin of one file, and that file."""

import sys
from pathlib import Path

import pytest
import torch

from genxai_core import builtin, registry
from genxai_core.plugins import PluginHost

ENTRANTS = Path(__file__).with_name("entrants.py")


@pytest.fixture(scope="session")
def entrants_registry():
    host = PluginHost(builtin=[builtin])
    host.load_file(ENTRANTS)
    return registry.Registry(host)


@pytest.fixture
def entrants(entrants_registry):
    """The module of the entrants; while a test uses it, its components are among the installed ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with registry.using(entrants_registry):
        yield sys.modules["entrants"]
    torch.set_num_threads(threads)
