"""Two processes train, save, test and stop.

What only the main process does must not leave the other waiting: once,
logging and saving behind ``if_main_process`` ended in processes that waited
for different messages.

Authors
 * The speechbrain-ee contributors 2026
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

from speechbrain_ee.exits import read_trace


def test_two_processes_finish_a_run(
    corpus: Path,
    shrink: tuple[str, ...],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out"
    done = run_python(
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "train.py",
        "hparams/demo.yaml",
        f"--data_folder={corpus}",
        f"--output_folder={folder}",
        "--distributed_backend=gloo",
        "--device=cpu",
        *shrink,
        "--number_of_epochs=2",
        "--dynamic_batching={max_batch_length: 4, num_buckets: 3}",
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    log = (folder / "train_log.txt").read_text(encoding="utf-8")
    epochs = [line for line in log.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 2
    assert len(list(folder.glob("save/CKPT*/CKPT.yaml"))) >= 1
    trace = read_trace(folder / "traces" / "test-clean.jsonl.gz")
    assert len(set(trace.ids)) == len(trace) == 4
