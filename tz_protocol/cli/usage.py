"""The texts of ``tz-gateway --help`` and of those commands that have their own.

The one rule: at most 40 lines of at most 80 columns, so that it fits a terminal.
"""

from __future__ import annotations

__all__ = ["HELP", "KEYS_HELP", "STORE_HELP"]

HELP = """\
tz-gateway: one OpenAI-compatible front for every model provider

  tz-gateway [serve] [options]    serve until SIGTERM or SIGINT; SIGHUP reloads
  tz-gateway check [options]      check the configuration, print the routes, end
  tz-gateway demo [options]       serve a built-in model and ask it something
  tz-gateway explain --model M    print what would become of a request
  tz-gateway keys ACTION          API keys; see tz-gateway keys --help
  tz-gateway tail, tz-gateway usage       what the store says; see tail --help

serve, check, explain:
  --config-file GLOB   TOML file, or files that merge; may be repeated. Without
                       one: provider::model for each provider whose key is set
  --default-config     no file, said outright
  --bind-address ADDR  host:port, [ipv6]:port or unix:/path (127.0.0.1:3000);
                       wins over TENSORZERO_GATEWAY_BIND_ADDRESS and the file
  --host HOST, --port PORT        replace one part of that address; port 0: any
serve:
  --workers N          processes on one socket; each takes 1/N of the limits,
                       and /metrics shows all of them together
  --tls-cert FILE, --tls-key FILE   serve TLS (PEM)
check, explain:
  --json               print the same as JSON
  --request FILE       explain this request (JSON), not the least one
demo:
  --once               end after the answer
  --port PORT          default 3000, or any free one if that is taken
always:
  --log-level LEVEL    debug, info, warning or error (info; demo: warning)
  --log-format FORMAT  pretty or json; the log goes to standard error
  --version, --help

Routes: POST /v1/chat/completions, /v1/embeddings, /v1/moderations,
/v1/audio/transcriptions, /v1/audio/speech; GET /v1/models, /v1/capabilities,
/status, /health, /livez, /readyz, /metrics. Exit status: 0 done, 1 failed,
2 bad arguments or configuration, 128+N ended at once by a second signal N.

  tz-gateway demo --once
  OPENAI_API_KEY=... tz-gateway --port 8080
  tz-gateway check --config-file 'config/*.toml' && echo good
"""

KEYS_HELP = """\
tz-gateway keys: who may use what

  tz-gateway keys create --model NAME [options]
                       make a key and print it, this once
  tz-gateway keys list           show what is in Redis, never a key
  tz-gateway keys disable ID     refuse the key from now on
  tz-gateway keys rotate ID      make a key like it, and disable the old one

Keys are in the Redis at TENSORZERO_REDIS_URL, by their SHA-256 digest, and work
within a second. ID is what list shows, or its first 8 digits.

create:
  --model NAME[=ENDPOINT_ID]     what callers may ask for; may be repeated
  --project ID                   for the records
  --requests-per-minute N, --tokens-per-minute N, --concurrent-requests N
  --budget-per-day AMOUNT, --budget-per-month AMOUNT
                                 in the currency of cost in the configuration
  --expires-at TIME              such as 2030-01-31 or 2030-01-31T12:00:00Z
  --note TEXT                    for whoever reads list
  --toml                         print a table for [api_keys] in a file instead;
                                 the key itself goes to standard error

  KEY=$(tz-gateway keys create --model gpt-4o --budget-per-month 25)
"""

STORE_HELP = """\
tz-gateway tail, tz-gateway usage: what the store says of requests

  tz-gateway tail [options]      print requests as their records arrive
  tz-gateway usage [options]     print what was used, and how it went
  tz-gateway --run-clickhouse-migrations [--config-file FILE]
                                 make the tables, and end; rows stay for as
                                 long as the file's ttl_days says

All read the store at TENSORZERO_CLICKHOUSE_URL (http(s)://... or
chdb:///FOLDER), whether or not a gateway writes to it.

tail:
  --since SPAN         begin with so much of the past, such as 30m, 24h or 7d;
                       without: with the last 10 seconds
  --model NAME         only what this model was asked or has answered
  --key ID             only what this key asked for, by its id of 16 digits
  --failures           only what did not end well
usage:
  --since SPAN         until now: such as 30m, 24h (the default) or 7d
  --by NAME[,NAME]     model (the default), provider, key, project, day or
                       endpoint
tail, usage:
  --json               the same as JSON: an object on each line, or an array

  tz-gateway usage --since 7d --by day,model
  tz-gateway tail --failures --json
"""
