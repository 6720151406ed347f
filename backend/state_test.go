package backend

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func notice(i int) api.Notice { return api.Notice{Level: "info", Text: strconv.Itoa(i)} }

func TestStateHasOneEngine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	first, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, %v; want 0700", st.Mode(), err)
	}
	var held *HeldError
	if _, err := OpenState(dir); !errors.As(err, &held) || held.PID != os.Getpid() || held.URL != "" || !strings.Contains(held.Error(), "starting") {
		t.Errorf("while the first one starts: %v, want HeldError with its pid", err)
	}
	if err := first.Publish("http://127.0.0.1:8090"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); !errors.As(err, &held) || held.URL != "http://127.0.0.1:8090" || !strings.Contains(held.Error(), "8090") {
		t.Errorf("a second engine: %v, want HeldError with the URL", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := OpenState(dir)
	if err != nil {
		t.Fatalf("after the first one has ended: %v", err)
	}
	// The next one is not announced under the URL of the last.
	if _, err := OpenState(dir); !errors.As(err, &held) || held.URL != "" {
		t.Errorf("while the next one starts: %v, want no URL", err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStateFolderIsClosedToOthers(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(dir string) error
		want string // of the error; "": none, and the folder has mode 0700
	}{
		{"empty and open", func(dir string) error { return os.Mkdir(dir, 0o755) }, ""},
		{"ours and open", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, lockName), nil, 0o600))
		}, ""},
		{"somebody's home", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, ".bashrc"), nil, 0o600))
		}, "holds something else (.bashrc)"},
		{"a file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "set state: in the config"},
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := tt.make(dir); err != nil {
			t.Fatal(err)
		}
		lock, err := OpenState(dir)
		if err == nil {
			defer lock.Close()
		}
		st, serr := os.Stat(dir)
		if serr != nil {
			t.Fatal(serr)
		}
		switch {
		case tt.want == "" && (err != nil || st.Mode().Perm() != 0o700):
			t.Errorf("%s: %v, mode %v; want it taken and closed", tt.name, err, st.Mode())
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		case tt.want != "" && st.Mode().Perm() == 0o700:
			t.Errorf("%s: its mode was changed", tt.name)
		}
	}
}
