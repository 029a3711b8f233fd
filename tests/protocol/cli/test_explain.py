from __future__ import annotations

import json

import pytest

from tests.protocol.cli.running import Process
from tz_protocol.cli.explain import SAMPLES
from tz_protocol.cli.main import parse_arguments
from tz_protocol.cli.options import Explain, Say, Source
from tz_protocol.operations import Connect, HttpCall, Listen
from tz_protocol.routing.classify import FOLLOWS, Kind, classify
from tz_protocol.testing import World

FILE = """
[gateway]
hedge_after_ms = 800
hold_events = 2
[models.a]
routing = ["main", "spare", "theirs"]
fallback_models = ["b"]
[models.a.providers.main]
type = "openai"
model_name = "gpt"
api_key_location = "env::OPENAI_API_KEY"
extra_headers = [{name = "x-more", value = "sk-canary-header"}]
[models.a.providers.spare]
type = "vllm"
model_name = "llama"
api_base = "http://10.0.0.5:8000/v1/?key=sk-canary-url"
api_key_location = "none"
retries = {count = 0}
[models.a.providers.theirs]
type = "openai"
model_name = "x"
api_key_location = "dynamic::theirs"
[models.b]
routing = ["c"]
context_tokens = 200000
[models.b.providers.c]
type = "anthropic"
model_name = "claude"
api_key_location = "env::OPENAI_API_KEY"
[models.e]
routing = ["openai"]
endpoints = ["embedding"]
[models.d]
routing = ["p"]
[models.d.providers.p]
type = "dummy"
model_name = "good"
"""


def explained(argv, request=None, *, file=FILE):
    """Run ``explain`` with these further arguments; return the process."""
    files = {"gw.toml": file}
    if request is not None:
        files["request.json"] = request
        argv = f"{argv} --request request.json"
    world = World(files=files, environment={"OPENAI_API_KEY": "sk-canary-key"})
    process = Process(f"explain --config-file gw.toml {argv}".split(), world)
    process.finish()
    return process


def found(argv, request=None, **options):
    return json.loads(explained(f"{argv} --json", request, **options).out)


def ask(**members):
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], **members})


@pytest.mark.parametrize("kind", Kind)
def test_explain_has_a_sample_of_every_class_of_failure(kind):
    assert classify(SAMPLES[kind]).kind is kind
    assert SAMPLES.keys() == FOLLOWS.keys()


def test_explain_arguments_are_read():
    argv = "explain --config-file gw.toml --model m --request r.json --json"
    command = parse_arguments(argv.split()).command
    source = Source(patterns=("gw.toml",))
    assert command == Explain(source=source, model="m", request="r.json", is_json=True)


@pytest.mark.parametrize("argv", ["explain", "explain --model a --model b"])
def test_explain_needs_one_model(argv):
    command = parse_arguments(argv.split()).command
    assert isinstance(command, Say)
    assert "explain needs one --model" in command.text
    assert command.status == 2


def test_explain_orders_the_candidates_and_says_who_is_dropped():
    result = found("--model a")
    order = [(one["model"], one["provider"]) for one in result["candidates"]]
    assert order == [("a", "main"), ("a", "spare"), ("b", "c")]
    (dropped,) = result["dropped"]
    assert dropped["provider"] == "theirs"
    assert "`tensorzero::credentials`" in dropped["why"]
    assert result["endpoint"] == "POST /v1/chat/completions"
    assert result["candidates"][2]["context_tokens"] == 200_000


LINKED = """
[models.a]
routing = ["p"]
[models.a.providers.p]
type = "aws_bedrock"
model_id = "us.amazon.nova-lite-v1:0"
region = "us-east-1"
"""


def asked_link(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    return ask(messages=[{"role": "user", "content": [part]}])


def test_explain_names_the_links_that_would_be_fetched():
    request = asked_link("https://img.test/a.png?key=sk-canary")
    (one,) = found("--model a", request, file=LINKED)["candidates"]
    assert one["fetched_links"] == ["https://img.test/a.png"]
    (part,) = one["request"]["body"]["messages"][0]["content"]
    assert part["image"]["source"]["bytes"] == "[what is at https://img.test/a.png]"
    text = explained("--model a", request, file=LINKED).out
    assert "fetched first: https://img.test/a.png\n" in text
    assert "canary" not in text


def test_explain_says_that_a_link_would_not_be_followed():
    request = asked_link("http://img.test/a.png")
    (one,) = found("--model a", request, file=LINKED)["candidates"]
    assert one["request"] is None
    assert "must be a URL of https" in one["why"]


def test_explain_says_who_cannot_do_it():
    file = FILE.replace('fallback_models = ["b"]', 'fallback_models = ["b", "both"]')
    file += '[models.both]\nrouting = ["x", "y"]\nendpoints = ["chat", "embedding"]\n'
    file += '[models.both.providers.x]\ntype = "dummy"\nmodel_name = "good"\n'
    file += '[models.both.providers.y]\ntype = "anthropic"\nmodel_name = "claude"\n'
    file += 'api_key_location = "env::OPENAI_API_KEY"\n'
    file = file.replace(
        'routing = ["openai"]', 'routing = ["openai"]\nfallback_models = ["both"]'
    )
    result = found("--model e", file=file)
    (dropped,) = result["dropped"]
    assert (dropped["model"], dropped["provider"]) == ("both", "y")
    assert "anthropic do not support embedding" in dropped["why"]


def test_explain_keeps_a_candidate_whose_key_the_request_has():
    request = ask(**{"tensorzero::credentials": {"theirs": "sk-canary-theirs"}})
    process = explained("--model a --json", request)
    assert json.loads(process.out)["dropped"] == []
    assert "sk-canary" not in process.out


def test_explain_renders_what_would_be_sent_to_each():
    result = found("--model a", ask(temperature=0.50, model="whatever"))
    first, second, third = (one["request"] for one in result["candidates"])
    assert first["url"] == "https://api.openai.com/v1/chat/completions"
    assert first["body"]["model"] == "gpt"
    assert first["body"]["temperature"] == 0.5
    assert ["authorization", "Bearer [redacted]"] in first["headers"]
    assert second["url"] == "http://10.0.0.5:8000/v1/chat/completions?[redacted]"
    assert not any(name == "authorization" for name, _ in second["headers"])
    assert third["url"].endswith("/v1/messages")
    assert ["x-api-key", "[redacted]"] in third["headers"]
    assert third["body"]["max_tokens"] > 0


def test_explain_says_how_often_a_provider_without_n_is_asked():
    result = found("--model a", ask(n=3))
    first, _, third = (one["request"] for one in result["candidates"])
    assert first["body"]["n"] == 3
    assert "times" not in first
    assert third["times"] == 3
    assert "n" not in third["body"]


@pytest.mark.parametrize("json_flag", ["", " --json"], ids=["text", "json"])
def test_explain_shows_no_secret_and_touches_nothing(json_flag):
    process = explained(f"--model a{json_flag}")
    assert "sk-canary" not in process.out + process.err
    asked = [operation for _, operation in process.outcome.operations]
    assert not any(isinstance(op, (Connect, HttpCall, Listen)) for op in asked)


def test_explain_says_what_follows_each_failure():
    rows = {one["kind"]: one for one in found("--model a")["failures"]}
    assert rows.keys() == {kind.value for kind in Kind}

    def tried(kind):
        return [step.get("try", step.get("pause")) for step in rows[kind]["steps"]]

    assert tried("malformed") == ["a/main"]
    assert rows["malformed"]["told"] == {"status": 400, "code": None}
    assert tried("auth") == ["a/main", "a/spare", "b/c"]
    assert rows["auth"]["told"]["code"] == "upstream_auth_error"
    assert rows["auth"]["is_loud"]
    assert tried("timeout") == ["a/main", "a/spare", "b/c"]
    assert rows["timeout"]["told"]["status"] == 504
    # The spare has no further try, and none of a round waits for another.
    assert tried("conflict") == [
        *("a/main", "a/spare", "b/c", 0.1),
        *("a/main", "b/c", 0.2),
        *("a/main", "b/c"),
    ]
    # Two failures in a row open a breaker where another is ready.
    assert tried("server")[-1] == "b/c"
    assert tried("server").count("a/main") == 2


def test_explain_says_where_nothing_can_be_sent():
    result = found("--model a", ask(logit_bias={"1": 2}))
    last = result["candidates"][2]
    assert last["request"] is None
    assert "logit_bias" in last["why"]
    server = next(one for one in result["failures"] if one["kind"] == "server")
    sent = {step["try"]: step["is_sent"] for step in server["steps"] if "try" in step}
    assert sent == {"a/main": True, "a/spare": True, "b/c": False}


def test_explain_shows_the_timers_of_the_request():
    whole, stream = found("--model a"), found("--model a", ask(stream=True))
    assert whole["timers"]["total"] == 600.0
    assert whole["timers"]["hedge_after"] == 0.8
    assert whole["timers"]["stream"] is None
    assert stream["timers"]["total"] == 3600.0
    assert stream["timers"]["stream"]["hold_events"] == 2
    stored = found("--model a", ask(store=True))
    assert stored["timers"]["hedge_after"] is None


@pytest.mark.parametrize(
    ("model", "request_text", "status", "code"),
    [
        ("nobody", None, 404, "model_not_found"),
        ("tensorzero::function_name::f", None, 400, "unsupported_model_name"),
        ("a", '{"messages": []}', 400, "empty_array"),
        ("a", "no json", 400, None),
        ("groq::x", None, 404, "model_not_found"),
    ],
)
def test_explain_says_what_a_refused_caller_gets(model, request_text, status, code):
    process = explained(f"--model {model} --json", request_text)
    refused = json.loads(process.out)["refused"]
    assert refused["status"] == status
    assert code is None or refused["code"] == code
    assert process.outcome.result == 1
    text = explained(f"--model {model}", request_text).out
    assert f"the caller gets {status}" in text


def test_explain_without_any_candidate_says_why():
    file = '[models.x]\nrouting = ["p"]\n[models.x.providers.p]\ntype = "openai"\n'
    file += 'model_name = "x"\napi_key_location = "dynamic::theirs"\n'
    result = found("--model x", file=file)
    assert result["refused"]["code"] == "missing_credential"
    assert [one["provider"] for one in result["dropped"]] == ["p"]


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        ("e", "POST /v1/embeddings"),
        ("d", "POST /v1/chat/completions"),
        ("openai::gpt-4.1-mini", "POST /v1/chat/completions"),
    ],
)
def test_explain_takes_the_endpoint_that_the_model_has(model, endpoint):
    result = found(f"--model {model}")
    assert result["endpoint"] == endpoint
    text = explained(f"--model {model}").out
    assert f"endpoint      {endpoint}" in text


def test_explain_file_that_is_not_there_is_said():
    world = World(files={"gw.toml": FILE}, environment={"OPENAI_API_KEY": "k"})
    argv = "explain --config-file gw.toml --model a --request no[1].json"
    process = Process(argv.split(), world)
    assert process.finish() == 1
    assert process.err == (
        "tz-gateway: no[1].json cannot be read, or there is no such file\n"
    )


def test_explain_config_that_is_wrong_is_said_as_by_check():
    process = explained("--model a", file="[models.a]\nroutng = []\n")
    assert process.outcome.result == 2
    assert "models.a.routng" in process.err


def test_explain_text_reads_like_this():
    file = "[models.x]\n" + FILE.split("[models.d]")[1].replace("models.d", "models.x")
    text = explained("--model x", file=file).out
    seconds = "connect 5, first content 120, idle 60, total 600, stream total 3600"
    assert text.splitlines()[1:10] == [
        "model         x (configured)",
        "endpoint      POST /v1/chat/completions",
        "",
        "1. x/p: dummy good",
        "  dialect openai_chat; key none",
        f"  seconds: {seconds}",
        "  breaker opens after 2 failures in a row (5 if nobody else is ready)",
        "    or 50% of at least 20 in 10 s; rests 10 to 30 s",
        "  nothing is sent: this process answers it",
    ]
    assert "    x/p -> (up to 0.1 s) -> x/p -> (up to 0.2 s) -> x/p -> 502" in text
