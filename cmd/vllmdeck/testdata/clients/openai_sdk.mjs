// The gateway through OpenAI's client for Node: chat, streams, abort, errors, a cut stream.
import assert from "node:assert/strict";
import OpenAI from "openai";

const c = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none" });
const messages = [{ role: "user", content: "What is the capital of France?" }];

const a = await c.chat.completions.create({ model: "toy", messages, max_tokens: 32 });
assert.match(a.choices[0].message.content, /Paris/);
assert.equal(a.cost_info.simulated, true);
console.log("chat: ok");

let text = "";
for await (const chunk of await c.chat.completions.create({ model: "default", messages, max_tokens: 32, stream: true })) {
  assert.ok(chunk.choices.length, "a chunk that nobody asked for");
  text += chunk.choices[0].delta.content ?? "";
}
assert.match(text, /Paris/);
console.log("stream: ok");

let usage;
for await (const chunk of await c.chat.completions.create({ model: "toy", messages, stream: true, stream_options: { include_usage: true } })) {
  usage = chunk.usage ?? usage;
}
assert.ok(usage.completion_tokens > 0);
console.log("stream with usage: ok");

const s = await c.chat.completions.create({ model: "toy", messages, stream: true, max_tokens: 500, ignore_eos: true });
for await (const _ of s) break;
s.controller.abort();
console.log("abort: ok");

await assert.rejects(c.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
await assert.rejects(c.chat.completions.create({ model: "toy", messages, max_tokens: 1 << 20 }), OpenAI.BadRequestError);
await assert.rejects(c.chat.completions.create({ model: "busy", messages }), OpenAI.InternalServerError);
console.log("errors: ok");

let got = "";
await assert.rejects(async () => {
  for await (const chunk of await c.chat.completions.create({ model: "cut", messages, stream: true })) {
    got += chunk.choices[0].delta.content ?? "";
  }
});
assert.ok(got, "cut before any content");
console.log("cut stream raises: ok");
