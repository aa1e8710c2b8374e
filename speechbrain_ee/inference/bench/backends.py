"""Ways of running one model, by name.

==============  =========================================================
``torch``       PyTorch as it is
``compiled``    PyTorch, every segment compiled
``onnx``        onnxruntime, fp32
``onnx-int8``   onnxruntime, weights quantised to 8 bits
==============  =========================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding.methods import GREEDY
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.hypothesis import Hypothesis
from speechbrain_ee.inference.runner import compile_segments

BACKENDS = ("torch", "compiled", "onnx", "onnx-int8")


class Recogniser(Protocol):
    """What is measured."""

    def run(
        self, wavs_BS: Tensor, wav_lens_B: Tensor, policy: Any
    ) -> list[Hypothesis]:
        """Transcribe a batch by a policy."""


class Recognisers:
    """Recognisers of one model, each made when it is asked for.

    Arguments
    ---------
    source : str or Path
        An inference folder.
    backends : sequence of str
        Those that will be asked for.
    onnx : str or Path, optional
        Folder of the ONNX export; by default ``onnx`` in the source.
    decoding : str, optional
        How exits are decoded; by default what the folder says.

    Raises
    ------
    InputError
        If a backend is unknown or something that it needs is missing.
    """

    def __init__(
        self,
        source: str | Path,
        backends: Sequence[str],
        onnx: str | Path | None = None,
        decoding: str | None = None,
    ):
        unknown = [name for name in backends if name not in BACKENDS]
        if unknown:
            raise InputError(
                f"--backend {unknown[0]}: unknown; "
                f"valid: {', '.join(BACKENDS)}."
            )
        self.source = Path(source)
        self.onnx = self.source / "onnx" if onnx is None else Path(onnx)
        self.decoding = decoding
        self.asr = EarlyExitASR.from_hparams(source, decoding=decoding)
        decoded = self.asr.runner.decoding.name
        graphs = [name for name in backends if name.startswith("onnx")]
        if graphs and decoded != GREEDY:
            raise InputError(
                f"--backend {graphs[0]}: graphs are decoded by {GREEDY}, and "
                f"this would be measured against {decoded}; give "
                f"--decoding {GREEDY}."
            )
        self._made: dict[tuple[str, int], Recogniser] = {}
        self._makers: dict[str, Callable[[int], Recogniser]] = {
            "torch": lambda threads: self.asr.runner,
            "compiled": lambda threads: self._compiled(),
            "onnx": lambda threads: self._onnxruntime(threads, "fp32"),
            "onnx-int8": lambda threads: self._onnxruntime(threads, "int8"),
        }

    def get(self, backend: str, threads: int) -> Recogniser:
        """A recogniser.

        Arguments
        ---------
        backend : str
            Its name.
        threads : int
            That it may use. PyTorch's are set for the whole process by
            whoever measures; onnxruntime's belong to the recogniser.

        Returns
        -------
        Recogniser
        """
        per_thread = backend.startswith("onnx")
        key = (backend, threads if per_thread else 0)
        if key not in self._made:
            self._made[key] = self._makers[backend](threads)
        return self._made[key]

    def _compiled(self) -> Recogniser:
        # a model of its own: the other backends keep theirs as it is
        asr = EarlyExitASR.from_hparams(self.source, decoding=self.decoding)
        compile_segments(asr.model)
        return asr.runner

    def _onnxruntime(self, threads: int, precision: str) -> Recogniser:
        name = "onnx" if precision == "fp32" else f"onnx-{precision}"
        try:
            from speechbrain_ee.inference.onnx.host import OnnxRecogniser
        except ImportError as error:
            raise _missing(name, error) from error
        return OnnxRecogniser(self.onnx, precision=precision, threads=threads)


def _missing(backend: str, error: ImportError) -> InputError:
    return InputError(
        f"--backend {backend}: cannot be used here ({error}); install "
        "speechbrain-ee with its extra `onnx`, or choose another backend."
    )
