package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// route is one way to ask for text.
type route struct {
	name string // as the ledger has it
	path string
	body string                       // with %q the prompt, %d the tokens, %t whether it streams
	ev   func(a *answer, data string) // reads one event of a stream
	text func(a *answer, body []byte) // reads a whole answer
}

var routes = []route{
	{"chat", "/v1/chat/completions", `{"model":"toy","messages":[{"role":"user","content":%q}],"max_tokens":%d,"temperature":0,"ignore_eos":true,"stream":%t`, chatEvent, chatWhole},
	{"completions", "/v1/completions", `{"model":"toy","prompt":%q,"max_tokens":%d,"temperature":0,"ignore_eos":true,"stream":%t`, chatEvent, chatWhole},
	{"messages", "/v1/messages", `{"model":"toy","messages":[{"role":"user","content":%q}],"max_tokens":%d,"temperature":0,"stream":%t`, messagesEvent, messagesWhole},
	{"responses", "/v1/responses", `{"model":"toy","input":%q,"max_output_tokens":%d,"temperature":0,"store":false,"stream":%t`, responsesEvent, responsesWhole},
}

// routeOf finds a route by its name.
func routeOf(name string) route {
	for _, r := range routes {
		if r.name == name {
			return r
		}
	}
	panic("there is no route " + name)
}

// request writes a body.
func (r route) request(prompt string, tokens int, stream bool) string {
	b := fmt.Sprintf(r.body, prompt, tokens, stream)
	if stream && (r.name == "chat" || r.name == "completions") {
		b += `,"stream_options":{"include_usage":true}`
	}
	return b + "}"
}

// wire is what may be in an event or answer of any route.
type wire struct {
	ID      string
	Type    string
	Choices []struct {
		Delta   struct{ Role, Content string }
		Message struct{ Content string }
		Text    string
		Finish  string `json:"finish_reason"`
	}
	Delta      json.RawMessage
	Content    []struct{ Text string }
	StopReason string `json:"stop_reason"`
	Usage      *struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	}
	Response *struct {
		Status string
		Usage  *struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
	}
	Output []struct{ Content []struct{ Text string } }
	Status string
	Error  *struct{ Message, Type string }
}

// failure counts an error in either of the two shapes.
func (a *answer) failure(w *wire) bool {
	if w.Error == nil || w.Error.Message == "" || w.Error.Type == "" {
		return false
	}
	a.errors++
	a.told = w.Error.Message
	return true
}

// says adds text of the answer.
func (a *answer) says(text string) {
	if text == "" {
		return
	}
	a.late = a.late || a.errors > 0
	a.text += text
	a.events++
}

func (a *answer) read(text string, w *wire) bool {
	if err := json.Unmarshal([]byte(text), w); err != nil {
		a.junk = fmt.Sprintf("%.200q: %v", text, err)
		return false
	}
	return true
}

func chatEvent(a *answer, data string) {
	if data == "[DONE]" {
		a.done = true
		return
	}
	var w wire
	if !a.read(data, &w) || a.failure(&w) {
		return
	}
	a.ids[w.ID] = true
	if w.Usage != nil {
		a.input, a.output, a.hasUsage = w.Usage.Prompt, w.Usage.Completion, true
	}
	for _, c := range w.Choices {
		if c.Delta.Role != "" {
			a.roles++
		}
		a.says(c.Delta.Content + c.Text)
		a.finish += c.Finish
	}
}

func chatWhole(a *answer, body []byte) {
	var w wire
	if !a.read(string(body), &w) || a.failure(&w) {
		return
	}
	for _, c := range w.Choices {
		a.says(c.Message.Content + c.Text)
		a.finish += c.Finish
	}
	if w.Usage != nil {
		a.input, a.output, a.hasUsage = w.Usage.Prompt, w.Usage.Completion, true
	}
	a.done = true
}

func messagesEvent(a *answer, data string) {
	var w wire
	if !a.read(data, &w) || a.failure(&w) {
		return
	}
	var delta struct {
		Text       string
		StopReason string `json:"stop_reason"`
	}
	if len(w.Delta) > 0 && w.Delta[0] == '{' {
		_ = json.Unmarshal(w.Delta, &delta)
	}
	switch w.Type {
	case "content_block_delta":
		a.says(delta.Text)
	case "message_delta":
		a.finish += delta.StopReason
		if w.Usage != nil {
			a.input, a.output, a.hasUsage = w.Usage.Input, w.Usage.Output, true
		}
	case "message_stop":
		a.done = true
	}
}

func messagesWhole(a *answer, body []byte) {
	var w wire
	if !a.read(string(body), &w) || a.failure(&w) {
		return
	}
	for _, c := range w.Content {
		a.says(c.Text)
	}
	a.finish = w.StopReason
	if w.Usage != nil {
		a.input, a.output, a.hasUsage = w.Usage.Input, w.Usage.Output, true
	}
	a.done = true
}

func responsesEvent(a *answer, data string) {
	var w wire
	if data == "[DONE]" || !a.read(data, &w) {
		return
	}
	if w.Type == "error" && w.Error == nil { // OpenAI's own shape has its fields at the top
		a.errors++
		return
	}
	if a.failure(&w) {
		return
	}
	switch {
	case w.Type == "response.completed", w.Type == "response.incomplete":
		a.done = true
		if w.Response != nil {
			a.finish = w.Response.Status
			if u := w.Response.Usage; u != nil {
				a.input, a.output, a.hasUsage = u.Input, u.Output, true
			}
		}
	case strings.HasSuffix(w.Type, "output_text.delta"):
		var text string
		_ = json.Unmarshal(w.Delta, &text)
		a.says(text)
	}
}

func responsesWhole(a *answer, body []byte) {
	var w wire
	if !a.read(string(body), &w) || a.failure(&w) {
		return
	}
	for _, o := range w.Output {
		for _, c := range o.Content {
			a.says(c.Text)
		}
	}
	a.finish = w.Status
	if w.Usage != nil {
		a.input, a.output, a.hasUsage = w.Usage.Input, w.Usage.Output, true
	}
	a.done = true
}
