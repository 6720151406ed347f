package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// scalar gives the text of a plain value as it was written.
func scalar(n ast.Node) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		if n.Value == nil {
			return "", true
		}
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// wanted says in words what a type holds.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a time such as 30s"
	case reflect.TypeFor[USD]():
		return "an amount in USD such as 0.34"
	case reflect.TypeFor[Bytes]():
		return "a size such as 32MiB"
	case reflect.TypeFor[Secret]():
		return "env:NAME or file:PATH"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	return "text"
}

// setScalar sets v from text. The hint is the way out of the error.
func setScalar(v reflect.Value, text string) (hint string, err error) {
	switch v.Type() {
	case reflect.TypeFor[time.Duration]():
		dur, hint, err := parseDuration(text)
		v.SetInt(int64(dur))
		return hint, err
	case reflect.TypeFor[USD]():
		usd, hint, err := parseUSD(text)
		v.SetInt(int64(usd))
		return hint, err
	case reflect.TypeFor[Bytes]():
		size, hint, err := parseBytes(text)
		v.SetInt(int64(size))
		return hint, err
	}
	switch v.Kind() {
	case reflect.String:
		if strings.ContainsFunc(text, unicode.IsControl) {
			return "write plain text on one line", errors.New("a control character or a line break in the value")
		}
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return "", fmt.Errorf("want a whole number, got %q", text)
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return "", fmt.Errorf("want a number, got %q", text)
		}
		v.SetFloat(f)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		case "yes", "on":
			return "write true", fmt.Errorf("want true or false, got %q", text)
		case "no", "off":
			return "write false", fmt.Errorf("want true or false, got %q", text)
		default:
			return "", fmt.Errorf("want true or false, got %q", text)
		}
	}
	return "", nil
}
