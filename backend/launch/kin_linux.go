package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kin says which processes belong to one server: what descends from its shim, which as
// subreaper gets every orphan; what descends from the leader or is in its session, for when
// the shim is dead; and what carries the marker, wherever it went.
type kin struct {
	marker string
	shim   ident
	child  ident
}

func (r record) kin() kin { return kin{marker: r.Marker, shim: r.Shim, child: r.Child} }

// members picks the server's processes out of all, the leader first. The marker is looked
// for only if marked, since that reads every environment. Never a member: the shim, this
// process and what it descends from.
func (k kin) members(all []stat, marked bool) []stat {
	byPID := make(map[int]stat, len(all))
	children := make(map[int][]int, len(all))
	for _, s := range all {
		byPID[s.PID] = s
		children[s.ppid] = append(children[s.ppid], s.PID)
	}
	never := map[int]bool{k.shim.PID: byPID[k.shim.PID].ident == k.shim}
	for pid := os.Getpid(); pid > 0 && !never[pid]; pid = byPID[pid].ppid {
		never[pid] = true
	}
	var queue []int
	if k.shim.PID != 0 && byPID[k.shim.PID].ident == k.shim {
		queue = append(queue, k.shim.PID)
	}
	// While a session lives the kernel gives its number to no new process. So if another
	// process has the leader's pid, the leader's session is gone, and this one is not it.
	leader, exists := byPID[k.child.PID]
	ours := k.child.PID != 0 && (!exists || leader.ident == k.child)
	if ours && exists {
		queue = append(queue, k.child.PID)
	}
	for _, s := range all {
		switch {
		case ours && s.session == k.child.PID && s.Start >= k.child.Start:
			queue = append(queue, s.PID)
		case marked && slices.Contains(procEnv(s.PID), markerEnv+"="+k.marker):
			queue = append(queue, s.PID)
		}
	}
	var out []stat
	seen := make(map[int]bool)
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		if !never[pid] {
			out = append(out, byPID[pid])
		} else if pid != k.shim.PID {
			continue // what else descends from us is not the server's
		}
		queue = append(queue, children[pid]...)
	}
	slices.SortStableFunc(out, func(a, b stat) int {
		switch {
		case a.ident == k.child:
			return -1
		case b.ident == k.child:
			return 1
		}
		return 0
	})
	return out
}

const (
	termGrace    = time.Second            // between SIGTERM and SIGKILL for what a dead leader left
	trackerGrace = 500 * time.Millisecond // for resource trackers once they are alone
	killBudget   = 5 * time.Second        // a tree that is not gone by then is reported
)

// reaper ends what belongs to a server, step by step. Each step signals what is left; the
// caller takes steps until none is left, since processes are born while others die.
type reaper struct {
	kin    kin
	gentle bool // SIGTERM first, see termGrace

	began  time.Time
	alone  time.Time // since when only trackers are left
	termed map[ident]bool
}

// step signals what is left and returns it. Python's resource trackers are spared for a
// moment: they end by themselves when the others have, and remove shared memory that
// SIGKILLed workers leave in /dev/shm.
func (r *reaper) step() []stat {
	now := time.Now()
	if r.termed == nil {
		r.termed, r.began = make(map[ident]bool), now
	}
	left := r.kin.members(scan(), true)
	var trackers []int
	others := 0
	for _, s := range left {
		switch {
		case r.gentle && now.Sub(r.began) < termGrace:
			if !r.termed[s.ident] {
				r.termed[s.ident] = true
				_ = unix.Kill(s.PID, unix.SIGTERM)
			}
			others++
		case isTracker(s.PID) && now.Sub(r.began) < killBudget/2:
			trackers = append(trackers, s.PID)
		default:
			_ = unix.Kill(s.PID, unix.SIGKILL)
			others++
		}
	}
	switch {
	case others > 0:
		r.alone = time.Time{}
	case r.alone.IsZero():
		r.alone = now
	case now.Sub(r.alone) > trackerGrace:
		for _, pid := range trackers {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return left
}

func isTracker(pid int) bool {
	return slices.ContainsFunc(cmdline(pid), func(a string) bool {
		return strings.Contains(a, "multiprocessing.resource_tracker")
	})
}

// end ends the server from outside, for when its shim is dead or does not answer. It returns
// when nothing is left, or with an error that names what is.
func (k kin) end(ctx context.Context) error {
	r := reaper{kin: k}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(killBudget)
	none := 0 // scans in a row that found nothing: one may miss who is born during it
	for {
		left := r.step()
		if len(left) == 0 {
			if none++; none == 2 {
				return nil
			}
		} else {
			none = 0
		}
		if time.Now().After(deadline) {
			return stays(left)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), stays(left))
		case <-tick.C:
		}
	}
}

// stays is the error for processes that outlived SIGKILL; nil for none.
func stays(left []stat) error {
	if len(left) == 0 {
		return nil
	}
	var who []string
	for _, s := range left {
		who = append(who, fmt.Sprintf("%d (%s, state %c)", s.PID, s.comm, s.state))
	}
	return fmt.Errorf("still there after SIGKILL: %s: in state D a driver holds them, often until the host restarts",
		strings.Join(who, ", "))
}
