package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is vllmdeck when it is called so: scripts run the real command line.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vllmdeck": func() { os.Exit(run(context.Background(), os.Args[1:])) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir) // the rest of the environment is not inherited
			return nil
		},
	})
}
