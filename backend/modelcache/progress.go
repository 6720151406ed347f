package modelcache

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// States of a download.
const (
	running   = "running"
	done      = "done"
	failed    = "failed"
	cancelled = "cancelled"
)

// download is one model on its way, or the last one that was.
type download struct {
	hub    string // folder
	cancel context.CancelFunc

	mu   sync.Mutex // guards the following
	view api.Download
	rate meter
	now  []file // that are being fetched
}

// fetching notes that a file is on its way, until what it gives is called. The largest one is shown.
func (d *download) fetching(f file) (over func()) {
	show := func(change func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		change()
		d.view.File = ""
		if len(d.now) > 0 {
			d.view.File = slices.MaxFunc(d.now, func(a, b file) int { return cmp.Compare(a.size, b.size) }).name
		}
	}
	show(func() { d.now = append(d.now, f) })
	return func() { show(func() { d.now = slices.DeleteFunc(d.now, func(o file) bool { return o == f }) }) }
}

func (d *download) show(now time.Time) api.Download {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view
	if v.Size > 0 {
		v.Done = min(v.Done, v.Size) // two names of one file count twice
	}
	if v.State == running {
		v.Rate = d.rate.perSecond(now)
	}
	return v
}

func (d *download) update(f func(v *api.Download)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.view)
}

// got counts bytes that came from the hub.
func (d *download) got(n int64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.Done += n
	d.rate.add(n, now)
}

// had counts bytes that were there already, or, below 0, that must be fetched again.
func (d *download) had(n int64) { d.update(func(v *api.Download) { v.Done += n }) }

// rateOver is over how many seconds the rate is taken.
const rateOver = 5

// meter counts bytes by second.
type meter struct {
	began time.Time
	slots [rateOver + 1]struct {
		second int64
		bytes  int64
	}
}

func (m *meter) add(n int64, now time.Time) {
	if m.began.IsZero() {
		m.began = now
	}
	s := &m.slots[now.Unix()%int64(len(m.slots))]
	if s.second != now.Unix() {
		s.second, s.bytes = now.Unix(), 0
	}
	s.bytes += n
}

// perSecond is the rate over the last whole seconds; of a meter that is younger, over its life.
func (m *meter) perSecond(now time.Time) float64 {
	var sum int64
	for _, s := range m.slots {
		if age := now.Unix() - s.second; age >= 0 && age <= rateOver {
			sum += s.bytes
		}
	}
	span := min(now.Sub(m.began).Seconds(), rateOver+float64(now.Nanosecond())/1e9)
	if m.began.IsZero() || sum == 0 {
		return 0
	}
	return float64(sum) / max(span, 0.25)
}
