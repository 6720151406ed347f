package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is one way to go wrong: NAME, NAME:ARG, and for the faults of single requests a last
// :P, the share of requests (0 to 1) that it hits, e.g. reset:20:0.1.
type Fault struct {
	Name string
	Arg  string // as given; "" for none
	N    int    // Arg as a count of tokens or an HTTP status
	Dur  time.Duration
	X    float64 // Arg as a factor
	P    float64 // share of requests; 1 for all
}

// faultKinds says what an argument is and whether a fault falls on single requests.
var faultKinds = []struct {
	name, arg  string // arg: "", "n", "dur", "dur?", "word", "status", "x", "start"
	perRequest bool
	help       string
}{
	{"fail-start", "start", false, "exit while starting; WHAT is oom, kv, maxlen, model or port"},
	{"stall-before-first", "", true, "never send the first token"},
	{"stall-after", "n", true, "go silent after N tokens"},
	{"clean-eof", "n", true, "end the answer cleanly after N tokens, without finish and [DONE]"},
	{"reset", "n", true, "reset the connection after N tokens"},
	{"error-event", "n", true, "send an error event after N tokens (a plain request gets HTTP 500)"},
	{"busy-event", "", true, "accept a stream with HTTP 200 and refuse it in its first event"},
	{"split-writes", "", true, "send each event in three pieces"},
	{"gzip", "", true, "compress answers whether asked to or not"},
	{"loop", "", true, "repeat one sentence up to the token limit"},
	{"truncate", "", true, "stop half way with finish_reason length"},
	{"status", "status", true, "answer CODE (500, 503 or 429) instead of generating"},
	{"crash-on", "word", false, "lose the engine when a prompt contains WORD"},
	{"crash-after", "dur", false, "lose the engine DUR after it became ready"},
	{"hang-health", "dur?", false, "/health never answers, from DUR after ready on"},
	{"ignore-sigterm", "", false, "do nothing on SIGTERM and SIGINT"},
	{"sleep-fails", "", false, "answer HTTP 500 to /sleep"},
	{"hang-after-wake", "", false, "give no token after /wake_up"},
	{"slow", "x", false, "multiply all times by FACTOR"},
}

// FaultHelp lists the faults, one a line, for a command's help.
func FaultHelp() string {
	args := map[string]string{"n": ":N", "dur": ":DUR", "dur?": "[:DUR]", "word": ":WORD", "status": ":CODE", "x": ":FACTOR", "start": ":WHAT"}
	var b strings.Builder
	for _, k := range faultKinds {
		p := ""
		if k.perRequest {
			p = "[:P]"
		}
		fmt.Fprintf(&b, "  %-24s %s\n", k.name+args[k.arg]+p, k.help)
	}
	b.WriteString("P is the share of requests that are hit, 0 to 1; without it all are.\n")
	return b.String()
}

// ParseFault reads a fault as --fault takes it.
func ParseFault(s string) (Fault, error) {
	name, rest, _ := strings.Cut(s, ":")
	f := Fault{Name: name, P: 1}
	bad := func(want string) (Fault, error) {
		return Fault{}, fmt.Errorf("fault %q: %s; see \"vllmdeck sim --help\"", s, want)
	}
	for _, k := range faultKinds {
		if k.name != name {
			continue
		}
		if k.perRequest {
			arg, p, two := strings.Cut(rest, ":")
			if k.arg == "" {
				arg, p, two = "", rest, rest != ""
			}
			if two {
				v, err := strconv.ParseFloat(p, 64)
				if err != nil || !(v >= 0 && v <= 1) {
					return bad("the share of requests must be 0 to 1")
				}
				f.P = v
			}
			rest = arg
		}
		f.Arg = rest
		var err error
		switch k.arg {
		case "":
			if rest != "" {
				return bad("takes no argument")
			}
		case "n":
			if f.N, err = strconv.Atoi(rest); err != nil || f.N < 0 {
				return bad("needs a number of tokens")
			}
		case "status":
			if f.N, err = strconv.Atoi(rest); err != nil || !slices.Contains([]int{429, 500, 503}, f.N) {
				return bad("needs 429, 500 or 503")
			}
		case "dur", "dur?":
			if rest == "" && k.arg == "dur?" {
				break
			}
			if f.Dur, err = time.ParseDuration(rest); err != nil || f.Dur < 0 {
				return bad("needs a duration such as 30s")
			}
		case "x":
			if f.X, err = strconv.ParseFloat(rest, 64); err != nil || !(f.X > 0 && f.X < 1e6) {
				return bad("needs a factor such as 2.5")
			}
		case "word":
			if rest == "" {
				return bad("needs a word")
			}
		case "start":
			if !slices.Contains([]string{"oom", "kv", "maxlen", "model", "port"}, rest) {
				return bad("needs oom, kv, maxlen, model or port")
			}
		}
		return f, nil
	}
	return bad("there is no such fault")
}

func (o *Options) fault(name string) *Fault {
	for i := range o.Faults {
		if o.Faults[i].Name == name {
			return &o.Faults[i]
		}
	}
	return nil
}

// dice draws which single-request faults hit a request. They are drawn in the order of
// requests from their own source, so that timing does not change who is hit.
func (s *Server) dice() faults {
	s.diceMu.Lock()
	defer s.diceMu.Unlock()
	var fs faults
	for i := range s.o.Faults {
		f := &s.o.Faults[i]
		if f.P >= 1 || s.diceRand.Float64() < f.P {
			fs = append(fs, f)
		}
	}
	return fs
}

// faults are those that hit one request.
type faults []*Fault

func (fs faults) get(name string) *Fault {
	for _, f := range fs {
		if f.Name == name {
			return f
		}
	}
	return nil
}
