package tui

// paneSpec is what the console knows of a pane. A new pane is a file that draws it and a row here.
type paneSpec struct {
	name    Text
	draw    func(*Console, *panel)
	opens   viewID // where enter goes; 0: nowhere
	zooms   viewID // equal to opens: enter zooms it
	filters bool   // "/" filters it
	explain Text
}

func spec(id paneID) paneSpec {
	switch id {
	case paneThroughput:
		return paneSpec{name: "Throughput", draw: (*Console).drawThroughput, opens: viewOverview, zooms: viewOverview, explain: `Output tokens per second, as they pass the gateway, in buckets fixed to the clock; the newest one is still filling and drawn dim. A point that covers several buckets is their mean.
req/s: requests that ended, per second. prompt: prompt tokens per second, counted when a request ends.
errors: the share that failed (no answer, or one cut off) of the requests that ended in the window and were neither rejected nor cancelled; those are counted apart.
moved: requests that another worker took over before any content, unseen by the client.
Source: the gateway's own record of each request, not vLLM's metrics.`}
	case paneLatency:
		return paneSpec{name: "Latency", draw: (*Console).drawLatency, opens: viewOverview, zooms: viewOverview, explain: `TTFT: arrival at the gateway to the first content, as the client sees it. E2E: arrival to end. ITL: gaps between content events. queue: wait in the gateway for a worker.
The chart shows TTFT p95 (whole area) with p50 inside it; a point that covers several buckets is their maximum, so that a spike stays.
The table is over the whole window. A value with ~ has fewer samples than its quantile needs (20 for p95, 100 for p99) and is close to the maximum.
Source: the gateway's clock, per request.`}
	case paneStages:
		return paneSpec{name: "End to end", draw: (*Console).drawStages, opens: viewOverview, zooms: viewOverview, explain: `E2E p95: arrival at the gateway to the end of the answer. It grows with the length of answers, so compare it with output tokens.
ITL p95: gap between two content events of a stream, the pace a reader feels. A worker that batches more has a longer one.
Source: the gateway's clock, per request.`}
	case paneMoney:
		return paneSpec{name: "Savings", draw: (*Console).drawMoney, opens: viewCosts, explain: moneyExplained}
	case paneCosts:
		return paneSpec{name: "Costs", draw: (*Console).drawCosts, explain: moneyExplained}
	case paneClasses:
		return paneSpec{name: "Where it went", draw: (*Console).drawClasses, explain: `Actual cost by class. Only served requests earn savings. retry: legs on a worker that failed. failover: served by a paid provider. tester: this console's prompts. load: load tests. Idle is worker time with nobody in flight, start-up included; it is in Actual and in no class.`}
	case paneRates:
		return paneSpec{name: "Break-even", draw: (*Console).drawRates, explain: `Output tokens per hour at which what the workers cost equals what the baseline would charge, at this period's mix of prompt and output tokens. "now" is the pace of the last minute. The unit prices are the baseline's list prices at the date shown.`}
	case paneHealth:
		return paneSpec{name: "Answer health", draw: (*Console).drawHealth, opens: viewEvents, zooms: viewEvents, explain: `Health is a detector of defects, from 0 to 1: answers cut by length, refused, looping, incoherent. It says nothing about whether an answer is right; that is quality, which only a judge or a person can tell.
Until it has been calibrated on your own answers the target is a starting value and is marked so.
Source: raters in the engine, off the path of the request.`}
	case paneNotices:
		return paneSpec{name: "Events", draw: (*Console).drawNotices, opens: viewEvents, filters: true, explain: eventsExplained}
	case paneEvents:
		return paneSpec{name: "Events", draw: (*Console).drawEvents, opens: viewWorkers, filters: true, explain: eventsExplained}
	case paneWorkers:
		return paneSpec{name: "Workers", draw: (*Console).drawWorkers, opens: viewWorkers, filters: true, explain: `One vLLM server a line. KV: share of its KV cache in use; near 100% it preempts. RUN/Q: requests running and waiting, as the server says. TOK/S: output tokens per second. TTFT95: over the last minute. HIT: prompt tokens served from its prefix cache, last minute.
GPU utilisation is the share of time in which any kernel ran, not how busy the card was.
Sources: vLLM's /metrics, the GPU's own tool, the process tree.`}
	case paneWorker:
		return paneSpec{name: "Worker", draw: (*Console).drawWorker, filters: true, explain: `Tabs with [ and ]. Timeline shows the phases of the last start and how long each took. Args is the command as run, secrets redacted. Errors: the first line that explains a failure, and what mends it.`}
	case paneRequests:
		return paneSpec{name: "Requests", draw: (*Console).drawRequests, opens: viewRequests, filters: true, explain: `In flight first, then the newest. PROMPT and OUT in tokens; ≈ marks counts that do not come from the server. TTFT: arrival to first content. TOK/S: completion tokens per second after the first. ACTUAL: its share of worker time (fixed when it ends) or what a paid API charged. WOULD: the same tokens at the baseline's list price. A dash is unknown.`}
	case paneRequest:
		return paneSpec{name: "Request", draw: (*Console).drawRequest, explain: `The waterfall splits arrival to end into waiting in the gateway, prefill (to the first content) and decode. Attempts are the workers tried, in order; a leg on a worker that failed is charged to nobody's request but to class retry.`}
	case paneLogs:
		return paneSpec{name: "Log", draw: (*Console).drawLogs, opens: viewWorkers, filters: true, explain: `The selected worker's own log, sanitised: control characters are shown as symbols.`}
	case panePrompt:
		return paneSpec{name: "Prompt", draw: (*Console).drawEditor, explain: promptExplained}
	case paneAnswer:
		return paneSpec{name: "Answer", draw: (*Console).drawAnswer, explain: promptExplained}
	case paneHistory:
		return paneSpec{name: "History", draw: (*Console).drawHistory, explain: promptExplained}
	}
	return paneSpec{name: "vllmdeck", draw: func(*Console, *panel) {}}
}

const (
	moneyExplained Text = `Actual: what was spent in the period: workers by the wall clock, idle and start-up included, and paid API calls.
Would have cost: the tokens of the requests that count, at the dated list price of the baseline.
Net: the difference, negative where self-hosting loses. Low and high are its bounds over tokenizer and length differences and cheaper price lists.
Hostile baseline: the same open model, hosted by somebody else: the least flattering comparison.
Utilisation: share of worker time with a request in flight. Without it a percentage means nothing.`
	eventsExplained Text = `What an operator should know. ! and ✗ that are bright are still true. Enter goes to the worker.`
	promptExplained Text = `The prompt goes through the engine's own gateway, as key "console" and cost class "tester": what it costs counts, what it would have cost earns no savings. TTFT and tokens/s are measured by the engine.`
)
