"""The loop on onnxruntime decides what the loop on PyTorch decides.

Axes: B utterances, T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import configparser
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

# ruff: noqa: E402 - the extra comes before what needs it
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from sentencepiece import SentencePieceProcessor

from speechbrain_ee.data.words import pieces_of
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.criteria.ngram import CharNgram
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.inference.onnx.export import (
    export_onnx,
    export_static,
    tokens,
)
from speechbrain_ee.inference.onnx.host import OnnxRecogniser
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.runner import LiveRunner
from tests.helpers import SAMPLE_RATE, VOCAB, padded
from tests.inference.live_runs import EXITS, LENGTHS, live_model, waves
from tests.inference.runs import write_tokenizer
from tests.test_packaging import IMPORT_NAMES, import_names, requirements

SHIPPED = {
    "half": ExitPolicy("entropy", EXITS, -0.2, "wer=+5%", "naive"),
    "spelling": ExitPolicy("plausibility", EXITS, -3.0, "wer=+5%", "naive"),
    "learned": ExitPolicy("learned", EXITS, 0.0, "wer=+5%", "naive"),
}
TEXTS = ["abc cab", "bad dab", "acid"]
WITHOUT_TORCH = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
import numpy as np
from speechbrain_ee.inference.onnx.host import OnnxRecogniser
rng = np.random.default_rng(0)
waves = [0.1 * rng.standard_normal(n) for n in (9000, 4000)]
host = OnnxRecogniser(sys.argv[1])
for policy in (None, 2, "last", "half", "spelling"):
    print([(one.exit, one.text) for one in host.transcribe(waves, policy)])
assert not any(name == "torch" or name.startswith("torch.")
               for name, module in sys.modules.items() if module is not None)
"""


@pytest.fixture(scope="module", params=("RoPEMHA", "RelPosMHAXL"))
def made(request, tmp_path_factory):
    """A model folder, its graphs, and both loops over them."""
    model = live_model(attention_type=request.param)
    place = tmp_path_factory.mktemp("made")
    graphs = place / "graphs"
    tokenizer = SentencePieceProcessor(
        model_file=str(write_tokenizer(place / "letters.model"))
    )
    selector = SimpleNamespace(language_model=CharNgram.train(TEXTS))
    folder = SimpleNamespace(
        model=model,
        selector=selector,
        name="tiny",
        sample_rate=SAMPLE_RATE,
        tokenizer=tokenizer,
        decoding="ctc_greedy",
        policies=SHIPPED,
        default_policy="half",
    )
    export_onnx(folder, graphs)
    pieces = pieces_of(tokenizer)  # as EarlyExitASR has them
    runner = LiveRunner(model, pieces, tokenizer.decode_ids, SAMPLE_RATE)
    return SimpleNamespace(
        folder=folder,
        graphs=graphs,
        runner=runner,
        host=OnnxRecogniser(graphs),
        policies=Policies(model.exit_layers, SHIPPED, selector=selector),
    )


def middling(made, criterion: str) -> float:
    """A threshold at which some stop early and some do not."""
    first = ThresholdPolicy(criterion, -1e9, len(EXITS))
    found = made.host.transcribe([w.numpy() for w in waves()], first)
    scores = sorted(each.score for each in found)
    return (scores[2] + scores[3]) / 2


@pytest.mark.parametrize(
    "criterion",
    (
        "entropy",
        "max_prob",
        "margin_nonblank",
        "entropy_nonblank",
    ),
)
def test_decisions_are_those_of_the_live_runner(made, criterion):
    policy = ThresholdPolicy(criterion, middling(made, criterion), len(EXITS))
    agree(made, policy, several=True)


@pytest.mark.parametrize(
    "policy",
    (
        FixedExit(1),
        FixedExit(3),
        ThresholdPolicy("agreement", -0.5, len(EXITS)),
        ThresholdPolicy("patience_transcript:patience=1", -0.3, len(EXITS)),
        ThresholdPolicy("max_prob", (np.inf, 0.0, np.inf), len(EXITS)),
        ThresholdPolicy("unseen_words", -0.9, len(EXITS)),
        ThresholdPolicy("plausibility", -4.0, len(EXITS)),
        ExitPolicy("entropy", (EXITS[1], EXITS[3]), -0.5, "x", "naive"),
    ),
    ids=str,
)
def test_so_do_other_policies(made, policy):
    agree(made, policy)


def agree(made, policy, several: bool = False) -> None:
    """Both loops say the same, in a batch and alone."""
    audio = waves(LENGTHS)
    live = made.policies.resolve(policy)
    wanted = made.runner.run(*padded(audio), live)
    arrays = [wav.numpy() for wav in audio]
    found = made.host.transcribe(arrays, policy)
    alone = [made.host.transcribe([one], policy)[0] for one in arrays]
    same_call = made.host.run(*padded(audio), live)
    for one, *others in zip(wanted, found, alone, same_call):
        for other in others:
            assert (other.exit, other.layer) == (one.exit, one.layer)
            assert (other.tokens, other.text) == (one.tokens, one.text)
            np.testing.assert_allclose(other.score, one.score, atol=1e-4)
            assert other.confidence == pytest.approx(one.confidence, abs=1e-4)
            assert other.macs == one.macs
            assert other.duration_s == pytest.approx(one.duration_s)
            times = [(w.text, w.start_s, w.end_s) for w in other.words]
            assert times == [(w.text, w.start_s, w.end_s) for w in one.words]
    if several:
        assert len({one.exit for one in wanted}) > 1


def test_nothing_above_the_exit_is_computed(made):
    host = OnnxRecogniser(made.graphs)
    ran = []

    class Counted:
        def __init__(self, exit, session):
            self.exit, self.session = exit, session

        def run(self, wanted, inputs, *rest):
            ran.append((self.exit, *inputs["hidden"].shape[:2]))
            return self.session.run(wanted, inputs, *rest)

    host.segments = [Counted(k, s) for k, s in enumerate(host.segments, 1)]
    audio = [wav.numpy() for wav in waves()]
    threshold = middling(made, "entropy")
    found = host.transcribe(
        audio, ThresholdPolicy("entropy", threshold, len(EXITS))
    )
    for exit, rows, frames in ran:
        still = [n for n, one in enumerate(found) if one.exit >= exit]
        assert rows == len(still)
        longest = max(len(audio[n]) for n in still)
        assert frames == -(-(longest // 160 + 1) // 4)
    assert max(exit for exit, *_ in ran) == max(one.exit for one in found)


def test_policies_by_name_and_by_file(made, tmp_path):
    host = made.host
    assert host.resolve().rule == SHIPPED["half"].policy
    write_policy(tmp_path / "own.yaml", SHIPPED["half"])
    assert host.resolve(tmp_path / "own.yaml") == host.resolve("half")
    assert host.resolve("last").exits == (4,)
    for wrong in ("nobody", 0, 5, SHIPPED["learned"]):
        with pytest.raises(InputError, match="policy"):
            host.resolve(wrong)
    # What graphs cannot follow is not shipped with them.
    assert set(host.policies) == {"half", "spelling"}


def test_graphs_that_are_not_there(made, tmp_path):
    with pytest.raises(InputError, match="onnx.json"):
        OnnxRecogniser(tmp_path)
    with pytest.raises(InputError, match="fp16"):
        OnnxRecogniser(made.graphs, precision="fp16")


def test_it_runs_without_torch(made, repository):
    """On the packages that docs/deploying.md says, and no other of ours."""
    page = (repository / "docs" / "deploying.md").read_text("utf-8")
    (line,) = re.findall(r"(?m)^pip install (numpy .*)$", page)
    stated = {IMPORT_NAMES.get(name, name) for name in line.split()}
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    needed = requirements(setup["options"]["install_requires"])
    denied = import_names([*needed, "onnx"]) - stated
    assert {"torch", "speechbrain", "jiwer", "scipy"} < denied
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(made.graphs), *denied],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    audio = [0.1 * rng.standard_normal(n) for n in (9000, 4000)]
    heard = [
        made.host.transcribe(audio, policy)
        for policy in (None, 2, "last", "half", "spelling")
    ]
    lines = [str([(one.exit, one.text) for one in row]) for row in heard]
    assert done.stdout.splitlines() == lines


def test_extremes(made):
    silent = np.zeros(8000, dtype=np.float32)
    found = made.host.transcribe([silent, silent[:1], silent[:0]], "last")
    assert [one.duration_s for one in found] == [0.5, 1 / SAMPLE_RATE, 0.0]
    assert made.host.transcribe([], "last") == []


def test_int8_is_close(made):
    host = OnnxRecogniser(made.graphs, precision="int8")
    audio = [wav.numpy() for wav in waves()]
    for one, exact in zip(
        host.transcribe(audio, 2), made.host.transcribe(audio, 2)
    ):
        assert one.confidence == pytest.approx(exact.confidence, abs=0.1)
        assert one.macs == exact.macs


def test_one_graph_for_one_exit(made, tmp_path):
    folder = export_static(made.folder, tmp_path / "static", exit=3)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["x"]
    told = session.get_modelmeta().custom_metadata_map
    assert told["model_type"] == "omnilingual-asr"
    assert told["vocab_size"] == str(VOCAB)
    assert told["subsampling_factor"] == "4"
    for wav in waves((16000, 3000)):
        with torch.no_grad():
            wanted = made.folder.model(*padded([wav]))[2].log_probs_BTV
        for scale in (1.0, 12.0):  # sherpa-onnx scales the samples
            (got,) = session.run(None, {"x": scale * wav[None].numpy()})
            np.testing.assert_allclose(got, wanted, atol=1e-3)
    whole = onnx.load(folder / "model.int8.onnx").graph.node
    exact = [node.name for node in whole if node.op_type == "MatMul"]
    # Features span eight decades: they stay as they are.
    assert [n for n in exact if "compute_STFT" in n]
    assert any("Integer" in n.op_type or "Quantize" in n.op_type for n in whole)
    lines = (folder / "tokens.txt").read_text("utf-8").splitlines()
    assert lines == tokens(made.folder).splitlines()
    assert lines[0] == "<blk> 0" and len(lines) == VOCAB
    assert lines[2] == f"{made.folder.tokenizer.id_to_piece(2)} 2"
