"""Where our verdict on a case of ``shared/http_cases`` is not its file's, and why.

One rule covers every case that its pattern fits; a case for which our verdict is not
the expected one must fit a rule that names that verdict. Each rule names the section
that allows or demands what we do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SERVED = "served"
"""Instead of a refusal's code: we take what the file expects to be refused."""
CLOSED = "closed"
"""The first message is taken, and the connection is not used for what follows."""


@dataclass(frozen=True)
class Rule:
    """One deviation."""

    ours: str
    """Code of our refusal, :data:`SERVED` or :data:`CLOSED`."""
    section: str
    why: str
    data: bytes
    """Expression that is found in the bytes of each case that the rule covers."""
    case: str = ""
    """Expression that the case's name begins with."""

    def fits(self, name: str, data: bytes) -> bool:
        return bool(re.match(self.case, name) and re.search(self.data, data))


REQUEST_RULES = (
    Rule(
        "bad_host",
        "RFC 9112, section 3.2",
        "an HTTP/1.1 request without Host; many vectors leave it out",
        rb"\A(?:\r\n)*(?s:(?!.*(?i:\nhost:)).*HTTP/1\.1)",
    ),
    Rule(
        "bad_target",
        "RFC 9112, section 3.2",
        "no form of a target has a fragment",
        rb"\A[A-Z]+ \S*#",
    ),
    Rule(
        "bad_target",
        "RFC 3986, section 2",
        "a target is ASCII; anything else must be percent-encoded",
        rb"\A[A-Z]+ \S*[\x80-\xff]",
    ),
    Rule(
        "bad_target",
        "RFC 9110, section 4.2.4",
        "user information in a URL is an error, lest it hides the authority",
        rb"\A[A-Z]+ https?://[^/ ]*@",
    ),
    Rule(
        "bad_target",
        "RFC 9112, section 3.2.4",
        "the asterisk is a target for OPTIONS only",
        rb"\A(?!OPTIONS)[A-Z-]+ \* ",
    ),
    Rule(
        "method_not_implemented",
        "RFC 9110, section 9.1",
        "an origin server need not implement CONNECT: 501",
        rb"\ACONNECT ",
    ),
    Rule(
        "bad_request_line",
        "RFC 9112, section 2.3",
        "the protocol is HTTP with a version",
        rb"\A[A-Z]+ [^ ]+(?: (?:ICE|RTSP)/\d\.\d)?\r\n",
    ),
    Rule(
        "bad_request_line",
        "RFC 9112, section 3",
        "a PROXY line is no request line",
        rb"\APROXY ",
        case="valid/pp_",
    ),
    Rule(
        "control_byte",
        "RFC 9112, section 3",
        "a PROXY header in binary is no request line",
        rb"\A\r\n\r\n\0\r\nQUIT\n",
        case="valid/pp_",
    ),
    Rule(
        "bad_content_length",
        "RFC 9110, section 8.6",
        "leading zeros are read as octal by some and decimal by others",
        rb"(?i)\ncontent-length:[ \t]*0\d",
    ),
    Rule(
        "unknown_transfer_coding",
        "RFC 9112, section 6.1",
        "501 for a coding that is not understood, and only chunked is",
        rb"(?i)\ntransfer-encoding:[^\r]*,",
    ),
    Rule(
        "bad_transfer_encoding",
        "RFC 9112, section 6.3",
        "a repeated Transfer-Encoding is at best a coding that is not understood",
        rb"(?is)\ntransfer-encoding:.*\ntransfer-encoding:",
    ),
    Rule(
        "bare_lf",
        "RFC 9112, section 2.2",
        "a recipient may take a bare LF for a line end, or not",
        rb"[^\r]\n|\A\n",
    ),
    Rule(
        "folded_header",
        "RFC 9112, section 5.2",
        "a server must reject or repair a folded line, and we reject",
        rb"\r\n[ \t]+\S",
        case="valid/compat_obs_fold",
    ),
    Rule(
        "bad_header",
        "RFC 9112, section 5.1",
        "a blank before the colon must be rejected",
        rb"\n[\w-]+[ \t]+:",
        case="valid/028",
    ),
    Rule(
        "bad_trailer",
        "RFC 9110, section 6.5.1",
        "a trailer must not say what the content is",
        rb"(?is)\ntransfer-encoding:.*\n0\r\n.*\ncontent-type:",
    ),
    Rule(
        CLOSED,
        "RFC 9112, section 9.6",
        "what follows a request with close, or of HTTP/1.0, is not looked at",
        rb"(?i)HTTP/1\.0\r\n|\nconnection:[ \t]*close",
    ),
    Rule(
        SERVED,
        "RFC 9110, section 9.1",
        "a method is any token; which ones there are is the endpoints' business",
        rb"\A(?:-bl|ANNOUNCE|MKCOLA) \S+ HTTP/1\.",
    ),
    Rule(
        SERVED,
        "RFC 9110, section 5.1",
        "an underscore is legal in a name, and is not a hyphen here",
        rb"\n(?:Transfer|Content)_",
        case="invalid/(?:040|chunked_07)",
    ),
    Rule(
        SERVED,
        "RFC 9110, section 7.6.3",
        "what a proxy adds is not acted on, so it cannot contradict itself",
        rb"\nX-Forwarded-Ssl:",
    ),
    Rule(
        SERVED,
        "RFC 9112, section 6.2",
        "the vector is run with a switch that skips bodies; we await them",
        rb"\nContent-Length: 123\r\n",
        case="request/content-length/Content-Length reset",
    ),
)

RESPONSE_RULES = (
    Rule(
        "upgrade",
        "RFC 9110, section 15.2.2",
        "101 answers an Upgrade that we never send",
        rb"\AHTTP/1\.1 101 ",
    ),
    Rule(
        "bad_status_line",
        "RFC 9112, section 2.3",
        "the protocol is HTTP, and its versions here are 1.1 and 1.0",
        rb"\A(?:RTSP|ICE|HTTP/0\.9)",
    ),
    Rule(
        "unknown_transfer_coding",
        "RFC 9112, section 6.1",
        "no coding was offered but the one that every recipient knows",
        rb"(?i)\ntransfer-encoding:[ \t]*(?!chunked\r)",
    ),
    Rule(
        "bad_transfer_encoding",
        "RFC 9112, section 6.3",
        "a repeated Transfer-Encoding is at best a coding that is not understood",
        rb"(?is)\ntransfer-encoding:.*\ntransfer-encoding:",
    ),
    Rule(
        "bare_lf",
        "RFC 9112, section 2.2",
        "a recipient may take a bare LF for a line end, or not",
        rb"[^\r]\n|\A\n",
    ),
    Rule(
        CLOSED,
        "RFC 9112, section 9.2",
        "one request is under way at a time, so a second response answers nothing",
        rb"(?s)\AHTTP/1\.1 .*\nHTTP/1\.1 ",
    ),
    Rule(
        CLOSED,
        "RFC 9112, section 9.6",
        "what follows a response with close is not looked at",
        rb"\nConnection: close\r\n",
    ),
    Rule(
        SERVED,
        "RFC 9112, section 6.2",
        "the vector is run with a switch that skips bodies; we await them",
        rb"\nContent-Length: 123\r\n",
        case="response/content-length/Content-Length reset",
    ),
)
