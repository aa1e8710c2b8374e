"""Where each part of this repository goes in SpeechBrain's.

SpeechBrain keeps what needs nothing beyond its own requirements in its core
and the rest in ``speechbrain.integrations``. The models (and the one error
that everything raises) need PyTorch alone, so they are lobes; all other rooms
go to one integration.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "speechbrain_ee"
LOBES = "speechbrain.lobes.models.early_exit"
INTEGRATION = "speechbrain.integrations.early_exit"

# Our module and the one it becomes; the longest that fits decides.
MODULES = {
    LIBRARY: INTEGRATION,
    f"{LIBRARY}.models": LOBES,
    f"{LIBRARY}.errors": f"{LOBES}.errors",
    f"{LIBRARY}.files": f"{LOBES}.files",
}

OUR_RECIPE = "recipes/LibriSpeech/EarlyExit"
RECIPE = "recipes/LibriSpeech/ASR/early_exit"
# SpeechBrain has its own preparation, shared by all recipes of the corpus.
PREPARATION = "librispeech_prepare.py"
PREPARATION_LINK = f"../../{PREPARATION}"

TABLE = "tests/recipes/LibriSpeech.csv"
TESTS = "tests/unittests/early_exit"
# Tests of these folders go along, if their room does.
TEST_FOLDERS = (
    "data",
    "models",
    "exits",
    "evaluation",
    "training",
    "inference",
    "known_issues",
)
# A test that names one of these is about this repository.
ABOUT_THIS_REPOSITORY = (
    "repository",
    "recipe_folder",
    "hparams/",
    "tests.recipes",
    "benchmarks",
)
# What SpeechBrain 1.1 itself requires (its pyproject.toml).
SPEECHBRAIN_REQUIRES = {
    "hyperpyyaml",
    "joblib",
    "numpy",
    "packaging",
    "requests",
    "scipy",
    "sentencepiece",
    "soundfile",
    "torch",
    "torchaudio",
    "tqdm",
    "huggingface_hub",
    "speechbrain",
}
# hyperpyyaml brings these two.
SPEECHBRAIN_REQUIRES |= {"pyyaml", "ruamel.yaml"}


def new_module(name: str) -> str:
    """The name that a module of ours has in SpeechBrain.

    Arguments
    ---------
    name : str
        Dotted name, of a module or of something in it.

    Returns
    -------
    str
        Its dotted name there.

    Example
    -------
    >>> new_module("speechbrain_ee.models.heads.CTCHeads")
    'speechbrain.lobes.models.early_exit.heads.CTCHeads'
    >>> new_module("speechbrain_ee.exits")
    'speechbrain.integrations.early_exit.exits'
    """
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        stem = ".".join(parts[:size])
        if stem in MODULES:
            return ".".join([MODULES[stem], *parts[size:]])
    raise ValueError(f"{name} is no module of {LIBRARY}")


def new_path(path: str) -> str:
    """The path that a Python file of ours has in SpeechBrain.

    Arguments
    ---------
    path : str
        Relative to the root of this repository.

    Returns
    -------
    str
        Relative to the root of SpeechBrain's.

    Example
    -------
    >>> new_path("speechbrain_ee/models/heads.py")
    'speechbrain/lobes/models/early_exit/heads.py'
    >>> new_path("tests/exits/test_policy.py")
    'tests/unittests/early_exit/exits/test_policy.py'
    """
    if path.startswith("tests/"):
        return f"{TESTS}/{path.removeprefix('tests/')}"
    stem, dot, suffix = path.partition(".")
    return new_module(stem.replace("/", ".")).replace(".", "/") + dot + suffix
