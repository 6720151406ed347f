package keys

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newOrder is an order for a key of its own text.
func newOrder(name string, args ...string) (a api.Action, text string) {
	id := NewID()
	text = NewText(id)
	a = api.Action{Verb: api.KeyCreate, ID: id, Target: name, Args: map[string]string{"hash": HashText(text)}}
	for i := 0; i+1 < len(args); i += 2 {
		a.Args[args[i]] = args[i+1]
	}
	return a, text
}

func (s *Store) must(t *testing.T, a api.Action) {
	t.Helper()
	if err := s.Order(t.Context(), a, noon); err != nil {
		t.Fatalf("%s %s: %v", a.Verb, a.Target, err)
	}
}

func (s *Store) list(t *testing.T) []Key {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAKeyIsStoredWithAllItsLimits(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a, text := newOrder("ci", "models", "a, b", "rpm", "60", "tpm", "1000", "parallel", "4", "budget_day", "1.5", "budget_month", "0.000000001",
		"priority", "high", "failover", "down", "capture", "on", "expires", "2026-12-24T12:00:00Z")
	s.must(t, a)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got := openStore(t, dir).list(t)
	if len(got) != 1 {
		t.Fatalf("%d keys, want 1", len(got))
	}
	want := api.KeyLimits{Models: []string{"a", "b"}, Requests: 60, Tokens: 1000, Parallel: 4, Day: new(api.Nanos(1_500_000_000)), Month: new(api.Nanos(1)), Priority: "high", Failover: "down"}
	k := got[0]
	if !reflect.DeepEqual(k.Limits, want) {
		t.Errorf("limits = %+v, want %+v", k.Limits, want)
	}
	if k.Name != "ci" || k.ID != a.ID || HashText(text) != hexOf(k.Hash) || !k.Created.Equal(noon) || !k.Expires.Equal(noon.AddDate(0, 0, 30)) || !k.Revoked.IsZero() || !k.Capture || k.Source != api.KeyFromDatabase {
		t.Errorf("key = %+v", k)
	}
}

func hexOf(h [32]byte) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range h {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func TestTheTextIsNowhereInTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a, text := newOrder("ci")
	s.must(t, a)
	secret := text[strings.LastIndexByte(text, '_')+1:]
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), secret) {
			t.Errorf("%s holds the key's secret", f.Name())
		}
		if info, _ := f.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want it closed to others", f.Name(), info.Mode())
		}
	}
}

func TestTextsHaveTheirFormAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		id := NewID()
		text := NewText(id)
		if api.KeyID(text) != id || len(text) != len("vd__")+idLen+secretLen || seen[text] || seen[id] {
			t.Fatalf("text %q of id %q", text, id)
		}
		seen[text], seen[id] = true, true
	}
	for _, text := range []string{"", "vd_", "vd_x", "sk-abc", "VD_a_b"} {
		if id := api.KeyID(text); id != "" {
			t.Errorf("KeyID(%q) = %q, want none", text, id)
		}
	}
}

func TestOrdersThatMakeNoSenseAreRefused(t *testing.T) {
	s := openStore(t, t.TempDir())
	first, _ := newOrder("taken")
	s.must(t, first)
	with := func(name string, args ...string) api.Action {
		a, _ := newOrder(name, args...)
		return a
	}
	again := with("other")
	again.ID = first.ID
	for name, tt := range map[string]struct {
		a    api.Action
		want error
		text string
	}{
		"name taken":      {with("taken"), api.ErrRefused, "keys rotate taken"},
		"id taken":        {again, api.ErrRefused, "exists already"},
		"no name":         {with(""), api.ErrRefused, "cannot be used"},
		"bad name":        {with("a b"), api.ErrRefused, "cannot be used"},
		"our own name":    {with("console"), api.ErrRefused, "vllmdeck's own"},
		"no hash":         {with("x", "hash", ""), api.ErrRefused, "hash"},
		"short hash":      {with("x", "hash", "abcd"), api.ErrRefused, "hash"},
		"rpm 0":           {with("x", "rpm", "0"), api.ErrRefused, "rpm"},
		"rpm in words":    {with("x", "rpm", "many"), api.ErrRefused, "rpm"},
		"budget 0":        {with("x", "budget_day", "0"), api.ErrRefused, "budget_day"},
		"budget negative": {with("x", "budget_month", "-1"), api.ErrRefused, "budget_month"},
		"priority":        {with("x", "priority", "urgent"), api.ErrRefused, "priority"},
		"failover":        {with("x", "failover", "always"), api.ErrRefused, "failover"},
		"capture":         {with("x", "capture", "yes"), api.ErrRefused, "capture"},
		"expired":         {with("x", "expires", "2026-11-24T11:59:59Z"), api.ErrRefused, "expired"},
		"no time":         {with("x", "expires", "soon"), api.ErrRefused, "expires"},
		"models empty":    {with("x", "models", ","), api.ErrRefused, "models"},
		"too many models": {with("x", "models", strings.Repeat("abcdefghi,", 500)), api.ErrRefused, "at most"},
		"revoke unknown":  {api.Action{Verb: api.KeyRevoke, Target: "x"}, api.ErrUnknown, `"x"`},
		"forget unknown":  {api.Action{Verb: api.KeyRevoke, Target: "x", Args: map[string]string{"forget": "true"}}, api.ErrUnknown, `"x"`},
		"rotate unknown":  {api.Action{Verb: api.KeyRotate, Target: "x", Args: map[string]string{"hash": HashText("a")}}, api.ErrUnknown, `"x"`},
		"set unknown":     {api.Action{Verb: api.KeySet, Target: "x"}, api.ErrUnknown, `"x"`},
		"other verb":      {api.Action{Verb: api.EngineStop}, api.ErrUnknown, "engine.stop"},
	} {
		err := s.Order(t.Context(), tt.a, noon)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, tt.want, tt.text)
		}
	}
	if got := s.list(t); len(got) != 1 {
		t.Errorf("%d keys after refusals, want 1", len(got))
	}
}

func TestRotateChangesTheTextAlone(t *testing.T) {
	s := openStore(t, t.TempDir())
	a, old := newOrder("ci", "rpm", "5")
	s.must(t, a)
	text := NewText(a.ID)
	s.must(t, api.Action{Verb: api.KeyRotate, Target: "ci", Args: map[string]string{"hash": HashText(text), "until": "2026-11-24T13:00:00Z"}})
	k := s.list(t)[0]
	if hexOf(k.Hash) != HashText(text) || hexOf(k.Old) != HashText(old) || !k.Until.Equal(noon.Add(time.Hour)) || k.Limits.Requests != 5 {
		t.Errorf("with an hour of overlap: %+v", k)
	}
	s.must(t, api.Action{Verb: api.KeyRotate, Target: "ci", Args: map[string]string{"hash": HashText(NewText(a.ID))}})
	if k := s.list(t)[0]; k.Old != [32]byte{} || !k.Until.IsZero() {
		t.Errorf("without overlap the old text is kept: %+v", k)
	}
}

func TestSetChangesWhatItNames(t *testing.T) {
	s := openStore(t, t.TempDir())
	a, text := newOrder("ci", "rpm", "5", "budget_day", "1", "models", "m", "expires", "2026-12-24T12:00:00Z")
	s.must(t, a)
	s.must(t, api.Action{Verb: api.KeySet, Target: "ci", Args: map[string]string{"budget_day": "", "tpm": "9", "models": "", "expires": ""}})
	k := s.list(t)[0]
	if want := (api.KeyLimits{Requests: 5, Tokens: 9}); !reflect.DeepEqual(k.Limits, want) || !k.Expires.IsZero() || hexOf(k.Hash) != HashText(text) {
		t.Errorf("key = %+v, want limits %+v, no expiry and the same text", k, want)
	}
}

func TestARevokedKeyStaysAsARowUntilItIsForgotten(t *testing.T) {
	dir := t.TempDir()
	if Any(t.Context(), dir) {
		t.Error("an empty folder has keys")
	}
	s := openStore(t, dir)
	if Any(t.Context(), dir) {
		t.Error("an empty database has keys")
	}
	a, _ := newOrder("ci")
	s.must(t, a)
	s.must(t, api.Action{Verb: api.KeyRevoke, Target: "ci"})
	if k := s.list(t)[0]; !k.Revoked.Equal(noon) || k.State(noon) != "revoked" {
		t.Errorf("key = %+v, want it revoked", k)
	}
	if !Any(t.Context(), dir) {
		t.Error("with its last key revoked the folder has none: the gateway would open to everybody")
	}
	if err := s.Order(t.Context(), api.Action{Verb: api.KeyRevoke, Target: "ci"}, noon); !errors.Is(err, api.ErrUnknown) {
		t.Errorf("revoked twice: %v, want unknown", err)
	}
	b, _ := newOrder("ci")
	s.must(t, b)
	if got := s.list(t); len(got) != 2 || got[0].ID != b.ID {
		t.Errorf("list = %+v, want the new one of the name first", got)
	}
	s.must(t, api.Action{Verb: api.KeyRevoke, Target: "ci", Args: map[string]string{"forget": "true"}})
	if got := s.list(t); len(got) != 0 || Any(t.Context(), dir) {
		t.Errorf("after forget: %+v", got)
	}
}

func TestManyWritersAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			s, err := Open(context.Background(), dir)
			if err != nil {
				errs <- err
				return
			}
			defer s.Close()
			a, _ := newOrder("same")
			errs <- s.Order(context.Background(), a, noon)
		})
	}
	wg.Wait()
	made := 0
	for range 8 {
		if err := <-errs; err == nil {
			made++
		} else if !errors.Is(err, api.ErrRefused) {
			t.Errorf("%v, want a refusal", err)
		}
	}
	if made != 1 {
		t.Errorf("%d keys were made under one name, want 1", made)
	}
}

func TestADamagedDatabaseIsNeverABeginning(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), dir); err == nil {
		s.Close()
		t.Error("Open took a damaged database")
	} else if !strings.Contains(err.Error(), fileName) {
		t.Errorf("error %v does not name the file", err)
	}
	if !Any(t.Context(), dir) {
		t.Error("Any = false for a damaged database: the gateway might open to everybody")
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "newer vllmdeck") {
		t.Errorf("Open = %v, want it to ask for the newer vllmdeck", err)
	}
}

func TestMigrationsKeepWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a, _ := newOrder("ci")
	s.must(t, a)
	steps := append(slices.Clip(migrations), "ALTER TABLE client_key ADD COLUMN note TEXT NOT NULL DEFAULT ''")
	if err := migrate(t.Context(), s.db, steps); err != nil {
		t.Fatal(err)
	}
	if got := s.list(t); len(got) != 1 {
		t.Errorf("%d keys after a migration, want 1", len(got))
	}
	bad := append(slices.Clip(steps), "NO SQL")
	if err := migrate(t.Context(), s.db, bad); err == nil {
		t.Error("a bad step was taken")
	}
	var version int
	if err := s.db.QueryRow("PRAGMA user_version").Scan(&version); err != nil || version != len(steps) {
		t.Errorf("schema %d after a bad step, want %d (%v)", version, len(steps), err)
	}
}

// TestTheFirstSchemaIsBroughtToTheNewest opens a database as the first version wrote it.
func TestTheFirstSchemaIsBroughtToTheNewest(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hash := make([]byte, 32)
	for _, step := range []string{migrations[0], "PRAGMA user_version = 1"} {
		if _, err := db.Exec(step); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`INSERT INTO client_key VALUES ('abcd', 'ci', ?, ?, 0, 1, 0, 0, '["m"]', 5, 6, 7, 8, NULL, 'low')`, hash, hash); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	want := api.KeyLimits{Models: []string{"m"}, Requests: 5, Tokens: 6, Parallel: 7, Day: new(api.Nanos(8)), Priority: "low"}
	if got := s.list(t); len(got) != 1 || got[0].Name != "ci" || !reflect.DeepEqual(got[0].Limits, want) {
		t.Fatalf("keys = %+v, want ci with limits %+v", got, want)
	}
	s.must(t, api.Action{Verb: api.KeySet, Target: "ci", Args: map[string]string{"failover": "never", "capture": "on"}})
	if got := s.list(t)[0]; got.Limits.Failover != api.FailoverNever || !got.Capture {
		t.Errorf("failover = %q, capture %v, want never and true", got.Limits.Failover, got.Capture)
	}
}
