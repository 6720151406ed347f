package sim

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

var questions = []string{
	"What is the capital of France?", "Explain how paged attention works", "Give me 7 tips for cooking pasta", "Write a haiku about servers",
	"Write a python function that computes fibonacci numbers", "What is 17 * 3?", "What is the difference between TCP and UDP?", "Tell me a story",
	"hi", "Summarize the history of Rome in detail", "How do I plan a trip to Lisbon?", "Write an email about the weekly meeting", "🙂 emoji über alles?", "",
}

func chatPlan(question, begun string, p params) *plan {
	ms := []message{{"user", question}}
	if begun != "" {
		ms = append(ms, message{"assistant", begun})
	}
	return planChat(Options{}.withDefaults(), ms, begun != "", p, 0, nil)
}

func TestAnswersFitTheQuestion(t *testing.T) {
	p := params{n: 1, maxTokens: 500}
	for question, want := range map[string]string{
		"What is the capital of France?":           "The capital of France is Paris.",
		"hey, what's the capital of Japan please?": "The capital of Japan is Tokyo.",
		"What is 17 * 3?":                          "51",
		"Write a python function for fibonacci":    "def fibonacci",
		"Give me 7 tips for cooking pasta":         "\n7. ",
		"Why is the sky blue? Briefly.":            "The sky is blue because",
	} {
		if got := chatPlan(question, "", p).text(); !strings.Contains(got, want) {
			t.Errorf("%q -> %q, want %q in it", question, got, want)
		}
	}
	if got := strings.Count(chatPlan("Write a haiku", "", p).text(), "\n"); got != 2 {
		t.Errorf("haiku has %d line ends, want 2", got)
	}
	distinct := map[string]bool{}
	for i := range 50 {
		distinct[chatPlan(fmt.Sprintf("Explain how a GPU works, version %d", i), "", p).text()] = true
	}
	if len(distinct) < 45 {
		t.Errorf("50 questions have %d answers", len(distinct))
	}
}

func TestMaterialIsRich(t *testing.T) {
	n := 0
	for _, tp := range shelf().topics {
		n += len(tp.facts) + len(tp.tips)
	}
	if n < 150 {
		t.Errorf("%d sentences, want at least 150", n)
	}
}

// An answer cut after any of its tokens and continued gives the rest, token by token.
func TestContinuationGivesTheRest(t *testing.T) {
	for _, question := range questions {
		p := params{n: 1, maxTokens: 400}
		whole := chatPlan(question, "", p)
		begun := ""
		for i, d := range whole.deltas[:len(whole.deltas)-1] {
			begun += d
			p.maxTokens = 400 - (i + 1)
			rest := chatPlan(question, begun, p)
			if got, want := rest.text(), strings.TrimPrefix(whole.text(), begun); got != want {
				t.Fatalf("%q after %q: %q, want %q", question, begun, got, want)
			}
			if len(rest.ids) != len(whole.ids)-(i+1) {
				t.Fatalf("%q after %d tokens: %d more, want %d", question, i+1, len(rest.ids), len(whole.ids)-(i+1))
			}
		}
	}
}

func TestForeignBeginningIsCarriedOn(t *testing.T) {
	got := chatPlan("Tell me about GPUs", "Prefill is bound by arithmetic and dec", params{n: 1, maxTokens: 200}).text()
	if !strings.HasPrefix(got, "ode by bandwidth") {
		t.Errorf("a sentence of another server goes on with %q", got)
	}
}

func TestLimits(t *testing.T) {
	p := params{n: 1, maxTokens: 40, ignoreEOS: true}
	if pl := chatPlan("What is the capital of France?", "", p); len(pl.ids) != 40 || pl.reason != "length" {
		t.Errorf("ignore_eos: %d tokens, %s; want 40, length", len(pl.ids), pl.reason)
	}
	p = params{n: 1, maxTokens: 400, minTokens: 60}
	if pl := chatPlan("What is the capital of France?", "", p); len(pl.ids) < 60 || pl.reason != "stop" {
		t.Errorf("min_tokens: %d tokens, %s; want at least 60, stop", len(pl.ids), pl.reason)
	}
	p = params{n: 1, maxTokens: 400}
	pl := chatPlan("What is the capital of France?", "", p)
	if pl.ids[len(pl.ids)-1] != tokEnd || pl.deltas[len(pl.deltas)-1] != "" {
		t.Errorf("an answer that ends by itself has no end token of its own")
	}
}

func TestStopStringsNeverLeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.SampledFrom(questions).Draw(t, "question")
		p := params{n: 1, maxTokens: 300}
		whole := chatPlan(q, "", p).text()
		if len(whole) < 4 {
			return
		}
		from := rapid.IntRange(0, len(whole)-2).Draw(t, "from")
		to := rapid.IntRange(from+1, min(len(whole), from+12)).Draw(t, "to")
		p.stop = []string{whole[from:to]}
		pl := chatPlan(q, "", p)
		want := whole[:strings.Index(whole, p.stop[0])]
		if got := pl.text(); got != want {
			t.Fatalf("stop %q: %q, want %q", p.stop[0], got, want)
		}
		if pl.stop == nil || pl.reason != "stop" || len(pl.deltas) != len(pl.ids) {
			t.Fatalf("stop %q: reason %s, %d deltas for %d tokens", p.stop[0], pl.reason, len(pl.deltas), len(pl.ids))
		}
		if utf8.ValidString(p.stop[0]) {
			for _, d := range pl.deltas {
				if !utf8.ValidString(d) {
					t.Fatalf("stop %q: delta %q cuts a rune", p.stop[0], d)
				}
			}
		}
	})
}

func FuzzTokenizer(f *testing.F) {
	for _, s := range questions {
		f.Add(s)
	}
	f.Add("\xff\xfe broken")
	f.Fuzz(func(t *testing.T, s string) {
		ids := encode(nil, s)
		if got := decode(ids); got != s {
			t.Errorf("decode(encode(%q)) = %q", s, got)
		}
		for i := range ids {
			head := decode(ids[:i])
			if again := encode(nil, s[len(head):]); len(again) != len(ids)-i {
				t.Fatalf("rest of %q after %d tokens has %d tokens, want %d", s, i, len(again), len(ids)-i)
			}
		}
	})
}

func TestEnglishIsAboutAWordAToken(t *testing.T) {
	const text = "The quick brown fox jumps over the lazy dog while an unbelievably extraordinary orchestra rehearses Tchaikovsky."
	words, tokens := len(strings.Fields(text)), len(encode(nil, text))
	if r := float64(tokens) / float64(words); r < 1 || r > 3 {
		t.Errorf("%d tokens for %d words", tokens, words)
	}
}

func TestPyFloat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.0", 1: "1.0", 0.05: "0.05", 20000: "20000.0", 999999: "999999.0", 1e6: "1e+06", 1048576: "1.048576e+06",
		4686331904: "4.686331904e+09", 1795446046.278229: "1.795446046278229e+09", 57.84929061099956: "57.84929061099956", 1e-5: "1e-05", math.Inf(1): "+Inf",
	} {
		if got := pyFloat(v); got != want {
			t.Errorf("pyFloat(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestPySyntax(t *testing.T) {
	for body, want := range map[string]string{ // as vLLM 0.32 answers
		`{"model":"tiny",`: "16 Expecting property name enclosed in double quotes",
		`{"a":tru}`:        "5 Expecting value",
		`{"a":1 "b":2}`:    "7 Expecting ',' delimiter",
		`{"a":"xyz`:        "5 Unterminated string starting at",
		`{"a":1}x`:         "7 Extra data",
		`{a:1}`:            "1 Expecting property name enclosed in double quotes",
	} {
		at, msg, ok := pySyntax([]byte(body))
		if got := fmt.Sprint(at, " ", msg); got != want || ok {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func FuzzParseBody(f *testing.F) {
	for _, s := range []string{`{"model":"tiny",`, `{"messages":[5]}`, `[1]`, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":["a"],"n":2}`, `{"messages":[null]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fs, err := parseBody([]byte(s))
		if err != nil {
			if err.status != 400 || err.param == nil {
				t.Errorf("%q: %+v", s, err)
			}
			return
		}
		r := &request{}
		r.sampling(fs, "max_tokens")
		_ = r.streaming(fs)
		_, _ = fs.messages("messages", "m")
		fs.prompts()
		_ = fs.err()
	})
}

func TestACutCompletionGoesOnAsItWouldHave(t *testing.T) {
	for _, prompt := range []string{"Tell me a story about a bridge over a river.", "Tell me story 8 about a bridge over a river.", "What is a book? Tell me.", "Say something about the weather!", "", "Kubernetes is a system.\nIt runs"} {
		for _, tokens := range []int{0, 200} {
			whole := goOn(7, prompt, tokens)
			for cut := range len(whole) {
				if !strings.HasSuffix(prompt, ".") && !strings.HasSuffix(prompt, "!") && cut < strings.IndexAny(whole, ".?!")+1 {
					continue // where the prompt ends within a sentence, nobody knows where it ended
				}
				rest := goOn(7, prompt+whole[:cut], max(0, tokens-len(encode(nil, whole[:cut]))))
				if n := min(len(rest), len(whole)-cut); rest[:n] != whole[cut:][:n] {
					t.Fatalf("prompt %q: after %q comes %q, want %q", prompt, whole[:cut], rest[:n], whole[cut:])
				}
			}
		}
	}
}
