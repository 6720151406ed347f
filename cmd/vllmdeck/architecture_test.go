package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vllmdeck/vllmdeck"

// mayImport is the map of the program: what each package may import of ours. api is left out on
// the right: everybody may import it. "*" allows everything. Test-only packages are in
// testPackages.
var mayImport = map[string][]string{
	"backend/api":                  {},
	"config":                       {},
	"tui":                          {},
	"metrics":                      {},
	"backend/route":                {},
	"backend/cost":                 {},
	"backend/quality":              {},
	"backend/sim":                  {},
	"backend/quotes":               {},
	"backend/gateway":              {"backend/route", "backend/quotes"},
	"backend/keys":                 {},
	"backend/capture":              {},
	"backend/modelcache":           {},
	"backend/ledger":               {"backend/cost"},
	"backend/provider":             {"backend/cost", "backend/quotes"},
	"backend/launch":               {"config"},
	"backend/worker":               {"config", "backend/launch", "metrics"},
	"backend":                      {"*"},
	"cmd/vllmdeck":                 {"*"},
	"cmd/reliability":              {},
	"backend/cost/prices/gen":      {"backend/cost"},
	"backend/gateway/gatewaybench": {},
}

// testPackages hold suites that tests of several packages run; nothing of the product imports
// them.
var testPackages = []string{"backend/api/apitest", "backend/launch/launchtest", "backend/ledger/ledgertest", "backend/modelcache/hubtest", "backend/provider/providertest", "backend/sim/simtest"}

func TestImportDirections(t *testing.T) {
	type pkg struct {
		ImportPath, Dir, Doc string
		Imports              []string
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Doc,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		if _, err := os.Stat(filepath.Join(p.Dir, "doc.go")); err != nil || p.Doc == "" {
			t.Errorf("%s has no doc.go with a package comment: say there what it is for and what it must not know", name)
		}
		isTest := slices.Contains(testPackages, name)
		allowed, known := mayImport[name]
		if !known && !isTest {
			t.Errorf("%s is not in the map of who may import whom: add it", name)
			continue
		}
		for _, imp := range p.Imports {
			of, ours := strings.CutPrefix(imp, module+"/")
			switch {
			case !ours:
				if name == "backend/api" && strings.Contains(strings.Split(imp, "/")[0], ".") {
					t.Errorf("backend/api imports %s: it is a leaf, on the standard library alone", imp)
				}
			case slices.Contains(testPackages, of) && !isTest:
				t.Errorf("%s imports %s, which is for tests", name, of)
			case isTest, of == "backend/api", slices.Contains(allowed, "*"), slices.Contains(allowed, of):
			default:
				t.Errorf("%s imports %s: allowed are %v", name, of, allowed)
			}
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("%s is in the map but not in the program", name)
		}
	}
	for _, name := range testPackages {
		if !seen[name] {
			t.Errorf("%s is in the list of test packages but not in the program", path.Base(name))
		}
	}
}
