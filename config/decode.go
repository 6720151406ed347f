package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// decoder fills a Config from the syntax tree. The library's own decoder stops at the first
// mistake and reads numbers as floats; this one goes on and reads the text as written.
type decoder struct {
	*report
	surroundings
	anchors map[string]ast.Node
	budget  int // nodes that may still be visited: aliases can multiply a small text
}

// maxNodes is how many values a config may have once its aliases are followed. Sixteen
// workers with everything set have about 1,000.
const maxNodes = 50_000

// defaulter is a type whose zero value is not its default.
type defaulter interface{ setDefaults() }

func (d *decoder) decodeRoot(root *ast.MappingNode, c *Config) {
	d.budget = maxNodes
	d.anchors = map[string]ast.Node{}
	ast.Walk(anchorVisitor{d}, root)
	d.places[""] = place{}
	d.decodeStruct(root, reflect.ValueOf(c).Elem(), "")
}

type anchorVisitor struct{ d *decoder }

// Visit notes anchors. A name that is used twice keeps its first value, and is a mistake.
func (v anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		name := a.Name.GetToken().Value
		if _, twice := v.d.anchors[name]; twice {
			v.d.problemAt(placeOf(a), "", "give it another name", "a second anchor &%s", name)
		} else {
			v.d.anchors[name] = a.Value
		}
	}
	return v
}

// resolve follows anchors and aliases to a value. Nil: reported, or nothing there.
func (d *decoder) resolve(n ast.Node, path string) ast.Node {
	for range maxDepth {
		if d.budget--; d.budget < 0 {
			if d.budget == -1 {
				d.problemAt(placeOf(n), path, "write the values out", "more than %d values once aliases are followed", maxNodes)
			}
			return nil
		}
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.AliasNode:
			name := ""
			if x.Value != nil {
				name = x.Value.GetToken().Value
			}
			target, ok := d.anchors[name]
			if !ok {
				d.problemAt(placeOf(n), path, "an anchor is set with &"+name, "no anchor is named %q", name)
				return nil
			}
			n = target
		case *ast.TagNode:
			d.problemAt(placeOf(n), path, "leave it out", "the tag %s means nothing here", x.Start.Value)
			n = x.Value
		case *ast.NullNode:
			return nil
		default:
			return n
		}
	}
	d.problemAt(placeOf(n), path, "write the value out", "an alias that leads to itself")
	return nil
}

// entry is one key of a mapping with its value.
type entry struct {
	key   string
	at    place
	value ast.Node
}

// entries lists the keys of a mapping, those of merged mappings last. A key that is there
// twice is reported and listed once.
func (d *decoder) entries(n ast.Node, path string, depth int) []entry {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	}
	var out, merged []entry
	seen := map[string]place{}
	for _, v := range values {
		if d.budget--; d.budget < 0 {
			break
		}
		at := placeOf(v.Key)
		if v.Key.IsMergeKey() {
			merged = append(merged, d.merge(v.Value, path, at, depth)...)
			continue
		}
		key, ok := scalar(v.Key)
		if !ok {
			d.problemAt(at, path, "write it as one word", "a key must be plain text")
			continue
		}
		if first, twice := seen[key]; twice {
			d.problemAt(at, join(path, key), fmt.Sprintf("keep one of the two; the other is in line %d", first.line), "the key %q is here twice", key)
			continue
		}
		seen[key] = at
		out = append(out, entry{key, at, v.Value})
	}
	for _, e := range merged {
		if _, own := seen[e.key]; !own {
			seen[e.key] = e.at
			out = append(out, e)
		}
	}
	return out
}

// merge lists the keys that "<<:" brings in.
func (d *decoder) merge(n ast.Node, path string, at place, depth int) []entry {
	if depth > maxDepth {
		d.problemAt(at, path, "write the keys out", "a merge that leads to itself")
		return nil
	}
	switch x := d.resolve(n, path).(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return d.entries(x, path, depth+1)
	case *ast.SequenceNode:
		var out []entry
		for _, v := range x.Values {
			out = append(out, d.merge(v, path, at, depth+1)...)
		}
		return out
	}
	d.problemAt(at, path, "<<: takes *NAME of an anchor", "nothing to merge")
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *decoder) decodeStruct(n ast.Node, v reflect.Value, path string) {
	if !isMapping(n) {
		d.problem(path, structHint(v.Type(), n), "want keys with values, got %s", kindOf(n))
		return
	}
	fields := fieldsOf(v.Type())
	for _, e := range d.entries(n, path, 0) {
		p := join(path, e.key)
		i, ok := fields[e.key]
		if !ok {
			d.unknownKey(e, v.Type(), path)
			continue
		}
		d.places[p] = placeOf(e.value)
		if _, null := e.value.(*ast.NullNode); null || d.places[p].line == 0 {
			d.places[p] = e.at
		}
		d.decode(e.value, v.Field(i), p)
	}
}

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// structHint helps with "restart: never", "vllm: /models/m" and their like.
func structHint(t reflect.Type, n ast.Node) string {
	short := map[reflect.Type]string{
		reflect.TypeFor[Restart]():  "restart: {policy: %s}",
		reflect.TypeFor[VLLM]():     "vllm: {path: %s}",
		reflect.TypeFor[Sleep]():    "sleep: {after: %s}",
		reflect.TypeFor[SpendCap](): "spend_cap: {day: %s}",
	}
	text, ok := scalar(n)
	if ok && t == reflect.TypeFor[Sleep]() && slices.Contains([]string{"yes", "no", "true", "false", "on", "off"}, strings.ToLower(text)) {
		return "write sleep: {} for its defaults, and nothing for a worker that does not sleep"
	}
	if ok && short[t] != "" {
		return fmt.Sprintf("write "+short[t], quote(text))
	}
	return "keys here: " + strings.Join(keysOf(t), ", ")
}

// fieldsOf maps the keys of a struct to its fields.
func fieldsOf(t reflect.Type) map[string]int {
	out := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			out[key] = i
		}
	}
	return out
}

// keysOf lists the keys of a struct in their order.
func keysOf(t reflect.Type) []string {
	var out []string
	for field := range t.Fields() {
		if key := field.Tag.Get("yaml"); key != "" && key != "-" {
			out = append(out, key)
		}
	}
	return out
}

// decode fills v from n. A value that is left empty ("tls:") is as if the key were not there.
func (d *decoder) decode(n ast.Node, v reflect.Value, path string) {
	if n = d.resolve(n, path); n == nil {
		return
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		if x, ok := reflect.TypeAssert[defaulter](p); ok {
			x.setDefaults()
		}
		d.decode(n, p.Elem(), path)
		v.Set(p)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[Secret]() {
			d.decodeStruct(n, v, path)
			return
		}
	case reflect.Slice:
		d.decodeList(n, v, path)
		return
	case reflect.Map:
		d.decodeMap(n, v, path)
		return
	}
	text, ok := scalar(n)
	if !ok {
		d.problem(path, scalarHint(v.Type(), path), "want %s, got %s", wanted(v.Type()), kindOf(n))
		return
	}
	if v.Type() == reflect.TypeFor[Secret]() {
		if !isRef(strings.TrimSpace(text)) {
			d.hide(n.GetToken().Origin)
			d.hide(text)
		}
		v.Set(reflect.ValueOf(d.secret(text, path)))
		return
	}
	if hint, err := setScalar(v, text); err != nil {
		d.problem(path, hint, "%v", err)
	}
}

func scalarHint(t reflect.Type, path string) string {
	switch {
	case strings.HasSuffix(path, ".gpus") && t.Kind() == reflect.Int:
		return "here gpus counts the GPUs of a server that runs already; which ones a launched server gets is gpus under vllm"
	case t == reflect.TypeFor[Secret]():
		return "write env:NAME or file:PATH"
	case strings.HasSuffix(path, ".attach"):
		return `write the URL alone, e.g. attach: "http://127.0.0.1:8001"`
	}
	return ""
}

// decodeList also takes a single plain value as a list of one.
func (d *decoder) decodeList(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	elem := v.Type().Elem()
	if !ok {
		if _, plain := scalar(n); !plain || elem.Kind() != reflect.String {
			d.problem(path, `begin each entry with "- "`, "want a list, got %s", kindOf(n))
			return
		}
		d.places[path+"[0]"] = placeOf(n)
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.decode(n, v.Index(0), path+"[0]")
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(seq.Values))
	for i, n := range seq.Values {
		p := fmt.Sprintf("%s[%d]", path, i)
		d.places[p] = placeOf(n)
		if d.places[p].line == 0 {
			d.places[p] = d.places[path]
		}
		item := reflect.New(elem)
		if x, ok := reflect.TypeAssert[defaulter](item); ok {
			x.setDefaults()
		}
		if _, empty := n.(*ast.NullNode); empty {
			d.problem(p, "fill it in or delete the dash", "an empty entry")
		} else {
			d.decode(n, item.Elem(), p)
		}
		out = reflect.Append(out, item.Elem())
		if d.budget < 0 {
			break
		}
	}
	v.Set(out)
}

// decodeMap reads names of the operator's choice with text values.
func (d *decoder) decodeMap(n ast.Node, v reflect.Value, path string) {
	if !isMapping(n) {
		d.problem(path, "write NAME: value", "want keys with values, got %s", kindOf(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, e := range d.entries(n, path, 0) {
		p := join(path, e.key)
		d.places[p] = placeOf(e.value)
		if d.places[p].line == 0 {
			d.places[p] = e.at
		}
		text, ok := scalar(d.resolve(e.value, p))
		if !ok {
			if _, null := e.value.(*ast.NullNode); !null {
				d.problem(p, "", "want text, got %s", kindOf(e.value))
				continue
			}
		}
		out.SetMapIndex(reflect.ValueOf(e.key), reflect.ValueOf(text))
	}
	v.Set(out)
}
