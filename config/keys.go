package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// unknownKey reports a key that is not one of ours, with the one that was meant.
func (d *decoder) unknownKey(e entry, t reflect.Type, path string) {
	keys := keysOf(t)
	hint := "keys here: " + strings.Join(keys, ", ")
	if len(keys) > 14 {
		hint = `"vllmdeck init --example" shows every key` // the list would fill the screen
	}
	near := nearest(e.key, keys)
	homes := homesOf(e.key)
	switch {
	case len(homes) > 0 && (near == "" || distance(e.key, near) > 1):
		hint = fmt.Sprintf("%s belongs under %s", e.key, strings.Join(homes, " or "))
	case near != "":
		hint = fmt.Sprintf("did you mean %q?", near)
		d.broken[join(path, near)] = true
	}
	d.problemAt(e.at, join(path, e.key), hint, "unknown key %q", e.key)
}

// homesOf lists where in a config a key lives, e.g. "workers[].vllm".
func homesOf(key string) []string {
	var out []string
	eachKey(reflect.TypeFor[Config](), "", func(path, k string) {
		if k == key {
			if path == "" {
				path = "the top level"
			}
			out = append(out, path)
		}
	})
	return out
}

// eachKey calls f for each key of t and of the types within.
func eachKey(t reflect.Type, path string, f func(path, key string)) {
	for field := range t.Fields() {
		key := field.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		f(path, key)
		sub, depth := field.Type, 0
		for sub.Kind() == reflect.Pointer || sub.Kind() == reflect.Slice {
			if sub.Kind() == reflect.Slice {
				depth++
			}
			sub = sub.Elem()
		}
		if sub.Kind() == reflect.Struct && sub != reflect.TypeFor[Secret]() {
			eachKey(sub, join(path, key)+strings.Repeat("[]", depth), f)
		}
	}
}

// nearest gives the name that word was likely meant to be; "" if none is near.
func nearest(word string, names []string) string {
	// A third of the letters may differ: gpu_hours, max-body and modle are near, bogus is not.
	best, at := "", max(1, len(word)/3)+1
	for _, name := range slices.Sorted(slices.Values(names)) {
		if d := distance(word, name); d < at {
			best, at = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, change or swap with their neighbour to make a
// into b (optimal string alignment). Case, and - against _, do not count.
func distance(a, b string) int {
	fold := func(s string) []rune { return []rune(strings.ReplaceAll(strings.ToLower(s), "-", "_")) }
	x, y := fold(a), fold(b)
	if len(x) > 64 || len(y) > 64 {
		return 64
	}
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
