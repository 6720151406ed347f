package simtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// answer is a whole HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// chunk is one server-sent event.
type chunk struct {
	event string
	data  string
}

func (t Target) do(tb testing.TB, method, path, body string, header ...string) answer {
	tb.Helper()
	res := t.send(context.Background(), tb, method, path, body, header...)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatalf("%s %s: read answer: %v", method, path, err)
	}
	return answer{res.StatusCode, res.Header, data}
}

func (t Target) send(ctx context.Context, tb testing.TB, method, path, body string, header ...string) *http.Response {
	tb.Helper()
	req, err := http.NewRequestWithContext(ctx, method, t.BaseURL+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := t.Client.Do(req)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	return res
}

// stream sends a request and gives all events of its answer.
func (t Target) stream(tb testing.TB, path, body string) []chunk {
	tb.Helper()
	a := t.do(tb, "POST", path, body)
	if a.status != 200 {
		tb.Fatalf("POST %s: HTTP %d: %s", path, a.status, a.body)
	}
	if got, want := a.header.Get("Content-Type"), "text/event-stream; charset=utf-8"; got != want {
		tb.Errorf("POST %s: Content-Type = %q, want %q", path, got, want)
	}
	return events(tb, a.body)
}

// events splits a stream and checks that it is nothing but events.
func events(tb testing.TB, body []byte) []chunk {
	tb.Helper()
	var out []chunk
	var c chunk
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "":
			if c != (chunk{}) {
				out = append(out, c)
			}
			c = chunk{}
		case strings.HasPrefix(line, "event: "):
			c.event = strings.TrimPrefix(line, "event: ")
		case strings.HasPrefix(line, "data: "):
			c.data += strings.TrimPrefix(line, "data: ")
		default:
			tb.Errorf("stream has the line %q, want event: or data:", line)
		}
	}
	return out
}

// object is decoded JSON.
type object map[string]any

func parse(tb testing.TB, data []byte) object {
	tb.Helper()
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		tb.Fatalf("answer is no JSON object: %v: %s", err, data)
	}
	return o
}

// at follows a path such as "choices.0.message.content"; nil where it leads nowhere.
func (o object) at(path string) any {
	var v any = map[string]any(o)
	for p := range strings.SplitSeq(path, ".") {
		switch c := v.(type) {
		case map[string]any:
			v = c[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(c) {
				return nil
			}
			v = c[i]
		default:
			return nil
		}
	}
	return v
}

func (o object) str(path string) string {
	s, _ := o.at(path).(string)
	return s
}

func (o object) num(path string) int {
	f, _ := o.at(path).(float64)
	return int(f)
}

// keyOrder gives the keys of a JSON object in the order they stand, nested ones left out.
func keyOrder(tb testing.TB, data []byte) string {
	tb.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	var keys []string
	depth, key := 0, true
	for {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
				key = v == '{' && depth == 1
			} else {
				depth--
				key = depth == 1
			}
		default:
			if depth != 1 {
				continue
			}
			if key {
				keys = append(keys, tok.(string))
			}
			key = !key
		}
	}
	return strings.Join(keys, " ")
}

// metrics is a scrape: name{sorted labels} to value, le written as a float.
type metrics map[string]float64

func (t Target) scrape(tb testing.TB) metrics {
	tb.Helper()
	a := t.do(tb, "GET", "/metrics", "")
	p := expfmt.NewTextParser(model.UTF8Validation)
	fams, err := p.TextToMetricFamilies(bytes.NewReader(a.body))
	if err != nil {
		tb.Fatalf("/metrics does not parse: %v", err)
	}
	m := metrics{}
	for name, f := range fams {
		for _, s := range f.GetMetric() {
			var ls []string
			for _, l := range s.GetLabel() {
				if l.GetName() == "model_name" && l.GetValue() == t.Model {
					continue
				}
				ls = append(ls, l.GetName()+"="+l.GetValue())
			}
			key := name + "{" + strings.Join(ls, ",") + "}"
			switch {
			case s.GetHistogram() != nil:
				m[name+"_count{"+strings.Join(ls, ",")+"}"] = float64(s.GetHistogram().GetSampleCount())
				m[name+"_sum{"+strings.Join(ls, ",")+"}"] = s.GetHistogram().GetSampleSum()
			case s.GetCounter() != nil:
				m[key] = s.GetCounter().GetValue()
			case s.GetGauge() != nil:
				m[key] = s.GetGauge().GetValue()
			}
		}
	}
	return m
}

// engine reads a metric with no labels beside engine and model_name.
func (m metrics) engine(name string) float64 { return m[name+"{engine=0}"] }

// WaitReady waits until a server answers /health.
func WaitReady(tb testing.TB, c *http.Client, url string) {
	tb.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url+"/health", nil)
		if err != nil {
			tb.Fatal(err)
		}
		res, err := c.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-deadline.C:
			tb.Fatalf("%s is not ready after 10 s: %v", url, err)
		case <-tick.C:
		}
	}
}
