package backend

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

const (
	censusEvery = 5 * time.Second
	maxStrays   = 24
	maxHolders  = 48 // processes of all cards in a snapshot, but four of each card
	maxXids     = 16 // errors of all cards in a snapshot, but the newest of each card
)

// cardReader is metrics.GPUs.
type cardReader interface {
	Latest() []api.GPU
	Settled() bool
}

// machine is what is known of the processes of the host: who is on its cards, and who is left over.
type machine struct {
	local *launch.Local
	gpus  cardReader

	mu     sync.Mutex
	owners map[int]launch.Owner // of processes on the cards, by pid
	strays []launch.Stray
	seen   map[int]time.Time // strays of the last census: their start
	told   map[int]time.Time // … of which a notice was given
	closed bool              // no further one is begun
	ends   sync.WaitGroup    // of strays that are being ended
}

// watch takes a census now and then until ctx is done. The notices are of what it finds.
func (m *machine) watch(ctx context.Context, notice func(api.Notice), set func(subject string, n api.Notice) bool, log func(error)) {
	tick := time.NewTicker(censusEvery)
	defer tick.Stop()
	defer func() {
		m.mu.Lock()
		m.closed = true
		m.mu.Unlock()
		m.ends.Wait()
	}()
	failed := false
	for {
		c, err := m.local.Census()
		if err != nil && !failed {
			failed = true
			log(err)
		}
		if err == nil {
			for _, n := range m.take(c) {
				notice(n)
			}
			lost := api.Notice{Level: "warning"}
			if len(c.Lost) > 0 {
				lost.Text = fmt.Sprintf("the folder of %s was removed while it runs: no later engine can take it over; \"vllmdeck worker restart %s\" makes it anew",
					strings.Join(c.Lost, ", "), strings.Join(c.Lost, " "))
			}
			set("folders", lost)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take keeps what a census found, and says what is new: a stray only once it was there twice, since a
// server that another engine is ending looks like one for a moment.
func (m *machine) take(c *launch.Census) []api.Notice {
	owners := map[int]launch.Owner{}
	for _, g := range m.gpus.Latest() {
		for _, p := range g.Processes {
			if o, ok := c.Who(p.PID); ok {
				owners[p.PID] = o
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owners, m.strays = owners, c.Strays
	seen, told := map[int]time.Time{}, map[int]time.Time{}
	var fresh []launch.Stray
	for _, s := range c.Strays {
		seen[s.PID] = s.Started
		switch {
		case m.told[s.PID].Equal(s.Started):
			told[s.PID] = s.Started
		case m.seen[s.PID].Equal(s.Started):
			told[s.PID] = s.Started
			fresh = append(fresh, s)
		}
	}
	m.seen, m.told = seen, told
	if len(fresh) == 0 {
		return nil
	}
	var pids []string
	for _, s := range fresh {
		pids = append(pids, strconv.Itoa(s.PID))
	}
	text := fmt.Sprintf("stray process %d (%s): nobody looks after it, and it may hold GPU memory; \"vllmdeck worker strays\" tells more, \"vllmdeck worker end-stray %d\" ends it",
		fresh[0].PID, fresh[0].Name, fresh[0].PID)
	if len(fresh) > 1 {
		text = fmt.Sprintf("%d stray processes (%s): nobody looks after them, and they may hold GPU memory; \"vllmdeck worker strays\" tells more, \"vllmdeck worker end-stray --all\" ends them",
			len(fresh), strings.Join(pids[:min(len(pids), 8)], ", "))
	}
	return []api.Notice{{Level: "warning", Text: text}}
}

// cards gives the cards with whose the processes on them are. What is not seen in the process table, as from
// within a container, has the name that the driver's tool gives it.
func (m *machine) cards() []api.GPU {
	cards := m.gpus.Latest()
	m.mu.Lock()
	defer m.mu.Unlock()
	room, errs := maxHolders, maxXids
	for i := range cards {
		xids := cards[i].Xids
		cards[i].Xids = xids[:min(len(xids), max(errs, 1))]
		errs -= len(cards[i].Xids)
		ps := cards[i].Processes
		ps = ps[:min(len(ps), max(room, 4))]
		room -= len(ps)
		for j := range ps {
			p := &ps[j]
			if o, ok := m.owners[p.PID]; ok {
				p.User, p.Worker, p.Stray, p.Preload = o.User, o.Worker, o.Stray, o.Preload
				p.Name = programName(p.Name, o)
			}
			p.Name = api.Shorten(p.Name, 48)
		}
		cards[i].Processes = ps
	}
	return cards
}

// programName is what a process is called: the tools give the path of its program, or how it calls itself.
func programName(tool string, o launch.Owner) string {
	switch {
	case o.Preload:
		return "vllm preload"
	case strings.HasPrefix(o.Name, "VLLM::"), tool == "":
		return o.Name
	}
	return tool
}

// list gives the strays for a snapshot, those with GPU memory first, then the oldest.
func (m *machine) list(cards []api.GPU) []api.Stray {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]api.Stray, 0, len(m.strays))
	for _, s := range m.strays {
		worker, _, _ := strings.Cut(s.Worker, "/")
		stray := api.Stray{PID: s.PID, Name: s.Name, Worker: worker, Started: s.Started, RSS: s.RSS}
		for _, g := range cards {
			for _, p := range g.Processes {
				if p.PID == s.PID && p.Memory != nil {
					stray.GPU += *p.Memory
				}
			}
		}
		out = append(out, stray)
	}
	slices.SortStableFunc(out, func(a, b api.Stray) int {
		if a.GPU != b.GPU {
			if a.GPU > b.GPU {
				return -1
			}
			return 1
		}
		return a.Started.Compare(b.Started)
	})
	return out[:min(len(out), maxStrays)]
}

// endStray carries out StrayEnd: it is refused at once for whatever is no stray, and the end itself goes on
// after it has returned.
func (m *machine) endStray(ctx context.Context, a api.Action, notice func(api.Notice)) error {
	pid, err := strconv.Atoi(a.Target)
	if err != nil {
		return fmt.Errorf("%w: stray %q: want a pid", api.ErrRefused, a.Target)
	}
	started, err := time.Parse(time.RFC3339Nano, a.Args["started"])
	if err != nil {
		return fmt.Errorf("%w: stray %d: Args[\"started\"] is to say since when it runs, as the snapshot does", api.ErrRefused, pid)
	}
	end, err := m.local.EndStray(pid, started)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		end = nil
		return fmt.Errorf("%w: the engine is ending", api.ErrRefused)
	}
	m.ends.Go(func() {
		if err := end(ctx); err != nil {
			notice(api.Notice{Level: "error", Text: err.Error()})
			return
		}
		m.mu.Lock()
		m.strays = slices.DeleteFunc(slices.Clone(m.strays), func(s launch.Stray) bool { return s.PID == pid })
		m.mu.Unlock()
		notice(api.Notice{Level: "info", Text: fmt.Sprintf("stray process %d ended by order", pid)})
	})
	return nil
}

// toldXid is the notice of an error of a card.
func toldXid(card string, x api.Xid, serious bool) api.Notice {
	n := api.Notice{Time: x.Time, Level: "warning", Text: fmt.Sprintf("%s: Xid %d: %s", card, x.Code, x.Text)}
	if serious {
		n.Level = "error"
	}
	if x.PID != 0 {
		n.Text += fmt.Sprintf(" (pid %d)", x.PID)
	}
	return n
}
