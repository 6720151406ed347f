package main

import (
	"math"
	"slices"
	"time"
)

// percentile is the time that a share q of all times does not exceed; 0 of none.
func percentile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
