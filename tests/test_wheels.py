"""Wheels of the core and of each plugin: what they declare, what they hold, and that each works with the core alone.

Every environment here sees the third-party packages of this one, and none of our own: only the wheels that a test puts
into it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from environments import build_wheel, copy_of_the_house, link_third_party, make_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CORE = "genxai-core"
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
EVERY = [CORE, *PLUGINS]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def package_of(distribution: str) -> str:
    return distribution.replace("-", "_")


def source_of(distribution: str) -> Path:
    return ROOT / "genxai_core" if distribution == CORE else ROOT / "plugins" / distribution / "src"


# -- building -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """One wheel of each distribution, built from a copy so that the repository stays clean."""
    copy = copy_of_the_house(tmp_path_factory.mktemp("copy") / "genxai")
    out = tmp_path_factory.mktemp("wheels")
    return {name: build_wheel(copy if name == CORE else copy / "plugins" / name, out / name) for name in EVERY}


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def required(wheel: Path) -> set[str]:
    """Distributions that installing the wheel brings, extras left out."""
    lines = metadata(wheel).get_all("Requires-Dist") or []
    return {canonical(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines if "extra ==" not in line}


@pytest.mark.parametrize("name", EVERY)
def test_a_wheel_is_small(wheels, name):
    assert wheels[name].stat().st_size < (15_000_000 if name == "genxai-zoo" else 2_000_000)


@pytest.mark.parametrize("name", EVERY)
def test_a_wheel_says_what_it_is(wheels, name):
    told = metadata(wheels[name])
    assert (told["Name"], told["Requires-Python"], told["License-Expression"]) == (name, ">=3.11", "Apache-2.0")
    assert told["Summary"]
    assert len(told.get_payload()) > 200, "the README is the description"
    assert (CORE in required(wheels[name])) == (name != CORE)
    if name != CORE:
        (line,) = (line for line in told.get_all("Requires-Dist") if line.startswith(CORE))
        assert re.search(r">=0\.\d", line), line
        assert "<" in line, line


@pytest.mark.parametrize("name", EVERY)
def test_a_wheel_holds_its_whole_package_and_nothing_else(wheels, name):
    source = source_of(name)
    with zipfile.ZipFile(wheels[name]) as archive:
        held = {n for n in archive.namelist() if ".dist-info/" not in n}
    base = source.parent if name == CORE else source
    expected = {
        p.relative_to(base).as_posix() for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }
    if name == CORE:
        expected.add("genxai_core/registry.yaml")
        assert {"genxai_core/report/report.html.j2", "genxai_core/report/report.css"} <= expected
    assert f"{package_of(name)}/py.typed" in expected
    assert held == expected


@pytest.mark.parametrize("name", EVERY)
def test_a_wheel_has_its_entry_points(wheels, name):
    with zipfile.ZipFile(wheels[name]) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
        lines = archive.read(path).decode().split("\n")
    folder = ROOT if name == CORE else ROOT / "plugins" / name
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    if name == CORE:
        assert "[console_scripts]" in lines
        assert "genxai = genxai_core.cli:main" in lines
        assert "[genxai]" not in lines  # the core registers what it has by itself
    else:
        assert "[genxai]" in lines
        for key, module in project["entry-points"]["genxai"].items():
            assert f"{key} = {module}" in lines
            assert module.startswith(package_of(name) + ".")


# -- what the source imports, the wheel requires ------------------------------------------------------------------


def third_party(folder: Path) -> set[str]:
    """Distributions whose modules the source imports, wherever in a file."""
    modules: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(a.name.partition(".")[0] for a in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.partition(".")[0])
    providers = importlib.metadata.packages_distributions()
    outside = modules - set(sys.stdlib_module_names) - {m for m in modules if m.startswith("genxai_")}
    return {canonical(providers[module][0]) for module in outside}


OPTIONAL = {
    CORE: {"pandas", "pytest", "torchmetrics"},  # two extras; and whoever hands us a torchmetrics metric has it
    "genxai-dissection": {"transformers"},  # an extra; the segmenter says what to install
    "genxai-zoo": {"diffusers", "torchvision", "transformers"},  # extras; a model of theirs says what to install
}
ALONG = {"torch": CORE}  # part of the other's own interface


@pytest.mark.parametrize("name", EVERY)
def test_a_wheel_requires_what_its_source_imports(wheels, name):
    brought = required(wheels[name])
    imports = third_party(source_of(name)) - OPTIONAL.get(name, set())
    missing = {each for each in imports - brought if ALONG.get(each) not in brought}
    assert not missing


# -- each in an environment of its own ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def others(tmp_path_factory) -> Path:
    """The third-party packages of this environment, without our own."""
    return link_third_party(tmp_path_factory.mktemp("third-party"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory, others, wheels):
    """Make an environment with some of our wheels, and return a way to run its Python."""
    return lambda *names: make_environment(tmp_path_factory.mktemp("env"), others, *(wheels[n] for n in names))


@pytest.fixture(scope="session")
def core_alone(environment):
    return environment(CORE)


def test_the_core_alone_finds_its_catalogue_in_itself(core_alone):
    code = "from genxai_core import registry; print(registry.catalogue_path(), registry.checkout())"
    path, checkout = core_alone("-c", code).split()
    assert path.endswith("/site-packages/genxai_core/registry.yaml")
    assert "/env" in path
    assert checkout == "None"


def test_the_core_alone_lists_every_plugins_components_as_available(core_alone):
    told = core_alone("-m", "genxai_core", "list")
    assert "● explanation/attribution" in told
    for name in PLUGINS:
        assert f"[available: {name}]" in told
    assert "● 8 installed" in told  # the results, and the generator that edits another
    assert "failed" not in told


def test_the_core_alone_says_how_to_install_what_is_missing(core_alone):
    told = core_alone("-m", "genxai_core", "info", "explainer/cam", code=3)
    assert "explainer/cam is part of genxai-attribution, which is not installed" in told
    assert re.search(r"/bin/python -m pip install \./plugins/genxai-attribution +\(from a checkout of genxai\)\n", told)
    assert core_alone("-m", "genxai_core", "doctor").endswith("all is well\n")


# What each plugin must really do where nothing else of ours is but the core. The last line printed is checked.
WORKS = {
    "genxai-data": """
        from genxai_core import create
        data = create("dataset/digits", size=16)
        assert data[:4].images.shape == (4, 1, 16, 16) and len(data) == 1797
        scenes = create("dataset/scenes", n=3, size=32)[:3]
        assert scenes.masks is not None and scenes.images.std() > 0.01
        """,
    "genxai-attribution": """
        import torch
        import genxai_core as gx
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.LeakyReLU(0.2),
                                  torch.nn.Flatten(), torch.nn.Linear(256, 1))
        model = gx.adapt.discriminator(net, image_shape=(1, 8, 8))
        images = torch.rand(3, 1, 8, 8) * 2 - 1
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).sum(), x)
        maps = gx.create("explainer/saliency").explain(model, images).maps
        torch.testing.assert_close(maps.reshape(gradient.shape), gradient)
        for name in ("explainer/cam", "explainer/integrated-gradients"):
            assert gx.create(name).explain(model, images).maps.abs().max() > 0
        """,
    "genxai-zoo": """
        import torch
        from genxai_core import create
        made = create("generator/dcgan", size=16, channels=1).sample(3, seed=0)
        assert made.images.shape == (3, 1, 16, 16) and made.images.std() > 0
        assert create("discriminator/dcgan", size=16, channels=1)(made.images).shape == (3, 1)
        digits = create("generator/dcgan", pretrained="digits").sample(50, seed=0)
        classes = create("discriminator/classifier", pretrained="digits")(digits.images).argmax(1)
        assert len(classes.unique()) > 5
        """,
    "genxai-bench": """
        import torch
        import genxai_core as gx
        from genxai_bench.models.mixture import Mixture
        mixture = Mixture(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), 0.1)
        t = torch.tensor([300])
        assert abs(float(mixture.predict(torch.zeros(1, 1, 1, 1), t))) < 1e-6  # by symmetry
        try:
            gx.create("explainer/bench", contestants=[gx.Spec("explainer/saliency")], seeds=2).explain()
        except gx.GenxaiError as error:
            assert "explainer/saliency is part of genxai-attribution, which is not installed" in str(error), error
        else:
            raise SystemExit("ran without its contestant")
        """,
    "genxai-correction": """
        import torch
        import genxai_core as gx
        class Features(gx.Discriminator):
            image_shape, class_names = (1, 2, 2), ("a", "b")
            def features(self, images): return images.flatten(1)
            def forward(self, images): return images.flatten(1)[:, :2]
        real = gx.Samples(torch.eye(4).view(4, 1, 2, 2), value_range=(-1, 1))
        scores = gx.create("explainer/realism", real=real, k=1).explain(Features(), real).scores
        assert scores.shape == (4,) and bool((scores > 1).all())  # the real ones themselves
        """,
    "genxai-ganmex": """
        import torch
        import genxai_core as gx
        made = gx.create("generator/stargan", size=8, num_classes=2, width=8)
        with torch.no_grad():
            assert made.translate(torch.zeros(3, 1, 8, 8), 1).shape == (3, 1, 8, 8)
        """,
    "genxai-dissection": """
        import torch
        import genxai_core as gx
        from genxai_core.testing import LinearGenerator
        class Bright(gx.Segmenter):
            concepts = ("bright",)
            def _segment(self, samples): return samples.images.mean(1, keepdim=True) > 0.1
        method = gx.create("explainer/gan-dissection", segmenter=Bright(), samples=8, threshold_samples=8, quantile=0.9)
        found = method.explain(LinearGenerator().eval())
        assert found.scores["layers"].shape == (4, 1) and 0 < found.scores["layers"].max() <= 1
        """,
    "genxai-metrics": """
        import torch
        import genxai_core as gx
        class Features(gx.Discriminator):
            image_shape, class_names = (1, 4, 4), ("a", "b")
            def features(self, images): return images.flatten(1)
            def forward(self, images): return images.flatten(1)[:, :2]
        def draws(shift): return gx.Samples((torch.randn(40, 1, 4, 4) / 8 + shift).clamp(-1, 1), value_range=(-1, 1))
        def kid(a, b): return gx.create("metric/kid", extractor=Features()).measure(real=a, generated=b)["kid"]
        torch.manual_seed(0)
        near, far = kid(draws(0.0), draws(0.0)), kid(draws(0.0), draws(0.5))
        assert abs(near) < 0.05 < far, (near, far)
        """,
    "genxai-xai-gan": """
        import torch
        import genxai_core as gx
        data = gx.Samples(torch.rand(32, 1, 16, 16) * 2 - 1, value_range=(-1, 1))
        try:
            gx.create("trainer/gan", steps=2).fit(data)
        except gx.GenxaiError as error:
            assert "generator/dcgan is part of genxai-zoo, which is not installed" in str(error), error
            assert "pip install" in str(error)
        else:
            raise SystemExit("there is no zoo here: it must have said so")
        """,
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_works_with_the_core_alone(environment, name):
    run = environment(CORE, name)
    told = run("-m", "genxai_core", "list")
    rows = [line for line in told.splitlines() if "[available:" not in line and line.startswith("  ")]
    listed = {line.split()[1] for line in rows}
    catalogue = {line.split()[1] for line in told.splitlines() if f"[available: {name}]" in line}
    assert not catalogue, "all that the catalogue promises of it is there"
    assert len(listed) > 1
    assert all(line.split()[0] == "●" for line in rows), told
    code = "\n".join(line.removeprefix("        ") for line in WORKS[name].strip("\n").splitlines())
    assert run("-c", code + "\nprint('it works')").endswith("it works\n")
    assert run("-m", "genxai_core", "doctor").endswith("all is well\n")


def test_trainers_and_models_of_two_wheels_meet_by_name(environment):
    run = environment(CORE, "genxai-zoo", "genxai-xai-gan")
    code = (
        "import torch\nimport genxai_core as gx\n"
        "data = gx.Samples(torch.rand(32, 1, 16, 16) * 2 - 1, value_range=(-1, 1))\n"
        "done = gx.create('trainer/gan', steps=2).fit(data, gx.Runtime(quiet=True))\n"
        "made = done.models['generator'].sample(2, seed=0)\n"
        "assert made.images.shape == (2, 1, 16, 16)\nprint('it works')"
    )
    assert run("-c", code).endswith("it works\n")
