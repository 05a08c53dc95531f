"""Requests that a fuzzer makes from the server's own OpenAPI page, and messages that were damaged on the way."""

import math
import random
from collections import Counter

import httpx
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.openapi import media_type

from cbbt.box.blackbox import load_black_box
from cbbt.box.server.accounts import Account
from cbbt.box.wire import MEDIA_TYPE, pack

from .served import serving

KEY = "a key of the fuzzer"

shapes = st.lists(st.integers(0, 3) | st.just(128), max_size=5).filter(lambda shape: math.prod(shape) <= 100_000)
kinds = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.int8, torch.bool])
values = st.floats(width=32) | st.integers(-9, 9)
tensors = st.builds(lambda shape, kind, value: torch.full(shape, value).to(kind), shapes, kinds, values)
words = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
names = st.sampled_from(["contexts", "pixels", "images", "labels", "offsets", "tokens", "weights"])
headers = st.dictionaries(st.sampled_from(["class_names", "position", "texts", "normalize", "module"]), words, max_size=4)


def packed(named, header):
    try:
        return pack(named, header)
    except (ValueError, UnicodeError):  # texts that JSON or safetensors cannot hold
        return b""


messages = st.builds(packed, st.dictionaries(names, tensors, max_size=4), headers) | st.binary(max_size=200)
media_type(MEDIA_TYPE, messages)
REQUESTS = pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.soak)])


@pytest.fixture(scope="module")
def box():
    return load_black_box("mini", device="cpu")


@REQUESTS
def test_requests_of_a_fuzzer_crash_nothing_and_those_that_fail_cost_nothing(box, count):
    """`count` requests to each endpoint that the OpenAPI page has, most of which are as it says and do not fit the model."""
    account = Account("fuzzer", {})
    with serving(box, accounts={KEY: account}, megabytes=1) as (address, ledger):
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        statuses = []

        def fuzz(case):
            before = ledger.spent(account)
            response = case.call(headers={"Authorization": f"Bearer {KEY}", "If-Match": f'"{box.fingerprint()}"'})
            statuses.append(response.status_code)
            assert response.status_code < 500, response.text
            assert response.status_code == 200 or ledger.spent(account) == before

        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            options = {"max_examples": count, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}
            limited = settings(deadline=None, database=None, derandomize=True, **options)
            limited(given(operation.as_strategy())(lambda case: fuzz(case)))()
        assert len(operations) == 11
        assert load_black_box(address, key=KEY, device="cpu").encode_texts(["a circle."]).isfinite().all()
    print(f"{len(statuses)} requests: {dict(sorted(Counter(statuses).items()))}")
    assert len([status for status in statuses if status >= 400]) > 3 * count


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_messages_that_were_damaged_get_4xx_or_an_answer_and_cost_nothing_or_their_price(box, count):
    """A good message of which bytes are changed, cut off, doubled or put in."""
    draw = random.Random(count)
    good = pack({"contexts": torch.zeros(2, 1, box.context_dim)}, {"class_names": ["circle"], "position": "end"})
    with serving(box) as (address, ledger), httpx.Client(base_url=address, headers={"Content-Type": MEDIA_TYPE}) as client:
        statuses = Counter()
        for _ in range(count):
            body, place = bytearray(good), draw.randrange(len(good) if draw.random() < 0.3 else 200)
            match draw.randrange(4):
                case 0:
                    body[place] ^= 1 << draw.randrange(8)
                case 1:
                    del body[place : place + draw.randrange(1, 50)]
                case 2:
                    body[place:place] = draw.randbytes(draw.randrange(1, 50))
                case 3:
                    body[place:place] = body[: draw.randrange(len(body))]
            before = ledger.spent(Account("anyone", {}))["class_prompts"]
            response = client.post("/v1/prompts", content=bytes(body))
            statuses[response.status_code] += 1
            cost = ledger.spent(Account("anyone", {}))["class_prompts"] - before
            assert (response.status_code == 200 and cost > 0) or (400 <= response.status_code < 500 and cost == 0)
    print(f"{count} damaged messages: {dict(statuses)}")
    assert statuses[422] > count / 4
