"""What `/metrics` says, for Prometheus: numbers per stage, per server DNN and per camera.

Stages and batches are histograms (any quantile by `histogram_quantile`); each camera's own recent p50, p95
and p99 are gauges. Camera rows are made from the records at each scrape, so they vanish with their cameras.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from accmpeg.server.cameras import CameraBook, percentiles
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.health import STATES

__all__ = ["Metrics"]

_STEPS_MS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1e3, 2e3, 5e3, 1e4)
_RANKS = ("p50", "p95", "p99")


class Metrics:
    """The server's own registry, so that two servers in one process don't meet."""

    def __init__(self, cameras: CameraBook, dnns: Callable[[], dict[str, DnnWorkers]]) -> None:
        self.registry = CollectorRegistry()
        self.stage_s = Histogram(
            "accmpeg_stage_seconds",
            "Time of one frame in a stage of the server",
            ["dnn", "stage"],
            buckets=[ms / 1000 for ms in _STEPS_MS],
            registry=self.registry,
        )
        self.batch_frames = Histogram(
            "accmpeg_batch_frames",
            "Frames in one batch",
            ["dnn"],
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
            registry=self.registry,
        )
        self.refused = Counter(
            "accmpeg_refused", "Connections refused or cut off", ["code"], registry=self.registry
        )
        self.failed_logins = Counter(
            "accmpeg_failed_logins", "Wrong tokens", ["door"], registry=self.registry
        )
        self.lost = Counter(
            "accmpeg_subscriber_lost", "Results that a slow subscriber lost", ["kind"], registry=self.registry
        )
        self.subscribers = Gauge(
            "accmpeg_subscribers", "Subscribers and viewers", ["kind"], registry=self.registry
        )
        self.snapshots = Counter(
            "accmpeg_snapshots", "Pictures made for watching dashboards", registry=self.registry
        )
        self.registry.register(_Rows(cameras, dnns))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Rows(Collector):
    def __init__(self, cameras: CameraBook, dnns: Callable[[], dict[str, DnnWorkers]]) -> None:
        self._cameras = cameras
        self._dnns = dnns

    def collect(self) -> Iterator[Metric]:
        dnns = self._dnns()
        yield from _dnn_rows(dnns)
        records = self._cameras.present()
        health = GaugeMetricFamily(
            "accmpeg_camera_health",
            "1 for the state that a camera is in",
            labels=["camera", "state", "reason"],
        )
        for record in records:
            workers = dnns.get(record.dnn)
            state_now = record.health(workers.problem if workers is not None else "")
            for state in STATES:
                code = state_now.code if state == state_now.state else ""
                health.add_metric([record.name, state, code], state == state_now.state)
        yield health
        connected = GaugeMetricFamily("accmpeg_cameras", "Cameras connected")
        connected.add_metric([], self._cameras.connected)
        yield connected
        for field, about in (
            ("frames", "Frames received"),
            ("bytes", "Bytes of access units received"),
            ("results", "Frames answered with a result"),
            ("tracked", "Results filled in between those of frames"),
            ("objects", "Objects reported"),
            ("decode_errors", "Access units that could not be decoded"),
            ("connections", "Connections of this camera"),
        ):
            counter = CounterMetricFamily(f"accmpeg_camera_{field}", about, labels=["camera"])
            for record in records:
                counter.add_metric([record.name], getattr(record, field))
            yield counter
        waiting_frames = GaugeMetricFamily(
            "accmpeg_camera_waiting", "Frames received and not answered", labels=["camera"]
        )
        dropped = CounterMetricFamily(
            "accmpeg_camera_dropped", "Frames answered without a result", labels=["camera", "reason"]
        )
        recent = GaugeMetricFamily(
            "accmpeg_camera_stage_ms",
            "Recent milliseconds per stage of camera and server",
            labels=["camera", "stage", "quantile"],
        )
        for record in records:
            waiting_frames.add_metric([record.name], record.waiting)
            for reason, count in record.dropped.items():
                dropped.add_metric([record.name, reason], count)
            for stage, values in record.stages_ms.items():
                found = percentiles(values)
                for rank in _RANKS:
                    if rank in found:
                        recent.add_metric([record.name, stage, f"0.{rank[1:]}"], found[rank])
        yield waiting_frames
        yield dropped
        yield recent


def _dnn_rows(dnns: dict[str, DnnWorkers]) -> Iterator[Metric]:
    queue = GaugeMetricFamily("accmpeg_queue_frames", "Frames that wait for a server DNN", labels=["dnn"])
    answers = GaugeMetricFamily("accmpeg_dnn_up", "Whether a server DNN answers", labels=["dnn"])
    failed = CounterMetricFamily("accmpeg_dnn_failed_frames", "Frames that failed or hung", labels=["dnn"])
    about = GaugeMetricFamily(
        "accmpeg_dnn_info", "Which model runs where", labels=["dnn", "card", "sha256", "device"]
    )
    at_workers = [
        GaugeMetricFamily(f"accmpeg_worker_{name}", what, labels=["dnn", "worker"])
        for name, what in (
            ("up", "Whether a worker of a server DNN answers"),
            ("cameras", "Cameras that a worker of a server DNN has now"),
            ("queue_frames", "Frames that wait for a worker of a server DNN"),
        )
    ]
    for name, workers in dnns.items():
        queue.add_metric([name], workers.waiting)
        answers.add_metric([name], not workers.problem)
        failed.add_metric([name], workers.failed)
        for device, model in {
            each.identity.device: each.identity for each in workers.batchers.values()
        }.items():
            about.add_metric([name, model.card, model.sha256 or "", device], 1)
        for row in workers.rows():
            values = (not row["problem"], len(row["cameras"]), row["waiting"])
            for family, value in zip(at_workers, values, strict=True):
                family.add_metric([name, row["worker"]], value)
    yield from (queue, answers, failed, about, *at_workers)
