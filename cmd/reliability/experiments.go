package main

import "context"

// experiment is one trial of the product.
type experiment struct {
	id    string
	title string
	run   func(ctx context.Context, t *trial) error
}

// experiments are all there are, in the order in which they run.
var experiments = []experiment{
	{"R1", "kill -9 one of two workers, 50 streams and 50 plain clients, 20 kills", r01},
	{"R2", "kill -9 only the API server of a worker whose engine keeps the GPU, 50 times", r02},
	{"R3", "kill -9 the engine under 500 requests a second, 25 times", r03},
	{"R4", "consoles that die in every way under load, and a storm of sizes", r04},
	{"R5", "workers that hang before the first token, mid-stream, and behind a /health that answers", r05},
	{"R6", "answers broken in six ways on four routes, with one worker and with two", r06},
	{"R7", "1,000 clients hang up at random moments, on four routes", r07},
	{"R8", "1,000 clients that do not read beside ten that do", r08},
	{"R9", "10,000 mangled requests, 2,000 slow connections, bodies of 20 MB", r09},
	{"R11", "recorded streams cut at every byte, the way of an event, a minute of fuzzing", r11},
	{"R15", "both workers gone, and a paid API in a storm of 429 and 500, under a spend cap", r15},
	{"R16", "secrets and prompts in every place, searched for in all that is written, shown and told", r16},
	{"R17", "ten times what a worker can do, in open loop, and then a normal load", r17},
	{"R18", "rolling restarts and drains under load, and streams beyond the drain limit", r18},
}
