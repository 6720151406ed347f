package metrics

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The fields that nvidia-smi is asked for. It answers nothing at all if it does not know one of
// them. The name comes last: only in it a comma could stand.
var (
	nvidiaEssential = []string{"index", "uuid", "memory.total", "memory.used", "utilization.gpu", "name"}
	nvidiaFields    = []string{
		"index", "uuid", "pci.bus_id", "memory.total", "memory.used", "utilization.gpu",
		"temperature.gpu", "power.draw", "power.limit", "clocks.sm", "ecc.errors.uncorrected.volatile.total",
		"clocks_event_reasons.active", "name",
	}
)

// olderFields are what fields were called in earlier drivers, here before 535.
var olderFields = map[string]string{"clocks_event_reasons.active": "clocks_throttle_reasons.active"}

var unknownField = regexp.MustCompile(`Field "([^"]*)" is not a valid field to query`)

// fieldError says that nvidia-smi does not know a field.
type fieldError struct{ field string }

func (e *fieldError) Error() string {
	return fmt.Sprintf("nvidia-smi does not know the field %q", e.field)
}

// without gives the fields to ask for in place of fields once one of them is not known: its older
// name, or none. False if there is nothing to leave out.
func without(fields []string, unknown string) ([]string, bool) {
	i := slices.Index(fields, unknown)
	if i < 0 || slices.Contains(nvidiaEssential, unknown) {
		return nil, false
	}
	out := slices.Clone(fields)
	if older := olderFields[unknown]; older != "" {
		out[i] = older
		return out, true
	}
	return slices.Delete(out, i, i+1), true
}

// parseNvidia reads one line of nvidia-smi's CSV without header and units. Whatever is not a
// number, such as [N/A] (memory of a GB10, utilisation of a card in MIG mode), [GPU is lost]
// or [Not Supported], is unknown, never 0.
func parseNvidia(line string, fields []string) (card, bool) {
	values := strings.SplitN(line, ",", len(fields))
	if len(values) != len(fields) {
		return card{}, false
	}
	var g card
	for i, f := range fields {
		v := strings.TrimSpace(values[i])
		switch f {
		case "index":
			if _, err := strconv.ParseUint(v, 10, 16); err != nil {
				return card{}, false
			}
			g.Index = v
		case "uuid":
			g.UUID = text(v)
		case "name":
			g.Name = text(v)
		case "memory.total":
			g.MemoryTotal = mebibytes(v)
		case "memory.used":
			g.MemoryUsed = mebibytes(v)
		case "utilization.gpu":
			g.Utilisation = percent(v)
		case "temperature.gpu":
			g.Temperature = decimal(v)
		case "power.draw":
			g.Power = decimal(v)
		case "power.limit":
			g.PowerLimit = decimal(v)
		case "clocks.sm":
			g.Clock = decimal(v)
		case "ecc.errors.uncorrected.volatile.total":
			g.ECC = natural(v)
		case "clocks_event_reasons.active", "clocks_throttle_reasons.active":
			g.Throttle = throttle(v)
		case "pci.bus_id":
			g.pci = busID(v)
		}
	}
	return g, true
}

// slowdowns are the bits of nvidia-smi's clock event reasons that hold a clock down against the wish of
// who runs the card, as nvml.h numbers them. Not among them: 1 (idle), 2 and 0x100 (a clock that was set).
var slowdowns = []struct {
	bit  uint64
	text string
}{
	{0x04, "power cap"},
	{0x20, "thermal"},
	{0x40, "thermal (hardware)"},
	{0x80, "power brake"},
	{0x10, "sync boost"},
}

// hwSlowdown is set with every slowdown of the hardware, and alone where it does not say why.
const hwSlowdown = 0x08

// throttle reads the bits that hold the clock down; none for what is no number.
func throttle(s string) []string {
	digits, ok := strings.CutPrefix(s, "0x")
	bits, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		return nil
	}
	var out []string
	for _, b := range slowdowns {
		if bits&b.bit != 0 {
			out = append(out, b.text)
		}
	}
	if bits&hwSlowdown != 0 && bits&(0x40|0x80) == 0 {
		out = append(out, "hardware slowdown")
	}
	return out
}

// natural reads a count.
func natural(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

// text gives a reported word, "" for a bracketed excuse.
func text(s string) string {
	if strings.HasPrefix(s, "[") || s == "N/A" {
		return ""
	}
	return s
}

// decimal reads a number that is not negative; nil for whatever else the tool wrote.
func decimal(s string) *float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !sane(v) {
		return nil
	}
	return &v
}

// percent reads 0..100 as 0..1.
func percent(s string) *float64 {
	v := decimal(s)
	if v == nil || *v > 100 {
		return nil
	}
	*v /= 100
	return v
}

func mebibytes(s string) *int64 {
	v := decimal(s)
	if v == nil || *v > 1<<40 {
		return nil
	}
	return new(int64(*v * (1 << 20)))
}
