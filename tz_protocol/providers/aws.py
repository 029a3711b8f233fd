"""The vendors at AWS: Bedrock and SageMaker.

The one rule: whom to ask and how to prove who asks; what to say is the dialects'.
A key of the configuration is a Bedrock API key and goes out as it is; without one every
request is signed with the process's own credentials.

Sources: https://docs.aws.amazon.com/general/latest/gr/bedrock.html and sagemaker.html,
"Service endpoints"; https://docs.aws.amazon.com/bedrock/latest/userguide/
api-keys-use.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.bedrock_embeddings import (
    BEDROCK_EMBEDDINGS,
    INPUT_TYPE_OPTION,
)
from tz_protocol.dialects.sagemaker import (
    ENDPOINT_OPTION,
    HOSTED_OPTION,
    SAGEMAKER,
)
from tz_protocol.errors import InvalidRequest
from tz_protocol.providers.base import Deviations, Provider, Sign
from tz_protocol.providers.openai_family import bearer
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.settings import ProviderSettings, Url
from tz_protocol.wire.sigv4 import AwsCredentials, Scope, sign

__all__ = [
    "AUTO_REGION_OPTION",
    "AWS_BEDROCK",
    "AWS_SAGEMAKER",
    "REGION_LOCATIONS",
    "REGION_OPTION",
]

REGION_OPTION = "region"
"""Key of the provider's table."""

AUTO_REGION_OPTION = "allow_auto_detect_region"
"""Key of the provider's table: true takes the region of the surroundings."""

REGION_LOCATIONS = ("env::AWS_REGION", "env::AWS_DEFAULT_REGION")
"""Where the surroundings say it; the first that exists counts."""

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-\d{1,2}")
_IN_HOST = re.compile(r"\.([a-z]{2}(?:-[a-z]+){1,3}-\d{1,2})\.amazonaws\.com")


def _located(service: str) -> Callable[[Mapping[str, str]], str]:
    """Return what gives the base URL of *service*, the first part of its host."""

    def locate(options: Mapping[str, str]) -> str:
        region = options[REGION_OPTION]
        if not _REGION.fullmatch(region):
            message = "expected the name of an AWS region, such as us-east-1"
            raise ValueError(message)
        # China's regions are a partition of their own, with its own domain.
        suffix = ".cn" if region.startswith("cn-") else ""
        return f"https://{service}.{region}.amazonaws.com{suffix}/"

    return locate


def _signed(service: str) -> Sign:
    """Return what signs requests for *service*, a signing name."""

    def signed(
        request: HttpRequest,
        settings: ProviderSettings,
        credentials: AwsCredentials,
        region: str,
        wall: float,
    ) -> Headers:
        url = settings.url or Url("https", "", 443)
        path, _, query = request.path.partition("?")
        return sign(
            request.method,
            url.path + path,
            "&".join(part for part in (query, url.query) if part),
            (("host", url.authority), *_signed_headers(request, settings)),
            request.body,
            credentials=credentials,
            scope=Scope(_region(settings, url.host, region), service),
            wall=wall,
        )

    return signed


def _signed_headers(request: HttpRequest, settings: ProviderSettings) -> Headers:
    """Return the headers that a signature must cover, as they will be sent."""
    extra = {name for name, _ in settings.extra_headers}
    kept = (pair for pair in request.headers if pair[0] not in extra)
    return tuple(
        (name, value)
        for name, value in (*kept, *settings.extra_headers)
        if name == "content-type" or name.startswith("x-amz-")
    )


def _region(settings: ProviderSettings, host: str, ambient: str) -> str:
    """Return the region that a signature is for."""
    found = _IN_HOST.search(host)
    region = settings.options.get(REGION_OPTION) or (found and found[1]) or ambient
    if not region:
        message = (
            f"The provider {settings.name} needs an AWS region: set {REGION_OPTION} in "
            "its table."
        )
        raise InvalidRequest(message, code="missing_region")
    return region


_COMMON = (REGION_OPTION, AUTO_REGION_OPTION, "api_base")

AWS_BEDROCK = Provider(
    name="aws_bedrock",
    base_url=None,
    locate=_located("bedrock-runtime"),
    credential="env::AWS_BEARER_TOKEN_BEDROCK",
    is_key_optional=True,
    authorize=bearer,
    sign=_signed("bedrock"),
    dialects={"chat": BEDROCK, "embedding": BEDROCK_EMBEDDINGS},
    required=("model_id",),
    optional=(*_COMMON, INPUT_TYPE_OPTION),
    has_shorthand=False,
)
"""Converse, ConverseStream, and invoke for embeddings."""

AWS_SAGEMAKER = Provider(
    name="aws_sagemaker",
    base_url=None,
    locate=_located("runtime.sagemaker"),
    credential=None,
    is_key_optional=True,
    authorize=bearer,
    sign=_signed("sagemaker"),
    dialects={"chat": SAGEMAKER},
    required=(ENDPOINT_OPTION, "model_name", HOSTED_OPTION),
    optional=_COMMON,
    has_shorthand=False,
    # Containers know the older name; new ones know both.
    deviations=Deviations(renames={"max_completion_tokens": "max_tokens"}),
)
"""InvokeEndpoint and InvokeEndpointWithResponseStream."""
