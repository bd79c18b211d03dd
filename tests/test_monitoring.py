"""What cluster/prometheus.yml collects and cluster/grafana.json shows are metrics that exist."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ray_jobs.cluster.metrics import BUILD, FAILURES, TRAINING
from tests.conftest import REPOSITORY
from tests.ray_jobs.conftest import STORE, head
from tests.sharding.corpora import write_corpus

AGGREGATIONS = {"sum", "max", "min", "avg"}
FUNCTIONS = {"last_over_time", "avg_over_time", "deriv"}
TOKEN = re.compile(
    r"\s*([A-Za-z_:][\w:]*|\d+(?:\.\d+)?|\{[^{}]*\}|\[(?:\d+[smhd]|\$__range|\$__rate_interval)\]|[-+*/><(),])"
)
MATCHER = re.compile(r'\w+(=~|!~|!=|=)"[^"]*"')


class Query:
    """Reads a PromQL expression of the kinds that the dashboard uses.

    Attributes:
        metrics: their names.
        labels: by which the answer is grouped: its own labels.
    """

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.metrics: set[str] = set()
        self.labels: set[str] = set()
        end = 0
        while found := TOKEN.match(text, end):
            self.tokens.append(found[1])
            end = found.end()
        assert not text[end:].strip(), f"not PromQL: {text[end:]!r} in {text!r}"
        self.expression()
        assert not self.tokens, f"left over: {self.tokens} of {text!r}"

    def take(self, *wanted: str) -> str:
        token = self.tokens.pop(0)
        assert not wanted or token in wanted, f"{token!r} in place of {wanted}"
        return token

    def at(self, *wanted: str) -> bool:
        return bool(self.tokens) and self.tokens[0].startswith(wanted)

    def expression(self) -> None:
        self.term()
        while self.at("+", "-", "*", "/", ">", "<", "and"):
            self.take()
            self.term()

    def term(self) -> None:
        word = self.take()
        if word == "(" or word in FUNCTIONS or word in AGGREGATIONS:
            if word in AGGREGATIONS and self.at("by"):
                self.take("by")
                self.take("(")
                while (label := self.take()) != ")":
                    self.labels |= {label} - {","}
            if word != "(":
                self.take("(")
            self.expression()
            self.take(")")
        elif not word[0].isdigit():
            assert re.fullmatch(r"[a-z_]+", word), word
            self.metrics.add(word)
            if self.at("{"):
                assert all(MATCHER.fullmatch(each) for each in self.take()[1:-1].split(",")), word
            if self.at("["):
                self.take()


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "cluster/grafana.json").read_text())
    return found


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def known() -> dict[str, set[str]]:
    """The labels of each metric of both jobs and of Ray's nodes, as Prometheus names them."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    ours = ((BUILD, {"run", "stage"}), (FAILURES, {"run", "stage", "error"}), (TRAINING, {"run"}))
    found = {f"ray_{name}": labels for names, labels in ours for name in names}
    return found | {f"ray_{name}": set(map(str, gauge.view.columns)) for name, gauge in METRICS_GAUGES.items()}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_asks_for_metrics_and_labels_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        query = Query(target["expr"])
        assert query.metrics and query.metrics <= set(known())
        assert all(query.labels <= known()[name] for name in query.metrics)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == query.labels
        assert all("earshot" not in name or f'{name}{{run=~"$run"}}' in target["expr"] for name in query.metrics)


def test_every_metric_of_both_jobs_is_shown_and_no_panel_covers_another() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in Query(target["expr"]).metrics}
    assert {f"ray_{name}" for name in (*BUILD, *FAILURES, *TRAINING)} <= shown
    cells = [
        (x, y)
        for each in dashboard()["panels"]
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    numbers = [each["id"] for each in dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


def test_variables_are_those_that_queries_use() -> None:
    names = {each["name"] for each in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard()["panels"])))
    assert used == names == {"source", "run"}


def test_prometheus_looks_often_enough_to_see_the_last_value_of_a_job() -> None:
    import ray

    config = yaml.safe_load((REPOSITORY / "cluster/prometheus.yml").read_text())
    seconds = float(config["global"]["scrape_interval"].removesuffix("s"))
    assert seconds * 1000 < ray._config.metrics_report_interval_ms()
    (job,) = config["scrape_configs"]
    (discovery,) = job["file_sd_configs"]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]


class Scraper:
    """Collects from the ports of nodes, as Prometheus does, until it is closed."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.seen: list[tuple[float, dict[tuple[str, str], float]]] = []  # time, (metric, stage) to value
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Scraper:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            with contextlib.suppress(OSError):  # as Prometheus: whoever does not answer is asked again
                self.seen.append((time.monotonic(), self._scrape()))

    def _scrape(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for port in self.ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found[sample.name, sample.labels.get("stage", "")] = sample.value
        return found


@pytest.mark.slow
def test_a_scrape_sees_nodes_before_a_job_and_the_last_figures_of_a_job_after_it(tmp_path: Path) -> None:
    """Of a build that is over in seconds, sooner than Ray reports by itself."""
    corpus, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    nodes = head()
    try:
        worker = nodes.add_node(num_cpus=1, object_store_memory=STORE)
        with Scraper([nodes.head_node.metrics_export_port, worker.metrics_export_port]) as scraper:
            deadline = time.monotonic() + 200
            while not any(found for _, found in scraper.seen):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            command = [sys.executable, "ray_jobs/build_shards.py", f"--source=mine={corpus}", "--protect=mine/test"]
            command += [f"--out={out}", f"--ray={nodes.address}"]
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
            subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=200)
            ended = time.monotonic()
            time.sleep(5)
    finally:
        nodes.shutdown()
    done, total = (f"ray_earshot_{name}" for name in ("done", "total"))
    shown = [found for when, found in scraper.seen if when > ended and (done, "write") in found]
    assert shown and shown[0][done, "write"] == shown[0][total, "write"] > 0
    stages = {stage for name, stage in shown[0] if name == done}
    assert "match (voting)" in stages, "a stage whose total is known only when it ends"
    assert all(shown[0][done, stage] == shown[0][total, stage] for stage in stages)


@pytest.mark.skipif(not os.environ.get("EARSHOT_PROMTOOL"), reason="EARSHOT_PROMTOOL names no promtool")
def test_prometheus_itself_accepts_configuration_and_queries(tmp_path: Path) -> None:
    promtool = os.environ["EARSHOT_PROMTOOL"]
    subprocess.run([promtool, "check", "config", str(REPOSITORY / "cluster/prometheus.yml")], check=True)
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__range", "1h")}
        for number, panel in enumerate(panels())
        for target in panel["targets"]
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "earshot", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yml")], check=True)
