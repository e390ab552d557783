"""Discovery that survives every plugin: broken, exiting, misspelt, switched off."""

import importlib.metadata
import sys
import textwrap
import warnings
from types import ModuleType

import pytest

from genxai_core import Component, hookimpl
from genxai_core.errors import BadComponent, GenxaiWarning, PluginFailed, StorageError
from genxai_core.plugins import PluginHost, canonical, disabled_names
from genxai_core.registry import Registry


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """No variable of the caller's shell, and no module that a test imported, reaches another test."""
    monkeypatch.delenv("GENXAI_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("GENXAI_STRICT", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]


class Distribution(importlib.metadata.Distribution):
    def __init__(self, name, version):
        self.fields = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename):
        return self.fields if filename == "METADATA" else None

    def locate_file(self, path):
        raise NotImplementedError


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Make an entry point of a distribution that is not installed: ``entry("dist", source)``."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(distribution, source, version="1.2", module=None):
        module = module or "fake_" + distribution.replace("-", "_").replace(".", "_").lower()
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        point = importlib.metadata.EntryPoint("plugin", module, "genxai")
        return point._for(Distribution(distribution, version))

    return make


GOOD = """
    from genxai_core import Component, hookimpl
    seen = []
    @hookimpl
    def genxai_components():
        return [Component("metric", "{name}", "fake_target:M", "a metric")]
    @hookimpl
    def genxai_before_step(step):
        seen.append(step)
"""


def good(name="fine"):
    return GOOD.replace("{name}", name)


def host(*points):
    return PluginHost(entry_points=points)


def names(found):
    return [c.full_name for p in found.plugins for c in p.components]


def test_a_good_plugin_is_loaded_with_its_distribution_and_version(entry):
    found = host(entry("Fake_Good.One", good()))
    (plugin,) = found.plugins
    assert (plugin.distribution, plugin.version, plugin.error, plugin.disabled) == ("fake-good-one", "1.2", None, False)
    assert names(found) == ["metric/fine"]


BROKEN = {
    "import error": ("import no_such_module_at_all", ModuleNotFoundError),
    "exception": ("raise RuntimeError('boom\\nsecond line')", RuntimeError),
    "exit": ("import sys; sys.exit('bye')", SystemExit),
    "exit 0": ("raise SystemExit(0)", SystemExit),
    "generator exit": ("raise GeneratorExit", GeneratorExit),
    "syntax": ("def f(:", SyntaxError),
    "misspelt hook": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_componnents(): return []",
        Exception,
    ),
    "unknown argument": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_before_step(stepp): pass",
        Exception,
    ),
    "good hooks and a bad one": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_after_step(step): raise ValueError\n"
        "@hookimpl\ndef genxai_before_step(nope): pass",
        Exception,
    ),
    "not a component": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_components(): return ['metric/x']",
        BadComponent,
    ),
    "not a list": (
        "from genxai_core import hookimpl, Component\n@hookimpl\n"
        "def genxai_components(): return Component('metric', 'x', 'a:B', 's')",
        TypeError,
    ),
    "nothing returned": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_components(): pass",
        BadComponent,
    ),
    "hook raises": (
        "from genxai_core import hookimpl\n@hookimpl\ndef genxai_components(): raise KeyError('x')",
        KeyError,
    ),
    "generator raises half-way": (
        "from genxai_core import hookimpl, Component\n@hookimpl\ndef genxai_components():\n"
        "    yield Component('metric', 'half', 'a:B', 's')\n    raise OSError('x')",
        OSError,
    ),
    "same name twice": (
        "from genxai_core import hookimpl, Component\n@hookimpl\n"
        "def genxai_components(): return [Component('metric', 'x', 'a:B', 's')] * 2",
        BadComponent,
    ),
    "malformed name": (
        "from genxai_core import hookimpl, Component\n@hookimpl\n"
        "def genxai_components(): return [Component('metric', 'Not Kebab', 'a:B', 's')]",
        BadComponent,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_kept_with_its_error_and_breaks_no_other(entry, case):
    source, error = BROKEN[case]
    points = [entry("fake-a", good("first")), entry("fake-broken", source), entry("fake-z", good("last"))]
    found = host(*points)
    assert names(found) == ["metric/first", "metric/last"]
    first, broken, last = found.plugins
    assert (broken.distribution, broken.version, broken.components) == ("fake-broken", "1.2", ())
    assert isinstance(broken.error, error)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.notify("genxai_before_step", step="s", use="u", cached=False)
        found.notify("genxai_after_step", step="s", use="u", result=None, seconds=0.0)
    assert first.module.seen == last.module.seen == ["s"], "the others still observe"


def test_what_is_wrong_is_said():
    def said(module):
        with pytest.raises(Exception) as caught:
            PluginHost(builtin=[module], entry_points=[])
        return str(caught.value)

    misspelt = ModuleType("fake_misspelt")
    misspelt.genxai_componnents = hookimpl(lambda: [])
    assert "unknown hook 'genxai_componnents'" in said(misspelt)
    forgot = ModuleType("fake_forgot")

    @hookimpl
    def genxai_components():
        return ["cam"]

    forgot.genxai_components = genxai_components
    assert "'cam', which is not a Component" in said(forgot)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
def test_ctrl_c_during_discovery_is_obeyed(entry, error):
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        host(entry("fake-stop", f"raise {error}"))


@pytest.mark.parametrize("case", ["exit", "exception", "misspelt hook", "not a component"])
def test_strict_raises_with_the_cause(entry, monkeypatch, case):
    monkeypatch.setenv("GENXAI_STRICT", "1")
    source, error = BROKEN[case]
    with pytest.raises(PluginFailed, match=r"plugin fake-broken 1\.2 failed to load: ") as caught:
        host(entry("fake-broken", source))
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value.__cause__, error)


def test_strict_is_no_matter_for_good_plugins(entry, monkeypatch):
    monkeypatch.setenv("GENXAI_STRICT", "1")
    assert names(host(entry("fake-good", good()))) == ["metric/fine"]


@pytest.mark.parametrize("value", ["fake-broken", "Fake.Broken", " other , FAKE_broken ,,", "all"])
def test_a_plugin_that_is_switched_off_is_not_imported(entry, monkeypatch, value):
    monkeypatch.setenv("GENXAI_DISABLE_PLUGINS", value)
    monkeypatch.setenv("GENXAI_STRICT", "1")
    found = host(entry("fake-broken", "raise SystemExit"), entry("fake-good", good()))
    assert found.plugins[0].disabled
    assert found.plugins[0].error is None
    assert "fake_fake_broken" not in sys.modules
    assert "fake_broken" not in sys.modules
    assert names(found) == ([] if value == "all" else ["metric/fine"])


def test_the_core_cannot_be_switched_off(monkeypatch):
    from genxai_core import builtin

    monkeypatch.setenv("GENXAI_DISABLE_PLUGINS", "all,genxai-core")
    assert "explanation/attribution" in names(PluginHost(builtin=[builtin], entry_points=[]))


def test_names_are_normalised():
    assert canonical("GenXAI_Some..Plugin-x") == "genxai-some-plugin-x"
    assert disabled_names() == frozenset()


def test_two_distributions_that_name_one_module_do_not_register_it_twice(entry):
    one = entry("fake-one", good(), module="fake_shared")
    two = entry("fake-two", good(), module="fake_shared")
    found = host(one, two)
    assert names(found) == ["metric/fine"]
    assert "registered already" in str(found.plugins[1].error)


def test_the_order_is_that_of_names_not_of_the_disk(entry):
    points = [entry(d, good(d)) for d in ("fake-c", "fake-a", "fake-b")]
    assert names(host(*points)) == ["metric/fake-a", "metric/fake-b", "metric/fake-c"]


def test_an_entry_point_without_a_distribution_is_taken(entry, tmp_path):
    entry("fake-bare", good())
    (plugin,) = host(importlib.metadata.EntryPoint("bare", "fake_bare", "genxai")).plugins
    assert (plugin.distribution, plugin.version) == ("bare", "unknown")


# -- observing hooks -------------------------------------------------------------------------------------------------


def test_an_observer_that_raises_is_named_and_the_others_still_observe(entry):
    raising = """
        from genxai_core import hookimpl
        @hookimpl
        def genxai_step_failed(step, error):
            raise LookupError("observer")
    """
    seeing = """
        from genxai_core import hookimpl
        seen = []
        @hookimpl
        def genxai_step_failed(step, error):
            seen.append((step, str(error)))
    """
    found = host(entry("fake-a", seeing), entry("fake-m", raising), entry("fake-z", seeing))
    with pytest.warns(GenxaiWarning, match=r"plugin fake-m 1\.2: its hook genxai_step_failed failed .* LookupError"):
        found.notify("genxai_step_failed", step="cams", use="u", error=ValueError("x"))
    assert found.plugins[0].module.seen == found.plugins[2].module.seen == [("cams", "x")]


def test_results_are_gathered_from_lists_tuples_and_generators(entry):
    source = """
        from genxai_core import hookimpl
        @hookimpl
        def genxai_report_sections(result):
            {}
    """
    found = host(
        entry("fake-a", source.format("return [result, 1]")),
        entry("fake-b", source.format("return (2,)")),
        entry("fake-c", source.format("yield 3; yield 4")),
        entry("fake-d", source.format("return None")),
        entry("fake-e", source.format("return 'five'")),
    )
    assert found.notify("genxai_report_sections", result=0) == [0, 1, 2, 3, 4, "five"]


def test_a_generator_that_raises_is_skipped_like_any_hook(entry):
    source = """
        from genxai_core import hookimpl
        @hookimpl
        def genxai_report_sections(result):
            yield 1
            raise ValueError("later")
    """
    found = host(entry("fake-a", source))
    with pytest.warns(GenxaiWarning, match="later"):
        assert found.notify("genxai_report_sections", result=0) == []


# -- a plugin from a file --------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    def make(source, name="fake_mine.py"):
        path = tmp_path / "plugins" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    return make


def test_a_file_is_loaded_once_and_found_again(file):
    path = file(good("mine"))
    found = host()
    plugin = found.load_file(path)
    assert plugin.source == path
    assert plugin.distribution == "fake_mine.py"
    assert found.load_file(path.parent / ".." / "plugins" / "fake_mine.py") is plugin
    assert names(found) == ["metric/mine"]
    assert sys.modules["fake_mine"] is plugin.module
    assert Registry(found).find("metric/mine").plugin is plugin


@pytest.mark.parametrize(
    "case", ["exception", "exit", "syntax", "misspelt hook", "good hooks and a bad one", "not a list"]
)
def test_a_broken_file_is_named_and_can_be_mended_in_the_same_session(file, case):
    source, error = BROKEN[case]
    path, found = file(source), host()
    with pytest.raises(PluginFailed, match="fake_mine") as caught:
        found.load_file(path)
    assert isinstance(caught.value.__cause__, error)
    assert "fake_mine" not in sys.modules
    assert found.plugins == []
    path.write_text(textwrap.dedent(good("mended")) + "# of another length\n")
    found.load_file(path)
    assert names(found) == ["metric/mended"]


def test_ctrl_c_in_a_file_is_obeyed(file):
    with pytest.raises(KeyboardInterrupt):
        host().load_file(file("raise KeyboardInterrupt"))
    assert "fake_mine" not in sys.modules


def test_a_file_cannot_hide_a_module(file):
    for name in ("json.py", "torch.py", "genxai_core.py"):
        with pytest.raises(StorageError, match="exists already"):
            host().load_file(file(good(), name))
    with pytest.raises(StorageError, match="identifier"):
        host().load_file(file(good(), "my-models.py"))
    with pytest.raises(StorageError, match=r"\.py"):
        host().load_file(file(good(), "fake_mine.txt"))
    with pytest.raises(StorageError, match="no such file"):
        host().load_file(file(good()).parent)


def test_a_file_without_components_is_warned_about(file):
    with pytest.warns(GenxaiWarning, match="registers no component"):
        host().load_file(file("x = 1"))


def test_component_is_public():
    assert Component("metric", "x", "a:B", "s").full_name == "metric/x"
