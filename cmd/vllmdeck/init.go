package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/config"
)

// initCmd writes a config that fits this machine.
func initCmd(g *globals) *cobra.Command {
	var output string
	var user, force, print, example bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a config that fits this machine",
		Long: "Look for GPUs, vLLM, models and running vLLM servers, and write a commented config that uses them.\n" +
			"Nothing is started, installed or changed but the one file.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := cmd.OutOrStdout().Write(config.Example)
				return err
			}
			path, err := initPath(output, g.config, user)
			if err != nil {
				return err
			}
			if !print && !force && exists(path) {
				return errExists(path) // before looking around, which takes a moment
			}
			m := detect(cmd.Context())
			if print {
				showFound(cmd.ErrOrStderr(), m)
				_, err := cmd.OutOrStdout().Write(m.configText())
				return err
			}
			showFound(cmd.OutOrStdout(), m)
			if err := writeConfig(path, m.configText(), force); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "\nWrote %s\n%s\n", path, nextCommand(path, m))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "file to write (default: ./vllmdeck.yaml, or what --config names)")
	f.BoolVar(&user, "user", false, "write to the user's config folder, where it is found from everywhere")
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.BoolVar(&print, "print", false, "print the config instead of writing it")
	f.BoolVar(&example, "example", false, "print a config with every key and its default")
	cmd.MarkFlagsMutuallyExclusive("output", "user", "print", "example")
	return cmd
}

func initPath(output, named string, user bool) (string, error) {
	switch {
	case output != "":
		return output, nil
	case user:
		path := config.UserPath()
		if path == "" {
			return "", errors.New("this user has no home folder: name a file with --output")
		}
		return path, nil
	case named != "":
		return named, nil
	}
	return "vllmdeck.yaml", nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func errExists(path string) error {
	return fmt.Errorf("%s is there already: --force replaces it, --print shows what would be written", path)
}

// writeConfig writes a config whole or not at all. Without force it never touches a file that
// is there, however late that appeared.
func writeConfig(path string, text []byte, force bool) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write config: %w: \"vllmdeck init --output FILE\" writes it elsewhere", err)
	}
	tmp, err := os.CreateTemp(dir, ".vllmdeck-*.yaml")
	if err != nil {
		return fmt.Errorf("write config: %w: \"vllmdeck init --output FILE\" writes it elsewhere", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	switch {
	case err != nil:
	case force:
		if real, linkErr := filepath.EvalSymlinks(path); linkErr == nil {
			path = real // keep a link, replace what it leads to
		}
		err = os.Rename(tmp.Name(), path)
	default:
		if err = os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
			return errExists(path)
		}
	}
	if err != nil {
		return fmt.Errorf("write config: %w: \"vllmdeck init --output FILE\" writes it elsewhere", err)
	}
	return nil
}

func showFound(w io.Writer, m machine) {
	found := m.found()
	if len(found) == 0 {
		fmt.Fprintln(w, "Found no GPU, no vLLM, no model and no running vLLM server.")
		return
	}
	fmt.Fprintln(w, "Found on this machine:")
	for _, line := range found {
		fmt.Fprintln(w, "  "+printable(line))
	}
}

// printable keeps foreign text (names that servers and drivers give) from moving the cursor.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '\uFFFD'
		}
		return c
	}, s)
}

// nextCommand says what to run now.
func nextCommand(path string, m machine) string {
	start := "vllmdeck"
	if found, ok, err := config.Find(""); err != nil || !ok || !sameFile(found, path) {
		start += " --config " + path
	}
	if m.canServe() {
		return "Next: " + start
	}
	return fmt.Sprintf("Next: vllmdeck setup cpu   for a real vLLM on the CPU\n  or: %s   to look around with what there is", start)
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}
