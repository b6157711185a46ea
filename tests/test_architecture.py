import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnnsvm

PACKAGE = Path(cnnsvm.__file__).parent
#: Lowest first: a module may import from its own layer and from those before it.
LAYERS = [
    {"cnnsvm"},
    {"io"},
    {"data"},
    {"features", "svm"},
    {"detection", "localization", "generation"},
    {"evaluation"},
    {"audit"},
    {"report"},
    {"web", "scale"},
    {"cli", "__main__"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(name):
    for level, names in enumerate(LAYERS):
        if name in names:
            return level
    raise AssertionError(f"{name} has no layer: add it to LAYERS")


def home(path):
    relative = path.relative_to(PACKAGE)
    name = relative.parts[0].removesuffix(".py")
    return "cnnsvm" if name == "__init__" else name


def imported_homes(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnnsvm":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            known = {name for names in LAYERS for name in names}
            yield from (name if name in known else "cnnsvm" for name in names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "cnnsvm":
                    yield parts[1] if len(parts) > 1 else "cnnsvm"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up(path):
    if path == PACKAGE / "__init__.py":
        return  # its imports happen on first use
    own = layer_of(home(path))
    for name in imported_homes(path):
        assert layer_of(name) <= own, f"{path.name} in {home(path)} imports from {name}"


def module_name(path):
    return ".".join(("cnnsvm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imported_on_loading(path, known):
    """Yield the modules that a module needs before it is loaded itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnnsvm"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def test_no_circle_of_imports():
    known = {module_name(path): path for path in MODULES}
    needs = {name: set(imported_on_loading(path, known)) - {name} for name, path in known.items()}
    while free := [name for name, needed in needs.items() if not needed]:
        needs = {name: needed - set(free) for name, needed in needs.items() if name not in free}
    assert not needs, f"these modules import each other in a circle: {sorted(needs)}"


def test_every_folder_has_a_layer():
    assert {home(path) for path in MODULES} == {name for names in LAYERS for name in names}


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_importing_the_package_is_cheap():
    code = (
        "import sys, cnnsvm; print([m for m in ('torch', 'sklearn', 'pandas') if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_data_and_generation_do_not_load_torch():
    code = "import sys, cnnsvm.data.readers, cnnsvm.generation; print('torch' in sys.modules)"
    assert run_python(code).stdout.strip() == "False"


def test_public_names_are_there():
    assert cnnsvm.InpaintDetector.__name__ == "InpaintDetector"
    assert cnnsvm.InpaintLocalizer.__name__ == "InpaintLocalizer"
    assert {"InpaintDetector", "InpaintLocalizer"} <= set(dir(cnnsvm))
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        cnnsvm.Detector  # noqa: B018


def test_the_library_does_not_print():
    quiet = [path for path in MODULES if home(path) not in ("cli", "__main__")]
    for path in quiet:
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert "print" not in calls, path
