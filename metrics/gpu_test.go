package metrics

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParsesNvidiaLines(t *testing.T) {
	for _, c := range []struct {
		name, line string
		check      func(card) bool
	}{
		{"a busy card", "0, GPU-a008e90f, 00000000:65:00.0, 32760, 1226, 28, 61, 143.20, 320.00, 2505, 0, 0x0000000000000001, NVIDIA GeForce RTX 4080 SUPER", func(g card) bool {
			return g.pci == "0000:65:00" && *g.Clock == 2505 && *g.ECC == 0 && g.Throttle == nil && g.Index == "0" && g.UUID == "GPU-a008e90f" && g.Name == "NVIDIA GeForce RTX 4080 SUPER" &&
				*g.MemoryTotal == 32760<<20 && *g.MemoryUsed == 1226<<20 && *g.Utilisation == 0.28 &&
				*g.Temperature == 61 && *g.Power == 143.2 && *g.PowerLimit == 320
		}},
		{"unified memory", "0, GPU-aaaa, 0000000F:01:00.0, [N/A], [N/A], 3, 40, 12.1, [N/A], [N/A], [N/A], [N/A], NVIDIA GB10", func(g card) bool {
			return g.MemoryTotal == nil && g.MemoryUsed == nil && *g.Utilisation == 0.03 && g.PowerLimit == nil && g.pci == "000f:01:00" && g.Clock == nil && g.ECC == nil && g.Throttle == nil
		}},
		{"a card in MIG mode", "1, GPU-b, 00000000:17:00.0, 81920, 5000, [N/A], 40, 90, 300, 1410, 2, 0x0000000000000068, NVIDIA A100 80GB PCIe", func(g card) bool {
			return g.Utilisation == nil && *g.MemoryUsed == 5000<<20 && *g.ECC == 2 && slices.Equal(g.Throttle, []string{"thermal", "thermal (hardware)"})
		}},
		{"a lost card", "3, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [Unknown Error], [Not Supported], N/A, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]", func(g card) bool {
			return g.Index == "3" && g.UUID == "" && g.Name == "" && g.MemoryUsed == nil && g.Utilisation == nil && g.Temperature == nil && g.Power == nil
		}},
		{"a name with a comma", "0, GPU-a, x, 1, 1, 1, 1, 1, 1, 1, 1, 0x4, Card, the second", func(g card) bool {
			return g.Name == "Card, the second" && slices.Equal(g.Throttle, []string{"power cap"})
		}},
		{"nonsense numbers", "0, GPU-a, 1:2:3:4, -5, NaN, 250, Inf, 1e400, 0x1p9999, -1, 1.5, 0xZ, X", func(g card) bool {
			return g.MemoryTotal == nil && g.MemoryUsed == nil && g.Utilisation == nil && g.Temperature == nil && g.Power == nil && g.PowerLimit == nil
		}},
	} {
		g, ok := parseNvidia(c.line, nvidiaFields)
		if !ok || !c.check(g) {
			t.Errorf("%s: parseNvidia(%q) = %+v, %v", c.name, c.line, g, ok)
		}
	}
	for _, line := range []string{
		"", "No devices were found", `Field "x" is not a valid field to query.`,
		"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that a, b, c, d, e, f, g, h, i, j, k, l, m",
	} {
		if g, ok := parseNvidia(line, nvidiaFields); ok {
			t.Errorf("parseNvidia(%q) = %+v, want no card", line, g)
		}
	}
}

func TestParsesAMD(t *testing.T) {
	const card = `{"gpu":0,"mem_usage":{"total_vram":{"value":294896,"unit":"MB"},"used_vram":{"value":283,"unit":"MB"}},"usage":{"gfx_activity":{"value":37,"unit":"%"}},"power":{"socket_power":{"value":239,"unit":"W"}},"temperature":{"hotspot":{"value":36,"unit":"C"}}},{"gpu":2,"usage":"N/A","mem_usage":"N/A","power":{"socket_power":"N/A"},"temperature":{"hotspot":41}}`
	for _, out := range []string{`{"gpu_data":[` + card + `]}`, "[" + card + "]\n"} {
		got, err := parseAMD([]byte(out))
		if err != nil || len(got) != 2 {
			t.Fatalf("parseAMD = %+v, %v, want two cards", got, err)
		}
		if g := got[0]; *g.MemoryTotal != 294896<<20 || *g.MemoryUsed != 283<<20 || *g.Utilisation != 0.37 || *g.Power != 239 || *g.Temperature != 36 {
			t.Errorf("card 0 = %+v", g)
		}
		if g := got[1]; g.Index != "2" || g.MemoryTotal != nil || g.Utilisation != nil || g.Power != nil || *g.Temperature != 41 {
			t.Errorf("card 2 = %+v, want all unknown but its temperature", g)
		}
	}
	if _, err := parseAMD([]byte("oops")); err == nil {
		t.Error("parseAMD of junk, want an error")
	}
}

func TestParsesROCm(t *testing.T) {
	got, err := parseROCm([]byte(`Exception caught: map::at
{"card0":{"GPU use (%)":"68","VRAM Total Memory (B)":"68719476736","VRAM Total Used Memory (B)":"28823961600","Temperature (Sensor junction) (C)":"78.0","Average Graphics Package Power (W)":"235.5","Card Series":"MI210"},"card1":{"GPU use (%)":"N/A"},"system":{"Driver version":"6"}}`))
	if err != nil || len(got) != 2 {
		t.Fatalf("parseROCm = %+v, %v, want two cards", got, err)
	}
	if g := got[0]; g.Name != "MI210" || *g.Utilisation != 0.68 || *g.MemoryTotal != 68719476736 || *g.MemoryUsed != 28823961600 || *g.Temperature != 78 || *g.Power != 235.5 {
		t.Errorf("card 0 = %+v", g)
	}
	if g := got[1]; g.Utilisation != nil || g.MemoryTotal != nil {
		t.Errorf("card 1 = %+v, want nothing known", g)
	}
	if _, err := parseROCm([]byte("no json")); err == nil {
		t.Error("parseROCm without JSON, want an error")
	}
}

func FuzzGPUTools(f *testing.F) {
	f.Add("0, GPU-a, 0:1:2.0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, X")
	f.Add("2026/11/24 22:09:48.071, GPU-a, 5627, 251, /usr/bin/x, y")
	f.Add("3,1301,900000000,-;NVRM: Xid (PCI:0000:65:00): 31, pid=4312, name=python3")
	f.Add(`{"gpu_data":[{"gpu":1e300,"mem_usage":{"total_vram":{"value":1e300,"unit":"GB"}}}]}`)
	f.Add(`{"card0":{"Card Series":7}}`)
	f.Fuzz(func(_ *testing.T, s string) {
		parseNvidia(s, nvidiaFields)
		parseApp(s)
		_, _ = parseAMDApps([]byte(s))
		NewGPUs(slog.New(slog.DiscardHandler)).kernelRecord(s)
		_, _ = parseAMD([]byte(s))
		_, _ = parseROCm([]byte(s))
	})
}

// tool puts a shell script on an otherwise empty PATH.
func tool(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	// PATH is replaced for the watcher; the script itself needs its tools.
	body := "#!/bin/sh\nPATH=" + os.Getenv("PATH") + "\n" + script
	if name == "nvidia-smi" && !strings.Contains(script, "compute-apps") {
		body = strings.Replace(body, "\n", "\ncase \"$1\" in *compute-apps*) exec /bin/sleep 60;; esac\n", 1)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return dir
}

// newGPUs makes a watcher with short times and no kernel log.
func newGPUs(t *testing.T, log io.Writer) *GPUs {
	t.Helper()
	g := NewGPUs(slog.New(slog.NewTextHandler(log, nil)))
	g.first, g.silent, g.back, g.kmsg = 5*time.Second, 500*time.Millisecond, 10*time.Millisecond, filepath.Join(t.TempDir(), "none")
	return g
}

// watchGPUs runs a watcher until the test ends.
func watchGPUs(t *testing.T, log io.Writer) *GPUs {
	t.Helper()
	g := newGPUs(t, log)
	runGPUs(t, g)
	return g
}

func runGPUs(t *testing.T, g *GPUs) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end with its context")
		}
	})
}

// until polls for a condition that a child process brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-late:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func TestWatchesNvidiaSMI(t *testing.T) {
	tool(t, "nvidia-smi", `
while :; do
	echo "10, GPU-k, x, 100, 1, 0, 30, 10, 300, 1, 0, 0x0, NVIDIA H100 80GB HBM3"
	echo "2, GPU-c, x, 100, 50, 80, 60, 200, 300, 1, 0, 0x0, NVIDIA H100 80GB HBM3"
	sleep 0.1
done`)
	g := watchGPUs(t, io.Discard)
	until(t, "both cards are seen", func() bool { return len(g.Latest()) == 2 })
	got := g.Latest()
	if got[0].Index != "2" || got[1].Index != "10" || *got[0].Utilisation != 0.8 {
		t.Errorf("Latest = %+v, want card 2 before card 10", got)
	}
}

func TestStartsNvidiaSMIAgainWhenItDiesOrFallsSilent(t *testing.T) {
	dir := tool(t, "nvidia-smi", `
echo x >> "${0%/*}/starts"
case $(wc -l < "${0%/*}/starts" | tr -d ' ') in
1) echo "0, GPU-a, x, 100, 1, 0, 30, 10, 300, 1, 0, 0x0, X"; exit 1;;
2) echo "0, GPU-a, x, 100, 2, 0, 30, 10, 300, 1, 0, 0x0, X"; exec sleep 60;;
*) while :; do echo "0, GPU-a, x, 100, 3, 0, 30, 10, 300, 1, 0, 0x0, X"; sleep 0.1; done;;
esac`)
	g := watchGPUs(t, io.Discard)
	until(t, "the third start reports", func() bool {
		got := g.Latest()
		return len(got) == 1 && *got[0].MemoryUsed == 3<<20
	})
	if b, _ := os.ReadFile(filepath.Join(dir, "starts")); strings.Count(string(b), "x") != 3 {
		t.Errorf("%d starts, want 3", strings.Count(string(b), "x"))
	}
}

func TestWithoutADriverThereAreNoCardsAndOneWarning(t *testing.T) {
	dir := tool(t, "nvidia-smi", `
echo x >> "${0%/*}/starts"
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9`)
	var log lockedBuffer
	g := watchGPUs(t, &log)
	until(t, "it was started three times", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "starts"))
		return strings.Count(string(b), "x") >= 3
	})
	if got := g.Latest(); len(got) != 0 {
		t.Errorf("Latest = %+v, want none", got)
	}
	if n := strings.Count(log.String(), "couldn't communicate"); n != 1 {
		t.Errorf("the same complaint was logged %d times, want once:\n%s", n, log.String())
	}
}

func TestWithoutAToolThereAreNoCardsAndNoWords(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var log lockedBuffer
	g := watchGPUs(t, &log)
	if name, err := g.watch(t.Context()); name != "" || err != nil {
		t.Errorf("watch = %q, %v, want nothing", name, err)
	}
	if got := g.Latest(); len(got) != 0 || log.String() != "" {
		t.Errorf("Latest = %v, log %q, want neither", got, log.String())
	}
	until(t, "it has settled that there are none", g.Settled)
}

func TestPollsAMDSMI(t *testing.T) {
	tool(t, "amd-smi", `echo '[{"gpu":0,"usage":{"gfx_activity":{"value":50,"unit":"%"}}}]'`)
	g := watchGPUs(t, io.Discard)
	until(t, "the card is seen", func() bool { return len(g.Latest()) == 1 })
	if got := g.Latest()[0]; *got.Utilisation != 0.5 {
		t.Errorf("utilisation = %v, want 0.5", *got.Utilisation)
	}
}
