package backend

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// failovers notices when providers begin and cease to serve in place of workers, and what becomes of
// the providers themselves: an operator is told of each change once.
type failovers struct {
	mu     sync.Mutex
	models map[string]*failover
	states map[string]string // provider: its state as last told
}

// failover is one model for which money is being spent.
type failover struct {
	last      time.Time
	calls     int64
	providers []string
	told      bool
}

// calm is how long no request may have gone to a provider until that counts as over.
const calm = 30 * time.Second

// paid takes note of a request for a model that goes to a provider.
func (f *failovers) paid(model, provider string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.models == nil {
		f.models = map[string]*failover{}
	}
	m := f.models[model]
	if m == nil {
		m = &failover{}
		f.models[model] = m
	}
	m.last = now
	m.calls++
	if !slices.Contains(m.providers, provider) {
		m.providers = append(m.providers, provider)
	}
}

// look gives what has changed since the last look.
func (f *failovers) look(models []api.Model, providers []api.Provider, now time.Time) []api.Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []api.Notice
	say := func(level, format string, args ...any) {
		out = append(out, api.Notice{Time: now, Level: level, Text: fmt.Sprintf(format, args...)})
	}
	for _, m := range models {
		o := f.models[m.Name]
		switch {
		case o == nil:
		case m.Workers == 0: // its provider serves it alone: nothing has failed over
			delete(f.models, m.Name)
		case !o.told:
			o.told = true
			why := "no worker can serve"
			if m.Ready > 0 {
				why = "its workers have too much to do"
			}
			say("warning", "%s: %s: requests go to %s, for money", m.Name, why, strings.Join(o.providers, " and "))
		case m.Ready > 0 && now.Sub(o.last) >= calm:
			delete(f.models, m.Name)
			say("info", "%s: workers serve again: %s went to %s", m.Name, requests(o.calls), strings.Join(o.providers, " and "))
		}
	}
	if f.states == nil {
		f.states = map[string]string{}
	}
	for _, p := range providers {
		old, known := f.states[p.Name]
		if !known {
			old = api.ProviderOK
		}
		if p.State == old || old == api.ProviderOpen && p.State == api.ProviderOK && p.Error != "" {
			// It may be tried again, but has not given an answer yet.
			continue
		}
		f.states[p.Name] = p.State
		switch p.State {
		case api.ProviderOpen:
			say("warning", "provider %s does not serve%s: it is tried again by itself", p.Name, because(p.Error))
		case api.ProviderCapped:
			say("warning", "provider %s: %s; nothing goes there before the next period: to go on now raise spend_cap, then \"vllmdeck reload\"", p.Name, p.Error)
		case api.ProviderUnaccountable:
			say("error", "provider %s: %s", p.Name, p.Error)
		default:
			say("info", "provider %s can serve again", p.Name)
		}
	}
	return out
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func requests(n int64) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}
