package launch

import (
	"errors"
	"io"
	"sync"
	"time"
)

const (
	pumpRoom     = 8 << 20     // bytes that may wait for a slow disk
	pumpPatience = time.Second // how long the server may have to wait once they do
)

var errSlowDisk = errors.New("the disk was too slow")

// sink is where a pump writes to. It never fails.
type sink interface {
	io.Writer
	lose(n int64) // this many bytes are missing after what was written last
}

// spool is what the reading side of a pump has read and the writing side has not written yet.
type spool struct {
	mu   sync.Mutex
	buf  []byte
	lost int64 // bytes dropped after buf

	data, room chan struct{} // signals, of capacity 1
}

// pump copies r to w until r ends. It reads on while the disk is slow, so that the server never
// waits for its log: 8 MiB lie in memory then, and once they are full for a second the rest is
// dropped and counted.
func pump(r io.Reader, w sink) {
	s := &spool{data: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.drain(w)
	}()
	chunk := make([]byte, 64<<10)
	for {
		n, err := r.Read(chunk)
		if n > 0 {
			s.put(chunk[:n])
		}
		if err != nil {
			break
		}
	}
	close(s.data)
	<-written
}

func (s *spool) put(p []byte) {
	if !s.add(p) {
		select {
		case <-s.room: // left over from before it was full
		default:
		}
		patience := time.NewTimer(pumpPatience)
		defer patience.Stop()
		for !s.add(p) {
			select {
			case <-s.room:
			case <-patience.C:
				s.mu.Lock()
				s.lost += int64(len(p))
				s.mu.Unlock()
				return
			}
		}
	}
	select {
	case s.data <- struct{}{}:
	default:
	}
}

// add is false if there is no room. Once something was dropped, all is until the writing side
// comes round: it had its second.
func (s *spool) add(p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.lost > 0:
		s.lost += int64(len(p))
	case len(s.buf)+len(p) > pumpRoom:
		return false
	default:
		s.buf = append(s.buf, p...)
	}
	return true
}

// drain writes until data is closed and nothing is left.
func (s *spool) drain(w sink) {
	var spare []byte
	for open := true; open; {
		_, open = <-s.data
		s.mu.Lock()
		buf, lost := s.buf, s.lost
		s.buf, s.lost = spare[:0], 0
		s.mu.Unlock()
		select {
		case s.room <- struct{}{}:
		default:
		}
		if len(buf) > 0 {
			_, _ = w.Write(buf)
		}
		if lost > 0 {
			w.lose(lost)
		}
		if spare = buf; cap(spare) > 1<<20 { // after a burst
			spare = nil
		}
	}
}
