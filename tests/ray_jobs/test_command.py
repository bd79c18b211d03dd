"""Commands that use a model as submitted jobs: the chain from a corpus to judged candidates, and stopped jobs."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.cluster.local_cluster import local_cluster, submit
from ray_jobs.command import COMMANDS, add_cluster
from sharding.demo.synthesis import synthesise
from tests.conftest import REPOSITORY
from tests.training.models.multimodal.families import CAPTIONS, MARKS
from training import cli
from training.models.encoders.text.tokenizer import train_tokenizer

SPLIT = "clotho/development"
TINY = [
    "audio={encoder: multimodal, source: random, segment_s: 5, max_s: 10, width: 8, depth: 1, heads: 2}",
    "text={encoder: multimodal, source: random, width: 16, depth: 1, heads: 2, vocabulary: 300}",
    *("optimizer.steps=3", "data.workers=0", "log.tensorboard=false"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_job_takes_the_options_of_the_command(name: str) -> None:
    """Also the ones of the cluster, which no command may take for something else."""
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    add_cluster(parser)
    assert parser.get_default("address") == "auto" and parser.get_default("make_runner") is not None


class Jobs:
    """Submits jobs to a cluster of this machine as `ray job submit` does, and stops one in its middle."""

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        self._client = JobSubmissionClient(address)

    def run(self, *words: str) -> dict[str, Any]:
        """What a job prints as its result."""
        name = self._begin(*words, "--json")
        said = self._end_of(name)
        assert self._client.get_job_status(name) == "SUCCEEDED", said[-4000:]
        return dict(json.loads([line for line in said.splitlines() if line.startswith("{")][-1]))

    def stop(self, until: Callable[[], bool], *words: str) -> None:
        """Submit a job, and stop it as soon as something has happened."""
        name = self._begin(*words)
        deadline = time.monotonic() + 300
        while not until():
            assert time.monotonic() < deadline, self._client.get_job_logs(name)
            time.sleep(0.02)
        self._client.stop_job(name)
        self._end_of(name)

    def _begin(self, *words: str) -> str:
        environment = {"working_dir": str(REPOSITORY)}
        return self._client.submit_job(entrypoint=shlex.join(["python", *words]), runtime_env=environment)

    def _end_of(self, name: str) -> str:
        while not self._client.get_job_status(name).is_terminal():
            time.sleep(0.1)
        return self._client.get_job_logs(name)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without how long they took."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    clocks = ("text_to_audio-", "audio_to_text-")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not (path.name.startswith(clocks) and path.suffix == ".json")
    }


def a_language_model(folder: Path) -> Path:
    """A small random one, whose answers are long enough to be interrupted."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 280)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_chain_runs_as_jobs_and_stopped_ones_continue_to_the_same_bytes(tmp_path: Path) -> None:
    corpus, build, out = tmp_path / "corpus", tmp_path / "build", tmp_path
    synthesise(corpus, 0, 80)
    shards = ["--shards", str(build)]
    command, small = "ray_jobs/command.py", [word for each in TINY for word in ("--set", each)]

    def fit(jobs: Jobs, run: str, *more: str) -> None:
        words = [word for each in more for word in ("--set", each)]
        jobs.run("ray_jobs/train.py", "aurola_small", *shards, "--run", f"{out}/{run}", *small, *words)

    with local_cluster(2, tmp_path / "ray.log") as address:
        sources = [f"--{name}={corpus / name}" for name in ("clotho", "audiocaps", "wavcaps", "tacos")]
        building = ["python", "ray_jobs/build_shards.py", *sources, f"--out={build}"]
        submit(address, REPOSITORY, building, tmp_path / "build.log", show=False)
        jobs = Jobs(address)
        jobs.run(command, "annotate", *shards, "--split", SPLIT, "--rules", f"--out={out}/notes")
        notes = f"data.annotations={out}/notes/annotations.parquet"
        fit(jobs, "first", notes)
        tags = ["--annotations", f"{out}/notes/annotations.parquet", "--count", "4", f"--out={out}/clusters.json"]
        assert jobs.run(command, "clusters", f"{out}/first", *tags)["clusters"] == 4
        mined = [command, "mine", f"{out}/first", *shards, "--split", SPLIT, "--top=4", "--threshold=2"]
        began = time.monotonic()
        jobs.stop(lambda: time.monotonic() > began + 8, *mined, f"--out={out}/hard.parquet")
        assert jobs.run(*mined, f"--out={out}/hard.parquet")["negatives"] > 0
        fit(jobs, "second", notes, f"data.tags={out}/clusters.json", f"init_from={{model: {out}/first}}")
        wrong = f"task={{name: reranking, negatives: {out}/hard.parquet}}"
        fit(jobs, "third", wrong, f"init_from={{model: {out}/second}}")
        scored = ["scores", f"{out}/second", *shards]
        jobs.run(command, *scored, "--split=clotho/evaluation", f"--out={out}/scores")
        assert cli.main([*scored, "--split=clotho/validation", f"--out={out}/tune"]) == 0
        judged = [command, "rerank", f"{out}/third", *shards, f"--scores={out}/scores", f"--tune={out}/tune", "--top=5"]
        cut_judged = tmp_path / "judged-cut"
        jobs.stop(lambda: any(cut_judged.rglob("*.safetensors")), *judged, f"--out={cut_judged}")
        assert jobs.run(*judged, f"--out={cut_judged}")["text_to_audio"]["candidates"] == 5

        # a model annotates one clip after another, and is stopped
        model = a_language_model(tmp_path / "model")
        asked = [command, "annotate", *shards, "--split=clotho/evaluation", f"--model={model}", "--batch=1"]
        cut = tmp_path / "annotated"
        jobs.stop(lambda: len(list(cut.glob("part-*.parquet"))) > 1, *asked, f"--out={cut}")
        assert not (cut / "annotations.parquet").exists()
        jobs.run(*asked, f"--out={cut}")

    # outside the cluster, and never stopped
    assert cli.main([*asked[1:], f"--out={tmp_path / 'annotated-whole'}"]) == 0
    assert contents(tmp_path / "annotated-whole") == contents(cut)
    assert cli.main([*judged[1:], f"--out={tmp_path / 'judged'}"]) == 0
    assert contents(tmp_path / "judged") == contents(cut_judged)
    assert cli.main([*mined[1:], f"--out={tmp_path / 'mined.parquet'}"]) == 0
    assert (tmp_path / "mined.parquet").read_bytes() == (out / "hard.parquet").read_bytes()
