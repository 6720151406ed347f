package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	maxXids   = 8                // kept of a card
	xidBurst  = 10 * time.Second // one fault writes a line for each of its channels and SMs
	xidNotice = time.Minute      // between two notices of one card and code
)

// xidCode is what a code means and whether the hardware is at fault. Texts after NVIDIA's catalogue of
// Xid errors (docs.nvidia.com/deploy/xid-errors).
type xidCode struct {
	text    string
	serious bool
}

var xidCodes = map[int]xidCode{
	8:   {"GPU stopped processing", false},
	11:  {"invalid or corrupted push buffer stream", false},
	13:  {"graphics engine exception: mostly a fault of the program", false},
	31:  {"GPU memory page fault: mostly a fault of the program", false},
	32:  {"invalid or corrupted push buffer stream", false},
	38:  {"driver firmware error", true},
	43:  {"GPU stopped processing: the program that hit it ends, the GPU is sound", false},
	45:  {"preemptive cleanup: a program was ended, by an earlier error or by somebody", false},
	46:  {"GPU stopped processing", true},
	48:  {"double-bit ECC error: reset the GPU", true},
	61:  {"internal microcontroller breakpoint: reset the GPU", true},
	62:  {"internal microcontroller halt: reset the GPU", true},
	63:  {"a memory row was remapped or a page retired: a GPU reset completes it", false},
	64:  {"a memory row could not be remapped: reset the GPU, replace it if that repeats", true},
	66:  {"illegal access by the driver", false},
	68:  {"video decoder exception", false},
	69:  {"graphics engine class error: mostly a fault of the program", false},
	74:  {"NVLink error: see \"nvidia-smi nvlink -s\" and its cables", true},
	79:  {"the GPU has fallen off the bus: power, riser or board; the host must be restarted", true},
	92:  {"high rate of single-bit ECC errors", true},
	94:  {"contained ECC error: the program that it hit ends", true},
	95:  {"uncontained ECC error: reset the GPU", true},
	109: {"context switch timeout", false},
	110: {"security fault", true},
	119: {"GPU system processor (GSP) does not answer: reset the GPU", true},
	120: {"GPU system processor (GSP) error: reset the GPU", true},
	121: {"corrected error on the chip-to-chip link", false},
	123: {"power management unit error", true},
	136: {"link training failed", true},
	137: {"NVLink fabric access fault: mostly a fault of the program", false},
	140: {"unrecovered ECC error: reset the GPU", true},
	143: {"GPU initialization failed", true},
	144: {"NVLink error", true},
	145: {"NVLink error", true},
	149: {"NVLink error", true},
	154: {"the GPU's recovery action has changed: see nvidia-smi -q", false},
}

// xids are the errors of the kernel's log, by card. The zero value has none.
type xids struct {
	byCard map[string][]api.Xid // newest first
	told   map[string]time.Time // of the last notice, by card and code
	seq    uint64               // of the last record read
}

func (s *xids) of(pci string) []api.Xid {
	if pci == "" {
		return nil
	}
	return slices.Clone(s.byCard[pci])
}

// add keeps an error; false if it is more of the last one.
func (s *xids) add(pci string, x api.Xid) bool {
	list := s.byCard[pci]
	for _, old := range list {
		if old.Code == x.Code && old.PID == x.PID && x.Time.Sub(old.Time) < xidBurst {
			return false
		}
	}
	if s.byCard == nil {
		s.byCard = map[string][]api.Xid{}
	}
	s.byCard[pci] = append([]api.Xid{x}, list[:min(len(list), maxXids-1)]...)
	return true
}

// tell says whether an error is worth a notice, and counts it as told.
func (s *xids) tell(pci string, x api.Xid) bool {
	key := fmt.Sprintf("%s/%d", pci, x.Code)
	if x.Time.Sub(s.told[key]) < xidNotice {
		return false
	}
	if s.told == nil {
		s.told = map[string]time.Time{}
	}
	s.told[key] = x.Time
	return true
}

// readKernel reads the kernel's log from its beginning, and on until ctx is done. Where it may not be
// read (dmesg_restrict without CAP_SYSLOG, most containers) there is nothing.
func (g *GPUs) readKernel(ctx context.Context) {
	f, err := openKernelLog(g.kmsg)
	if err != nil {
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			g.log.Info("kernel log not read: Xid errors are not shown", "error", err)
		}
		return
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	buf := make([]byte, 16<<10) // a record has 8 kB at most
	for {
		n, err := f.Read(buf)
		if err != nil {
			if errors.Is(err, syscall.EPIPE) { // records were overwritten before they were read
				continue
			}
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				g.log.Info("kernel log not read on", "error", err)
			}
			return
		}
		for record := range bytes.Lines(buf[:n]) {
			g.kernelRecord(string(record))
		}
	}
}

// kernelRecord takes one line of /dev/kmsg: "priority,sequence,microseconds,flags;text".
func (g *GPUs) kernelRecord(line string) {
	head, message, ok := strings.Cut(line, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 || !strings.Contains(message, "Xid") {
		return
	}
	seq, err := strconv.ParseUint(fields[1], 10, 64)
	us, err2 := strconv.ParseInt(fields[2], 10, 64)
	pci, x, ok := parseXid(message)
	if err != nil || err2 != nil || !ok {
		return
	}
	x.Time = kernelTime(time.Duration(us) * time.Microsecond)
	g.mu.Lock()
	fresh := seq > g.xids.seq && g.xids.add(pci, x)
	g.xids.seq = max(g.xids.seq, seq)
	name := "GPU at " + pci
	for _, c := range g.cards {
		if c.pci == pci {
			name = "GPU " + c.Index
		}
	}
	tell := fresh && x.Time.After(g.since) && g.xids.tell(pci, x)
	g.mu.Unlock()
	if !tell || g.Xid == nil {
		return
	}
	known, ok := xidCodes[x.Code]
	g.Xid(name, x, known.serious || !ok)
}

var xidLine = regexp.MustCompile(`^NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d{1,4})(?:, (.*))?$`)

var xidPID = regexp.MustCompile(`\bpid='?(\d{1,10})\b`)

// parseXid reads "NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python, …". Old drivers leave out
// "PCI:", and the pid may be '<unknown>'.
func parseXid(message string) (pci string, x api.Xid, ok bool) {
	m := xidLine.FindStringSubmatch(strings.TrimSpace(message))
	if m == nil {
		return "", api.Xid{}, false
	}
	if pci = busID(m[1]); pci == "" {
		return "", api.Xid{}, false
	}
	x.Code, _ = strconv.Atoi(m[2]) // digits, and few
	x.Text = xidCodes[x.Code].text
	if x.Text == "" {
		x.Text = "see NVIDIA's catalogue of Xid errors"
	}
	if p := xidPID.FindStringSubmatch(m[3]); p != nil {
		x.PID, _ = strconv.Atoi(p[1])
	}
	return pci, x, true
}

// busID gives a PCI address as domain:bus:device. nvidia-smi writes 00000000:65:00.0, the kernel's log
// 0000:65:00. "" for what is none.
func busID(s string) string {
	s, _, _ = strings.Cut(s, ".")
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return ""
	}
	var n [3]uint64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 32)
		if err != nil {
			return ""
		}
		n[i] = v
	}
	return fmt.Sprintf("%04x:%02x:%02x", n[0], n[1], n[2])
}
