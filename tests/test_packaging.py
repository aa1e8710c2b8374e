"""What an installation contains, needs, and does without.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import configparser
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import speechbrain_ee

# Distributions whose import name is not their own name in lower case.
IMPORT_NAMES = {
    "espeakng-loader": "espeakng_loader",
    "pyyaml": "yaml",
    "ruamel.yaml": "ruamel",
    "silero-vad": "silero_vad",
}
TOOLS = {"dev"}  # an extra of tools, which the library must not import
# Rooms that are nothing without an extra. Their command imports without it, to
# say what is missing.
ROOMS_OF_EXTRAS = {"sweeps": "optuna"}

# A machine without the optional packages: every finder of modules denies them,
# which is what an import and importlib.util.find_spec then see.
CORE_IMPORT = """
import importlib, pkgutil, sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in {blocked!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(name + " is not blocked: this test tests nothing")

import speechbrain_ee
walk = pkgutil.walk_packages(
    speechbrain_ee.__path__, "speechbrain_ee.", onerror=sys.exit
)
for module in walk:
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        room = module.name.split(".")[1]
        if {rooms!r}.get(room) != error.name or module.name.endswith("command"):
            raise
    sys.stdout.write(module.name + "\\n")
"""


@pytest.fixture(scope="module")
def metadata(repository: Path) -> configparser.ConfigParser:
    """setup.cfg, parsed."""
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> dict[str, Requirement]:
    """Requirement lines, by name in lower case."""
    lines = [line for line in text.splitlines() if line.strip()]
    parsed = [Requirement(line) for line in lines]
    return {each.name.lower(): each for each in parsed}


def core(metadata: configparser.ConfigParser) -> dict[str, Requirement]:
    """What every installation needs."""
    return requirements(metadata["options"]["install_requires"])


def extras(
    metadata: configparser.ConfigParser,
) -> dict[str, dict[str, Requirement]]:
    """What each extra adds."""
    section = metadata["options.extras_require"]
    return {name: requirements(text) for name, text in section.items()}


def import_names(distributions: list[str]) -> set[str]:
    """The names under which distributions are imported."""
    return {IMPORT_NAMES.get(name, name) for name in distributions}


def imported(tree: ast.AST) -> set[str]:
    """Roots of the absolute imports anywhere below a syntax tree."""
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(node.module.partition(".")[0])
    return roots


def library_files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(Path(speechbrain_ee.__file__).parent.rglob("*.py"))


def test_core_imports_with_no_extra_installed(repository, metadata):
    """Every module imports where no optional package exists."""
    optional = set()
    for name, needed in extras(metadata).items():
        if name not in TOOLS:
            optional |= import_names(list(needed))
    program = CORE_IMPORT.format(
        blocked=sorted(optional), rooms=ROOMS_OF_EXTRAS
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    package = Path(speechbrain_ee.__file__).parent
    expected = set()
    for path in library_files():
        parts = path.relative_to(package.parent).with_suffix("").parts
        expected.add(".".join(parts).removesuffix(".__init__"))
    assert set(run.stdout.split()) == expected - {"speechbrain_ee"}


def test_every_import_is_declared(metadata):
    """At module level only core packages; elsewhere core or an extra."""
    own = set(sys.stdlib_module_names) | {"speechbrain_ee"}
    needed = import_names(list(core(metadata)))
    optional = set()
    for name, group in extras(metadata).items():
        if name not in TOOLS:
            optional |= import_names(list(group))
    for path in library_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        undeclared = imported(tree) - own - needed - optional
        assert not undeclared, f"{path}: not in setup.cfg: {undeclared}"
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                early = imported(node) & optional
                early -= {ROOMS_OF_EXTRAS.get(path.parent.name)}
                assert not early, f"{path}: import {early} where it is used"


def test_torch_and_torchaudio_are_one_pair(metadata):
    """Every release that does not import beside its partner is left out."""
    needed = core(metadata)
    torch, torchaudio = needed["torch"], needed["torchaudio"]
    # A torchaudio up to 2.10 asks for the torch of its own number; 2.11.1
    # imports beside torch 2.13 and later.
    assert not torchaudio.specifier.contains("2.11.0")
    assert torchaudio.specifier.contains("2.11.1")
    for version in ("2.11.0", "2.12.0", "2.12.1"):
        assert not torch.specifier.contains(version)
    for version in ("2.7.1", "2.10.0", "2.13.0", "2.14.1", "2.99.0", "3.1.0"):
        assert torch.specifier.contains(version)
    for version in ("2.7.1", "2.10.0"):
        assert torchaudio.specifier.contains(version)


def test_installed_versions_are_in_the_declared_ranges(metadata):
    """The tests run against what setup.cfg promises."""
    for name, requirement in core(metadata).items():
        version = importlib.metadata.version(name)
        assert requirement.specifier.contains(version), (name, version)


def test_extras_are_optional(metadata):
    """The extras of the README exist, and none is a core dependency."""
    groups = extras(metadata)
    assert set(groups) >= {"demo", "ssl", "onnx", "sweep", "dev"}
    assert "espeakng-loader" in groups["demo"], "GPL: an extra, never core"
    for name, needed in groups.items():
        assert not set(needed) & set(core(metadata)), name


def test_what_tests_need_of_the_extras_is_the_same(metadata):
    """CI installs ``dev``: it tests transformers in the range of ``ssl``."""
    groups = extras(metadata)
    needed = groups["ssl"]["transformers"]
    assert str(groups["dev"]["transformers"]) == str(needed)
    for name in set(groups["dev"]) & set(groups["ssl"]):
        version = importlib.metadata.version(name)
        assert needed.specifier.contains(version), (name, version)


def test_recipe_requirements_match(repository, metadata):
    """extra_requirements.txt repeats setup.cfg without contradicting it."""
    path = repository / "recipes/LibriSpeech/EarlyExit/extra_requirements.txt"
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    declared = core(metadata) | extras(metadata)["demo"]
    for name, requirement in requirements(text).items():
        assert str(requirement) == str(declared[name])


def test_version_is_written_once(repository, metadata):
    """setup.cfg reads the version; the citation and the changelog agree."""
    assert metadata["metadata"]["version"] == "attr: speechbrain_ee.__version__"
    version = re.escape(speechbrain_ee.__version__)
    citation = (repository / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {version}$", citation, re.MULTILINE)
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{version}\]", changelog, re.MULTILINE)


def test_console_script(metadata):
    """The command points at a function, also in the installed metadata."""
    line = metadata["options.entry_points"]["console_scripts"].strip()
    assert line == "speechbrain-ee = speechbrain_ee.__main__:main"
    module = importlib.import_module("speechbrain_ee.__main__")
    assert callable(module.main)
    try:
        installed = importlib.metadata.distribution("speechbrain-ee")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("speechbrain-ee is not installed: `make install`")
    assert installed.version == speechbrain_ee.__version__
    scripts = {
        entry.name: entry.value
        for entry in installed.entry_points
        if entry.group == "console_scripts"
    }
    assert scripts == {"speechbrain-ee": "speechbrain_ee.__main__:main"}
