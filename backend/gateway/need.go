package gateway

import "github.com/tidwall/gjson"

// need is what is known of the call's cost before it is sent. Of several limits to an answer, and of
// one that stands twice, the greatest counts: which one the upstream takes is not known.
func (c *call) need() Need {
	n := Need{ID: c.row.ID, Route: c.d.name, Class: c.row.Class, Model: c.row.Model, Bytes: len(c.req.body), Answers: min(c.req.n, 1<<20)}
	_ = members(c.req.body, func(raw []byte, m member) error { // it was read before, without an error
		key := string(unescape(raw))
		switch key {
		case "max_tokens", "max_completion_tokens", "max_output_tokens", "best_of":
		default:
			return nil
		}
		// What is no number, less than 1 or beyond all counting, the upstream refuses in its own words.
		limit := gjson.ParseBytes(m.raw(c.req.body))
		switch v := limit.Num; {
		case limit.Type != gjson.Number || !(v >= 1 && v < 1<<53):
		case key == "best_of":
			n.Answers = max(n.Answers, int(min(v, 1<<20)))
		default:
			n.MaxTokens = max(n.MaxTokens, int64(v))
		}
		return nil
	})
	if c.d.name == "completions" {
		n.Answers *= c.req.prompts()
	}
	return n
}

// prompts is how many prompts a request for completions has: each gets its own answers. A list of
// numbers is one prompt in tokens.
func (q *request) prompts() int {
	if q.inputAt.value == 0 {
		return 1
	}
	v := inPlace(q.inputAt.raw(q.body))
	if !v.IsArray() {
		return 1
	}
	n := 0
	v.ForEach(func(_, p gjson.Result) bool {
		if p.Type == gjson.Number {
			n = 1
			return false
		}
		n++
		return true
	})
	return max(n, 1)
}
