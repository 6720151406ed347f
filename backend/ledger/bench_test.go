package ledger

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Rows as a gateway makes them: opened and closed, with one attempt each, durable at the end.
func BenchmarkLedgerRows(b *testing.B) {
	l, stop := running(b, b.TempDir(), quiet())
	i := 0
	for b.Loop() {
		r := request(fmt.Sprintf("%012d", i))
		r.Key = fmt.Sprint("key", i%4)
		l.Opened(r)
		l.Closed(r)
		i++
		if i%10_000 == 0 {
			onDisk(b, l)
		}
	}
	onDisk(b, l)
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(l.Size())/float64(i), "B/row")
	if err := stop(); err != nil {
		b.Fatal(err)
	}
}

// Rows of answers that take longer than a batch: each is written as open, then again.
func BenchmarkLedgerRowsTwice(b *testing.B) {
	l, _ := running(b, b.TempDir(), quiet())
	i := 0
	for b.Loop() {
		l.Opened(request(fmt.Sprintf("%012d", i)))
		i++
		if i%5_000 == 0 {
			onDisk(b, l)
			for j := i - 5_000; j < i; j++ {
				l.Closed(request(fmt.Sprintf("%012d", j)))
			}
			onDisk(b, l)
		}
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "rows/s")
}

// What the writer takes of the CPU for each row of a busy engine's batch, the commit included.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{64, 1024} {
		b.Run(fmt.Sprint(n, " rows"), func(b *testing.B) {
			l := opened(b, b.TempDir(), quiet())
			defer l.Close()
			i := 0
			rows := make([]row, n)
			var used time.Duration
			for b.Loop() {
				for j := range rows {
					r := request(fmt.Sprintf("%026d", i))
					r.Started = noon.Add(time.Duration(i) * time.Millisecond)
					r.Key, r.Duration, r.Usage.Input = fmt.Sprint("key", i%4), api.Span(i*1000+7), int64(i)
					rows[j] = newRow(&r)
					i++
				}
				before := cpu()
				if err := l.writer.write(context.Background(), rows, nil); err != nil {
					b.Fatal(err)
				}
				used += cpu() - before
			}
			b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(i), "cpu-us/row")
		})
	}
}

// cpu is the CPU time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkRecord(b *testing.B) {
	l := opened(b, b.TempDir(), quiet())
	defer l.Close()
	r := request("a")
	b.ReportAllocs()
	for b.Loop() {
		l.Opened(r)
		l.Closed(r)
		if rows, _ := l.queue.waiting(); rows {
			l.queue.take()
		}
	}
}

// A day of 100,000 requests on four workers, asked for as the console does.
func BenchmarkMoney(b *testing.B) {
	l, _ := running(b, b.TempDir(), quiet())
	day := time.Date(noon.Year(), noon.Month(), noon.Day(), 0, 0, 0, 0, time.Local)
	for i := range 100_000 {
		r := request(fmt.Sprintf("%08d", i))
		r.Started = day.Add(time.Duration(i) * 800 * time.Millisecond)
		r.Worker, r.Key = fmt.Sprint("w", i%4), fmt.Sprint("key", i%5)
		l.Closed(r)
	}
	for i := range 4 {
		l.WorkerTime(WorkerTime{Worker: fmt.Sprint("w", i), Incarnation: fmt.Sprint("w", i, "/1"), Started: day, Until: day.Add(24 * time.Hour), Busy: time.Hour, Hour: request("").Actual})
	}
	onDisk(b, l)
	ctx := context.Background()
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"today", func() error { _, err := l.Money(ctx, day, day.Add(24*time.Hour), false); return err }},
		{"until now", func() error { _, err := l.Money(ctx, day, day.Add(15*time.Hour+1234*time.Second), false); return err }},
		{"savings", func() error { _, err := l.Savings(ctx, day, day.Add(24*time.Hour), 120, false); return err }},
		{"savings of a minute", func() error {
			_, err := l.Savings(ctx, day.Add(time.Hour), day.Add(61*time.Minute), 120, false)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if err := c.ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
