package cost

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

//go:embed prices/table.csv.gz
var embedded []byte

// Embedded is the price table that is part of the program. It is read at the first call.
var Embedded = sync.OnceValue(func() *Table {
	t, err := ReadTable(bytes.NewReader(embedded))
	if err != nil {
		panic("the embedded price table is damaged: " + err.Error()) // a test reads it
	}
	return t
})

// Table holds dated list prices by provider/model. It is not changed once made.
type Table struct {
	date     string             // of the newest source
	version  string             // date and a hash of the content
	prices   map[string][]Price // by ref, oldest first
	refs     []string           // sorted
	models   map[string][]string
	rejected []Rejected
}

// NewTable makes a table of prices, of which the guards turn some down. date (YYYY-MM-DD) is
// the day up to which they are known.
func NewTable(date string, prices []Price) *Table {
	good, bad := Guard(prices)
	return newTable(date, good, bad)
}

func newTable(date string, good []Price, bad []Rejected) *Table {
	t := &Table{date: date, prices: map[string][]Price{}, models: map[string][]string{}, rejected: bad}
	for _, p := range good {
		t.prices[p.Ref] = append(t.prices[p.Ref], p)
	}
	t.refs = sortedKeys(t.prices)
	for _, ref := range t.refs {
		slices.SortFunc(t.prices[ref], older)
		model := Model(ref)
		t.models[model] = append(t.models[model], ref)
	}
	slices.SortFunc(t.rejected, func(a, b Rejected) int {
		if c := strings.Compare(a.Ref, b.Ref); c != 0 {
			return c
		}
		return older(a.Price, b.Price)
	})
	h := sha256.New()
	_ = t.write(h) // a hash takes every byte
	t.version = date + "+" + hex.EncodeToString(h.Sum(nil)[:4])
	return t
}

func older(a, b Price) int {
	if c := strings.Compare(a.Date, b.Date); c != 0 {
		return c
	}
	return strings.Compare(a.Source, b.Source)
}

// Version names the content of the table: the date it is known up to, and a hash.
func (t *Table) Version() string { return t.version }

// Date is the day (YYYY-MM-DD) up to which the table is known.
func (t *Table) Date() string { return t.date }

// Len is the number of refs that have a price.
func (t *Table) Len() int { return len(t.refs) }

// Refs lists what has a price, as provider/model, sorted.
func (t *Table) Refs() []string { return slices.Clone(t.refs) }

// Rejected are the prices that the guards turned down, by ref.
func (t *Table) Rejected() []Rejected { return slices.Clone(t.rejected) }

// Lookup gives the price of a ref as the table's date knows it.
func (t *Table) Lookup(ref string) (Price, bool) { return t.at(ref, t.date) }

// At gives the price of a ref on a day, which includes changes that were announced for later
// than the table's date. A day before the first known price has that one.
func (t *Table) At(ref string, day time.Time) (Price, bool) {
	return t.at(ref, day.Format(time.DateOnly))
}

// History gives every dated price of a ref, oldest first. Where the sources disagree both are
// in it; the later one counts.
func (t *Table) History(ref string) []Price { return slices.Clone(t.prices[ref]) }

func (t *Table) at(ref, date string) (Price, bool) {
	history := t.prices[ref]
	if len(history) == 0 {
		return Price{}, false
	}
	p := history[0]
	for _, q := range history[1:] {
		if q.Date <= date {
			p = q
		}
	}
	return p, true
}

// Known reports whether a ref has a price, and if not which refs are nearest to it.
func (t *Table) Known(ref string) (bool, []string) {
	if _, ok := t.prices[ref]; ok {
		return true, nil
	}
	return false, t.Nearest(ref, 3)
}

// Hosted gives the cheapest credible price at which somebody else hosts the same open model,
// found by its plain name (see Model); false where nobody is known to. Cheapest is by the sum
// of input and output price, both of which must be known. Where several host it, less than a
// tenth of their median is not credible: it is a slip in the list, or an offer long gone.
func (t *Table) Hosted(model string) (Price, bool) {
	model = Model(model)
	if !open(model) {
		return Price{}, false
	}
	var hosts []Price
	for _, ref := range t.models[model] {
		if p, _ := t.Lookup(ref); p.Input != nil && p.Output != nil {
			hosts = append(hosts, p)
		}
	}
	if len(hosts) == 0 {
		return Price{}, false
	}
	sum := func(p Price) api.Nanos { return *p.Input + *p.Output }
	slices.SortStableFunc(hosts, func(a, b Price) int { return cmp.Compare(sum(a), sum(b)) })
	if len(hosts) > minPeers {
		least := sum(hosts[len(hosts)/2]) / 10
		for sum(hosts[0]) < least {
			hosts = hosts[1:]
		}
	}
	return hosts[0], true
}

// WriteTable writes t as ReadTable reads it: gzipped CSV, the same bytes for the same table.
func WriteTable(w io.Writer, t *Table) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := t.write(z); err != nil {
		return err
	}
	return z.Close()
}

// write writes the table's date, then one line per price: ref, date, source, the four unit
// prices in nano-dollars per million tokens, and why it was turned down, if it was.
func (t *Table) write(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{t.date, "", "", "", "", "", "", ""}) // errors are kept until Flush
	line := func(p Price, reason string) {
		_ = c.Write([]string{p.Ref, p.Date, p.Source, number(p.Input), number(p.CacheRead), number(p.CacheWrite), number(p.Output), reason})
	}
	for _, ref := range t.refs {
		for _, p := range t.prices[ref] {
			line(p, "")
		}
	}
	for _, r := range t.rejected {
		line(r.Price, r.Reason)
	}
	c.Flush()
	return c.Error()
}

func number(n *api.Nanos) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(int64(*n), 10)
}

// ReadTable reads what WriteTable wrote.
func ReadTable(r io.Reader) (*Table, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("read price table: %w", err)
	}
	c := csv.NewReader(z)
	c.FieldsPerRecord = 8
	lines, err := c.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read price table: %w", err)
	}
	if len(lines) == 0 {
		return nil, errors.New("read price table: it is empty")
	}
	var good []Price
	var bad []Rejected
	for i, f := range lines[1:] {
		p := Price{Ref: f[0], Date: f[1], Source: f[2]}
		for j, to := range []**api.Nanos{&p.Input, &p.CacheRead, &p.CacheWrite, &p.Output} {
			if f[3+j] == "" {
				continue
			}
			n, err := strconv.ParseInt(f[3+j], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read price table: line %d: %w", i+2, err)
			}
			*to = new(api.Nanos(n))
		}
		if reason := f[7]; reason != "" {
			bad = append(bad, Rejected{p, reason})
		} else {
			good = append(good, p)
		}
	}
	return newTable(lines[0][0], good, bad), nil
}
