"""The settings and habits that matter, each held by a test that can fail."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import gradclip
import gradclip.torch
from gradclip import recipes

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["torch", "jax", "keras", "numpy", "plotly", "typer", "rich", "sqlite3", "pandas", "tensorboard"]
MODULES = [m.name for m in pkgutil.walk_packages(gradclip.__path__, "gradclip.") if not m.name.endswith("__main__")]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", [gradclip, gradclip.torch], ids=lambda m: m.__name__)
def test_public_names_are_importable_documented_and_typed(module):
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, f"{name} is not documented"
            assert not thing.__doc__.startswith(f"{name}("), f"{name} has only a generated docstring"
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
            assert not untyped, f"{name}: {untyped} not annotated"
            assert signature.return_annotation is not signature.empty
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exist(name):
    if name.startswith("gradclip.backends.triton_"):
        pytest.importorskip("triton", reason="the GPU kernels need Triton, which has no wheels for this platform")
    module = import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"


def test_unknown_names_say_so():
    with pytest.raises(AttributeError, match="'gradclip' has no attribute 'clip_grad_nrom_'"):
        gradclip.clip_grad_nrom_  # noqa: B018


def test_import_is_light():
    loaded = run(f"import sys, gradclip; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_torch_comes_when_it_is_used_and_only_then():
    assert run("import sys, gradclip; gradclip.global_norm(1); print('torch' in sys.modules)").strip() == "False"
    assert run("import sys, gradclip; gradclip.clip_; print('torch' in sys.modules)").strip() == "True"


@pytest.mark.parametrize("compiler", ["the usual one", "none"])
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path, compiler):
    """Built from a copy of the sources: setuptools leaves a build folder behind, and packs what an older one has left."""
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.egg-info"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(tmp_path)]
    environment = dict(os.environ, CC="/bin/false") if compiler == "none" else None
    subprocess.run(build, check=True, capture_output=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"gradclip", f"gradclip-{gradclip.__version__}.dist-info"}
    assert not [name for name in names if "test" in name.lower()]
    compiled = [name for name in names if name.startswith("gradclip/backends/_kernel")]
    assert [Path(name).suffix for name in compiled] == ([".so"] if compiler != "none" and shutil.which("cc") else [])
    unpacked = {path for path in (ROOT / "src" / "gradclip").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    sources = {str(p.relative_to(ROOT / "src")) for p in unpacked if p.suffix not in (".c", ".h", ".so", ".pyd")}
    assert sources == {name for name in names if name.startswith("gradclip/")} - set(compiled)


def test_the_changelog_knows_this_version():
    assert f"## {gradclip.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_complexity_is_limited():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "C90" in config["tool"]["ruff"]["lint"]["select"]
    assert config["tool"]["mypy"]["strict"] is True
    assert config["tool"]["pytest"]["ini_options"]["filterwarnings"] == ["error"]


def test_recipes_are_named_like_the_fields_they_set():
    for name, recipe in recipes.RECIPES.items():
        assert getattr(gradclip, name) is recipe.build
        assert recipe.source
        first = next(iter(recipe.parameters.values()))
        built = recipe.build(0.5) if first.default is first.empty else recipe.build()
        assert str(built).startswith(name)


class TestReadme:
    text = (ROOT / "README.md").read_text()

    def test_the_quick_start_runs_as_written(self):
        blocks = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        assert len(blocks) == 3
        out = "".join(run(f"import warnings; warnings.simplefilter('error')\n{block}") for block in blocks)
        assert out.count("-> 1.0") == 3
        assert "[tensor([ 0.5000, -0.5000])]" in out
        assert "{'weight': (4, 1, 8), 'bias': (4, 1)}" in out

    def test_the_table_of_recipes_is_current(self):
        from gradclip.cli.recipes import markdown

        between = self.text.split("<!-- recipes: written by `gradclip recipes --markdown` -->")[1].split("<!-- /recipes -->")[0]
        assert between.strip() == markdown().strip()

    def test_the_manual_of_the_findings_is_current(self):
        from gradclip.cli.findings import markdown

        manual = (ROOT / "docs" / "findings-manual.md").read_text()
        assert manual.split("<!-- manual -->")[1].split("<!-- /manual -->")[0].strip() == markdown().strip()

    def test_links_lead_somewhere(self):
        for link in re.findall(r"\]\((?!http)([^)#]+)", self.text):
            assert (ROOT / link).exists(), link
