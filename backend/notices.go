package backend

import (
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	maxNotices    = 100
	maxNoticeText = 400 // bytes
)

// noticeBoard keeps what an operator should know, newest first.
type noticeBoard struct {
	mu      sync.Mutex
	notices []posted
}

// posted is a notice, and what it is about where it goes when that is over.
type posted struct {
	api.Notice
	subject string
}

func (b *noticeBoard) add(n api.Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.postLocked(posted{Notice: n})
}

func (b *noticeBoard) postLocked(p posted) {
	if p.Time.IsZero() {
		p.Time = time.Now()
	}
	p.Text = api.Shorten(p.Text, maxNoticeText)
	b.notices = append([]posted{p}, b.notices...)
	for i := len(b.notices) - 1; i > 0 && len(b.notices) > maxNotices; i-- {
		if !b.notices[i].Active {
			b.notices = slices.Delete(b.notices, i, i+1)
		}
	}
}

// set says what is true of a subject now; n without text says that all is well with it. It gives
// true if that is news.
func (b *noticeBoard) set(subject string, n api.Notice) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.notices, func(p posted) bool { return p.Active && p.subject == subject })
	if i < 0 && n.Text == "" || i >= 0 && b.notices[i].Text == api.Shorten(n.Text, maxNoticeText) {
		return false
	}
	if i >= 0 {
		b.notices[i].Active = false
	}
	if n.Text != "" {
		n.Active = true
		b.postLocked(posted{n, subject})
	}
	return true
}

func (b *noticeBoard) list() []api.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]api.Notice, len(b.notices))
	for i := range out {
		out[i] = b.notices[i].Notice
	}
	return out
}
