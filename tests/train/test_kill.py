"""SIGKILL at any instant: a run that is killed and begun again ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

KILLS = 21
UPDATES = 150


def run_server(folder, seed):
    """In a process of its own: load everything once, fork runs and kill them; print what happened."""
    import random
    import signal
    import time

    import torch
    from training_support import MODEL, tiny, train

    from kdiff_train import checkpoint

    torch.set_num_threads(1)
    config = tiny(
        model={
            **MODEL,
            "dropout": 0.2,
            "conditions": {**MODEL["conditions"], "previous": {"kind": "vector", "size": 2}},
        },
        self_conditioning=0.5,
        noise={"offset": 0.1, "perturbation": 0.1},
        batch={"size": 8, "micro": 4},
        images=8 * UPDATES,
        checkpoint={"every": 24, "keep": 2},
        ema={"ema": "warmup", "wide": {"name": "power", "std": 0.1}},
    )
    draw = random.Random(seed)

    def child(place, pipe, in_write):
        """A run, which says each update that it makes, and holds still inside a write if it is to."""
        if in_write:
            hashed = checkpoint._hash

            def hold(file):
                os.write(pipe, b"w")
                time.sleep(60)
                return hashed(file)

            checkpoint._hash = hold
        train(config, place, callbacks=[lambda e: e.kind == "update" and os.write(pipe, b"u")])
        os.write(pipe, b"e")

    def start(place, updates, in_write=False):
        """Fork a run and kill it after some updates, or in a write; say whether it came to its end."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(place, write, in_write)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        seen, last = 0, b""
        while seen < updates and (last := os.read(read, 1)) not in (b"", b"e"):
            seen += last == b"u"
            if last == b"w" and in_write:
                break
        killed = last not in (b"", b"e")
        if killed:
            if not in_write:
                time.sleep(draw.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(read)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)

    folder = Path(folder)
    train(tiny(images=8))  # what is loaded late is loaded now, and not by each child
    ends = {"whole": start(folder / "whole", 10**9)}
    signals, partial, resumed = [], 0, 0
    signals.append(start(folder / "killed", 10**9, in_write=True))
    partial = len(list((folder / "killed" / "checkpoints").glob(".partial-*/*.safetensors")))
    while len(signals) < KILLS:
        # 24 images are 3 updates: some kills come before the next checkpoint, most behind it.
        signals.append(start(folder / "killed", draw.randint(1, 8)))
    before = [path.name for path in (folder / "killed" / "checkpoints").iterdir()]
    ends["killed"] = start(folder / "killed", 10**9)
    print(
        json.dumps(
            {"ends": ends, "signals": signals, "partial": partial, "before": before, "resumed": resumed}
        )
    )


def test_killed_at_any_instant(tmp_path):
    """After 21 kills, one inside a write, all tensors, model and reports have the same bits."""
    code = f"import test_kill; test_kill.run_server({str(tmp_path)!r}, seed=0)"
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["ends"] == {"whole": 0, "killed": 0}, done.stderr
    assert said["signals"] == [9] * KILLS
    assert said["partial"] == 1
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    name = f"checkpoint-{8 * UPDATES:012d}"
    files = sorted(file.name for file in (whole / "checkpoints" / name).iterdir())
    assert len(files) == 5
    for file in files:
        assert (killed / "checkpoints" / name / file).read_bytes() == (
            whole / "checkpoints" / name / file
        ).read_bytes(), file
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert len(list((killed / "checkpoints").iterdir())) == 2
    assert reports(killed) == reports(whole)
    resumed = [json.loads(line)["event"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert 0 < resumed.count("resume") <= KILLS


def reports(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{**line, "images_per_second": None} for line in lines if line["event"] == "log"]
