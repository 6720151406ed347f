package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

var (
	descGPUUse         = desc("gpu_utilisation_ratio", "Share of the last moment in which a GPU worked.", "gpu", "uuid")
	descGPUMemory      = desc("gpu_memory_used_bytes", "Memory of a GPU in use.", "gpu", "uuid")
	descGPUTotal       = desc("gpu_memory_total_bytes", "Memory of a GPU.", "gpu", "uuid")
	descGPUTemperature = desc("gpu_temperature_celsius", "Temperature of a GPU.", "gpu", "uuid")
	descGPUPower       = desc("gpu_power_watts", "What a GPU draws.", "gpu", "uuid")
	descGPULimit       = desc("gpu_power_limit_watts", "What a GPU may draw.", "gpu", "uuid")
	descGPUClock       = desc("gpu_clock_hertz", "Clock of a GPU's multiprocessors.", "gpu", "uuid")
	descGPUEnergy      = desc("gpu_energy_joules_total", "Energy that a GPU has used since the engine started, integrated from its power; times without a reading for more than 10 s are left out.", "gpu", "uuid")
	descGPUECC         = desc("gpu_ecc_uncorrected_errors_total", "Uncorrected ECC errors of a GPU since its driver was loaded.", "gpu", "uuid")
	descGPUThrottle    = desc("gpu_throttled", "1 for each reason for which a GPU's clock is held down now.", "gpu", "uuid", "reason")
	descGPUXid         = desc("gpu_xid_timestamp_seconds", "When the driver last wrote an Xid error of this code, as Unix time.", "gpu", "uuid", "code")
	descGPUProcesses   = desc("gpu_processes", "Processes that hold memory of a GPU, by whose they are: worker, stray, other.", "gpu", "uuid", "owner")
	descStrays         = desc("strays", "Processes of vLLM servers that nobody looks after.")
)

var gpuDescs = []*prometheus.Desc{
	descGPUUse, descGPUMemory, descGPUTotal, descGPUTemperature, descGPUPower, descGPULimit, descGPUClock, descGPUEnergy,
	descGPUECC, descGPUThrottle, descGPUXid, descGPUProcesses, descStrays,
}

// gpuSeries gives the series of the cards. What a card does not report is absent.
func gpuSeries(s *api.Snapshot, give func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string)) {
	give(descStrays, prometheus.GaugeValue, float64(len(s.Strays)))
	seen := map[string]bool{}
	for i := range s.GPUs {
		g := &s.GPUs[i]
		if seen[g.Index] {
			continue
		}
		seen[g.Index] = true
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			give(d, prometheus.GaugeValue, v, append([]string{g.Index, g.UUID}, labels...)...)
		}
		for _, m := range []struct {
			d *prometheus.Desc
			v *float64
		}{
			{descGPUUse, g.Utilisation},
			{descGPUTemperature, g.Temperature},
			{descGPUPower, g.Power},
			{descGPULimit, g.PowerLimit},
			{descGPUMemory, float(g.MemoryUsed)},
			{descGPUTotal, float(g.MemoryTotal)},
		} {
			if m.v != nil {
				gauge(m.d, *m.v)
			}
		}
		if g.Clock != nil {
			gauge(descGPUClock, *g.Clock*1e6)
		}
		if g.Energy != nil {
			give(descGPUEnergy, prometheus.CounterValue, *g.Energy*3600, g.Index, g.UUID)
		}
		if g.ECC != nil {
			give(descGPUECC, prometheus.CounterValue, float64(*g.ECC), g.Index, g.UUID)
		}
		for _, reason := range g.Throttle {
			gauge(descGPUThrottle, 1, reason)
		}
		codes := map[int]bool{}
		for _, x := range g.Xids { // newest first
			if !codes[x.Code] {
				codes[x.Code] = true
				gauge(descGPUXid, float64(x.Time.UnixMilli())/1000, strconv.Itoa(x.Code))
			}
		}
		owners := map[string]int{"worker": 0, "stray": 0, "other": 0}
		for _, p := range g.Processes {
			switch {
			case p.Worker != "":
				owners["worker"]++
			case p.Stray:
				owners["stray"]++
			default:
				owners["other"]++
			}
		}
		for owner, n := range owners {
			gauge(descGPUProcesses, float64(n), owner)
		}
	}
}

func float(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}
