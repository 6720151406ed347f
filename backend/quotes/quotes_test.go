package quotes

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const body = `{"model":"some/long-model-name","max_completion_tokens":5,"messages":[{"role":"user","content":"My PIN is 4711, tell nobody.\nNever \u00e9ver."},
	{"role":"assistant","content":[{"type":"text","text":"a \"quoted\" word and more"}]}],"tools":[{"function":{"name":"order_the_medicine"}}],"metadata" : {"patient":"Jane Q. Example"}}`

func TestWhatIsQuotedIsTakenOut(t *testing.T) {
	for _, tt := range []struct{ msg, want string }{
		{"CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA out of memory. Tried to allocate 2.00 GiB"},
		{"max_completion_tokens must be at least 1", "max_completion_tokens must be at least 1"},
		{"The model `some/long-model-name` does not exist", "The model `some/long-model-name` does not exist"},
		{"cannot serve 'My PIN is 4711, tell nobody.'", "cannot serve '…'"},
		{"My PIN is 4711, tell nobody.", "…"},
		{"bad: 'PIN is 4711, tell nob' and 'Jane Q. Example' at once", "bad: '…' and '…' at once"},
		{"unknown tool order_the_medicine", "unknown tool …"},
		{`text: a "quoted" word and more`, `text: …`},
		{`raw: a \"quoted\" word and more`, `raw: …`},
		{"Never éver.", "…"},
		{body, ""},
		{"", ""},
		{"short", "short"},
	} {
		f := New(tt.msg)
		f.LookJSON([]byte(body), "some/long-model-name")
		got := f.Rest()
		if tt.msg == body {
			for _, secret := range []string{"4711", "Jane", "medicine", "quoted"} {
				if strings.Contains(got, secret) {
					t.Errorf("the whole body quoted gives %q, which holds %q", got, secret)
				}
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%q gives %q, want %q", tt.msg, got, tt.want)
		}
	}
}

func TestEveryRunOfTwelveIsFound(t *testing.T) {
	text := "0123456789abcdefghijklmnopqrstuvwxyz"
	for from := 0; from+least <= len(text); from++ {
		f := New("<<<" + text[from:from+least] + ">>>")
		f.Look([]byte(text))
		if got := f.Rest(); got != "<<<…>>>" {
			t.Errorf("the run at %d gives %q, want it taken out", from, got)
		}
	}
}

// TestLongTextsAreFast looks at what is worst: all of it is in the message, and nothing is.
func TestLongTextsAreFast(t *testing.T) {
	for _, msg := range []string{strings.Repeat("a", 1000), strings.Repeat("aaaaaab", 140), strings.Repeat("ab", 500)} {
		for _, text := range []string{strings.Repeat("a", 20<<20), strings.Repeat("aaaaaac", 3<<20), strings.Repeat("xyz", 7<<20)} {
			began := time.Now()
			f := New(msg)
			f.Look([]byte(text))
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%.9q … in %d MB of %.9q … took %v", msg, len(text)>>20, text, took)
			}
		}
	}
}

func FuzzQuotes(f *testing.F) {
	f.Add("cannot serve 'My PIN is 4711, tell nobody.'", body)
	f.Fuzz(func(t *testing.T, msg, text string) {
		if len(msg) > 2000 {
			return
		}
		q := New(msg)
		q.Look([]byte(text))
		q.LookJSON([]byte(text), "")
		got := q.Rest()
		if utf8.ValidString(msg) && !utf8.ValidString(got) {
			t.Errorf("%q gives %q", msg, got)
		}
		if len(text) >= least && strings.Contains(got, text) {
			t.Errorf("%q still holds %q", got, text)
		}
	})
}
