package gateway

import "testing"

func TestWhatAWorkerQuotesOfTheRequestIsNotKept(t *testing.T) {
	for body, want := range map[string]string{
		// As vLLM 0.32 words it.
		`{"error":{"message":"1 validation error:\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': 'no integer', 'input': 'my secret'}"}}`: "HTTP 400: 1 validation error:\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': 'no integer' …",
		`{"error":{"message":"The model does not exist."}}`: "HTTP 400: The model does not exist.",
	} {
		if got := errorText(400, []byte(body)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
