"""Two processes train, save, test and stop.

What only the main process does must not leave the other waiting: once,
logging and saving behind ``if_main_process`` ended in processes that waited
for different messages. What they test together is what one process would
have found, byte for byte.

Authors
 * The speechbrain-ee contributors 2026
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

from speechbrain_ee.exits import read_trace

MADE = (
    "traces/dev-clean.jsonl.gz",
    "traces/test-clean.jsonl.gz",
    "wer_test-clean.txt",
)
TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
)


def test_two_processes_finish_a_run(
    corpus: Path,
    shrink: tuple[str, ...],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out"
    recipe = (
        "train.py",
        "hparams/demo.yaml",
        f"--data_folder={corpus}",
        f"--output_folder={folder}",
        *(flag for flag in shrink if "batch_size: 4" not in flag),
        "--number_of_epochs=2",
        "--dynamic_batching={max_batch_length: 4, num_buckets: 3}",
        "--valid_dataloader_opts={num_workers: 0, batch_size: 1}",
        "--test_dataloader_opts={num_workers: 0, batch_size: 1}",
    )
    done = run_python(*TORCHRUN, *recipe, "--distributed_backend=gloo")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    log = (folder / "train_log.txt").read_text(encoding="utf-8")
    epochs = [line for line in log.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 2
    assert len(list(folder.glob("save/CKPT*/CKPT.yaml"))) >= 1
    trace = read_trace(folder / "traces" / "test-clean.jsonl.gz")
    assert len(set(trace.ids)) == len(trace) == 4

    # The run is over: one process only tests once more.
    found = {name: (folder / name).read_bytes() for name in MADE}
    for name in MADE:
        (folder / name).unlink()
    done = run_python(*recipe)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in MADE:
        assert (folder / name).read_bytes() == found[name], name
