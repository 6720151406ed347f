package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// Rows are written several in a statement, and what they have in common is bound once: binding
// a value costs about as much as storing it.

// chunkRows is how many rows a statement takes, the most first.
var chunkRows = [...]int{64, 16, 4, 1}

// errTold says that some rows of a chunk were closed before.
var errTold = errors.New("rows were written before")

// inserts is one statement for each size of a chunk, and another for chunks of common rows.
type inserts struct{ all, common [len(chunkRows)]*sql.Stmt }

func (s *inserts) prepare(ctx context.Context, db *sql.DB, on string) (err error) {
	for i, n := range chunkRows {
		if s.all[i], err = db.PrepareContext(ctx, plain(insertRows("request", shapeColumns, ownColumns, nil, nil, n)+on, len(shapeColumns))); err != nil {
			return fmt.Errorf("prepare ledger statements: %w", err)
		}
		if s.common[i], err = db.PrepareContext(ctx, plain(insertRows("request", shapeColumns, mostColumns, rareColumns, usualValues, n)+on, len(shapeColumns))); err != nil {
			return fmt.Errorf("prepare ledger statements: %w", err)
		}
	}
	return nil
}

// within gives the statements for use in tx.
func (s *inserts) within(ctx context.Context, tx *sql.Tx) (in inserts) {
	for i := range chunkRows {
		in.all[i], in.common[i] = tx.StmtContext(ctx, s.all[i]), tx.StmtContext(ctx, s.common[i])
	}
	return in
}

// insert writes as many of rows, which are of one shape, as a statement takes. It gives how many
// of those were added or changed, and the rest.
func (w *writer) insert(ctx context.Context, s *inserts, rows []*row) (changed int, rest []*row, err error) {
	i := 0
	for chunkRows[i] > len(rows) {
		i++
	}
	chunk, rest := rows[:chunkRows[i]], rows[chunkRows[i]:]
	common := !slices.ContainsFunc(chunk, func(r *row) bool { return !r.common() })
	stmt := s.all[i]
	if common {
		stmt = s.common[i]
	}
	w.args = chunk[0].shape.args(w.args[:0])
	for _, r := range chunk {
		w.args = r.args(w.args, common)
	}
	res, err := stmt.ExecContext(ctx, w.args...)
	if err != nil {
		return 0, rows, fmt.Errorf("write ledger rows: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, rows, fmt.Errorf("write ledger rows: %w", err)
	}
	return int(n), rest, nil
}

// sorter brings rows of one shape together. Its memory is kept for the next batch.
type sorter struct {
	ids    map[string]bool
	index  map[shape]int
	groups [][]*row
}

// sort groups rows by shape. It is not unique if a request is there twice: then the order of its rows counts.
func (s *sorter) sort(rows []row) (groups [][]*row, unique bool) {
	s.reset()
	at := -1
	for i := range rows {
		r := &rows[i]
		if s.ids[r.ID] {
			return nil, false
		}
		s.ids[r.ID] = true
		if at < 0 || s.groups[at][0].shape != r.shape {
			var found bool
			if at, found = s.index[r.shape]; !found {
				at = s.grow()
				s.index[r.shape] = at
			}
		}
		s.groups[at] = append(s.groups[at], r)
	}
	return s.groups, true
}

// single makes each row a group of its own, in their order.
func (s *sorter) single(rows []row) [][]*row {
	s.reset()
	for i := range rows {
		at := s.grow()
		s.groups[at] = append(s.groups[at], &rows[i])
	}
	return s.groups
}

// grow adds an empty group and gives its index.
func (s *sorter) grow() int {
	n := len(s.groups)
	if n < cap(s.groups) {
		s.groups = s.groups[:n+1]
		s.groups[n] = s.groups[n][:0]
	} else {
		s.groups = append(s.groups, nil)
	}
	return n
}

func (s *sorter) reset() {
	if s.ids == nil {
		s.ids, s.index = map[string]bool{}, map[shape]int{}
	}
	clear(s.ids)
	clear(s.index)
	s.groups = s.groups[:0]
}
