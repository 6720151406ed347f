package tui

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// arg is an argument of a command line with the value that stands behind it.
type arg struct {
	text string // as one writes it
	flag string // its name, "" for what is none
}

// argsOf puts a command line into arguments: a flag and its value stand together.
func argsOf(command []string) []arg {
	var out []arg
	for i := 0; i < len(command); i++ {
		t := command[i]
		a := arg{text: t, flag: flagName(t)}
		if a.flag != "" && !strings.Contains(t, "=") && i+1 < len(command) && !strings.HasPrefix(command[i+1], "-") {
			i++
			a.text += " " + command[i]
		}
		out = append(out, a)
	}
	return out
}

// flagName is the name of a flag as vLLM reads it, which takes an underscore for a dash; "" for
// what is no flag.
func flagName(t string) string {
	if len(t) < 2 || t[0] != '-' {
		return ""
	}
	name, _, _ := strings.Cut(t, "=")
	name, _, _ = strings.Cut(name, " ")
	return strings.ReplaceAll(name, "_", "-")
}

// flagsIn are the names of the flags in a list of arguments.
func flagsIn(args []string) map[string]bool {
	out := map[string]bool{}
	for _, t := range args {
		if n := flagName(t); n != "" {
			out[n] = true
		}
	}
	return out
}

// valueIn is the value of a flag in a command line.
func valueIn(command []string, flag string) (value string, there bool) {
	for _, a := range argsOf(command) {
		if a.flag == flag {
			_, value, _ = strings.Cut(strings.Replace(a.text, "=", " ", 1), " ")
			return value, true
		}
	}
	return "", false
}

// workerArgs is the command as run, one argument a line; what runs by order and not by the config is
// marked.
func (c *Console) workerArgs(p *panel, w *api.Worker) {
	if len(w.Command) == 0 {
		p.row().put(stDim, "not launched by us: no command line")
		if w.URL != "" {
			p.row().put(stDim, "url ").put(stText, clean(w.URL))
		}
		return
	}
	var lines []part
	fixed := flagsIn(w.Fixed)
	if len(w.Fixed) > 0 {
		for _, t := range clean("By order, not by the config: " + strings.Join(w.Fixed, ", ")).wrap(p.width()) {
			lines = append(lines, part{stWarn, t})
		}
		if !c.opt.ReadOnly {
			lines = append(lines, part{stDim, "u goes back to what the config says"})
		}
		lines = append(lines, part{})
	}
	for i, a := range argsOf(w.Command) {
		st, t := stText, clean(a.text)
		switch {
		case i == 0:
			st = stStrong
		case a.flag != "" && fixed[a.flag]:
			st, t = stWarn, c.g.warn+" "+t
		default:
			t = "  " + t
		}
		for _, row := range t.wrap(p.width()) {
			lines = append(lines, part{st, row})
		}
	}
	lines = append(lines, part{}, part{stDim, "url " + clean(w.URL)}, part{stDim, "y copies the command; secrets are redacted"})
	c.scrolled(p, lines)
}
