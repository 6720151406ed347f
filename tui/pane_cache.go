package tui

import (
	"cmp"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// cacheLine is a row of the cache: a download, or a model that is there.
type cacheLine struct {
	download *api.Download
	model    *api.CacheModel
}

func (l cacheLine) name() string {
	switch {
	case l.download != nil:
		return "\x00" + l.download.Name
	case l.model != nil:
		return l.model.Name
	}
	return ""
}

// cacheRows are downloads first, then the models.
func (c *Console) cacheRows() []cacheLine {
	if c.snap == nil || c.snap.Cache == nil {
		return nil
	}
	k := c.snap.Cache
	out := make([]cacheLine, 0, len(k.Downloads)+len(k.Models))
	for i := range k.Downloads {
		out = append(out, cacheLine{download: &k.Downloads[i]})
	}
	for i := range k.Models {
		out = append(out, cacheLine{model: &k.Models[i]})
	}
	return out
}

// cacheRow is the selected one.
func (c *Console) cacheRow() cacheLine {
	if rows := c.cacheRows(); c.cached.sel < len(rows) {
		return rows[c.cached.sel]
	}
	return cacheLine{}
}

func (c *Console) drawCache(p *panel) {
	k := c.snap.Cache
	if k == nil {
		p.row().put(stDim, "this host has no model cache")
		return
	}
	if k.Offline {
		p.show(stWarn, "offline: HF_HUB_OFFLINE is set")
	}
	p.show(stStrong, size(k.Size))
	p.show(stDim, size(k.Free)+" free on its disk")
	if p.w >= 110 {
		p.foot = clean(k.Path)
	}
	if k.Error != "" {
		p.say(stBad, c.g.bad+" "+clean(k.Error))
	}
	rows := c.cacheRows()
	if len(rows) == 0 {
		p.row().put(stDim, "no model in the cache yet; f fetches one by its name on the hub")
		return
	}
	name, workers := len("  MODEL ON DISK"), 7
	for i := range rows {
		name = min(max(name, clean(strings.TrimPrefix(rows[i].name(), "\x00")).width()+2), 60)
		if m := rows[i].model; m != nil {
			workers = min(max(workers, clean(strings.Join(m.Workers, " ")).width()), 24)
		}
	}
	cols := []tcol{
		{head: "  MODEL ON DISK", w: min(name, 26), max: name},
		{head: "SIZE", w: 6, right: true},
		{head: "LAST READ", w: 9, right: true, drop: 3},
		{head: "NEEDED BY", w: max(9, min(workers, 9)), max: max(workers, 9), drop: 2},
		{head: "", w: 14, max: 400},
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	c.cached.n = len(rows)
	from, to := c.cached.window(p.free())
	for i := from; i < to; i++ {
		l := p.selected(i == c.cached.sel)
		if d := rows[i].download; d != nil {
			c.downloadRow(l, d, ws[0])
			continue
		}
		m := rows[i].model
		st, mark := stOK, c.g.ok
		note := part{}
		switch {
		case m.Size == 0 && len(m.Missing) == 0 && m.Partial == 0:
			st, mark = stBad, c.g.bad
			note = part{stBad, "not there: f fetches it"}
		case len(m.Missing) > 0:
			st, mark = stBad, c.g.bad
			note = part{stBad, plural(int64(len(m.Missing)), "file", "files") + " missing: " + clean(strings.Join(m.Missing, " "))}
		case m.Partial > 0:
			st, mark = stWarn, c.g.warn
			note = part{stWarn, size(m.Partial) + " of a broken-off download"}
		}
		used := unknown
		if !m.Used.IsZero() {
			used = age(c.snap.Time.Sub(m.Used))
		}
		l.put(st, mark).gap(1).cell(stText, clean(m.Name), ws[0]-2).gap(2).rcell(stStrong, size(m.Size), ws[1]).gap(2)
		if ws[2] > 0 {
			l.rcell(stDim, used, ws[2]).gap(2)
		}
		if ws[3] > 0 {
			l.cell(stText, clean(strings.Join(m.Workers, " ")), ws[3]).gap(2)
		}
		if m.Path != "" && note.t == "" {
			note = part{stDim, "in " + clean(m.Path)}
		}
		l.put(note.st, note.t)
	}
	if hidden := len(rows) - (to - from); hidden > 0 {
		p.show(stWarn, whole(hidden)+" more, j k")
	}
}

// downloadRow is how far a download is.
func (c *Console) downloadRow(l *line, d *api.Download, name int) {
	share, st, mark := val(nil), stA, c.g.down
	if d.Size > 0 {
		share = float64(d.Done) / float64(d.Size)
	}
	switch d.State {
	case "done":
		st, mark = stOK, c.g.ok
	case "failed":
		st, mark = stBad, c.g.bad
	case "cancelled":
		st, mark = stDim, c.g.off
	}
	l.put(st, mark).gap(1).cell(stStrong, clean(d.Name), name-2).gap(2)
	if d.State != "running" {
		l.put(st, clean(d.State)).gap(1).put(stDim, size(d.Done))
		if d.Error != "" {
			l.gap(2).put(stBad, clean(d.Error))
		}
		return
	}
	c.g.gauge(l, stA, share, min(max(l.left()-44, 6), 30))
	l.gap(1).put(stStrong, percentInt(share)).gap(1).put(stText, size(d.Done)+" of "+sizeOr(d.Size)).gap(2).put(stText, size(int64(d.Rate))+"/s")
	if d.Rate > 0 && d.Size > d.Done {
		l.gap(2).put(stText, "about "+long(time.Duration(float64(d.Size-d.Done)/d.Rate*float64(time.Second)))+" left")
	}
	if d.File != "" && l.left() > 12 {
		l.gap(2).put(stDim, clean(d.File))
	}
}

func sizeOr(n int64) Text {
	if n <= 0 {
		return loading
	}
	return size(n)
}

// openFetch asks for the name of a model to download.
func (c *Console) openFetch() {
	if c.snap != nil && c.snap.Cache != nil && c.snap.Cache.Offline {
		c.say(stWarn, "HF_HUB_OFFLINE is set where the engine runs: nothing is downloaded")
		return
	}
	c.goTo(viewModels)
	text := ""
	if m := c.cacheRow().model; m != nil && (m.Size == 0 || len(m.Missing) > 0 || m.Partial > 0) { // what is missing is what one wants
		text = string(clean(m.Name))
	}
	c.input = &input{text: text, prompt: "download from the hub, e.g. Qwen/Qwen3-0.6B: ", pick: -1, do: func(c *Console, name string) tea.Cmd {
		if name == "" {
			return nil
		}
		return c.act(api.Action{Verb: api.CacheFetch, Target: name})
	}}
}

func (c *Console) askCancel() {
	d := c.cacheRow().download
	if d == nil {
		return
	}
	lines := []part{{stText, "model    " + clean(d.Name)}, {stText, "there    " + size(d.Done) + " of " + sizeOr(d.Size)}, {stDim, "What is there stays; fetching it again goes on from it."}}
	a := api.Action{Verb: api.CacheCancel, Target: d.Name}
	c.ask(&dialog{title: "Cancel the download of " + clean(d.Name) + "?", lines: lines, yes: "cancel it", do: func(c *Console) tea.Cmd { return c.act(a) }})
}

func (c *Console) askRemove() {
	m := c.cacheRow().model
	if m == nil {
		return
	}
	gb := size(m.Size + m.Partial)
	if m.Size+m.Partial >= 1<<30 {
		gb = decimals(float64(m.Size+m.Partial)/(1<<30), 1) + " GiB"
	}
	lines := []part{{stText, "model    " + clean(m.Name)}, {stText, "frees    " + gb + " of the disk"}, {stText, "in       " + clean(cmp.Or(m.Path, c.snap.Cache.Path))}}
	if len(m.Workers) > 0 {
		lines = append(lines, part{stBad, "The config needs it for " + clean(strings.Join(m.Workers, ", ")) + ": the engine will refuse."})
	}
	lines = append(lines, part{stDim, "All revisions of it go. To have it again it must be downloaded."})
	a := api.Action{Verb: api.CacheRemove, Target: m.Name}
	c.ask(&dialog{title: "Remove " + clean(m.Name) + ", " + gb + "?", lines: lines, yes: "remove", do: func(c *Console) tea.Cmd { return c.act(a) }})
}
