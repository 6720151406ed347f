package route

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func conversation(n int, who string) []byte {
	var b strings.Builder
	b.WriteString(`[{"role":"system","content":"You help."}`)
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `,{"role":"user","content":"turn %d of %s: tell me more about it"}`, i, who)
	}
	return []byte(b.String())[:n]
}

func rated(p *Prefixes, prompt []byte, cands ...Candidate) []float64 {
	var c Chain
	p.Chain(&c, prompt)
	p.Rate(&c, cands)
	var out []float64
	for _, u := range cands {
		out = append(out, math.Round(100*u.Prefix)/100)
	}
	return out
}

func TestPrefixIsWhatAnUpstreamWasSent(t *testing.T) {
	var p Prefixes
	a, b := Candidate{ID: "a", Ready: true}, Candidate{ID: "b", Ready: true}
	long := conversation(4000, "x")
	if got := rated(&p, long, a, b); got[0] != 0 || got[1] != 0 {
		t.Errorf("before anything was sent the shares are %v, want 0", got)
	}
	var c Chain
	p.Chain(&c, long[:2048])
	p.Add(&c, "a")
	for _, tt := range []struct {
		name   string
		prompt []byte
		a, b   float64
	}{
		{"the same", long[:2048], 1, 0},
		{"twice as long", long[:4096], 0.5, 0},
		{"half of it", long[:1024], 1, 0},
		{"another from the first byte on", conversation(2048, "y"), 0, 0},
		{"another after 1024 bytes", append(append([]byte{}, long[:1100]...), conversation(2000, "z")...), 0.33, 0},
		{"too short to tell", long[:127], 0, 0},
		{"nothing", nil, 0, 0},
	} {
		if got := rated(&p, tt.prompt, a, b); got[0] != tt.a || got[1] != tt.b {
			t.Errorf("%s: shares %v, want %v and %v", tt.name, got, tt.a, tt.b)
		}
	}
	p.Chain(&c, long[:1024])
	p.Add(&c, "b")
	if got := rated(&p, long[:2048], a, b); got[0] != 1 || got[1] != 0.5 {
		t.Errorf("shares = %v, want all on a and half on b", got)
	}
	a.Ready = false
	rated(&p, nil, a, b)
	a.Ready = true
	if got := rated(&p, long[:2048], a, b); got[0] != 0 || got[1] != 0.5 {
		t.Errorf("after a was away the shares are %v, want none on a and half on b", got)
	}
}

func TestPrefixesForgetWhatWasNotUsedForLong(t *testing.T) {
	var p Prefixes
	var c Chain
	a := Candidate{ID: "a", Ready: true}
	hot, cold := conversation(2048, "hot"), conversation(2048, "cold")
	for _, prompt := range [][]byte{hot, cold} {
		p.Chain(&c, prompt)
		p.Add(&c, "a")
	}
	for i := range 30000 {
		p.Chain(&c, conversation(1024, fmt.Sprint("filler ", i)))
		p.Add(&c, "a")
		if i%100 == 0 {
			if got := rated(&p, hot, a); got[0] != 1 {
				t.Fatalf("after %d others the one in use is forgotten: share %v", i, got[0])
			}
		}
	}
	if got := rated(&p, cold, a); got[0] > 0.2 {
		t.Errorf("the one that nobody used is remembered: share %v", got[0])
	}
}

func TestPrefixesOfManyUpstreams(t *testing.T) {
	var p Prefixes
	var c Chain
	p.Chain(&c, conversation(1024, "x"))
	for i := range 3 * maxBits {
		id := fmt.Sprint("w", i)
		p.Add(&c, id)
		if got := rated(&p, conversation(1024, "x"), Candidate{ID: id, Ready: true}); got[0] != 1 {
			t.Fatalf("upstream %d has share %v, want 1", i, got[0])
		}
	}
}

func TestPrefixesAreSharedSafely(t *testing.T) {
	var p Prefixes
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var c Chain
			cands := eight()
			for i := range 200 {
				p.Chain(&c, conversation(3000, fmt.Sprint(g, i%10)))
				cands[i%8].Ready = i%50 != 0
				p.Rate(&c, cands)
				for _, u := range cands {
					if !(u.Prefix >= 0 && u.Prefix <= 1) {
						t.Errorf("share = %v, want 0..1", u.Prefix)
					}
				}
				p.Add(&c, cands[i%8].ID)
			}
		})
	}
	wg.Wait()
}

func FuzzPrefixes(f *testing.F) {
	f.Add([]byte("x"), 100, []byte("y"))
	f.Add(conversation(3000, "x"), 1500, conversation(3000, "y"))
	f.Fuzz(func(t *testing.T, prompt []byte, at int, tail []byte) {
		var p Prefixes
		var c Chain
		p.Chain(&c, prompt)
		p.Add(&c, "a")
		at = min(max(at, 0), len(prompt))
		other := append(prompt[:at:at], tail...)
		same := 0
		for same < len(prompt) && same < len(other) && prompt[same] == other[same] {
			same++
		}
		cands := []Candidate{{ID: "a", Ready: true}, {ID: "b", Ready: true}}
		p.Chain(&c, other)
		p.Rate(&c, cands)
		if got, most := cands[0].Prefix*float64(c.size), float64(same); got > most+1e-6 || cands[1].Prefix != 0 {
			t.Errorf("a has %v bytes and b %v of a prompt that shares %v with what a was sent", got, cands[1].Prefix, most)
		}
	})
}

func TestPrefixPlaysItsPart(t *testing.T) {
	ready := func(id string) Candidate { return Candidate{ID: id, Ready: true, MaxSeqs: 16} }
	with := func(c Candidate, prefix float64, inFlight int) Candidate {
		c.Prefix, c.InFlight = prefix, inFlight
		return c
	}
	for _, tt := range []struct {
		name  string
		cands []Candidate
		want  string
	}{
		{"a conversation stays where it was", []Candidate{with(ready("a"), 0.9, 2), with(ready("b"), 0, 0)}, "a"},
		{"but not at any price", []Candidate{with(ready("a"), 0.9, 8), with(ready("b"), 0, 0)}, "b"},
		{"a system prompt in common does not herd", []Candidate{with(ready("a"), 0.3, 1), with(ready("b"), 0, 0)}, "b"},
		{"of two who have it the one with less to do", []Candidate{with(ready("a"), 0.9, 2), with(ready("b"), 0.9, 1)}, "b"},
	} {
		for rnd := range uint64(20) {
			if i, _ := Pick(Request{}, tt.cands, rnd); tt.cands[i].ID != tt.want {
				t.Errorf("%s: picked %s, want %s", tt.name, tt.cands[i].ID, tt.want)
				break
			}
		}
	}
}

func TestOfEqualsTheLessBusyIsTaken(t *testing.T) {
	// As good as equal by their scores: one has a request more, the other a bit more of its cache in use.
	cands := []Candidate{{ID: "a", Ready: true, MaxSeqs: 1000, InFlight: 1}, {ID: "b", Ready: true, MaxSeqs: 1000, KV: 0.2}}
	for rnd := range uint64(20) {
		if i, why := Pick(Request{}, cands, rnd); cands[i].ID != "b" || why != Tie {
			t.Fatalf("picked %s because %v, want b in a tie", cands[i].ID, why)
		}
	}
}

// BenchmarkPrefix1K is what affinity costs a request with a body of 1 kB and eight workers.
func BenchmarkPrefix1K(b *testing.B) {
	var p Prefixes
	var c Chain
	cands := eight()
	prompt := conversation(1024, "x")
	p.Chain(&c, prompt)
	for i := range 4 {
		p.Add(&c, cands[i].ID)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Chain(&c, prompt)
		p.Rate(&c, cands)
		p.Add(&c, cands[0].ID)
	}
}
