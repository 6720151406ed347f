package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"modernc.org/sqlite"
)

// What is SQLite's own is in this file and in schema's user_version; the rest of the package
// speaks SQL that PostgreSQL understands too.

const (
	fileName = "ledger.db"
	// checkAll is the greatest file that is checked at every start. A greater one is checked
	// when the last process did not end in order: reading gigabytes costs a minute.
	checkAll = 256 << 20
)

// errDamaged says that the file is no sound database.
var errDamaged = errors.New("database is damaged")

// openFile opens the file for its one writer, checks it and brings it to the newest schema.
// backup is the copy that was made before that; "" for none.
func openFile(ctx context.Context, path string, steps []string, now time.Time) (db *sql.DB, backup string, err error) {
	info, statErr := os.Stat(path)
	_ = private(path) // what is wrong with it is said below
	// The writer waits for others only shortly: meanwhile nothing is durable, and the spool is.
	db, err = sql.Open("sqlite", dsn(path, "rwc", "immediate",
		"busy_timeout(250)", "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)"))
	if err != nil {
		return nil, "", fmt.Errorf("open ledger: %w", err)
	}
	db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			db.Close()
			db = nil
		}
	}()
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return db, "", damaged(fmt.Errorf("open ledger: %w", err))
	}
	if version > len(steps) {
		return db, "", fmt.Errorf("open ledger: %s has schema %d and this vllmdeck knows %d: run the newer vllmdeck, or move the file away to begin a new ledger", path, version, len(steps))
	}
	if statErr == nil && version > 0 {
		if err := check(ctx, db, info.Size()); err != nil {
			return db, "", err
		}
	}
	if version > 0 && version < len(steps) {
		backup = fmt.Sprintf("%s.schema-%d-%s", path, version, stamp(now))
		_ = private(backup)
		if _, err := db.ExecContext(ctx, "VACUUM INTO $1", backup); err != nil {
			return db, "", damaged(fmt.Errorf("back up ledger: %w", err))
		}
	}
	for ; version < len(steps); version++ {
		if err := step(ctx, db, steps[version], version+1); err != nil {
			return db, backup, damaged(fmt.Errorf("bring ledger to schema %d: %w", version+1, err))
		}
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES ('clean', '0') ON CONFLICT (name) DO UPDATE SET value = '0'"); err != nil {
		return db, backup, damaged(fmt.Errorf("open ledger: %w", err))
	}
	return db, backup, nil
}

// plain takes the names off the parameters of text that come after the first named ones; each of
// those stands once, in order. The driver asks for the name of each parameter that it binds, and
// SQLite goes through all names to find it.
func plain(text string, named int) string {
	return parameter.ReplaceAllStringFunc(text, func(p string) string {
		if n, err := strconv.Atoi(p[1:]); err == nil && n > named {
			return "?"
		}
		return p
	})
}

var parameter = regexp.MustCompile(`\$[0-9]+`)

const readConns = 4

// openReaders opens the same file for queries.
func openReaders(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, "ro", "deferred", "busy_timeout(5000)", "query_only(ON)"))
	if err != nil {
		return nil, fmt.Errorf("open ledger for reading: %w", err)
	}
	db.SetMaxOpenConns(readConns)
	db.SetMaxIdleConns(readConns)
	db.SetConnMaxLifetime(time.Minute) // one that reads a file that was removed is not kept
	return db, nil
}

func dsn(path, mode, txlock string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_txlock": {txlock}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

func step(ctx context.Context, db *sql.DB, text string, version int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	if _, err := tx.ExecContext(ctx, text); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}

func check(ctx context.Context, db *sql.DB, size int64) error {
	var clean string
	err := db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = 'clean'").Scan(&clean)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return damaged(fmt.Errorf("check ledger: %w", err))
	}
	if clean == "1" && size > checkAll {
		return nil
	}
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return damaged(fmt.Errorf("check ledger: %w", err))
	}
	if result != "ok" {
		return fmt.Errorf("check ledger: %w: %s", errDamaged, result)
	}
	return nil
}

// private makes a file that is not there, for this user alone: SQLite would make it readable to all that umask lets,
// and its log and copies as the file is.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// damaged marks an error that SQLite gives for a file that is not sound.
func damaged(err error) error {
	var e *sqlite.Error
	const corrupt, notADatabase = 11, 26 // SQLITE_CORRUPT, SQLITE_NOTADB
	if errors.As(err, &e) && (e.Code()&0xff == corrupt || e.Code()&0xff == notADatabase) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// moveAside renames the database and its log out of the way and gives the new name.
func moveAside(path string, now time.Time) (string, error) {
	to := path + ".corrupt-" + stamp(now)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("move damaged ledger aside: %w", err)
		}
	}
	return to, syncDir(filepath.Dir(path))
}

func stamp(t time.Time) string { return t.UTC().Format("20060102T150405.000000Z") }
