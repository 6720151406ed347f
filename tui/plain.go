package tui

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// plainEvery is how often the console of a dumb terminal looks for a change.
const plainEvery = 5 * time.Second

// runPlain prints a line whenever the state has changed, for terminals that cannot move a cursor
// and for screen readers, until ctx ends or the output cannot be written.
func runPlain(ctx context.Context, opt Options, out io.Writer) (Result, error) {
	c := New(opt)
	tick := time.NewTicker(plainEvery)
	defer tick.Stop()
	last := ""
	for {
		msg := c.fetch()().(snapshotMsg)
		c.arrived(msg)
		if text := c.plainLine(msg); text != last {
			last = text
			if _, err := fmt.Fprintln(out, string(clock(c.now()))+" "+text); err != nil {
				return c.result, fmt.Errorf("write to the terminal: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			c.result.fill(c.live)
			return c.result, nil
		case <-tick.C:
		}
	}
}

func (c *Console) plainLine(msg snapshotMsg) string {
	if msg.err != nil {
		return "engine does not answer: " + string(clean(msg.err.Error()))
	}
	var text strings.Builder
	text.WriteString(ansi.Strip(c.statusLine(200).string()))
	for i := range c.snap.Workers {
		if w := &c.snap.Workers[i]; w.State == api.Failed {
			text.WriteString("; " + string(clean(w.Name)+" failed: "+clean(w.Error)))
		}
	}
	return text.String()
}
