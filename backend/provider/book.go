package provider

import (
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Spent is what a provider cost on one local day.
type Spent struct {
	Day     string // 2006-01-02
	Amount  api.Nanos
	Unknown int64 // calls that cost something nobody knows, not even at most
}

// book is what a provider has cost by day, and what is reserved for requests under way. Days are
// kept apart, not reset at midnight: a clock that is set back finds its day again.
type book struct {
	loaded bool
	days   map[string]*page

	turned   api.Nanos // the last reservation that had no room, and its day; "" once one had
	turnedOn string
}

// page is one day.
type page struct {
	spent   api.Nanos
	held    api.Nanos
	unknown int64
}

const keepDays = 70 // a month and the one before

func day(t time.Time) string { return t.Format(time.DateOnly) }

// month is the part of a day that it shares with its month.
func month(d string) string { return d[:len("2006-01")] }

func (b *book) page(d string) *page {
	if b.days == nil {
		b.days = map[string]*page{}
	}
	p := b.days[d]
	if p == nil {
		b.trim()
		p = &page{}
		b.days[d] = p
	}
	return p
}

// trim forgets the oldest day once there are too many. One that still holds money stays.
func (b *book) trim() {
	if len(b.days) < keepDays {
		return
	}
	oldest := ""
	for d, p := range b.days {
		if p.held == 0 && (oldest == "" || d < oldest) {
			oldest = d
		}
	}
	delete(b.days, oldest)
}

func (b *book) load(spent []Spent) {
	b.loaded = true
	for _, s := range spent {
		p := b.page(s.Day)
		p.spent += s.Amount
		p.unknown += s.Unknown
	}
}

// sum adds up the days for which in is true.
func (b *book) sum(in func(d string) bool) page {
	var s page
	for d, p := range b.days {
		if in(d) {
			s.spent, s.held, s.unknown = s.spent+p.spent, s.held+p.held, s.unknown+p.unknown
		}
	}
	return s
}

func (b *book) ofDay(now time.Time) page {
	if p := b.days[day(now)]; p != nil {
		return *p
	}
	return page{}
}

func (b *book) ofMonth(now time.Time) page {
	m := month(day(now))
	return b.sum(func(d string) bool { return month(d) == m })
}

func (b *book) spentDay(now time.Time) *api.Nanos   { return b.known(b.ofDay(now)) }
func (b *book) spentMonth(now time.Time) *api.Nanos { return b.known(b.ofMonth(now)) }

// known is the sum of a page; nil while a part of it is not known.
func (b *book) known(p page) *api.Nanos {
	if !b.loaded || p.unknown > 0 {
		return nil
	}
	return &p.spent
}

// caps are the limits of a provider; nil: none.
type caps struct{ day, month *api.Nanos }

// reached says in a sentence which limit leaves no room for need, even if nothing were under way;
// "" if none does.
func (b *book) reached(now time.Time, c caps, need api.Nanos) string {
	over := func(p page, limit *api.Nanos) bool {
		return limit != nil && (p.spent >= *limit || p.spent > *limit-need)
	}
	switch {
	case c == caps{}:
	case over(b.ofMonth(now), c.month):
		return fmt.Sprintf("the spend_cap of $%s a month is reached: $%s is spent", c.month, b.ofMonth(now).spent)
	case over(b.ofDay(now), c.day):
		return fmt.Sprintf("the spend_cap of $%s a day is reached: $%s is spent", c.day, b.ofDay(now).spent)
	}
	return ""
}

// need is the reservation that had no room today, if none had any since.
func (b *book) need(now time.Time) api.Nanos {
	if b.turnedOn == day(now) {
		return b.turned
	}
	return 0
}

// hold reserves an amount, if spent and reserved money leave room for it under both limits.
func (b *book) hold(now time.Time, amount api.Nanos, c caps) error {
	for _, l := range []struct {
		limit *api.Nanos
		page  page
		word  string
	}{{c.day, b.ofDay(now), "day"}, {c.month, b.ofMonth(now), "month"}} {
		// Not spent + amount: the amount may be near what Nanos holds.
		if l.limit == nil || l.page.spent+l.page.held <= *l.limit-amount {
			continue
		}
		if l.page.spent > *l.limit-amount {
			b.turned, b.turnedOn = amount, day(now)
		}
		// The client reads this too: it tells no amounts.
		return fmt.Errorf("its spend_cap of the %s has no room for this request", l.word)
	}
	b.turnedOn = ""
	b.page(day(now)).held += amount
	return nil
}

// settle gives a reservation of a day back and books what it came to; nil: not known, and held is
// nil too where it is not known at most.
func (b *book) settle(d string, held, actual *api.Nanos) {
	p := b.page(d)
	if held != nil {
		p.held -= *held
	}
	switch {
	case actual != nil:
		p.spent += *actual
	case held != nil:
		p.spent += *held
	default:
		p.unknown++
	}
}
