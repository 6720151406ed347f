package worker

import (
	"fmt"
	"regexp"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// class says what a failure means for trying again.
type class string

const (
	classConfig   class = "config"   // the same start fails the same way: never retried
	classResource class = "resource" // something must become free: retried
	classCrash    class = "crash"    // anything else: retried
)

// verdict is why a worker failed.
type verdict struct {
	class  class
	cause  string // api.Worker.Error
	remedy string // api.Worker.Remedy
	exit   string // api.Worker.Exit
	early  bool   // it had not been ready
	adopt  bool   // it could not be taken over; the next try takes over again
	final  bool   // it was to be stopped: never retried
	phase  string // of the start that failed; "": it had been ready, or it does not matter

	cure func(known) change // its remedy as a change of the command line; nil: there is none
}

// errorLimit is how many bytes of a cause or remedy are kept.
const errorLimit = 600

// How many lines, and from how long before the last one, are looked at when a worker dies that
// had been ready: what it logged earlier did not kill it.
const (
	lastLines = 600
	lastWords = time.Minute
)

// explain reads the log of a failed process for the first error that explains the failure.
//
// After the worker had been ready only rows of other classes than config are believed: its
// configuration worked, and such a text may come from a request that it logged.
func explain(lines []api.Line, exit launch.Exit, ready bool) verdict {
	v := verdict{class: classCrash, exit: exitText(exit), early: !ready}
	if !exit.Known { // the shim writes down how its server ended; only its own death keeps it from that
		v.cause = "its shim died, so the server was ended with all its processes"
		v.remedy = "the shim is the server's parent: somebody's kill -9, or the kernel's out-of-memory killer (dmesg)"
		return v
	}
	if ready {
		lines = ending(lines)
	}
	texts := make([]string, 0, len(lines))
	for _, l := range lines {
		p := parse(l.Text)
		if p.level == "info" || p.level == "debug" || p.text == "" {
			continue // healthy starts print look-alikes at INFO
		}
		texts = append(texts, p.text)
	}
	for _, d := range diagnoses {
		if ready && d.class == classConfig {
			continue
		}
		for _, t := range texts {
			if m := d.line.FindStringSubmatchIndex(t); m != nil {
				v.class = d.class
				v.cause = clip(string(d.line.ExpandString(nil, d.cause, t, m)))
				v.remedy = clip(string(d.line.ExpandString(nil, d.remedy, t, m)))
				if d.cure != nil {
					words := d.line.FindStringSubmatch(t)
					v.cure = func(k known) change { return d.cure(words, k) }
				}
				return v
			}
		}
	}
	v.cause, v.remedy = unknown(lines, texts, exit)
	return v
}

func ending(lines []api.Line) []api.Line {
	lines = lines[max(len(lines)-lastLines, 0):]
	for len(lines) > 0 && lines[len(lines)-1].Time.Sub(lines[0].Time) > lastWords {
		lines = lines[1:]
	}
	return lines
}

// exceptionLine is the last line of a Python traceback.
var exceptionLine = regexp.MustCompile(`^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|NotFound)\b(?:: .*)?$`)

// consequence matches what the other processes of a server write when one has died.
var consequence = regexp.MustCompile(`EngineDeadError|engine core exited unexpectedly|^RuntimeError: cancelled$|Engine core initialization failed`)

// unknown says what there is to say about a failure that no row of the table knows: the first
// error of the log and, if it is another one, how the last traceback ends.
func unknown(lines []api.Line, texts []string, exit launch.Exit) (cause, remedy string) {
	if exit.Signal == "killed" {
		return "killed by SIGKILL", "the kernel's out-of-memory killer does this (dmesg), or somebody's kill -9"
	}
	var first, last string
	engineDied := false
	for _, t := range texts {
		if consequence.MatchString(t) {
			engineDied = true
			continue
		}
		if exceptionLine.MatchString(t) {
			if first == "" {
				first = t
			}
			last = t
		}
	}
	if first == "" && engineDied {
		return "the engine process died, and the log names no error", "killed or crashed: see dmesg (out of memory, GPU Xid)"
	}
	if first == "" {
		for _, l := range lines {
			if p := parse(l.Text); p.level == "error" && p.text != "" {
				first = p.text
				break
			}
		}
	}
	switch {
	case first != "" && last != "" && last != first:
		return clip(first), clip("the last traceback ends: " + last)
	case first != "":
		return clip(first), "the traceback in its log says where"
	case exit.Signal != "":
		return "ended by a signal (" + exit.Signal + "), and its log names no error", "see the end of its log"
	case exit.Code == 0:
		return "the server ended by itself, unasked, with status 0", "vLLM does this after its engine died: see the end of its log"
	}
	end := "its log is empty"
	if len(texts) > 0 {
		end = "its log ends: " + texts[len(texts)-1]
	} else if len(lines) > 0 {
		end = "its log ends: " + lines[len(lines)-1].Text
	}
	return clip(fmt.Sprintf("ended with status %d; %s", exit.Code, end)), "see the end of its log"
}

func exitText(e launch.Exit) string {
	switch {
	case e.Signal != "":
		return "signal: " + e.Signal
	case !e.Known:
		return "exit status not known"
	}
	return fmt.Sprintf("exit %d", e.Code)
}

func clip(s string) string { return api.Shorten(s, errorLimit) }
