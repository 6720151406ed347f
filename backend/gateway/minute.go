package gateway

// minute is a sum over the last 60 seconds. What was added counts for 60 to 61 seconds, so that a
// limit on it holds in every minute there is, wherever one begins to count. Times are seconds since
// an epoch of the caller's, by its monotonic clock: they never run back.
type minute struct {
	buckets [61]int64 // by second modulo 61
	at      int64     // second of the newest bucket
	sum     int64
}

// advance takes out what is past.
func (m *minute) advance(now int64) {
	for steps := now - m.at; steps > 0; steps-- {
		if m.sum == 0 {
			break // all buckets are empty
		}
		m.at++
		b := &m.buckets[m.at%61]
		m.sum -= *b
		*b = 0
	}
	m.at = max(m.at, now)
}

// add counts n in.
func (m *minute) add(now, n int64) {
	m.advance(now)
	m.buckets[m.at%61] += n
	m.sum += n
}

// room says in how many seconds n more fit under limit, if nothing else is added; 0: now. It is 61
// if that never happens.
func (m *minute) room(now, n, limit int64) int64 {
	m.advance(now)
	left := m.sum
	if left+n <= limit {
		return 0
	}
	for age := int64(60); age >= 0; age-- {
		if m.at < age {
			continue
		}
		left -= m.buckets[(m.at-age)%61]
		if left+n <= limit {
			return 61 - age
		}
	}
	return 61
}

// empty says in how many seconds nothing counts any more.
func (m *minute) empty(now int64) int64 {
	m.advance(now)
	if m.sum == 0 {
		return 0
	}
	for age := int64(0); age <= 60 && age <= m.at; age++ {
		if m.buckets[(m.at-age)%61] != 0 {
			return 61 - age
		}
	}
	return 61
}
