"""Hops as OpenTelemetry traces and logs over OTLP/HTTP.

Spans are made of what the ledger holds, not within the services: the record path carries no context of a tracer, and a
record costs it nothing. A session (correlation id) is a trace. A message has a span of its publisher (as stored by the
broker), below it the enforcer's (until it was decided) and the audit's (until it was watched); the publisher's hangs
below that of the first message that its sender named as a cause. Events of bus.issue are spans of the authority.
Attributes are those of the messaging conventions and what the hop holds: masks and audit levels were applied before.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import bus
from bus.codes import Code
from bus.errors import RetryLater
from bus.extras import package
from bus.ledger.siem import ocsf, severity, trace_id
from bus.wire.hop import Hop, Verdict
from bus.wire.names import ISSUE
from consumers.watch.sinks import Batch

SETTING: Final = "alerts.yaml: stream.otlp"
NS: Final = 1_000_000
TIMEOUT_S: Final = 5.0
HOPS: Final = 500
"""Of one request; collectors take 4 MiB at least."""


def span_id(kind: str, name: bytes) -> int:
    """Of one span."""
    return int.from_bytes(hashlib.sha256(f"sealbus/{kind}|".encode() + name).digest()[:8], "big") or 1


class Otlp:
    """Exports to the collector at ``url`` (as http://collector:4318). Raises SettingsError without the extra."""

    name = "otlp"

    def __init__(self, url: str, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._sdk = package("opentelemetry.sdk.trace", "otel", SETTING)
        self._logs = package("opentelemetry.sdk._logs", "otel", SETTING)
        self._api = package("opentelemetry.trace", "otel", SETTING)
        self._api_logs = package("opentelemetry._logs", "otel", SETTING)
        resources = package("opentelemetry.sdk.resources", "otel", SETTING)
        base = url.rstrip("/")
        traces = package("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel", SETTING)
        logs = package("opentelemetry.exporter.otlp.proto.http._log_exporter", "otel", SETTING)
        self._traces = traces.OTLPSpanExporter(f"{base}/v1/traces", timeout=TIMEOUT_S)
        self._records = logs.OTLPLogExporter(f"{base}/v1/logs", timeout=TIMEOUT_S)
        self._resources = {
            name: resources.Resource({"service.name": f"sealbus-{name}", "service.version": bus.__version__})
            for name in ("publisher", "enforcer", "audit", "authority")
        }
        self._scope = package("opentelemetry.sdk.util.instrumentation", "otel", SETTING).InstrumentationScope("sealbus")

    def take(self, batch: Batch, /) -> None:
        """See ``Sink``. Spans and logs that come again have the same ids."""
        for first in range(0, max(len(batch.hops), 1), HOPS):
            self._beat()
            hops = batch.hops[first : first + HOPS]
            spans = [span for hop in hops for span in self._hop(hop, time.time_ns())]
            spans += [] if first else [self._event(each) for each in batch.events]
            if spans and self._traces.export(spans).name != "SUCCESS":
                raise RetryLater("otlp: traces were not taken", code=Code.RETRY)
            if hops and self._records.export([self._log(hop) for hop in hops]).name != "SUCCESS":
                raise RetryLater("otlp: logs were not taken", code=Code.RETRY)

    def _hop(self, hop: Hop, now: int) -> list[Any]:
        tail, trace = hop.tail, trace_id(hop)
        decided = span_id("enforcer", hop.origin_digest)
        told = attributes(hop)
        kind = self._api.SpanKind
        made = []
        if any(hop.message_id):
            cause = span_id("publisher", hop.causation_ids[0]) if hop.causation_ids else 0
            made.append(
                self._span(
                    "publisher", f"send {tail.domain}", trace, span_id("publisher", hop.message_id), cause,
                    hop.append_time * NS, hop.append_time * NS, kind.PRODUCER,
                    {**told, "messaging.operation.type": "send"},
                )
            )  # fmt: skip
        above = span_id("publisher", hop.message_id) if made else 0
        failed = tail.decision is Verdict.DENY
        made.append(
            self._span(
                "enforcer", f"process {tail.domain or tail.topic}", trace, decided, above, hop.append_time * NS,
                hop.decided_at * NS, kind.CONSUMER, {**told, "messaging.operation.type": "process"}, failed=failed,
            )
        )  # fmt: skip
        made.append(
            self._span(
                "audit", "record", trace, span_id("audit", hop.origin_digest), decided, hop.decided_at * NS, now,
                kind.CONSUMER, {"sealbus.decision_id": hop.decision_id},
            )
        )  # fmt: skip
        return made

    def _event(self, event: dict[str, Any]) -> Any:
        name = json.dumps(event, sort_keys=True).encode()
        told = {f"sealbus.{key}": value for key, value in event.items() if isinstance(value, str | int)}
        at = int(event.get("at", 0)) * NS
        trace = int.from_bytes(hashlib.sha256(name).digest()[:16], "big") or 1
        kind, number = self._api.SpanKind.SERVER, span_id("authority", name)
        told["messaging.destination.name"] = ISSUE
        return self._span("authority", str(event["event"]), trace, number, 0, at, at, kind, told)

    def _span(
        self,
        service: str,
        name: str,
        trace: int,
        number: int,
        parent: int,
        begin: int,
        end: int,
        kind: Any,
        told: dict[str, Any],
        *,
        failed: bool = False,
    ) -> Any:
        context = self._context(trace, number)
        status = self._api.Status(self._api.StatusCode.ERROR) if failed else self._api.Status()
        return self._sdk.ReadableSpan(
            name, context, self._context(trace, parent) if parent else None, self._resources[service], told,
            kind=kind, status=status, start_time=begin, end_time=max(begin, end), instrumentation_scope=self._scope,
        )  # fmt: skip

    def _context(self, trace: int, number: int) -> Any:
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        return self._api.SpanContext(trace, number, is_remote=False, trace_flags=flags)

    def _log(self, hop: Hop) -> Any:
        grade = {1: "INFO", 3: "WARN", 4: "ERROR"}[severity(hop)]
        record = self._api_logs.LogRecord(
            timestamp=hop.decided_at * NS,
            context=self._api.set_span_in_context(
                self._api.NonRecordingSpan(self._context(trace_id(hop), span_id("enforcer", hop.origin_digest)))
            ),
            severity_text=grade,
            severity_number=self._api_logs.SeverityNumber[grade],
            body=json.dumps(ocsf(hop)),
            attributes=attributes(hop),
        )
        return self._logs.ReadableLogRecord(record, self._resources["enforcer"], self._scope)


def attributes(hop: Hop) -> dict[str, Any]:
    """Of OpenTelemetry's messaging conventions, and ours."""
    tail = hop.tail
    told: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.destination.name": tail.topic,
        "messaging.destination.partition.id": str(hop.partition),
        "messaging.kafka.offset": hop.offset,
        "messaging.message.envelope.size": hop.size,
        "messaging.client.id": tail.agent,
        "messaging.message.conversation_id": hop.correlation_id,
        "messaging.message.id": str(uuid.UUID(bytes=hop.message_id)) if any(hop.message_id) else "",
        "error.type": tail.code.value if tail.decision is Verdict.DENY else "",
        "sealbus.decision_id": hop.decision_id,
        "sealbus.decision": tail.decision.value,
        "sealbus.rule": tail.rule,
        "sealbus.kind": tail.kind,
        "sealbus.policy": tail.snapshot,
    }
    return {key: value for key, value in told.items() if value != ""}
