"""What a user installs is whole: manifest, samples, weights, licences and commands, from the sources and from the wheel."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from npe2 import PluginManager, PluginManifest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import napari_tileseg

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "napari_tileseg"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BUNDLED = ("nuclei-2d", "hippocampus-3d")
WHEEL_LIMIT = 40_000_000

# The editable install


def test_manifest_is_valid() -> None:
    PluginManifest.from_file(ROOT / "napari.yaml").validate_imports()


def test_manifest_is_found_without_importing_the_package() -> None:
    code = """
import sys
from npe2 import PluginManifest
found = {result.manifest.name: result for result in PluginManifest.discover() if result.manifest}
assert "napari-tileseg" in found, sorted(found)
assert found["napari-tileseg"].manifest.package_version, "the manifest is not tied to the distribution"
assert not [name for name in sys.modules if name.startswith("napari_tileseg.")]
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_links_in_the_package_lead_to_the_root() -> None:
    assert (SOURCE / "napari.yaml").samefile(ROOT / "napari.yaml")
    assert (SOURCE / "sample_data").samefile(ROOT / "sample_data")


def test_segment_is_in_the_layers_menu() -> None:
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    contributions = manifest["contributions"]
    commands = {command["id"] for command in contributions["commands"]}
    widgets = {widget["command"] for widget in contributions["widgets"]}
    menu = {entry["command"] for entry in contributions["menus"]["napari/layers/segment"]}
    assert widgets <= commands
    assert menu <= commands
    assert widgets & menu


def test_every_sample_opens() -> None:
    manager = PluginManager()
    manager.discover()
    manager.activate("napari-tileseg")
    samples = {sample.key: sample for name, found in manager.iter_sample_data() if name == "napari-tileseg" for sample in found}
    assert len(samples) >= 3
    for key, sample in samples.items():
        layers = sample.open(_registry=manager.commands)
        assert layers, f"sample {key} opens as nothing"
        for data, *_ in layers:
            assert data.size, f"sample {key} holds an empty layer"


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_model_is_whole(name: str) -> None:
    spec = napari_tileseg.load_model(name).spec
    folder = SOURCE / "models" / "bundled" / name
    assert spec.licence, f"{name} does not say its licence"
    assert (folder / "weights.safetensors").stat().st_size <= 12_000_000
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert spec.licence in card
    assert spec.attribution


# What is declared is true

IMPORT_NAMES = {
    "openslide-python": "openslide",
    "pillow": "PIL",
    "pynrrd": "nrrd",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "simpleitk": "SimpleITK",
    "tensorboardx": "tensorboardX",
}
"""Distributions whose module is named otherwise."""

NOT_IMPORTED = {
    "einops": "MONAI's transformers need it",
    "openslide-bin": "openslide loads the library in it",
    "imagecodecs": "tifffile loads it for compressed files",
    "pillow": "skimage and napari load it; listed where we use it ourselves",
}
"""Dependencies that are needed although no module of ours imports them."""


WHERE_INSTALLED = {"dask_cuda": "shares out the GPUs of a computer; it brings CUDA along, so no extra of ours asks for it"}
"""Modules that are used where somebody has installed them."""


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return []


def third_party_imports() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))
    found = {name.partition(".")[0] for tree in trees for node in ast.walk(tree) for name in imported_names(node)}
    return found - set(sys.stdlib_module_names) - {"napari_tileseg", ""}


def declared() -> dict[str, Requirement]:
    """Return the dependencies, those of the extras for whole slides, medicine, clusters, ONNX and StarDist among them."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    chosen = ("slides", "cluster", "medical", "onnx", "stardist")
    requirements = map(Requirement, [*project["dependencies"], *(item for name in chosen for item in extras[name])])
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    modules = {IMPORT_NAMES.get(name, name) for name in declared()}
    unused = {IMPORT_NAMES.get(name, name) for name in NOT_IMPORTED}
    imported = third_party_imports() - set(WHERE_INSTALLED)
    assert imported <= modules, f"imported but not declared: {sorted(imported - modules)}"
    assert modules - unused <= imported, f"declared but never imported: {sorted(modules - unused - imported)}"


def test_dependencies_have_lower_bounds_only() -> None:
    for requirement in declared().values():
        assert [specifier.operator for specifier in requirement.specifier] == [">="], f"{requirement} should have a lower bound and no cap"


def test_constraints_pin_every_dependency() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    for name, requirement in declared().items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins[name]), f"constraints.txt pins {name} {pins[name]}, outside of {requirement}"
    # 2.13.0+cpu cannot be installed where the index has no such build.
    assert not [line for line in lines if "+" in line or " @ " in line]


def test_version_is_the_same_everywhere() -> None:
    assert metadata.version("napari-tileseg") == napari_tileseg.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == napari_tileseg.__version__
    assert f"\n## {napari_tileseg.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_configuration_section_is_explained() -> None:
    sections = re.split(r"(?m)^\[+tool\.", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1:]
    for section in sections:
        assert "#" in section, f"[tool.{section.partition(']')[0]}] says no why"


# The wheel, built through the sdist as installers do that find no wheel


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # Without isolation, because an isolated build would fetch hatchling from the internet.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment and return its Python.

    What it depends on is lent from the environment of the tests, so that no network is needed; its own files are not,
    because the editable install is a path entry, and path entries are not followed from a borrowed folder.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=sys.platform != "win32")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    run(sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "lent.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}), encoding="utf-8")
    return python


def ask(python: Path, code: str) -> Any:
    """Run code in the new environment, outside of the repository, and return what it prints as JSON."""
    return json.loads(run(python, "-W", "ignore", "-c", code, cwd=python.parent).splitlines()[-1])


@pytest.mark.slow
def test_wheel_is_small_and_holds_no_strangers(wheel: Path) -> None:
    assert wheel.stat().st_size < WHEEL_LIMIT
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names)), "a file is in the wheel twice"
    assert {name.partition("/")[0] for name in names} == {"napari_tileseg", f"napari_tileseg-{napari_tileseg.__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_sources(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    samples = [path for path in (ROOT / "sample_data").rglob("*") if path.is_file()]
    expected = {path.relative_to(SOURCE.parent).as_posix() for path in tracked}
    expected |= {f"napari_tileseg/sample_data/{path.relative_to(ROOT / 'sample_data').as_posix()}" for path in samples}
    assert expected <= names, sorted(expected - names)


@pytest.mark.slow
def test_wheel_carries_licences_and_attributions(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    licences = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    for ending in ("LICENSE", "sample_data/README.md", *(f"{name}/CARD.md" for name in BUNDLED)):
        assert [name for name in licences if name.endswith(ending)], f"{ending} is not among {licences}"
    fields = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    assert f"License-Expression: {PYPROJECT['project']['license']}\n" in fields
    assert "Classifier: Framework :: napari\n" in fields
    base = [line for line in fields.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not [line for line in base if re.search("pyqt|pyside", line, re.IGNORECASE)], "the Qt binding is the user's choice"


@pytest.mark.slow
def test_installed_wheel_finds_its_parts(installed: Path) -> None:
    found = ask(
        installed,
        """
import json
from pathlib import Path
from npe2 import PluginManager
import napari_tileseg
manager = PluginManager()
manager.discover()
manager.activate("napari-tileseg")
manifest = manager.get_manifest("napari-tileseg")
samples = [sample for name, found in manager.iter_sample_data() if name == "napari-tileseg" for sample in found]
print(json.dumps({
    "package": napari_tileseg.__file__,
    "version": manifest.package_version,
    "samples": {sample.key: len(sample.open(_registry=manager.commands)) for sample in samples},
    "models": [spec.name for spec in napari_tileseg.list_models()],
    "parameters": {
        name: sum(p.numel() for p in napari_tileseg.load_model(name).module.parameters()) for name in ("nuclei-2d", "hippocampus-3d")
    },
}))
""",
    )
    assert Path(found["package"]).is_relative_to(installed.parents[1]), "the sources were imported, not the wheel"
    assert found["version"] == napari_tileseg.__version__
    assert len(found["samples"]) >= 3
    assert all(found["samples"].values())
    assert set(found["models"]) >= set(BUNDLED)
    assert all(found["parameters"].values())


@pytest.mark.slow
def test_installed_command_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("tileseg" + installed.suffix)
    assert napari_tileseg.__version__ in run(command, "info", cwd=tmp_path)
    run(command, "demo", "--help", cwd=tmp_path)
