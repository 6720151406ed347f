package worker

import (
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestAFloodOfLinesIsToldInPieces(t *testing.T) {
	var b batch
	var next, most, told uint64
	tell := func(b batch) bool {
		told++
		most = max(most, uint64(len(b.lines)))
		for _, l := range b.lines {
			if next++; l.Seq != next {
				t.Fatalf("line %d is told in place of %d", l.Seq, next)
			}
		}
		return true
	}
	for i := range uint64(10_000) {
		b.add(api.Line{Seq: i + 1}, tell)
	}
	tell(b)
	if next != 10_000 || most != batchLines || told != 5 {
		t.Errorf("told %d lines in %d pieces of at most %d, want 10000 in 5 of %d", next, told, most, batchLines)
	}
}
