package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Sleep mode. A worker that is to sleep is unrouted, its requests end, then /sleep; one that sleeps is never routed to,
// for what it is sent is parked at HTTP 200. Waking is /wake_up, at level 2 with the weights loaded anew, and a token
// before anybody's request: sleep mode has given corrupt answers and dead engines (vLLM issues 16564, 36753).
//
// A worker sleeps by order, when nobody has asked anything of it for sleep.after, and when another is waited for that
// needs its GPU (rota).

const (
	sleepLimit = 5 * time.Minute // level 1 copies the weights to host memory
	wakeLimit  = 5 * time.Minute // without loading them
	wokeLimit  = time.Minute     // for the token
	sleepRetry = 10 * time.Minute
	sleepLook  = 5 // every so many looks at /health, whether somebody else has put it to sleep
)

// nap is a worker on its way to sleep, or out of it.
type nap struct {
	level  int
	posted bool // /sleep is under way: there is no way back
	waking bool
	why    string
	began  time.Time
}

// forTurn is why a worker is to sleep whose GPU is waited for.
const forTurn = "another's turn"

// canSleep says whether a server's command line lets it sleep, as far as that can be seen. An attached one is asked.
func (p *plan) canSleep(argv []string) bool {
	if p.kind == kindAttach {
		return true
	}
	return hasFlag(argv, "enable-sleep-mode") && !hasExactly(argv, "no-enable-sleep-mode")
}

func hasExactly(args []string, flag string) bool {
	for _, a := range args {
		if flagName(a) == flag {
			return true
		}
	}
	return false
}

// level is the one that the config wants.
func (w *worker) level() int {
	if s := w.plan.cfg.Sleep; s != nil && s.Level != 0 {
		return s.Level
	}
	return 1
}

// rest looks whether it is time to sleep, to wake or to start; true if something has changed.
func (w *worker) rest(ctx context.Context, now time.Time) bool {
	switch {
	case w.st.State == api.Ready:
		return w.drowse(ctx, now)
	case w.st.State == api.Asleep && w.nap == nil:
		return w.stir(ctx)
	case w.nap != nil && w.nap.why == forTurn && !w.nap.posted:
		if wanted, _ := w.opts.rota.wanted(w.name); !wanted { // whoever waited has left, or found room elsewhere
			w.stayAwake()
			return true
		}
	case w.queued && w.st.State == api.Starting:
		was := w.st.Blocked
		w.start(ctx)
		return w.st.Blocked != was
	}
	return false
}

// drowse puts an idle worker to sleep, and one whose GPU is waited for.
func (w *worker) drowse(ctx context.Context, now time.Time) bool {
	s := w.plan.cfg.Sleep
	if taken := w.gate.taken.Load(); taken != w.took || w.gate.count() > 0 {
		w.took, w.used = taken, now
	}
	if s == nil || !w.st.CanSleep || now.Before(w.sleepless) || w.st.Stalled {
		return false
	}
	if w.used.Before(w.st.Since) {
		w.used = w.st.Since
	}
	idle := now.Sub(w.used)
	if r := w.st.Running; w.gate.count() > 0 || r != nil && *r > 0 && now.Sub(w.st.Scraped) <= staleAfter {
		idle = 0 // an attached server may have requests of others
	}
	wanted, urgent := w.opts.rota.wanted(w.name)
	switch {
	case wanted && now.Sub(w.st.Since) >= s.Stay && (urgent || idle >= s.Stay):
		w.fallAsleep(ctx, w.level(), forTurn)
	case s.After > 0 && idle >= s.After:
		w.fallAsleep(ctx, w.level(), "idle")
	default:
		return false
	}
	return true
}

// stir wakes a worker that requests wait for.
func (w *worker) stir(ctx context.Context) bool {
	if !w.summoned && !w.opts.Waiting(w.st.Model) {
		w.opts.rota.withdraw(w.name)
		was := w.st.Blocked
		w.st.Blocked = ""
		return was != ""
	}
	if !w.turn(true) {
		return true
	}
	w.rouse(ctx)
	return true
}

// turn asks for what the worker shares with others. Without it Blocked says who has it.
func (w *worker) turn(urgent bool) bool {
	n, known := w.need()
	if !known && time.Since(w.st.Since) < firstLook {
		w.st.Blocked = "the first reading of the GPUs" // which say whether two name the same one
		return false
	}
	ok, who := w.opts.rota.ask(w.name, n, urgent)
	w.st.Blocked = ""
	if !ok {
		w.st.Blocked = "its turn: " + who
	}
	return ok
}

// need is what the worker takes while it is awake. known is false while the cards are not read.
func (w *worker) need() (n need, known bool) {
	p := &w.plan
	if p.cfg.Sleep == nil || p.kind != kindVLLM || p.cpu {
		return needOf(p.cfg, nil, 0), true
	}
	cards, settled := w.cards()
	return needOf(p.cfg, p.on(cards), p.share), settled
}

// seat notes that the worker has what it needs, whoever has it besides.
func (w *worker) seat() {
	n, _ := w.need()
	w.opts.rota.hold(w.name, n)
}

// fallAsleep unroutes a worker; it sleeps once its requests have ended.
func (w *worker) fallAsleep(ctx context.Context, level int, why string) {
	w.nap = &nap{level: level, why: why, began: time.Now()}
	w.enter(api.Draining)
	w.st.Phase = api.PhaseSleeping
	w.gate.shut()
	w.wake.wake()
	w.log.Info("worker is to sleep", "reason", why, "level", level, "in_flight", w.gate.count())
	if w.gate.count() == 0 {
		w.putToSleep(ctx)
	}
}

func (w *worker) putToSleep(ctx context.Context) {
	l, n := w.life, w.nap
	n.posted = true
	t, others := w.target(l), l.plan.kind == kindAttach
	w.wg.Go(func() {
		err := t.sleep(ctx, n.level, others)
		w.post(func(ctx context.Context) { w.slept(ctx, l, n, err) })
	})
}

func (w *worker) slept(ctx context.Context, l *life, n *nap, err error) {
	if w.life != l || w.nap != n || w.st.State != api.Draining {
		return
	}
	w.nap = nil
	if err != nil {
		w.sleepless = time.Now().Add(sleepRetry)
		w.log.Error("worker does not sleep", "error", err)
		w.notice("error", fmt.Sprintf("%s cannot be put to sleep: %s", w.name, plain(err)))
		// Nobody knows how far that went: it is woken, and must give a token.
		w.st.Level = n.level
		w.rouse(ctx)
		return
	}
	w.asleep(l, n.level)
	w.log.Info("worker asleep", "level", n.level, "took", time.Since(n.began).Round(time.Millisecond))
}

// asleep notes that a worker's server sleeps.
func (w *worker) asleep(l *life, level int) {
	w.enter(api.Asleep)
	w.st.Level, w.st.Stalled = level, false
	w.forgetReadings()
	w.keepNap(l)
}

// foundAsleep takes up a server that sleeps already.
func (w *worker) foundAsleep(l *life) {
	level := 2
	if r, err := readNap(l.spec.Folder, w.st.Started); err == nil && r.Level != 0 {
		level = r.Level
	}
	w.asleep(l, level)
}

// rouse wakes a worker's server.
func (w *worker) rouse(ctx context.Context) {
	l := w.life
	n := &nap{level: w.st.Level, waking: true, began: time.Now()}
	w.nap, w.summoned = n, false
	w.st.Phase = api.PhaseWaking
	w.log.Info("worker wakes", "level", n.level)
	t, served, limit := w.target(l), l.served, wakeLimit
	if n.level != 1 {
		limit = max(limit, w.plan.cfg.StartTimeout)
	}
	w.wg.Go(func() {
		err := t.rouse(ctx, n.level, limit)
		if err == nil {
			err = t.canary(ctx, served, wokeLimit)
		}
		w.post(func(ctx context.Context) { w.woke(ctx, l, n, err) })
	})
}

func (w *worker) woke(ctx context.Context, l *life, n *nap, err error) {
	if w.life != l || w.nap != n {
		return
	}
	w.nap = nil
	took := time.Since(n.began).Round(time.Millisecond)
	if err != nil {
		w.log.Error("worker does not wake", "error", err, "took", took)
		cause := clip("it does not serve after its sleep: " + plain(err))
		if l.plan.kind == kindAttach {
			l.problem = cause
			w.away(ctx, l)
			return
		}
		w.end(ctx, verdict{class: classCrash, cause: cause, remedy: "sleep: {level: 2} loads the weights anew; without sleep: it stays awake"})
		return
	}
	now := time.Now()
	w.enter(api.Ready)
	w.st.Level, w.st.Awake = 0, now
	w.used = now
	l.still, l.health.failed, l.health.slow, l.answers = stillness{}, 0, 0, true
	w.seat()
	w.keepNap(l)
	w.deadline(resetAfter, func(context.Context) { w.trouble.forget() })
	w.log.Info("worker awake", "took", took)
}

// found takes what a look at a server says that is not ours alone: somebody else may have put it to sleep.
func (w *worker) found(l *life, asked time.Time, sleeping bool) {
	if w.life != l || w.nap != nil || !sleeping || !w.st.Since.Before(asked) || w.st.State != api.Ready && w.st.State != api.Draining {
		return
	}
	w.notice("warning", w.name+" was put to sleep by somebody else: a request for its model wakes it")
	w.log.Warn("worker was put to sleep by somebody else")
	w.asleep(l, 2)      // the level is not known: what wakes from 2 wakes from 1 too
	w.opts.Hung(w.name) // what is with it waits in vain
}

func (w *worker) orderSleep(level int) func(context.Context) error {
	return func(ctx context.Context) error {
		switch {
		case level < 0 || level > 2:
			return refused("the level of sleep is 1 or 2, not %d", level)
		case w.st.State == api.Asleep && w.nap == nil:
			return refused("%s is asleep already", w.name)
		case w.nap != nil:
			return refused("%s is %s already", w.name, w.st.Phase)
		case w.st.State != api.Ready:
			return refused("%s is %s: only a ready worker can sleep", w.name, w.st.State)
		case !w.st.CanSleep:
			return refused("the server of %s has no sleep mode: set sleep: of this worker in the config, which adds --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1", w.name)
		}
		if level == 0 {
			level = w.level()
		}
		w.fallAsleep(ctx, level, "order")
		w.notice("info", w.name+" is put to sleep by order: a request for its model wakes it")
		return nil
	}
}

func (w *worker) orderWake(ctx context.Context) error {
	switch {
	case w.st.State == api.Asleep && w.nap == nil:
		w.summoned = true
		w.stir(ctx)
	case w.nap != nil && w.nap.waking:
		return refused("%s is waking already", w.name)
	case w.nap != nil && w.nap.posted:
		return refused("%s is falling asleep: wake it then", w.name)
	case w.nap != nil:
		w.stayAwake()
	default:
		return refused("%s is %s, not asleep", w.name, w.st.State)
	}
	return nil
}

// stayAwake takes back that a worker is to sleep, while it waits for its requests.
func (w *worker) stayAwake() {
	w.nap = nil
	w.sleepless = time.Now().Add(w.stay()) // whoever wants its GPU wants it still
	w.enter(api.Ready)
	w.deadline(resetAfter, func(context.Context) { w.trouble.forget() })
}

func (w *worker) stay() time.Duration {
	if s := w.plan.cfg.Sleep; s != nil {
		return s.Stay
	}
	return 0
}

// sleep asks a server to sleep. Where others may use it too, their requests are waited for.
func (t target) sleep(ctx context.Context, level int, others bool) error {
	ctx, cancel := context.WithTimeout(ctx, sleepLimit)
	defer cancel()
	path := fmt.Sprintf("/sleep?level=%d", level)
	if others {
		path += "&mode=wait"
	}
	return t.order(ctx, path, nil)
}

// rouse wakes a server. From level 2 the memory of the weights comes first, then the weights, then the rest: the
// scheduler runs only once all is there.
func (t target) rouse(ctx context.Context, level int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if level != 1 {
		if err := t.order(ctx, "/wake_up?tags=weights", nil); err != nil {
			return err
		}
		if err := t.order(ctx, "/collective_rpc", map[string]string{"method": "reload_weights"}); err != nil {
			return err
		}
	}
	if err := t.order(ctx, "/wake_up", nil); err != nil {
		return err
	}
	if level != 1 {
		// What the prefix cache holds is of no weights any more. It is empty already unless the server was used meanwhile.
		if err := t.order(ctx, "/reset_prefix_cache", nil); err != nil {
			return err
		}
	}
	sleeping, known, err := t.sleeping(ctx)
	switch {
	case err != nil:
		return err
	case known && sleeping:
		return errors.New("it says that it sleeps on")
	}
	return nil
}

func (t target) order(ctx context.Context, path string, body any) error {
	status, data, err := t.call(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return newStatusError(path, status, data)
	}
	return nil
}
