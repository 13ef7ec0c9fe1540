"""What schemathesis is told beside its configuration: which requests are not valid although each of their parts is, for which OpenAPI
has no words; what would end the run; and how headers look, of which it knows letters and digits only."""

import os
import re

import schemathesis
from hypothesis import strategies

# Of these parameters one is given, or at most one.
ONE_KEY = (1, 1, "query", ("key", "key_base64"))
PERHAPS_A_KEY = (0, 1, "query", ("key", "key_base64"))
PERHAPS_A_CONDITION = (0, 1, "headers", ("If-Match", "If-None-Match"))
GIVEN = {
    "get": ONE_KEY,
    "delete": ONE_KEY,
    "ttl": ONE_KEY,
    "exists": ONE_KEY,
    "why": ONE_KEY,
    "cluster_ring": PERHAPS_A_KEY,
    "set_cluster_setting": PERHAPS_A_CONDITION,
    "unset_cluster_setting": PERHAPS_A_CONDITION,
}


# From here on a whole number is written without a fraction or an exponent: docs/http-api.md.
ROUNDED_FROM = 10**15


def is_rounded(number):
    return isinstance(number, float) and abs(number) >= ROUNDED_FROM


def is_sendable(header):
    try:
        header.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


@schemathesis.hook
def filter_case(context, case):
    name = case.operation.definition.raw["operationId"]
    # A page of another origin is refused before all else, which .ci/schemathesis/run is not about; it comes as any header may.
    if any(header.lower() == "origin" for header in case.headers or {}):
        return False
    # The client that sends it has no bytes for any other text.
    if any(not is_sendable(value) for value in (case.headers or {}).values()):
        return False
    # The key that the run shows: without it all that follows would be a 401.
    if name == "revoke_api_key" and (case.path_parameters or {}).get("name") == os.environ["HENGE_KEY_NAME"]:
        return False
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_valid:
        return True
    if name == "incr" and any(is_rounded(case.body.get(member)) for member in ("by", "initial")):
        return False
    if name not in GIVEN:
        return True
    least, most, place, names = GIVEN[name]
    given = getattr(case, place) or {}
    return least <= sum(name in given for name in names) <= most


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                pattern = parameter["schema"].get("pattern")
                if parameter["in"] == "header" and pattern is not None:
                    # A format of its own, which is the pattern.
                    parameter["schema"]["format"] = f"as {pattern}"
                    like = strategies.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
                    schemathesis.openapi.format(f"as {pattern}", like)
