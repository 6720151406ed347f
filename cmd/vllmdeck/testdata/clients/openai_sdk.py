"""The gateway through OpenAI's Python client: chat, streams, abort, errors, a cut stream."""
import os

import openai

c = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=2)
ask = [{"role": "user", "content": "What is the capital of France?"}]

a = c.chat.completions.create(model="toy", messages=ask, max_tokens=32)
assert "Paris" in a.choices[0].message.content, a
assert a.usage.completion_tokens > 0 and a.model_extra["cost_info"]["simulated"] is True, a
print("chat: ok")

text, chunks = "", 0
for chunk in c.chat.completions.create(model="default", messages=ask, max_tokens=32, stream=True):
    assert chunk.choices, "a chunk that nobody asked for"
    text += chunk.choices[0].delta.content or ""
    chunks += 1
assert "Paris" in text and chunks > 2, text
print("stream: ok")

usage = None
for chunk in c.chat.completions.create(model="toy", messages=ask, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
assert usage and usage.completion_tokens > 0
print("stream with usage: ok")

with c.chat.completions.create(model="toy", messages=ask, stream=True, max_tokens=500, extra_body={"ignore_eos": True}) as s:
    for chunk in s:
        break
print("abort: ok")

for model, want, kw in [
    ("nope", openai.NotFoundError, {}),
    ("toy", openai.BadRequestError, {"max_tokens": 1 << 20}),
    ("busy", openai.InternalServerError, {}),
]:
    try:
        c.chat.completions.create(model=model, messages=ask, **kw)
    except want as e:
        assert e.body and e.body.get("message"), e
    else:
        raise AssertionError(f"{model}: no {want.__name__}")
print("errors: ok")

got = ""
try:
    for chunk in c.chat.completions.create(model="cut", messages=ask, stream=True):
        got += chunk.choices[0].delta.content or ""
except openai.APIError as e:
    assert got, "cut before any content"
else:
    raise AssertionError("a cut stream looked whole: " + got)
print("cut stream raises: ok")

r = c.responses.create(model="toy", input="What is the capital of France?", max_output_tokens=32)
assert "Paris" in r.output_text, r
print("responses: ok")
