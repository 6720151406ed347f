package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"

	_ "modernc.org/sqlite" // the ledger's database
)

// row is one request as the ledger has it.
type row struct {
	id, route, model, worker, class, key string
	outcome, finish, usageSource, error  string
	status                               int
	stream                               bool
	prompt, output                       int64 // tokens
	started, duration                    int64 // ns
	ttft                                 int64 // ns; 0: there was no content
	legs                                 []leg // before the last one
}

// leg is one try at an upstream.
type leg struct{ upstream, outcome, error string }

// rows reads the ledger, by request id.
func (e *engine) rows(ctx context.Context) (map[string]row, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(e.state(), "ledger.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows := map[string]row{}
	err = each(ctx, db, `SELECT id, route, model, worker, class, client_key, outcome, finish, usage_source, error, status, stream,
		input + cache_read + cache_write, output + reasoning, started, duration, ttft FROM request`, func(scan func(...any) error) error {
		var r row
		err := scan(&r.id, &r.route, &r.model, &r.worker, &r.class, &r.key, &r.outcome, &r.finish, &r.usageSource, &r.error, &r.status, &r.stream,
			&r.prompt, &r.output, &r.started, &r.duration, &r.ttft)
		rows[r.id] = r
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	err = each(ctx, db, "SELECT request_id, upstream, outcome, error FROM attempt ORDER BY request_id, n", func(scan func(...any) error) error {
		var id string
		var l leg
		if err := scan(&id, &l.upstream, &l.outcome, &l.error); err != nil {
			return err
		}
		r, ok := rows[id]
		if !ok {
			return fmt.Errorf("an attempt of request %s, which has no row", id)
		}
		r.legs = append(r.legs, l)
		rows[id] = r
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return rows, nil
}

func each(ctx context.Context, db *sql.DB, query string, do func(scan func(...any) error) error) error {
	found, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := do(found.Scan); err != nil {
			return err
		}
	}
	return found.Err()
}

// recorded compares the ledger with what clients have: each request has exactly one row, which has ended, and there is
// no row without a request.
func (t *trial) recorded(rows map[string]row, answers []answer) {
	twice, missing, open := 0, 0, 0
	seen := map[string]bool{}
	for _, a := range answers {
		switch r, ok := rows[a.id]; {
		case seen[a.id] && a.id != "":
			twice++
		case !ok:
			missing++
			t.failf("no row for request %q, which is %s (%v)", a.id, a.verdict, a.err)
		case r.outcome == "open":
			open++
		}
		seen[a.id] = true
	}
	t.note("requests", len(answers))
	t.exactly("rows", len(rows), len(answers))
	t.exactly("requests without a row", missing, 0)
	t.exactly("ids given twice", twice, 0)
	t.exactly("rows still open", open, 0)
}
