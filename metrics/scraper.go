package metrics

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Scraper reads the metrics of one vLLM server. Its fields are set before use and not
// changed after.
type Scraper struct {
	URL    string       // base of the server, e.g. http://127.0.0.1:18000
	Key    string       // bearer token; "" for none
	Client *http.Client // nil: http.DefaultClient; the caller's context limits the time
}

// Scrape reads the page once. A server that answers with another status than 200 is an error.
func (s Scraper) Scrape(ctx context.Context) (*Sample, error) {
	url := strings.TrimSuffix(s.URL, "/") + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", url, err)
	}
	req.Header.Set("Accept", "text/plain; version=0.0.4")
	// vLLM compresses in the process that also serves requests: over loopback that only costs.
	req.Header.Set("Accept-Encoding", "identity")
	if s.Key != "" {
		req.Header.Set("Authorization", "Bearer "+s.Key)
	}
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("scrape metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: %s", url, resp.Status)
	}
	sample, err := Read(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", url, err)
	}
	return sample, nil
}
