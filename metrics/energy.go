package metrics

import "time"

// energyGap is the longest time between two readings of the power that is counted: what a card drew
// while nobody looked is not known.
const energyGap = 10 * time.Second

// energy is what a card has used, integrated from its power by the trapezoid rule. NVIDIA has a counter
// in NVML and DCGM that is exact; nvidia-smi does not show it.
type energy struct {
	joules float64
	at     time.Time // of power
	power  *float64  // watts, at the last reading
	known  bool
}

// add takes a reading; nil: the power is not known.
func (e *energy) add(now time.Time, power *float64) {
	if power != nil {
		e.known = true
		if gap := now.Sub(e.at); e.power != nil && gap > 0 && gap <= energyGap {
			e.joules += (*e.power + *power) / 2 * gap.Seconds()
		}
	}
	e.at, e.power = now, power
}

// wattHours is nil for a card whose power was never known.
func (e *energy) wattHours() *float64 {
	if e == nil || !e.known {
		return nil
	}
	return new(e.joules / 3600)
}
