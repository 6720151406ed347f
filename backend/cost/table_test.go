package cost

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func sources(t *testing.T) (litellm, genai []Price) {
	t.Helper()
	for _, s := range []struct {
		name string
		to   *[]Price
	}{{"litellm-2026-07-24.json", &litellm}, {"genai-prices-2026-08-21.json", &genai}} {
		f, err := os.Open("prices/source/" + s.name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		read := ReadLiteLLM
		if strings.HasPrefix(s.name, "genai") {
			read = ReadGenAI
		}
		if *s.to, err = read(f, s.name[len(s.name)-15:len(s.name)-5]); err != nil {
			t.Fatal(err)
		}
	}
	return litellm, genai
}

func TestTheEmbeddedTableIsThatOfItsSources(t *testing.T) {
	built, err := BuildTable(os.DirFS("prices/source"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Embedded().Version(), built.Version(); got != want {
		t.Errorf("got version %s, the sources make %s: run go run ./backend/cost/prices/gen", got, want)
	}
	if len(embedded) > 150<<10 {
		t.Errorf("got %d bytes, want at most 150 kB", len(embedded))
	}
	t.Logf("%d bytes, %d refs, %d rejected", len(embedded), built.Len(), len(built.Rejected()))
}

func TestATableSurvivesWritingByteForByte(t *testing.T) {
	var a, b bytes.Buffer
	if err := WriteTable(&a, Embedded()); err != nil {
		t.Fatal(err)
	}
	read, err := ReadTable(bytes.NewReader(a.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(&b, read); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) || read.Version() != Embedded().Version() {
		t.Errorf("got %s, want %s and the same bytes", read.Version(), Embedded().Version())
	}
}

func TestWellKnownPricesAreExact(t *testing.T) {
	for _, c := range []struct{ ref, in, read, write, out string }{
		{"openai/gpt-4o-mini", "0.15", "0.075", "unknown", "0.6"},
		{"openai/gpt-3.5-turbo", "0.5", "unknown", "unknown", "1.5"},
		{"openai/gpt-5-nano", "0.05", "0.005", "unknown", "0.4"},
		{"anthropic/claude-sonnet-4-5", "3", "0.3", "3.75", "15"},
		{"deepinfra/meta-llama/Meta-Llama-3.1-8B-Instruct", "0.03", "unknown", "unknown", "0.05"},
		{"openai/o1-pro", "150", "unknown", "unknown", "600"},
		// A price whose text was made by a float: 1.5000020000000002e-05 a token.
		{"databricks/databricks-claude-opus-4-1", "15.00002", "unknown", "unknown", "75.00003"},
	} {
		p, ok := Embedded().Lookup(c.ref)
		got := []string{show(p.Input), show(p.CacheRead), show(p.CacheWrite), show(p.Output)}
		if want := []string{c.in, c.read, c.write, c.out}; !ok || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", c.ref, got, ok, want)
		}
		if p.Date == "" || p.Source == "" {
			t.Errorf("%s: got date %q, source %q, want both", c.ref, p.Date, p.Source)
		}
	}
}

func TestTheLimitsRejectExactlyTheSixteenWrongRows(t *testing.T) {
	litellm, _ := sources(t)
	var got []string
	for _, p := range litellm {
		if Credible(p) != "" {
			got = append(got, p.Ref)
		}
	}
	slices.Sort(got)
	want := []string{
		"azure_ai/jais-30b-chat",
		"wandb/Qwen/Qwen3-235B-A22B-Instruct-2507",
		"wandb/Qwen/Qwen3-235B-A22B-Thinking-2507",
		"wandb/Qwen/Qwen3-Coder-480B-A35B-Instruct",
		"wandb/deepseek-ai/DeepSeek-R1-0528",
		"wandb/deepseek-ai/DeepSeek-V3-0324",
		"wandb/deepseek-ai/DeepSeek-V3.1",
		"wandb/meta-llama/Llama-3.1-8B-Instruct",
		"wandb/meta-llama/Llama-3.3-70B-Instruct",
		"wandb/meta-llama/Llama-4-Scout-17B-16E-Instruct",
		"wandb/microsoft/Phi-4-mini-instruct",
		"wandb/openai/gpt-oss-120b",
		"wandb/openai/gpt-oss-20b",
		"wandb/zai-org/GLM-4.5",
		"watsonx/bigscience/mt0-xxl-13b",
		"watsonx/core42/jais-13b-chat",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d:\n%s\nwant %d:\n%s", len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
	}
	for _, ref := range want {
		if ok, _ := Embedded().Known(ref); ok {
			t.Errorf("%s has a price, want none", ref)
		}
	}
}

func TestPeersRejectMostOfThemToo(t *testing.T) {
	litellm, genai := sources(t)
	all := append(litellm, genai...)
	both, alone := 0, []string{}
	for i := range Outliers(all) {
		if Credible(all[i]) != "" {
			both++
		} else {
			alone = append(alone, all[i].Ref)
		}
	}
	if both < 12 {
		t.Errorf("got %d of the 16 by their peers, want at least 12", both)
	}
	// Hyperbolic sold this model at $4 a million; the list has the price of its 70B there.
	if want := []string{"hyperbolic/meta-llama/Meta-Llama-3.1-405B-Instruct"}; !slices.Equal(alone, want) {
		t.Errorf("got %v rejected by peers alone, want %v", alone, want)
	}
	t.Logf("%d of 16 by peers", both)
}

func TestTheLaterOfTwoSourcesWinsAndBothAreKept(t *testing.T) {
	const ref = "openai/gpt-5.6-luna"
	p, _ := Embedded().Lookup(ref)
	if p.Source != SourceGenAI || p.Date != "2026-08-21" || show(p.Input) != "0.2" || show(p.Output) != "1.2" {
		t.Errorf("got %s/%s of %s %s, want 0.2/1.2 of genai-prices 2026-08-21", show(p.Input), show(p.Output), p.Source, p.Date)
	}
	before, _ := Embedded().At(ref, time.Date(2026, 7, 25, 0, 0, 0, 0, time.UTC))
	if before.Source != SourceLiteLLM || show(before.Input) != "1" {
		t.Errorf("a month earlier: got %s of %s, want 1 of litellm", show(before.Input), before.Source)
	}
	if n := len(Embedded().History(ref)); n != 2 {
		t.Errorf("got %d prices in the history, want 2", n)
	}
}

func TestAnAnnouncedPriceCountsFromItsDay(t *testing.T) {
	const ref = "anthropic/claude-sonnet-5"
	for _, c := range []struct{ day, want string }{{"2026-08-31", "2"}, {"2026-09-01", "3"}, {"1999-01-01", "2"}} {
		day, err := time.Parse(time.DateOnly, c.day)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := Embedded().At(ref, day)
		if !ok || show(p.Input) != c.want {
			t.Errorf("on %s: got %s, %v, want %s", c.day, show(p.Input), ok, c.want)
		}
	}
	if p, _ := Embedded().Lookup(ref); show(p.Input) != "2" {
		t.Errorf("as the table's date knows it: got %s, want 2", show(p.Input))
	}
}

func TestTheSameOpenModelIsFoundElsewhere(t *testing.T) {
	for _, name := range []string{"llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", "/models/Meta-Llama-3.1-8B-Instruct-FP8/"} {
		p, ok := Embedded().Hosted(name)
		if !ok || Model(p.Ref) != "llama-3.1-8b-instruct" || *p.Input+*p.Output > *usd(t, "0.08") {
			t.Errorf("%s: got %s at %s/%s, %v, want a host at no more than 0.03/0.05", name, p.Ref, show(p.Input), show(p.Output), ok)
		}
	}
}

func TestAModelThatNobodyHostsStaysUnknown(t *testing.T) {
	for _, name := range []string{
		"smollm2-135m-instruct", "toy", "default", "", "/",
		"gpt-4o-mini", "claude-sonnet-4-5", "o3",
	} { // a worker may be named after a closed model
		if p, ok := Embedded().Hosted(name); ok {
			t.Errorf("%q: got %s, want unknown", name, p.Ref)
		}
	}
}

func TestAnOfferFarBelowTheOthersIsNotCredible(t *testing.T) {
	price := func(ref, in string) Price {
		return Price{Ref: ref, Prices: api.Prices{Input: usd(t, in), Output: usd(t, in)}, Date: "2026-01-01"}
	}
	table := NewTable("2026-01-01", []Price{price("a/m-8b", "0.06"), price("b/m-8b", "1"), price("c/m-8b", "1.1"), price("d/m-8b", "0.9")})
	if p, _ := table.Hosted("m-8b"); p.Ref != "d/m-8b" {
		t.Errorf("got %s, want d/m-8b", p.Ref)
	}
}

func TestAMistypedRefLeadsToTheRightOne(t *testing.T) {
	for _, c := range []struct{ typed, want string }{
		{"openai/gpt4o-mini", "openai/gpt-4o-mini"},
		{"opnai/gpt-4o-mini", "openai/gpt-4o-mini"},
		{"gpt-4o-mini", "openai/gpt-4o-mini"},
		{"gpt-3.5-turbo", "openai/gpt-3.5-turbo"},
	} {
		ok, near := Embedded().Known(c.typed)
		if ok || !slices.Contains(near, c.want) {
			t.Errorf("%s: got %v, %v, want %s among them", c.typed, ok, near, c.want)
		}
	}
	if ok, _ := Embedded().Known("openai/gpt-4o-mini"); !ok {
		t.Error("openai/gpt-4o-mini is not known")
	}
	if got := Embedded().Nearest("x", -1); got != nil {
		t.Errorf("got %v, want none", got)
	}
}

func TestOneModelHasOneName(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-3.1-8b-instruct"},
		{"meta.llama3-1-8b-instruct-v1:0", "llama-3.1-8b-instruct"},
		{"vertex_ai/meta/llama-3.1-8b-instruct-maas", "llama-3.1-8b-instruct"},
		{"meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b-instruct"},
		{"Qwen/Qwen3-32B-AWQ", "qwen3-32b"},
		{"Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "qwen2.5-7b-instruct"},
	} {
		if got := Model(c.name); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzReadLiteLLM(f *testing.F) {
	f.Add([]byte(`{"m":{"mode":"chat","litellm_provider":"p","input_cost_per_token":1e-6,"output_cost_per_token":"x"}}`))
	f.Add([]byte(`{"m":{"mode":"chat","input_cost_per_token":1e99999999}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		prices, err := ReadLiteLLM(bytes.NewReader(b), "2026-01-01")
		for _, p := range prices {
			if err == nil && (p.Input != nil && *p.Input <= 0 || p.Output != nil && *p.Output <= 0) {
				t.Errorf("got %s at %s/%s", p.Ref, show(p.Input), show(p.Output))
			}
		}
	})
}

func FuzzReadGenAI(f *testing.F) {
	f.Add([]byte(`[{"id":"p","models":[{"id":"m","prices":{"input_mtok":{"base":1,"tiers":[]},"output_mtok":2}}]}]`))
	f.Add([]byte(`[{"id":"p","models":[{"id":"m","prices":[{"prices":{"input_mtok":1}},{"constraint":{"start_date":"2027-01-01"},"prices":{"input_mtok":2}}]}]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ReadGenAI(bytes.NewReader(b), "2026-01-01") // must not panic
	})
}

func BenchmarkReadTable(b *testing.B) {
	for b.Loop() {
		if _, err := ReadTable(bytes.NewReader(embedded)); err != nil {
			b.Fatal(err)
		}
	}
}
