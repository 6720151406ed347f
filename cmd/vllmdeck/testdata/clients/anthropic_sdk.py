"""The gateway's /v1/messages through Anthropic's Python client."""
import os

import anthropic

c = anthropic.Anthropic(base_url=os.environ["BASE_URL"].removesuffix("/v1"), api_key="none")
ask = [{"role": "user", "content": "What is the capital of France?"}]

m = c.messages.create(model="toy", max_tokens=32, messages=ask)
assert "Paris" in m.content[0].text and m.usage.output_tokens > 0, m
print("messages: ok")

with c.messages.stream(model="toy", max_tokens=32, messages=ask) as s:
    text = "".join(s.text_stream)
assert "Paris" in text, text
print("messages, streamed: ok")

try:
    c.messages.create(model="nope", max_tokens=8, messages=ask)
except anthropic.NotFoundError:
    print("errors: ok")
else:
    raise AssertionError("an unknown model was served")

got = ""
try:
    with c.messages.stream(model="cut", max_tokens=64, messages=ask) as s:
        for t in s.text_stream:
            got += t
except Exception as e:  # the client has no one class for it
    assert got, f"cut before any content: {e!r}"
    print("cut stream raises: ok", type(e).__name__)
else:
    raise AssertionError("a cut stream looked whole: " + got)
