package quality

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// example is one labelled answer of testdata/answers.jsonl.
type example struct {
	Kind, Prompt, Text, Finish string
}

func (e example) answer() Answer { return Answer{e.Prompt, e.Text, e.Finish} }

func examples(t testing.TB) map[string][]example {
	t.Helper()
	f, err := os.Open("testdata/answers.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]example{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e example
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("testdata: %v", err)
		}
		out[e.Kind] = append(out[e.Kind], e)
	}
	return out
}

// separation is the chance that a good answer is rated above a bad one (the area under the
// ROC curve); ties count half.
func separation(good, bad []Answer, rate func(Score) float64) float64 {
	var wins float64
	for _, g := range good {
		for _, b := range bad {
			x, y := rate(Rate(g)), rate(Rate(b))
			if x > y {
				wins++
			} else if x == y {
				wins += 0.5
			}
		}
	}
	return wins / float64(len(good)*len(bad))
}

func TestEachDefectIsSeparatedByItsRater(t *testing.T) {
	all := examples(t)
	var good []Answer
	for _, e := range all["good"] {
		good = append(good, e.answer())
	}
	english := good[:14]
	written := func(kind string) (bad []Answer) {
		for _, e := range all[kind] {
			bad = append(bad, e.answer())
		}
		return bad
	}
	made := func(change func(i int, a Answer) Answer) (bad []Answer) {
		for i, a := range english {
			bad = append(bad, change(i, a))
		}
		return bad
	}
	overall := func(s Score) float64 { return s.Overall }
	degeneration := func(s Score) float64 { return s.Degeneration }
	truncation := func(s Score) float64 { return s.Truncation }
	for _, c := range []struct {
		name string
		good []Answer
		bad  []Answer
		rate func(Score) float64
		want float64
	}{
		{"loops, by degeneration", good, written("loop"), degeneration, 0.98},
		{"loops, by health", good, written("loop"), overall, 0.95},
		{"appended loop, by degeneration", english, made(func(_ int, a Answer) Answer {
			w := strings.Fields(a.Text)
			a.Text += strings.Repeat(" "+strings.Join(w[max(0, len(w)-10):], " "), 8)
			return a
		}), degeneration, 0.98},
		{"run of one word, by degeneration", english, made(func(_ int, a Answer) Answer {
			a.Text += strings.Repeat(" the", 20)
			return a
		}), degeneration, 0.95},
		{"truncation, by its rater", good, written("truncation"), truncation, 0.95},
		{"cut at 55 %, by truncation", english, made(func(_ int, a Answer) Answer {
			a.Text = a.Text[:len(a.Text)*55/100]
			return a
		}), truncation, 0.90},
		{"gibberish, by coherence", english, written("gibberish"), func(s Score) float64 { return s.Coherence }, 0.98},
		{"refusals, by their rater", good, written("refusal"), func(s Score) float64 { return s.Refusal }, 0.98},
		{"empty, by health", good, written("empty"), overall, 0.98},
		{"too short, by length", english, written("short"), func(s Score) float64 { return s.Length }, 0.98},
		{"answer to another question, by relevance", english, made(func(i int, a Answer) Answer {
			a.Text = english[(i+5)%len(english)].Text
			return a
		}), func(s Score) float64 { return s.Relevance }, 0.90},
	} {
		got := separation(c.good, c.bad, c.rate)
		t.Logf("%.3f  %s (%d good, %d bad)", got, c.name, len(c.good), len(c.bad))
		if got < c.want {
			t.Errorf("%s: separation %.3f, want at least %.2f", c.name, got, c.want)
		}
	}
}

func TestGoodAnswersRaiseNoAlarm(t *testing.T) {
	for _, e := range examples(t)["good"] {
		s := Rate(e.answer())
		if s.Looping || s.Refused || s.Truncated || s.Overall < 0.5 {
			t.Errorf("%q: %+v, want no alarm and health of 0.5 or more", e.Prompt, s)
		}
	}
}

func TestFlagsSayWhatIsWrong(t *testing.T) {
	for kind, flag := range map[string]func(Score) bool{
		"loop":    func(s Score) bool { return s.Looping },
		"refusal": func(s Score) bool { return s.Refused },
	} {
		for _, e := range examples(t)[kind] {
			if s := Rate(e.answer()); !flag(s) {
				t.Errorf("%s %q is not flagged: %+v", kind, e.Text[:min(40, len(e.Text))], s)
			}
		}
	}
	for _, text := range []string{
		"I'm sorry, but I can only see half of your file. Here is what it does.",
		"As an AI language model, I do not feel pain, but a tree in this story might say: ouch.",
		"Some people are not comfortable with heights; you can start with a low wall.",
	} {
		if Rate(Answer{Text: text}).Refused {
			t.Errorf("%q is taken for a refusal", text)
		}
	}
	if s := Rate(Answer{Text: "All is well.", Finish: "length"}); !s.Truncated || s.Truncation != 0 {
		t.Errorf("finish_reason length: truncated %v rating %v, want true and 0", s.Truncated, s.Truncation)
	}
}

func TestOtherLanguagesAreNotRatedAsEnglish(t *testing.T) {
	for _, text := range []string{
		"阳光由许多颜色组成，空气对蓝光的散射更强。",
		"Небо голубое, потому что воздух рассеивает синий свет сильнее красного.",
		"السماء زرقاء لأن الهواء يشتت الضوء الأزرق.",
		"El cielo es azul porque el aire dispensary la luz azul mucho más que la roja, y por eso lo vemos así.",
		"Der Himmel ist blau, weil die Luft das blaue Licht viel stärker streut als das rote.",
		"Le ciel est bleu parce que l'air diffuse la lumière bleue plus que la rouge dans toutes les directions.",
		"Gökyüzü mavidir çünkü hava mavi ışığı kırmızı ışıktan çok daha fazla saçar.",
		"Niebo jest niebieskie, ponieważ powietrze rozprasza światło niebieskie silniej niż czerwone.",
	} {
		s := Rate(Answer{Prompt: "x", Text: text})
		if !math.IsNaN(s.Coherence) || !math.IsNaN(s.Engagement) || !math.IsNaN(s.Relevance) {
			t.Errorf("%q is rated as English: %+v", text, s)
		}
		if math.IsNaN(s.Overall) || s.Overall < 0.4 {
			t.Errorf("%q: health %v, want a fair rating by length and defects", text, s.Overall)
		}
	}
	for _, text := range []string{"[0.5, 1.5, 1.7]", "42", "", "The café's naïve façade.", "wkr plont bradge zzi uq vextor lhom pri"} {
		if s := Rate(Answer{Text: text}); math.IsNaN(s.Coherence) {
			t.Errorf("%q is taken for another language", text)
		}
	}
}

func TestLengthFollowsThePrompt(t *testing.T) {
	words := func(n int) string { return strings.TrimSpace(strings.Repeat("word ", n)) + "." }
	for _, c := range []struct {
		prompt    string
		n         int
		low, high float64
	}{
		{"Tell me about the sea.", 120, 1, 1},
		{"Tell me about the sea.", 10, 0.4, 0.6},
		{"Tell me about the sea in 50 words.", 50, 1, 1},
		{"Tell me about the sea in 50 words.", 500, 0, 0.01},
		{"Describe the sea in one sentence.", 20, 1, 1},
		{"Describe the sea in one sentence.", 600, 0, 0.05},
		{"Write 0 words.", 30, 0.5, 1},
	} {
		if got := Rate(Answer{Prompt: c.prompt, Text: words(c.n)}).Length; got < c.low || got > c.high {
			t.Errorf("%d words to %q: length %.3f, want %v to %v", c.n, c.prompt, got, c.low, c.high)
		}
	}
}

func TestEnds(t *testing.T) {
	for text, want := range map[string]float64{
		"It is done.": 1, "Is it?\n": 1, `She said "no."`: 1, "(Yes!)": 1, "**Done.**": 1, "好的。": 1, "Great 🎉": 1, "```\nx\n```": 1,
		"Paris": 0.9, "Items:\n- one thing that is long\n- another thing that is long": 0.9, "1. a\n2. and then we go to the shop": 0.9,
		"and then we went to the shop and": 0.5, "": 0.5, "```go\nfunc main() {": 0,
	} {
		if got := Rate(Answer{Text: text}).Truncation; got != want {
			t.Errorf("truncation of %q = %v, want %v", text, got, want)
		}
	}
}

func TestRatersFillEveryField(t *testing.T) {
	var s Score
	seen := map[*float64]string{}
	for _, r := range Raters {
		p := r.into(&s)
		if was, ok := seen[p]; ok {
			t.Errorf("raters %s and %s rate the same", was, r.Name)
		}
		seen[p] = r.Name
	}
	if len(seen) != 8 {
		t.Errorf("%d fields are rated, want all 8", len(seen))
	}
}

func TestRateIsDeterministicAndReusesNothing(t *testing.T) {
	all := examples(t)
	first := map[string]Score{}
	for range 2 {
		for kind, es := range all {
			for _, e := range es {
				s := Rate(e.answer())
				key := kind + e.Prompt + e.Text
				was, ok := first[key]
				if !ok {
					first[key] = s
				} else if was.Overall != s.Overall || was.Degeneration != s.Degeneration {
					t.Errorf("%s %q: %+v, then %+v", kind, e.Prompt, was, s)
				}
			}
		}
	}
}

func TestVeryLongAnswersAreRatedByTheirEnds(t *testing.T) {
	middle := strings.Repeat("Something else entirely is written here, number after number. ", 1)
	var b strings.Builder
	for i := range 20_000 {
		b.WriteString(middle[:10+i%40])
		b.WriteByte(' ')
	}
	s := Rate(Answer{Text: "I'm sorry, but I can't help with that. " + b.String() + strings.Repeat("and so on ", 2000)})
	if !s.Refused || !s.Looping {
		t.Errorf("refused %v looping %v, want both", s.Refused, s.Looping)
	}
}

func FuzzRate(f *testing.F) {
	for _, es := range examples(f) {
		f.Add(es[0].Prompt, es[0].Text, es[0].Finish)
	}
	f.Add("write 99999 words", "\xff\xfe```\u200d❤️", "length")
	f.Fuzz(func(t *testing.T, prompt, text, finish string) {
		s := Rate(Answer{prompt, text, finish})
		for _, r := range Raters {
			if v := *r.into(&s); v < 0 || v > 1 || math.IsNaN(v) && !r.English {
				t.Errorf("%s = %v, want 0 to 1", r.Name, v)
			}
		}
	})
}

func BenchmarkRate(b *testing.B) {
	var text strings.Builder
	for _, e := range examples(b)["good"][:3] {
		text.WriteString(e.Text + "\n")
	}
	a := Answer{Prompt: "How do I keep bread from going stale?", Text: text.String()[:1024], Finish: "stop"}
	b.SetBytes(int64(len(a.Text)))
	b.ReportAllocs()
	for b.Loop() {
		Rate(a)
	}
}
