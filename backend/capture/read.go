package capture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// existing opens the file in folder; nil if there is none.
func existing(ctx context.Context, folder string) (*sql.DB, error) {
	path := filepath.Join(folder, fileName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return open(ctx, path)
}

// Read gives the newest entries of a key, at most limit, oldest first.
func Read(ctx context.Context, folder, key string, limit int) ([]Entry, error) {
	db, err := existing(ctx, folder)
	if db == nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, client_id, started, client_key, route, model, outcome, prompt, answer, cut FROM text WHERE client_key = ? ORDER BY started DESC, id LIMIT ?", key, limit)
	if err != nil {
		return nil, fmt.Errorf("read captured texts: %w", err)
	}
	defer rows.Close()
	var out []Entry
	for rows.Next() {
		var e Entry
		var started int64
		if err := rows.Scan(&e.ID, &e.Client, &started, &e.Key, &e.Route, &e.Model, &e.Outcome, &e.Prompt, &e.Answer, &e.Cut); err != nil {
			return nil, fmt.Errorf("read captured texts: %w", err)
		}
		e.Started = time.Unix(0, started)
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read captured texts: %w", err)
	}
	slices.Reverse(out)
	return out, nil
}

// Forget takes out all entries of a key and gives their number.
func Forget(ctx context.Context, folder, key string) (int64, error) {
	db, err := existing(ctx, folder)
	if db == nil {
		return 0, err
	}
	defer db.Close()
	res, err := db.ExecContext(ctx, "DELETE FROM text WHERE client_key = ?", key)
	if err != nil {
		return 0, fmt.Errorf("forget captured texts: %w", err)
	}
	return res.RowsAffected()
}
