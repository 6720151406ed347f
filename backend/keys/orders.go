package keys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// maxKeys bounds the keys of a store: each one is looked at when any of them changes.
const maxKeys = 10_000

// Order carries out one order on keys (api.KeyCreate, KeySet, KeyRotate, KeyRevoke). An order that
// makes no sense is an api.ErrRefused, one for a key that is not there an api.ErrUnknown. The
// change is on disk when Order returns.
func (s *Store) Order(ctx context.Context, a api.Action, now time.Time) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("change keys: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // of one that was committed it does nothing
	switch a.Verb {
	case api.KeyCreate:
		err = create(ctx, tx, a, now)
	case api.KeyRevoke:
		err = revoke(ctx, tx, a, now)
	case api.KeySet, api.KeyRotate:
		err = alter(ctx, tx, a, now)
	default:
		err = fmt.Errorf("%w: no verb %q for keys", api.ErrUnknown, a.Verb)
	}
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("change keys: %w", err)
	}
	return nil
}

func refused(err error) error { return fmt.Errorf("%w: %w", api.ErrRefused, err) }

func create(ctx context.Context, tx *sql.Tx, a api.Action, now time.Time) error {
	if err := CheckName(a.Target); err != nil {
		return refused(err)
	}
	if !validID.MatchString(a.ID) {
		return refused(fmt.Errorf("the id %q cannot be used: 4 to 32 letters and digits", a.ID))
	}
	k := Key{Key: api.Key{ID: a.ID, Name: a.Target, Created: now}}
	var err error
	if k.Hash, err = parseHash(a.Args["hash"]); err != nil {
		return refused(err)
	}
	if err := change(&k, a.Args); err != nil {
		return refused(err)
	}
	if !k.Expires.IsZero() && !k.Expires.After(now) {
		return refused(fmt.Errorf("it would have expired at %s already", k.Expires.Format(time.DateTime)))
	}
	all, err := query(ctx, tx, "")
	if err != nil {
		return err
	}
	for i := range all {
		switch o := &all[i]; {
		case o.Name == k.Name && o.Revoked.IsZero():
			return refused(fmt.Errorf("a key is named %s already: \"vllmdeck keys rotate %s\" gives it a new text", k.Name, k.Name))
		case o.ID == k.ID || o.Hash == k.Hash:
			return refused(errors.New("this key exists already"))
		}
	}
	if len(all) >= maxKeys {
		return refused(fmt.Errorf("there are %d keys already: \"vllmdeck keys revoke --forget NAME\" makes room", len(all)))
	}
	return put(ctx, tx, &k)
}

// put writes k as a row of its own or over the one with its ID.
func put(ctx context.Context, tx *sql.Tx, k *Key) error {
	values, err := k.values()
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO client_key ("+columns+") VALUES ("+marks+")", values...); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// find gives the key with a name that is not revoked.
func find(ctx context.Context, tx *sql.Tx, name string) (Key, error) {
	list, err := query(ctx, tx, "WHERE name = ? AND revoked = 0", name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%w: no key is named %q", api.ErrUnknown, name)
	}
	if err != nil {
		return Key{}, err
	}
	return list[0], nil
}

func alter(ctx context.Context, tx *sql.Tx, a api.Action, now time.Time) error {
	k, err := find(ctx, tx, a.Target)
	if err != nil {
		return err
	}
	if a.Verb == api.KeySet {
		if err := change(&k, a.Args); err != nil {
			return refused(err)
		}
		return put(ctx, tx, &k)
	}
	hash, err := parseHash(a.Args["hash"])
	if err != nil {
		return refused(err)
	}
	until, err := parseTime(a.Args["until"])
	if err != nil {
		return refused(fmt.Errorf("until: %w", err))
	}
	k.Old, k.Until = [32]byte{}, time.Time{}
	if until.After(now) {
		k.Old, k.Until = k.Hash, until
	}
	k.Hash = hash
	return put(ctx, tx, &k)
}

// revoke takes a key out of use. Its row stays, so that a gateway whose last key is revoked goes on
// asking for one; with forget it goes, and with it all older ones of the name.
func revoke(ctx context.Context, tx *sql.Tx, a api.Action, now time.Time) error {
	if a.Args["forget"] == "true" {
		res, err := tx.ExecContext(ctx, "DELETE FROM client_key WHERE name = ?", a.Target)
		if err != nil {
			return fmt.Errorf("forget key: %w", err)
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return fmt.Errorf("%w: no key is named %q", api.ErrUnknown, a.Target)
		}
		return nil
	}
	k, err := find(ctx, tx, a.Target)
	if err != nil {
		return err
	}
	k.Revoked, k.Old, k.Until = now, [32]byte{}, time.Time{}
	return put(ctx, tx, &k)
}
