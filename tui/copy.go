package tui

import (
	"encoding/json"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// clipLimit is the most that terminals take through OSC 52, before base64.
const clipLimit = 74994

func (c *Console) clip(what Text, s string) tea.Cmd {
	if s == "" {
		c.say(stDim, "nothing to copy here")
		return nil
	}
	safe := string(Sanitize(s))
	if len(safe) > clipLimit {
		safe = strings.ToValidUTF8(safe[:clipLimit], "")
		what += ", cut at 74 kB"
	}
	c.say(stOK, "copied "+what)
	return tea.SetClipboard(safe)
}

func (c *Console) copyValue() tea.Cmd {
	switch id := c.focused(); {
	case c.snap == nil:
		return nil
	case c.onLog():
		return c.clip("the log lines shown", c.logs.shown())
	case id == paneWorkers || id == paneWorker:
		if w := c.worker(); w != nil {
			if id == paneWorker && c.detailTab() == tabArgs {
				return c.clip("the command of "+clean(w.Name), shellQuote(w.Command))
			}
			return c.clip("the URL of "+clean(w.Name), w.URL)
		}
	case id == paneRequests || id == paneRequest:
		if r := c.request(); r != nil {
			return c.clip("request "+clean(r.ID), r.ID)
		}
	case id == paneNotices || id == paneEvents:
		if rows := c.noticeRows(); c.notices.sel < len(rows) {
			return c.clip("the notice", rows[c.notices.sel].Text)
		}
	case id == paneStrays:
		if c.strays.sel < len(c.snap.Strays) {
			return c.clip("the pid", string(whole(c.snap.Strays[c.strays.sel].PID)))
		}
	case id == paneKeys:
		if rows := c.keysByUse(); c.keyRows.sel < len(rows) {
			return c.clip("the name of the key", rows[c.keyRows.sel].Name)
		}
	case id == paneModels:
		if c.models.sel < len(c.snap.Models) {
			return c.clip("the name of the model", c.snap.Models[c.models.sel].Name)
		}
	case id == paneCache:
		return c.clip("the name of the model", strings.TrimPrefix(c.cacheRow().name(), "\x00"))
	case id == paneAnswer || id == panePrompt:
		return c.clip("the answer", c.prompt.answer())
	}
	return c.clip("the URL of the gateway", c.snap.Engine.URL)
}

func (c *Console) copyJSON() tea.Cmd {
	if c.snap == nil {
		return nil
	}
	var v any
	what := Text("the pane")
	switch c.focused() {
	case paneWorkers, paneWorker:
		if tab := c.detailTab(); c.focused() == paneWorker && tab == tabCrashes {
			v, what = c.crashRows(), "the crashes"
		} else if c.focused() == paneWorker && tab == tabAdvice {
			v, what = c.adviceRows(), "the advice"
		} else if w := c.worker(); w != nil {
			v, what = w, "worker "+clean(w.Name)
		}
	case paneRequests, paneRequest:
		if r := c.request(); r != nil {
			v, what = r, "request "+clean(r.ID)
		}
	case paneMoney, paneCosts, paneClasses, paneRates:
		v, what = c.snap.Money, "the costs"
	case paneHealth:
		v, what = c.snap.Answers, "answer health"
	case paneNotices, paneEvents:
		v, what = c.snap.Notices, "the events"
	case paneStrays:
		v, what = c.snap.Strays, "the strays"
	case paneKeys:
		v, what = c.snap.Keys, "the keys"
	case paneModels:
		v, what = map[string]any{"models": c.snap.Models, "providers": c.snap.Providers}, "the models"
	case paneCache:
		v, what = c.snap.Cache, "the model cache"
	case paneThroughput, paneLatency, paneStages:
		v, what = c.win(), "the window"
	}
	if v == nil {
		return c.clip(what, "")
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		c.say(stBad, "copy: "+clean(err.Error()))
		return nil
	}
	return c.clip(what+" as JSON", string(b))
}

// shellQuote writes a command as one can paste it into a shell.
func shellQuote(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if a != "" && strings.IndexFunc(a, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:=,@+", r)
		}) < 0 {
			out[i] = a
			continue
		}
		out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(out, " ")
}
