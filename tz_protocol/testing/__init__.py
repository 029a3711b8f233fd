"""For tests of flows, of transports, and of what people build on them.

``Simulator`` drives machines in a scripted ``World`` with a virtual clock; nothing in
it touches a socket, a file or a clock. ``tz_protocol.testing.conformance`` holds the
scenarios that every transport is run through.
"""

from __future__ import annotations

from tz_protocol.testing.callers import ScriptedResponse
from tz_protocol.testing.clickhouse import ScriptedClickHouse
from tz_protocol.testing.disk import ScriptedDisk
from tz_protocol.testing.messages import (
    LAST_CHUNK,
    Message,
    chunk,
    http_request,
    http_response,
    sse_event,
    take_message,
    take_responses,
)
from tz_protocol.testing.peers import Peer, Stream
from tz_protocol.testing.redis import ScriptedRedis
from tz_protocol.testing.replays import Recording, read_recording, replay
from tz_protocol.testing.simulator import Outcome, Simulator
from tz_protocol.testing.surroundings import Process
from tz_protocol.testing.worlds import (
    Arrival,
    AwaitFact,
    Behaviour,
    Close,
    Echo,
    Facts,
    Failure,
    HalfClose,
    Pause,
    ProcessScript,
    ProxiedReply,
    Receive,
    ReceiveBytes,
    ReceiveEof,
    ReceiveRequest,
    ReceiveResponse,
    Reset,
    Script,
    ScriptedRequest,
    Send,
    Stall,
    Step,
    Tell,
    World,
    cut,
    dns_error,
    garbage,
    hang,
    refuse,
    reply,
    sse,
    tls_error,
)

__all__ = [
    "LAST_CHUNK",
    "Arrival",
    "AwaitFact",
    "Behaviour",
    "Close",
    "Echo",
    "Facts",
    "Failure",
    "HalfClose",
    "Message",
    "Outcome",
    "Pause",
    "Peer",
    "Process",
    "ProcessScript",
    "ProxiedReply",
    "Receive",
    "ReceiveBytes",
    "ReceiveEof",
    "ReceiveRequest",
    "ReceiveResponse",
    "Recording",
    "Reset",
    "Script",
    "ScriptedClickHouse",
    "ScriptedDisk",
    "ScriptedRedis",
    "ScriptedRequest",
    "ScriptedResponse",
    "Send",
    "Simulator",
    "Stall",
    "Step",
    "Stream",
    "Tell",
    "World",
    "chunk",
    "cut",
    "dns_error",
    "garbage",
    "hang",
    "http_request",
    "http_response",
    "read_recording",
    "refuse",
    "replay",
    "reply",
    "sse",
    "sse_event",
    "take_message",
    "take_responses",
    "tls_error",
]
