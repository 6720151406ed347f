package sim

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// schema is as much of JSON Schema as a made-up answer needs.
type schema struct {
	Type       any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	Enum       []json.RawMessage  `json:"enum"`
	Minimum    *float64           `json:"minimum"`
	Maximum    *float64           `json:"maximum"`
}

// answerSchema is what a bare json_object gets.
var answerSchema = &schema{Type: "object", Properties: map[string]*schema{"answer": {Type: "string"}}, Required: []string{"answer"}}

// fill writes a value that fits: required properties in their order, or all if none is.
func (s *schema) fill(w *writer) string {
	var b strings.Builder
	s.write(&b, w, 0)
	return b.String()
}

func (s *schema) write(b *strings.Builder, w *writer, depth int) {
	if s == nil || depth > 8 {
		b.WriteString("null")
		return
	}
	if len(s.Enum) > 0 {
		b.Write(s.Enum[w.r.IntN(len(s.Enum))])
		return
	}
	kind, _ := s.Type.(string)
	if kind == "" && s.Properties != nil {
		kind = "object"
	}
	switch kind {
	case "object":
		b.WriteString("{")
		names := s.Required
		if len(names) == 0 {
			names = slices.Sorted(maps.Keys(s.Properties))
		}
		for i, n := range names {
			if i > 0 {
				b.WriteString(", ")
			}
			b.Write(appendJSON(nil, n))
			b.WriteString(": ")
			s.Properties[n].write(b, w, depth+1)
		}
		b.WriteString("}")
	case "array":
		b.WriteString("[")
		for i := range 2 {
			if i > 0 {
				b.WriteString(", ")
			}
			s.Items.write(b, w, depth+1)
		}
		b.WriteString("]")
	case "boolean":
		b.WriteString([]string{"true", "false"}[w.r.IntN(2)])
	case "integer", "number":
		lo, hi := 1.0, 10.0
		if s.Minimum != nil {
			lo, hi = *s.Minimum, *s.Minimum+9
		}
		if s.Maximum != nil {
			hi = *s.Maximum
		}
		v, _ := json.Marshal(int(lo + float64(w.r.IntN(max(1, int(hi-lo)+1)))))
		b.Write(v)
	case "string":
		b.Write(appendJSON(nil, w.fact()))
	default:
		b.WriteString("null")
	}
}
