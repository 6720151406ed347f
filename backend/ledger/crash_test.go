package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"pgregory.net/rapid"
)

// child is another process that writes rows until it is killed, and says so before and after.
func child(folder string) {
	l, err := open(context.Background(), folder, quiet(), migrations, time.UTC)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	go l.Run(context.Background())
	out := bufio.NewWriter(os.Stdout)
	tick := time.NewTicker(2 * time.Millisecond)
	for i := 0; ; i++ {
		id := fmt.Sprintf("%d-%06d", os.Getpid(), i)
		r := request(id)
		r.Attempts = append([]api.Attempt{{Upstream: "w9", Outcome: api.OutcomeError, Actual: new(api.Nanos(3))}}, r.Attempts...)
		l.Opened(r)
		if i%7 != 0 { // every seventh stays in flight
			l.Closed(r)
			fmt.Fprintln(out, "closed", id, time.Now().UnixNano())
			out.Flush()
		}
		<-tick.C
	}
}

func TestAfterKill9WhatEndedIsThereExactlyOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const promised = 100 * time.Millisecond
	closed := map[string]bool{}
	var worst time.Duration
	for round := range 4 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "VLLMDECK_TEST_LEDGER="+folder)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := map[string]time.Time{}
		kills := make(chan time.Time, 1)
		lines := bufio.NewScanner(pipe)
		life := time.Duration(150+rand.IntN(350)) * time.Millisecond
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if f[0] != "closed" {
				t.Fatalf("the child says %q", lines.Text())
			}
			n, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if len(ended) == 0 {
				time.AfterFunc(life, func() {
					kills <- time.Now()
					cmd.Process.Kill()
				})
			}
			ended[f[1]] = time.Unix(0, n)
			closed[f[1]] = true
		}
		cmd.Wait()
		killed := <-kills

		l := opened(t, folder, quiet())
		if l.Found().Damaged != "" {
			t.Fatalf("round %d: the database is damaged", round)
		}
		there := outcomes(t, l)
		for id, at := range ended {
			if there[id] != api.OutcomeOK {
				worst = max(worst, killed.Sub(at))
			}
		}
		consistent(t, l.readers)
		// Legs, and so the money of the retries, are there as often as the rows.
		var legs, rows int
		if err := l.readers.QueryRow("SELECT COUNT(*), COUNT(DISTINCT request_id) FROM attempt WHERE class = 'retry'").Scan(&legs, &rows); err != nil || legs != rows {
			t.Errorf("round %d: got %d legs of %d rows, %v", round, legs, rows, err)
		}
		for id, outcome := range there {
			if outcome == api.OutcomeOpen {
				t.Errorf("round %d: %s is still open", round, id)
			}
			if outcome == api.OutcomeOK && !closed[id] && ended[id].IsZero() && !strings.HasPrefix(id, strconv.Itoa(cmd.Process.Pid)) {
				t.Errorf("round %d: %s ended and never said so", round, id)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the oldest row that was missing had ended %v before the kill, %v is promised", worst, promised)
	if worst > 3*promised { // a loaded machine may write late; that is no fault of the order
		t.Errorf("a row that ended %v before the kill is missing, want at most %v", worst, promised)
	}
}

func outcomes(t *testing.T, l *Ledger) map[string]string {
	t.Helper()
	found, err := l.readers.Query("SELECT id, outcome FROM request")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	got := map[string]string{}
	for found.Next() {
		var id, outcome string
		if err := found.Scan(&id, &outcome); err != nil {
			t.Fatal(err)
		}
		if _, twice := got[id]; twice {
			t.Errorf("%s is there twice", id)
		}
		got[id] = outcome
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

// crash lets go of the ledger as a dying process would: nothing is flushed.
func crash(l *Ledger) {
	l.readers.Close()
	l.db.Close()
	l.lock.Close()
}

func TestTheSumsAreThoseOfTheRowsWhateverHappens(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		folder := filepath.Join(root, strconv.Itoa(n))
		begin := func() *Ledger {
			l, err := open(context.Background(), folder, quiet(), migrations, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := begin()
		durable, counted := map[string]string{}, map[string]bool{}
		var queued []api.Request
		draw := func() api.Request {
			r := request(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "id"))
			r.Started = noon.UTC().Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "second")) * time.Second)
			r.Outcome = rapid.SampledFrom([]string{api.OutcomeOK, api.OutcomeError, api.OutcomeCancelled, api.OutcomeLost, api.OutcomeRejected}).Draw(t, "outcome")
			r.Class = rapid.SampledFrom([]string{api.ClassServed, api.ClassFailover, api.ClassSimulated}).Draw(t, "class")
			r.Simulated = r.Class == api.ClassSimulated
			r.UsageSource = rapid.SampledFrom([]string{api.UsageUpstream, api.UsageUnknown}).Draw(t, "source")
			if rapid.Bool().Draw(t, "unpriced") {
				r.Actual, r.Would = nil, nil
			}
			for range rapid.IntRange(0, 2).Draw(t, "retries") {
				r.Attempts = append([]api.Attempt{{Upstream: "w1", Outcome: api.OutcomeError, Actual: new(api.Nanos(5))}}, r.Attempts...)
			}
			return r
		}
		flushed := func() {
			for _, r := range queued {
				if r.Outcome == api.OutcomeOpen {
					if durable[r.ID] == "" {
						durable[r.ID] = api.OutcomeOpen
					}
				} else if !counted[r.ID] {
					durable[r.ID], counted[r.ID] = r.Outcome, true
				}
			}
			queued = nil
		}
		restarted := func() {
			l = begin()
			for id, o := range durable {
				if o == api.OutcomeOpen {
					durable[id], counted[id] = api.OutcomeInterrupted, true
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				r := draw()
				l.Opened(r)
				r.Outcome = api.OutcomeOpen
				queued = append(queued, r)
			case 3, 4, 5, 6:
				r := draw()
				l.Closed(r)
				queued = append(queued, r)
			case 7:
				if err := l.step(); err != nil {
					t.Fatal(err)
				}
				flushed()
			case 8: // the database fails for a batch, which is spooled
				rows, _ := l.queue.take()
				if len(rows) > 0 {
					if err := l.spool.append(rows); err != nil {
						t.Fatal(err)
					}
				}
				l.queue.done(rows)
				flushed()
			case 9:
				crash(l)
				queued = nil
				restarted()
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		flushed()
		restarted()
		defer l.Close()
		consistent(t, l.readers)
		rows, err := l.Spend(context.Background(), api.Query{By: []string{"outcome"}})
		if err != nil {
			t.Fatal(err)
		}
		got, want := map[string]int64{}, map[string]int64{}
		for _, r := range rows {
			if r.Requests > 0 {
				got[r.Labels["outcome"]] += r.Requests
			}
		}
		for _, o := range durable {
			want[o]++
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if l.Status().Rows != int64(len(durable)) {
			t.Fatalf("got %d rows, want %d", l.Status().Rows, len(durable))
		}
	})
}
