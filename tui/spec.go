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
PRE/S: requests preempted per second, their KV blocks taken back and computed again. SPEC: share of the drafted tokens that were accepted, last minute; only with speculative decoding.
asleep: its weights are off the GPU, a request wakes it. blocked: its start waits, the line says for what. rolling: a rolling restart is at it.
GPU utilisation is the share of time in which any kernel ran, not how busy the card was.
Sources: vLLM's /metrics, the GPU's own tool, the process tree.`}
	case paneWorker:
		return paneSpec{name: "Worker", draw: (*Console).drawWorker, filters: true, explain: workerExplained}
	case paneStrays:
		return paneSpec{name: "Strays", draw: (*Console).drawStrays, explain: `Processes of vLLM servers that nobody looks after: their API server is gone, or they carry our mark and have no parent of ours. They may hold GPU memory for ever, and a start on that card then fails. MEMORY: resident bytes. GPU MEMORY: over all cards, a dash where there is none or the driver does not say.
Nothing ends them by itself; x does, after asking. Other processes on a card are strangers: see the GPU tab of its worker.
Sources: /proc, the GPU's own tool.`}
	case paneKeys:
		return paneSpec{name: "Keys", draw: (*Console).drawKeys, explain: `Client keys of the gateway, what was spent most with today first. REQ/MIN and TOKENS/MIN: of the last minute, before the limit; tokens are prompt and completion of requests that have ended. NOW: requests in flight, before the limit of parallel ones. TODAY and MONTH: actual cost in US dollars of requests that have ended, in the host's local days; +? where the cost of some is not known. USED: since the last request. FAILOVER: when a paid API may serve it, of which the model's own word may be stricter. CAPTURE: its prompts and answers are kept for a while.
Below is what the selected one may do. Source: the gateway's own record. "vllmdeck keys" makes, changes and revokes keys; those of the config are changed there.`}
	case paneModels:
		return paneSpec{name: "Models", draw: (*Console).drawModels, opens: viewWorkers, explain: `What clients may ask for. WORKERS READY: of those that the config has for it. LENGTH: most tokens of prompt and answer together. COMPARED WITH: the price list behind "would have cost". FAILOVER: paid APIs that may serve it while no worker can; "not now" where none would take a request.
Below, the paid APIs: NOW requests in flight, then US dollars spent today and this month before their cap; a failing one is tried again by itself.
Enter shows the model's workers.`}
	case paneCache:
		return paneSpec{name: "Model cache", draw: (*Console).drawCache, explain: `The Hugging Face cache of the engine's host. SIZE: bytes on disk, shared files counted once (K, M, G are powers of 1024). LAST READ: as far as the file system tells. NEEDED BY: workers of the config; such a model is not removed. A model whose index lists files that are not there will not start: fetch it again.
Downloads stand first, with their rate and an estimate of the time left.`}
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
	workerExplained Text = `Tabs with [ and ]; one that has nothing to show is not there.
Log: the engine keeps the newest 5,000 lines of each worker within reach, the whole of it is a file in the state folder. The first error stays pinned.
Args: the command as run, secrets redacted; what runs by order and not by the config is marked.
GPU, of each card: UTIL the share of time in which any kernel ran; CLOCK of its multiprocessors; ENERGY in watt-hours since the engine started, integrated from its power; ECC errors that could not be corrected since the driver was loaded; why its clock is held down; Xid errors from the kernel's log; who holds its memory: ours, a stray, or a stranger with its user. Without a card: cores and resident memory of its process tree.
Timeline: the phases of the start, in seconds, and what befell the worker. Crashes: each end that nobody asked for and each failed start, with its last lines. Advice: only when something is wrong, with the figures it rests on.
Sources: vLLM's /metrics, the GPU's own tool, /proc, the worker's log.`
	eventsExplained Text = `What an operator should know. ! and ✗ that are bright are still true. Enter goes to the worker, c to the charts at that time.`
	promptExplained Text = `The prompt goes through the engine's own gateway, as key "console" and cost class "tester": what it costs counts, what it would have cost earns no savings. TTFT and tokens/s are measured by the engine.`
)
