// Package gateway is the OpenAI-compatible endpoint: routes, keys, limits, the copy loop with
// its tap, errors in OpenAI's shape. It knows upstreams and accounts only through two small
// interfaces, and never hands a client a clean end of an incomplete answer. Plain requests are
// served without net/http: see lane.
package gateway
