"""Files from anybody: refused in a sentence, at once, and nothing is fetched.

Aliases in a policy made messages of 52 MB; gzip, devices and huge models took
all memory; a pipe as `config.json` hung for ever; the hub was asked for what
an untrusted YAML names; weights of NaN transcribed everything to nothing.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import os
import re
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch._dynamo  # once per process; for tensors on paper torch needs it
from safetensors.torch import load_file, save_file

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.folder.training_run import export_run, run_folder
from speechbrain_ee.inference.onnx.host import read_manifest
from tests.inference.runs import write_run
from tests.soak import hostile

LONGEST_S = 10
MOST_MB = 1000  # what an input may take at most; torch loads its compiler once


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that is read; only to be read."""
    return hostile.write_all(tmp_path_factory.mktemp("made"))


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own."""
    return Path(shutil.copytree(made / "model", tmp_path / "model"))


@contextmanager
def refused(message: str) -> Iterator[None]:
    """By a short InputError, in time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        yield
    assert len(str(caught.value)) < hostile.LONGEST_MESSAGE
    assert time.process_time() - began < LONGEST_S
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < MOST_MB * 1024


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change what a JSON file holds."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def nested(key: str) -> str:
    """Ten to the seventh texts in a few lines of YAML."""
    lines = [f"x0: &x0 [{', '.join(['lol'] * 10)}]"]
    for level in range(1, 7):
        names = ", ".join([f"*x{level - 1}"] * 10)
        lines.append(f"x{level}: &x{level} [{names}]")
    return "\n".join([*lines, f"{key}: *x6\n"])


def of_policy(path: Path, key: str, line: str) -> str:
    """The text of a policy with another line for a key."""
    kept = path.read_text("utf-8").splitlines()
    kept = [each for each in kept if not each.startswith(f"{key}:")]
    return "\n".join([line, *kept, ""])


@pytest.mark.parametrize(
    ("key", "line", "said"),
    [
        *(
            (key, nested(key), "alias")
            for key in ("schema", "criterion", "threshold", "more")
        ),
        # Found by fuzzing: each raises an error of another class.
        *(
            ("threshold", f"threshold: {scalar}", "entropy.ltt.yaml")
            for scalar in (
                *("!!timestamp x", "!!bool x", "!!int x", "2026-99-99", "0x"),
            )
        ),
        ("criterion", f"criterion: [{'1, ' * 9000}1]", "criterion"),
    ],
)
def test_a_policy_of_strange_values(model, key, line, said):
    path = model / "policies/entropy.ltt.yaml"
    path.write_text(of_policy(path, key, line), "utf-8")
    with refused(said):
        read_policy(path)


@pytest.mark.parametrize("name", ["selector.json.gz", "calibration.jsonl.gz"])
@pytest.mark.parametrize("filling", [b" ", b"\n", b"["])
def test_six_gigabytes_in_a_small_file(model, name, filling):
    part = gzip.compress(filling * 10**8, 1)
    with open(model / name, "wb") as file:
        for _ in range(60):
            file.write(part)
    read = read_selector if "selector" in name else read_trace
    with refused(name):
        read(model / name)


@pytest.mark.parametrize("place", ["exits", "id", "evidence"])
def test_a_trace_of_one_endless_value(model, place):
    path = model / "calibration.jsonl.gz"
    head, first, rest = gzip.decompress(path.read_bytes()).split(b"\n", 2)
    row = json.loads(first)
    value: list = []
    for _ in range(900):
        value = [value]
    row[place] = value
    if place == "evidence":
        del row[place]
        row["exits"][0]["evidence"] = {"entropy": value}
    text = json.dumps(row).encode()
    path.write_bytes(gzip.compress(b"\n".join((head, text, rest))))
    with refused(place):
        read_trace(path)


FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.model",
    "policies/entropy.ltt.yaml",
    "selector.json.gz",
    "combination.json",
    "calibration.jsonl.gz",
)


@pytest.mark.parametrize("name", FILES)
def test_pipes_devices_and_folders_are_no_files(model, name):
    path = model / name
    makers = {
        "pipe": os.mkfifo,
        "device": lambda path: os.symlink("/dev/zero", path),
        "folder": os.mkdir,
    }
    path.unlink()
    for make in makers.values():
        make(path)
        with refused(name):
            read_model_folder(model)
        path.rmdir() if path.is_dir() else path.unlink()


def test_depth(model):
    deep = 20_000
    path = model / "policies/entropy.ltt.yaml"
    good = path.read_text("utf-8")
    for text in ("- " * deep, "[" * deep, f"a: {'{a: ' * deep}"):
        path.write_text(text, "utf-8")
        with refused("entropy.ltt.yaml"):
            read_model_folder(model)
    path.write_text(good, "utf-8")
    (model / "config.json").write_text("[" * 10**6, "utf-8")
    with refused("config.json"):
        read_model_folder(model)


def stack(content: dict) -> dict:
    """Arguments of SpeechBrain's layers in a config."""
    return content["model"]["encoder"]["stack"]


def features(content: dict) -> dict:
    """Arguments of the filterbank in a config."""
    return content["model"]["encoder"]["features"]["compute_features"]


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda c, rate=rate: c.update(sample_rate=rate)
            for rate in (1, 10**9, 10**400, -1, 2**62)
        ),
        lambda c: c.update(schema="x" * 10**6),
        lambda c: stack(c).update(num_encoder_layers=10**5),
        lambda c: stack(c).update(num_encoder_layers=10**8),
        lambda c: stack(c).update(d_model=2**16),
        lambda c: stack(c).update(d_ffn=10**6),
        lambda c: c["model"]["heads"].update(vocab_size=10**6),
        lambda c: c["model"]["heads"].update(exit_layers=[*range(1, 10**5)]),
        lambda c: features(c).update(n_mels=10**6),
        lambda c: features(c).update(n_fft=10**6),
    ],
)
def test_configs_that_ask_for_too_much(model, change):
    """Sample rates, and models larger than their weights."""
    edit(model / "config.json", change)
    with refused(r"config\.json"):
        read_model_folder(model)


def test_a_header_that_promises_gigabytes(model):
    path = model / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes((10**12).to_bytes(8, "little") + content[8:])
    with refused(r"model\.safetensors: not a whole"):
        read_model_folder(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_weights_that_are_no_numbers(model, value):
    """Or that give none, although they are some."""
    path = model / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.dim() > 1:
            tensor[..., 0] = value
    save_file(tensors, path)
    with refused("NaN or infinite"):
        read_model_folder(model)


def test_checkpoints_that_are_no_numbers(made, tmp_path):
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    for path in (run / "save").glob("CKPT*/model.ckpt"):
        state = torch.load(path, weights_only=True)
        next(t for t in state.values() if t.is_floating_point()).fill_(1e999)
        torch.save(state, path)
    with refused("NaN or infinite"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_whose_yaml_is_hostile(made, tmp_path):
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    path = run / "hyperparams.yaml"
    good = path.read_text("utf-8")
    for text in (
        f"{good}\n? [a, b]\n: c\n",
        good.replace("sample_rate: 16000", "sample_rate: [1]"),
        good.replace("save_folder: ", "save_folder: [1] #"),
        good.replace("average_checkpoints: ", "average_checkpoints: x #"),
        good.replace("num_encoder_layers: ", "num_encoder_layers: 100000 #"),
        f"{good}\nvalid_csv: &a [*a]\n",
        f"{good}\ndecodings: {'(' * 5000}\n",
    ):
        assert text != good
        path.write_text(text, "utf-8")
        with refused("hyperparams"):
            run_folder(run)


def test_a_folder_of_many_policies_loads_at_once(model):
    """Half of the time to load a model was YAML, read in Python."""
    text = (model / "policies/entropy.ltt.yaml").read_text("utf-8")
    for number in range(40):
        (model / f"policies/p{number}.ltt.yaml").write_text(text, "utf-8")
    read_model_folder(model)
    began = time.process_time()
    read_model_folder(model)
    assert time.process_time() - began < 1.0


# ---- Nothing is fetched ----------------------------------------------------


@pytest.fixture
def ssl_run(tmp_path: Path) -> Path:
    """A run on a pre-trained encoder, which its YAML names in a folder."""
    pytest.importorskip("transformers")
    from tests.models.ssl_models import write_ssl_model

    source = str(write_ssl_model(tmp_path / "backbone"))
    run = write_run(
        tmp_path / "run", "tiny_ssl", source=source, exit_layers=[1, 2, 3]
    )
    return run.folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whom anybody tries to reach; nobody is reached."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    found: list[object] = []

    def refuse(*given: object, **_: object) -> None:
        found.append(given[:2])
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return found


def rename_source(run: Path, name: str) -> None:
    """Have the YAML of a run name another encoder."""
    path = run / "hyperparams.yaml"
    text = path.read_text("utf-8")
    old = str(run.parent / "backbone")
    assert old in text
    path.write_text(text.replace(old, name), "utf-8")


def test_opening_a_run_fetches_nothing(ssl_run, asked, tmp_path):
    rename_source(ssl_run, "evil/encoder")
    with pytest.raises(InputError, match="evil/encoder.*hf download"):
        run_folder(ssl_run)
    with pytest.raises(InputError, match="hf download"):
        export_run(ssl_run, tmp_path / "out")
    assert asked == [] and not (tmp_path / "out").exists()


def test_what_was_fetched_before_is_found(ssl_run, asked, tmp_path):
    name, cache = "some/encoder", tmp_path / "cache"
    kept = cache / "models--some--encoder"
    shutil.copytree(tmp_path / "backbone", kept / "snapshots" / "0" / "")
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("0", "utf-8")
    rename_source(ssl_run, name)
    path = ssl_run / "hyperparams.yaml"
    text = path.read_text("utf-8")
    text = re.sub(r"(?m)^( *save_path:).*$", rf"\1 {cache}", text)
    path.write_text(text, "utf-8")
    folder = run_folder(ssl_run)
    assert folder.exit_layers == (1, 2, 3) and asked == []


def test_a_backbone_that_holds_something_else(ssl_run, asked, tmp_path):
    """Another file, or a million layers."""
    model = export_run(ssl_run, tmp_path / "model")
    other = model / "backbone/processor_config.json"
    os.mkfifo(other)
    with refused("processor_config.json"):
        read_model_folder(model)
    other.unlink()
    change = {"num_hidden_layers": 10**6}
    edit(model / "backbone/config.json", lambda c: c.update(change))
    with refused("larger than its weights"):
        read_model_folder(model)
    assert asked == []


def test_a_spectrum_too_large_for_memory(ssl_run, tmp_path):
    """Filters are made by NumPy, which nobody counts."""
    model = export_run(ssl_run, tmp_path / "model")
    edit(
        model / "backbone/preprocessor_config.json",
        lambda c: c.update(n_fft=10**9),
    )
    with refused("key n_fft: 1000000000 is more than the 4096"):
        read_model_folder(model)


@pytest.mark.parametrize("key", ["vocab_size", "exit_layers", "positions"])
def test_a_manifest_of_graphs_without_a_value(made, tmp_path, key):
    """Found by fuzzing: other keys were compared with it before it was."""
    shutil.copy(made / "graphs/onnx.json", tmp_path)
    edit(tmp_path / "onnx.json", lambda content: content.update({key: None}))
    with refused(key):
        read_manifest(tmp_path)


# ---- At random -------------------------------------------------------------


@pytest.mark.parametrize("target", hostile.TARGETS)
def test_some_files_changed_at_random(made, target):
    """The same for ten minutes: `make soak`."""
    count, fault = hostile.attacked(target, made, 6, 1)
    assert fault is None and count >= 6
