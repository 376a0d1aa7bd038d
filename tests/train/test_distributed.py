"""Several processes: two that share a batch end as one that takes its halves one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed part")

CODE = """
import sys, torch
torch.set_num_threads(1)
import test_distributed
test_distributed.work(sys.argv[1])
"""


def config(micro):
    """A run of 6 updates, of everything that is drawn by image."""
    from training_support import MODEL, tiny

    conditions = {**MODEL["conditions"], "previous": {"kind": "vector", "size": 2}}
    return tiny(
        model={**MODEL, "conditions": conditions},
        self_conditioning=0.5,
        noise={"offset": 0.1},
        batch={"size": 8, "micro": micro},
        images=48,
        checkpoint={"every": 24},
    )


def work(folder):
    """What each process does: a run; and one in two parts, which the first process alone is asked to stop."""
    from training_support import train

    def stop(event):
        if event.kind == "update" and event.images == 16:
            event.trainer.stop()

    train(config(4), folder)
    half = train(config(2), folder + "-resumed", callbacks=[stop])
    assert half.images == 16
    again = train(config(2), folder + "-resumed")
    assert again.accelerator.num_processes == int(os.environ["WORLD_SIZE"])


def launch(folder, processes):
    """Run `work` in so many processes, as `accelerate launch` starts them."""
    here = Path(__file__).parent
    port = 29500 + os.getpid() % 1000
    running = []
    for rank in range(processes):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path]),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", CODE, str(folder)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for process in running:
            out, _ = process.communicate(timeout=200)
            assert process.returncode == 0, out
    finally:
        for process in running:
            process.kill()  # one that failed leaves the other waiting


def test_two_processes_are_one_with_twice_the_accumulation(tmp_path):
    """Two gloo processes end with one's averages to rounding, also stopped, resumed and in micro-batches."""
    from training_support import train

    launch(tmp_path / "two", 2)
    for name in ("two", "two-resumed"):
        found = load_file(tmp_path / name / "model.safetensors")
        wanted = train(config(4)).averages["ema"].tensors
        assert found.keys() == wanted.keys()
        worst = max(float((found[k] - wanted[k]).abs().max()) for k in wanted)
        assert worst < 1e-5
    log = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert len([line for line in log if '"event": "end"' in line]) == 1
