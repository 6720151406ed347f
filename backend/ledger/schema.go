package ledger

import (
	"slices"
	"strconv"
	"strings"
)

// migrations bring an empty database to the newest schema, one step each; PRAGMA user_version
// says how many have been taken. A step that has been released is never changed.
//
// The text is that of both SQLite and PostgreSQL. Times are Unix nanoseconds, hour and minute
// Unix seconds of their start in the host's zone, durations nanoseconds, money nano-dollars;
// NULL is not known. In request, unmetered, earning and the _unknown columns say how a row
// counts (see account), so that this is decided in one place.
//
// From the second step on a request's row is also that of its last leg, share being that leg's:
// attempt has only the legs before it, and a last one that differs.
//
// The actual of an open row is what is reserved for it at a provider. Where it turns out that the
// cost of a leg there cannot be known, held is what it was at most.
var migrations = []string{`
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE request (
	id TEXT PRIMARY KEY, started BIGINT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL,
	worker TEXT NOT NULL, client_key TEXT NOT NULL, class TEXT NOT NULL, stream INTEGER NOT NULL,
	outcome TEXT NOT NULL, status INTEGER NOT NULL, error TEXT NOT NULL, finish TEXT NOT NULL,
	input BIGINT NOT NULL, cache_read BIGINT NOT NULL, cache_write BIGINT NOT NULL,
	output BIGINT NOT NULL, reasoning BIGINT NOT NULL, usage_source TEXT NOT NULL,
	queue BIGINT NOT NULL, ttft BIGINT NOT NULL, duration BIGINT NOT NULL, itl BIGINT NOT NULL, max_gap BIGINT NOT NULL,
	basis TEXT NOT NULL, actual BIGINT, would BIGINT, baseline TEXT NOT NULL,
	price_date TEXT NOT NULL, price_version TEXT NOT NULL,
	price_input BIGINT, price_cache_read BIGINT, price_cache_write BIGINT, price_output BIGINT,
	health DOUBLE PRECISION, simulated INTEGER NOT NULL,
	unmetered INTEGER NOT NULL, earning INTEGER NOT NULL, actual_unknown INTEGER NOT NULL, would_unknown INTEGER NOT NULL
);
CREATE INDEX request_started ON request (started);
CREATE INDEX request_open ON request (id) WHERE outcome = 'open';

CREATE TABLE attempt (
	request_id TEXT NOT NULL, n INTEGER NOT NULL, upstream TEXT NOT NULL, outcome TEXT NOT NULL, error TEXT NOT NULL,
	class TEXT NOT NULL, basis TEXT NOT NULL, share BIGINT NOT NULL, actual BIGINT, actual_unknown INTEGER NOT NULL,
	PRIMARY KEY (request_id, n)
);

CREATE TABLE worker_time (
	incarnation TEXT NOT NULL, started BIGINT NOT NULL, until BIGINT NOT NULL,
	worker TEXT NOT NULL, model TEXT NOT NULL, hour_rate BIGINT, flat INTEGER NOT NULL,
	simulated INTEGER NOT NULL, busy BIGINT NOT NULL,
	PRIMARY KEY (incarnation, started)
);
CREATE INDEX worker_time_until ON worker_time (until);

CREATE TABLE worker_hour (
	hour BIGINT NOT NULL, worker TEXT NOT NULL, model TEXT NOT NULL, simulated INTEGER NOT NULL,
	wall BIGINT NOT NULL, busy BIGINT NOT NULL,
	PRIMARY KEY (hour, worker, model, simulated)
);

CREATE TABLE rollup (
	hour BIGINT NOT NULL, model TEXT NOT NULL, worker TEXT NOT NULL, class TEXT NOT NULL, client_key TEXT NOT NULL,
	route TEXT NOT NULL, outcome TEXT NOT NULL, baseline TEXT NOT NULL, basis TEXT NOT NULL, simulated INTEGER NOT NULL,
	requests BIGINT NOT NULL, legs BIGINT NOT NULL, interrupted BIGINT NOT NULL, unmetered BIGINT NOT NULL, earning BIGINT NOT NULL,
	input BIGINT NOT NULL, cache_read BIGINT NOT NULL, cache_write BIGINT NOT NULL, output BIGINT NOT NULL, reasoning BIGINT NOT NULL,
	actual BIGINT NOT NULL, actual_unknown BIGINT NOT NULL, would BIGINT NOT NULL, would_unknown BIGINT NOT NULL,
	PRIMARY KEY (hour, model, worker, class, client_key, route, outcome, baseline, basis, simulated)
);

CREATE TABLE minute (
	minute BIGINT NOT NULL, simulated INTEGER NOT NULL,
	would BIGINT NOT NULL, spent BIGINT NOT NULL, spent_unknown BIGINT NOT NULL,
	PRIMARY KEY (minute, simulated)
);

CREATE VIEW entry AS
SELECT started, model, worker, class, client_key, route, outcome, baseline, basis, simulated,
	1 AS requests, 0 AS legs, CASE WHEN outcome = 'interrupted' THEN 1 ELSE 0 END AS interrupted, unmetered, earning,
	input, cache_read, cache_write, output, reasoning,
	COALESCE(actual, 0) AS actual, actual_unknown,
	CASE WHEN earning = 1 THEN COALESCE(would, 0) ELSE 0 END AS would, would_unknown
FROM request WHERE outcome <> 'open'
UNION ALL
SELECT r.started, r.model, a.upstream, a.class, r.client_key, r.route, a.outcome, '', a.basis, r.simulated,
	0, 1, 0, 0, 0, 0, 0, 0, 0, 0, COALESCE(a.actual, 0), a.actual_unknown, 0, 0
FROM attempt a JOIN request r ON r.id = a.request_id WHERE a.class = 'retry';
`, `
ALTER TABLE request ADD COLUMN share BIGINT NOT NULL DEFAULT 0;
`, `
ALTER TABLE attempt ADD COLUMN held BIGINT;
CREATE INDEX attempt_held ON attempt (request_id) WHERE held IS NOT NULL;
`, `
ALTER TABLE request ADD COLUMN client_id TEXT NOT NULL DEFAULT '';
`}

var (
	dimensions = []string{"model", "worker", "class", "client_key", "route", "outcome", "baseline", "basis", "simulated"}
	measures   = []string{
		"requests", "legs", "interrupted", "unmetered", "earning",
		"input", "cache_read", "cache_write", "output", "reasoning",
		"actual", "actual_unknown", "would", "would_unknown",
	}
	shapeColumns = []string{
		"route", "model", "worker", "client_key", "class", "stream",
		"outcome", "status", "error", "finish", "usage_source", "basis", "baseline", "price_date", "price_version",
		"price_input", "price_cache_read", "price_cache_write", "price_output",
		"simulated", "unmetered", "earning", "actual_unknown", "would_unknown",
	}
	ownColumns  = slices.Concat(mostColumns, rareColumns)
	mostColumns = []string{"id", "started", "input", "cache_read", "output", "ttft", "duration", "share", "actual", "would"}
	// rareColumns have their usual values in the rows of most answers that came as a whole.
	rareColumns = []string{"client_id", "cache_write", "reasoning", "queue", "itl", "max_gap", "health"}
	usualValues = []string{"''", "0", "0", "0", "0", "0", "NULL"}
)

var (
	onOpen = " ON CONFLICT (id) DO UPDATE SET " + set([]string{"worker", "class", "basis", "actual"}, "") +
		" WHERE request.outcome = 'open'"
	onClosed = " ON CONFLICT (id) DO UPDATE SET " + set(append(append([]string{}, shapeColumns...), ownColumns[1:]...), "") +
		" WHERE request.outcome = 'open'"
	insertAttempt = insert("attempt", []string{"request_id", "n", "upstream", "outcome", "error", "class", "basis", "share", "actual", "actual_unknown", "held"}) +
		" ON CONFLICT (request_id, n) DO NOTHING"
	addRollup = insert("rollup", append(append([]string{"hour"}, dimensions...), measures...)) +
		" ON CONFLICT (hour, " + strings.Join(dimensions, ", ") + ") DO UPDATE SET " + set(measures, "rollup")
	addMinute = insert("minute", []string{"minute", "simulated", "would", "spent", "spent_unknown"}) +
		" ON CONFLICT (minute, simulated) DO UPDATE SET " + set([]string{"would", "spent", "spent_unknown"}, "minute")
	addWorkerHour = insert("worker_hour", []string{"hour", "worker", "model", "simulated", "wall", "busy"}) +
		" ON CONFLICT (hour, worker, model, simulated) DO UPDATE SET " + set([]string{"wall", "busy"}, "worker_hour")
)

func insert(table string, columns []string) string {
	return insertRows(table, nil, columns, nil, nil, 1)
}

// insertRows inserts n rows that have the values of the shared columns in common: those are
// bound first, and once. The usual columns have the values that are given here.
func insertRows(table string, shared, own, usual, values []string, n int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + strings.Join(slices.Concat(shared, own, usual), ", ") + ") VALUES ")
	for i := range n {
		sep := "("
		if i > 0 {
			sep = ", ("
		}
		for j := range len(shared) + len(own) {
			at := j + 1
			if j >= len(shared) {
				at += i * len(own)
			}
			b.WriteString(sep + "$" + strconv.Itoa(at))
			sep = ", "
		}
		for _, v := range values {
			b.WriteString(", " + v)
		}
		b.WriteString(")")
	}
	return b.String()
}

// set overwrites columns by the new row's, or adds to those of table.
func set(columns []string, table string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = c + " = excluded." + c
		if table != "" {
			parts[i] = c + " = " + table + "." + c + " + excluded." + c
		}
	}
	return strings.Join(parts, ", ")
}
