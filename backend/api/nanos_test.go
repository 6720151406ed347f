package api

import (
	"encoding/json"
	"math"
	"testing"
)

func TestNanosWritesExactDollars(t *testing.T) {
	for _, c := range []struct {
		n    Nanos
		want string
	}{
		{0, "0"},
		{1, "0.000000001"},
		{-1, "-0.000000001"},
		{Dollar, "1"},
		{1_500_000_000, "1.5"},
		{-Dollar / 4, "-0.25"},
		{340_000_000, "0.34"},
		{math.MaxInt64, "9223372036.854775807"},
		{math.MinInt64, "-9223372036.854775808"},
	} {
		if got := c.n.String(); got != c.want {
			t.Errorf("Nanos(%d) = %s, want %s", int64(c.n), got, c.want)
		}
	}
}

func FuzzNanosJSON(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(math.MinInt64))
	f.Add(int64(123456789))
	f.Fuzz(func(t *testing.T, n int64) {
		b, err := json.Marshal(Nanos(n))
		if err != nil {
			t.Fatal(err)
		}
		var back Nanos
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back != Nanos(n) {
			t.Errorf("%d came back as %d through %s", n, back, b)
		}
	})
}

func TestParseUSD(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Nanos
		ok   bool
	}{
		{"0.34", 340_000_000, true},
		{"1e-9", 1, true},
		{"0.0000000005", 1, true},
		{"-0.0000000005", -1, true},
		{"0.0000000004", 0, true},
		{"", 0, false},
		{"abc", 0, false},
		{"1e30", 0, false},
		{"NaN", 0, false},
		{"1e999999999", 0, false},
		{"1e-999999999", 0, false},
	} {
		got, err := ParseUSD(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("ParseUSD(%q) = %d, %v; want %d, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}

func TestSumOfUnknownIsUnknown(t *testing.T) {
	if got := Sum(new(Nanos(1)), nil); got != nil {
		t.Errorf("Sum(1, unknown) = %v, want unknown", *got)
	}
	if got := Sum(new(Nanos(1)), new(Nanos(2))); got == nil || *got != 3 {
		t.Errorf("Sum(1, 2) = %v, want 3", got)
	}
}

func TestSeriesKeepsGaps(t *testing.T) {
	b, err := json.Marshal(Series{1, math.NaN(), 0.123456, math.Inf(1), 1e12, 9999.4, 9999.7, 10000, -12345, 99999999, 1e8})
	if err != nil {
		t.Fatal(err)
	}
	if want := "[1,null,0.1235,null,1e+12,9999,1e+04,10000,-12350,100000000,1e+08]"; string(b) != want {
		t.Errorf("Series = %s, want %s", b, want)
	}
	var back Series
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if len(back) != 11 || !math.IsNaN(back[1]) || back[0] != 1 {
		t.Errorf("came back as %v", back)
	}
}

func TestSpanIsSecondsAndNullWhenUnknown(t *testing.T) {
	for _, c := range []struct {
		s    Span
		want string
	}{{0, "null"}, {Span(1_500_000_000), "1.5"}, {Span(1234), "0.000001"}} {
		b, err := json.Marshal(c.s)
		if err != nil || string(b) != c.want {
			t.Errorf("Span(%d) = %s, %v; want %s", c.s, b, err, c.want)
		}
	}
}

func FuzzParseUSD(f *testing.F) {
	for _, s := range []string{"0", "-0.5", "00.10", "999999999.999999999", "1.", ".5", "1.0000000005", "--1", "1.2.3", "+1", "0x1", "1_0", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parsePlain(s)
		if !ok {
			return
		}
		want, err := ParseUSD(s + "e0") // past the short way
		if err != nil || got != want {
			t.Errorf("%q is %d, and %d, %v the long way", s, got, want, err)
		}
	})
}

func TestSeriesReadsWhatItMayBeGiven(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"[]", "[]"},
		{" [ ] ", "[]"},
		{"[1,null,2.5]", "[1,null,2.5]"},
		{"[ 1e3 ,\n-0.25 ]", "[1000,-0.25]"},
		{"null", "null"},
		{`{"a":1}`, ""},
		{`["1"]`, ""},
		{`[[1]]`, ""},
		{`[true]`, ""},
		{`"x"`, ""},
		{`[{}]`, ""},
	} {
		var s struct{ S Series }
		err := json.Unmarshal([]byte(`{"S":`+c.in+`}`), &s)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v, want an error: %v", c.in, err, c.want == "")
			continue
		}
		if err != nil {
			continue
		}
		if c.want == "null" {
			if s.S != nil {
				t.Errorf("null is %v, want nil", s.S)
			}
		} else if got, err := s.S.MarshalJSON(); err != nil || string(got) != c.want {
			t.Errorf("%s came back as %s, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestSpanReadsNumbersAlone(t *testing.T) {
	var s Span
	for _, in := range []string{`"1s"`, `true`, `[1]`, `{}`} {
		if err := json.Unmarshal([]byte(in), &s); err == nil {
			t.Errorf("%s was read as %v", in, s)
		}
	}
	if err := json.Unmarshal([]byte("1.25"), &s); err != nil || s != 1_250_000_000 {
		t.Errorf("1.25 is %d, %v", s, err)
	}
}
