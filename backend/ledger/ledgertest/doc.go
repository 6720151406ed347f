// Package ledgertest is the contract of a ledger, to be run against every database that one is
// kept in.
package ledgertest
