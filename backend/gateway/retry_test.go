package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// The rows of the retry table have their tests here and elsewhere:
//
//	dial refused, nothing written ......... TestFailureBeforeContentIsUnseen/connection_refused, TestRetriesEnd (no charge)
//	stale pooled connection ............... TestStaleKeptConnectionIsReplacedUnseen
//	429, 503, "queue full" ................ TestFailureBeforeContentIsUnseen, TestRetryAfterOfAWorkerIsHonoured, TestRetriesEnd (told to the client)
//	5xx, TTFT, error event before content . TestFailureBeforeContentIsUnseen, TestSilenceBeforeContentMovesAtTheTTFTLimit, TestRetriesEnd (budget)
//	after the first content ............... TestLossAfterContent, TestLostAnswerGoesOnElsewhere, TestWhatCannotBeContinuedIsLost
//	other 4xx ............................. TestWorkersOwnRefusalIsPassedThroughAndNeverRetried
//	store, background ..................... TestWhatIsStoredIsNotSentTwice

func TestWhatIsStoredIsNotSentTwice(t *testing.T) {
	oops := func(t testing.TB) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"error":{"message":"Internal server error"}}`)
		})
	}
	died := func(t testing.TB) string { return serveRaw(t, func(*net.TCPConn, *http.Request, string) {}) }
	busy := func(t testing.TB) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":{"message":"The engine is currently busy and cannot accept new requests."}}`)
		})
	}
	refuses := func(t testing.TB) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return "http://" + ln.Addr().String()
	}
	for _, tt := range []struct {
		name   string
		worker func(testing.TB) string
		body   string
		moves  bool
	}{
		{"store, after an error", oops, `{"model":"m","input":"x","store":true}`, false},
		{"store, after a death", died, `{"model":"m","input":"x","store":true}`, false},
		{"background, after a death", died, `{"model":"m","input":"x","background":true}`, false},
		{"store, refused", busy, `{"model":"m","input":"x","store":true}`, true},
		{"store, never sent", refuses, `{"model":"m","input":"x","store":true}`, true},
		{"store off, after a death", died, `{"model":"m","input":"x","store":false}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := second(t, tt.worker(t), goodAnswer(t))
			got := r.post(t, "/v1/responses", tt.body)
			if tt.moves != (got.status == 200) || tt.moves != (r.pool.acquired["b"] == 1) {
				t.Errorf("got %d after %d requests to the second worker, want it moved: %v", got.status, r.pool.acquired["b"], tt.moves)
			}
			if row := r.pool.row(t); !tt.moves && row.Outcome != api.OutcomeError {
				t.Errorf("outcome = %s, want error", row.Outcome)
			}
		})
	}
}

// TestTraceOfARequestIsKept is X-Request-Id and traceparent: in, to the worker of each leg, and back.
func TestTraceOfARequestIsKept(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	seen := make(chan http.Header, 3)
	watch := func(evs ...string) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			seen <- r.Header.Clone()
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			w.Header().Set("X-Request-Id", "worker-s-own")
			io.WriteString(w, strings.Join(evs, ""))
		})
	}
	r := second(t, watch(evRole), watch(evRole, evText("x"), evFinish, evDone))
	got := r.post(t, "/v1/chat/completions", streamBody, "X-Request-Id", "abc-1", "Traceparent", trace, "Tracestate", "k=v")
	if got.header.Get("X-Request-Id") != "abc-1" || got.header.Get("Traceparent") != trace {
		t.Errorf("the client got X-Request-Id %q and traceparent %q, want its own", got.header.Get("X-Request-Id"), got.header.Get("Traceparent"))
	}
	for range 2 {
		if h := <-seen; h.Get("X-Request-Id") != "abc-1" || h.Get("Traceparent") != trace || h.Get("Tracestate") != "k=v" {
			t.Errorf("a worker got %v, want the client's id and trace", h)
		}
	}
	row := r.pool.row(t)
	if row.Client != "abc-1" || row.ID == "abc-1" {
		t.Errorf("the row %s has the client's id %q, want abc-1 beside its own", row.ID, row.Client)
	}
	for name, id := range map[string]string{"none": "", "one that is no id": "a b\tc", "too long": strings.Repeat("x", 200)} {
		header := []string{}
		if id != "" {
			header = []string{"X-Request-Id", id}
		}
		got := r.post(t, "/v1/chat/completions", streamBody, header...)
		next := r.pool.row(t)
		if want := strings.ReplaceAll(id, "\t", "?"); next.Client != want[:min(len(want), 128)] {
			t.Errorf("%s: the row has %q of the client's id %q, want it as printable ASCII, 128 at most", name, next.Client, id)
		}
		for len(seen) > 1 {
			<-seen
		}
		if h := <-seen; got.header.Get("X-Request-Id") != next.ID || h.Get("X-Request-Id") != next.ID || next.ID == row.ID {
			t.Errorf("%s: client %q, worker %q, row %q; want our own id for all", name, got.header.Get("X-Request-Id"), h.Get("X-Request-Id"), next.ID)
		}
	}
}
