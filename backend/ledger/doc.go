// Package ledger is the append-only record of requests in SQLite: opened, closed, never
// dropped; and the queries behind every money figure.
//
// A request is written when it is dispatched and again when it ends, by one goroutine, in
// batches of at most 50 ms. Hourly sums are written in the same transaction, so that they are
// never a second truth. When the database cannot be written, rows go to a file beside it
// and are brought in later, each exactly once; when that fails too they wait in memory.
//
// A request's Actual is the cost of its last leg. The legs before it failed: they are booked
// by themselves, under class retry. Worker time is recorded apart from requests; what of its
// cost is nobody's share is idle.
package ledger
