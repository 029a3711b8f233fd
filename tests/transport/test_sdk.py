"""The OpenAI SDK, unmodified, against a running gateway of each transport."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest
from pydantic import BaseModel

from tests.transport.processes import claude, gateway, refuser

openai = pytest.importorskip("openai")

STATUSES = (400, 401, 403, 404, 409, 422, 429, 500, 503)

CONFIG = """
[gateway]
bind_address = "127.0.0.1:0"
[gateway.timeouts]
connect_ms = 1000
{dummies}
{refusers}
"""

DUMMY = """
[models.{name}]
routing = ["dummy"]
endpoints = ["chat", "embedding", "moderation", "audio_transcription", "audio_speech"]
[models.{name}.providers.dummy]
type = "dummy"
model_name = "{name}"
"""

REFUSER = """
[models.status-{status}]
routing = ["up"]
[models.status-{status}.providers.up]
type = "openai"
model_name = "{status}"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""

CLAUDE = """
[models.claude]
routing = ["up"]
[models.claude.providers.up]
type = "anthropic"
model_name = "claude-sonnet-4-5"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""

MESSAGES = [{"role": "user", "content": "Hi"}]
DUMMIES = ("good", "tool", "json", "slow", "reasoner", "err_in_stream")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def port(request, tmp_path_factory):
    """The port of a gateway, one for all tests of a transport."""
    with refuser() as upstream, claude() as other:
        config = tmp_path_factory.mktemp("sdk") / "gateway.toml"
        config.write_text(
            CONFIG.format(
                dummies="".join(DUMMY.format(name=name) for name in DUMMIES),
                refusers="".join(
                    REFUSER.format(status=status, port=upstream) for status in STATUSES
                ),
            )
            + CLAUDE.format(port=other)
        )
        with gateway(request.param, config, "--log-level", "error") as process:
            yield process.port


@pytest.fixture
def client(port):
    url = f"http://127.0.0.1:{port}/v1"
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def run(port, scenario):
    """Run *scenario* with an asynchronous client."""

    async def main():
        url = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="unused") as client:
            return await scenario(client)

    return asyncio.run(main())


def test_chat_answers(client):
    answer = client.chat.completions.create(model="good", messages=MESSAGES)
    assert answer.model == "good"
    assert answer.choices[0].message.content.startswith("Megumin")
    assert answer.usage.total_tokens == 11


def test_chat_streams(client):
    chunks = list(
        client.chat.completions.create(
            model="good",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts).startswith("Wally, the golden retriever")
    assert chunks[-1].usage.completion_tokens == 16
    assert len({chunk.id for chunk in chunks}) == 1


def test_chat_streams_asynchronously(port):
    async def scenario(client):
        stream = await client.chat.completions.create(
            model="good", messages=MESSAGES, stream=True
        )
        return [c.choices[0].delta.content or "" async for c in stream if c.choices]

    assert "".join(run(port, scenario)).endswith("cheese pizza.")


def counted(text):
    """Return whose the answer is, after a look whether it is whole and of one."""
    words = text.split()
    number = words[0].partition(".")[0]
    assert words == [f"{number}.{place}" for place in range(300)]
    return int(number)


def test_chat_has_several_answers_of_a_provider_that_gives_one(client):
    answer = client.chat.completions.create(
        model="claude", messages=MESSAGES, n=4, max_tokens=300
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    numbers = {counted(choice.message.content) for choice in answer.choices}
    assert len(numbers) == 4
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 1_200)


def test_chat_streams_several_answers_of_a_provider_that_gives_one(client):
    chunks = list(
        client.chat.completions.create(
            model="claude",
            messages=MESSAGES,
            n=4,
            max_tokens=300,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = ["", "", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert len({counted(text) for text in texts}) == 4
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [1_212]
    assert chunks[-1].usage is not None


def test_chat_answers_asynchronously(port):
    async def scenario(client):
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="good", messages=MESSAGES)
                for _ in range(20)
            )
        )
        return [answer.choices[0].message.content for answer in answers]

    texts = run(port, scenario)
    assert len(texts) == 20
    assert len(set(texts)) == 1


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_temperature",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]


def test_tools_are_called(client):
    answer = client.chat.completions.create(
        model="tool", messages=MESSAGES, tools=TOOLS, tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_temperature"
    assert answer.choices[0].finish_reason == "tool_calls"


def test_tools_are_called_in_a_stream(client):
    with client.chat.completions.stream(
        model="tool", messages=MESSAGES, tools=TOOLS
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert call.function.arguments == '{"location":"Brooklyn","units":"celsius"}'


class Greeting(BaseModel):
    answer: str


def test_structured_output_is_parsed(client):
    answer = client.chat.completions.parse(
        model="json", messages=MESSAGES, response_format=Greeting
    )
    assert answer.choices[0].message.parsed == Greeting(answer="Hello")


def test_reasoning_content_comes_through(client):
    answer = client.chat.completions.create(model="reasoner", messages=MESSAGES)
    assert answer.choices[0].message.reasoning_content == "hmmm"


def test_embeddings_are_answered(client):
    answer = client.embeddings.create(model="good", input=["one", "two"])
    assert [len(row.embedding) for row in answer.data] == [1536, 1536]
    floats = client.embeddings.create(
        model="good", input=[1, 2, 3], encoding_format="float", dimensions=8
    )
    assert len(floats.data[0].embedding) == 8
    raw = client.embeddings.create(model="good", input="x", encoding_format="base64")
    assert len(base64.b64decode(raw.data[0].embedding)) == 1536 * 4


def test_moderations_are_answered(client):
    answer = client.moderations.create(
        model="good",
        input=[
            {"type": "text", "text": "something harmful"},
            {"type": "image_url", "image_url": {"url": "https://example.com/i.png"}},
        ],
    )
    assert answer.results[0].flagged


def test_audio_is_transcribed_and_spoken(client):
    heard = client.audio.transcriptions.create(model="good", file=("a.wav", b"RIFF"))
    assert heard.text == "This is a dummy transcription"
    spoken = client.audio.speech.create(model="good", voice="alloy", input="Hello")
    assert spoken.read() == bytes(1024)


def test_models_are_listed_and_retrieved(client):
    names = {model.id for model in client.models.list()}
    assert set(DUMMIES) <= names
    assert client.models.retrieve("good").id == "good"


@pytest.mark.parametrize(
    ("model", "error", "status"),
    [
        ("status-400", "BadRequestError", 400),
        ("status-404", "NotFoundError", 404),
        ("status-409", "ConflictError", 409),
        ("status-422", "UnprocessableEntityError", 422),
        ("status-429", "RateLimitError", 429),
        ("status-401", "InternalServerError", 502),
        ("status-403", "InternalServerError", 502),
        ("status-500", "InternalServerError", 502),
        ("status-503", "InternalServerError", 503),
        ("nope", "NotFoundError", 404),
    ],
)
def test_error_is_the_sdks_own(client, model, error, status):
    with pytest.raises(getattr(openai, error)) as raised:
        client.chat.completions.create(model=model, messages=MESSAGES)
    assert raised.value.status_code == status
    assert raised.value.request_id
    assert raised.value.body["message"]


def test_error_within_a_stream_is_the_sdks_own(client):
    with pytest.raises(openai.APIError, match="Dummy error in stream"):
        list(
            client.chat.completions.create(
                model="err_in_stream", messages=MESSAGES, stream=True
            )
        )


def test_client_timeout_is_the_sdks_own_and_harms_nobody(client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(
            model="slow", messages=MESSAGES
        )
    assert client.chat.completions.create(model="good", messages=MESSAGES).id


def test_unreachable_gateway_is_the_sdks_own():
    url = "http://127.0.0.1:9/v1"
    with (
        openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


# -- callers with keys ----------------------------------------------------------

KEY = "sk-sdk-0123456789abcdefghijkl"
BROKE = "sk-broke-0123456789abcdefghij"
KEYED = """
[models.good]
routing = ["dummy"]
[models.other]
routing = ["dummy"]
[api_keys."sha256:{key}"]
models = {{ "mine" = {{ endpoint_id = "good" }} }}
[api_keys."sha256:{broke}"]
models = {{ "mine" = {{ endpoint_id = "good" }} }}
limits = {{ budget_per_day = "1" }}
"""


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def keyed_port(request, tmp_path_factory):
    """The port of a gateway that wants keys."""
    config = tmp_path_factory.mktemp("keyed") / "gateway.toml"
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, BROKE)]
    config.write_text(KEYED.format(key=digests[0], broke=digests[1]))
    with gateway(request.param, config, "--log-level", "error") as process:
        yield process.port


def keyed(port, key):
    url = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def test_key_opens_its_models_and_no_others(keyed_port):
    with keyed(keyed_port, KEY) as client:
        assert [model.id for model in client.models.list()] == ["mine"]
        answer = client.chat.completions.create(model="mine", messages=MESSAGES)
        assert answer.model == "mine"
        for name in ("good", "other", "nope"):
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model=name, messages=MESSAGES)


def test_wrong_key_is_the_sdks_authentication_error(keyed_port):
    with (
        keyed(keyed_port, "sk-wrong") as client,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        client.chat.completions.create(model="mine", messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"


def test_key_with_a_budget_and_no_price_is_the_sdks_permission_error(keyed_port):
    with (
        keyed(keyed_port, BROKE) as client,
        pytest.raises(openai.PermissionDeniedError) as raised,
    ):
        client.chat.completions.create(model="mine", messages=MESSAGES)
    assert raised.value.code == "price_unknown"
