package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Sleep mode: the routes that a server has with VLLM_SERVER_DEV_MODE=1, as vLLM 0.32 has them.
// While it sleeps /health is 200 and requests are taken and parked: a stream's headers go out, nothing follows, and
// no gauge shows it (seen on 0.32). A wake of level 2 brings memory without weights: answers are garbage until
// reload_weights.

// devRoutes are the routes of dev mode that are played.
func devRoutes(get, post func(func(*exchange)) route) map[string]route {
	return map[string]route{
		"/sleep":              post((*exchange).sleep),
		"/wake_up":            post((*exchange).wakeUp),
		"/is_sleeping":        get((*exchange).isSleeping),
		"/collective_rpc":     post((*exchange).collectiveRPC),
		"/reset_prefix_cache": post((*exchange).resetPrefixCache),
	}
}

// nap is how an engine sleeps. The zero value is awake.
type nap struct {
	paused     bool
	level      int      // of the last sleep
	gone       []string // tags of memory that is not there: weights, kv_cache
	weightless bool     // weights were discarded and not loaded again
	parked     []*seq
}

// sleepTime is how long it takes to move the weights off or onto the GPU: a second or two for a model of some
// size, shortened for servers that also start faster than vLLM.
func (o Options) sleepTime() time.Duration { return min(time.Second, o.Start/8) }

// reloadTime is how long it takes to read the weights again.
func (o Options) reloadTime() time.Duration { return o.Start / 2 }

// sleep pauses the engine. What is in it ends as if the engine had died (mode abort), or is waited for (wait), or
// stays (keep).
func (e *engine) sleep(ctx context.Context, level int, mode string) error {
	e.mu.Lock()
	e.nap.paused = true
	if mode == "abort" {
		for _, qs := range [][]*seq{e.running, e.waiting} {
			for _, q := range qs {
				e.kv.drop(q.blocks)
				q.blocks = nil
				q.state.Store(seqDead)
				q.job.signal()
			}
		}
		e.leaveLocked(len(e.running) + len(e.waiting))
		e.running, e.waiting = nil, nil
		e.gaugesLocked()
	}
	e.mu.Unlock()
	e.poke()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for mode == "wait" && e.busy() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	if level == 0 {
		return nil
	}
	wait(ctx, e.o.sleepTime())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nap.level, e.nap.gone = level, []string{"weights", "kv_cache"}
	e.nap.weightless = e.nap.weightless || level == 2
	if mode != "keep" {
		e.kv.forget()
	}
	e.m.sleeps(level)
	return nil
}

func (e *engine) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)+len(e.waiting) > 0
}

// wake brings memory back, all of it without tags. True once everything is there and the engine runs.
func (e *engine) wake(ctx context.Context, tags []string) bool {
	wait(ctx, e.o.sleepTime())
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(tags) == 0 {
		e.nap.gone = nil
	}
	e.nap.gone = slices.DeleteFunc(e.nap.gone, func(t string) bool { return slices.Contains(tags, t) })
	if len(e.nap.gone) > 0 {
		return false
	}
	e.nap.paused = false
	e.waiting = append(e.waiting, e.nap.parked...)
	e.nap.parked = nil
	e.m.sleeps(0)
	e.poke()
	return true
}

// garbled says whether the engine has no weights to answer with.
func (e *engine) garbled() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nap.weightless
}

func (x *exchange) sleep() {
	q := x.r.URL.Query()
	level, err := 1, error(nil)
	if v := q.Get("level"); v != "" {
		level, err = strconv.Atoi(v)
	}
	mode := q.Get("mode")
	if mode == "" {
		mode = "abort"
	}
	if err != nil || level < 0 || level > 2 || !slices.Contains([]string{"abort", "wait", "keep"}, mode) {
		x.fail(&apiError{http.StatusBadRequest, "Bad Request", "1 validation error:\n  Input should be a valid level and mode", nil})
		return
	}
	if x.s.o.fault("sleep-fails") != nil {
		x.fail(statusFault(http.StatusInternalServerError))
		return
	}
	if err := x.s.e.sleep(x.r.Context(), level, mode); err != nil {
		x.abandon()
	}
	x.json(http.StatusOK, fmt.Appendf(nil, `{"status":"sleeping","level":%d}`, level))
}

func (x *exchange) wakeUp() {
	tags := x.r.URL.Query()["tags"]
	status := "sleeping"
	if x.s.e.wake(x.r.Context(), tags) {
		status = "awake"
		if f := x.s.o.fault("hang-after-wake"); f != nil {
			x.s.e.freeze(true)
		}
	}
	list, _ := json.Marshal(tags) // strings
	x.json(http.StatusOK, fmt.Appendf(nil, `{"status":%q,"tags":%s}`, status, list))
}

func (x *exchange) isSleeping() {
	e := x.s.e
	e.mu.Lock()
	sleeping := e.nap.paused || len(e.nap.gone) > 0
	e.mu.Unlock()
	x.json(http.StatusOK, fmt.Appendf(nil, `{"is_sleeping":%t}`, sleeping))
}

func (x *exchange) collectiveRPC() {
	var body struct {
		Method string `json:"method"`
	}
	err := json.NewDecoder(io.LimitReader(x.r.Body, 1<<20)).Decode(&body)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		x.json(http.StatusBadRequest, []byte(`{"detail":"JSON decode error"}`))
		return
	case body.Method == "":
		x.json(http.StatusBadRequest, []byte(`{"detail":"Missing 'method' in request body"}`))
		return
	case body.Method != "reload_weights":
		x.fail(&apiError{http.StatusInternalServerError, "InternalServerError", "Call to collective_rpc method failed: method " + body.Method + " is not known", nil})
		return
	}
	e := x.s.e
	e.mu.Lock()
	there := !slices.Contains(e.nap.gone, "weights")
	e.mu.Unlock()
	if !there { // it would write to memory that is not mapped
		x.fail(statusFault(http.StatusInternalServerError))
		return
	}
	wait(x.r.Context(), x.s.o.reloadTime())
	e.mu.Lock()
	e.nap.weightless = false
	e.mu.Unlock()
	x.json(http.StatusOK, []byte(`{"results":[null]}`))
}

func (x *exchange) resetPrefixCache() {
	e := x.s.e
	e.mu.Lock()
	ok := len(e.running) == 0
	if ok {
		e.kv.forget()
	}
	e.mu.Unlock()
	x.json(http.StatusOK, fmt.Appendf(nil, `{"success":%t}`, ok))
}

// garble makes an answer one without weights.
func (p *plan) garble() {
	for i := range p.deltas {
		p.deltas[i] = "!"
	}
}

// forget empties the prefix cache of what no sequence holds.
func (k *kvCache) forget() {
	for b, h := range k.hash {
		if h != 0 && k.ref[b] == 0 {
			delete(k.byHash, h)
			k.hash[b] = 0
		}
	}
}

// sleeps notes the level that the engine sleeps at; 0: it is awake.
func (m *metrics) sleeps(level int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sleepLevel = level
}

// sleepStates are the values of vllm:engine_sleep_state: awake, weights_offloaded, discard_all.
func (m *metrics) sleepStates() (awake, offloaded, discarded float64) {
	switch m.sleepLevel {
	case 1:
		return 0, 1, 0
	case 2:
		return 0, 0, 1
	}
	return 1, 0, 0
}
