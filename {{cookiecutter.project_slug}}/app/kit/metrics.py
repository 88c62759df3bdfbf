"""The metrics of this process for Prometheus, at ``/metrics``, by OpenTelemetry."""

import secrets
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, HTTPException, Request, Response
from opentelemetry import metrics
from pydantic import SecretStr

PATH: Final = "/metrics"


def install(app: FastAPI, token: SecretStr) -> None:
    """Add ``/metrics``, which requires ``token``; FastAPI itself measures the requests."""
    # Imported here: the SDK takes 20 MB and half a second, which most processes don't need.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from prometheus_client import CollectorRegistry, ProcessCollector, exposition  # noqa: PLC0415

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    reader = PrometheusMetricReader(
        disable_target_info=True, scope_info_enabled=False, registry=registry
    )
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        provider = MeterProvider()
        metrics.set_meter_provider(provider)
    provider.add_metric_reader(reader)
    expected = token.get_secret_value().encode()

    async def serve(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = secrets.compare_digest(given.encode("latin-1"), expected)
        if not (right and scheme.lower() == "bearer"):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED,
                "The metrics require METRICS_TOKEN as bearer token.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        content = exposition.generate_latest(registry)
        return Response(content, media_type=exposition.CONTENT_TYPE_LATEST)

    app.add_route(PATH, serve, include_in_schema=False)
