package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend"
)

func TestAnOpenStateFolderIsTakenBeforeTheEngineWritesItsFirstWord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := engineOut(dir)
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	lock, err := backend.OpenState(dir)
	if err != nil {
		t.Fatalf("the engine is refused the folder that its own output was put into: %v", err)
	}
	lock.Close()
}

func TestNothingIsWrittenIntoAFolderOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".bashrc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := engineOut(dir)
	if err == nil || !strings.Contains(err.Error(), ".bashrc") {
		t.Errorf("got %v, want an error that names .bashrc", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs")); err == nil {
		t.Error("a logs folder was made there")
	}
}
