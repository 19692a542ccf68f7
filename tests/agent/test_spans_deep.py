"""What nests too deep costs no other span of its body, at either door of the agent."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.intake import Intake
from agent.sources.spans import families
from tests.kits import deep


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_the_rest_of_a_body_goes_into_the_spool_and_its_sender_is_told(signal: str, *, as_json: bool):
    intake, out = Intake([]), []
    intake.emit = lambda _signal, body: out.append(body)
    place = {"traces": "span", "logs": "body"}[signal]
    body = deep.encode(signal, deep.request(signal, place, deep.lists(60)), as_json=as_json)
    taken = intake.take(signal, body, as_json=as_json)  # type: ignore[arg-type]
    assert (taken.kept, taken.rejected, taken.cuts.count) == (True, 0, 1)
    told = ExportLogsServiceResponse.FromString(taken.answer()).partial_success
    assert told.rejected_log_records == 0
    assert told.error_message == taken.text()
    assert told.error_message.startswith("1 list or map lay more than 100 messages deep")
    if signal == "traces":
        spans = ExportTraceServiceRequest.FromString(out[0]).resource_spans[0].scope_spans[0].spans
        assert [span.name for span in spans] == ["deep", "beside"]
    else:
        records = ExportLogsServiceRequest.FromString(out[0]).resource_logs[0].scope_logs[0].log_records
        assert [record.body.WhichOneof("value") for record in records] == ["array_value", "string_value"]
    counted = {sample.name: sample.value for family in families(intake.stats) for sample in family.samples}
    assert counted["servescope_agent_cut_values_total"] == 1


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
def test_what_else_is_wrong_is_told_beside(*, as_json: bool):
    document = deep.request("traces", "span", deep.lists(60))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["traceId"] = ""
    intake = Intake([])
    intake.emit = lambda _signal, _body: None
    taken = intake.take("traces", deep.encode("traces", document, as_json=as_json), as_json=as_json)
    assert (taken.rejected, taken.cuts.count) == (1, 1)
    assert taken.text().startswith("spans without a trace id")
    assert "; 1 list or map lay more than" in taken.text()
    assert json.dumps(taken.text())
