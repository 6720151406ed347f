package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestJSONMovesNoCursor(t *testing.T) {
	foreign := "\x1b[2J \u009b2J \u202e \U000e0001 \x7f ü <b> \u2028"
	var out bytes.Buffer
	if err := printJSON(&out, map[string]string{"name": foreign}); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(out.String(), "\n", "")
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q has something at %d that is not printed", text, i)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["name"] != foreign || !strings.Contains(text, "ü <b>") {
		t.Errorf("came back as %q, %v; want %q", back["name"], err, foreign)
	}
}
