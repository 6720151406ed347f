// Package ledger is the append-only record of requests in SQLite: opened, closed, never
// dropped; and the queries behind every money figure.
package ledger
