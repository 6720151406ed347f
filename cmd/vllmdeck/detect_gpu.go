package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// output runs a program for its standard output. One that hangs (nvidia-smi does when a GPU
// has fallen off the bus) is left behind when ctx ends.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 100 * time.Millisecond
	return cmd.Output()
}

// gpus lists the GPUs. The note says why there are fewer than there could be.
func (h host) gpus(ctx context.Context) (list []gpu, note string) {
	if smi := h.look("nvidia-smi"); smi != "" {
		out, err := h.run(ctx, smi, "--query-gpu=index,uuid,name,memory.total,memory.used", "--format=csv,noheader,nounits")
		list = nvidiaGPUs(string(out))
		switch {
		case len(list) > 0:
			if out, err := h.run(ctx, smi, "-L"); err == nil {
				list = withMIG(list, string(out))
			}
			visible := h.visible(list)
			if hidden := len(list) - len(visible); hidden > 0 {
				note = fmt.Sprintf("CUDA_VISIBLE_DEVICES hides %d of %d GPUs", hidden, len(list))
			}
			return visible, note
		case ctx.Err() != nil:
			note = "nvidia-smi does not answer: GPUs are left out"
		case err != nil:
			note = "nvidia-smi sees no GPU: " + firstLine(out, err)
		}
	}
	for _, tool := range []string{"amd-smi", "rocm-smi"} {
		if path := h.look(tool); path != "" {
			// Their lists have many shapes; that the driver is there is what matters here.
			return []gpu{{id: "0", name: "AMD GPU (" + tool + " lists them)"}}, note
		}
	}
	return nil, note
}

// visible leaves the GPUs that CUDA_VISIBLE_DEVICES names, where that is set: a scheduler gave
// us these and no others.
func (h host) visible(list []gpu) []gpu {
	named, ok := h.env("CUDA_VISIBLE_DEVICES")
	if !ok {
		return list
	}
	var out []gpu
	for id := range strings.SplitSeq(named, ",") {
		id = strings.TrimSpace(id)
		for _, g := range list {
			// A UUID may be cut short as long as it is unique.
			if id == g.id || len(id) > len("GPU-") && strings.HasPrefix(g.uuid, id) {
				out = append(out, g)
			}
		}
	}
	return out
}

// firstLine gives what a program said when it failed.
func firstLine(out []byte, err error) string {
	text := string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.TrimSpace(text) == "" {
		text = string(exit.Stderr)
	}
	if text = strings.TrimSpace(text); text == "" {
		text = err.Error()
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// nvidiaGPUs reads index, UUID, name, total and used memory in MiB. Unified memory (GB10) and lost
// GPUs have no numbers: "[N/A]" is not known, never 0 MiB in use.
func nvidiaGPUs(text string) []gpu {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord, r.LazyQuotes, r.TrimLeadingSpace = -1, true, true
	var out []gpu
	for {
		row, err := r.Read()
		if err != nil {
			return out // the end, or text that is no list
		}
		if len(row) != 5 {
			continue
		}
		if _, err := strconv.Atoi(row[0]); err != nil || strings.Contains(row[2], "lost") {
			continue
		}
		g := gpu{id: row[0], uuid: row[1], name: row[2]}
		total, err := strconv.ParseInt(row[3], 10, 64)
		used, err2 := strconv.ParseInt(row[4], 10, 64)
		if err == nil && err2 == nil {
			g.total, g.used = total<<20, used<<20
		}
		out = append(out, g)
	}
}

var (
	gpuLine = regexp.MustCompile(`^GPU (\d+): `)
	migLine = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[A-Za-z0-9/-]+)\)`)
)

// withMIG replaces GPUs that are cut into instances by their instances, from nvidia-smi -L.
// A process can use such a GPU by the UUID of an instance only.
func withMIG(list []gpu, text string) []gpu {
	instances := map[string][]gpu{}
	parent := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if m := gpuLine.FindStringSubmatch(line); m != nil {
			parent = m[1]
		} else if m := migLine.FindStringSubmatch(line); m != nil {
			instances[parent] = append(instances[parent], gpu{id: m[2], uuid: m[2], name: fmt.Sprintf("MIG %s of GPU %s", m[1], parent)})
		}
	}
	var out []gpu
	for _, g := range list {
		if cut := instances[g.id]; len(cut) > 0 {
			out = append(out, cut...)
		} else {
			out = append(out, g)
		}
	}
	return out
}
