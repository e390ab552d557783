"""Names to components to objects, and the seven distinct errors on the way."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from genxai_core import Component, Explainer, Spec, hookimpl, registry, saving
from genxai_core.errors import (
    AmbiguousProvider,
    BadParameter,
    NotInstalled,
    PluginFailed,
    RegistryError,
    TargetImportFailed,
    Unavailable,
    UnknownComponent,
)
from genxai_core.plugins import Plugin, PluginHost
from genxai_core.registry import CatalogueEntry, Registry

HERE = "genxai_registry_targets"


class Mean(Explainer):
    def __init__(self, layer: str = "auto", sizes: tuple[int, ...] = (), steps: int = 1):
        if steps < 1:
            raise ValueError(f"steps {steps} must be\npositive")
        self.layer, self.sizes, self.steps = layer, sizes, steps

    def _explain(self, model, inputs, target):
        raise NotImplementedError


class Net:
    def __init__(self, size: int, channels: int = 1, name: str = "x"):
        self.size, self.channels, self.name = size, channels, name


class Slotted:
    __slots__ = ()


def nested(inner: Spec):
    return inner.build(size=8, channels=3, num_classes=10)


@pytest.fixture(autouse=True)
def targets(monkeypatch):
    module = ModuleType(HERE)
    module.Mean, module.Net, module.nested, module.Slotted, module.five = Mean, Net, nested, Slotted, 5
    monkeypatch.setitem(sys.modules, HERE, module)


def component(name, target="Mean", kind="explainer", **more):
    target = target if ":" in target else f"{HERE}:{target}"
    return Component(kind, name, target, "a summary", **more)


def make(*plugins):
    """A registry of the given plugins and nothing else."""
    host = PluginHost(entry_points=[])
    host.plugins.extend(plugins)
    return Registry(host)


def plugin(distribution, *components, **more):
    return Plugin(distribution, "2.0", components, **more)


@pytest.fixture
def known(monkeypatch):
    """A catalogue of two components."""
    rows = [
        CatalogueEntry("explainer", "cam", "genxai-attribution", "./plugins/genxai-attribution", "s"),
        CatalogueEntry("metric", "kid", "genxai-metrics", "genxai-metrics>=1", "s"),
    ]
    monkeypatch.setattr(registry, "catalogue", lambda: {r.full_name: r for r in rows})


def refusal(kind, where, name):
    with pytest.raises(RegistryError) as caught:
        where.find(name)
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


# -- the seven -------------------------------------------------------------------------------------------------------


def test_1_unknown_names_get_the_nearest_known_ones(known):
    here = make(plugin("mine", component("occlude")))
    assert str(refusal(UnknownComponent, here, "explainer/oclude")) == (
        "no component is named 'explainer/oclude'; did you mean explainer/occlude?"
    )
    assert "did you mean explainer/cam?" in str(refusal(UnknownComponent, here, "explainer/camm")), "also what could be"
    assert "did you mean metric/kid?" in str(refusal(UnknownComponent, here, "kid")), "the kind was left out"
    assert "did you mean explainer/occlude" in str(refusal(UnknownComponent, here, "metric/occlude")), "another kind"
    assert "'genxai list' shows all names" in str(refusal(UnknownComponent, here, "zzzzzzz/qqqqqq"))
    assert "did you mean metric/kid?" in str(refusal(UnknownComponent, here, "metrics/kidd")), "both are misspelt"
    for name in ("", "/", "@", "a/b/c", "explainer/", None, 3):
        refusal(UnknownComponent, here, name)


def test_1_an_unknown_name_mentions_plugins_that_failed_for_it_may_be_theirs(known):
    here = make(plugin("someones", error=ImportError("x")))
    assert str(refusal(UnknownComponent, here, "explainer/occlude")).endswith(
        "(plugins that failed to load, see 'genxai doctor': someones)"
    )


def test_2_known_but_not_installed_gives_the_command_that_works_here(known, monkeypatch):
    message = str(refusal(NotInstalled, make(), "explainer/cam"))
    said, command = message.split(": ", 1)
    assert said == "explainer/cam is part of genxai-attribution, which is not installed"
    python, *rest = shlex.split(command)
    assert python == sys.executable
    assert rest[:3] == ["-m", "pip", "install"]
    assert (Path(rest[3]) / "pyproject.toml").is_file(), "the path exists from any working directory"
    assert shlex.split(str(refusal(NotInstalled, make(), "metric/kid")).split(": ")[1])[-1] == "genxai-metrics>=1"
    monkeypatch.setattr(registry, "checkout", lambda: None)
    assert str(refusal(NotInstalled, make(), "explainer/cam")).endswith("(from a checkout of genxai)")


def test_2_an_installed_version_that_is_too_old_is_not_called_absent(known):
    message = str(refusal(NotInstalled, make(plugin("genxai-attribution", component("saliency"))), "explainer/cam"))
    assert "whose installed version 2.0 lacks it: " in message
    assert "not installed" not in message


def test_3_a_plugin_that_failed_is_named_with_its_cause_chained(known):
    cause = ImportError("no\nlibcuda")
    here = make(plugin("genxai-attribution", error=cause), plugin("third-party", error=cause))
    error = refusal(PluginFailed, here, "explainer/cam")
    assert str(error) == (
        "explainer/cam: its plugin genxai-attribution 2.0 failed to load: ImportError: no libcuda (see 'genxai doctor')"
    )
    assert error.__cause__ is cause
    assert refusal(PluginFailed, here, "explainer/own@Third_Party").__cause__ is cause


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("genxai_no_such_module:Thing", ModuleNotFoundError),
        (f"{HERE}:Missing", AttributeError),
        (f"{HERE}:five", None),
        (f"{HERE}:Net", None),
    ],
)
def test_4_a_target_that_cannot_be_had_is_named_with_its_cause(target, cause):
    here = make(plugin("mine", component("bad", target)))
    assert here.find("explainer/bad").component.target == target, "finding imports nothing"
    for act in (here.resolve, lambda name: here.create(name, params={})):
        with pytest.raises(TargetImportFailed, match=r"^explainer/bad \(mine 2\.0\): ") as caught:
            act("explainer/bad")
        assert target in str(caught.value)
        assert type(caught.value.__cause__) is (cause or type(None))


@pytest.mark.parametrize("source", ["raise ValueError('boom')", "import sys; sys.exit(3)", "def f(:"])
def test_4_whatever_an_import_does_it_is_named(tmp_path, monkeypatch, source):
    (tmp_path / "genxai_bad_target.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TargetImportFailed, match="genxai_bad_target:X") as caught:
        make(plugin("mine", component("bad", "genxai_bad_target:X"))).resolve("explainer/bad")
    assert caught.value.__cause__ is not None


def test_5_two_providers_are_both_named_and_one_can_be_chosen():
    here = make(plugin("one", component("cam")), plugin("two-more", component("cam", "nested")))
    assert str(refusal(AmbiguousProvider, here, "explainer/cam")) == (
        "explainer/cam is provided by two plugins: write explainer/cam@one or explainer/cam@two-more"
    )
    assert here.find("explainer/cam@one").plugin.distribution == "one"
    assert here.find("explainer/cam@Two_More").plugin.distribution == "two-more"
    assert "from three" in str(refusal(UnknownComponent, here, "explainer/cam@three"))
    built = here.create("explainer/cam@one", params={})
    assert saving.recipe_of(built).use == "explainer/cam@one", "so that it can be built again"
    alone = make(plugin("one", component("cam")))
    for name in ("explainer/cam", "explainer/cam@one"):
        assert saving.recipe_of(alone.create(name, params={})).use == "explainer/cam", "there is nothing to tell apart"


def test_6_another_api_and_a_plugin_that_is_off_are_told_apart(known):
    here = make(plugin("mine", component("future", api=2)), Plugin("genxai-attribution", "1", disabled=True))
    assert str(refusal(Unavailable, here, "explainer/future")) == (
        "explainer/future (mine 2.0) is written for plugin API 2, this genxai has 1: install matching versions of both"
    )
    assert str(refusal(Unavailable, here, "explainer/cam")) == (
        "explainer/cam: its plugin genxai-attribution is switched off by GENXAI_DISABLE_PLUGINS; "
        "take it out of that variable"
    )


def test_7_a_bad_parameter_is_named_with_its_place():
    here = make(plugin("mine", component("mean")))

    def said(where="", **params):
        with pytest.raises(BadParameter) as caught:
            here.create("explainer/mean", where=where, params=params)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    place = "p.yaml:9: steps.m.with"
    assert said(place, layr="x").startswith(
        f"{place}.layr: explainer/mean has no such parameter; did you mean 'layer'?"
    )
    assert said(place, steps="3").startswith(f"{place}.steps: '3' does not fit int")
    assert said(place, steps=0) == f"{place}: steps 0 must be positive", "a ValueError of the constructor, on one line"
    assert said(steps=0) == "explainer/mean: steps 0 must be positive"


def test_the_seven_are_distinct_types():
    kinds = [
        UnknownComponent,
        NotInstalled,
        PluginFailed,
        TargetImportFailed,
        AmbiguousProvider,
        Unavailable,
        BadParameter,
    ]
    for a in kinds:
        assert [b for b in kinds if issubclass(a, b)] == [a]


# -- building --------------------------------------------------------------------------------------------------------


def test_building_converts_parameters_and_notes_the_recipe_as_given():
    built = make(plugin("mine", component("mean"))).create("explainer/mean", params={"sizes": [1, 2]})
    assert type(built) is Mean
    assert built.sizes == (1, 2)
    assert saving.recipe_of(built) == Spec("explainer/mean", {"sizes": [1, 2]})
    assert saving.name_of(built) == "explainer/mean"


def test_what_cannot_bear_a_note_is_built_all_the_same():
    built = make(plugin("mine", component("s", "Slotted", "generator"))).create("generator/s", params={})
    assert saving.recipe_of(built) is None
    assert saving.name_of(built) == "Slotted"


def test_a_spec_is_filled_in_with_what_the_constructor_takes_and_the_spec_leaves_open():
    here = make(plugin("mine", component("net", "Net", "generator"), component("outer", "nested", "generator")))
    with registry.using(here):
        net = registry.create("generator/outer", inner=Spec("generator/net", {"channels": 1, "name": "n"}))
        assert (net.size, net.channels, net.name) == (8, 1, "n")
        with pytest.raises(BadParameter, match="needs 'size'"):
            Spec("generator/net").build()
        with pytest.raises(UnknownComponent):
            Spec("generator/nett").build(size=1)
        assert (
            registry.create("generator/net", size=1, name="a parameter called name").name == "a parameter called name"
        )


def test_recording_sees_everything_that_is_created_however_deep():
    here = make(plugin("mine", component("net", "Net", "generator"), component("outer", "nested", "generator")))
    with registry.using(here), registry.recording() as outer:
        registry.create("generator/net", size=1)
        with registry.recording() as inner:
            registry.create("generator/outer", inner=Spec("generator/net"))
        assert [p.component.name for p in inner] == ["outer", "net"]
    assert [p.component.name for p in outer] == ["net", "outer", "net"]
    assert registry._created.get() is None


def test_using_restores_the_registry_also_after_an_error():
    before, other = registry.default(), make()

    def fails():
        with registry.using(other):
            raise ZeroDivisionError(registry.default() is other)

    with pytest.raises(ZeroDivisionError, match="True"):
        fails()
    assert registry.default() is before


# -- the catalogue and the installed ----------------------------------------------------------------------------------


def test_the_catalogue_is_read_and_says_how_to_install():
    entries = registry.catalogue()
    assert entries["explanation/attribution"].distribution == "genxai-core"
    for name, entry in entries.items():
        assert name == f"{entry.kind}/{entry.name}"
        Component(entry.kind, entry.name, "a:B", entry.summary)
        assert re.match(r"\.($|/)|[A-Za-z]", entry.install)
        assert entry.install != entry.distribution or registry.checkout() is None


def test_the_default_registry_has_the_core():
    found = registry.default().find("explanation/attribution")
    assert found.plugin.distribution == "genxai-core"
    assert registry.resolve("explanation/attribution").__name__ == "Attribution"


def test_a_module_with_hook_and_class_together_is_a_plugin():
    module = ModuleType("fake_one_file")

    @hookimpl
    def genxai_components():
        return [component("mean")]

    module.genxai_components = genxai_components
    here = Registry(PluginHost(builtin=[module], entry_points=[]))
    assert isinstance(here.create("explainer/mean", params={}), Mean)
