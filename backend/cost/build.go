package cost

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// BuildTable makes a table of the price lists in a folder: litellm-DATE.json and
// genai-prices-DATE.json, trimmed or whole.
func BuildTable(folder fs.FS) (*Table, error) {
	var prices []Price
	var newest string
	for _, list := range []struct {
		prefix string
		read   func(r io.Reader, date string) ([]Price, error)
	}{{"litellm-", ReadLiteLLM}, {"genai-prices-", ReadGenAI}} {
		names, err := fs.Glob(folder, list.prefix+"*.json")
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("build price table: no %s*.json", list.prefix)
		}
		for _, name := range names {
			date := strings.TrimSuffix(strings.TrimPrefix(name, list.prefix), ".json")
			f, err := folder.Open(name)
			if err != nil {
				return nil, fmt.Errorf("build price table: %w", err)
			}
			read, err := list.read(f, date)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("build price table: %s: %w", name, err)
			}
			prices = append(prices, read...)
			newest = max(newest, date)
		}
	}
	return NewTable(newest, prices), nil
}
