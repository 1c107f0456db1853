"""What the app counts, for Prometheus: its viewers, their frames by what was shown, and the time by stage."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from serving.server.routes import is_near
from ui.session.viewer import ViewerRegistry

PATH = "/metrics"


class _Collector:
    """Reads the registry of viewers whenever it is asked."""

    def __init__(self, viewers: ViewerRegistry) -> None:
        self._viewers = viewers

    def collect(self) -> Iterator[Metric]:
        """Return the families."""
        here = self._viewers.viewers()
        yield GaugeMetricFamily("understudy_app_pages", "Pages that are open.", value=len(here))
        live = [viewer for viewer in here if viewer.is_live]
        yield GaugeMetricFamily("understudy_app_streams", "Streams that hold a place.", value=len(live))
        yield GaugeMetricFamily("understudy_app_places", "Streams that may run at once.", value=self._viewers.most)
        frames = CounterMetricFamily(
            "understudy_app_frames", "Frames since the start, by what they were.", labels=["kind"]
        )
        for kind, count in self._viewers.frames().items():
            frames.add_metric([kind], count)
        yield frames
        yield self._stages()

    def _stages(self) -> Metric:
        """Return each stage's time over the last ten seconds: of the viewers who stream, the slowest."""
        slowest: dict[tuple[str, str], float] = {}
        for viewer in self._viewers.viewers():
            if viewer.is_live:
                for stage, time in viewer.pipeline.stats().stages.items():
                    for quantile, value_ms in (("0.5", time.p50_ms), ("0.95", time.p95_ms)):
                        key = (stage, quantile)
                        slowest[key] = max(slowest.get(key, 0.0), value_ms)
        family = GaugeMetricFamily(
            "understudy_app_stage_seconds", "A frame's time by stage, slowest viewer.", labels=["stage", "quantile"]
        )
        for key, value_ms in slowest.items():
            family.add_metric(key, value_ms / 1e3)
        return family


def app_metrics(request: Request, viewers: ViewerRegistry) -> Response:
    """Answer Prometheus, from a private network and through no proxy; 404 for anybody else.

    Args:
        request: of the route.
        viewers: of this server.
    """
    if not is_near(request):
        return Response(status_code=404)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(viewers))  # pyright: ignore[reportArgumentType]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
