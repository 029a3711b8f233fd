"""The text of ``tz-gateway --help``.

The one rule: at most 40 lines of at most 80 columns, so that it fits a terminal.
"""

from __future__ import annotations

__all__ = ["HELP"]

HELP = """\
tz-gateway: one OpenAI-compatible front for every model provider

  tz-gateway [serve] [options]    serve until SIGTERM or SIGINT; SIGHUP reloads
  tz-gateway check [options]      check the configuration, print the routes, end
  tz-gateway demo [options]       serve a built-in model and ask it something

serve, check:
  --config-file GLOB   TOML file, or files that merge; may be repeated. Without
                       one: provider::model for each provider whose key is set
  --default-config     no file, said outright
  --bind-address ADDR  host:port, [ipv6]:port or unix:/path (127.0.0.1:3000);
                       wins over TENSORZERO_GATEWAY_BIND_ADDRESS and the file
  --host HOST, --port PORT        replace one part of that address; port 0: any
serve:
  --workers N          processes on one socket; each takes 1/N of the limits
                       and shows its own figures in /metrics
  --tls-cert FILE, --tls-key FILE   serve TLS (PEM)
check:
  --json               print the effective configuration as JSON
demo:
  --once               end after the answer
  --port PORT          default 3000, or any free one if that is taken
always:
  --log-level LEVEL    debug, info, warning or error (info; demo: warning)
  --log-format FORMAT  pretty or json; the log goes to standard error
  --version, --help

Routes: POST /v1/chat/completions, /v1/embeddings, /v1/moderations,
/v1/audio/transcriptions, /v1/audio/speech; GET /v1/models, /status, /health,
/livez, /readyz, /metrics. Exit status: 0 done, 1 failed, 2 bad arguments or
configuration, 128+N ended at once by a second signal N.

  tz-gateway demo --once
  OPENAI_API_KEY=... tz-gateway --port 8080
  tz-gateway check --config-file 'config/*.toml' && echo good
"""
