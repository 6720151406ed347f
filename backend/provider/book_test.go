package provider

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func at(text string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04", text, time.Local)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDaysAndMonthsAreKeptApart(t *testing.T) {
	n := func(v api.Nanos) *api.Nanos { return &v }
	var b book
	b.load([]Spent{{Day: "2026-10-31", Amount: 50}, {Day: "2026-11-01", Amount: 7}, {Day: "2026-11-24", Amount: 10}})
	limits := caps{day: n(100), month: n(150)}
	if err := b.hold(at("2026-11-24 23:59"), 90, limits); err != nil {
		t.Fatalf("what fits exactly: %v", err)
	}
	if err := b.hold(at("2026-11-24 23:59"), 1, limits); err == nil {
		t.Error("one more fits on a full day")
	}
	if err := b.hold(at("2026-11-25 00:00"), 43, limits); err != nil {
		t.Errorf("the next day, up to the month's limit: %v", err)
	}
	if err := b.hold(at("2026-11-25 00:00"), 1, limits); err == nil {
		t.Error("one more fits into a full month")
	}
	if err := b.hold(at("2026-12-01 00:00"), 100, limits); err != nil {
		t.Errorf("the next month: %v", err)
	}
	// It ends after midnight: its money belongs to the day it began.
	b.settle("2026-11-24", n(90), n(80))
	if got := b.ofDay(at("2026-11-25 00:01")); got.spent != 0 || got.held != 43 {
		t.Errorf("the next day has %+v, want nothing spent and 43 held", got)
	}
	// A clock that is set back finds its day again, and gives no second budget.
	if got := b.ofDay(at("2026-11-24 23:58")); got.spent != 90 || got.held != 0 {
		t.Errorf("the day before has %+v, want 90 spent", got)
	}
	if err := b.hold(at("2026-11-24 23:58"), 11, limits); err == nil {
		t.Error("a clock set back gives a second budget")
	}
}

func TestNoAmountOverflowsTheCap(t *testing.T) {
	n := func(v api.Nanos) *api.Nanos { return &v }
	for _, limit := range []api.Nanos{0, 5, math.MaxInt64} {
		var b book
		b.load([]Spent{{Day: "2026-11-24", Amount: 10}})
		if err := b.hold(at("2026-11-24 12:00"), math.MaxInt64, caps{day: n(limit)}); err == nil {
			t.Errorf("the largest amount fits under a cap of %d with 10 spent", limit)
		}
	}
	var b book
	b.load(nil)
	if b.reached(at("2026-11-24 12:00"), caps{month: n(0)}, 0) == "" {
		t.Error("a cap of 0 is not reached by nothing, want that it spends nothing")
	}
}

func TestTheBookStaysSmall(t *testing.T) {
	var b book
	b.load(nil)
	start := at("2026-01-01 12:00")
	for i := range 400 {
		now := start.AddDate(0, 0, i)
		if err := b.hold(now, 1, caps{}); err != nil {
			t.Fatal(err)
		}
		one := api.Nanos(1)
		b.settle(day(now), &one, &one)
	}
	if len(b.days) > keepDays {
		t.Errorf("%d days are kept, want at most %d", len(b.days), keepDays)
	}
	if got := b.ofMonth(start.AddDate(0, 0, 399)); got.spent != 4 { // 2027-02-01 to -04
		t.Errorf("%d spent in the last month, want 4", got.spent)
	}
}

// The key may be cut anywhere between two reads.
func TestTheKeyIsMaskedWhereverItIsCut(t *testing.T) {
	const key = "sk-sk-sk-abc"
	text := "sk-" + key + " s" + key + key + "sk-sk-sk-ab sk-"
	want := strings.ReplaceAll(text, key, strings.Repeat("*", len(key)))
	for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
		got, err := io.ReadAll(&masked{body: io.NopCloser(r), key: []byte(key)})
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	broken := errors.New("broken")
	got, err := io.ReadAll(&masked{body: io.NopCloser(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken))), key: []byte(key)})
	if !errors.Is(err, broken) || string(got) != want {
		t.Errorf("got %q, %v, want all that came, then the error", got, err)
	}
}

func FuzzMasked(f *testing.F) {
	f.Add("data: {\"error\":\"sk-x sk-xyz\"}\n\n", "sk-xyz", 3)
	f.Fuzz(func(t *testing.T, text, key string, size int) {
		if key == "" || strings.Contains(key, "*") {
			return
		}
		m := &masked{body: io.NopCloser(iotest.HalfReader(strings.NewReader(text))), key: []byte(key)}
		var got bytes.Buffer
		space := make([]byte, 1+(size&0x3f))
		for {
			n, err := m.Read(space)
			got.Write(space[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got.Len() != len(text) {
			t.Errorf("got %d bytes of %d", got.Len(), len(text))
		}
		if strings.Contains(got.String(), key) {
			t.Errorf("the key %q is in %q", key, got.String())
		}
	})
}
