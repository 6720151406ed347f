package backend

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	maxLines = 2000 // bounds one answer of Log
	maxName  = 512  // bytes of whatever an order or a log is named by
)

var _ api.Source = (*Backend)(nil)

// Snapshot implements api.Source.
func (b *Backend) Snapshot(ctx context.Context) (*api.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return b.snap.Load(), nil
}

// Log implements api.Source.
func (b *Backend) Log(ctx context.Context, name string, after uint64) ([]api.Line, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(name) > maxName {
		return nil, fmt.Errorf("%w: no log has so long a name", api.ErrUnknown)
	}
	if name == "engine" {
		return b.opts.Log.After(after, maxLines), nil
	}
	if id, ok := strings.CutPrefix(name, "prompt/"); ok {
		return b.tester.log(id, after, maxLines)
	}
	if id, ok := strings.CutPrefix(name, "crash/"); ok {
		return b.pool.CrashLog(id, after, maxLines)
	}
	if name == "crashes" {
		return b.pool.CrashBook(after, maxLines), nil
	}
	if log := b.pool.Logs(name); log != nil {
		return log.After(after, maxLines), nil
	}
	return nil, fmt.Errorf("%w: no worker %q", api.ErrUnknown, name)
}

// Spend implements api.Source.
func (b *Backend) Spend(ctx context.Context, q api.Query) ([]api.Row, error) {
	return b.ledger.Spend(ctx, q)
}

// Do implements api.Source.
func (b *Backend) Do(ctx context.Context, a api.Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(a.Target) > maxName || !utf8.ValidString(a.Target) {
		return fmt.Errorf("%w: the target is no name", api.ErrRefused)
	}
	if a.Verb != api.PromptSend && a.Verb != api.PromptCancel {
		b.log.Info("order", "verb", string(a.Verb), "target", a.Target)
	}
	switch a.Verb {
	case api.WorkerStart:
		switch a.Args["gate"] {
		case "":
			return b.pool.Start(a.Target)
		case "off":
			return b.pool.StartNow(a.Target)
		}
		return fmt.Errorf("%w: gate=%q: want off, or nothing", api.ErrRefused, a.Args["gate"])
	case api.WorkerStop:
		return b.pool.Stop(a.Target)
	case api.WorkerRestart:
		return b.pool.Restart(a.Target)
	case api.WorkerDrain:
		return b.pool.Drain(a.Target)
	case api.WorkerResume:
		return b.pool.Resume(a.Target)
	case api.WorkerSleep:
		level, err := strconv.Atoi(cmp.Or(a.Args["level"], "0"))
		if err != nil {
			return fmt.Errorf("%w: level=%q: want 1 or 2", api.ErrRefused, a.Args["level"])
		}
		return b.pool.Sleep(a.Target, level)
	case api.WorkerWake:
		return b.pool.WakeUp(a.Target)
	case api.WorkerFix:
		return b.pool.Fix(a.Target, argLines(a, "set"), argLines(a, "unset"), argLines(a, "env"))
	case api.WorkerUnfix:
		return b.pool.Unfix(a.Target)
	case api.ModelRoll, api.ModelUnroll:
		model, ok := b.upstreams.Resolve(a.Target)
		if !ok {
			return fmt.Errorf("%w: no model %q", api.ErrUnknown, a.Target)
		}
		if a.Verb == api.ModelUnroll {
			return b.pool.Unroll(model)
		}
		return b.pool.Roll(model, a.Args["alone"] == "true")
	case api.StrayEnd:
		return b.machine.endStray(b.life, a, b.notice)
	case api.PromptSend:
		if _, ok := b.upstreams.Resolve(a.Target); !ok {
			return fmt.Errorf("%w: no model %q", api.ErrUnknown, a.Target)
		}
		return b.tester.send(b.life, a)
	case api.PromptCancel:
		return b.tester.cancel(a.Target)
	case api.EngineStop:
		switch a.Args["workers"] {
		case "", "stop":
			b.Stop(true)
		case "keep":
			b.Stop(false)
		default:
			return fmt.Errorf("%w: workers=%q: want stop or keep", api.ErrRefused, a.Args["workers"])
		}
		return nil
	case api.EngineRestart:
		return b.Restart()
	case api.EngineReload:
		return b.reload(ctx)
	case api.KeyCreate, api.KeySet, api.KeyRotate, api.KeyRevoke:
		return b.orderKeys(ctx, a)
	case api.CacheFetch, api.CacheCancel, api.CacheRemove:
		return b.orderCache(ctx, a)
	}
	return fmt.Errorf("%w: no verb %q", api.ErrUnknown, a.Verb)
}

// argLines are the values of an argument that holds one a line.
func argLines(a api.Action, name string) []string {
	var out []string
	for line := range strings.SplitSeq(a.Args[name], "\n") {
		if line != "" {
			out = append(out, line)
		}
	}
	return out
}
