// Package route chooses which upstream serves a request: filter, score, pick. It also holds
// the breaker and the retry budget. It does no IO and reads no clock: candidates and time are
// arguments.
package route
