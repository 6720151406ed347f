// The gateway through the Vercel AI SDK: text, stream, errors, a cut stream.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const provider = createOpenAICompatible({ name: "vllmdeck", baseURL: process.env.BASE_URL, includeUsage: true });
const prompt = "What is the capital of France?";

const a = await generateText({ model: provider("toy"), prompt, maxOutputTokens: 32 });
assert.match(a.text, /Paris/);
assert.ok(a.usage.outputTokens > 0);
console.log("text: ok");

const s = streamText({ model: provider("toy"), prompt, maxOutputTokens: 32 });
let text = "";
for await (const part of s.textStream) text += part;
assert.match(text, /Paris/);
assert.ok((await s.usage).outputTokens > 0);
console.log("stream: ok");

await assert.rejects(generateText({ model: provider("nope"), prompt, maxRetries: 0 }));
console.log("errors: ok");

let failed = null;
let got = "";
const cut = streamText({ model: provider("cut"), prompt, onError: ({ error }) => { failed = error; } });
try {
  for await (const part of cut.textStream) got += part;
} catch (e) {
  failed = e;
}
assert.ok(got, "cut before any content");
assert.ok(failed, "a cut stream looked whole: " + got);
console.log("cut stream raises: ok");
