package sim

import (
	"encoding/json"
	"fmt"
	"strings"
)

// tokenize answers /tokenize, for a text or a conversation.
func (x *exchange) tokenize() error {
	f, err := x.body()
	if err != nil {
		return err
	}
	model := f.str("model")
	var ids []int32
	if text := f.str("prompt"); text != nil {
		ids = encode(nil, *text)
	} else if _, ok := f.get("messages"); ok {
		ms, merr := f.messages("messages", x.s.o.Model)
		if merr != nil {
			return merr
		}
		open := f.is("continue_final_message")
		add := f.boolean("add_generation_prompt")
		if len(ms) > 0 {
			ids = template(ms, !open && (add == nil || *add), open)
		}
	} else if len(f.errs) == 0 {
		f.missing("prompt")
		f.missing("messages")
	}
	strs := f.is("return_token_strs")
	if err := f.err(); err != nil {
		return err
	}
	if err := x.s.o.knows(model); err != nil {
		return err
	}
	b := fmt.Appendf(nil, `{"count":%d,"max_model_len":%d,"tokens":`, len(ids), x.s.o.MaxLen)
	b = appendInts(b, ids)
	b = append(b, `,"token_strs":`...)
	if strs {
		b = append(b, '[')
		for i, id := range ids {
			if i > 0 {
				b = append(b, ',')
			}
			// As byte-level vocabularies show a leading blank and a line end.
			b = appendJSON(b, strings.NewReplacer(" ", "Ġ", "\n", "Ċ").Replace(tokenText(id)))
		}
		b = append(b, ']')
	} else {
		b = append(b, "null"...)
	}
	x.json(200, append(b, '}'))
	return nil
}

// detokenize answers /detokenize.
func (x *exchange) detokenize() error {
	f, err := x.body()
	if err != nil {
		return err
	}
	model := f.str("model")
	var ids []int32
	if l, ok := f.list("tokens"); ok {
		for i, raw := range l {
			var id int32
			if json.Unmarshal(raw, &id) != nil {
				f.errs = append(f.errs, violation{"int_parsing", fmt.Sprintf("body.tokens.%d", i), "Input should be a valid integer, unable to parse string as an integer", pyRepr(raw), ""})
				break
			}
			ids = append(ids, id)
		}
	} else if len(f.errs) == 0 {
		f.missing("tokens")
	}
	if err := f.err(); err != nil {
		return err
	}
	if err := x.s.o.knows(model); err != nil {
		return err
	}
	var text strings.Builder
	for _, id := range ids {
		text.WriteString(tokenText(id))
	}
	x.json(200, fmt.Appendf(nil, `{"prompt":%s}`, quote(text.String())))
	return nil
}
