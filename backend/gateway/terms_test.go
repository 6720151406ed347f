package gateway

import (
	"testing"

	"github.com/tidwall/gjson"
)

// FuzzTerms makes continuations of whatever clients send: what can be continued at all gives a valid request that asks for it.
func FuzzTerms(f *testing.F) {
	f.Add([]byte(story(`,"max_tokens":9,"min_tokens":1`)), []byte(`so far\n`), []byte(``), false)
	f.Add([]byte(`{"messages":[{}],"max_completion_tokens":1e2,"stream":true,"priority":1}`), []byte(`é\ud83d\ude00`), []byte(`hm`), false)
	f.Add([]byte(`{ "prompt" : "x" , "stream" : true }`), []byte(`y`), []byte(``), true)
	f.Add([]byte(`{"messages":[ ],"add_generation_prompt":true,"continue_final_message":false}`), []byte(`y`), []byte(``), false)
	f.Fuzz(func(t *testing.T, body, text, thought []byte, completions bool) {
		d := &dialects[0]
		if completions {
			d = &dialects[1]
		}
		if !gjson.Valid(`"`+string(text)+`"`) || !gjson.Valid(`"`+string(thought)+`"`) || len(text) == 0 {
			return // a tap keeps nothing else
		}
		var q request
		if q.parse(body, d) != nil {
			return
		}
		terms, err := q.readTerms(d)
		if err != nil {
			return
		}
		edits := terms.edits(q.edits(nil, "served", ""), d, q.body, text, thought, 0)
		sortEdits(edits)
		for i := range edits {
			if i > 0 && edits[i].from < edits[i-1].to {
				t.Fatalf("edits overlap: %+v", edits)
			}
		}
		next := splice(nil, q.body, edits)
		if !gjson.ValidBytes(next) {
			t.Fatalf("the continuation of %s is no JSON: %s", body, next)
		}
		var again request
		if err := again.parse(next, d); err != nil || again.model != "served" {
			t.Fatalf("the continuation %s has model %q, error %v", next, again.model, err)
		}
		v := gjson.ParseBytes(next)
		want := gjson.Parse(`"` + string(text) + `"`).Str
		if completions {
			if got := v.Get("prompt").Str; got != gjson.GetBytes(body, "prompt").Str+want {
				t.Errorf("prompt = %q, want it to end in %q", got, want)
			}
		} else {
			m := v.Get("messages").Array()
			if last := m[len(m)-1]; last.Get("role").Str != "assistant" || last.Get("content").Str != want || !v.Get("continue_final_message").Bool() || v.Get("add_generation_prompt").Bool() {
				t.Errorf("the continuation is %s, want %q as the last message", next, want)
			}
		}
		for _, with := range [][]byte{nil, text} {
			if ask := terms.question(d, q.body, "served", with, thought); !gjson.ValidBytes(ask) {
				t.Errorf("the question for /tokenize is no JSON: %s", ask)
			}
		}
	})
}

// FuzzFace rewrites events of a later leg.
func FuzzFace(f *testing.F) {
	f.Add([]byte(`{"id":"x","created":1,"model":"m","choices":[{"delta":{"content":"hi"}}]}`), false)
	f.Add([]byte(`{"id":"x","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}`), true)
	f.Add([]byte("{\n\"model\":\"a\",\n\"id\":null}"), true)
	own := face{id: `"own"`, object: `"o"`, created: `7`, model: `"mine"`}
	f.Fuzz(func(t *testing.T, data []byte, usage bool) {
		if v := gjson.ParseBytes(data); !gjson.ValidBytes(data) || !v.IsObject() {
			return
		}
		ev := own.put(data, usage, disjoint(10, 2, 5, 0))
		got, _ := fields(ev)
		v, was := gjson.ParseBytes(got), gjson.ParseBytes(data)
		if !gjson.ValidBytes(got) {
			t.Fatalf("%q became %q, which is no JSON", data, got)
		}
		for path, want := range map[string]string{"id": own.id, "created": own.created, "model": own.model} {
			if was.Get(path).Exists() && v.Get(path).Raw != want {
				t.Errorf("%s of %s is %s, want %s", path, got, v.Get(path).Raw, want)
			}
		}
	})
}
