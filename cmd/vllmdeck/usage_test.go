package main

import (
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The help writes the first word of a flag's text with a capital and the rest of it small: USD, unix:PATH or NAME[:ARG] would
// be spoilt.
func TestFlagsAreExplainedByAFirstWordThatBearsACapital(t *testing.T) {
	eachCommand(rootCmd(), func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			first, _, _ := strings.Cut(f.Usage, " ")
			if f.Hidden || f.Name == "help" {
				return
			}
			if first != strings.ToLower(first) || strings.ContainsFunc(first[:len(first)-1], unicode.IsPunct) && !strings.ContainsRune(first, '\'') {
				t.Errorf("%s --%s: %q begins with %q", cmd.CommandPath(), f.Name, f.Usage, first)
			}
		})
	})
}

func TestWrongArgumentsAreAnsweredByHowTheCommandIsWritten(t *testing.T) {
	for _, tt := range []struct {
		path string
		args []string
		want string
	}{
		{"worker fix", nil, "write it as: vllmdeck worker fix WORKER"},
		{"keys create", []string{"a", "b"}, "write it as: vllmdeck keys create NAME; got 2 arguments: a b"},
		{"reload", []string{"x"}, `"vllmdeck reload" takes no argument, got "x": see vllmdeck reload --help`},
	} {
		cmd, _, err := rootCmd().Find(strings.Fields(tt.path))
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Args(cmd, tt.args) == nil {
			t.Errorf("%s takes %q", tt.path, tt.args)
		}
		if got := wrongArgs(cmd, tt.args).Error(); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.path, tt.args, got, tt.want)
		}
	}
}
