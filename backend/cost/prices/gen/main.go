package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/cost"
)

func main() {
	dir := flag.String("dir", "backend/cost/prices", "folder of the lists and the table")
	trim := flag.Bool("trim", false, "first cut the two upstream files given (LiteLLM's, genai-prices') down to prices/source")
	flag.Parse()
	if err := run(*dir, *trim, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir string, trim bool, args []string) error {
	source := filepath.Join(dir, "source")
	if trim {
		if len(args) != 2 {
			return errors.New("-trim takes two files: LiteLLM's and genai-prices'")
		}
		if err := trimLiteLLM(args[0], source); err != nil {
			return err
		}
		if err := trimGenAI(args[1], source); err != nil {
			return err
		}
	}
	t, err := cost.BuildTable(os.DirFS(source))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := cost.WriteTable(&b, t); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "table.csv.gz"), b.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d refs, %d prices rejected, %d bytes\n", t.Version(), t.Len(), len(t.Rejected()), b.Len())
	return nil
}

var dated = regexp.MustCompile(`\d{4}-\d{2}-\d{2}\.json$`)

// trimLiteLLM keeps the chat, completion and responses rows that have a price, and of them
// what is read, as the text it was. One row a line, so that a new list shows as a diff.
func trimLiteLLM(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	fields := []string{
		"litellm_provider", "mode", "input_cost_per_token", "output_cost_per_token",
		"cache_read_input_token_cost", "cache_creation_input_token_cost",
	}
	var lines []string
	for key, raw := range file {
		var row map[string]json.RawMessage
		if json.Unmarshal(raw, &row) != nil || !slices.Contains([]string{`"chat"`, `"completion"`, `"responses"`}, string(row["mode"])) {
			continue
		}
		if free(row["input_cost_per_token"]) && free(row["output_cost_per_token"]) {
			continue
		}
		lines = append(lines, quote(key)+":{"+keep(row, fields)+"}")
	}
	slices.Sort(lines)
	return write(from, to, "litellm-", "{\n"+strings.Join(lines, ",\n")+"\n}\n")
}

// trimGenAI keeps the models with a price per token, and of them the classes that are read.
func trimGenAI(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var file []struct {
		ID     string
		Models []struct {
			ID     string
			Prices json.RawMessage
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	classes := []string{"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"}
	var providers []string
	for _, p := range file {
		var models []string
		for _, m := range p.Models {
			var flat map[string]json.RawMessage
			var periods []map[string]json.RawMessage
			var prices string
			switch {
			case json.Unmarshal(m.Prices, &flat) == nil:
				prices = "{" + keep(flat, classes) + "}"
			case json.Unmarshal(m.Prices, &periods) == nil:
				var parts []string
				for _, period := range periods {
					if err := json.Unmarshal(period["prices"], &flat); err != nil {
						return fmt.Errorf("read %s: %s/%s: %w", from, p.ID, m.ID, err)
					}
					constraint := ""
					if c := period["constraint"]; c != nil {
						constraint = `"constraint":` + string(c) + ","
					}
					parts = append(parts, "{"+constraint+`"prices":{`+keep(flat, classes)+"}}")
					flat = nil
				}
				prices = "[" + strings.Join(parts, ",") + "]"
			default:
				return fmt.Errorf("read %s: %s/%s: prices are neither an object nor a list", from, p.ID, m.ID)
			}
			if strings.Contains(prices, "put_mtok") {
				models = append(models, `{"id":`+quote(m.ID)+`,"prices":`+prices+"}")
			}
		}
		if len(models) > 0 {
			providers = append(providers, `{"id":`+quote(p.ID)+",\"models\":[\n"+strings.Join(models, ",\n")+"\n]}")
		}
	}
	return write(from, to, "genai-prices-", "[\n"+strings.Join(providers, ",\n")+"\n]\n")
}

func write(from, to, prefix, text string) error {
	date := dated.FindString(from)
	if date == "" {
		return fmt.Errorf("%s: the name must end in the day it was read, as in prices_2026-07-24.json", from)
	}
	if !json.Valid([]byte(text)) {
		return fmt.Errorf("%s: trimming made broken JSON of it", from)
	}
	old, err := filepath.Glob(filepath.Join(to, prefix+"*.json"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(to, prefix+date), []byte(text), 0o644)
}

func keep(row map[string]json.RawMessage, fields []string) string {
	var parts []string
	for _, f := range fields {
		if v, ok := row[f]; ok {
			parts = append(parts, quote(f)+":"+string(v))
		}
	}
	return strings.Join(parts, ",")
}

func free(raw json.RawMessage) bool {
	var f float64
	return raw == nil || json.Unmarshal(raw, &f) == nil && f == 0
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}
