package tui

import tea "charm.land/bubbletea/v2"

// helpKey moves in the help, or closes it.
func (c *Console) helpKey(k string) tea.Cmd {
	switch k {
	case "esc", "q", "?", "enter":
		c.help = false
	case "j", "down":
		c.helpTop++
	case "k", "up":
		c.helpTop = max(c.helpTop-1, 0)
	case "ctrl+d", "pgdown", "space":
		c.helpTop += 10
	case "ctrl+u", "pgup":
		c.helpTop = max(c.helpTop-10, 0)
	case "g":
		c.helpTop = 0
	}
	return nil
}

// drawHelp lists the bindings that work here, this place's own first.
func (c *Console) drawHelp(p *panel) {
	type entry struct{ key, text, group Text }
	var all []entry
	c.help = false // what works is asked as if help were closed
	for _, g := range []Text{"Worker", "Stray", "Models", "Log", "Prompt", "Here", "Charts", "Everywhere", "Views"} {
		for i := range c.keys {
			if b := &c.keys[i]; b.show != "" && b.group == g && c.usable(b) {
				all = append(all, entry{b.show, b.help, g})
			}
		}
	}
	c.help = true
	all = append(all,
		entry{"ctrl+c ctrl+c", "leave", "Everywhere"},
		entry{"●", "health of the service: live, degraded, down", "Signs"},
		entry{"- …", "not known; not there yet. An unknown figure is never a 0", "Signs"},
		entry{"~", "fewer samples than the quantile needs: 20 for p95, 100 for p99", "Signs"},
		entry{"≈", "tokens not counted by the server itself", "Signs"},
	)
	var lines []func(*line)
	last := Text("")
	for _, e := range all {
		if e.group != last && (e.key != "ctrl+c ctrl+c") {
			if last != "" {
				lines = append(lines, func(*line) {})
			}
			lines = append(lines, func(l *line) { l.put(stTitle, e.group) })
			last = e.group
		}
		keys := min(24, p.width()/3)
		for i, text := range e.text.wrap(max(p.width()-keys-3, 8)) {
			key := e.key
			if i > 0 {
				key = ""
			}
			lines = append(lines, func(l *line) { l.gap(1).cell(stKey, key, keys).gap(2).put(stText, text) })
		}
	}
	c.helpTop = max(min(c.helpTop, len(lines)-p.height()), 0)
	for _, f := range lines[c.helpTop:] {
		if p.free() == 0 {
			p.foot = "more below, j"
			break
		}
		f(p.row())
	}
}
