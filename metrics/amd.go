package metrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// parseAMD reads "amd-smi metric --json", which is a list of cards or an object that holds
// one under gpu_data. Any value on any level may be "N/A".
func parseAMD(out []byte) ([]card, error) {
	cards, err := amdCards(out)
	if err != nil {
		return nil, err
	}
	var gpus []card
	for _, c := range cards {
		index := amdNumber(c["gpu"])
		if index == nil {
			continue
		}
		g := api.GPU{Index: strconv.Itoa(int(*index)), Name: "AMD GPU"}
		if v := amdNumber(dig(c, "usage", "gfx_activity")); v != nil && *v <= 100 {
			g.Utilisation = new(*v / 100)
		}
		g.MemoryTotal = amdBytes(dig(c, "mem_usage", "total_vram"))
		g.MemoryUsed = amdBytes(dig(c, "mem_usage", "used_vram"))
		g.Power = amdNumber(dig(c, "power", "socket_power"))
		g.Temperature = amdNumber(dig(c, "temperature", "hotspot"))
		gpus = append(gpus, card{GPU: g})
	}
	return gpus, nil
}

// amdCards gives what amd-smi says of each card.
func amdCards(out []byte) ([]map[string]any, error) {
	out = bytes.TrimSpace(out)
	if bytes.HasPrefix(out, []byte("[")) {
		var cards []map[string]any
		if err := json.Unmarshal(out, &cards); err != nil {
			return nil, fmt.Errorf("read amd-smi: %w", err)
		}
		return cards, nil
	}
	var root struct {
		Cards []map[string]any `json:"gpu_data"`
	}
	if err := json.Unmarshal(out, &root); err != nil {
		return nil, fmt.Errorf("read amd-smi: %w", err)
	}
	return root.Cards, nil
}

// dig follows keys into nested objects; nil where one is missing or no object.
func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// amdNumber reads a plain number or {"value": n, "unit": u}.
func amdNumber(v any) *float64 {
	if m, ok := v.(map[string]any); ok {
		v = m["value"]
	}
	if n, ok := v.(float64); ok && sane(n) {
		return &n
	}
	return nil
}

// amdBytes reads an amount of memory, which is in MB where no unit says otherwise.
func amdBytes(v any) *int64 {
	n := amdNumber(v)
	if n == nil {
		return nil
	}
	unit := float64(1 << 20)
	if u, ok := dig(v, "unit").(string); ok {
		switch strings.ToUpper(u) {
		case "B":
			unit = 1
		case "KB":
			unit = 1 << 10
		case "GB":
			unit = 1 << 30
		}
	}
	if *n*unit >= 1<<60 {
		return nil
	}
	return new(int64(*n * unit))
}

// parseROCm reads rocm-smi's JSON: an object of cards whose values are all strings. Lines of
// text may stand before it, and other objects in it.
func parseROCm(out []byte) ([]card, error) {
	start := bytes.IndexByte(out, '{')
	if start < 0 {
		return nil, errors.New("read rocm-smi: no JSON in its output")
	}
	var root map[string]any
	if err := json.NewDecoder(bytes.NewReader(out[start:])).Decode(&root); err != nil {
		return nil, fmt.Errorf("read rocm-smi: %w", err)
	}
	var gpus []card
	for _, name := range slices.Sorted(maps.Keys(root)) {
		index, ok := strings.CutPrefix(name, "card")
		if _, err := strconv.ParseUint(index, 10, 16); !ok || err != nil {
			continue
		}
		get := func(key string) string {
			s, _ := dig(root, name, key).(string)
			return strings.TrimSpace(s)
		}
		g := api.GPU{
			Index: index, Name: text(get("Card Series")), UUID: text(get("Unique ID")),
			Utilisation: percent(get("GPU use (%)")),
			Temperature: decimal(get("Temperature (Sensor junction) (C)")),
			Power:       decimal(get("Average Graphics Package Power (W)")),
		}
		g.MemoryTotal = natural(get("VRAM Total Memory (B)"))
		g.MemoryUsed = natural(get("VRAM Total Used Memory (B)"))
		if g.Name == "" {
			g.Name = "AMD GPU"
		}
		gpus = append(gpus, card{GPU: g})
	}
	return gpus, nil
}
